"""How the pixels of a PNG are packed: nothing is lost, and no file is larger for it."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from pipeline.images.encode import save_png


def noise(width: int, height: int, mode: str) -> Image.Image:
    """An image in which every pixel has its own colour and transparency."""
    return Image.frombytes(mode, (width, height), random.Random(width * height).randbytes(width * height * len(mode)))


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
