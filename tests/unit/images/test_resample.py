"""Lanczos without and with the extra `fast`, against the same computed here in floating point."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.lanczos import backend, exact_lanczos, premultiplied, psnr_db

from pipeline.images.resample import resample

__all__ = ["backend"]
LANCZOS = Image.Resampling.LANCZOS
SIDES = st.integers(1, 90)
# So large that Pillow averages nothing beforehand.
ALL = 1000.0


def noise(width: int, height: int, mode: str) -> Image.Image:
    """An image in which every pixel has its own colour and transparency; Lanczos overshoots none."""
    data = random.Random(width * height).randbytes(width * height * len(mode))
    return Image.frombytes(mode, (width, height), bytes(96 + value // 4 for value in data))


def whole(image: Image.Image) -> tuple[float, float, float, float]:
    return (0.0, 0.0, float(image.width), float(image.height))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    source=st.tuples(st.integers(1, 200), st.integers(1, 200)), size=st.tuples(SIDES, SIDES),
    cut=st.tuples(*[st.floats(0, 0.45)] * 4),
)  # fmt: skip
def test_it_is_lanczos(backend: str, mode: str, source: tuple[int, int], size: tuple[int, int], cut: Any) -> None:
    """Any part of any picture to any size: no pixel is further from the exact one than rounding twice explains."""
    image = noise(*source, mode)
    box = (cut[0] * source[0], cut[1] * source[1], (1 - cut[2]) * source[0], (1 - cut[3]) * source[1])
    made = resample(image, size, LANCZOS, box, ALL)

    assert (made.mode, made.size) == (mode, size)
    assert np.abs(premultiplied(made) - exact_lanczos(image, size, box)).max() < (4 if "A" in mode else 2.5)


@pytest.mark.parametrize("mode, width", [("RGB", 1501), ("RGBA", 1501), ("RGB", 2048), ("RGBA", 1024), ("L", 4096)])
@pytest.mark.parametrize("size", [(700, 410), (31, 45)])
def test_a_large_picture_has_no_seams(backend: str, mode: str, width: int, size: tuple[int, int]) -> None:
    """What is worked on in bands of rows, or of columns, fits together to the last of them."""
    image = noise(width, 1103, mode)
    off = np.abs(
        premultiplied(resample(image, size, LANCZOS, whole(image), ALL)) - exact_lanczos(image, size, whole(image))
    )

    assert off.max() < (4 if "A" in mode else 2.5)


@pytest.mark.parametrize("mode, width", [("RGB", 2048), ("L", 4096)])
@pytest.mark.parametrize("backend", ["Pillow"], indirect=True)
def test_bands_of_columns_change_no_byte(backend: str, mode: str, width: int) -> None:
    """Whether there are bands depends on how rows lie in memory, and the pixels do not."""
    image = noise(width, 203, mode)
    made = resample(image, (width * 2 // 5, 81), LANCZOS, whole(image), ALL)

    assert made == image.resize((width, 81), LANCZOS).resize(made.size, LANCZOS)


@pytest.mark.parametrize("source", [(4000, 3), (3, 4000), (1, 9_000)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_slivers(backend: str, source: tuple[int, int], mode: str) -> None:
    """A picture of a few pixels' width has bands, too."""
    image = noise(*source, mode)
    size = (max(1, source[0] // 9), max(1, source[1] // 9))

    assert psnr_db(resample(image, size, LANCZOS, whole(image), 1.0), exact_lanczos(image, size, whole(image))) > 45


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("ratio", [1.01, 1.5, 2, 2.5, 3, 3.9, 4, 5, 7.3, 8, 16, 40])
def test_at_every_ratio_it_is_as_near_to_lanczos_as_libvips(backend: str, mode: str, ratio: float) -> None:
    """Averaging beforehand costs little, even of a picture that is all detail; the fast one needs none."""
    image = noise(401, 307, mode)
    size = (round(401 / ratio), round(307 / ratio))
    made = resample(image, size, LANCZOS, whole(image), 1.0)

    assert psnr_db(made, exact_lanczos(image, size, whole(image))) > (50 if backend != "Pillow" or ratio < 4 else 44)


def test_the_colour_behind_transparent_pixels_does_not_show(backend: str) -> None:
    """Half red, half a green that is transparent: no green comes out, and the alpha goes from one to the other."""
    image = Image.new("RGBA", (90, 60), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 45, 60))
    for size in ((89, 59), (40, 30), (9, 6)):
        made = resample(image, size, LANCZOS, whole(image), 1.0)
        assert {pixel[:2] for _, pixel in made.getcolors() if pixel[3] > 8} == {(255, 0)}, size
        assert made.getpixel((0, 0)) == (255, 0, 0, 255) and made.getpixel((size[0] - 1, 0))[3] == 0


@pytest.mark.parametrize("how", list(Image.Resampling))
def test_what_is_not_resampled_is_cut_out_as_it_is(backend: str, how: Image.Resampling) -> None:
    """A box of whole pixels at its own size loses nothing, not even the colour of what is transparent."""
    image = noise(50, 40, "RGB").convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))

    assert resample(image, (30, 20), how, (7, 5, 37, 25), 1.0).tobytes() == image.crop((7, 5, 37, 25)).tobytes()


@pytest.mark.parametrize("how", [each for each in Image.Resampling if each is not LANCZOS])
def test_every_other_filter_is_pillows(backend: str, how: Image.Resampling) -> None:
    """From first to last, with the extra and without."""
    image = noise(50, 40, "RGBA")

    assert resample(image, (20, 16), how, (0, 0, 50, 40), 1.0).tobytes() == (
        image.resize((20, 16), how, (0, 0, 50, 40), reducing_gap=1.0).tobytes()
    )
