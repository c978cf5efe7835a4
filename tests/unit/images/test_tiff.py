"""TIFF: every layout comes out as its tags say, or is refused by its name; the files are written by hand."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from support.pictures import STORED, paint
from support.tiffs import DEFLATE, LZW, NONE, PACKBITS, pages, tiff

from pipeline.errors import Unreadable
from pipeline.images.decode import as_plain, open_picture
from pipeline.images.metadata import read_metadata
from pipeline.images.tiff import MAX_PAGES
from pipeline.notes import collected

# Of the picture: tiles of 16x16 neither fit its width nor its height, nor do strips of 5 rows.
WIDTH, HEIGHT = 18, 7
# What the libraries print of files that cannot be decoded would be in the way.
pytestmark = pytest.mark.usefixtures("capfd")


class Row(NamedTuple):
    """A kind of TIFF, in the words of the table in the documentation."""

    colors: str
    bits: int
    numbers: str = "whole"
    extra: str = "none"
    expected: str = "read"


PHOTOMETRIC = {
    "grey": (1, 1), "grey, white is zero": (0, 1), "RGB": (2, 3), "palette": (3, 1), "CMYK": (5, 4), "CIELAB": (8, 3),
    "ICCLAB": (9, 3),
}  # fmt: skip
NUMBERS = {"whole": 1, "signed": 2, "floats": 3}
EXTRA = {
    "none": (), "alpha": (2,), "multiplied alpha": (1,), "unnamed": (0,), "unnamed, alpha": (0, 2),
    "alpha, unnamed": (2, 0),
}  # fmt: skip
GREYS = ("grey", "grey, white is zero")
ROWS = [
    *(Row(colors, bits) for colors in GREYS for bits in (1, 2, 4, 8, 12, 16, 32, 64)),
    *(Row(colors, bits, "signed") for colors in GREYS for bits in (8, 16, 32, 64)),
    *(Row(colors, bits, "floats") for colors in GREYS for bits in (16, 32, 64)),
    *(Row("grey", bits, extra=extra) for bits in (4, 8, 16) for extra in EXTRA if extra != "none"),
    *(Row("grey, white is zero", bits, extra="multiplied alpha") for bits in (8, 16)),
    Row("grey", 32, "floats", "alpha"),
    *(Row("RGB", bits) for bits in (1, 2, 4, 8, 12, 16, 32, 64)),
    *(Row("RGB", bits, extra=extra) for bits in (8, 16) for extra in EXTRA if extra != "none"),
    *(Row("RGB", bits, "floats") for bits in (16, 32, 64)),
    *(Row("RGB", 32, "floats", extra) for extra in ("alpha", "multiplied alpha")),
    *(Row("RGB", bits, "signed") for bits in (8, 16)),
    *(Row("palette", bits) for bits in (1, 2, 4, 8, 16)),
    *(Row("palette", bits, extra=extra) for bits in (4, 8, 16) for extra in ("alpha", "unnamed")),
    *(Row("CMYK", bits) for bits in (8, 16)),
    *(Row("CMYK", bits, extra=extra) for bits in (8, 16) for extra in ("alpha", "unnamed", "unnamed, alpha")),
    *(Row(colors, bits) for colors in ("CIELAB", "ICCLAB") for bits in (8, 16)),
    Row("CIELAB", 8, extra="alpha"),
    *(
        Row("grey", bits, expected=f"unsupported: TIFF with {bits} bits a channel, mode L")
        for bits in (3, 6, 10, 14, 24)
    ),
    Row("RGB", 10, expected="unsupported: TIFF with 10 bits a channel, mode RGB"),
    Row("CIELAB", 12, expected="unsupported: TIFF with 12 bits a channel, mode LAB"),
    Row("CMYK", 8, extra="multiplied alpha", expected="unsupported: TIFF with colours multiplied by their alpha"),
]
"""The kinds of TIFF that are read or refused, whatever their strips, tiles, order of bytes and lossless compression."""

PACKINGS = {
    "as it is": (NONE, 1), "PackBits": (PACKBITS, 1), "LZW": (LZW, 1), "deflate": (DEFLATE, 1),
    "deflate, predictor 2": (DEFLATE, 2), "deflate, predictor 3": (DEFLATE, 3),
}  # fmt: skip
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "MM, tiles": {"order": ">", "tile": (16, 16)},
    "BigTIFF, strips of a channel": {"big": True, "planar": True},
    "BigTIFF, MM, tiles of a channel": {"big": True, "order": ">", "planar": True, "tile": (16, 16)},
    "MM, bits reversed, one strip": {"fill_order": 2, "order": ">", "rows_per_strip": HEIGHT},
    "tiles of a channel, bits reversed": {"fill_order": 2, "planar": True, "tile": (16, 16)},
}


def a_range(row: Row) -> tuple[int, int]:
    if row.numbers == "floats":
        return 0, 1
    return (-(2 ** (row.bits - 1)), 2 ** (row.bits - 1) - 1) if row.numbers == "signed" else (0, 2**row.bits - 1)


def a_sample(row: Row, chance: random.Random) -> float:
    low, high = a_range(row)
    if row.numbers == "floats":
        return chance.choice((0.0, 0.25, 1.0, chance.randrange(1025) / 1024))
    return chance.choice((low, high, chance.randint(low, high), chance.randint(low, high)))


def a_pixel(row: Row, chance: random.Random) -> list[float]:
    colors, extra = PHOTOMETRIC[row.colors][1], EXTRA[row.extra]
    pixel = [a_sample(row, chance) for _ in range(colors + len(extra))]
    if "LAB" in row.colors:  # near the greys, which every screen has
        unit, middle = 2 ** (row.bits - 8), 0 if row.colors == "CIELAB" else 128
        pixel[:3] = [chance.randint(90, 220) * unit, *((chance.randint(-12, 12) + middle) * unit for _ in range(2))]
        pixel[1:3] = [value % 2**row.bits for value in pixel[1:3]]
    if "multiplied" in row.extra:  # no colour is brighter than its alpha
        pixel = [*(color * pixel[-1] // a_range(row)[1] if row.numbers == "whole" else color * pixel[-1]
                   for color in pixel[:colors]), pixel[-1]]  # fmt: skip
    return pixel


def expected(row: Row, pixel: list[float], palette: list[int]) -> list[float]:
    """The channels from 0 to 255, as the specification has them."""
    low, high = a_range(row)
    share = [(float(sample) - low) / (high - low) for sample in pixel]
    colors = share[: PHOTOMETRIC[row.colors][1]]
    kinds = dict(zip(EXTRA[row.extra], share[len(colors) :], strict=True))
    alpha = kinds.get(2, kinds.get(1))
    if row.colors == "palette":
        colors = [palette[int(pixel[0]) + column * 2**row.bits] / 65535 for column in range(3)]
    elif 1 in kinds:
        colors = [color / kinds[1] if kinds[1] else 0.0 for color in colors]
    if row.colors == "grey, white is zero":
        colors = [1 - color for color in colors]
    if row.colors == "CMYK":
        colors = [(1 - color) * (1 - colors[3]) for color in colors[:3]]
    if "LAB" in row.colors:
        colors = lab(pixel, row)
    return [255 * color for color in (*colors, *(() if alpha is None else (alpha,)))]


def lab(pixel: list[float], row: Row) -> list[float]:
    """CIE Lab of D50 in sRGB (ICC.1:2022, annex A; IEC 61966-2-1)."""
    unit = 2 ** (row.bits - 8)
    whole = 2**row.bits - 1 if row.colors == "CIELAB" else 255 * unit
    light = pixel[0] * 100 / whole
    signed = [
        (value / unit - 128 if row.colors == "ICCLAB" else (value / unit + 128) % 256 - 128) for value in pixel[1:3]
    ]
    y = (light + 16) / 116
    cube = [
        each**3 if each > 6 / 29 else (each - 4 / 29) * 108 / 841
        for each in (y + signed[0] / 500, y, y - signed[1] / 200)
    ]
    x, y, z = (each * white for each, white in zip(cube, (0.9642, 1, 0.8249), strict=True))
    linear = [
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    ]
    curve = [12.92 * each if each <= 0.0031308 else 1.055 * each ** (1 / 2.4) - 0.055 for each in linear]
    return [min(1.0, max(0.0, each)) for each in curve]


def tolerance(row: Row, alpha: float) -> float:
    """How many of 255 levels a channel may be off: one where Pillow drops the low byte, more where it combines some."""
    if "multiplied" in row.extra and row.colors != "palette":
        return 1.01 + 255 / max(1, alpha)
    # LittleCMS goes through a table of Lab, in which 8 bits are 8 levels of a dark or full colour.
    return 8 if "LAB" in row.colors else 3 if row.colors == "CMYK" else 1.001


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(map(str, row[:4])))
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_every_layout_is_read_right_or_refused_by_its_name(row: Row, packing: str, arrangement: str) -> None:
    """The pixels are those that the specification says, whatever the compression, the order and the arrangement."""
    chance = random.Random(repr((row, packing, arrangement)))
    compression, predictor = PACKINGS[packing]
    if (predictor == 2 and row.bits not in (8, 16, 32)) or (predictor == 3 and row.numbers != "floats"):
        predictor = 1
    if row.expected != "read" and row.bits != 8:
        predictor = 1
    pixels = [[a_pixel(row, chance) for _ in range(WIDTH)] for _ in range(HEIGHT)]
    palette = [at * 37 % 256 * 257 for at in range(3 * 2**row.bits)] if row.colors == "palette" else []
    data = tiff(
        pixels, photometric=PHOTOMETRIC[row.colors][0], bits=row.bits, sample_format=NUMBERS[row.numbers],
        extra=EXTRA[row.extra], compression=compression, predictor=predictor,
        more={320: ("H", palette)} if palette else None, **ARRANGEMENTS[arrangement],
    )  # fmt: skip
    if row.expected != "read":
        with pytest.raises(Unreadable, match=f"^{row.expected}"):
            open_picture(data)
        return
    with collected() as notes:
        image = open_picture(data).load()

    wanted = [expected(row, pixel, palette) for line in pixels for pixel in line]
    assert (image.mode, image.size) == ({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(wanted[0])], (WIDTH, HEIGHT))
    got = channels(image)
    for pixel, right in zip(got, wanted, strict=True):
        off = max(abs(value - want) for value, want in zip(pixel, right, strict=True))
        assert off <= tolerance(row, right[-1]), (pixel, right)
    assert bool(notes) == (row.numbers != "whole")  # whose range had to be guessed


def channels(image: Image.Image) -> list[bytes]:
    data, step = image.tobytes(), len(image.getbands())
    return [data[at : at + step] for at in range(0, len(data), step)]


# -- ranges ------------------------------------------------------------------------------------------------------------

GUESSED = "its range of values is not stated, {} was taken for black and {} for white"


@pytest.mark.parametrize(
    ("values", "code", "stated", "expected", "noted"),
    [
        ([0, 2048, 4095, 60_000], "H", ("H", 0, 4095), [0, 128, 255, 255], None),
        ([-1000, 0, 1000, 30_000], "h", ("h", -1000, 1000), [0, 128, 255, 255], None),
        ([-32768, 0, 32767, 16384], "h", None, [0, 128, 255, 191], GUESSED.format(-32768, 32767)),
        ([0.0, 127.5, 255.0, 300.0], "f", ("f", 0.0, 255.0), [0, 128, 255, 255], None),
        ([-1.0, 0.5, 1.001, 70_000.0], "f", None, [0, 128, 255, 255], GUESSED.format(0, 1)),
        ([float("nan"), 0.5, float("inf"), -float("inf")], "f", None, [0, 128, 255, 0], GUESSED.format(0, 1)),
        ([0.0, 0.5, 1.0, 0.2], "f", ("f", 1.0, 1.0), [0, 128, 255, 51], GUESSED.format(0, 1)),
        ([0, 2**31, 2**32 - 1, 65_535], "I", None, [0, 128, 255, 0], None),
        ([0, 16, 31, 255], "B", ("B", 0, 31), [0, 16, 31, 255], None),
    ],
)
def test_black_and_white_are_those_of_the_tags_or_of_the_type(
    values: list[float], code: str, stated: tuple[str, float, float] | None, expected: list[int], noted: str | None
) -> None:
    """Never those of the pixels; a guess is noted. A range of nothing is none, and 8 bits are shown as they are."""
    more = {340: (stated[0], [stated[1]]), 341: (stated[0], [stated[2]])} if stated else None
    bits, sample_format = {"B": (8, 1), "H": (16, 1), "I": (32, 1), "h": (16, 2), "f": (32, 3)}[code]
    data = tiff([[[value] for value in values]], bits=bits, sample_format=sample_format, more=more)
    with collected() as notes:
        image = open_picture(data).load()

    assert (image.mode, list(image.tobytes())) == ("L", expected)
    assert list(notes) == ([noted] if noted else [])


# -- what tags leave out, or say in other ways -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "photometric", "expected"),
    [([[9], [200]], None, ("L", [9, 200])), ([[1, 2, 3], [4, 5, 6]], None, ("RGB", [1, 2, 3, 4, 5, 6])),
     ([[9, 128], [200, 255]], 1, ("LA", [9, 128, 200, 255])), ([[1, 2, 3, 4]], 2, ("RGBA", [1, 2, 3, 4])),
     ([[255, 0, 255, 0, 77]], 5, ("RGB", [0, 255, 0]))],
    ids=["grey", "RGB", "grey and one", "RGB and one", "CMYK and one"],
)  # fmt: skip
def test_what_is_not_stated_is_read_as_others_do(
    samples: list[list[float]], photometric: int | None, expected: tuple[str, list[int]]
) -> None:
    """Grey and RGB without a word; one channel too many is alpha but in CMYK."""
    image = open_picture(tiff([samples], photometric=photometric)).load()
    assert (image.mode, list(image.tobytes())) == expected


@pytest.mark.parametrize("extra", [(), (2,)])
def test_a_palette_of_eight_bits_is_not_black(extra: tuple[int, ...]) -> None:
    """Some writers put 8 bits where 16 belong, which no value above 255 shows."""
    palette = [0, 10, 200, 255, 0, 20, 100, 255, 0, 30, 50, 255]
    data = tiff([[[1, 3][: 1 + len(extra)], [2, 3][: 1 + len(extra)]]], photometric=3, bits=2, extra=extra,
                more={320: ("H", palette)})  # fmt: skip
    assert list(open_picture(data).load().convert("RGB").tobytes()) == [10, 20, 30, 200, 100, 50]


def test_subsampled_ycbcr_without_compression() -> None:
    """One Cb and Cr for each four pixels, as TIFF 6.0 packs them (section 21), in the range that the file states."""
    block = bytes([50, 60, 70, 80, 90, 200, 100, 110, 120, 130, 140, 60])
    tags: dict[int, tuple[str, Any]] = {
        256: ("I", [4]), 257: ("I", [2]), 258: ("H", [8, 8, 8]), 259: ("H", [1]), 262: ("H", [6]), 277: ("H", [3]),
        278: ("I", [2]), 530: ("H", [2, 2]),
    }  # fmt: skip
    for order in "<>":
        full = open_picture(pages([(tags, [block])], order=order)).load()
        studio = open_picture(
            pages([(tags | {532: ("I", [15, 235, 128, 240, 128, 240])}, [block])], order=order)
        ).load()
        for image, (black, white, low, high) in ((full, (0, 255, 128, 255)), (studio, (15, 235, 128, 240))):
            for at, (luma, blue, red) in {
                0: (50, 90, 200),
                1: (60, 90, 200),
                2: (100, 140, 60),
                5: (80, 90, 200),
            }.items():
                y, cb, cr = ((luma - black) * 255 / (white - black), (blue - low) * 127 / (high - low),
                             (red - low) * 127 / (high - low))  # fmt: skip
                wanted = y + 1.402 * cr, y - 0.344 * cb - 0.714 * cr, y + 1.772 * cb
                got = channels(image)[at]
                assert all(abs(a - min(255, max(0, b))) <= 2 for a, b in zip(got, wanted, strict=True))


def orientation_tags(orientation: int, source: str) -> dict[int, tuple[str, list[Any]]]:
    """The tags that say an orientation: tag 274, or XMP of a type of TIFF; where both do, XMP says another."""
    says = 6 if source == "both" and orientation != 6 else 3 if source == "both" else orientation
    packet = f'<rdf:Description tiff:Orientation="{says}"/>'.encode()
    tag: dict[int, tuple[str, list[Any]]] = {274: ("H", [orientation])} if source in ("tag", "both") else {}
    xmp = ("c", [bytes([byte]) for byte in packet + b"\0"]) if source == "XMP as a text" else ("B", [*packet])
    return tag if source == "tag" else tag | {700: xmp}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("source", ["tag", "XMP", "XMP as a text", "both"])
@pytest.mark.parametrize(
    "options",
    [{}, {"tile": (16, 16)}, {"compression": DEFLATE}, {"planar": True}, {"planar": True, "tile": (16, 16)}],
    ids=["by Pillow", "by Pillow, tiles", "by libtiff", "here", "here, tiles"],
)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_orientation_is_upright(
    orientation: int, source: str, options: dict[str, Any], big: bool, order: str
) -> None:
    """Whoever decodes a page, and whatever its size of offsets, it is turned by its tag, or by XMP without one."""
    upright = paint(20, 12)
    turn = STORED[orientation]
    stored = upright.transpose(turn) if turn is not None else upright
    rows = [[list(stored.getpixel((x, y))) for x in range(stored.width)] for y in range(stored.height)]  # type: ignore
    more = orientation_tags(orientation, source)
    picture = open_picture(tiff(rows, photometric=2, order=order, big=big, more=more, **options))

    assert picture.size == (20, 12)
    assert picture.load().tobytes() == upright.tobytes()
    assert picture.load((10, 6)).size == (10, 6)


def test_each_page_is_read_as_its_own_tags_say() -> None:
    """Pages of one file may lie in other ways; the one that cannot be read is refused when it is asked for."""
    grey = {256: ("I", [2]), 257: ("I", [1]), 258: ("H", [8]), 259: ("H", [1]), 262: ("H", [1]), 277: ("H", [1])}
    signed = grey | {339: ("H", [2])}
    data = pages([(grey, [b"\x05\xfa"]), (signed, [b"\x80\x7f"]), (grey | {258: ("H", [10])}, [bytes(3)])])
    picture = open_picture(data)

    assert picture.frames == 3 and picture.load().tobytes() == b"\x05\xfa"
    image = picture._image
    image.seek(1)
    assert image.tobytes() == b"\x00\xff"
    with pytest.raises(Unreadable, match=r"^unsupported: TIFF with 10 bits"):
        image.seek(2)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({339: ("H", [6])}, "unsupported: TIFF with complex numbers"),
        ({259: ("H", [50002])}, "unsupported: TIFF compressed as JPEG XL"),
        ({259: ("H", [4711])}, "unsupported: TIFF compressed as number 4711"),
        ({262: ("H", [32803])}, "unsupported: a camera's raw"),
        ({262: ("H", [4])}, "unsupported: TIFF with a transparency mask"),
        ({262: ("H", [2]), 277: ("H", [3]), 258: ("H", [5, 6, 5])}, "unsupported: TIFF whose channels are of"),
        ({262: ("H", [5]), 277: ("H", [4]), 332: ("H", [2])}, "unsupported: TIFF with inks other than CMYK"),
        ({259: ("H", [7]), 258: ("H", [12])}, "unsupported: TIFF with 1 channels of 12 bits compressed as JPEG"),
        ({259: ("H", [4])}, "unsupported: TIFF with 1 channels of 8 bits compressed as a fax"),
        ({259: ("H", [5]), 317: ("H", [3])}, "unsupported: TIFF with predictor 3 on 8 bits"),
        ({258: ("I", [4_000_000_000])}, "unsupported: TIFF with 4000000000 bits a channel"),
        ({277: ("I", [4_000_000_000])}, "unsupported: TIFF with 4000000000 channels"),
        ({262: ("H", [2])}, "damaged picture: it has fewer channels than its colours need"),
        ({262: ("H", [3]), 320: ("H", [1] * 30)}, "damaged picture: its palette has no 256 colours"),
        ({322: ("I", [60_000]), 323: ("I", [60_000]), 324: ("I", [8]), 325: ("I", [4])}, "too large: tiles of 60000x6"),
        ({256: ("I", [60_000]), 257: ("I", [60_000])}, "too large: 60000x60000, limit 100 MP"),
        (
            {256: ("I", [9_000]), 257: ("I", [9_000]), 277: ("H", [900])},
            "too large: 9000x9000 with 900 channels of 8 bits, which count 57 times against max_pixels",
        ),
        (
            {256: ("I", [6_000]), 257: ("I", [6_000]), 278: ("I", [6_000])}
            | {258: ("H", [32]), 339: ("H", [3]), 259: ("H", [8])},
            "too large: 6000x6000 with 1 channels of 32 bits, which count 3 times against max_pixels",
        ),
    ],
    ids=lambda value: value.partition(": ")[2] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_not_decoded_is_refused_by_its_name(tags: dict[int, tuple[str, Any]], says: str) -> None:
    """Before a pixel is decoded, the reason says what the file has."""
    with pytest.raises(Unreadable) as refused:
        open_picture(tiff([[[5], [6]]], more=tags))
    assert str(refused.value).startswith(says)


def test_a_file_of_too_many_pages_is_refused_before_they_are_read() -> None:
    """Pages are counted in one pass; that of a loop ends where it began."""
    page = ({256: ("I", [1]), 257: ("I", [1]), 258: ("H", [8]), 259: ("H", [1]), 262: ("H", [1])}, [b"\x07"])

    assert open_picture(pages([page] * MAX_PAGES)).frames == MAX_PAGES
    with pytest.raises(Unreadable, match=r"^too large: more than 10000 pages, which is the limit$"):
        open_picture(pages([page] * 60_000))
    looped = bytearray(pages([page]))
    looped[-4:] = looped[4:8]
    assert open_picture(bytes(looped)).frames == 1


@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
@pytest.mark.parametrize("planar", [False, True])
def test_what_ends_within_its_pixels_is_truncated(compression: int, planar: bool) -> None:
    """Of a strip that is not all in the file, nothing is made."""
    places = {273: ("I", [8] * 2 + [10**6] if planar else [10**6])}
    data = tiff([[[7, 8, 9]] * 9] * 5, photometric=2, bits=32, compression=compression, planar=planar, more=places)
    with pytest.raises(Unreadable, match=r"^truncated picture: it ends within its pixels$"):
        open_picture(data).load()


# -- who else opens TIFF -----------------------------------------------------------------------------------------------


def test_a_tiff_that_a_stage_opened_is_read_as_its_tags_say() -> None:
    """A stage that returns what Pillow opened, and did not decode, gets the same pixels as one that takes a Picture."""
    data = tiff([[[0], [65_535]], [[257 * 9], [257 * 200]]], photometric=0, bits=16)
    assert as_plain(Image.open(io.BytesIO(data))).tobytes() == open_picture(data).load().tobytes() == b"\xff\0\xf6\x37"


def test_metadata_of_a_layout_that_pillow_does_not_know_are_kept(tmp_path: Path) -> None:
    """EXIF is read of every TIFF whose pixels are."""
    file = tmp_path / "a.tif"
    file.write_bytes(
        tiff([[[1, 2, 3, 4, 255]]], photometric=5, extra=(2,), more={315: ("c", [b"A", b"n", b"n", b"\0"])})
    )
    exif = Image.Exif()
    exif.load(read_metadata(file, frozenset({"exif"}))["exif"])

    assert open_picture(file.read_bytes()).load().mode == "RGBA" and exif[315] == "Ann"
