"""Which pictures larger_than lets through, and that it looks at no more than their headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from support.pictures import encode, paint
from support.project import Project

from pipeline import Skip
from pipeline.errors import ConfigError, Unreadable
from pipeline.images.decode import open_picture
from stages.larger_than import LargerThan


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"width": 39}, True),
        ({"width": 40}, False),
        ({"height": 29}, True),
        ({"height": 30}, False),
        ({"width": 39, "height": 30}, False),
        ({"megapixels": 0.00119}, True),
        ({"megapixels": 0.0012}, False),
    ],
)
def test_larger_means_larger_in_all_that_is_named(options: dict[str, Any], passes: bool) -> None:
    """A picture of exactly that size is left out, and says of which size it is."""
    picture = open_picture(encode(paint(40, 30), "PNG"))
    if passes:
        assert LargerThan(**options)(picture) is True
        return
    with pytest.raises(Skip, match=r"^too small: 40x30$"):
        LargerThan(**options)(picture)


@pytest.mark.parametrize(("name", "header_bytes"), [("JPEG", 700), ("PNG", 60), ("TIFF", 300), ("GIF", 900)])
def test_no_pixel_is_decoded(name: str, header_bytes: int) -> None:
    """A file that is cut off after its header is let through; whoever wants the pixels will say what is wrong."""
    picture = open_picture(encode(paint(400, 300), name)[:header_bytes])
    assert LargerThan(width=399)(picture)
    with pytest.raises(Unreadable, match="truncated"):
        picture.load()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_sizes_are_those_of_the_upright_picture(name: str) -> None:
    """A portrait that is stored lying on its side is as wide as it is seen."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = open_picture(encode(paint(60, 40), name, exif=exif.tobytes()))
    assert LargerThan(height=59)(picture)
    with pytest.raises(Skip, match="40x60"):
        LargerThan(width=40)(picture)


YAML = """
inputs: in
stages:
  - {name: large, uses: larger_than, with: {width: 50}}
  - {name: copy, uses: convert, output: "out/{stem}.png"}
engine: serial
"""


def test_in_a_pipeline(tmp_path: Path) -> None:
    """What passes goes on untouched; what does not is counted as skipped, by why."""
    project = Project(tmp_path, YAML)
    for width in (40, 50, 60):
        project.write(f"in/{width}.png", encode(paint(width, 30), "PNG"))
    summary = project.run()
    assert (summary.done, summary.skipped, list(project.outputs())) == (1, 2, ["60.png"])
    assert project.plan()["copy 40.png"] == ("up-to-date", "skipped: too small: 40x30")


@pytest.mark.parametrize(
    ("options", "said"),
    [("{}", "larger_than needs a 'width', a 'height' or 'megapixels'"), ("{width: 0}", "option 'width'")],
)
def test_a_filter_without_a_size_is_refused(tmp_path: Path, options: str, said: str) -> None:
    """As one that lets everything through is surely not meant; nor is a size of nothing."""
    project = Project(tmp_path, YAML.replace("{width: 50}", options))
    with pytest.raises(ConfigError, match=said):
        project.run()
