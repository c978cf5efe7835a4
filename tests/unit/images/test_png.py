"""PNG by its standard: colours named in every way, transparency of every depth, and damage beside the pixels."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.colors import (
    ADOBE,
    BT709,
    BT2020,
    DCI,
    NTSC,
    P3,
    SAMPLES,
    bt709_light,
    hlg_light,
    in_srgb,
    pq_light,
    smpte240_light,
    srgb_light,
    srgb_value,
    tone_mapped,
)
from support.pictures import LINEAR_GREY, SWAPPED, encode, paint, png_chunk, worst

from pipeline.errors import Unreadable
from pipeline.images.decode import as_plain, open_picture
from pipeline.images.metadata import read_metadata
from pipeline.images.png import PngFile
from pipeline.images.png_chunks import read_chunks, rewritten
from pipeline.notes import collected

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP = b"XML:com.adobe.xmp\0"


def header(width: int, height: int, depth: int, color_type: int) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))


def pixels(*rows: bytes) -> bytes:
    return png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + png_chunk(b"IEND", b"")


def rgb(*chunks: bytes, after: bytes = b"") -> bytes:
    """A PNG of 3 pixels with some chunks before its pixels, and some after."""
    return png(header(3, 1, 8, 2), *chunks, pixels(bytes([250, 10, 10, 10, 250, 10, 128, 128, 128])), after)


def bad_crc(kind: bytes, data: bytes) -> bytes:
    chunk = bytearray(png_chunk(kind, data))
    chunk[-1] ^= 1
    return bytes(chunk)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_file_with_other_chunks_is_as_if_it_were_written(on_disk: bool, tmp_path: Path) -> None:
    """Read from anywhere, across the ends of its parts, and closed with the original."""
    data = rgb(png_chunk(b"gAMA", bytes(4)), png_chunk(b"cHRM", bytes(32)), png_chunk(b"tEXt", b"a" * 20_000))
    (tmp_path / "file").write_bytes(data)
    original = open(tmp_path / "file", "rb") if on_disk else io.BytesIO(data)
    chunks = {chunk.kind: chunk for chunk in read_chunks(original)}
    other = png_chunk(b"iCCP", bytes(range(100)))
    file = rewritten(original, {chunks[b"gAMA"]: other, chunks[b"cHRM"]: b""})
    wanted = data[: chunks[b"gAMA"].begin] + other + data[chunks[b"cHRM"].end :]

    assert file.read() == wanted and file.read(1) == b"" and file.seek(0, 2) == file.tell() == len(wanted)
    for begin in range(0, len(wanted), 37):
        assert file.seek(begin) == begin
        assert (file.read(150), file.tell()) == (wanted[begin : begin + 150], min(len(wanted), begin + 150))
    file.close()
    assert original.closed


def load(data: bytes) -> tuple[Image.Image, list[str]]:
    with collected() as notes:
        image = open_picture(data).load()
    return image, list(notes)


# -- transparency ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("high_bits", [0, 1])
@pytest.mark.parametrize("clear", ["first", "last", "none"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_is_transparent(depth: int, clear: str, high_bits: int) -> None:
    """At every depth exactly the named grey is clear; bits of the name above the depth do not count (PNG 11.3.1.1)."""
    top = (1 << depth) - 1
    values = [*range(top + 1)] if depth <= 8 else [0, 1, 256, 257, 40_000, top]
    grey = {"first": values[0], "last": top, "none": None}[clear]
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = (int(bits, 2) << -len(bits) % 8).to_bytes(-(-len(bits) // 8))
    named = [png_chunk(b"tRNS", struct.pack(">H", grey | (high_bits << depth & 0xFFFF)))] if grey is not None else []

    image, notes = load(png(header(len(values), 1, depth, 0), *named, pixels(row)))

    shown = [math.floor(value * 255 / top + 0.5) for value in values]
    assert list(image.getchannel("L").tobytes()) == shown
    assert image.mode == ("L" if grey is None else "LA") and not notes
    if grey is not None:
        assert list(image.getchannel("A").tobytes()) == [255 * (value != grey) for value in values]


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("key", [(1, 2, 3), (0x0102, 0x0203, 0x0304), (0xFF01, 0xFF02, 0xFF03), (0, 0, 0)])
def test_one_colour_is_transparent(depth: int, key: tuple[int, int, int]) -> None:
    """A colour that is alike in its high bytes only, or in two channels only, is another one."""
    top = (1 << depth) - 1
    named = tuple(value & top for value in key)
    colors = [
        named,
        *[tuple(v ^ (bit if i == c else 0) for i, v in enumerate(named)) for c in range(3) for bit in (1, 128)],
    ]
    if depth == 16:
        colors += [tuple(v ^ (256 if i == c else 0) for i, v in enumerate(named)) for c in range(3)]
    row = struct.pack(f">{3 * len(colors)}{'B' if depth == 8 else 'H'}", *(v for color in colors for v in color))

    image, _ = load(png(header(len(colors), 1, depth, 2), png_chunk(b"tRNS", struct.pack(">3H", *key)), pixels(row)))

    assert image.mode == "RGBA"
    assert list(image.getchannel("A").tobytes()) == [0] + [255] * (len(colors) - 1)
    assert image.convert("RGB").tobytes() == bytes(v >> (depth - 8) for color in colors for v in color)


def test_one_colour_of_an_interlaced_picture_is_transparent() -> None:
    """Which is decoded twice, too: of 2 by 2 pixels the first pass has the first, the sixth and seventh the others."""
    key, other = struct.pack(">3H", 1, 2, 3), struct.pack(">3H", 1, 2, 4)
    passes = zlib.compress(b"".join(b"\0" + row for row in (key, other, other + key)))
    interlaced = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 1))
    image, _ = load(png(interlaced, png_chunk(b"tRNS", key), png_chunk(b"IDAT", passes)))

    assert list(image.getchannel("A").tobytes()) == [0, 255, 255, 0]


def test_grey_with_alpha_of_sixteen_bits_is_grey() -> None:
    """It is no RGBA, so that greys stay grey and a grey profile fits."""
    row = struct.pack(">6H", 0, 0xFFFF, 0x8000, 0x4000, 0xFFFF, 0)
    for beside in ((), (png_chunk(b"gAMA", struct.pack(">I", 100_000)),)):
        image, notes = load(png(header(3, 1, 16, 4), *beside, pixels(row)))
        assert image.mode == "LA" and not notes
        assert list(image.getchannel("A").tobytes()) == [255, 64, 0]
        assert abs(image.getpixel((1, 0))[0] - (188 if beside else 128)) <= 1


@pytest.mark.parametrize(
    ("color_type", "palette", "alphas"),
    [(0, b"", b"\0"), (0, b"", bytes(3)), (2, b"", bytes(4)), (2, b"", bytes(8)), (3, bytes(6), bytes(3))],
)
def test_a_transparency_that_does_not_fit_is_left_out(color_type: int, palette: bytes, alphas: bytes) -> None:
    """Of too few bytes or too many, or of more colours than there are."""
    beside = [png_chunk(b"PLTE", palette)] if palette else []
    row = bytes([1, 1, 1] if color_type == 2 else [1])
    image, notes = load(png(header(1, 1, 8, color_type), *beside, png_chunk(b"tRNS", alphas), pixels(row)))

    assert image.mode in ("L", "RGB")
    assert len(notes) == 1 and "PNG chunk tRNS" in notes[0]


# -- damage beside the pixels ------------------------------------------------------------------------------------------

LONG = b"x" * 1_100_000
FAULTS: dict[str, tuple[bytes, str]] = {
    "checksum of a text": (bad_crc(b"tEXt", b"a\0b"), "tEXt: its checksum is wrong"),
    "checksum of a private chunk": (bad_crc(b"prVt", b"abc"), "prVt: its checksum is wrong"),
    "checksum of EXIF": (bad_crc(b"eXIf", b"MM\0*"), "eXIf: its checksum is wrong"),
    "checksum of a time": (bad_crc(b"tIME", bytes(7)), "tIME: its checksum is wrong"),
    "checksum of a profile": (bad_crc(b"iCCP", b"a\0\0" + zlib.compress(SWAPPED)), "iCCP: its checksum is wrong"),
    "checksum of a gamma": (bad_crc(b"gAMA", struct.pack(">I", 100_000)), "gAMA: its checksum is wrong"),
    "method of a text": (png_chunk(b"zTXt", b"a\0\7" + zlib.compress(b"b")), "zTXt: its compression method 7 is"),
    "method of a long text": (png_chunk(b"iTXt", b"a\0\1\7\0\0b"), "iTXt: its compression method 7 is unknown"),
    "method of a profile": (png_chunk(b"iCCP", b"a\0\1abc"), "iCCP: its compression method 1 is unknown"),
    "packed text": (png_chunk(b"zTXt", b"a\0\0abc"), "zTXt: it cannot be unpacked"),
    "packed profile": (png_chunk(b"iCCP", b"a\0\0abc"), "iCCP: it cannot be unpacked"),
    "size of a text": (png_chunk(b"zTXt", b"a\0\0" + zlib.compress(LONG)), "zTXt: it is larger than 1 MB once"),
    "size of XMP": (png_chunk(b"iTXt", XMP + b"\1\0\0\0" + zlib.compress(LONG)), "iTXt: it is larger than 1 MB"),
    "size of a profile": (png_chunk(b"iCCP", b"a\0\0" + zlib.compress(LONG)), "iCCP: it is larger than 1 MB"),
    "short gamma": (png_chunk(b"gAMA", b"\0"), "gAMA: it is too short"),
    "short chromaticities": (png_chunk(b"cHRM", bytes(31)), "cHRM: it is too short"),
    "short numbers": (png_chunk(b"cICP", b"\x09"), "cICP: it is too short"),
    "short profile": (png_chunk(b"iCCP", b"abc"), "iCCP: it is too short"),
    "short sRGB": (png_chunk(b"sRGB", b""), "sRGB: it is too short"),
    "short density": (png_chunk(b"pHYs", bytes(8)), "pHYs: it is too short"),
    "long gamma": (png_chunk(b"gAMA", bytes(5)), "gAMA: it is too long"),
    "long chromaticities": (png_chunk(b"cHRM", bytes(33)), "cHRM: it is too long"),
    "long numbers": (png_chunk(b"cICP", bytes((9, 16, 0, 1, 0))), "cICP: it is too long"),
    "long sRGB": (png_chunk(b"sRGB", b"\0\0"), "sRGB: it is too long"),
    "long density": (png_chunk(b"pHYs", bytes(10)), "pHYs: it is too long"),
    "long transparency": (png_chunk(b"tRNS", bytes(7)), "tRNS: it is too long"),
    "keyword of Pillow's": (png_chunk(b"tEXt", b"interlace\0yes"), "tEXt: its keyword is none of a text"),
    "packed keyword of Pillow's": (png_chunk(b"zTXt", b"bbox\0\0" + zlib.compress(b"1")), "zTXt: its keyword is none"),
}  # fmt: skip


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_beside_the_pixels_is_left_out(fault: str, after: bool) -> None:
    """The pixels are as without the chunk, and a note says what was left out, before the pixels and after them."""
    chunk, said = FAULTS[fault]
    image, notes = load(rgb(after=chunk) if after else rgb(chunk))

    assert image.tobytes() == load(rgb())[0].tobytes()
    assert len(notes) == 1 and notes[0].startswith("damage beside its pixels: left out, PNG chunk ")
    assert said in notes[0] or (after and "it follows the pixels" in notes[0])


def test_the_rest_of_a_damaged_png_is_read(tmp_path: Path) -> None:
    """The metadata beside a damaged text count as always, and so does the orientation; from bytes and from a file."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    xmp = b"<x:xmpmeta>mine</x:xmpmeta>"
    data = rgb(FAULTS["size of a text"][0], png_chunk(b"eXIf", exif), png_chunk(b"iTXt", XMP + b"\0\0\0\0" + xmp))
    (tmp_path / "a.png").write_bytes(data)

    assert open_picture(data).size == (1, 3)
    assert open_picture(tmp_path / "a.png").load().tobytes() == load(data)[0].tobytes()
    assert read_metadata(tmp_path / "a.png", frozenset({"xmp"})) == {"xmp": xmp}


def test_texts_that_are_too_many_are_left_out() -> None:
    """What Pillow refuses, more than 64 MB of texts that are small once packed, is no reason to refuse the picture."""
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_000_000))
    image, notes = load(rgb(*[text] * 70))

    assert image.size == (3, 1)
    assert notes == [
        "damage beside its pixels: left out, PNG chunk zTXt: with it there may be more than 64 MB of texts"
    ]


def test_texts_that_are_too_large_are_not_unpacked_for_ever() -> None:
    """Of thousands that are small once packed, only so many are unpacked as make 64 MB."""
    _, notes = load(rgb(*[png_chunk(b"zTXt", b"a\0\0" + zlib.compress(LONG))] * 70))

    assert [each.rpartition("zTXt: ")[2] for each in notes] == [
        "it is larger than 1 MB once unpacked", "with it there may be more than 64 MB of texts"]  # fmt: skip


def test_too_many_chunks_are_refused() -> None:
    """Before they take memory."""
    with pytest.raises(Unreadable, match=r"^too large: a PNG of more than 250,000 chunks"):
        open_picture(rgb(png_chunk(b"prVt", b"") * 250_000))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IEND", b"ABcD"])
def test_a_damaged_critical_chunk_is_damage(kind: bytes) -> None:
    """Without it the pixels may mean anything."""
    chunks = {b"IHDR": header(1, 1, 8, 3), b"PLTE": png_chunk(b"PLTE", bytes(3)), b"IDAT": pixels(b"\0"),
              b"ABcD": b"", b"IEND": png_chunk(b"IEND", b"")}  # fmt: skip
    chunks[kind] = bad_crc(kind, chunks[kind][8:-4])
    with pytest.raises(Unreadable, match=f"^damaged picture: the checksum of its PNG chunk {kind.decode()} is wrong"):
        open_picture(SIGNATURE + b"".join(chunks.values())).load()


@pytest.mark.parametrize("palette", [None, b"", bytes(4), bytes(3 * 257)])
def test_a_palette_must_be_one(palette: bytes | None) -> None:
    """No palette is no reason to make one up."""
    beside = [] if palette is None else [png_chunk(b"PLTE", palette)]
    with pytest.raises(Unreadable, match=r"^damaged picture: its palette is missing"):
        open_picture(png(header(1, 1, 8, 3), *beside, pixels(b"\0"))).load()


def test_a_sound_png_is_read_from_its_own_file() -> None:
    """Nothing is copied or noted where there is nothing to amend, whatever sRGB is called."""
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    sound = [
        [], [png_chunk(b"sRGB", b"\0"), png_chunk(b"gAMA", struct.pack(">I", 45455)), png_chunk(b"cHRM", srgb)],
        [png_chunk(b"gAMA", struct.pack(">I", 45455)), png_chunk(b"cHRM", srgb)], [png_chunk(b"cICP", b"\1\x0d\0\1")],
        [png_chunk(b"iCCP", b"a\0\0" + zlib.compress(SWAPPED))], [png_chunk(b"cHRM", srgb)],
    ]  # fmt: skip
    for chunks in sound:
        picture = open_picture(data := rgb(*chunks))
        assert isinstance(picture._image, PngFile) and picture._image.fp.getvalue() == data  # type: ignore[union-attr]
        assert ("icc_profile" in picture._image.info) == (b"iCCP" in data)


# -- colours -----------------------------------------------------------------------------------------------------------


def swatches(*chunks: bytes, depth: int = 8) -> bytes:
    """All samples in one row, with some chunks before them."""
    row = b"".join(bytes(color) if depth == 8 else struct.pack(">3H", *(257 * v for v in color)) for color in SAMPLES)
    return png(header(len(SAMPLES), 1, depth, 2), *chunks, pixels(row))


def gama(value: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(100_000 * value)))


def chrm(primaries: Sequence[float]) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in primaries)))


def cicp(*numbers: int) -> bytes:
    return png_chunk(b"cICP", bytes(numbers))


def iccp(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))


SRGB = png_chunk(b"sRGB", b"\0")


def narrow(light: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: light(min(1.0, max(0.0, (255 * value - 16) / 219)))


COLORS: dict[str, tuple[list[bytes], Sequence[float], Callable[[float], float]]] = {
    "gamma 1": ([gama(1)], BT709, lambda v: v),
    "gamma 1.8": ([gama(1 / 1.8)], BT709, lambda v: v**1.8),
    "gamma of sRGB": ([gama(0.45455)], BT709, srgb_light),
    "chromaticities": ([chrm(P3)], P3, srgb_light),
    "chromaticities and a gamma like sRGB's": ([gama(0.45455), chrm(P3)], P3, lambda v: v ** (1 / 0.45455)),
    "sRGB's chromaticities and gamma": ([gama(0.45), chrm(BT709)], BT709, srgb_light),
    "a gamma near sRGB's": ([gama(0.44)], BT709, lambda v: v ** (1 / 0.44)),
    "chromaticities and gamma": ([chrm(ADOBE), gama(1 / 1.8)], ADOBE, lambda v: v**1.8),
    "sRGB before gamma": ([gama(1), chrm(P3), SRGB], BT709, srgb_light),
    "cICP before sRGB": ([SRGB, cicp(12, 13, 0, 1)], P3, srgb_light),
    "cICP before a profile": ([iccp(SWAPPED), cicp(12, 13, 0, 1)], P3, srgb_light),
    "cICP of sRGB before a profile": ([cicp(1, 13, 0, 1), iccp(SWAPPED), gama(1)], BT709, srgb_light),
    "cICP before gamma": ([gama(1), cicp(9, 1, 0, 1)], BT2020, bt709_light),
    "BT.709": ([cicp(1, 1, 0, 1)], BT709, bt709_light),
    "BT.2020": ([cicp(9, 14, 0, 1)], BT2020, bt709_light),
    "BT.2020, linear": ([cicp(9, 8, 0, 1)], BT2020, lambda v: v),
    "BT.470 M": ([cicp(4, 4, 0, 1)], NTSC, lambda v: v**2.2),
    "SMPTE 240": ([cicp(1, 7, 0, 1)], BT709, smpte240_light),
    "DCI P3": ([cicp(11, 17, 0, 1)], DCI, lambda v: min(1.0, 52.37 / 48 * v**2.6)),
    "narrow range": ([cicp(1, 13, 0, 0)], BT709, narrow(srgb_light)),
    "narrow range of P3": ([cicp(12, 1, 0, 0)], P3, narrow(bt709_light)),
    "PQ": ([cicp(9, 16, 0, 1)], BT2020, lambda v: tone_mapped(pq_light(v))),
    "PQ of P3": ([cicp(12, 16, 0, 1)], P3, lambda v: tone_mapped(pq_light(v))),
    "HLG": ([cicp(9, 18, 0, 1)], BT2020, lambda v: tone_mapped(hlg_light(v))),
}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("named", COLORS)
def test_colours_are_what_the_file_names_them(named: str, depth: int) -> None:
    """By the standards' formulas, and in the order of PNG 3: cICP, iCCP, sRGB, gAMA with cHRM."""
    chunks, primaries, light = COLORS[named]
    image, notes = load(swatches(*chunks, depth=depth))

    for at, color in enumerate(SAMPLES):
        expected = in_srgb(color, primaries, light)
        assert max(abs(a - b) for a, b in zip(image.getpixel((at, 0)), expected, strict=True)) <= 1, (color, expected)
    hdr = named[:3] if named[:2] == "PQ" or named == "HLG" else None
    assert notes == ([f"its colours are HDR: brought to the range of sRGB, {hdr.split()[0]}"] if hdr else [])


@pytest.mark.parametrize("color_type", [0, 2, 4, 6])
@pytest.mark.parametrize(("named", "light"), [
    (gama(1), lambda v: v), (cicp(1, 8, 0, 1), lambda v: v), (cicp(1, 16, 0, 1), lambda v: tone_mapped(pq_light(v))),
    (cicp(1, 18, 0, 1), lambda v: tone_mapped(hlg_light(v))), (gama(0.45455), srgb_light),
])  # fmt: skip
def test_sixteen_bits_of_a_coarse_curve(named: bytes, light: Callable[[float], float], color_type: int) -> None:
    """All the dark levels that linear light has in 16 bits and not in 8, and those of PQ, are there."""
    values = [0, 7, 20, 50, 100, 157, 257, 300, 500, 1000, 3000, 10_000, 30_000, 30_100, 40_000, 50_001, 65_535]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    alpha = [0x4020] if color_type >= 4 else []
    row = b"".join(struct.pack(f">{channels}H", *[value] * (channels - len(alpha)), *alpha) for value in values)
    key = png_chunk(b"tRNS", struct.pack(f">{channels}H", *[300] * channels)) if color_type < 4 else b""
    image, _ = load(png(header(len(values), 1, 16, color_type), named, key, pixels(row)))

    assert image.mode == ("LA" if color_type in (0, 4) else "RGBA")
    for at, value in enumerate(values):
        shown = 255 * srgb_value(light(value / 65_535))
        # A curve near sRGB's has 8 bits, of which Pillow takes the high ones.
        assert abs(image.getpixel((at, 0))[0] - shown) < (1.6 if named == gama(0.45455) else 1), value
        assert image.getpixel((at, 0))[-1] == (0x40 if color_type >= 4 else 255 * (value != 300))


@pytest.mark.parametrize("named", [gama(1), cicp(1, 8, 0, 1), iccp(LINEAR_GREY)])
@pytest.mark.parametrize("color_type", [0, 4])
def test_every_level_of_a_linear_grey(color_type: int, named: bytes) -> None:
    """All 256, of which the dark ones lie 12 levels apart in sRGB."""
    alpha = [77] if color_type == 4 else []
    row = b"".join(bytes([level, *alpha]) for level in range(256))
    image, notes = load(png(header(256, 1, 8, color_type), named, pixels(row)))

    for level, shown in enumerate(image.getchannel("L").tobytes()):
        assert abs(shown - 255 * srgb_value(level / 255)) < 1, level
    assert not notes and (not alpha or image.getchannel("A").getextrema() == (77, 77))


def test_a_profile_counts_before_srgb_and_gamma() -> None:
    """A red by a profile whose red is blue stays blue, whatever stands beside the profile."""
    image, notes = load(rgb(SRGB, gama(1), chrm(P3), iccp(SWAPPED)))

    assert image.tobytes() == load(rgb(iccp(SWAPPED)))[0].tobytes() and image.getpixel((0, 0))[2] > 240
    assert not notes


@pytest.mark.parametrize(("chunk", "said"), [
    (cicp(2, 2, 0, 1), "PNG chunk cICP: unknown colours 2/2"),
    (cicp(9, 99, 0, 1), "PNG chunk cICP: unknown colours 9/99"),
    (cicp(9, 16, 9, 1), "PNG chunk cICP: its matrix is 9, not 0"), (gama(0), "read as sRGB, gamma 0"),
    (chrm([0.3] * 8), "read as sRGB, primaries on one line"), (chrm([0.0] * 8), "read as sRGB, a white without light"),
    (chrm([0.9, 0.1, *P3[2:]]), "read as sRGB, primaries that make no white"),
])  # fmt: skip
def test_colours_without_sense_are_srgb(chunk: bytes, said: str) -> None:
    """A note says so."""
    image, notes = load(rgb(chunk))

    assert image.tobytes() == load(rgb())[0].tobytes()
    assert len(notes) == 1 and said in notes[0]


@pytest.mark.parametrize(("depth", "color_type"), [(1, 0), (2, 0), (8, 0), (16, 0), (8, 4), (16, 4), (8, 3), (8, 6)])
def test_every_kind_of_png_has_its_gamma(depth: int, color_type: int) -> None:
    """Greys stay grey, and alpha as it is."""
    channels = {0: 1, 3: 1, 4: 2, 6: 4}[color_type]
    palette = [png_chunk(b"PLTE", bytes([128] * 3 * 256))] if color_type == 3 else []
    value = {1: b"\x80", 2: b"\x80"}.get(depth, bytes([128] * (channels * depth // 8)))
    image, notes = load(png(header(1, 1, depth, color_type), *palette, gama(1), pixels(value)))

    stored = {1: 255, 2: 170}.get(depth, 128)
    assert image.mode == {0: "L", 3: "RGB", 4: "LA", 6: "RGBA"}[color_type] and not notes
    assert abs(image.getchannel(0).getpixel((0, 0)) - in_srgb([stored] * 3, BT709, lambda v: v)[0]) <= 1
    assert color_type < 4 or image.getchannel("A").getpixel((0, 0)) == 128


def test_colours_may_be_kept() -> None:
    """`color: keep` gets a profile for colours that were named by numbers, and the pixels as they are."""
    picture = open_picture(swatches(cicp(12, 13, 0, 1)))
    picture.own_colors = True
    kept = picture.load()

    assert kept.tobytes() == bytes(value for color in SAMPLES for value in color)
    again = open_picture(encode(kept, "PNG", icc_profile=kept.info["icc_profile"])).load()
    assert worst(again, load(swatches(cicp(12, 13, 0, 1)))[0]) == 0


def test_every_frame_of_an_animation_has_its_colours() -> None:
    """The frames of an APNG are in the colours that it names, and its damaged texts are left out."""
    frames = [paint(40, 30), paint(40, 30).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    named = data[:33] + bad_crc(b"tEXt", b"a\0b") + gama(1) + data[33:]
    with collected() as notes:
        moving: Any = open_picture(named).load(frames="all")

    for made, frame in zip(moving.frames, frames, strict=True):
        still = encode(frame, "PNG")
        assert worst(made, open_picture(still[:33] + gama(1) + still[33:]).load()) == 0
    assert list(notes) == ["damage beside its pixels: left out, PNG chunk tEXt: its checksum is wrong"]


@pytest.mark.parametrize("kind", [b"acTL", b"fcTL"])
def test_a_damaged_animation_is_a_still_picture(kind: bytes) -> None:
    """Its first picture is one for programs that know no animations."""
    frames = [paint(40, 30), paint(40, 30).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    data = bytearray(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    at = data.rindex(kind)
    data[at + 4 + int.from_bytes(data[at - 4 : at])] ^= 1

    with collected() as notes:
        still = open_picture(bytes(data)).load(frames="all")

    assert still.tobytes() == frames[0].tobytes()
    assert list(notes) == ["its animation is damaged: left out"]


def actl(frames: int, plays: int = 0) -> bytes:
    return png_chunk(b"acTL", struct.pack(">II", frames, plays))


def fctl(number: int, width: int = 3, height: int = 1, left: int = 0, top: int = 0) -> bytes:
    return png_chunk(b"fcTL", struct.pack(">5I2H2B", number, width, height, left, top, 1, 10, 0, 0))


FRAME = png_chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(bytes(19)))
BOGUS = {
    "no frames": (actl(0), b""),
    "no description of a frame": (actl(1), b""),
    "two frames without description": (actl(2), b""),
    "billions of frames": (actl(4_000_000_000), b""),
    "billions of frames, one described": (actl(4_000_000_000) + fctl(0), b""),
    "short": (png_chunk(b"acTL", bytes(7)) + fctl(0), b""),
    "long": (png_chunk(b"acTL", struct.pack(">IIB", 2, 0, 0)) + fctl(0), b""),
    "short description": (actl(2) + png_chunk(b"fcTL", bytes(25)), b""),
    "long description": (actl(2) + png_chunk(b"fcTL", bytes(27)), b""),
    "twice": (actl(2) + fctl(0) + actl(2), b""),
    "twice, once after the pixels": (actl(2) + fctl(0), actl(2)),
    "after the pixels": (b"", actl(2) + fctl(0)),
    "no promise": (fctl(0), b""),
    "frame before the pixels": (actl(2) + fctl(0) + FRAME, b""),
    "frame alone": (FRAME, b""),
    "short frame alone": (png_chunk(b"fdAT", bytes(3)), b""),
    "frame alone after the pixels": (b"", FRAME),
    "two lots of pixels in the first frame": (actl(2) + fctl(0), FRAME + fctl(2)),
    "out of order": (actl(2) + fctl(1), b""),
    "two descriptions before the pixels": (actl(2) + fctl(0) + fctl(1), b""),
    "smaller than the pixels": (actl(2) + fctl(0, 2), b""),
    "beside the pixels": (actl(2) + fctl(0, 3, 1, 1), b""),
}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("frames", ["first", "all"])
@pytest.mark.parametrize("bogus", BOGUS)
def test_a_bogus_animation_is_left_out(bogus: str, frames: Any, depth: int) -> None:
    """The picture is as without it, all 16 bits of its linear light among it."""
    before, after = BOGUS[bogus]
    row = struct.pack(f">9{'B' if depth == 8 else 'H'}", *range(9))
    plain, _ = load(png(header(3, 1, depth, 2), gama(1), pixels(row)))
    with collected() as notes:
        image = open_picture(png(header(3, 1, depth, 2), gama(1), before, pixels(row), after)).load(frames=frames)

    assert type(image) is Image.Image and image.tobytes() == plain.tobytes()
    assert list(notes) == ["its animation is damaged: left out"]


@pytest.mark.parametrize("depth", [8, 16])
def test_an_animation_of_one_frame_is_a_picture(depth: int) -> None:
    """All 16 bits of which count, and nothing is to be noted."""
    row = struct.pack(f">9{'B' if depth == 8 else 'H'}", *range(9))
    image, notes = load(png(header(3, 1, depth, 2), gama(1), actl(1), fctl(0), pixels(row)))

    assert image.tobytes() == load(png(header(3, 1, depth, 2), gama(1), pixels(row)))[0].tobytes() and not notes


def test_too_many_promised_frames_do_not_refuse_the_first() -> None:
    """A number that is not true counts for who asks for all frames."""
    data = png(header(3, 1, 8, 2), actl(1 << 31), fctl(0), pixels(bytes(9)), fctl(1), FRAME)
    assert load(data)[0].size == (3, 1)
    with pytest.raises(Unreadable, match=r"^too large: 3x1 in 2147483648 frames"):
        open_picture(data).load(frames="all")


TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


@pytest.mark.parametrize("hidden", [False, True])
def test_texts_behind_the_frames_count(hidden: bool, tmp_path: Path) -> None:
    """The orientation and the metadata of an animation may follow its last frame, as those of a picture its pixels."""
    frames = [paint(40, 30), paint(40, 30).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[not hidden :], default_image=hidden)
    late = png_chunk(b"eXIf", TURNED) + png_chunk(b"iTXt", XMP + b"\0\0\0\0<x:xmpmeta>mine</x:xmpmeta>")
    (tmp_path / "a.png").write_bytes(data[:-12] + late + data[-12:])
    with closing(open_picture(tmp_path / "a.png")) as picture:
        moving: Any = picture.load(frames="all")

    assert picture.size == (30, 40)
    assert [frame.tobytes() for frame in moving.frames] == [
        frame.transpose(Image.Transpose.ROTATE_270).tobytes() for frame in frames
    ]
    assert read_metadata(tmp_path / "a.png", frozenset({"xmp"}))["xmp"] == b"<x:xmpmeta>mine</x:xmpmeta>"
    with Image.open(tmp_path / "a.png") as opened:  # by a stage
        assert as_plain(opened).size == (30, 40)


@pytest.mark.parametrize("lost", range(1, 12 + 12 + len(TURNED) + 4))
def test_what_is_cut_off_behind_the_pixels_is_noted(lost: int) -> None:
    """The picture is whole, but may be turned otherwise; up to the checksum of its pixels."""
    whole = rgb(after=png_chunk(b"eXIf", TURNED))
    image, notes = load(whole[:-lost])

    is_turned = lost <= 12
    assert image.size == ((1, 3) if is_turned else (3, 1))
    assert notes == ["its end is missing: what follows its pixels may be lost"]


def test_a_png_cut_off_is_truncated_wherever_it_ends() -> None:
    """Not damaged, though its palette is gone, or a chunk before its pixels was left out."""
    data = png(header(2, 1, 8, 3), png_chunk(b"PLTE", bytes(600)), bad_crc(b"tEXt", b"a\0b"), pixels(b"\0\1"))
    for length in range(34, len(data) - 21):  # the last bytes are checksums and the end
        with pytest.raises(Unreadable, match=r"^truncated picture"):
            open_picture(data[:length]).load()


SOUND = png(header(2, 1, 8, 2), pixels(bytes(6)))


@pytest.mark.parametrize(("data", "said"), [
    (png(pixels(bytes(6)), header(2, 1, 8, 2)), "damaged picture: it does not begin with its header"),
    (png(png_chunk(b"IHDR", bytes(12)), pixels(b"")), "damaged picture: it does not begin with its header"),
    (png(header(2, 1, 8, 2)), "damaged picture: it has no pixels"),
    (SOUND[:33] + b"\0\0\0\1\xfe\0\0\0\0\0\0\0" + SOUND[33:], "damaged picture: there is no PNG chunk at byte 33"),
    (SOUND[:33], "truncated picture: it ends before its pixels"), (SOUND[:20], "truncated picture: it ends before its"),
    (SOUND[:45], "truncated picture: "), (SOUND[:8], "truncated picture: it ends before its pixels"),
    (png(header(0, 1, 8, 2), pixels(b"")), "damaged picture: its size is 0x1"),
    (png(header(1, 1, 3, 2), pixels(b"")), "damaged picture: there is no PNG of 3 bits and colour type 2"),
    (png(header(1, 1, 4, 6), pixels(b"")), "damaged picture: there is no PNG of 4 bits and colour type 6"),
    (png(png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 64, 0)), pixels(b"")), "unsupported: PNG with the"),
    (png(header(60_000, 60_000, 8, 2), pixels(b"")), "too large: 60000x60000"),
])  # fmt: skip
def test_what_is_not_read_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    """Truncated is what ends too early, and damaged what is wrong; from bytes and from a file."""
    (tmp_path / "a.png").write_bytes(data)
    for file in (data, tmp_path / "a.png"):
        with pytest.raises(Unreadable) as refused, closing(open_picture(file)) as picture:
            picture.load()
        assert str(refused.value).startswith(said)
