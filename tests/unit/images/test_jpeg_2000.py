"""JPEG 2000 of channels of less or more than 8 bits: made from those of 8 and 16, which are all that Pillow writes."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image
from support.avif import box
from support.pictures import encode

from pipeline.errors import Unreadable
from pipeline.images import Limits, limited_to
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


def deep(values: list[list[int]], bits: int, *, is_lossy: bool = False) -> bytes:
    """A bare picture of these values, by channels.

    What an encoder makes of one channel of 16 bits is joined, channel after channel (T.800, B.12.1.5).
    """
    head, packets = b"", b""
    for channel in values:
        image = Image.new("I;16", SIZE)
        # Values are stored as their distance to the middle, or as parts of the range where they are quantised.
        move = (lambda v: v << (16 - bits)) if is_lossy else (lambda v: v + (1 << 15) - (1 << bits - 1))
        image.putdata([move(value) for value in channel])
        data = encode(image, "JPEG2000", irreversible=is_lossy, no_jp2=True, num_resolutions=3)
        head, _, packet = data[:-2].partition(b"\xff\x93")  # SOD
        packets += packet
    main, _, part = head.rpartition(b"\xff\x90")  # SOT
    count, order = len(values), main.index(b"\xff\x52") + 5  # COD
    siz = main[:4] + struct.pack(">H", 38 + 3 * count) + main[6:40] + struct.pack(">H", count)
    rest = main[45:order] + b"\4" + main[order + 1 :]
    part = part[:4] + struct.pack(">I", 14 + len(packets)) + part[8:]
    return siz + bytes([bits - 1, 1, 1]) * count + rest + b"\xff\x90" + part + b"\xff\x93" + packets + b"\xff\xd9"


@pytest.mark.parametrize("is_lossy", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [9, 10, 12, 16])
def test_the_most_that_a_deep_channel_holds_is_white(bits: int, channels: int, is_lossy: bool) -> None:
    """And black is 0; what lies between is within a level of where it belongs."""
    top = (1 << bits) - 1
    ramp = [round(top * at / 511) for at in range(512)]
    values = [ramp, ramp[::-1], [0] * 256 + [top] * 256, [top] * 512][-channels:]
    image = open_picture(deep(values, bits, is_lossy=is_lossy)).load()

    assert image.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
    for band, channel in zip(image.split(), values, strict=True):
        off = max(abs(a - 255 * b / top) for a, b in zip(band.tobytes(), channel, strict=True))
        assert off < (2 if is_lossy else 1)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_levels_of_8_bits_survive_more(bits: int) -> None:
    """Those that a program has brought to more bits are the same again."""
    values = [round(at * ((1 << bits) - 1) / 255) for at in range(256)] * 2
    image = open_picture(deep([values] * 3, bits)).load()
    assert list(image.getchannel(0).tobytes()) == [*range(256)] * 2


def test_deep_channels_count_as_what_they_cost() -> None:
    """They are decoded twice; one of them alone is not."""
    for channels, bytes_a_pixel in ((1, 9), (3, 23)):
        data = deep([[0] * 512] * channels, 12)
        most = 512 * bytes_a_pixel // 4
        with limited_to(Limits(most)):
            assert open_picture(data).load().size == SIZE
        with limited_to(Limits(most - 1)), pytest.raises(Unreadable, match=f"{bytes_a_pixel} bytes"):
            open_picture(data)


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_luma_and_chroma_are_refused(bits: int) -> None:
    """Pillow rounds them before it makes colours of them, so that white cannot be told from black."""
    codestream = deep([[0] * 512] * 3, bits)
    head = box(b"ihdr", struct.pack(">IIHBBBB", SIZE[1], SIZE[0], 3, bits - 1, 7, 0, 0))
    for space in (16, 18):
        colors = box(b"colr", struct.pack(">BBBI", 1, 0, 0, space))
        data = MAGIC[1] + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", head, colors) + box(b"jp2c", codestream)
        if space == 16:
            assert open_picture(data).load().getextrema() == ((0, 0),) * 3
        else:
            with pytest.raises(Unreadable, match=rf"^unsupported: JPEG 2000 of {bits} bits in luma and chroma$"):
                open_picture(data)


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
