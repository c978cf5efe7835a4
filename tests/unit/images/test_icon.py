"""Icons and cursors, written by hand: which of their pictures is taken, what is transparent, and what they are not."""

from __future__ import annotations

import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pictures import bomb_png, encode, paint, png_chunk

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
from pipeline.notes import collected

RED, BLUE = (230, 10, 20), (10, 20, 230)
ICO, CUR = 1, 2


def icon(*pictures: bytes, kind: int = ICO, sizes: tuple[tuple[int, int], ...] = (), bits: int = 0) -> bytes:
    """An icon whose directory says these sizes and bits, which may be wrong."""
    offset = 6 + 16 * len(pictures)
    directory = b""
    for number, picture in enumerate(pictures):
        width, height = sizes[number] if sizes else (0, 0)
        directory += struct.pack("<4B2H2I", width, height, 0, 0, 1, bits, len(picture), offset)
        offset += len(picture)
    return struct.pack("<3H", 0, kind, len(pictures)) + directory + b"".join(pictures)


def padded(row: bytes) -> bytes:
    return row + bytes(-len(row) % 4)


def dib(
    width: int, height: int, bits: int, color: tuple[int, ...], masked: set[tuple[int, int]] | None = None
) -> bytes:
    """A bitmap of one colour (of 4 numbers for 32 bits), and its mask: none, or set at these pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, bits, 0, 0, 0, 0, 0, 0)
    red, green, blue, *alpha = color
    entry = bytes((blue, green, red, *(alpha or [0])))
    colors = (bytes(4) + entry * ((1 << bits) - 1)) if bits <= 8 else b""
    pixel = entry[: bits // 8] if bits > 16 else struct.pack("<H", red >> 3 << 10 | green >> 3 << 5 | blue >> 3)
    row = padded(b"\xff" * (-(-width * bits // 8)) if bits <= 8 else pixel * width)
    mask = b""
    for y in range(height - 1, -1, -1):
        set_bits = "".join("01"[masked is not None and (x, y) in masked] for x in range(width))
        mask += padded((int(set_bits, 2) << -width % 8).to_bytes(-(-width // 8)))
    return header + colors + row * height + (mask if masked is not None else b"")


def png_of(width: int, height: int, mode: str, color: Any) -> bytes:
    return encode(Image.new(mode, (width, height), color), "PNG")


def load(data: bytes) -> tuple[Image.Image, list[str]]:
    with collected() as notes:
        picture = open_picture(data)
        image = picture.load()
    assert picture.format == "ICO" and picture.size == image.size
    return image, list(notes)


# -- what is an icon ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ICO, CUR])
@pytest.mark.parametrize("side", [16, 127, 128, 129, 255, 256])
@pytest.mark.parametrize("bits", [0, 1, 8, 32])
def test_no_icon_is_taken_for_a_tga(kind: int, side: int, bits: int) -> None:
    """TGA has no telling bytes, and an icon of 64 to 128 KiB looks like one, whatever its directory says."""
    image, _ = load(icon(dib(side, side, 32, (*RED, 255)), kind=kind, sizes=((side % 256, side % 256),), bits=bits))

    assert image.size == (side, side) and image.getpixel((3, 3)) == (*RED, 255)


@pytest.mark.parametrize("size_kib", [1, 63, 64, 65, 96, 127, 128, 200])
def test_a_png_of_any_size_in_an_icon(size_kib: int) -> None:
    """Between 64 and 128 KiB as well."""
    noise = Image.effect_noise((300, 300), 80).convert("RGB").resize((size_kib, 256))
    plain = encode(noise, "PNG", compress_level=0)
    filler = png_chunk(b"prVt", bytes(max(0, size_kib * 1024 - len(plain) - 12)))
    image, _ = load(icon(plain[:33] + filler + plain[33:], bits=32))

    assert image.tobytes() == noise.tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"compression": "tga_rle"}, {"orientation": 1}])
def test_a_tga_is_still_one(mode: str, options: dict[str, Any]) -> None:
    """One of true colour begins as a cursor does."""
    image = paint(20, 10, "RGB").convert(mode)
    picture = open_picture(encode(image, "TGA", **options))

    assert picture.format == "TGA"
    assert picture.load().convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


# -- which picture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [True, False])
@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize(("pictures", "best"), [
    ([dib(16, 16, 32, (*RED, 255)), dib(32, 32, 8, BLUE, set())], 1),
    ([dib(32, 32, 8, RED, set()), dib(32, 32, 24, BLUE, set()), dib(32, 32, 4, RED, set())], 1),
    ([dib(32, 32, 24, RED, set()), dib(32, 32, 32, (*BLUE, 255))], 1),
    ([png_of(48, 48, "RGB", RED), dib(32, 32, 32, (*BLUE, 255)), png_of(48, 48, "RGBA", (*BLUE, 255))], 2),
    ([dib(48, 48, 32, (*BLUE, 255)), png_of(48, 48, "RGB", RED)], 0),
    ([png_of(300, 20, "RGB", RED), png_of(90, 80, "RGB", BLUE)], 1),
    ([dib(256, 256, 32, (*BLUE, 255)), png_of(255, 255, "RGBA", (*RED, 255))], 0),
])  # fmt: skip
def test_the_largest_and_then_the_deepest(pictures: list[bytes], best: int, backwards: bool, wrong: bool) -> None:
    """In whatever order, and whatever the directory says of their sizes."""
    count, taken = len(pictures), pictures[best]
    sizes = tuple((200 if picture is not taken else 1,) * 2 for picture in pictures) if wrong else ()
    image, notes = load(icon(*(pictures[::-1] if backwards else pictures), sizes=sizes[::-1] if backwards else sizes))

    assert image.convert("RGB").getpixel((0, 0)) == BLUE
    assert notes == [f"largest picture only, {image.width}x{image.height} of {count}"]


def test_one_picture_is_taken_without_a_note() -> None:
    """There is nothing to say."""
    assert load(icon(dib(16, 16, 8, RED, set())))[1] == []


# -- what is transparent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ICO, CUR])
@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24])
@pytest.mark.parametrize("width", [1, 9, 32, 33])
def test_the_mask_makes_transparent(width: int, bits: int, kind: int) -> None:
    """Below 32 bits, with rows of any width; the directory may say what it likes of the bits."""
    masked = {(0, 0), (width - 1, 2), (width // 2, 1)}
    for said in (0, bits, 32):
        image, _ = load(icon(dib(width, 3, bits, (0xF8, 0, 0x20), masked), kind=kind, bits=said))
        for y in range(3):
            for x in range(width):
                *color, alpha = image.getpixel((x, y))
                assert alpha == (0 if (x, y) in masked else 255)
                assert max(abs(a - b) for a, b in zip(color, (0xF8, 0, 0x20), strict=True)) <= 7


@pytest.mark.parametrize(("color", "masked", "alphas"), [
    ((*RED, 128), None, [128, 128]), ((*RED, 128), {(0, 0)}, [128, 128]), ((*RED, 0), {(0, 0)}, [0, 255]),
    ((*RED, 0), set(), [255, 255]), ((*RED, 0), None, [255, 255]),
])  # fmt: skip
def test_alpha_counts_before_the_mask(color: tuple[int, ...], masked: Any, alphas: list[int]) -> None:
    """Of 32 bits one byte is alpha; where it is 0 everywhere the mask counts, and where there is none, nothing."""
    image, _ = load(icon(dib(2, 1, 32, color, masked)))

    assert list(image.getchannel("A").tobytes()) == alphas
    assert image.convert("RGB").getpixel((1, 0)) == RED


def test_a_png_in_an_icon_is_a_png() -> None:
    """With its transparent grey of four bits, and its gamma."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    beside = png_chunk(b"gAMA", struct.pack(">I", 100_000)) + png_chunk(b"tRNS", b"\0\5")
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0\x58"))
    image, _ = load(icon(b"\x89PNG\r\n\x1a\n" + header + beside + pixels + png_chunk(b"IEND", b"")))

    assert [image.getpixel((x, 0))[1] for x in (0, 1)] == [0, 255]
    assert abs(image.getpixel((1, 0))[0] - 192) <= 1  # 255 * (1.055 * (8 / 15) ** (1 / 2.4) - 0.055)


# -- what is refused ---------------------------------------------------------------------------------------------------

TWO = icon(dib(8, 8, 24, RED, set()), dib(16, 16, 24, BLUE, set()))


@pytest.mark.parametrize(("data", "said"), [
    (icon(), "damaged picture: an icon without a picture"),
    (TWO[:30], "truncated picture: the directory of the icon is cut off"),
    (TWO[:200], "truncated picture: picture 2 of the icon's 2 is missing"),
    (TWO[:-200], "truncated picture: "), (TWO[:-1], "truncated picture: its mask ends too early"),
    (icon(bytes(200)), "damaged picture: picture 1 of the icon's 1 is neither a bitmap nor a PNG"),
    (icon(bomb_png(60_000, 60_000)), "too large: 60000x60000"),
    (icon(dib(1, 1, 24, RED, set())[:4] + struct.pack("<ii", 30_000, 60_000) + bytes(60)), "too large: 30000x30000"),
    (icon(dib(16, 16, 24, RED, set())[:16] + struct.pack("<I", 5) + bytes(80)), "unsupported: BMP with a PNG in it"),
    (icon(dib(16, 16, 8, RED, set())[:16] + struct.pack("<I", 1) + bytes(80)), "unsupported: an icon with run-length"),
])  # fmt: skip
def test_what_is_not_read_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    """The size of the picture itself is looked at before its pixels; the same from a file."""
    (tmp_path / "a.ico").write_bytes(data)
    for file in (data, tmp_path / "a.ico"):
        with pytest.raises(Unreadable) as refused, closing(open_picture(file)) as picture:
            picture.load()
        assert str(refused.value).startswith(said)
