"""TIFF: every layout comes out as its tags say, or is refused by its name; the files are written by hand."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
from PIL import Image
from support.tiffs import DEFLATE, LZW, NONE, PACKBITS, tiff

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
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
    *(Row("grey", bits, extra=extra) for bits in (1, 4, 8, 12, 16, 32) for extra in EXTRA if extra != "none"),
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

PACKINGS = {"as it is": (NONE, 1), "PackBits": (PACKBITS, 1), "LZW": (LZW, 1), "deflate": (DEFLATE, 1),
            "LZW, predictor 2": (LZW, 2), "deflate, predictor 2": (DEFLATE, 2), "deflate, predictor 3": (DEFLATE, 3),
            }  # fmt: skip
ORDERS: dict[str, dict[str, Any]] = {
    "II": {}, "MM": {"order": ">"}, "BigTIFF, II": {"big": True}, "BigTIFF, MM": {"big": True, "order": ">"},
    "MM, bits reversed": {"fill_order": 2, "order": ">"},
}  # fmt: skip
CHUNKS: dict[str, dict[str, Any]] = {
    "strips": {}, "tiles": {"tile": (16, 16)}, "strips a channel": {"planar": True},
    "tiles a channel": {"planar": True, "tile": (16, 16)}, "one strip": {"rows_per_strip": HEIGHT},
}  # fmt: skip


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
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_every_layout_is_read_right_or_refused_by_its_name(row: Row, packing: str, order: str, chunks: str) -> None:
    """The pixels are those that the specification says, whatever the compression, the order and the arrangement."""
    chance = random.Random(repr((row, packing, order, chunks)))
    compression, predictor = PACKINGS[packing]
    if (predictor == 2 and (row.bits < 8 or row.bits == 12)) or (predictor == 3 and row.numbers != "floats"):
        predictor = 1
    if row.expected != "read" and row.bits != 8:
        predictor = 1
    pixels = [[a_pixel(row, chance) for _ in range(WIDTH)] for _ in range(HEIGHT)]
    palette = [chance.randrange(256) * 257 for _ in range(3 * 2**row.bits)] if row.colors == "palette" else []
    data = tiff(
        pixels, photometric=PHOTOMETRIC[row.colors][0], bits=row.bits, sample_format=NUMBERS[row.numbers],
        extra=EXTRA[row.extra], compression=compression, predictor=predictor,
        more={320: ("H", palette)} if palette else None, **ORDERS[order], **CHUNKS[chunks],
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
