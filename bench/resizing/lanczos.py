"""Lanczos over every pixel, in floating point, and how near to it a picture is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.float64]
"""Pixels by row, column and channel."""


def premultiplied(image: Image.Image) -> Pixels:
    """The pixels of an image; colours are multiplied by the alpha, so that what nobody sees does not count."""
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, -1)
    if image.mode in ("LA", "RGBA"):
        return np.concatenate([pixels[..., :-1] * pixels[..., -1:] / 255, pixels[..., -1:]], 2)
    return pixels


def exact_lanczos(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Pixels:
    """Every pixel of a box averaged by the Lanczos kernel of radius 3, premultiplied; rounded and clipped nowhere."""
    across = _weights(image.width, size[0], box[0], box[2])
    down = _weights(image.height, size[1], box[1], box[3])
    rows = np.tensordot(down, premultiplied(image), (1, 0))
    return np.tensordot(rows, across, (1, 1)).transpose(0, 2, 1)


def _weights(length: int, count: int, begin: float, end: float) -> Pixels:
    """The weight of each source pixel in each pixel of the result."""
    scale = (end - begin) / count
    radius = 3 * max(scale, 1)
    weights = np.zeros((count, length))
    for place in range(count):
        middle = begin + (place + 0.5) * scale
        first, last = max(0, int(middle - radius + 0.5)), min(length, int(middle + radius + 0.5))
        x = (np.arange(first, last) + 0.5 - middle) / max(scale, 1)
        kernel = np.sinc(x) * np.sinc(x / 3)
        weights[place, first:last] = kernel / kernel.sum()
    return weights


def psnr_db(image: Image.Image, exact: Pixels) -> float:
    """How near an image is to the exact pixels, in decibels of 8 bits; colours count premultiplied."""
    error = float(((premultiplied(image) - exact.clip(0, 255)) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf
