"""PCX: a palette that is cut off is told from greys, and one that is followed by other bytes is found."""

from __future__ import annotations

import pytest
from PIL import Image
from support.pictures import encode, paint

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
from pipeline.notes import collected

PALETTE_BYTES = 769
COLORS = paint(61, 43).quantize(200)
DATA = encode(COLORS, "PCX")


@pytest.mark.parametrize("lost", [1, 2, 300, 700, 768])
def test_a_palette_that_is_cut_off_is_missed(lost: int) -> None:
    """Its pixels alone would make a picture in greys."""
    with pytest.raises(Unreadable, match=r"^truncated picture: its palette is cut off$"):
        open_picture(DATA[:-lost])


def test_pixels_that_are_cut_off_are_missed() -> None:
    """Within the last of them or the first."""
    for kept in (len(DATA) - PALETTE_BYTES - 1, 200, 129):
        with pytest.raises(Unreadable, match=r"^truncated picture: it ends within its pixels$"):
            open_picture(DATA[:kept])


@pytest.mark.parametrize("more", [b"\0", b"\x1a" * 100, bytes(2000)])
def test_what_follows_the_palette_hides_it_from_nobody(more: bytes) -> None:
    """Some programs pad their files."""
    assert open_picture(DATA + more).load().tobytes() == COLORS.convert("RGB").tobytes()


def test_greys_without_a_palette_are_read_with_a_note() -> None:
    """They may be meant so, as many a program writes them, or have lost all of it."""
    greys = paint(61, 43).convert("L")
    with collected() as notes:
        image = open_picture(encode(greys, "PCX")[:-PALETTE_BYTES]).load()
    assert (image.mode, image.tobytes()) == ("L", greys.tobytes())
    assert [str(each) for each in notes] == ["it has no palette: read as greys"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_whole_ones_say_nothing(mode: str) -> None:
    """Of any mode that Pillow writes, and of an odd width."""
    image = paint(61, 43).convert(mode)
    with collected() as notes:
        loaded = open_picture(encode(image, "PCX")).load()
    assert loaded.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    assert not notes
    assert isinstance(loaded, Image.Image)
