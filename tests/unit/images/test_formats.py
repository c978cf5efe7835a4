"""Formats and modes: each comes out as it was painted, or is refused by its name."""

from __future__ import annotations

from typing import Any, NamedTuple

import pillow_heif
import pillow_jxl  # noqa: F401, which registers its reader
import pytest
from PIL import Image
from support.formats_table import DOCUMENT, documented
from support.pictures import encode, mean, paint, worst

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture

# Compression that loses nothing, and such as loses a little.
EXACT, CLOSE = 0, 2.5


class Row(NamedTuple):
    """A format in a mode of Pillow's, and what comes of it."""

    format: str
    mode: str
    bits: int
    expected: str


# Pillow's name and options with which a format is written, and by how much it may differ.
WRITTEN: dict[str, tuple[str, dict[str, Any], float]] = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}, CLOSE),
    "PNG": ("PNG", {}, EXACT),
    "WebP": ("WEBP", {"quality": 95}, 10),  # which stores colours at half size
    "WebP, lossless": ("WEBP", {"lossless": True, "exact": True}, EXACT),
    "AVIF": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, CLOSE),
    "HEIC": ("HEIF", {"quality": 95, "chroma": 444}, CLOSE),
    "JPEG XL": ("JXL", {"lossless": True}, EXACT),
    "JPEG 2000": ("JPEG2000", {"irreversible": False}, EXACT),
    "GIF": ("GIF", {}, EXACT),
    "BMP": ("BMP", {}, EXACT),
    "PPM": ("PPM", {}, EXACT),
    "TGA": ("TGA", {}, EXACT),
    "PCX": ("PCX", {}, EXACT),
    "QOI": ("QOI", {}, EXACT),
    "SGI": ("SGI", {}, EXACT),
    "ICO": ("ICO", {"sizes": [(40, 30)]}, EXACT),
}
MODES: dict[str, list[str]] = {
    "JPEG": ["L", "RGB", "CMYK"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "WebP": ["RGB", "RGBA"],
    "WebP, lossless": ["RGB", "RGBA"],
    "AVIF": ["RGB", "RGBA"],
    "HEIC": ["L", "RGB", "RGBA"],
    "JPEG XL": ["L", "LA", "RGB", "RGBA"],
    "JPEG 2000": ["L", "LA", "RGB", "RGBA", "I;16"],
    "GIF": ["P"],
    "BMP": ["1", "L", "P", "RGB"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "TGA": ["L", "LA", "P", "RGB", "RGBA"],
    "PCX": ["1", "L", "P", "RGB"],
    "QOI": ["RGB", "RGBA"],
    "SGI": ["L", "RGB", "RGBA"],
    "ICO": ["RGBA"],
}
NAMES = {
    "1": "black and white", "L": "grey", "LA": "grey and alpha", "P": "palette", "RGB": "RGB", "RGBA": "RGB and alpha",
    "CMYK": "CMYK", "I;16": "grey",
}  # fmt: skip
BITS = {"1": 1, "I;16": 16}
BECOMES = {"1": "L", "P": "RGB", "CMYK": "RGB", "I;16": "L"}
REFUSED = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "PDF": b"%PDF-1.7\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}
ROWS = [
    *(
        Row(
            name,
            NAMES[mode],
            BITS.get(mode, 8),
            f"{BECOMES.get(mode, mode)}, {'exact' if not loss else 'as compressed'}",
        )
        for name, (_, _, loss) in WRITTEN.items()
        for mode in MODES[name]
    ),
    *(Row(name, "any", 8, f"unsupported: {name}") for name in REFUSED),
]
"""The formats that are read, each in the modes that it has, and those for which a program would be started."""
CASES = [(row, mode) for name, modes in MODES.items() for mode in modes for row in ROWS
         if (row.format, row.mode, row.bits) == (name, NAMES[mode], BITS.get(mode, 8))]  # fmt: skip


def painted(mode: str) -> Image.Image:
    if mode == "I;16":
        return paint(40, 30, "L").convert("I").point(lambda value: value * 257).convert("I;16")
    image = paint(40, 30, "RGB" if mode in ("P", "CMYK") else mode.removesuffix("A"))
    if mode.endswith("A"):
        image.putalpha(paint(40, 30, "L").transpose(Image.Transpose.ROTATE_180))
    return image.quantize(64) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(("row", "mode"), CASES, ids=[f"{row.format}, {mode}" for row, mode in CASES])
def test_a_picture_comes_as_it_was_painted(row: Row, mode: str) -> None:
    """Its mode is that of the table, and its pixels are those that were painted, but for what compression loses."""
    pillow_heif.register_heif_opener()
    name, options, loss = WRITTEN[row.format]
    image = painted(mode)
    loaded = open_picture(encode(image, name, **options)).load()

    becomes = row.expected.partition(",")[0]
    wanted = paint(40, 30, "L") if mode == "I;16" else image.convert(becomes)
    assert loaded.mode == becomes
    assert mean(loaded, wanted) <= loss if loss else worst(loaded, wanted) == 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_format_that_starts_a_program_is_refused(name: str) -> None:
    """What Pillow would hand to Ghostscript or to the system is refused by its name."""
    with pytest.raises(Unreadable, match=f"^unsupported: {name}"):
        open_picture(REFUSED[name])


def test_every_picture_is_in_the_table() -> None:
    """Each format is tried in each of its modes, and nothing stands in the table that is not tried."""
    assert {row for row, _ in CASES} | {row for row in ROWS if row.format in REFUSED} == set(ROWS)


def test_the_tables_in_the_documentation_are_those_of_the_tests() -> None:
    """docs/pictures.md says what the tests of all formats try; support/formats_table.py writes it."""
    assert DOCUMENT.read_text() == documented(), "run: PYTHONPATH=.:tests python tests/support/formats_table.py"
