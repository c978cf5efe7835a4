"""Where watermark lays its mark, how it mixes with what is below in every mode, and what it leaves alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageChops, ImageCms
from support.animations import durations, moving, scenes, seen
from support.pictures import STORED, SWAPPED, decode, encode, paint, saved, worst
from support.project import Project

from pipeline.errors import ConfigError, Unreadable
from pipeline.images import Position
from pipeline.images.decode import OpenedPicture, open_picture
from stages.watermark import Watermark

RED, GREY = (200, 40, 20, 160), (90, 90, 90, 160)
Box = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def logos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logos: squares in one colour, half transparent."""
    folder = tmp_path_factory.mktemp("logos")
    for name, colour in (("red", RED), ("grey", GREY)):
        Image.new("RGBA", (50, 50), colour).save(folder / f"{name}.png")
    return folder


def picture(image: Image.Image) -> OpenedPicture:
    return OpenedPicture(image, upright=True)


def marked(size: tuple[int, int], **options: Any) -> Box:
    """Where a grey picture of this size is marked."""
    image = Image.new("L", size, 128)
    box = ImageChops.difference(Watermark(**options)(picture(image)).convert("L"), image).getbbox()
    assert box
    return box


def over(above: tuple[int, ...], below: tuple[int, ...]) -> tuple[float, ...]:
    """What one colour over another gives (Porter and Duff, 1984), alpha last and not multiplied in."""
    share, under = above[-1] / 255, below[-1] / 255 * (1 - above[-1] / 255)
    whole = share + under
    mixed = ((one * share + other * under) / whole for one, other in zip(above[:-1], below[:-1], strict=True))
    return (*mixed, whole * 255)


# -- mixing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("logo", ["red", "grey"])
@pytest.mark.parametrize("opacity", [0.3, 1.0])
def test_the_mark_is_laid_over_what_is_there(logos: Path, mode: str, logo: str, opacity: float) -> None:
    """In every mode it mixes as it should, transparency below it counts, and nothing beside it changes."""
    image = Image.new("RGBA", (100, 100), (10, 220, 120, 255)).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize((100, 100)))
    stage = Watermark(logo=logos / f"{logo}.png", opacity=opacity, scale=0.5, margin=0, position="centre")
    made = stage(picture(image))

    wanted_mode = mode if logo == "grey" else {"L": "RGB", "LA": "RGBA"}.get(mode, mode)
    assert made.mode == wanted_mode
    before, after = image.convert("RGBA"), made.convert("RGBA")
    colour = RED if logo == "red" else GREY
    for at in ((50, 26), (30, 50), (74, 74)):
        mixed = over((*colour[:3], round(colour[3] * opacity)), before.getpixel(at))  # type: ignore[arg-type]
        assert after.getpixel(at) == pytest.approx(mixed, abs=2)
    for box in ((0, 0, 100, 25), (0, 25, 25, 75), (75, 25, 100, 75), (0, 75, 100, 100)):
        assert after.crop(box).tobytes() == before.crop(box).tobytes()


def test_a_mark_on_nothing_is_the_mark(logos: Path) -> None:
    """Where the picture is wholly transparent, it keeps what the mark has of colour and alpha."""
    stage = Watermark(logo=logos / "red.png", opacity=1, scale=1, margin=0)
    made = stage(picture(Image.new("RGBA", (40, 40))))
    assert made.getpixel((20, 20)) == pytest.approx(RED, abs=1)


def test_a_logo_is_read_as_any_picture(tmp_path: Path) -> None:
    """Upright, and in sRGB."""
    exif, upright = Image.Exif(), paint(30, 50)
    exif[ExifTags.Base.Orientation] = 6
    how = STORED[6]
    assert how is not None
    plain, odd = tmp_path / "plain.png", tmp_path / "odd.png"
    upright.save(plain)
    swapped = Image.merge("RGB", upright.split()[::-1]).transpose(how)
    swapped.save(odd, exif=exif.tobytes(), icc_profile=SWAPPED)
    one, other = (
        Watermark(logo=logo, opacity=1, scale=1, margin=0)(picture(Image.new("RGB", (60, 50)))) for logo in (plain, odd)
    )
    assert worst(one, other) < 25  # a profile of linear light is not exact in the shadows


def test_it_is_loaded_once(tmp_path: Path) -> None:
    """The constructor reads the logo; after that its file is not needed."""
    logo = tmp_path / "logo.png"
    Image.new("RGB", (5, 5), "red").save(logo)
    stage = Watermark(logo=logo, opacity=1, scale=1, margin=0)
    logo.unlink()
    for _ in range(2):
        assert stage(picture(Image.new("RGB", (9, 9)))).getpixel((4, 4)) == (255, 0, 0)


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "box"),
    [
        ("top left", (10, 10, 40, 40)),
        ("top", (85, 10, 115, 40)),
        ("right", (160, 35, 190, 65)),
        ("centre", (85, 35, 115, 65)),
        ("bottom right", (160, 60, 190, 90)),
        ("bottom left", (10, 60, 40, 90)),
    ],
)
def test_position_margin_and_scale(logos: Path, position: Position, box: Box) -> None:
    """A margin of a tenth of the shorter side, and a mark that fits into a part of both sides."""
    options: dict[str, Any] = {"logo": logos / "grey.png", "margin": 0.1, "scale": 0.3, "opacity": 1}
    assert marked((200, 100), position=position, **options) == box


@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from(get_args(Position)), st.floats(0, 0.49),
    st.floats(0.001, 1), st.sampled_from([(1, 1), (500, 3), (2, 700), (64, 64)]),
)  # fmt: skip
def test_the_mark_lies_in_every_picture(
    width: int, height: int, position: Position, margin: float, scale: float, mark: tuple[int, int]
) -> None:
    """However small or thin the picture or the mark."""
    stage = Watermark(text=".", position=position, margin=margin, scale=scale)
    stage._mark = Image.new("RGBA", mark)
    wide, high, left, top = stage._place((width, height))
    assert wide >= 1 and high >= 1 and left >= 0 and top >= 0
    assert left + wide <= width and top + high <= height


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["white", "black", "#ff0000", "rgb(0, 0, 90)"])
def test_a_text_is_seen_on_any_ground(color: str) -> None:
    """Its outline differs from its colour, and one of them from whatever is below it."""
    stage = Watermark(text="© Ann\n2026", color=color, opacity=1, scale=1)
    for ground in ("white", "black", color):
        image = Image.new("RGB", (300, 200), ground)
        changed = ImageChops.difference(stage(picture(image.copy())), image).convert("L")
        assert sum(changed.histogram()[30:]) > 1000


def test_a_letter_that_the_font_has_not_is_refused() -> None:
    """Nobody wants a box for a letter on ten thousand pictures."""
    with pytest.raises(ValueError, match="the font has no 'Ö', '日'; name one that has with 'font'"):
        Watermark(text="© Ö 日 Ö\n")


# -- pipelines ---------------------------------------------------------------------------------------------------------


def test_every_frame_is_marked(logos: Path) -> None:
    """An animation moves on, in its time, each frame with the mark; or stands still with its first."""
    stage = Watermark(logo=logos / "red.png", scale=0.4, opacity=1)
    source = moving(scenes(), "GIF", duration=[50, 70, 90, 110])
    written = saved(stage(open_picture(source)), ".webp", lossless=True)
    assert durations(written) == [50, 70, 90, 110]
    for before, after in zip(seen(source), seen(written), strict=True):
        box = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox()
        assert box and box[0] >= 40 and box[1] >= 20
    first = Watermark(logo=logos / "red.png", frames="first")(open_picture(source))
    assert not hasattr(first, "frames")


YAML = """
inputs: in
stages:
  - name: mark
    uses: watermark
    with: {logo: logo.png, opacity: 1.0, scale: 1.0, margin: 0.0}
    output: "out/{stem}.png"
engine: serial
"""


def project_with_logo(folder: Path, yaml: str = YAML) -> Project:
    project = Project(folder, yaml)
    project.write("logo.png", encode(Image.new("RGB", (8, 8), "red"), "PNG"))
    project.write("in/a.png", encode(Image.new("RGB", (8, 8), "white"), "PNG"))
    return project


def test_in_a_pipeline(tmp_path: Path) -> None:
    """A new logo under the old name makes the outputs stale, and they are made with it."""
    project = project_with_logo(tmp_path)
    assert project.run().done == 1
    assert decode(project.outputs()["a.png"]).getpixel((4, 4)) == (255, 0, 0)
    project.write("logo.png", encode(Image.new("RGB", (8, 8), "blue"), "PNG"))
    assert project.plan()["mark a.png"][0] == "make"
    project.run()
    assert decode(project.outputs()["a.png"]).getpixel((4, 4)) == (0, 0, 255)


def test_the_mark_has_its_colours_in_those_of_the_picture(tmp_path: Path) -> None:
    """With `color: keep` the picture stays in its own, and the mark in them looks as it does in sRGB."""
    project = project_with_logo(
        tmp_path, YAML.replace('"out/{stem}.png"', '{path: "out/{stem}.png", save: {color: keep}}')
    )
    project.write("in/a.png", encode(Image.new("RGB", (8, 8), "white"), "PNG", icc_profile=SWAPPED))
    assert project.run().done == 1
    made = decode(project.outputs()["a.png"])
    assert made.info["icc_profile"] == SWAPPED
    shown = ImageCms.profileToProfile(made, io.BytesIO(SWAPPED), ImageCms.createProfile("sRGB"))
    assert shown and shown.getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{}", "watermark needs a 'logo' or a 'text'"),
        ("{text: ' '}", "watermark needs a 'logo' or a 'text'"),
        ("{text: a, logo: logo.png}", "watermark takes a 'logo' or a 'text', not both"),
        ("{logo: logo.png, color: red}", "'color' is for a 'text', not for a 'logo'"),
        ("{logo: logo.png, font: a.ttf}", "'font' is for a 'text', not for a 'logo'"),
        ("{text: a, color: rde}", "option 'color'"),
        ("{text: Ö}", "the font has no 'Ö'"),
        ("{text: a, opacity: 1.1}", "option 'opacity'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: str, said: str) -> None:
    """When the pipeline is loaded, in one sentence."""
    text = YAML.replace("{logo: logo.png, opacity: 1.0, scale: 1.0, margin: 0.0}", options)
    with pytest.raises(ConfigError, match=said):
        project_with_logo(tmp_path, text).run()


def test_what_is_no_logo_or_font_is_named(tmp_path: Path) -> None:
    """Before any file is blamed for it."""
    other = tmp_path / "other.txt"
    other.write_text("no picture, no font")
    with pytest.raises(Unreadable, match=f"the logo {other}: not a picture"):
        Watermark(logo=other)
    with pytest.raises(ValueError, match=f"the font {other} cannot be read"):
        Watermark(text="a", font=other)
