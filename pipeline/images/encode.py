"""Saves pictures: one function for each format, whose keyword arguments are the options under `save:`.

Common options: `background` is the colour on which transparency is laid, `color: keep` leaves a picture in
its own colours (see `color`) and embeds their profile, and `metadata` names the kinds of metadata that are copied.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, Literal

from annotated_types import Ge, Le, Predicate
from PIL import Image, ImageColor, ImageFile, PngImagePlugin

from pipeline.errors import FileFailure
from pipeline.images.animation import Animation, map_frames, still
from pipeline.images.color import color_in, in_srgb, srgb_profile, to_mode
from pipeline.images.delays import parts_in_webp, with_delays
from pipeline.images.metadata import XMP_TAG, Metadata, load_exif
from pipeline.notes import note

Quality = Annotated[int, Ge(1), Le(100)]
# Raises ValueError, in Pillow's words, for a name that is none.
Color = Annotated[str, Predicate(lambda name: bool(ImageColor.getrgb(name)))]
Keep = Literal["srgb", "keep"]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
# Pixels: codes made for the picture take 6 % off a JPEG of 200 pixels a side for 0.1 ms, and 3 % off one of 800 for
# 1.4 ms, which shows beside the 40 ms that it takes to decode its source.
_SMALL_PIXELS = 250_000
Kept = Mapping[str, Any]
"""What is kept of the source beside the pixels, by Pillow's names."""
# Bytes of EXIF that a JPEG has room for, and pixels a side that libavif reads.
_EXIF_MAX, _AVIF_MAX = 65_527, 32_768
NOTHING: Kept = MappingProxyType({})
# How a viewer goes on from one frame to the next (GIF89a, 23.c.iv): what is drawn stays, or is cleared away.
_KEEP, _CLEAR = 1, 2
# What Pillow writes as a delay of 1, and adds up where frames are alike.
_HUNDREDTH_MS = 10
# GIF and WebP have 16 bits for how often.
_MOST_TIMES = 65_535


def save_jpeg(
    image: Image.Image,
    file: BinaryIO,
    kept: Kept = NOTHING,
    *,
    quality: Quality = 82,
    progressive: bool = False,
    optimize: bool | None = None,
    subsampling: Subsampling | None = None,
    background: Color = "white",
    color: Keep = "srgb",
    metadata: Metadata = "strip",
) -> None:
    """JPEG; transparency is laid on `background`; colour is stored at half size below quality 90.

    `optimize` chooses the codes of each picture, by default where it has up to 0.25 MP.
    """
    plain, beside = _prepared(image, background, color, metadata, kept)
    subsampling = subsampling or _subsampling_at(quality)
    if optimize is None:
        optimize = plain.width * plain.height <= _SMALL_PIXELS
    if len(beside.get("exif", b"")) > _EXIF_MAX:
        note("its EXIF is too long for a JPEG: left out")
        del beside["exif"]
    options = {"quality": quality, "progressive": progressive, "optimize": optimize, "subsampling": subsampling}
    with _room_for(plain.width * plain.height if progressive or optimize else 0):
        _save(plain, file, "JPEG", **beside, **options)


def save_webp(
    image: Image.Image,
    file: BinaryIO,
    kept: Kept = NOTHING,
    *,
    quality: Quality = 80,
    lossless: bool = False,
    method: Annotated[int, Ge(0), Le(6)] = 4,
    background: Color | None = None,
    color: Keep = "srgb",
    metadata: Metadata = "strip",
) -> None:
    """WebP, which may move; a higher `method` is slower and makes smaller files."""
    plain, beside = _prepared(image, background, color, metadata, kept, has_grey=False, moves=True)
    options = {"quality": quality, "lossless": lossless, "method": method}
    _save(plain, file, "WEBP", **beside, **options, **_webp_options(plain))


def save_avif(
    image: Image.Image,
    file: BinaryIO,
    kept: Kept = NOTHING,
    *,
    quality: Quality = 60,
    speed: Annotated[int, Ge(0), Le(10)] = 8,
    subsampling: Subsampling | None = None,
    background: Color | None = None,
    color: Keep = "srgb",
    metadata: Metadata = "strip",
) -> None:
    """AVIF; colour is stored at half size below quality 90; a lower `speed` makes smaller files.

    One thread, since its bytes depend on how many there are.
    """
    plain, beside = _prepared(image, background, color, metadata, kept, has_grey=False)
    if max(plain.size) > _AVIF_MAX:  # it would be written, and read by nobody
        raise FileFailure(f"cannot be written as AVIF: its longest side is {max(plain.size)}, limit {_AVIF_MAX}")
    options = {"quality": quality, "speed": speed, "subsampling": subsampling or _subsampling_at(quality)}
    _save(plain, file, "AVIF", **beside, **options, max_threads=1)


def _subsampling_at(quality: int) -> Subsampling:
    return "4:4:4" if quality >= 90 else "4:2:0"


def save_png(
    image: Image.Image,
    file: BinaryIO,
    kept: Kept = NOTHING,
    *,
    compress_level: Annotated[int, Ge(0), Le(9)] = 6,
    optimize: bool = False,
    background: Color | None = None,
    color: Keep = "srgb",
    metadata: Metadata = "strip",
) -> None:
    """PNG; lossless. A `compress_level` above 6 takes long to save the last byte."""
    plain, beside = _prepared(image, background, color, metadata, kept)
    if packet := beside.pop("xmp", None):
        beside["pnginfo"] = PngImagePlugin.PngInfo()
        beside["pnginfo"].add_itxt("XML:com.adobe.xmp", packet)
    # No pixels come twice in a photograph: looking for such takes three quarters of the time. A level above zlib's
    # usual one asks for the last byte.
    if compress_level <= 6 and not optimize and _has_many_colors(plain):
        beside["compress_type"] = zlib.Z_RLE
    _save(plain, file, "PNG", **beside, compress_level=compress_level, optimize=optimize)


def _has_many_colors(image: Image.Image) -> bool:
    """Return whether an image has more than one colour for every eight pixels, as photographs have and drawings not."""
    sample = image.resize((min(image.width, 512), min(image.height, 512)), Image.Resampling.NEAREST)
    return sample.getcolors(sample.width * sample.height // 8) is None


def save_tiff(
    image: Image.Image,
    file: BinaryIO,
    kept: Kept = NOTHING,
    *,
    compression: Literal["none", "lzw", "deflate", "jpeg"] = "lzw",
    background: Color | None = None,
    color: Keep = "srgb",
    metadata: Metadata = "strip",
) -> None:
    """TIFF; lossless unless `compression` is jpeg, which lays transparency on `background` or white."""
    names = {"none": "raw", "lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate", "jpeg": "jpeg"}
    background = background or ("white" if compression == "jpeg" else None)
    plain, beside = _prepared(image, background, color, metadata, kept)
    if exif := beside.pop("exif", None):
        beside["exif"] = load_exif(exif)
    if packet := beside.pop("xmp", None):
        # Pillow takes either of the two, and the EXIF may have other tags in it.
        tags = beside.setdefault("exif", Image.Exif())
        tags[XMP_TAG] = packet
    # In memory first: libtiff would open the file once more, by a name that may not be text.
    whole = io.BytesIO()
    _save(plain, whole, "TIFF", **beside, compression=names[compression])
    file.write(whole.getbuffer())


def save_gif(image: Image.Image, file: BinaryIO, kept: Kept = NOTHING, *, background: Color | None = None) -> None:
    """GIF, which may move; at most 256 colours a frame, each pixel transparent or not."""
    plain, _ = _prepared(image, background, "srgb", "strip", kept, moves=True)
    plain = map_frames(plain, _with_sharp_alpha)
    if not isinstance(plain, Animation):
        _save(plain, file, "GIF")
        return
    whole = io.BytesIO()
    _save(plain, whole, "GIF", **_gif_options(plain))
    file.write(with_delays(whole.getvalue(), _rounded(plain.timing.durations_ms, 10)))


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


def check_save(suffix: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for save options that do not go together."""
    is_tiff = SAVERS[suffix.lower()] is save_tiff
    if "gps" in options.get("metadata", ()) and not {"exif", "xmp"} & set(options["metadata"]):
        raise ValueError("'gps' adds the positions to 'exif' or 'xmp': name one of them, too")
    if is_tiff and "exif" in options["metadata"] and options["compression"] != "none":
        raise ValueError("'exif' in a TIFF needs 'compression: none': where libtiff compresses it cannot write EXIF")


def _prepared(
    image: Image.Image,
    background: str | None,
    color: Keep,
    metadata: Metadata,
    kept: Kept,
    *,
    has_grey: bool = True,
    moves: bool = False,
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the pixels as the format stores them, and the options with which Pillow writes metadata.

    Of an animation, a format that never `moves` stores the first frame.
    """

    def prepare(frame: Image.Image) -> Image.Image:
        frame = frame if color == "keep" else in_srgb(frame)
        frame = flatten(frame, background) if background else frame
        return frame if has_grey else to_mode(frame, {"L": "RGB", "LA": "RGBA"}.get(frame.mode, frame.mode))

    if isinstance(image, Animation):
        plain = map_frames(image, prepare) if moves else prepare(still(image))
    else:
        plain = prepare(image)
    # Pixels that are not sRGB are nothing without their profile.
    has_srgb = "icc" in metadata and plain.mode in ("RGB", "RGBA")
    profile = plain.info.get("icc_profile") or (srgb_profile() if has_srgb else None)
    return plain, dict(kept) | ({"icc_profile": profile} if profile else {})


@contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    """Raise Pillow's buffer for libjpeg from 1 byte a pixel to 6, since a detailed progressive scan may need more."""
    before, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, max(ImageFile.MAXBLOCK, 6 * pixels)
    try:
        yield
    finally:
        ImageFile.MAXBLOCK = before


def flatten(image: Image.Image, background: str) -> Image.Image:
    """Lay a picture with transparency on a colour.

    Args:
        image: An image in mode L, LA, RGB or RGBA.
        background: A colour as CSS names it, such as `white` or `#rrggbb`.

    Returns:
        An image in mode RGB; the same object if it has no alpha channel.

    Raises:
        ValueError: There is no such colour.
    """
    if image.mode not in ("LA", "RGBA"):
        return image
    image = to_mode(image, "RGBA")
    ground = Image.new("RGBA", image.size, color_in(image, background))
    ground.alpha_composite(image)
    flat = ground.convert("RGB")
    flat.info = dict(image.info)
    return flat


def _with_sharp_alpha(image: Image.Image) -> Image.Image:
    """Make each pixel opaque or transparent at a threshold of 50 %, since a GIF has no half-transparent pixels."""
    if image.mode not in ("LA", "RGBA"):
        return image
    image = image.convert("RGBA")
    image.putalpha(image.getchannel("A").point([255 * (alpha >= 128) for alpha in range(256)]))
    return image


def _save(image: Image.Image, file: BinaryIO, name: str, **options: Any) -> None:
    try:
        image.save(file, name, **options)
    except OSError as error:
        if error.errno is not None:
            raise
        raise FileFailure(f"cannot be written as {name}: {error}") from error
    except (ValueError, TypeError, KeyError, OverflowError, RuntimeError, struct.error) as error:
        raise FileFailure(f"cannot be written as {name}: {error}") from error


# -- animations -------------------------------------------------------------------------------------------------------


def _webp_options(image: Image.Image) -> dict[str, Any]:
    """Return the options with which Pillow writes an animated WebP; none for a still image."""
    if not isinstance(image, Animation):
        return {}
    frames, durations_ms = [], []
    for frame, duration_ms in zip(image.frames, _rounded(image.timing.durations_ms, 1), strict=True):
        parts = parts_in_webp(duration_ms)
        frames += [frame] * len(parts)
        durations_ms += parts
    loop = min(image.timing.plays, _MOST_TIMES)
    return {"save_all": True, "append_images": frames[1:], "duration": durations_ms, "loop": loop}


def _gif_options(image: Animation) -> dict[str, Any]:
    """Return the options with which Pillow writes an animated GIF whose delays are numbers of frames."""
    plays = image.timing.plays
    loop = {} if plays == 1 else {"loop": min(plays - 1, _MOST_TIMES) if plays else 0}
    # Frames are whole pictures: only where a pixel may become clear again must those before be cleared away. Optimised,
    # Pillow mistakes which index is transparent in frames that have other palettes than the first.
    clears = any(_has_transparency(frame) for frame in image.frames)
    how = {"disposal": _CLEAR, "optimize": False} if clears else {"disposal": _KEEP}
    return {"save_all": True, "append_images": image.frames[1:], **loop, **how, "duration": _HUNDREDTH_MS}


def _rounded(durations_ms: Sequence[float], unit_ms: int) -> list[int]:
    """Round durations to a format's unit; their sum is kept, and none becomes 0."""
    rounded, due_ms, said = [], 0.0, 0
    for duration_ms in durations_ms:
        due_ms += duration_ms
        rounded.append(max(1, round(due_ms / unit_ms - said)) if duration_ms else 0)
        said += rounded[-1]
    return rounded


def _has_transparency(frame: Image.Image) -> bool:
    lowest, _ = frame.getchannel("A").getextrema() if frame.mode in ("LA", "RGBA") else (255, 255)
    return lowest != 255
