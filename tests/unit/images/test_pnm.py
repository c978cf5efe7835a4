"""PBM, PGM and PPM of every maxval, as bytes and as text: every sample against the formula of the format."""

from __future__ import annotations

import random
import struct

import pytest

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture

WIDTH, HEIGHT = 13, 150


def scaled(value: int, maxval: int) -> int:
    return min(255, int(value / maxval * 255 + 0.5))


def written(kind: str, maxval: int, samples: list[int], *, comments: bool = False) -> bytes:
    head = f"{kind}\n# a comment\n{WIDTH} {HEIGHT}\n{maxval}\n".encode()
    if kind in ("P2", "P3"):
        space = "# 12 34\n" if comments else " "
        return head + "".join(f"{value}{space if at % 7 else chr(10)}" for at, value in enumerate(samples)).encode()
    return head + struct.pack(f">{len(samples)}{'H' if maxval > 255 else 'B'}", *samples)


@pytest.mark.parametrize("maxval", [1, 2, 3, 15, 100, 254, 255, 256, 1000, 1023, 4095, 65_534, 65_535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_every_maxval_is_scaled(kind: str, maxval: int) -> None:
    """White is white, and what lies between is in proportion, whatever the maxval."""
    count = WIDTH * HEIGHT * (3 if kind in ("P3", "P6") else 1)
    samples = [0, maxval, *random.Random(maxval).choices(range(maxval + 1), k=count - 2)]

    image = open_picture(written(kind, maxval, samples)).load()

    assert image.mode == ("RGB" if kind in ("P3", "P6") else "L")
    assert max(abs(a - scaled(b, maxval)) for a, b in zip(image.tobytes(), samples, strict=True)) == 0


@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_what_is_above_maxval_is_white(kind: str) -> None:
    """Netpbm says that there is none such; Pillow and others clip it."""
    data = written(kind, 100, [200] * (WIDTH * HEIGHT * 3))
    assert set(open_picture(data).load().tobytes()) == {255}


def test_a_text_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a part of it ends: within a sample, a comment or a space."""
    samples = random.Random(1).choices(range(1000), k=WIDTH * HEIGHT)
    data = written("P2", 999, samples, comments=True).replace(b" 17 ", b" 0017 ")
    expected = bytes(scaled(value, 999) for value in samples)
    for size_bytes in (7, 8, 9, 64, 1 << 20):
        monkeypatch.setattr("pipeline.images.pnm._TEXT_BYTES", size_bytes)
        assert open_picture(data).load().tobytes() == expected


@pytest.mark.parametrize("space", ["", " ", "\n# 1\n"])
def test_a_bitmap_as_text(space: str) -> None:
    """Its pixels need no space between; 1 is black."""
    bits = random.Random(2).choices("01", k=WIDTH * HEIGHT)
    image = open_picture(f"P1 {WIDTH} {HEIGHT}\n{space.join(bits)}\n".encode()).load()
    assert image.mode == "L" and image.tobytes() == bytes(255 * (bit == "0") for bit in bits)


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("maxval", [100, 1000])
def test_what_ends_early_is_truncated(kind: str, maxval: int) -> None:
    """Half a picture is none."""
    data = written(kind, maxval, [7] * (WIDTH * HEIGHT * (3 if kind in ("P3", "P6") else 1)))
    for length in (len(data) // 2, len(data) - 3):
        with pytest.raises(Unreadable, match=r"^truncated picture: it ends within its pixels"):
            open_picture(data[:length]).load()


@pytest.mark.parametrize(
    ("word", "says"), [(b"-5", "'-5'"), (b"101", "'101'"), (b"1_0", "'1_0'"), (b"x", "'x'"), (b"1" * 50, "")]
)
def test_a_text_with_other_words_is_damaged(word: bytes, says: str) -> None:
    """A sample is a number from 0 to maxval, and nothing else."""
    data = written("P2", 100, [7] * (WIDTH * HEIGHT)).replace(b" 7", b" " + word, 1)
    with pytest.raises(Unreadable, match=rf"^damaged picture: .*{says}"):
        open_picture(data).load()
