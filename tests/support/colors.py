"""What colours look like in sRGB, computed by the standards' formulas and without an ICC profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# White, red, green, blue (x, y) of ITU-T H.273, table 2.
P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT709 = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
BT2020 = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
DCI = (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
NTSC = (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)
ADOBE = (0.3127, 0.3290, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

SAMPLES = [(r, g, b) for r in (0, 20, 90, 180, 255) for g in (0, 40, 128, 255) for b in (0, 60, 200, 255)]
"""Red, green and blue of colours all over the cube, dark ones and greys among them."""


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def _to_xyz(primaries: Sequence[float]) -> np.ndarray:
    columns = np.array([_xyz(*primaries[i : i + 2]) for i in (2, 4, 6)]).T
    return columns * np.linalg.solve(columns, _xyz(*primaries[:2]))


def in_srgb(color: Sequence[int], primaries: Sequence[float], light: Callable[[float], float]) -> tuple[int, ...]:
    """Return the sRGB value of an 8-bit colour of these primaries, whose light is that function of its values."""
    cones = [BRADFORD @ _xyz(*white) for white in (BT709[:2], primaries[:2])]
    adapt = np.linalg.inv(BRADFORD) @ np.diag(cones[0] / cones[1]) @ BRADFORD
    linear = np.linalg.inv(_to_xyz(BT709)) @ adapt @ _to_xyz(primaries) @ [light(value / 255) for value in color]
    return tuple(round(255 * srgb_value(float(value))) for value in linear)


def srgb_value(light: float) -> float:
    """IEC 61966-2-1, inverted."""
    light = min(1.0, max(0.0, light))
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def srgb_light(value: float) -> float:
    """IEC 61966-2-1."""
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def bt709_light(value: float) -> float:
    """ITU-R BT.709, item 1.2, inverted."""
    return value / 4.5 if value < 0.081 else float(((value + 0.099) / 1.099) ** (1 / 0.45))


def smpte240_light(value: float) -> float:
    """SMPTE ST 240, inverted."""
    return value / 4 if value < 0.0913 else float(((value + 0.1115) / 1.1115) ** (1 / 0.45))


def pq_light(value: float) -> float:
    """SMPTE ST 2084: candelas a square metre."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = value ** (1 / m2)
    return float(10_000 * (max(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1))


def pq_value(cdm2: float) -> float:
    """SMPTE ST 2084, inverted."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = (cdm2 / 10_000) ** m1
    return float(((c1 + c2 * root) / (1 + c3 * root)) ** m2)


def hlg_light(value: float) -> float:
    """ITU-R BT.2100, tables 5: candelas a square metre on a display of 1,000, for a grey."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = value**2 / 3 if value <= 0.5 else (np.exp((value - c) / a) + b) / 12
    return float(1000 * scene**1.2)


def tone_mapped(cdm2: float) -> float:
    """ITU-R BT.2390, 5.4.1, from 1,000 cd/m2 to 203, which is 1."""
    top, most = pq_value(1000), pq_value(203) / pq_value(1000)
    e1, ks = min(1.0, pq_value(cdm2) / top), 1.5 * most - 0.5
    if e1 >= ks:
        t = (e1 - ks) / (1 - ks)
        e1 = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (-2 * t**3 + 3 * t**2) * most
    return pq_light(e1 * top) / 203
