"""Pictures that tests make, and how they are compared."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageChops, ImageFile, ImageStat, MpoImagePlugin

from pipeline.images.encode import SAVERS

# EXIF orientation -> what turns an upright picture into the one that is stored with this tag.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def paint(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a smooth picture without any symmetry, so that every rotation, flip, shift and stretch of it shows."""
    size = (width, height)
    across = Image.linear_gradient("L").rotate(90).resize(size)
    down = Image.linear_gradient("L").resize(size)
    spot = Image.radial_gradient("L").resize((max(1, width // 2), max(1, height // 3)))
    red = across.copy()
    red.paste(spot, (width // 8, height // 8))
    blue = Image.new("L", size, 40)
    blue.paste(spot, (width // 2, height // 2))
    return Image.merge("RGB", (red, down, blue)).convert(mode)


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    # Room for a scan of a progressive JPEG, of which Pillow writes none in parts.
    before, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, max(ImageFile.MAXBLOCK, 8 * image.width * image.height)
    try:
        image.save(file, name, **options)
    finally:
        ImageFile.MAXBLOCK = before
    return file.getvalue()


def together(name: str, images: list[Image.Image], **options: Any) -> bytes:
    """Return a file of several pictures, frames or pages."""
    return encode(images[0], name, save_all=True, append_images=images[1:], **options)


def mpo(images: list[Image.Image], kinds: list[int]) -> bytes:
    """Return an MPO whose entries have these kinds (CIPA DC-007, 5.2.3.3), written over those of Pillow."""
    data = bytearray(together("MPO", images, quality=95))
    at = data.index(b"MPF\0") + 4
    tag = data.index(struct.pack("<HH", 0xB002, 7), at)  # the list of entries, and where it lies in the segment
    entries = at + struct.unpack_from("<I", data, tag + 8)[0]
    for number, kind in enumerate(kinds):
        data[entries + 16 * number : entries + 16 * number + 3] = kind.to_bytes(3, "little")
    assert isinstance(Image.open(io.BytesIO(data)), MpoImagePlugin.MpoImageFile)
    return bytes(data)


def decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def saved(image: Image.Image, suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    SAVERS[suffix](image, file, **options)
    return file.getvalue()


def worst(one: Image.Image, other: Image.Image) -> int:
    """Return the largest difference of any channel of any pixel."""
    assert (one.mode, one.size) == (other.mode, other.size)
    return max(high for _, high in _per_channel(ImageChops.difference(one, other)))


def mean(one: Image.Image, other: Image.Image) -> float:
    assert (one.mode, one.size) == (other.mode, other.size)
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def _per_channel(image: Image.Image) -> Iterator[tuple[int, int]]:
    for channel in image.split():
        low, high = channel.getextrema()
        assert isinstance(low, int) and isinstance(high, int)
        yield low, high


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def icc_profile(space: bytes, **tags: bytes) -> bytes:
    """Return a minimal ICC v2 display profile."""
    name = b"Made by a test\0"
    tags = {
        "desc": struct.pack(">4s4xI", b"desc", len(name)) + name + bytes(78),
        "wtpt": xyz(0.9642, 1, 0.8249),
    } | tags
    index, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        index += struct.pack(">4s2I", tag.encode(), 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(index) + len(body)
    head = struct.pack(">I4xI4s4s4s12s4s28x12s48x", size, 0x02100000, b"mntr", space, b"XYZ ", bytes(12), b"acsp",
                       xyz(0.9642, 1, 0.8249)[8:])  # fmt: skip
    return head + index + body


def xyz(*values: float) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(value * 256))


SWAPPED = icc_profile(
    b"RGB ",
    # Where sRGB has red this profile has blue, and the other way round.
    rXYZ=xyz(0.1431, 0.0606, 0.7139), gXYZ=xyz(0.3851, 0.7169, 0.0971), bXYZ=xyz(0.4360, 0.2225, 0.0139),
    rTRC=gamma(2.2), gTRC=gamma(2.2), bTRC=gamma(2.2),
)  # fmt: skip


LINEAR_GREY = icc_profile(b"GRAY", kTRC=gamma(1.0))


def cmyk_profile() -> bytes:
    """Return a CMYK profile with a 2x2x2x2 table of Lab in which full ink is white and paper is black."""
    table = b"".join(
        struct.pack(">3H", 65280 if all(cmyk) else 0, 32768, 32768)
        for cmyk in ((c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1))
    )
    unit = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = struct.pack(">2H", 0, 65535)
    lut = struct.pack(">4s4xBBBx", b"mft2", 4, 3, 2) + unit + struct.pack(">2H", 2, 2) + ramp * 4 + table + ramp * 3
    profile = bytearray(icc_profile(b"CMYK", A2B0=lut))
    profile[12:16], profile[20:24] = b"prtr", b"Lab "
    return bytes(profile)


def bomb_png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + png_chunk(
        b"IDAT", zlib.compress(b"")
    )  # fmt: skip


def bomb_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encode(paint(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bomb_bmp(width: int, height: int) -> bytes:
    data = bytearray(encode(paint(16, 16), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)
