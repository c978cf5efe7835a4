"""The geometry of resize, for every size there is, and what the stage makes of real pictures."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.options import check_options
from pipeline.pictures import OpenedPicture, open_picture
from pipeline.stage import read_signature
from stages.resize import Box, Resize, Size, fit_to, pad

SIDES = st.one_of(st.integers(1, 65_500), st.integers(1, 40))
SOURCES = st.tuples(SIDES, SIDES)


def picture(width: int, height: int, colour: Any = "red", mode: str = "RGB") -> OpenedPicture:
    return OpenedPicture(Image.new(mode, (width, height), colour), upright=True)


def lies_inside(box: Box, source: Size) -> bool:
    return 0 <= box[0] < box[2] <= source[0] and 0 <= box[1] < box[3] <= source[1]


def keeps_aspect(source: Size, made: Size) -> bool:
    """Whether each side is within a pixel of what the other one says."""
    scale_x, scale_y = made[0] / source[0], made[1] / source[1]
    return (
        abs(made[1] - max(1, source[1] * scale_x)) <= max(1, source[1] / source[0]) * 1.001
        and abs(made[0] - max(1, source[0] * scale_y)) <= max(1, source[0] / source[1]) * 1.001
    )


@given(SOURCES, SIDES, SIDES, st.booleans())
@example((4000, 3), 256, 256, False)
@example((5120, 2880), 800, 800, False)
def test_inside_lies_in_the_box_and_touches_it(source: Size, width: int, height: int, enlarge: bool) -> None:
    """`inside`: never 0, never over the box, the shape kept, and one side fills the box unless that would enlarge."""
    size, box = fit_to(source, width, height, "inside", enlarge)

    assert size[0] >= 1 and size[1] >= 1
    assert size[0] <= width and size[1] <= height
    assert box == (0, 0, *source)
    assert keeps_aspect(source, size)
    assert size[0] == width or size[1] == height or (size == source and not enlarge)


@given(SOURCES, SIDES, SIDES, st.booleans())
def test_outside_covers_the_box(source: Size, width: int, height: int, enlarge: bool) -> None:
    """`outside`: the smallest of this shape that covers the box, or the source where that is smaller."""
    size, box = fit_to(source, width, height, "outside", enlarge)

    assert box == (0, 0, *source)
    assert keeps_aspect(source, size)
    if enlarge or (source[0] >= width and source[1] >= height):
        assert size[0] >= width and size[1] >= height and (size[0] == width or size[1] == height)
    else:
        assert size == source


@given(SOURCES, SIDES, SIDES, st.booleans())
@example((4000, 3), 200, 200, False)
@example((3, 4000), 200, 200, False)
@example((301, 301), 200, 200, False)
def test_cover_fills_the_box_with_the_middle(source: Size, width: int, height: int, enlarge: bool) -> None:
    """`cover`: the box itself, or what there is of it; made of a middle part of the source, undistorted."""
    size, box = fit_to(source, width, height, "cover", enlarge)

    assert size == (width, height) if enlarge else size == (min(width, source[0]), min(height, source[1]))
    assert lies_inside(box, source)
    part = box[2] - box[0], box[3] - box[1]
    assert part[0] == pytest.approx(source[0], abs=0.01) or part[1] == pytest.approx(source[1], abs=0.01) or not enlarge
    for axis in (0, 1):
        assert abs((source[axis] - part[axis]) / 2 - box[axis]) <= 0.501
    scale_x, scale_y = size[0] / part[0], size[1] / part[1]
    assert abs(scale_x / scale_y - 1) <= 1.001 / min(size)


@given(SOURCES, SIDES, SIDES, st.booleans())
def test_fill_is_the_box(source: Size, width: int, height: int, enlarge: bool) -> None:
    """`fill`: the box, whatever that does to the shape; each side no longer than the source's unless enlarging."""
    size, box = fit_to(source, width, height, "fill", enlarge)

    assert size == ((width, height) if enlarge else (min(width, source[0]), min(height, source[1])))
    assert box == (0, 0, *source)


@given(SOURCES, SIDES, st.sampled_from(["inside", "outside", "cover", "contain", "fill"]), st.booleans(), st.booleans())
def test_one_side_given_decides_the_other(source: Size, side: int, fit: Any, tall: bool, enlarge: bool) -> None:
    """With a width or a height alone, every fit keeps the shape and makes that side."""
    size, box = fit_to(source, None if tall else side, side if tall else None, fit, enlarge)

    assert box == (0, 0, *source)
    assert keeps_aspect(source, size)
    assert size[tall] == (side if enlarge else min(side, source[tall]))


@given(SOURCES, SIDES, SIDES, st.sampled_from(["inside", "outside", "cover", "contain", "fill"]))
def test_nothing_is_ever_enlarged_unasked(source: Size, width: int, height: int, fit: Any) -> None:
    """Without `enlarge` no side is longer than the source's, and no pixel is made of less than one."""
    size, box = fit_to(source, width, height, fit, False)

    assert size[0] <= source[0] and size[1] <= source[1]
    assert min(size) >= 1
    # A sliver's side of less than half a pixel is rounded up to one.
    assert size[0] <= max(1, box[2] - box[0]) + 0.51 and size[1] <= max(1, box[3] - box[1]) + 0.51


@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), st.integers(1, 60), st.integers(1, 60),
       st.sampled_from(["inside", "outside", "cover", "contain", "fill"]), st.booleans())  # fmt: skip
def test_the_stage_makes_the_size_that_the_geometry_says(
    source: Size, width: int, height: int, fit: Any, enlarge: bool
) -> None:
    """Any small picture in any box by any fit is made without an error, in the size promised."""
    made = Resize(width=width, height=height, fit=fit, enlarge=enlarge)(picture(*source))

    assert made.size == ((width, height) if fit == "contain" else fit_to(source, width, height, fit, enlarge)[0])
    assert fit == "contain" or made.getextrema() == ((255, 255), (0, 0), (0, 0))


# -- real pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"width": 256, "height": 256}, (256, 1)),
        ({"width": 256}, (256, 1)),
        ({"height": 1}, (1333, 1)),
        ({"width": 200, "height": 200, "fit": "cover"}, (200, 3)),
        ({"width": 200, "height": 200, "fit": "contain"}, (200, 200)),
        ({"width": 200, "height": 200, "fit": "fill"}, (200, 3)),
        ({"width": 5000, "height": 5000}, (4000, 3)),
    ],
)
@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_a_sliver_keeps_at_least_a_pixel(options: dict[str, Any], expected: Size, name: str) -> None:
    """4000x3 has no room for rounding to 0, whichever decoder it comes through."""
    file = io.BytesIO()
    Image.new("RGB", (4000, 3), "red").save(file, name)

    assert Resize(**options)(open_picture(file.getvalue())).size == expected


def test_cover_keeps_the_middle() -> None:
    """What stands over is cut off evenly on both sides."""
    stripes = Image.new("RGB", (300, 100), "red")
    stripes.paste("lime", (100, 0, 200, 100))
    made = Resize(width=50, height=50, fit="cover")(OpenedPicture(stripes, upright=True))

    assert made.size == (50, 50)
    assert made.getpixel((3, 25))[1] > 240 and made.getpixel((46, 25))[1] > 240


def test_cover_without_scaling_only_cuts() -> None:
    """A picture that is larger than the box in one direction only keeps its very pixels, odd sizes too."""
    noise = Image.effect_noise((301, 40), 90)
    made = Resize(width=200, height=200, fit="cover")(OpenedPicture(noise, upright=True))

    assert made.tobytes() == noise.crop((50, 0, 250, 40)).tobytes()


def test_a_picture_that_fits_keeps_its_pixels() -> None:
    """No resampling where nothing is to be made smaller."""
    noise = Image.effect_noise((40, 30), 90)

    assert Resize(width=100, height=100)(OpenedPicture(noise, upright=True)).tobytes() == noise.tobytes()


@pytest.mark.parametrize(
    ("mode", "colour", "background", "expected", "corner"),
    [
        ("RGB", "red", "white", "RGB", (255, 255, 255)),
        ("RGB", "red", "#102030", "RGB", (16, 32, 48)),
        ("RGB", "red", "#10203000", "RGBA", (16, 32, 48, 0)),
        ("L", 9, "white", "L", 255),
        ("L", 9, "blue", "RGB", (0, 0, 255)),
        ("LA", (0, 0), "black", "LA", (0, 255)),
        ("RGBA", (0, 0, 0, 0), "white", "RGBA", (255, 255, 255, 255)),
    ],
)
def test_contain_pads_evenly(mode: str, colour: Any, background: str, expected: str, corner: Any) -> None:
    """`contain` makes exactly the box, the picture in its middle, on the background; a grey one stays grey on grey."""
    made = Resize(width=60, height=60, fit="contain", background=background)(picture(100, 50, colour, mode))

    assert made.size == (60, 60) and made.mode == expected
    assert made.getpixel((0, 0)) == made.getpixel((59, 59)) == corner
    ours = Image.new(mode, (1, 1), colour).convert(expected).getpixel((0, 0))
    assert [made.getpixel((30, y)) == ours for y in (14, 15, 44, 45)] == [False, True, True, False]


def test_pad_lays_a_small_picture_in_the_middle() -> None:
    """`pad` never scales."""
    made = pad(Image.new("L", (1, 1), 7), (3, 3), "black")

    assert made.tobytes() == bytes([0, 0, 0, 0, 7, 0, 0, 0, 0])


def test_enlarging_has_to_be_asked_for() -> None:
    """By default a small picture stays as it is."""
    assert Resize(width=100)(picture(10, 5)).size == (10, 5)
    assert Resize(width=100, enlarge=True)(picture(10, 5)).size == (100, 50)


def test_neither_width_nor_height_is_an_error() -> None:
    """A resize to nothing is refused when the pipeline is loaded, before any file."""
    with pytest.raises(ValueError, match="a 'height' or both"):
        Resize.check(**defaults())


def defaults(**options: Any) -> dict[str, Any]:
    """What the loader hands to `check`: every option, as given or by default."""
    known, problems = check_options(read_signature("resize", Resize, "stages.resize").options, options)
    assert not problems
    return known


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 9, "fit": "cover"}, "fit 'cover' needs a 'width' and a 'height'"),
        ({"height": 9, "fit": "contain"}, "fit 'contain' needs"),
        ({"height": 9, "fit": "fill"}, "fit 'fill' needs"),
        ({"width": 9, "height": 9, "position": "top"}, "'position' is for fit 'cover' and 'contain', not 'inside'"),
        ({"width": 9, "height": 9, "fit": "fill", "position": "left"}, "not 'fill'"),
        ({"width": 9, "height": 9, "fit": "cover", "background": "red"}, "'background' is for fit 'contain'"),
        ({"width": 9, "height": 9, "fit": "cover", "position": "top left"}, ""),
        ({"width": 9, "height": 9, "fit": "contain", "background": "red", "position": "right"}, ""),
        ({"width": 9, "fit": "outside", "position": "center"}, ""),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], says: str) -> None:
    """What could only be ignored is refused, with what it is for."""
    if says:
        with pytest.raises(ValueError, match=says):
            Resize.check(**defaults(**options))
    else:
        Resize.check(**defaults(**options))


def test_bad_options_are_refused_by_the_signature() -> None:
    """A gap below 1, a size below 1 and a colour that is none are config errors, said before anything runs."""
    known = read_signature("resize", Resize, "stages.resize").options
    wrong = {"gap": 0.5, "width": 0, "background": "nocolour", "fit": "crop", "enlarge": "yes"}
    _, problems = check_options(known, wrong)
    said = {each.place[0]: each.text for each in problems}

    assert set(said) == set(wrong)
    assert "unknown color specifier: 'nocolour'" in said["background"]
