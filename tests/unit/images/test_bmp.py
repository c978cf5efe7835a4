"""BMP of every header, depth, palette, bit field and compression, written by hand and compared pixel by pixel."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from support.pictures import SWAPPED, encode, paint

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture

CORE, OS2_SHORT, INFO, V2, V3, OS2, V4, V5 = 12, 16, 40, 52, 56, 64, 108, 124
RGB, RLE8, RLE4, FIELDS, ALPHA_FIELDS = 0, 1, 2, 3, 6


def bmp(
    width: int, height: int, bits: int, pixels: bytes, *, size: int = INFO, compression: int = RGB, colors: bytes = b"",
    count: int = 0, masks: tuple[int, ...] = (), profile: bytes = b"", gap: bytes = b"",
) -> bytes:  # fmt: skip
    """A BMP: `colors` is the palette as stored, `masks` are the bit fields, `gap` stands before the pixels."""
    if size == CORE:
        header = struct.pack("<IHHHH", size, width, height, 1, bits)
    else:
        header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, 0, 2835, 2835, count, 0)[:size]
    fields = struct.pack(f"<{len(masks)}I", *masks)
    if size >= V2 and size != OS2:
        header = (header + fields).ljust(size, b"\0")
        fields = b""
    header = header.ljust(size, b"\0")
    if profile:
        at = size + len(colors) + len(gap) + len(pixels)
        header = header[:56] + b"DEBM" + header[60:112] + struct.pack("<II", at, len(profile)) + header[120:]
    beside = header + fields + colors + gap
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(beside)) + beside + pixels + profile


def rows(*each: bytes) -> bytes:
    """Rows from the top, as a BMP has them: from the bottom, each filled up to four bytes."""
    return b"".join(row + bytes(-len(row) % 4) for row in reversed(each))


def bgr(*colors: tuple[int, ...], entry: int = 4) -> bytes:
    return b"".join(bytes((blue, green, red)) + bytes(entry - 3) for red, green, blue in colors)


def pixels_of(data: bytes) -> list[Any]:
    image = open_picture(data).load()
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


# -- palettes ----------------------------------------------------------------------------------------------------------

COLORS = [(250, 1, 2), (3, 240, 4), (5, 6, 230), (9, 9, 9)]
# 3 by 2 pixels of colours 0 1 0, 1 0 0 in each depth.
INDEXES = {1: (b"\x40", b"\x80"), 2: (b"\x10", b"\x40"), 4: (b"\x01\x00", b"\x10\x00"), 8: (b"\0\1\0", b"\1\0\0")}


@pytest.mark.parametrize("size", [CORE, OS2_SHORT, INFO, V2, V3, OS2, V4, V5])
@pytest.mark.parametrize("bits", INDEXES)
@pytest.mark.parametrize("count", [2, 0])
def test_palettes(size: int, bits: int, count: int) -> None:
    """Of every depth and header, with fewer colours than there may be: by the header, or by where the pixels are."""
    entry = 3 if size == CORE else 4
    data = bmp(3, 2, bits, rows(*INDEXES[bits]), size=size, colors=bgr(*COLORS[:2], entry=entry), count=count)

    assert pixels_of(data) == [COLORS[0], COLORS[1], COLORS[0], COLORS[1], COLORS[0], COLORS[0]]


@pytest.mark.parametrize("bits", INDEXES)
@pytest.mark.parametrize("colors", [
    [(0, 0, 0), (255, 255, 255)], [(255, 255, 255), (0, 0, 0)], [(0, 0, 0), (1, 1, 1)], [(0, 0, 0), (85, 85, 85)],
    [(0, 0, 0), (17, 17, 17)], [(i, i, i) for i in range(256)], [(i * 17,) * 3 for i in range(16)],
])  # fmt: skip
def test_grey_palettes(bits: int, colors: list[tuple[int, int, int]]) -> None:
    """Two greys in eight bits are two greys, whatever they are, and never taken for pixels of one bit."""
    some = colors[: 1 << bits]
    data = bmp(3, 2, bits, rows(*INDEXES[bits]), colors=bgr(*some), count=len(some))
    image = open_picture(data).load().convert("RGB")

    assert [image.getpixel((x, 0)) for x in range(3)] == [some[0], some[1], some[0]]


def test_a_whole_range_of_greys_is_grey() -> None:
    """Such a palette makes no colours of a grey picture."""
    for bits, stored in ((8, bytes(range(8))), (4, bytes([0x01, 0x23, 0x45, 0x67]))):
        ramp = [(255 * i // ((1 << bits) - 1),) * 3 for i in range(1 << bits)]
        image = open_picture(bmp(8, 1, bits, rows(stored), colors=bgr(*ramp))).load()
        assert image.mode == "L" and list(image.tobytes()) == [ramp[i][0] for i in range(8)]


def test_a_colour_beyond_the_palette_is_black() -> None:
    """As browsers show it."""
    assert pixels_of(bmp(2, 1, 8, rows(b"\0\7"), colors=bgr(*COLORS[:2]), count=2)) == [COLORS[0], (0, 0, 0)]


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_palette_of_a_picture_that_needs_none(bits: int) -> None:
    """Is left alone: the file says where the pixels are."""
    white = rows(b"\xff" * (bits // 8))
    assert pixels_of(bmp(1, 1, bits, white, colors=bgr(*COLORS), count=4, gap=b"gap")) == [(255, 255, 255)]


# -- bit fields and alpha ----------------------------------------------------------------------------------------------

FIELDS_OF = {
    "555": (16, (0x7C00, 0x3E0, 0x1F)), "565": (16, (0xF800, 0x7E0, 0x1F)), "bgr 565": (16, (0x1F, 0x7E0, 0xF800)),
    "332": (16, (0xE0, 0x1C, 0x3)), "4444": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "rgba 5551": (16, (0xF800, 0x7C0, 0x3E, 1)), "1-5-9": (16, (1, 0x3E, 0x7FC0)), "no blue": (16, (0xFF00, 0xFF, 0)),
    "xrgb": (32, (0xFF0000, 0xFF00, 0xFF)), "xbgr": (32, (0xFF, 0xFF00, 0xFF0000)),
    "rgbx": (32, (0xFF000000, 0xFF0000, 0xFF00)), "argb": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "abgr": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)), "rgba": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    "bgar": (32, (0xFF000000, 0xFF00, 0xFF, 0xFF0000)), "2-10-10-10": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    "11-11-10": (32, (0xFFE00000, 0x1FFC00, 0x3FF)), "7187": (32, (0xFE000000, 0x1000000, 0xFF00, 0x7F)),
    "888 shifted": (32, (0xFF00000, 0xFF000, 0xFF0)), "20-8-4": (32, (0xFFFFF000, 0xFF0, 0xF)),
}  # fmt: skip


def value_of(pixel: int, mask: int) -> int:
    """The nearest of 8 bits to what a bit field has."""
    if not mask:
        return 0
    lowest = (mask & -mask).bit_length() - 1
    return int(255 * ((pixel & mask) >> lowest) / (mask >> lowest) + 0.5)


@pytest.mark.parametrize("size", [INFO, V2, V3, V4, V5])
@pytest.mark.parametrize("fields", FIELDS_OF)
def test_bit_fields(fields: str, size: int) -> None:
    """Each channel is where its field says and as wide; alpha is read where the header or the compression names it."""
    bits, masks = FIELDS_OF[fields]
    if size == V2 and len(masks) == 4:  # has no room for it
        masks = masks[:3]
    compression = ALPHA_FIELDS if size == INFO and len(masks) == 4 else FIELDS
    picture = [0, 1, 0x1234, 0x8001, 0x7BEF, 0x89ABCDEF & ((1 << bits) - 1), (1 << bits) - 1]
    stored = b"".join(pixel.to_bytes(bits // 8, "little") for pixel in picture)
    top = -1 if size == V4 else 1  # some from top to bottom

    data = bmp(len(picture), top, bits, rows(stored), size=size, compression=compression, masks=masks)

    found = open_picture(data).load()
    assert found.mode == ("RGBA" if len(masks) == 4 else "RGB")
    assert pixels_of(data) == [tuple(value_of(pixel, mask) for mask in masks) for pixel in picture]


@pytest.mark.parametrize(("bits", "pixel", "expected"), [
    (16, b"\x01\x7c", (255, 0, 8)), (24, b"\1\2\3", (3, 2, 1)), (32, b"\1\2\3\4", (3, 2, 1)),
])  # fmt: skip
@pytest.mark.parametrize("size", [INFO, V3, V4, V5])
def test_without_bit_fields(bits: int, pixel: bytes, expected: tuple[int, ...], size: int) -> None:
    """16 bits are 5-5-5, and the fourth byte of 32 bits is none that is seen, whatever fields the header has."""
    data = bmp(1, 1, bits, rows(pixel), size=size, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000) if size > INFO else ())

    assert pixels_of(data) == [expected]


def test_an_alpha_that_is_0_everywhere_is_none() -> None:
    """What was left empty does not make a picture vanish, as browsers have it."""
    argb = FIELDS_OF["argb"][1]
    assert pixels_of(bmp(2, 1, 32, b"\1\2\3\0\4\5\6\0", size=V5, compression=FIELDS, masks=argb)) == [
        (3, 2, 1),
        (6, 5, 4),
    ]
    assert pixels_of(bmp(2, 1, 32, b"\1\2\3\0\4\5\6\1", size=V5, compression=FIELDS, masks=argb)) == [
        (3, 2, 1, 0), (6, 5, 4, 1)]  # fmt: skip


def test_many_rows_of_bit_fields() -> None:
    """Every row is where it belongs, in pictures of more rows than are decoded at a time, from either end."""
    image = paint(37, 150)
    for height, order in ((150, range(149, -1, -1)), (-150, range(150))):
        stored = b"".join(
            struct.pack("<37I", *(r << 20 | g << 10 | b for r, g, b in (image.getpixel((x, y)) for x in range(37))))
            for y in order
        )
        masks = (0xFF00000, 0x3FC00, 0xFF)
        made = open_picture(bmp(37, height, 32, stored, size=V4, compression=FIELDS, masks=masks)).load()
        assert made.tobytes() == image.tobytes()


def test_an_embedded_profile_counts() -> None:
    """A red by a profile whose red is blue comes out blue."""
    red, _, blue = pixels_of(bmp(1, 1, 24, rows(b"\x0a\x0a\xfa"), size=V5, profile=SWAPPED))[0]

    assert blue > 240 and red < 40


# -- run-length encoding -----------------------------------------------------------------------------------------------

R, G, B, K = COLORS
RUNS = {
    "runs of 8": (RLE8, 8, b"\3\0\2\1\0\0\1\2\4\3\0\1", [B, K, K, K, K, R, R, R, G, G]),
    "literals of 8": (RLE8, 8, b"\0\5\0\1\2\3\0\0\0\0\0\4\3\2\1\0\1\3\0\1", [K, B, G, R, K, R, G, B, K, R]),
    "moves of 8": (RLE8, 8, b"\1\1\0\2\2\1\2\2\0\1", [R, R, R, B, B, G, R, R, R, R]),
    "rows cut short": (RLE8, 8, b"\1\1\0\0\1\2\0\1", [B, R, R, R, R, G, R, R, R, R]),
    "no end": (RLE8, 8, b"\5\1\0\0\5\2", [B] * 5 + [G] * 5),
    "runs too long": (RLE8, 8, b"\7\1\0\0\7\2\0\1", [B] * 5 + [G] * 5),
    "runs of 4": (RLE4, 4, b"\5\x12\0\0\5\x03\0\1", [R, K, R, K, R, G, B, G, B, G]),
    "literals of 4": (RLE4, 4, b"\0\5\x01\x23\x10\0\0\0\0\5\x30\x30\x00\0\0\1", [K, R, K, R, R, R, G, B, K, G]),
    "literals of 3 in 4": (RLE4, 4, b"\0\3\x01\x20\2\x33\0\0\5\x00\0\1", [R] * 5 + [R, G, B, K, K]),
}  # fmt: skip


@pytest.mark.parametrize("gap", [b"", b"\0"])
@pytest.mark.parametrize("runs", RUNS)
def test_run_length_encodings(runs: str, gap: bytes, tmp_path: Path) -> None:
    """Runs, literals, moves and rows that end early are where they belong, at an odd offset too, and from a file."""
    compression, bits, encoded, expected = RUNS[runs]
    data = bmp(5, 2, bits, encoded, compression=compression, colors=bgr(*COLORS), count=4, gap=gap)
    (tmp_path / "a.bmp").write_bytes(data)

    assert pixels_of(data) == expected
    assert open_picture(tmp_path / "a.bmp").load().tobytes() == open_picture(data).load().tobytes()


def test_runs_of_true_colour() -> None:
    """OS/2 has run lengths of 24 bits."""
    encoded = b"\2\1\2\3\0\0\0\3\1\1\1\2\2\2\3\3\3\0\0\1"

    assert pixels_of(bmp(3, 2, 24, encoded, size=OS2, compression=4)) == [
        (1, 1, 1), (2, 2, 2), (3, 3, 3), (3, 2, 1), (3, 2, 1), (0, 0, 0)]  # fmt: skip


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "said"), [
    (bmp(1, 1, 64, bytes(8)), "unsupported: BMP with 64 bits a pixel"),
    (bmp(1, 1, 0, b"\xff\xd8", compression=4), "unsupported: BMP with a JPEG in it"),
    (bmp(1, 1, 0, b"\x89PNG", compression=5), "unsupported: BMP with a PNG in it"),
    (bmp(1, 1, 1, bytes(4), size=OS2, compression=3), "unsupported: BMP with Huffman compression"),
    (bmp(1, 1, 32, bytes(4), compression=11), "unsupported: BMP with CMYK"),
    (bmp(1, 1, 24, bytes(4), compression=77), "unsupported: BMP with compression 77"),
    (bmp(1, -1, 8, bytes(4), compression=RLE8), "unsupported: BMP with compressed rows from top to bottom"),
    (bmp(1, 1, 4, bytes(4), compression=RLE8), "damaged picture: its compression is for 8 bits a pixel, not 4"),
    (bmp(1, 1, 16, bytes(4), compression=FIELDS, masks=(0xF0000, 0xF0, 0xF)), "damaged picture: its bit fields do not"),
    (bmp(1, 1, 16, bytes(4), compression=FIELDS, masks=(0xFF, 0xF0, 0xF00)), "damaged picture: its bit fields do not"),
    (bmp(1, 1, 16, bytes(4), compression=FIELDS, masks=(0xF0F, 0xF0, 0)), "unsupported: BMP with the bit fields f0f"),
    (bmp(0, 1, 24, b""), "damaged picture: its size is 0x1"),
    (bmp(-3, 1, 24, b""), "damaged picture: its size is -3x1"),
    (bmp(60_000, 60_000, 24, b""), "too large: 60000x60000"), (bmp(8, 8, 24, bytes(8 * 23)), "truncated picture: "),
    (bmp(8, 8, 16, bytes(8 * 15), compression=FIELDS, masks=(0xF00, 0xF0, 0xF)), "truncated picture: "),
    (bmp(5, 2, 8, b"\5\1\0\0\2\1", compression=RLE8), "truncated picture: its pixels end too early"),
    *((bmp(1, 1, 24, b"")[:kept], "truncated picture: its header is cut off") for kept in (14, 15, 16, 17, 18, 30)),
])  # fmt: skip
def test_what_is_not_read_is_named(data: bytes, said: str) -> None:
    """Never wrong pixels: a sentence that begins with what is the matter."""
    with pytest.raises(Unreadable) as refused:
        open_picture(data).load()
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("name", ["BMP", "DIB"])
def test_what_pillow_writes(mode: str, name: str) -> None:
    """All kinds that Pillow writes come back as they were, with a file header and without; its RGBA has no alpha."""
    image = paint(21, 10).convert(mode)
    made = open_picture(encode(image, name)).load()

    assert made.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    assert made.mode == {"1": "L", "P": "RGB", "RGBA": "RGB"}.get(mode, mode)
