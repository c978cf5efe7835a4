"""Builds ICC profiles for colours that a file describes by numbers: code points of ITU-T H.273, gamma, primaries."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from functools import lru_cache

from pipeline.notes import note
from pipeline.records import NamedTuple

Curve = Callable[[float], float]
"""A function from a stored value to light, both from 0 to 1."""
Matrix = tuple[tuple[float, float, float], ...]

# White, red, green and blue as x, y (CIE 1931), by the code points of ITU-T H.273 (2021), table 2.
PRIMARIES = {
    1: (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),  # BT.709, sRGB
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # BT.470 M
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # BT.470 B, G
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601 with 525 lines
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # SMPTE ST 240
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),  # film
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    10: (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),  # CIE XYZ
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI P3
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (0.3127, 0.3290, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),  # EBU 3213
}
_SRGB, _PQ, _HLG = 13, 16, 18
# What a code point means that names nothing (MIAF, 7.3.6.4): the primaries and the curve of sRGB.
_UNNAMED, _SRGB_PRIMARIES = 2, 1
# The Bradford matrix (ICC.1:2022, annex E) and the white of ICC's connection space, D50 (7.2.16).
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D50 = (0.9642, 1.0, 0.8249)
# Values of a curve: between them lcms goes straight, which 8 bits do not show.
_STEPS = 1024
# Places at which a curve for 16 bits is computed.
_NODES = 8192
# Candelas a square metre: white of a picture beside HDR video (ITU-R BT.2408), and the brightest light that is not cut.
_WHITE_CDM2, _PEAK_CDM2 = 203.0, 1000.0


def srgb_curve(value: float) -> float:
    """Return the light of an sRGB value (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


class Colors(NamedTuple):
    """What the red, green and blue of a picture mean."""

    primaries: tuple[float, ...] = PRIMARIES[1]
    """White, red, green and blue as x and y (CIE 1931)."""
    curve: Curve = srgb_curve


@lru_cache(maxsize=32)
def numbered_colors(primaries: int, transfer: int, full_range: bool = True) -> Colors:
    """Return the colours that code points of ITU-T H.273 name.

    PQ and HLG are brought to the range of sRGB: per channel, what is brighter than a picture's white is compressed by
    the curve of ITU-R BT.2390. `full_range` is false if black and white are stored as 16 and 235 of 255.

    Raises:
        ValueError: A code point is reserved, or says that the colours are unknown.
    """
    if primaries not in PRIMARIES or transfer not in _TRANSFERS:
        raise ValueError(f"unknown colours {primaries}/{transfer}")
    curve = _TRANSFERS[transfer]
    return Colors(PRIMARIES[primaries], curve if full_range else lambda value: curve(_widened(value)))


def note_tone_mapping(transfer: int) -> None:
    """Add a note if colours of this transfer function (ITU-T H.273) are brought from a larger range to that of sRGB."""
    if transfer in (_PQ, _HLG):
        note("its colours are HDR: brought to the range of sRGB", "PQ" if transfer == _PQ else "HLG")


def numbered_profile(primaries: int, transfer: int, *, grey: bool) -> bytes | None:
    """Return an ICC profile of colours that code points of ITU-T H.273 name, or of their greys; None for sRGB.

    A note says so if the code points are unknown, so that sRGB is taken, or if the colours are HDR.
    """
    primaries = _SRGB_PRIMARIES if primaries == _UNNAMED else primaries
    transfer = _SRGB if transfer == _UNNAMED else transfer
    try:
        profile = build_profile(numbered_colors(primaries, transfer), grey)
    except ValueError as error:
        note("its colours cannot be told: read as sRGB", str(error))
        return None
    note_tone_mapping(transfer)
    return profile


@lru_cache(maxsize=32)
def build_profile(colors: Colors, grey: bool = False) -> bytes | None:
    """Return an ICC profile (version 2) of colours, or of their greys, which have a curve only; None for sRGB.

    Raises:
        ValueError: The primaries span no colours.
    """
    primaries, curve = colors
    if curve is srgb_curve and (grey or primaries == PRIMARIES[1]):
        return None
    table = struct.pack(f">{_STEPS}H", *(round(65535 * _clamped(curve(i / (_STEPS - 1)))) for i in range(_STEPS)))
    tags = {b"desc": struct.pack(">4s4xI9s78x", b"desc", 9, b"filemill"), b"wtpt": _xyz(_D50)}
    if not grey:
        columns = zip(*_to_xyz(primaries), strict=True)
        tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    names = (b"kTRC",) if grey else (b"rTRC", b"gTRC", b"bTRC")
    return _profile(b"GRAY" if grey else b"RGB ", tags, names, struct.pack(">4s4xI", b"curv", _STEPS) + table)


def _profile(space: bytes, tags: dict[bytes, bytes], curves: tuple[bytes, ...], curve: bytes) -> bytes:
    """Return a display profile (ICC.1:2001-04, 6) of these tags, all `curves` of which share one `curve`."""
    count = len(tags) + len(curves)
    index, body, begin = struct.pack(">I", count), b"", 132 + 12 * count
    for name, data in tags.items():
        index += struct.pack(">4s2I", name, begin + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    for name in curves:
        index += struct.pack(">4s2I", name, begin + len(body), len(curve))
    size_bytes = begin + len(body) + len(curve)
    head = struct.pack(">I4xI4s4s4s12x4s28x12s48x", size_bytes, 0x02400000, b"mntr", space, b"XYZ ", b"acsp",
                       _xyz(_D50)[8:])  # fmt: skip
    return head + index + body + curve


def _xyz(values: tuple[float, ...]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in values))


@lru_cache(maxsize=32)
def is_coarse(curve: Curve) -> bool:
    """Return whether a curve leaves out several levels of sRGB between two values of 8 bits, as linear light does."""
    levels = [255 * _srgb_value(_clamped(curve(value / 255))) for value in range(256)]
    return max(after - before for before, after in itertools.pairwise(levels)) > 3


@lru_cache(maxsize=4)
def srgb_levels(curve: Curve) -> list[int]:
    """Return the sRGB value of 8 bits for the light of each value of 16 bits."""
    nodes = [255 * _srgb_value(_clamped(curve(i / _NODES))) for i in range(_NODES + 1)]
    levels = []
    for value in range(65_536):
        at, rest = divmod(value * _NODES / 65_535, 1)
        low, high = nodes[int(at)], nodes[min(int(at) + 1, _NODES)]
        levels.append(int(low + (high - low) * rest + 0.5))
    return levels


def _srgb_value(light: float) -> float:
    """Return the sRGB value of a light (IEC 61966-2-1)."""
    return 12.92 * light if light <= 0.0031308 else float(1.055 * light ** (1 / 2.4) - 0.055)


# -- primaries ---------------------------------------------------------------------------------------------------------


def _to_xyz(primaries: tuple[float, ...]) -> Matrix:
    """Return the matrix from linear RGB to XYZ with white D50 (SMPTE RP 177, and Bradford's adaptation)."""
    white, *colors = [(x, y, 1 - x - y) for x, y in zip(primaries[::2], primaries[1::2], strict=True)]
    if white[1] <= 0:
        raise ValueError("a white without light")
    white_xyz = (white[0] / white[1], 1.0, white[2] / white[1])
    columns: Matrix = tuple(zip(*colors, strict=True))
    amounts = _times(_inverse(columns), white_xyz)
    if min(amounts) <= 0:
        raise ValueError("primaries that make no white")
    to_xyz = tuple(tuple(value * amount for value, amount in zip(row, amounts, strict=True)) for row in columns)
    cones = zip(_times(_BRADFORD, _D50), _times(_BRADFORD, white_xyz), strict=True)
    scales = [to / at for to, at in cones]
    scaled = tuple(tuple(scale * value for value in row) for scale, row in zip(scales, _BRADFORD, strict=True))
    return _product(_product(_inverse(_BRADFORD), scaled), to_xyz)  # type: ignore[arg-type]


def _times(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _product(one: Matrix, other: Matrix) -> Matrix:
    columns = [_times(one, column) for column in zip(*other, strict=True)]
    return tuple(zip(*columns, strict=True))


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        raise ValueError("primaries on one line")
    rows = ((e * i - f * h, c * h - b * i, b * f - c * e),
            (f * g - d * i, a * i - c * g, c * d - a * f),
            (d * h - e * g, b * g - a * h, a * e - b * d))  # fmt: skip
    return tuple((x / determinant, y / determinant, z / determinant) for x, y, z in rows)


# -- curves ------------------------------------------------------------------------------------------------------------


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value))


def _widened(value: float) -> float:
    """Return a value stored from 16 to 235 of 255 on the scale from 0 to 1."""
    return _clamped((255 * value - 16) / 219)


@lru_cache(maxsize=32)
def power(exponent: float) -> Curve:
    """Return the curve that raises values to this power."""
    return lambda value: value**exponent


def _camera(alpha: float, beta: float, slope: float) -> Curve:
    """Return the inverse of the curve of a video camera: linear with this slope up to beta, then a power of 0.45."""
    return lambda value: value / slope if value < slope * beta else ((value + alpha - 1) / alpha) ** (1 / 0.45)


def _pq_to_light(value: float) -> float:
    """Return the light of a PQ value, 1 being 10,000 cd/m2 (SMPTE ST 2084)."""
    root = value ** (32 / 2523)
    return float((max(0.0, root - 107 / 128) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305))


def _light_to_pq(light: float) -> float:
    root = light ** (1305 / 8192)
    return float(((107 / 128 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32))


def _hlg_to_light(value: float) -> float:
    """Return the light of an HLG value on a display of 1,000 cd/m2, 1 being 10,000 (ITU-R BT.2100, tables 5 and 9)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = value * value / 3 if value <= 0.5 else (2.718281828459045 ** ((value - c) / a) + b) / 12
    return 0.1 * float(scene**1.2)


def _toned(to_light: Curve) -> Curve:
    """Return the curve that compresses HDR so that the brightest light becomes white (ITU-R BT.2390-11, 5.4.1)."""
    peak = _light_to_pq(_PEAK_CDM2 / 10_000)
    white = _light_to_pq(_WHITE_CDM2 / 10_000) / peak
    knee = 1.5 * white - 0.5

    def curve(value: float) -> float:
        level = min(1.0, _light_to_pq(to_light(value)) / peak)
        if level > knee:
            t = (level - knee) / (1 - knee)
            level = (
                (2 * t**3 - 3 * t**2 + 1) * knee
                + (t**3 - 2 * t**2 + t) * (1 - knee)
                + (3 * t**2 - 2 * t**3) * white
            )  # fmt: skip
        return _pq_to_light(level * peak) * 10_000 / _WHITE_CDM2

    return curve


_CAMERA = _camera(1.099296826809442, 0.018053968510807, 4.5)
# By the code points of ITU-T H.273 (2021), table 3. Video is decoded by the inverse of its camera's curve.
_TRANSFERS: dict[int, Curve] = {
    1: _CAMERA,  # BT.709
    4: power(2.2),
    5: power(2.8),
    6: _CAMERA,  # BT.601
    7: _camera(1.1115, 0.0228, 4.0),  # SMPTE ST 240
    8: power(1.0),
    9: lambda value: 100 ** (value - 1) if value > 0 else 0.0,
    10: lambda value: 10 ** (2.5 * (value - 1)) if value > 0 else 0.0,
    11: _CAMERA,  # IEC 61966-2-4
    12: _CAMERA,  # BT.1361
    _SRGB: srgb_curve,
    14: _CAMERA,  # BT.2020
    15: _CAMERA,
    _PQ: _toned(_pq_to_light),
    17: lambda value: min(1.0, 52.37 / 48 * value**2.6),  # SMPTE ST 428-1
    _HLG: _toned(_hlg_to_light),
}
