"""How frames are composed on their canvas: every pixel of made-up animations, against the rules of GIF89a and APNG.

The files are written by hand, and what is expected is composed here from the pixels that went into them.
"""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image
from support.animations import moving, scenes
from support.pictures import png_chunk, saved

from pipeline.errors import Unreadable
from pipeline.images.animation import Animation
from pipeline.images.decode import open_picture

Pixel = tuple[int, int, int, int]
Rows = list[list[Pixel]]
CLEAR: Pixel = (0, 0, 0, 0)
WIDTH, HEIGHT = 9, 11


@dataclass
class Drawn:
    """One frame: where it is, its pixels, what becomes of it, and whether it covers what was there."""

    at: tuple[int, int]
    rows: Rows
    dispose: str = "keep"
    replaces: bool = False


def over(above: Pixel, below: Pixel) -> Pixel:
    """Blend as the PNG specification says (13.16), or leave whole what is opaque or clear."""
    if above[3] in (0, 255):
        return above if above[3] else below
    alpha = above[3] / 255 + below[3] / 255 * (1 - above[3] / 255)
    mixed = [(a * above[3] / 255 + b * below[3] / 255 * (1 - above[3] / 255)) / alpha
             for a, b in zip(above[:3], below[:3], strict=True)]  # fmt: skip
    return (*(round(each) for each in mixed), round(255 * alpha))  # type: ignore[return-value]


def composed(frames: list[Drawn]) -> list[Rows]:
    """What a viewer shows, frame by frame."""
    canvas: Rows = [[CLEAR] * WIDTH for _ in range(HEIGHT)]
    shown = []
    for frame in frames:
        before = [list(row) for row in canvas]
        places = [(x, y) for y in range(len(frame.rows)) for x in range(len(frame.rows[0]))
                  if frame.at[0] + x < WIDTH and frame.at[1] + y < HEIGHT]  # fmt: skip
        for x, y in places:
            at_x, at_y, pixel = frame.at[0] + x, frame.at[1] + y, frame.rows[y][x]
            canvas[at_y][at_x] = pixel if frame.replaces else over(pixel, canvas[at_y][at_x])
        shown.append([list(row) for row in canvas])
        if frame.dispose == "clear":
            for x, y in places:
                canvas[frame.at[1] + y][frame.at[0] + x] = CLEAR
        elif frame.dispose == "restore":
            canvas = before
    return shown


def joined(rows: list[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(rows))


def pixels_of(image: Image.Image) -> list[Pixel]:
    data = image.convert("RGBA").tobytes()
    return [tuple(data[at : at + 4]) for at in range(0, len(data), 4)]  # type: ignore[misc]


def assert_shows(data: bytes, expected: list[Rows], *, off: int = 0) -> None:
    """All frames, and the first frame by itself, have these pixels; no colour is asked of a clear one."""
    image = open_picture(data).load(frames="all")
    frames = image.frames if isinstance(image, Animation) else (image,)
    assert len(frames) == len(expected)
    first = open_picture(data).load()
    for number, (frame, rows) in enumerate(zip([*frames, first], [*expected, expected[0]], strict=True)):
        found = pixels_of(frame)
        for at, (pixel, wanted) in enumerate(zip(found, joined(rows), strict=True)):
            assert pixel[3] == wanted[3] == 0 or all(abs(a - b) <= off for a, b in zip(pixel, wanted, strict=True)), (
                f"frame {number}, pixel {at % WIDTH}, {at // WIDTH}: {pixel}, not {wanted}"
            )


# -- GIF ---------------------------------------------------------------------------------------------------------------


def palette_of(chance: random.Random) -> list[Pixel]:
    return [(*chance.randbytes(3), 255) for _ in range(8)]  # type: ignore[misc]


def packed(indices: list[int]) -> bytes:
    """Indices of 3 bits as codes of 4; the table is cleared so often that codes never grow."""
    codes = [code for at, index in enumerate(indices) for code in ((8, index) if at % 4 == 0 else (index,))] + [9]
    whole = sum(code << 4 * at for at, code in enumerate(codes)).to_bytes((len(codes) + 1) // 2, "little")
    return (
        b"\3"
        + b"".join(bytes([len(whole[at : at + 60])]) + whole[at : at + 60] for at in range(0, len(whole), 60))
        + b"\0"
    )


def colors(palette: list[Pixel]) -> bytes:
    return b"".join(bytes(color[:3]) for color in palette)


class GifWriter:
    """Writes a GIF of random frames, and remembers what is to be seen."""

    def __init__(self, chance: random.Random, *, has_palette: bool = True) -> None:
        self.chance, self.palette = chance, palette_of(chance)
        self.data = (
            b"GIF89a"
            + struct.pack("<HH3B", WIDTH, HEIGHT, 0x82 * has_palette, 3, 0)
            + colors(self.palette) * has_palette
        )
        self.drawn: list[Drawn] = []

    def add(
        self, box: tuple[int, int, int, int], *, dispose: int, clear: int | None, local: bool, interlaced: bool
    ) -> None:
        left, top, width, height = box
        rows = [[self.chance.randrange(8) for _ in range(width)] for _ in range(height)]
        palette = palette_of(self.chance) if local else self.palette
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
        stored = [rows[y] for y in order] if interlaced else rows
        if dispose or clear is not None:
            self.data += b"!\xf9\4" + struct.pack("<BHB", dispose << 2 | (clear is not None), 7, clear or 0) + b"\0"
        self.data += b"," + struct.pack("<4HB", *box, 0x82 * local | 0x40 * interlaced) + colors(palette) * local
        self.data += packed(joined(stored))
        pixels = [[CLEAR if index == clear else palette[index] for index in row] for row in rows]
        self.drawn.append(Drawn((left, top), pixels, {2: "clear", 3: "restore", 4: "restore"}.get(dispose, "keep")))


@pytest.mark.parametrize("seed", range(60))
def test_a_gif_is_composed_by_the_rules(seed: int) -> None:
    """Parts, interlacing, palettes of their own, clear pixels and every way to dispose of a frame, mixed at random."""
    chance = random.Random(seed)
    writer = GifWriter(chance)
    for _ in range(chance.randint(1, 5)):
        left, top = chance.choice(((0, 0), (chance.randrange(WIDTH), chance.randrange(HEIGHT))))
        whole = chance.random() < 0.3 and (left, top) == (0, 0)
        size = (WIDTH, HEIGHT) if whole else (chance.randint(1, WIDTH - left), chance.randint(1, HEIGHT - top))
        writer.add((left, top, *size), dispose=chance.randrange(6), clear=chance.choice((None, 0, 5)),
                   local=chance.random() < 0.5, interlaced=chance.random() < 0.5)  # fmt: skip

    assert_shows(writer.data + b";", composed(writer.drawn))


@pytest.mark.parametrize("clear", [None, 2])
@pytest.mark.parametrize("dispose", range(4))
def test_what_no_frame_covers_is_clear(dispose: int, clear: int | None) -> None:
    """Also in a GIF of a single frame, whatever the background colour of its screen is."""
    writer = GifWriter(random.Random(1))
    writer.add((2, 3, 4, 5), dispose=dispose, clear=clear, local=False, interlaced=False)
    assert_shows(writer.data + b";", composed(writer.drawn))


def test_what_stands_over_the_canvas_is_cut() -> None:
    """A later frame larger than the canvas, or beside it, changes nothing outside it."""
    writer = GifWriter(random.Random(2))
    for box in ((0, 0, WIDTH, HEIGHT), (5, 6, 30, 20), (40, 50, 3, 3), (0, 0, 60, 50)):
        writer.add(box, dispose=2, clear=1, local=True, interlaced=True)
    assert_shows(writer.data + b";", composed(writer.drawn))


def test_palettes_of_frames_alone() -> None:
    """A GIF may have no palette but those of its frames."""
    writer = GifWriter(random.Random(3), has_palette=False)
    for left in (0, 3):
        writer.add((left, 0, 5, 5), dispose=0, clear=None, local=True, interlaced=False)
    assert_shows(writer.data + b";", composed(writer.drawn))


def test_a_frame_of_no_pixels_draws_nothing() -> None:
    """It is shown for its time all the same."""
    writer = GifWriter(random.Random(4))
    writer.add((0, 0, 5, 5), dispose=1, clear=None, local=False, interlaced=False)
    writer.data += b"," + struct.pack("<4HB", 1, 1, 0, 3, 0) + packed([])
    writer.drawn.append(Drawn((0, 0), [[]]))
    assert_shows(writer.data + b";", composed(writer.drawn))


# -- PNG ---------------------------------------------------------------------------------------------------------------

KINDS = {"RGBA": 6, "RGB": 2, "LA": 4, "L": 0, "P": 3, "RGB with a clear colour": 2, "L with a clear grey": 0}


class PngWriter:
    """Writes an animated PNG of random frames, and remembers what is to be seen."""

    def __init__(self, chance: random.Random, kind: str, *, hides_first: bool = False) -> None:
        self.chance, self.kind, self.sequence = chance, kind, 0
        self.palette: list[Pixel] = [(*chance.randbytes(3), chance.choice((0, 90, 255))) for _ in range(8)]  # type: ignore[misc]
        self.data, self.drawn, self.hides_first = b"", list[Drawn](), hides_first
        if hides_first:
            self.data += png_chunk(b"IDAT", self.pixels(WIDTH, HEIGHT)[0])

    def pixels(self, width: int, height: int) -> tuple[bytes, Rows]:
        """Random pixels as they are stored, and as they are seen."""
        stored, rows = b"", []
        for _ in range(height):
            samples = [self.sample() for _ in range(width)]
            stored += b"\0" + b"".join(each for each, _ in samples)
            rows.append([seen for _, seen in samples])
        return zlib.compress(stored), rows

    def sample(self) -> tuple[bytes, Pixel]:
        chance = self.chance
        if self.kind == "P":
            index = chance.randrange(8)
            return bytes([index]), self.palette[index]
        levels = [chance.choice((0, 77, 200)) for _ in range(3)]
        if self.kind.startswith("L"):
            levels = levels[:1] * 3
        is_clear = "clear" in self.kind and levels == [77] * 3
        alpha = chance.choice((0, 255, 255, 128)) if self.kind in ("RGBA", "LA") else 0 if is_clear else 255
        stored = levels if self.kind.startswith("RGB") else levels[:1]
        return bytes([*stored, *([alpha] if self.kind in ("RGBA", "LA") else [])]), (*levels, alpha)  # type: ignore[return-value]

    def add(self, box: tuple[int, int, int, int], *, dispose: int, blend: int) -> None:
        left, top, width, height = box
        data, rows = self.pixels(width, height)
        self.data += png_chunk(
            b"fcTL", struct.pack(">5I2H2B", self.sequence, width, height, left, top, 7, 100, dispose, blend)
        )
        if self.sequence == 0 and not self.hides_first:
            self.data += png_chunk(b"IDAT", data)
        else:
            for part in (data[:7], data[7:]):
                self.sequence += 1
                self.data += png_chunk(b"fdAT", struct.pack(">I", self.sequence) + part)
        self.sequence += 1
        self.drawn.append(Drawn((left, top), rows, ("keep", "clear", "restore")[dispose], replaces=blend == 0))

    def whole(self) -> bytes:
        header = struct.pack(">2I5B", WIDTH, HEIGHT, 8, KINDS[self.kind], 0, 0, 0)
        shared = b""
        if self.kind == "P":
            shared = png_chunk(b"PLTE", colors(self.palette)) + png_chunk(
                b"tRNS", bytes(each[3] for each in self.palette)
            )
        elif "clear" in self.kind:
            shared = png_chunk(b"tRNS", struct.pack(">H", 77) * (3 if KINDS[self.kind] == 2 else 1))
        control = png_chunk(b"acTL", struct.pack(">II", len(self.drawn), 0))
        return (
            b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + shared + control + self.data + png_chunk(b"IEND", b"")
        )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_a_png_is_composed_by_the_rules(kind: str, seed: int) -> None:
    """Every way to blend and to dispose of a frame, in every kind of pixels, mixed at random."""
    chance = random.Random(f"{kind} {seed}")
    writer = PngWriter(chance, kind)
    for number in range(5):
        left, top = (0, 0) if number == 0 else (chance.randrange(WIDTH), chance.randrange(HEIGHT))
        size = (WIDTH, HEIGHT) if number == 0 else (chance.randint(1, WIDTH - left), chance.randint(1, HEIGHT - top))
        writer.add((left, top, *size), dispose=chance.randrange(3), blend=chance.randrange(2))

    assert_shows(writer.whole(), composed(writer.drawn), off=1)


def test_a_hidden_still_is_not_composed() -> None:
    """The frames of an APNG with a picture for others are drawn on a clear canvas, of which the first may be a part."""
    writer = PngWriter(random.Random(5), "RGBA", hides_first=True)
    for _ in range(3):
        writer.add((2, 3, 4, 5), dispose=1, blend=1)
    image = open_picture(writer.whole()).load(frames="all")

    assert isinstance(image, Animation) and len(image.frames) == 3
    for frame, rows in zip(image.frames, composed(writer.drawn), strict=True):
        assert [pixel[3] for pixel in pixels_of(frame)] == [pixel[3] for pixel in joined(rows)]


@pytest.mark.parametrize("change", ["order", "outside", "short", "empty"])
def test_an_apng_against_the_rules_is_damaged(change: str) -> None:
    """Chunks out of order, a frame outside the canvas, or one of no size: said so, with the still frame intact."""
    writer = PngWriter(random.Random(6), "RGB")
    writer.add((0, 0, WIDTH, HEIGHT), dispose=0, blend=0)
    if change == "order":
        writer.sequence += 1
    writer.add({"outside": (8, 8, 5, 5), "empty": (1, 1, 0, 4)}.get(change, (1, 1, 2, 2)), dispose=0, blend=0)
    data = writer.whole()
    if change == "short":
        at = data.rindex(b"fcTL") - 4
        data = data[:at] + png_chunk(b"fcTL", data[at + 8 : at + 20]) + data[at + 38 :]

    assert open_picture(data).load().size == (WIDTH, HEIGHT)
    with pytest.raises(Unreadable, match=r"^damaged picture: "):
        open_picture(data).load(frames="all")


# -- WebP --------------------------------------------------------------------------------------------------------------


def test_a_webp_whose_frames_are_opaque_parts_is_clear_around_them() -> None:
    """Its header says that no frame has alpha, and the canvas is clear all the same."""
    frames = [Image.new("RGBA", (60, 40)) for _ in range(2)]
    for number, frame in enumerate(frames):
        frame.paste((250, 0, 0, 255), (10 * number, 10, 10 * number + 20, 30))
    data = moving(frames, "WEBP")
    assert data[12:16] == b"VP8X" and not data[20] & 0x10

    image = open_picture(data).load(frames="all")
    assert isinstance(image, Animation) and open_picture(data).load().mode == "RGBA"
    for number, frame in enumerate(image.frames):
        assert [frame.getpixel(at) for at in ((50, 20), (10 * number + 5, 20))] == [CLEAR, (250, 0, 0, 255)]
    assert open_picture(moving(scenes(2), "WEBP")).load(frames="all").mode == "RGB"


# -- how many ----------------------------------------------------------------------------------------------------------


def test_more_frames_than_the_limit_are_refused() -> None:
    """A frame costs time however small it is, so their number has a limit of its own."""
    frame = b"," + struct.pack("<4HB", 0, 0, 1, 1, 0) + packed([1])
    head = b"GIF89a" + struct.pack("<HH3B", 1, 1, 0x82, 0, 0) + bytes(24)
    assert open_picture(head + 10_000 * frame + b";").frames == 10_000
    with pytest.raises(Unreadable, match=r"^too large: an animation of more than 10000 frames"):
        open_picture(head + 10_001 * frame + b";").load(frames="all")


# -- frames that become alike ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
def test_frames_that_are_alike_are_saved(clear: bool, count: int) -> None:
    """Writers make one frame of those that look the same; a GIF of one frame is shown for as long as all of them."""
    (frame,) = scenes(1, clear=clear)
    source = open_picture(moving(scenes(count, clear=clear), "PNG", duration=70)).load(frames="all")
    assert isinstance(source, Animation)
    alike = Animation([frame] * count, source.timing)
    image: Any = open_picture(saved(alike, ".gif")).load(frames="all")
    assert not isinstance(image, Animation)
    assert saved(alike, ".gif")[:900].count(struct.pack("<H", 7 * count)) >= 1
    assert open_picture(saved(alike, ".webp", lossless=True)).load().convert("RGBA").getpixel(
        (5, 20)
    ) == frame.getpixel((5, 20))
