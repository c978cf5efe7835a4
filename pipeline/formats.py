"""How a picture is saved: one function a format, whose keyword arguments are the options under `save:`."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Annotated, Any, BinaryIO, Literal

from annotated_types import Ge, Le, Predicate
from PIL import Image, ImageColor

from pipeline.errors import FileFailure

Quality = Annotated[int, Ge(1), Le(100)]
# Raises ValueError, in Pillow's words, for a name that is none.
Colour = Annotated[str, Predicate(lambda name: bool(ImageColor.getrgb(name)))]


def save_jpeg(
    image: Image.Image,
    file: BinaryIO,
    *,
    quality: Quality = 82,
    progressive: bool = False,
    optimize: bool = False,
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] | None = None,
    background: Colour = "white",
) -> None:
    """JPEG; transparency is laid on `background`; colour is stored at half size below quality 90."""
    subsampling = subsampling or ("4:4:4" if quality >= 90 else "4:2:0")
    _save(
        flatten(image, background), file, "JPEG",
        quality=quality, progressive=progressive, optimize=optimize, subsampling=subsampling,
    )  # fmt: skip


def save_webp(
    image: Image.Image,
    file: BinaryIO,
    *,
    quality: Quality = 80,
    lossless: bool = False,
    method: Annotated[int, Ge(0), Le(6)] = 4,
) -> None:
    """WebP; a higher `method` is slower and makes smaller files."""
    _save(_with_colour(image), file, "WEBP", quality=quality, lossless=lossless, method=method)


def save_avif(
    image: Image.Image, file: BinaryIO, *, quality: Quality = 60, speed: Annotated[int, Ge(0), Le(10)] = 6
) -> None:
    """AVIF; a lower `speed` makes smaller files. One thread, since its bytes depend on how many there are."""
    _save(_with_colour(image), file, "AVIF", quality=quality, speed=speed, max_threads=1)


def save_png(
    image: Image.Image, file: BinaryIO, *, compress_level: Annotated[int, Ge(0), Le(9)] = 6, optimize: bool = False
) -> None:
    """PNG; lossless."""
    _save(image, file, "PNG", compress_level=compress_level, optimize=optimize)


def save_tiff(
    image: Image.Image, file: BinaryIO, *, compression: Literal["none", "lzw", "deflate", "jpeg"] = "lzw"
) -> None:
    """TIFF; lossless unless `compression` is jpeg, which lays transparency on white."""
    names = {"none": "raw", "lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate", "jpeg": "jpeg"}
    image = flatten(image, "white") if compression == "jpeg" else image
    # In memory first: libtiff would open the file once more, by a name that may not be text.
    whole = io.BytesIO()
    _save(image, whole, "TIFF", compression=names[compression])
    file.write(whole.getbuffer())


def save_gif(image: Image.Image, file: BinaryIO) -> None:
    """GIF; one frame of at most 256 colours."""
    _save(image.convert("RGBA") if image.mode == "LA" else image, file, "GIF")


Saver = Callable[..., None]
SAVERS: dict[str, Saver] = {
    ".jpg": save_jpeg,
    ".jpeg": save_jpeg,
    ".webp": save_webp,
    ".avif": save_avif,
    ".png": save_png,
    ".tif": save_tiff,
    ".tiff": save_tiff,
    ".gif": save_gif,
}


def flatten(image: Image.Image, background: str) -> Image.Image:
    """Lay a picture with transparency on a colour, named as in CSS; one without comes back as it is."""
    if image.mode not in ("LA", "RGBA"):
        return image
    ground = Image.new("RGBA", image.size, ImageColor.getrgb(background))
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("RGB")


def _with_colour(image: Image.Image) -> Image.Image:
    """For the formats that know no grey."""
    return image.convert("RGBA" if image.mode == "LA" else "RGB") if image.mode in ("L", "LA") else image


def _save(image: Image.Image, file: BinaryIO, name: str, **options: Any) -> None:
    try:
        image.save(file, name, **options)
    except OSError as error:
        if error.errno is not None:
            raise
        raise FileFailure(f"cannot be written as {name}: {error}") from error
    except (ValueError, TypeError, KeyError, OverflowError, struct.error) as error:
        raise FileFailure(f"cannot be written as {name}: {error}") from error
