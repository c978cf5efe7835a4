"""Resampling with transparency: Pillow's own result, in less memory."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.images.decode import resample
from pipeline.images.encode import save_png

SIDES = st.integers(1, 90)


def noise(width: int, height: int, mode: str) -> Image.Image:
    """An image in which every pixel has its own colour and transparency."""
    return Image.frombytes(mode, (width, height), random.Random(width * height).randbytes(width * height * len(mode)))


def pillows(image: Image.Image, size: tuple[int, int], box: Any, gap: float) -> Image.Image:
    """The same by Pillow; step by step, since before version 13 it forgot the gap where there is transparency."""
    if not any(int((box[axis + 2] - box[axis]) / size[axis] / gap) > 1 for axis in (0, 1)):
        return image.resize(size, Image.Resampling.LANCZOS, box)  # no gap, and nothing at all if the size is the same
    premultiplied = image.convert({"LA": "La", "RGBA": "RGBa"}.get(image.mode, image.mode))
    return premultiplied.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=gap).convert(image.mode)


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)), st.tuples(SIDES, SIDES),
    st.sampled_from(["LA", "RGBA", "RGB"]),
    st.sampled_from([1.0, 1.5, 3.0]), st.tuples(*[st.floats(0, 0.45)] * 4),
)  # fmt: skip
def test_it_is_pillows_own_resize_to_the_bit(
    source: tuple[int, int], size: tuple[int, int], mode: str, gap: float, cut: Any
) -> None:
    """Working in bands changes nothing: any part of any picture, to any size."""
    image = noise(*source, mode)
    box = (cut[0] * source[0], cut[1] * source[1], (1 - cut[2]) * source[0], (1 - cut[3]) * source[1])
    made = resample(image, size, Image.Resampling.LANCZOS, box, gap)

    assert made.mode == mode
    assert made.tobytes() == pillows(image, size, box, gap).tobytes()


@pytest.mark.parametrize("source", [(4000, 3), (3, 4000), (1, 65_500)])
def test_slivers(source: tuple[int, int]) -> None:
    """A picture of a few pixels' width has bands, too."""
    image, box = noise(*source, "RGBA"), (0.0, 0.0, float(source[0]), float(source[1]))
    size = (max(1, source[0] // 9), max(1, source[1] // 9))

    assert resample(image, size, Image.Resampling.LANCZOS, box, 1.0).tobytes() == pillows(image, size, box, 1).tobytes()


@pytest.mark.parametrize("how", [each for each in Image.Resampling if each is not Image.Resampling.LANCZOS])
def test_every_filter_is_heard(how: Image.Resampling) -> None:
    """The other filters are Pillow's from first to last."""
    image = noise(50, 40, "RGBA")

    assert resample(image, (20, 16), how, (0, 0, 50, 40), 1.0).tobytes() == (
        image.resize((20, 16), how, (0, 0, 50, 40), reducing_gap=1.0).tobytes()
    )


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_a_png_loses_nothing_however_it_is_packed(mode: str, level: int) -> None:
    """Photographs are packed by another strategy than drawings; both come back as they were."""
    for image in (noise(300, 200, mode), Image.new(mode, (300, 200), 7 if len(mode) == 1 else (7,) * len(mode))):
        file = io.BytesIO()
        save_png(image, file, compress_level=level)
        assert Image.open(file).tobytes() == image.tobytes()


def test_a_png_of_a_drawing_stays_small() -> None:
    """A picture that repeats itself is packed as zlib does it best, and one of noise no worse than that."""
    tile = noise(16, 16, "RGB")
    drawing = Image.new("RGB", (640, 640))
    for x in range(0, 640, 16):
        for y in range(0, 640, 16):
            drawing.paste(tile, (x, y))
    for image, limit in ((drawing, 1.01), (noise(400, 300, "RGB"), 1.1)):
        ours, pillows = io.BytesIO(), io.BytesIO()
        save_png(image, ours)
        image.save(pillows, "PNG")
        assert len(ours.getvalue()) <= limit * len(pillows.getvalue())
