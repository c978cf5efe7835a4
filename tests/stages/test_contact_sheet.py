"""Where contact_sheet lays its pictures, how they are decoded, and what stands below them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pictures import SWAPPED, decode, encode, paint
from support.project import Project

from pipeline import Item
from pipeline.errors import FileFailure
from pipeline.images import Limits, limited_to, load_font, replace_missing_glyphs
from pipeline.images.decode import OpenedPicture, open_picture
from stages.contact_sheet import ContactSheet

Color = tuple[int, ...]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def item(picture: OpenedPicture, name: str = "a.png", part: str | None = None) -> Item[Any]:
    return Item(picture, name, Path(), part)


def plain(*colours: Any, size: tuple[int, int] = (40, 20)) -> Iterator[Item[Any]]:
    for colour in colours:
        yield item(OpenedPicture(Image.new("RGB", size, colour), upright=True))


def test_pictures_stand_in_rows() -> None:
    """In the order in which they come, each in the middle of its cell, with gaps around and between."""
    sheet = ContactSheet(columns=2, cell=20, gap=5, captions=False)(plain(RED, GREEN, BLUE))
    assert (sheet.mode, sheet.size) == ("RGB", (5 + 25 * 2, 5 + 25 * 2))
    assert [sheet.getpixel(at) for at in ((15, 15), (40, 15), (15, 40), (40, 40))] == [RED, GREEN, BLUE, WHITE]
    box = sheet.crop((5, 5, 25, 25)).point(lambda value: 255 - value).getbbox()
    assert box == (0, 5, 20, 15)  # twice as wide as high
    assert {sheet.getpixel((at, 15)) for at in (2, 27, 52)} == {WHITE}


def test_a_sheet_is_no_larger_than_it_must_be() -> None:
    """Few pictures make a narrow one; small ones are not made larger; one row may be all."""
    assert ContactSheet(columns=9, cell=20, gap=0, captions=False)(plain(RED, GREEN)).size == (40, 20)
    sheet = ContactSheet(columns=1, cell=100, gap=0, captions=False)(plain(RED))
    assert sheet.point(lambda value: 255 - value).getbbox() == (30, 40, 70, 60)


def test_transparency_shows_the_background() -> None:
    """In its colour, named as in CSS."""
    clear = OpenedPicture(Image.new("LA", (20, 20), (0, 0)), upright=True)
    sheet = ContactSheet(cell=20, gap=1, background="#102030", captions=False)(iter([item(clear)]))
    assert sheet.getcolors() == [(22 * 22, (16, 32, 48))]


@pytest.mark.parametrize("background", ["white", "black", "#777"])
def test_names_stand_below_and_can_be_read(background: str) -> None:
    """Dark on light or light on dark, within the cell's width however long they are."""
    for name in ("a.png", "d/" + "very long name " * 9 + ".png", "Zürich-日本 \udcff.png"):
        picture = OpenedPicture(Image.new("RGB", (10, 10), background), upright=True)
        sheet = ContactSheet(cell=64, gap=0, background=background)(iter([item(picture, name)]))
        assert sheet.width == 64 and sheet.height > 72
        below = sheet.crop((0, 64, 64, sheet.height)).convert("L")
        low, high = below.getextrema()
        assert isinstance(low, int) and isinstance(high, int) and high - low > 90
    sheet = ContactSheet(cell=64, gap=0, captions=False)(plain(WHITE))
    assert sheet.size == (64, 64)


def test_letters_that_the_font_has_not_are_made_plain() -> None:
    """An accent is left out, and what has no plain letter is a question mark, where a name must be shown at all."""
    assert replace_missing_glyphs("Zürich é 日 a", load_font(None, 20)) == "Zurich e ? a"


def test_parts_are_named() -> None:
    """Pages of one file can be told apart."""
    stage = ContactSheet(cell=200, gap=0)
    picture = OpenedPicture(Image.new("RGB", (10, 10), "white"), upright=True)
    sheets = [stage(iter([item(picture, "a.pdf", part)])).tobytes() for part in ("0001", "0002", None)]
    assert len(set(sheets)) == 3


def test_jpegs_are_decoded_small_and_let_go() -> None:
    """The decoder leaves out what no cell shows, and no picture is kept while the next is read."""
    data = encode(paint(1600, 1200), "JPEG")
    seen: list[weakref.ref[OpenedPicture]] = []
    scales = []

    def pictures() -> Iterator[Item[Any]]:
        for _ in range(10):
            picture = open_picture(data)
            seen.append(weakref.ref(picture))
            yield item(picture)
            assert picture._decoded
            scales.append(picture._decoded.scale)
            del picture
            assert all(each() is None for each in seen[:-1])

    ContactSheet(cell=100, columns=3)(pictures())
    assert set(scales) == {8}


def test_a_sheet_that_would_be_too_large_says_what_to_do() -> None:
    """As soon as that is known, and not when all pictures are read."""
    read = 0

    def many() -> Iterator[Item[Any]]:
        nonlocal read
        for each in plain(*[RED] * 1000):
            read += 1
            yield each

    with limited_to(Limits(max_side=1000)), pytest.raises(FileFailure) as raised:
        ContactSheet(columns=1, cell=100, gap=0, captions=False)(many())
    assert raised.value.text == (
        "the sheet is too large: 100x1100, limit 1000 pixels a side; inputs.max_side raises it; "
        "more columns, smaller cells or a 'group' make it smaller"
    )
    assert read == 11


YAML = """
inputs: in
stages:
  - {name: copy, uses: convert, output: {path: "out/{dir}/{stem}.png", save: {color: keep}}}
  - name: sheet
    from: copy
    uses: contact_sheet
    gather: true
    group: "{dir}"
    with: {cell: 16, gap: 0, captions: false}
    output: out/{dir}/sheet.jpg
engine: serial
"""


def test_in_a_pipeline(tmp_path: Path) -> None:
    """A sheet of every folder, in sRGB whatever the pictures are in; a new picture makes its folder's anew."""
    project = Project(tmp_path, YAML)
    for name, profile in (("a/1", b""), ("a/2", SWAPPED), ("b/1", b"")):
        source = encode(Image.new("RGB", (32, 32), RED), "PNG", **({"icc_profile": profile} if profile else {}))
        project.write(f"in/{name}.png", source)
    assert (project.run().done, decode(project.outputs()["a/sheet.jpg"]).size) == (5, (32, 16))
    sheet = decode(project.outputs()["a/sheet.jpg"])
    red, blue = sheet.getpixel((8, 8)), sheet.getpixel((24, 8))
    assert isinstance(red, tuple) and isinstance(blue, tuple) and red[0] > 240 and blue[2] > 240
    project.write("in/b/2.png", encode(Image.new("RGB", (32, 32), BLUE), "PNG"))
    assert project.run().done == 2
    assert decode(project.outputs()["b/sheet.jpg"]).size == (32, 16)
