"""A file that was cut off is told from one that is damaged, by what each format says of its own length."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from PIL import Image
from support.pictures import encode, paint

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
from pipeline.images.endings import ends_early

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {}), "JPEG, progressive": ("JPEG", {"progressive": True}), "PNG": ("PNG", {}), "GIF": ("GIF", {}),
    "WebP": ("WEBP", {}), "WebP, lossless": ("WEBP", {"lossless": True}), "AVIF": ("AVIF", {}), "QOI": ("QOI", {}),
    "TIFF": ("TIFF", {}), "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}), "TIFF, big": ("TIFF", {"big_tiff": True}),
    "JPEG 2000": ("JPEG2000", {}), "JPEG 2000, bare": ("JPEG2000", {"no_jp2": True}), "ICO": ("ICO", {}),
    "BMP": ("BMP", {}),
}  # fmt: skip
# What the C libraries print goes to the stage's output and into the log; here it would be in the way.
pytestmark = pytest.mark.usefixtures("capfd")


def sample(kind: str) -> bytes:
    name, options = MADE[kind]
    noise = Image.frombytes("RGB", (48, 40), random.Random(2).randbytes(48 * 40 * 3))
    return encode(Image.blend(paint(48, 40), noise, 0.3), name, **options)


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
