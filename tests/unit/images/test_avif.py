"""AVIF put together by hand: its colours, its alpha, how it is turned and cut, and what does no harm."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest
from PIL import ExifTags, Image
from support.avif import avif, box, coded, imir, irot, ispe, nclx
from support.colors import (
    BT709,
    BT2020,
    P3,
    SAMPLES,
    bt709_light,
    hlg_light,
    in_srgb,
    pq_light,
    srgb_light,
    srgb_value,
    tone_mapped,
)
from support.pictures import SWAPPED, decode, encode, mean, paint, saved, worst

from pipeline.errors import Unreadable
from pipeline.images import Limits, limited_to
from pipeline.images.decode import open_picture
from pipeline.notes import collected

WIDTH, HEIGHT = 40, 30
SIZE = ispe(WIDTH, HEIGHT)
SRGB = nclx(1, 13)
PICTURE = paint(WIDTH, HEIGHT)
ALPHA = Image.linear_gradient("L").resize((WIDTH, HEIGHT))


@cache
def picture(mode: str = "RGB", limited: bool = False) -> tuple[bytes, bytes]:
    return coded(ALPHA if mode == "A" else PICTURE.convert(mode), limited=limited)


def load(data: bytes, **how: Any) -> tuple[Image.Image, list[str]]:
    with collected() as notes:
        image = open_picture(data).load(**how)
    return image, list(notes)


# -- colours -----------------------------------------------------------------------------------------------------------

COLORS: dict[str, tuple[list[bytes], Sequence[float], Callable[[float], float]]] = {
    "nothing": ([], BT709, srgb_light),
    "sRGB": ([nclx(1, 13)], BT709, srgb_light),
    "not named": ([nclx(2, 2)], BT709, srgb_light),
    "P3": ([nclx(12, 13)], P3, srgb_light),
    "P3, curve not named": ([nclx(12, 2)], P3, srgb_light),
    "BT.709": ([nclx(1, 1)], BT709, bt709_light),
    "BT.2020": ([nclx(9, 14)], BT2020, bt709_light),
    "linear": ([nclx(1, 8)], BT709, lambda v: v),
    "gamma 2.2": ([nclx(2, 4)], BT709, lambda v: v**2.2),
    "PQ": ([nclx(9, 16)], BT2020, lambda v: tone_mapped(pq_light(v))),
    "HLG": ([nclx(9, 18)], BT2020, lambda v: tone_mapped(hlg_light(v))),
}


@pytest.mark.parametrize("named", COLORS)
def test_colours_are_what_nclx_names(named: str) -> None:
    """By the standards' formulas, of the colours that were stored, which AV1 changed a little."""
    named_by, primaries, light = COLORS[named]
    blocks = Image.new("RGB", (8 * 10, 8 * 8))
    for at, color in enumerate(SAMPLES):
        blocks.paste(color, (at % 10 * 8, at // 10 * 8, at % 10 * 8 + 8, at // 10 * 8 + 8))
    data = coded(blocks)
    stored, _ = load(avif(data, [ispe(*blocks.size)]))

    image, notes = load(avif(data, [ispe(*blocks.size), *named_by]))

    for at in range(len(SAMPLES)):
        place = at % 10 * 8 + 4, at // 10 * 8 + 4
        color: Any = stored.getpixel(place)
        expected = in_srgb(color, primaries, light)
        assert max(abs(a - b) for a, b in zip(image.getpixel(place), expected, strict=True)) <= 1, (color, expected)
    hdr = named in ("PQ", "HLG")
    assert notes == ([f"its colours are HDR: brought to the range of sRGB, {named}"] if hdr else [])


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("named", [name for name, (boxes, _, _) in COLORS.items() if boxes])
def test_greys_are_what_nclx_names(named: str, full_range: bool) -> None:
    """Those of a picture without colours have its curve, and its range."""
    (named_by,), _, light = COLORS[named]
    of_range = named_by[:-1] + bytes((full_range << 7,))
    blocks = Image.new("L", (8 * 16, 8 * 16))
    for at in range(256):
        blocks.paste(at, (at % 16 * 8, at // 16 * 8, at % 16 * 8 + 8, at // 16 * 8 + 8))
    data, size = coded(blocks), ispe(*blocks.size)
    stored, _ = load(avif(data, [size]))
    image, notes = load(avif(data, [size, of_range]))

    assert image.mode == "L"
    for at in range(256):
        place = at % 16 * 8 + 4, at // 16 * 8 + 4
        level: Any = stored.getpixel(place)
        value = level / 255 if full_range else min(1.0, max(0.0, round((level - 16) * 255 / 219) / 255))
        assert abs(image.getpixel(place) - 255 * srgb_value(light(value))) <= 1, (level, place)  # type: ignore[operator]
    assert notes == ([f"its colours are HDR: brought to the range of sRGB, {named}"] if named in ("PQ", "HLG") else [])


def test_a_profile_counts_before_nclx() -> None:
    """A red by a profile whose red is blue comes out blue, in whatever order both stand."""
    profile = box(b"colr", b"prof", SWAPPED)
    red = coded(Image.new("RGB", (16, 16), (250, 10, 10)))
    for properties in ([profile, nclx(12, 16)], [nclx(12, 16), profile]):
        image, notes = load(avif(red, [ispe(16, 16), *properties]))
        assert image.getpixel((4, 4))[2] > 235 and image.getpixel((4, 4))[0] < 45 and not notes


def test_unknown_colours_are_noted() -> None:
    """Reserved code points are read as sRGB, and said."""
    image, notes = load(avif(picture(), [SIZE, nclx(1, 77)]))

    assert mean(image, PICTURE) < 1.5
    assert notes == ["its colours cannot be told: read as sRGB, unknown colours 1/77"]


def test_an_animation_has_its_colours() -> None:
    """Those that its track names."""
    data = encode(PICTURE, "AVIF", save_all=True, append_images=[PICTURE.rotate(180)], quality=100, duration=100)
    p3 = data.replace(struct.pack(">4sHHH", b"nclx", 1, 13, 6), struct.pack(">4sHHH", b"nclx", 12, 13, 6))
    stored: Any = load(data, frames="all")[0]
    moving: Any = load(p3, frames="all")[0]

    assert p3 != data and len(moving.frames) == len(stored.frames) == 2
    for place in [(3, 3), (20, 15), (37, 9)]:
        for made, frame in zip(moving.frames, stored.frames, strict=True):
            expected = in_srgb(frame.getpixel(place), P3, srgb_light)
            assert max(abs(a - b) for a, b in zip(made.getpixel(place), expected, strict=True)) <= 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("named", [[nclx(1, 13, 6, False)], []])
def test_a_limited_range_is_widened(mode: str, named: list[bytes]) -> None:
    """Black and white stored as 16 and 235 are 0 and 255, whether the box or the coded picture says so."""
    image, _ = load(avif(picture(mode, limited=True), [SIZE, *named]))

    assert mean(image.convert(mode), PICTURE.convert(mode)) < 1.5


def of_limited_range(color: tuple[int, ...], red: float, blue: float) -> tuple[float, ...]:
    """What JFIF makes of a YCbCr, taken back to that, and read as limited range of other weights (ITU-T H.273, 8.3)."""
    y = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    cb, cr = (color[2] - y) / 1.772 / 224, (color[0] - y) / 1.402 / 224
    y = (y - 16) / 219
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return tuple(255 * min(1.0, max(0.0, v)) for v in (r, (y - red * r - blue * b) / (1 - red - blue), b))


@pytest.mark.parametrize("alpha", [None, [SIZE], []])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)])
def test_limited_range_by_every_matrix(matrix: int, red: float, blue: float, alpha: Any) -> None:
    """By the formulas of the standard; libyuv's blue is up to 17 levels off."""
    beside: Any = {} if alpha is None else {"alpha": picture("A"), "alpha_properties": alpha}
    stored, _ = load(avif(picture(limited=True), [SIZE, nclx(1, 13, 6)]))
    image, notes = load(avif(picture(limited=True), [SIZE, nclx(1, 13, matrix, False)], **beside))

    for x, y in product(range(0, WIDTH, 3), range(0, HEIGHT, 3)):
        expected = of_limited_range(stored.getpixel((x, y)), red, blue)
        assert max(abs(a - b) for a, b in zip(image.getpixel((x, y))[:3], expected, strict=True)) < 3.5
    assert not notes and (alpha is None or worst(image.getchannel("A"), ALPHA) <= 1)


# -- alpha -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_alpha(mode: str, limited: bool, named: bool) -> None:
    """It is what was stored, whether its extent is named or not, and whatever its range."""
    data = avif(picture(mode), [SIZE, SRGB], alpha=picture("A", limited), alpha_properties=[SIZE] if named else [])
    image, notes = load(data)

    assert image.mode == "RGBA" and not notes
    assert worst(image.getchannel("A"), ALPHA) <= 1
    assert mean(image.convert("RGB").convert(mode), PICTURE.convert(mode)) < 1.5


def test_alpha_of_another_size() -> None:
    """It is enlarged where its extent is not named, and refused where it is."""
    small = coded(ALPHA.resize((20, 15)))
    image, _ = load(avif(picture(), [SIZE, SRGB], alpha=small))

    assert worst(image.getchannel("A"), ALPHA) < 10
    with pytest.raises(Unreadable, match=r"^damaged picture: "):
        load(avif(picture(), [SIZE, SRGB], alpha=small, alpha_properties=[ispe(20, 15)]))


def test_premultiplied_alpha_is_divided_out() -> None:
    """Colours are stored darker by their alpha, and come out as they were."""
    black = Image.new("RGB", PICTURE.size)
    darkened = Image.composite(PICTURE, black, ALPHA)
    for own, limited in (([SIZE], False), ([], False), ([SIZE], True)):
        stored = coded(darkened, limited=limited)
        image, _ = load(
            avif(
                stored,
                [SIZE, nclx(1, 13, 6, not limited)],
                alpha=picture("A"),
                alpha_properties=own,
                premultiplied=True,
            )
        )
        opaque = (0, HEIGHT // 2, WIDTH, HEIGHT)
        assert mean(image.convert("RGB").crop(opaque), PICTURE.crop(opaque)) < 2


# -- geometry ----------------------------------------------------------------------------------------------------------

LEFT = [None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
MIRRORED = [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT]
GEOMETRIES = list(product((0, 1, 2, 3), (None, 0, 1)))


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()[6:]


def turned(image: Image.Image, quarters: int, axis: int | None) -> Image.Image:
    turn = LEFT[quarters]
    image = image.transpose(turn) if turn is not None else image
    return image.transpose(MIRRORED[axis]) if axis is not None else image


@pytest.mark.parametrize("exif", [b"", exif_of(6), exif_of(2), b"garbage"])
@pytest.mark.parametrize(("quarters", "axis"), GEOMETRIES)
def test_irot_and_imir_turn_and_nothing_else(quarters: int, axis: int | None, exif: bytes) -> None:
    """Turned to the left first, then mirrored; EXIF orientation does not count (MIAF), and broken EXIF does no harm."""
    properties = [SIZE, SRGB, *([irot(quarters)] if quarters else []), *([imir(axis)] if axis is not None else [])]
    image, notes = load(avif(picture(), properties, alpha=picture("A"), exif=exif))

    assert mean(image.convert("RGB"), turned(PICTURE, quarters, axis)) < 1.5
    assert worst(image.getchannel("A"), turned(ALPHA, quarters, axis)) <= 1
    assert notes == (["its EXIF is damaged: left out"] if exif == b"garbage" else [])


@pytest.mark.parametrize(("quarters", "axis"), [(1, 0), (1, 1), (2, 0), (3, 0), (3, 1)])
def test_mirrored_first_and_then_turned(quarters: int, axis: int) -> None:
    """In the order in which the file names them (HEIF, 6.5.1)."""
    image, _ = load(avif(picture(), [SIZE, SRGB, imir(axis), irot(quarters)], alpha=picture("A"), exif=b"garbage"))

    assert mean(image.convert("RGB"), turned(PICTURE.transpose(MIRRORED[axis]), quarters, None)) < 1.5
    assert worst(image.getchannel("A"), turned(ALPHA.transpose(MIRRORED[axis]), quarters, None)) <= 1


def test_the_limits_are_those_of_the_whole_picture() -> None:
    """A small aperture makes no huge picture small."""
    with limited_to(Limits(max_pixels=1000)), pytest.raises(Unreadable, match=r"^too large: 40x30"):
        load(avif(picture(), [SIZE, SRGB, clap(20, 10)]))


def clap(width: int, height: int, across: tuple[int, int] = (0, 1), down: tuple[int, int] = (0, 1)) -> bytes:
    """A clean aperture, whose middle is so far from that of the picture, as fractions."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, *across, *down))


@pytest.mark.parametrize(("aperture", "part"), [
    (clap(20, 10), (10, 10, 30, 20)), (clap(20, 10, (-10, 1), (-10, 1)), (0, 0, 20, 10)),
    (clap(21, 11, (1, 2), (-1, 2)), (10, 9, 31, 20)), (clap(40, 29, (0, 1), (1, 2)), (0, 1, 40, 30)),
])  # fmt: skip
@pytest.mark.parametrize(("quarters", "axis"), [(0, None), (1, None), (3, 1)])
def test_the_clean_aperture_is_the_picture(aperture: bytes, part: Any, quarters: int, axis: int | None) -> None:
    """Cut before it is turned, with its alpha."""
    properties = [SIZE, SRGB, aperture, *([irot(quarters)] if quarters else []), *([imir(axis)] if axis else [])]
    data = avif(picture(), properties, alpha=picture("A"))
    image, _ = load(data)

    assert open_picture(data).size == image.size
    assert mean(image.convert("RGB"), turned(PICTURE.crop(part), quarters, axis)) < 1.5
    assert worst(image.getchannel("A"), turned(ALPHA.crop(part), quarters, axis)) <= 1


@pytest.mark.parametrize("aperture", [
    clap(41, 10), clap(20, 10, (11, 1)), clap(20, 10, (1, 2)), clap(20, 10, (0, 0)), clap(0, 10),
])  # fmt: skip
def test_a_clean_aperture_that_is_none_is_left_out(aperture: bytes) -> None:
    """Not within the picture, or not of whole pixels."""
    image, notes = load(avif(picture(), [SIZE, SRGB, aperture]))

    assert image.size == PICTURE.size
    assert notes == ["its clean aperture is no part of it: the whole picture is taken"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_we_write_is_read_as_it_was(mode: str) -> None:
    """Nothing is noted or converted of an AVIF of our own."""
    data = saved(PICTURE.convert(mode), ".avif")
    image, notes = load(data)

    assert worst(image, decode(data)) == 0 and not notes
