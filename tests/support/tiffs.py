"""Writes TIFF files of every layout by hand (TIFF 6.0, BigTIFF), as no encoder at hand does."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Pixels = Sequence[Sequence[Sequence[float]]]
"""Rows of pixels of samples, as they are stored."""

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
# struct's codes of whole samples: (SampleFormat, BitsPerSample).
_CODES = {
    (1, 8): "B", (1, 16): "H", (1, 32): "I", (1, 64): "Q", (2, 8): "b", (2, 16): "h", (2, 32): "i", (2, 64): "q",
    (3, 16): "e", (3, 32): "f", (3, 64): "d",
}  # fmt: skip
# TIFF's types by struct's codes.
_TYPES = {"B": 1, "H": 3, "I": 4, "b": 6, "h": 8, "i": 9, "f": 11, "d": 12, "Q": 16, "c": 2}


def tiff(
    pixels: Pixels,
    *,
    photometric: int | None = 1,
    bits: int = 8,
    sample_format: int = 1,
    extra: Sequence[int] = (),
    planar: bool = False,
    compression: int = NONE,
    predictor: int = 1,
    fill_order: int = 1,
    tile: tuple[int, int] | None = None,
    rows_per_strip: int = 5,
    order: str = "<",
    big: bool = False,
    more: Mapping[int, tuple[str, Sequence[Any]]] | None = None,
) -> bytes:
    """Return a TIFF of one page; `more` maps further tags, or others for those here, to struct's code and values."""
    samples = len(pixels[0][0])
    tile_width, tile_height = tile or (len(pixels[0]), rows_per_strip)
    chunks = []
    for sample in range(samples) if planar else [None]:
        for rows in _chunks(pixels, sample, tile_width, tile_height, padded=tile is not None):
            packed = _packed(b"".join(_row(row, bits, sample_format, predictor, order) for row in rows), compression)
            chunks.append(packed if fill_order == 1 else bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed))
    tags: dict[int, tuple[str, Sequence[Any]]] = {
        256: ("I", [len(pixels[0])]), 257: ("I", [len(pixels)]), 258: ("H", [bits] * samples),
        259: ("H", [compression]), 277: ("H", [samples]), 284: ("H", [2 if planar else 1]),
    }  # fmt: skip
    if photometric is not None:
        tags[262] = ("H", [photometric])
    if fill_order != 1:
        tags[266] = ("H", [fill_order])
    if predictor != 1:
        tags[317] = ("H", [predictor])
    if extra:
        tags[338] = ("H", extra)
    if sample_format != 1:
        tags[339] = ("H", [sample_format] * samples)
    if tile:
        tags |= {322: ("I", [tile_width]), 323: ("I", [tile_height])}
    else:
        tags[278] = ("I", [rows_per_strip])
    return pages([(tags | dict(more or {}), chunks)], order=order, big=big)


def pages(
    pages: Sequence[tuple[Mapping[int, tuple[str, Sequence[Any]]], Sequence[bytes]]],
    *,
    order: str = "<",
    big: bool = False,
) -> bytes:
    """Return a TIFF of pages, each given by its tags without the offsets and byte counts, and its strips or tiles."""
    long, entry, count = ("Q", "HHQ", "Q") if big else ("I", "HHI", "H")
    word = struct.calcsize(f"{order}{long}")
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    file = bytearray(head)
    link = len(file) - word
    for tags, chunks in pages:
        offsets = []
        for chunk in chunks:
            offsets.append(len(file))
            file += chunk + bytes(len(chunk) % 2)
        tiled = 322 in tags
        places = {
            324 if tiled else 273: (long, offsets),
            325 if tiled else 279: (long, [len(chunk) for chunk in chunks]),
        }
        whole = sorted((places | dict(tags)).items())
        packed = []
        for tag, (code, values) in whole:
            data = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(data) > word:
                offset = len(file)
                file += data + bytes(len(data) % 2)
                data = struct.pack(f"{order}{long}", offset)
            packed.append(struct.pack(f"{order}{entry}", tag, _TYPES[code], len(values)) + data.ljust(word, b"\0"))
        file[link : link + word] = struct.pack(f"{order}{long}", len(file))
        file += struct.pack(f"{order}{count}", len(packed)) + b"".join(packed) + bytes(word)
        link = len(file) - word
    return bytes(file)


def _chunks(pixels: Pixels, sample: int | None, width: int, height: int, *, padded: bool) -> Iterator[list[list[Any]]]:
    """Yield the rows of each strip or tile, of one sample or of all."""
    plane = [[list(pixel) if sample is None else [pixel[sample]] for pixel in row] for row in pixels]
    for top in range(0, len(plane), height):
        for left in range(0, len(plane[0]), width):
            rows = [row[left : left + width] for row in plane[top : top + height]]
            if padded:
                rows = [row + [row[-1]] * (width - len(row)) for row in rows]
                rows += [rows[-1]] * (height - len(rows))
            yield rows


def _row(row: Sequence[Sequence[float]], bits: int, sample_format: int, predictor: int, order: str) -> bytes:
    samples, stride = [sample for pixel in row for sample in pixel], len(row[0])
    if (
        predictor == 3
    ):  # Adobe's technote 3: bytes of one weight side by side, the greatest first, and their differences
        whole = struct.pack(f">{len(samples)}{_CODES[sample_format, bits]}", *samples)
        turned = b"".join(whole[weight :: bits // 8] for weight in range(bits // 8))
        return bytes((byte - (turned[at - stride] if at >= stride else 0)) % 256 for at, byte in enumerate(turned))
    if predictor == 2:
        raw = f"{order}{len(samples)}{_CODES[1, bits]}"
        unsigned = struct.unpack(raw, struct.pack(f"{order}{len(samples)}{_CODES[sample_format, bits]}", *samples))
        differences = [
            (value - (unsigned[at - stride] if at >= stride else 0)) % 2**bits for at, value in enumerate(unsigned)
        ]
        return struct.pack(raw, *differences)
    if (sample_format, bits) in _CODES:
        return struct.pack(f"{order}{len(samples)}{_CODES[sample_format, bits]}", *samples)
    text = "".join(f"{int(sample):0{bits}b}" for sample in samples)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _packed(data: bytes, compression: int) -> bytes:
    if compression == LZW:  # every byte by itself, and the table cleared before its codes take a tenth bit
        codes = [code for at in range(0, len(data), 200) for code in (256, *data[at : at + 200])] + [257]
        text = "".join(f"{code:09b}" for code in codes)
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression == PACKBITS:
        return b"".join(bytes([len(data[at : at + 128]) - 1]) + data[at : at + 128] for at in range(0, len(data), 128))
    return data
