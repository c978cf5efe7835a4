"""SGI: rows are decoded by the lengths that the file states; the files are written by hand, as ffmpeg does."""

from __future__ import annotations

import struct
from itertools import groupby

import pytest
from PIL import Image
from support.pictures import encode, paint

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture


def packed(row: list[int], code: str) -> bytes:
    """Runs of samples, and what is no run as it is (Haeberli, "RLE"); samples and counts are of struct's code."""
    said: list[int] = []
    for sample, alike in groupby(row):
        count = len(list(alike))
        for begin in range(0, count, 127):
            part = min(127, count - begin)
            said += [part, sample] if part > 1 else [0x81, sample]
    return struct.pack(f">{len(said)}{code}", *said)


def sgi(image: Image.Image, *, deep: bool = False, end_mark: bool = False, shared: bool = False) -> bytes:
    """A run-length encoded SGI, whose rows have an end mark or not; `shared` stores rows that are alike once."""
    code, scale = ("H", 257) if deep else ("B", 1)
    mark = bytes(struct.calcsize(code)) if end_mark else b""
    channels = [list(channel.get_flattened_data()) for channel in image.split()]
    rows = [
        packed([scale * value for value in channel[y * image.width : (y + 1) * image.width]], code) + mark
        for channel in channels
        for y in range(image.height - 1, -1, -1)
    ]
    dimension = 2 if len(channels) == 1 else 3
    head = struct.pack(">HBBHHHH", 474, 1, 1 + deep, dimension, *image.size, len(channels)).ljust(512, b"\0")
    places: list[int] = []
    body, seen = b"", dict[bytes, int]()
    for row in rows:
        if not shared or row not in seen:
            seen[row] = 512 + 8 * len(rows) + len(body)
            body += row
        places.append(seen[row])
    return head + struct.pack(f">{2 * len(rows)}I", *places, *map(len, rows)) + body


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("end_mark", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_rows_end_where_the_file_says(mode: str, deep: bool, end_mark: bool, shared: bool) -> None:
    """With an end mark and without, of 8 and 16 bits, and where rows that are alike are stored once."""
    painted = paint(300, 7).convert(mode)
    painted.paste(painted.getpixel((3, 3)), (0, 0, 300, 3))
    data = sgi(painted, deep=deep, end_mark=end_mark, shared=shared)
    image = open_picture(data).load()
    assert (image.mode, image.size, image.tobytes()) == (mode, painted.size, painted.tobytes())


def test_flat_rows_are_not_black() -> None:
    """A row of one run is decoded, too, and all rows after it."""
    image = open_picture(sgi(Image.new("L", (100, 5), 77))).load()
    assert image.getextrema() == (77, 77)


@pytest.mark.parametrize("deep", [False, True])
def test_a_cut_file_is_truncated(deep: bool) -> None:
    """Wherever it is cut behind its header."""
    data = sgi(paint(30, 7), deep=deep)
    for length in (*range(512, len(data), 97), len(data) - 1):
        with pytest.raises(Unreadable, match=r"^truncated picture: "):
            open_picture(data[:length]).load()


def test_rows_upon_each_other_are_refused() -> None:
    """A small file cannot ask for any amount of memory."""
    data = bytearray(sgi(paint(30, 7)))
    rows = 3 * 7
    data[512 : 512 + 8 * rows] = struct.pack(f">{2 * rows}I", *range(600, 600 + rows), *[400] * rows)
    with pytest.raises(Unreadable, match=r"^damaged picture: its rows lie upon each other$"):
        open_picture(bytes(data)).load()


def test_a_color_map_is_refused_by_its_name() -> None:
    """Samples that are no colours by themselves are not read as such."""
    data = bytearray(encode(paint(9, 9, "L"), "SGI"))
    data[104:108] = struct.pack(">I", 1)
    with pytest.raises(Unreadable, match=r"^unsupported: SGI with a colour map of kind 1$"):
        open_picture(bytes(data))
