"""PNGs by pyspng: those that are ordinary and whole have Pillow's pixels to the bit; every other is left to Pillow."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.pictures import decode, encode, paint, png_chunk

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
from pipeline.images.fast_png import fast_decoder, read_png

pytest.importorskip("pyspng")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT = 40, 30
PIXELS = paint(WIDTH, HEIGHT, "RGBA").tobytes()


def png(*between: bytes, color: int = 6, bits: int = 8, interlace: int = 0, data: bytes | None = None) -> bytes:
    """A PNG written by hand, with these chunks before the pixels."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, color, 0, 0, interlace)
    line = WIDTH * (4 if color == 6 else 3)
    rows = b"".join(b"\0" + PIXELS[row * line : (row + 1) * line] for row in range(HEIGHT))
    packed = png_chunk(b"IDAT", zlib.compress(rows) if data is None else data)
    return SIGNATURE + png_chunk(b"IHDR", header) + b"".join(between) + packed + png_chunk(b"IEND", b"")


def read(data: bytes) -> Image.Image | None:
    return read_png(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_the_pixels_are_pillows(mode: str, level: int) -> None:
    """Filtered and packed in any way."""
    for width, height in ((1, 1), (300, 200), (1, 500), (700, 2)):
        image = paint(width, height, mode)
        made = read(encode(image, "PNG", compress_level=level))
        assert made and (made.mode, made.size, made.tobytes()) == (mode, image.size, image.tobytes())


@pytest.mark.parametrize(
    "data",
    [
        png(),
        png(color=2),
        png(png_chunk(b"PLTE", bytes(30))),
        png(png_chunk(b"tEXt", b"Comment\0said"), png_chunk(b"gAMA", struct.pack(">I", 45_455))),
        png(png_chunk(b"prVt", b"private")),
        png() + b"and what follows",
    ],
    ids=["RGBA", "RGB", "suggested palette", "texts", "private", "trailing"],
)
def test_an_ordinary_one_is_read(data: bytes) -> None:
    """With whatever chunks beside it that do not concern its pixels."""
    made = read(data)

    assert made and made.tobytes() == decode(data).tobytes() == PIXELS[: len(made.tobytes())]


@pytest.mark.parametrize(
    "data",
    [
        png(png_chunk(b"tRNS", bytes(6)), color=2),
        png(png_chunk(b"acTL", struct.pack(">II", 1, 0))),
        png(png_chunk(b"CgBI", bytes(4))),
        png(interlace=1),
        png(bits=16),
        png(color=0),
        png(color=3),
        png(color=4),
        png(data=zlib.compress(b"\0")),
        png(data=b"no deflated data"),
        png(data=zlib.compress(b"\x07" * (4 * WIDTH + 1) * HEIGHT)),
        encode(paint(40, 30, "P"), "PNG"),
        SIGNATURE,
        SIGNATURE + png_chunk(b"IEND", b""),
    ],
    ids=["tRNS", "animated", "of an iPhone", "interlaced", "16 bits", "grey", "palette", "grey and alpha", "few rows",
         "damaged", "unknown filter", "real palette", "signature", "no header"],
)  # fmt: skip
def test_every_other_is_left_to_pillow(data: bytes) -> None:
    """So that there is one meaning, and one set of words for what is wrong."""
    assert read(data) is None


@given(st.integers(1, len(png()) - 1))
def test_no_file_that_is_cut_off_is_read(cut: int) -> None:
    """Not even one that lacks no more than its last bytes."""
    assert read(png()[:-cut]) is None


@given(st.integers(8, len(png()) - 1), st.integers(0, 7))
def test_no_flipped_bit_is_read(place: int, bit: int) -> None:
    """Every byte after the signature is covered by a CRC, or is one."""
    data = bytearray(png())
    data[place] ^= 1 << bit

    assert read(bytes(data)) is None


@pytest.fixture(params=["pyspng", "Pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with pyspng and without it."""
    if request.param == "Pillow":
        monkeypatch.setitem(sys.modules, "pyspng", None)  # import raises ImportError
    fast_decoder.cache_clear()
    yield request.param
    fast_decoder.cache_clear()


def test_a_picture_is_the_same_with_either(decoder: str) -> None:
    """Whole, small, again, and what is changed of it changes nothing."""
    picture = open_picture(png())
    assert (read(png()) is None) == (decoder == "Pillow")
    for _ in range(2):
        image = picture.load()
        assert image.tobytes() == PIXELS
        image.paste("black", (0, 0, 9, 9))
        assert picture.load((WIDTH, HEIGHT)).tobytes() == PIXELS


def idats(data: bytes, *, wrong_crc: bool = False) -> bytes:
    """A PNG whose packed pixels stand in chunks of 700 bytes."""
    chunks = [bytearray(png_chunk(b"IDAT", data[at : at + 700])) for at in range(0, len(data), 700)]
    chunks[0][-1] ^= wrong_crc
    return png().partition(b"IDAT")[0][:-4] + b"".join(chunks) + png_chunk(b"IEND", b"")


PACKED = zlib.compress(b"".join(b"\0" + PIXELS[row * 4 * WIDTH : (row + 1) * 4 * WIDTH] for row in range(HEIGHT)))
WRONG = PACKED[:-1] + bytes([PACKED[-1] ^ 1])


@pytest.mark.parametrize("data", [png(data=WRONG), idats(WRONG), idats(PACKED), idats(PACKED, wrong_crc=True)])
def test_a_wrong_checksum_of_what_is_unpacked_does_no_harm(decoder: str, data: bytes) -> None:
    """Where those of the chunks are right; nor does one of these where that is right. The same with either decoder."""
    assert open_picture(data).load().tobytes() == PIXELS


@pytest.mark.parametrize("sizes", [[], [0], [0, 0], [1], [1, 1, 1, 1], [2, 2], [4], [5]])
@pytest.mark.parametrize(
    ("depth", "kind", "row_bytes"), [(8, 2, 900), (8, 6, 1200), (1, 0, 38), (16, 0, 600), (8, 4, 600)]
)
def test_nor_does_it_where_all_pixels_are_packed_into_a_few_bytes(
    decoder: str, depth: int, kind: int, row_bytes: int, sizes: list[int]
) -> None:
    """zlib hands out the last of such pixels when it reads the checksum, wherever the chunks part it."""
    packed = zlib.compress(bytes(row_bytes + 1) * 200)
    packed = packed[:-1] + bytes([packed[-1] ^ 1])
    ends = [len(packed) - sum(sizes[at:]) for at in range(len(sizes) + 1)]
    parts = [packed[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    header = png_chunk(b"IHDR", struct.pack(">IIBB3x", 300, 200, depth, kind))
    pixels = b"".join(png_chunk(b"IDAT", part) for part in parts)
    image = open_picture(b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b"")).load()
    assert not any(image.tobytes())


def test_two_wrong_checksums_are_damage(decoder: str) -> None:
    """Of a chunk of pixels, and of what is unpacked."""
    with pytest.raises(Unreadable, match=r"^damaged picture: "):
        open_picture(idats(WRONG, wrong_crc=True)).load()


def test_what_is_damaged_is_said_in_the_same_words(decoder: str) -> None:
    """A cut file is truncated, with either."""
    with pytest.raises(Unreadable, match="truncated"):
        open_picture(png()[:-200]).load()
