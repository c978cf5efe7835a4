"""JPEG 2000 whose channels have less than 8 bits: made from those of 8, since no encoder here writes them."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image
from support.avif import box
from support.pictures import encode

from pipeline.images.decode import open_picture
from pipeline.images.jpeg_2000 import MAGIC, read_codestream

SIZE = (64, 8)


def stored(mode: str, bits: tuple[int, ...], *, bare: bool) -> bytes:
    """A lossless picture whose first row counts from 0 up to the most that each channel holds.

    Values are stored as their distance to the middle (T.800, G.1.2), which those of 8 bits have elsewhere.
    """
    channels = []
    for depth in bits:
        channel = Image.new("L", SIZE)
        channel.putdata([(at % SIZE[0]) % (1 << depth) + 128 - (1 << depth - 1) for at in range(SIZE[0] * SIZE[1])])
        channels.append(channel)
    data = bytearray(encode(Image.merge(mode, channels), "JPEG2000", irreversible=False, mct=0, no_jp2=bare))
    at = data.index(MAGIC[0]) + 42
    for number, depth in enumerate(bits):
        data[at + 3 * number] = depth - 1
    return bytes(data)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(("mode", "bits"), [
    ("L", (1,)), ("L", (2,)), ("L", (4,)), ("L", (7,)), ("L", (8,)), ("LA", (4, 1)), ("LA", (8, 1)), ("RGB", (5, 6, 5)),
    ("RGB", (1, 1, 1)), ("RGB", (8, 8, 8)), ("RGBA", (4, 4, 4, 4)), ("RGBA", (8, 8, 8, 1)),
])  # fmt: skip
def test_the_most_that_a_channel_holds_is_white(mode: str, bits: tuple[int, ...], bare: bool) -> None:
    """Black is 0 and white is 255 whatever the depth, and what lies between is where it belongs."""
    image = open_picture(stored(mode, bits, bare=bare)).load()

    assert image.mode == mode
    for channel, depth in zip(image.split(), bits, strict=True):
        top = (1 << depth) - 1
        for at in range(SIZE[0]):
            assert abs(channel.getpixel((at, 0)) - 255 * (at % (top + 1)) / top) <= 0.5


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_is_asked_by_its_indices(bits: int) -> None:
    """Those of less than 8 bits are no multiples."""
    palette = [(16 * index % 256, 255 - index, index) for index in range(1 << bits)]
    entries = struct.pack(">HB3B", len(palette), 3, 7, 7, 7) + b"".join(map(bytes, palette))
    mapping = b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(3))
    head = struct.pack(">IIHBBBB", SIZE[1], SIZE[0], 1, bits - 1, 7, 0, 0)
    colors = struct.pack(">BBBI", 1, 0, 0, 16)
    boxes = [box(b"ihdr", head), box(b"colr", colors), box(b"pclr", entries), box(b"cmap", mapping)]
    codestream = box(b"jp2c", stored("L", (bits,), bare=True))
    data = MAGIC[1] + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", *boxes) + codestream

    image = open_picture(data).load()

    assert [image.getpixel((at, 0)) for at in range(SIZE[0])] == [palette[at % (1 << bits)] for at in range(SIZE[0])]


def test_what_a_codestream_says_is_read_wherever_the_file_stands() -> None:
    """And the file is left there; one that is cut off says nothing."""
    data = stored("RGB", (5, 6, 5), bare=False)
    file = io.BytesIO(data)
    file.seek(7)
    codestream = read_codestream(file)

    assert codestream is not None and file.tell() == 7
    assert (codestream.size, codestream.tile_size, codestream.bits) == (SIZE, SIZE, (5, 6, 5))
    assert read_codestream(io.BytesIO(data[: data.index(MAGIC[0]) + 41])) is None
