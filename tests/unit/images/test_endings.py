"""A file that was cut off is told from one that is damaged, by what each format says of its own length."""

from __future__ import annotations

import random
import struct
from typing import Any

import pillow_jxl  # noqa: F401, which registers its reader
import pytest
from PIL import Image
from support.pictures import SWAPPED, encode, mean, mpo, paint, together
from support.tiffs import tiff

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
from pipeline.images.endings import ends_early
from pipeline.notes import collected

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {}), "JPEG, progressive": ("JPEG", {"progressive": True}), "PNG": ("PNG", {}), "GIF": ("GIF", {}),
    "WebP": ("WEBP", {}), "WebP, lossless": ("WEBP", {"lossless": True}), "AVIF": ("AVIF", {}), "QOI": ("QOI", {}),
    "TIFF": ("TIFF", {}), "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}), "TIFF, big": ("TIFF", {"big_tiff": True}),
    "JPEG 2000": ("JPEG2000", {}), "JPEG 2000, bare": ("JPEG2000", {"no_jp2": True}), "ICO": ("ICO", {}),
    "BMP": ("BMP", {}), "JPEG XL, boxed": ("JXL", {"use_container": True}),
    "JPEG XL, boxed, in parts": ("JXL", {"exif": Image.Exif().tobytes()}),
}  # fmt: skip
OTHERS = [paint(48, 40).transpose(turn) for turn in (Image.Transpose.ROTATE_180, Image.Transpose.FLIP_LEFT_RIGHT)]
# Files of several pictures, as Pillow saves them.
SEVERAL: dict[str, tuple[str, dict[str, Any]]] = {
    "TIFF": ("TIFF", {}), "TIFF, big": ("TIFF", {"big_tiff": True}), "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg"}), "MPO": ("MPO", {}),
}  # fmt: skip
# What the C libraries print goes to the stage's output and into the log; here it would be in the way.
pytestmark = pytest.mark.usefixtures("capfd")


def sample(kind: str) -> bytes:
    name, options = MADE[kind]
    noise = Image.frombytes("RGB", (48, 40), random.Random(2).randbytes(48 * 40 * 3))
    return encode(Image.blend(paint(48, 40), noise, 0.3), name, **options)


def several(kind: str) -> bytes:
    name, options = SEVERAL[kind]
    return together(name, [paint(48, 40), *OTHERS], **options)


def psd(*, packed: bool) -> bytes:
    rows = 3 * 4
    pixels = struct.pack(f">{rows}H", *[2] * rows) + b"\xfd\x07" * rows if packed else bytes(rows * 4)
    return (
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(12) + struct.pack(">H", packed) + pixels
    )


@pytest.mark.parametrize("kind", MADE)
def test_a_whole_file_does_not_end_early_and_a_cut_one_does(kind: str) -> None:
    """Whether it is cut in its header, in its pixels or just before its end."""
    data, name = sample(kind), MADE[kind][0]
    assert ends_early(data, name) is False
    for length in [*range(20, len(data) - 40, max(1, len(data) // 50)), len(data) - 20]:
        assert ends_early(data[:length], name) is True, length


@pytest.mark.parametrize("packed", [False, True])
def test_a_psd_is_measured(packed: bool) -> None:
    """By the lengths of its sections, and of its rows."""
    data = psd(packed=packed)
    assert open_picture(data).load().size == (4, 4)
    assert ends_early(data, "PSD") is False
    assert all(ends_early(data[:length], "PSD") for length in range(6, len(data)))


def test_formats_that_do_not_say() -> None:
    """Where a format has no end, what its reader says must do."""
    assert ends_early(b"P6 2 2 255\n", "PPM") is None
    assert ends_early(encode(paint(48, 40), "JXL"), "JXL") is None


@pytest.mark.parametrize("kind", MADE)
def test_what_is_all_there_is_never_called_truncated(kind: str) -> None:
    """With bytes of its pixels overwritten, a file is damaged, or read as if nothing were; it does not end early."""
    chance, data = random.Random(kind), sample(kind)
    for _ in range(25):
        broken, length = bytearray(data), chance.choice((1, 8, 60))
        at = chance.randrange(len(data) // 2, len(data) - 80)
        broken[at : at + length] = chance.choice((bytes(length), chance.randbytes(length)))
        try:
            open_picture(bytes(broken)).load((20, 15))
        except Unreadable as refused:
            assert refused.text.startswith("damaged picture: ") or ends_early(bytes(broken), MADE[kind][0]), (
                refused.text
            )


@pytest.mark.parametrize("kind", MADE)
def test_a_cut_file_is_called_truncated(kind: str) -> None:
    """Wherever it is cut behind the bytes by which it is known."""
    data = sample(kind)
    for length in range(40, len(data) - 60, max(1, len(data) // 25)):
        with pytest.raises(Unreadable, match=r"^truncated picture: "):
            open_picture(data[:length]).load((20, 15))


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_file_cut_in_a_later_picture_is_called_truncated(kind: str) -> None:
    """By whoever asks for all of its pictures, and wherever it is cut: in their headers, tags or pixels."""
    data, name = several(kind), SEVERAL[kind][0]
    assert ends_early(data, name) is False and len(list(open_picture(data).load_each())) == 3
    for length in [*range(40, len(data) - 60, len(data) // 50), *range(len(data) - 60, len(data) - 10, 5)]:
        assert ends_early(data[:length], name) is True, length
        with pytest.raises(Unreadable, match=r"^truncated picture: "):
            list(open_picture(data[:length]).load_each())


@pytest.mark.parametrize("kind", [0x020002, 0], ids=["another view", "undefined"])
def test_the_whole_first_picture_of_a_cut_mpo_is_read(kind: int) -> None:
    """Wherever the second is cut; it is counted, and who asks for it is told that it is cut off."""
    data = mpo([paint(48, 40), OTHERS[0]], [0x030000, kind])
    begin = data.index(b"\xff\xd9\xff\xd8") + 2
    for length in [*range(begin, begin + 40, 3), *range(begin + 40, len(data), 99), len(data) - 1]:
        picture = open_picture(data[:length])
        with collected() as notes:
            assert mean(picture.load(), paint(48, 40)) < 8
        assert [*notes] == ["first picture only, of 2"]
        with pytest.raises(Unreadable, match=r"^truncated picture: "):
            list(picture.load_each())


def test_a_tiff_cut_in_its_icc_profile_is_not_read_without() -> None:
    """Pillow takes a tag whose value is not all there for one that is missing: the colours would be others."""
    data = encode(paint(48, 40), "TIFF", compression="tiff_lzw", icc_profile=SWAPPED)
    end = data.index(SWAPPED) + len(SWAPPED)
    open_picture(data[:end]).load()
    for length in (end - 1, end - 100, end - len(SWAPPED)):
        with pytest.raises(Unreadable, match=r"^truncated picture: "):
            open_picture(data[:length]).load()


def test_a_tiff_cut_in_a_tag_that_decides_nothing_is_read() -> None:
    """All pixels are there, and mean what they did."""
    data = tiff([[[7], [9]]], more={65_000: ("I", [8, 9])})
    at = data.index(struct.pack("<HHI", 65_000, 4, 2)) + 8
    broken = data[:at] + struct.pack("<I", len(data) - 4) + data[at + 4 :]
    assert open_picture(broken).load().tobytes() == b"\7\x09"
