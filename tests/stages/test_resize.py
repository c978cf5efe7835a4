"""The geometry of resize, for every size there is, and what the stage makes of real pictures."""

from __future__ import annotations

import io
import itertools
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from support.lanczos import backend, exact_lanczos, psnr_db
from support.pictures import STORED, encode, mean, paint

from pipeline.images import Box, Position, Size
from pipeline.images.decode import OpenedPicture, open_picture
from pipeline.stage.options import check_options
from pipeline.stage.resolve import read_signature
from stages.resize import Filter, Resize, fit_to, pad

__all__ = ["backend"]
SIDES = st.one_of(st.integers(1, 65_500), st.integers(1, 40))
SOURCES = st.tuples(SIDES, SIDES)
# An example may take long on a machine that is busy.
IN_ITS_TIME = settings(deadline=None)


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


@IN_ITS_TIME
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


@IN_ITS_TIME
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


@IN_ITS_TIME
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


@IN_ITS_TIME
@given(SOURCES, SIDES, SIDES, st.booleans())
def test_fill_is_the_box(source: Size, width: int, height: int, enlarge: bool) -> None:
    """`fill`: the box, whatever that does to the shape; each side no longer than the source's unless enlarging."""
    size, box = fit_to(source, width, height, "fill", enlarge)

    assert size == ((width, height) if enlarge else (min(width, source[0]), min(height, source[1])))
    assert box == (0, 0, *source)


@IN_ITS_TIME
@given(SOURCES, SIDES, st.sampled_from(["inside", "outside", "cover", "contain", "fill"]), st.booleans(), st.booleans())
def test_one_side_given_decides_the_other(source: Size, side: int, fit: Any, tall: bool, enlarge: bool) -> None:
    """With a width or a height alone, every fit keeps the shape and makes that side."""
    size, box = fit_to(source, None if tall else side, side if tall else None, fit, enlarge)

    assert box == (0, 0, *source)
    assert keeps_aspect(source, size)
    assert size[tall] == (side if enlarge else min(side, source[tall]))


@IN_ITS_TIME
@given(SOURCES, SIDES, SIDES, st.sampled_from(["inside", "outside", "cover", "contain", "fill"]))
def test_nothing_is_ever_enlarged_unasked(source: Size, width: int, height: int, fit: Any) -> None:
    """Without `enlarge` no side is longer than the source's, and no pixel is made of less than one."""
    size, box = fit_to(source, width, height, fit, False)

    assert size[0] <= source[0] and size[1] <= source[1]
    assert min(size) >= 1
    # A sliver's side of less than half a pixel is rounded up to one.
    assert size[0] <= max(1, box[2] - box[0]) + 0.51 and size[1] <= max(1, box[3] - box[1]) + 0.51


@IN_ITS_TIME
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


# -- position ----------------------------------------------------------------------------------------------------------

POSITIONS = get_args(Position)
FITS = st.sampled_from(["inside", "outside", "cover", "contain", "fill"])


def corner(position: str) -> tuple[float, float]:
    """Where a position lies, from 0 at the left or top to 1 at the right or bottom; written out, as a reader would."""
    across = {"left": 0.0, "right": 1.0}
    down = {"top": 0.0, "bottom": 1.0}
    words = position.split()
    return (
        next((across[word] for word in words if word in across), 0.5),
        next((down[word] for word in words if word in down), 0.5),
    )


@IN_ITS_TIME
@given(SOURCES, SIDES, SIDES, st.booleans(), st.sampled_from(POSITIONS))
@example((4000, 3), 200, 200, False, "bottom right")
@example((301, 40), 200, 200, False, "right")
def test_cover_keeps_the_side_it_is_told(
    source: Size, width: int, height: int, enlarge: bool, position: Position
) -> None:
    """What is kept lies in the picture, touches the side or corner named, is as large as at the centre, undistorted."""
    size, box = fit_to(source, width, height, "cover", enlarge, corner(position))
    centred = fit_to(source, width, height, "cover", enlarge)

    assert lies_inside(box, source) and size == centred[0]
    part = box[2] - box[0], box[3] - box[1]
    scale_x, scale_y = size[0] / part[0], size[1] / part[1]
    assert abs(scale_x / scale_y - 1) <= 1.001 / min(size)
    for axis, at in enumerate(corner(position)):
        before, after = box[axis], source[axis] - box[axis + 2]
        assert part[axis] == pytest.approx(centred[1][axis + 2] - centred[1][axis])
        assert at != 0 or before == 0
        assert at != 1 or after == pytest.approx(0, abs=source[axis] * 1e-9)
        assert at != 0.5 or abs(before - after) <= 1.001


def squares() -> Image.Image:
    """Nine squares of nine colours."""
    image = Image.new("RGB", (90, 90))
    for across in range(3):
        for down in range(3):
            image.paste((across * 120, down * 120, 60), (across * 30, down * 30, across * 30 + 30, down * 30 + 30))
    return image


@pytest.mark.parametrize("position", POSITIONS)
def test_cover_keeps_what_stands_there(position: Position) -> None:
    """Of a wide and of a tall cut, the pixels at that side; a side across the cut changes nothing."""
    at = corner(position)
    for axis, box in enumerate([(30, 90), (90, 30)]):
        made = Resize(width=box[0], height=box[1], fit="cover", position=position)(
            OpenedPicture(squares(), upright=True)
        )
        begin = int(60 * at[axis])
        wanted = squares().crop((begin, 0, begin + 30, 90) if axis == 0 else (0, begin, 90, begin + 30))
        assert made.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("box", [(60, 21), (21, 60), (60, 60)])
def test_contain_moves_the_picture_there(position: Position, box: Size) -> None:
    """The whole picture, at that side of the box, and the background everywhere else."""
    made = Resize(width=box[0], height=box[1], fit="contain", position=position, background="lime")(picture(20, 20))
    at = corner(position)
    left, top = (int((box[axis] - 20) * at[axis]) for axis in (0, 1))
    wanted = Image.new("RGB", box, "lime")
    wanted.paste("red", (left, top, left + 20, top + 20))

    assert made.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("top left", "left top"),
        ("top right", "right top"),
        ("bottom left", "left bottom"),
        ("bottom right", "right bottom"),
        ("centre", "center"),
    ],
)
def test_a_corner_may_be_named_either_way(one: Position, other: Position) -> None:
    """As in CSS, both orders of the words mean one corner."""
    for fit in ("cover", "contain"):
        made = [Resize(width=50, height=20, fit=fit, position=each)(OpenedPicture(squares(), upright=True))
                for each in (one, other)]  # fmt: skip
        assert made[0].tobytes() == made[1].tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
def test_positions_are_those_of_the_upright_picture(orientation: int, name: str) -> None:
    """However the file is stored, `top left` is the top left of what is seen."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = STORED[orientation]
    stored = squares().transpose(how) if how is not None else squares()
    data = encode(stored, name, exif=exif.tobytes(), **({"quality": 100, "subsampling": 0} if name == "JPEG" else {}))
    for position in POSITIONS:
        for box in ((45, 15), (15, 45)):
            made = Resize(width=box[0], height=box[1], fit="cover", position=position)(open_picture(data))
            wanted = Resize(width=box[0], height=box[1], fit="cover", position=position)(
                OpenedPicture(squares(), upright=True)
            )
            assert mean(made, wanted) < 6, (position, box)


# -- filter and gap ----------------------------------------------------------------------------------------------------


def photograph(width: int, height: int) -> Image.Image:
    """Like one: smooth in the large, detailed and a little noisy in the small."""
    fine = Image.effect_mandelbrot((width, height), (-1.6, -1.1, 0.8, 1.1), 60)
    grain = Image.linear_gradient("L").resize((width, height)).rotate(17)
    return Image.merge("RGB", (fine, ImageChops.add(fine, grain, 2), paint(width, height).getchannel("B")))


@pytest.mark.parametrize("name", get_args(Filter))
def test_every_filter_is_heard(name: Filter) -> None:
    """Each is Pillow's filter of that name but for rounding, and no two give one picture."""
    image = photograph(97, 61)
    made = Resize(width=40, filter=name)(OpenedPicture(image, upright=True))
    wanted = image.resize((40, 25), Image.Resampling[name.upper()], reducing_gap=1.0 if name != "lanczos" else None)
    others = [Resize(width=40, filter=each)(OpenedPicture(image, upright=True)).tobytes()
              for each in get_args(Filter) if each != name]  # fmt: skip

    assert made.tobytes() == wanted.tobytes() if name != "lanczos" else mean(made, wanted) < 0.5
    assert made.tobytes() not in others


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "L"])
def test_nearest_keeps_the_colours_there_are(mode: str) -> None:
    """No new colour is mixed, for pictures that no decoder reduces."""
    data = encode(photograph(97, 61).convert(mode), "PNG")
    whole = open_picture(data).load()
    for fit in ("inside", "fill", "cover"):
        made = Resize(width=40, height=33, fit=fit, filter="nearest")(open_picture(data))
        assert made.mode == whole.mode
        assert {colour for _, colour in made.getcolors(9999)} <= {colour for _, colour in whole.getcolors(9999)}


@pytest.mark.parametrize("size", [(150, 100), (90, 60), (65, 43)])
def test_more_gap_comes_closer_to_the_best(backend: str, size: Size) -> None:
    """1, 2, 3 and 100 come closer and closer to a Lanczos over every pixel, or stay as close; and all are heard."""
    data = encode(photograph(900, 600), "JPEG")
    best = exact_lanczos(open_picture(data).load(), size, (0, 0, 900, 600))
    made = [Resize(width=size[0], height=size[1], gap=gap, fit="fill")(open_picture(data)) for gap in (1, 2, 3, 100)]
    near_db = [psnr_db(image, best) for image in made]

    assert all(after > before - 0.1 for before, after in itertools.pairwise(near_db))
    assert near_db[3] > near_db[0] + 1 and near_db[3] > 50


# By the width of the result: how near sharp 0.35.5 (bench/resizing/peers/sharp.mjs) comes to Lanczos over every pixel,
# in dB, from `photograph(1200, 800)` as a JPEG of quality 95, and as a PNG with alpha.
SHARPS_DB = {
    "JPEG": {960: 59.7, 600: 60.5, 480: 59.8, 400: 43.6, 300: 49.0, 240: 44.9, 150: 50.9, 133: 41.3, 100: 42.7,
             75: 50.9, 30: 49.9},
    "PNG": {960: 50.8, 600: 51.0, 480: 50.7, 400: 49.2, 300: 51.1, 240: 51.3, 150: 51.0, 133: 48.2, 100: 46.8,
            75: 50.9, 30: 49.2},
}  # fmt: skip


@pytest.mark.parametrize("name", SHARPS_DB)
def test_it_comes_as_near_to_the_best_as_sharp(backend: str, name: str) -> None:
    """At every ratio, within half a decibel; with the extra `fast` 45 dB and more."""
    image = photograph(1200, 800)
    if name == "PNG":
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    data = encode(image, name, **({"quality": 95} if name == "JPEG" else {}))
    whole = open_picture(data).load()
    for width, sharps_db in SHARPS_DB[name].items():
        made = Resize(width=width)(open_picture(data))
        near_db = psnr_db(made, exact_lanczos(whole, made.size, (0, 0, 1200, 800)))
        assert near_db > sharps_db - 0.5, width
        assert near_db > 45 or backend == "Pillow", width


@pytest.mark.parametrize(
    ("source", "width", "expected"),
    [
        ((1000, 333), 500, (500, 167)),  # 166.5
        ((1000, 335), 500, (500, 168)),  # 167.5, as half to even has it too
        ((46, 23), 13, (13, 7)),  # 6.5, a little less as a product of floats
        ((1000, 332), 500, (500, 166)),
        ((4000, 3), 500, (500, 1)),
    ],
)
def test_sides_are_rounded_half_up(source: Size, width: int, expected: Size) -> None:
    """As browsers and sharp round, not to the even neighbour, whatever the last bit of a float says."""
    assert fit_to(source, width, None, "inside", False)[0] == expected
    assert fit_to(source[::-1], None, width, "inside", False)[0] == expected[::-1]


@IN_ITS_TIME
@given(SOURCES, SIDES, SIDES, FITS, st.booleans(), st.floats(1, 4))
def test_the_box_of_a_resize_is_enough_for_it(
    source: Size, width: int, height: int, fit: Any, enlarge: bool, gap: float
) -> None:
    """What `fit_box` says the whole is decoded to is what the geometry makes of it, but for a pixel of rounding."""
    box = Resize.fit_box(**defaults(width=width, height=height, fit=fit, enlarge=enlarge, gap=gap))
    size, part = fit_to(source, width, height, fit, enlarge)
    for axis in (0, 1):
        needed = size[axis] * source[axis] / (part[axis + 2] - part[axis]) * gap
        assert needed <= box.whole(source)[axis] + gap * source[axis] / (part[axis + 2] - part[axis]) + 1e-6
