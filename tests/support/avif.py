"""AVIF files put together by hand from the coded pictures of Pillow's encoder."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from PIL import Image

from support.pictures import encode

ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def coded(image: Image.Image, *, limited: bool = False) -> tuple[bytes, bytes]:
    """The AV1 data of a picture in mode L (monochrome) or RGB (4:4:4), almost as it is, and its av1C property."""
    data = encode(image, "AVIF", quality=100, subsampling="4:0:0" if image.mode == "L" else "4:4:4", speed=9,
                  max_threads=1, range="limited" if limited else "full")  # fmt: skip
    at = data.index(b"av1C") - 4
    return data[data.index(b"mdat") + 4 :], data[at : at + int.from_bytes(data[at : at + 4])]


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def nclx(primaries: int, transfer: int, matrix: int = 6, full_range: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7))


def irot(quarters: int) -> bytes:
    """Turned to the left so many times."""
    return box(b"irot", bytes((quarters,)))


def imir(axis: int) -> bytes:
    """0: top and bottom are exchanged; 1: left and right are (HEIF, 6.5.12)."""
    return box(b"imir", bytes((axis,)))


def avif(
    picture: tuple[bytes, bytes],
    properties: Sequence[bytes],
    *,
    alpha: tuple[bytes, bytes] | None = None,
    alpha_properties: Sequence[bytes] = (),
    exif: bytes = b"",
    premultiplied: bool = False,
) -> bytes:
    """An AVIF of one picture with these properties in this order, and its alpha with its own."""
    items = [(b"av01", picture[0], [*properties[:1], picture[1], *properties[1:]])]
    references = []
    if alpha:
        own = [*alpha_properties, alpha[1], full(b"auxC", ALPHA)]
        items.append((b"av01", alpha[0], own))
        references.append(box(b"auxl", struct.pack(">HHH", 2, 1, 1)))
        if premultiplied:
            references.append(box(b"prem", struct.pack(">HHH", 1, 1, 2)))
    if exif:
        items.append((b"Exif", bytes(4) + exif, []))
        references.append(box(b"cdsc", struct.pack(">HHH", len(items), 1, 1)))
    ftyp = box(b"ftyp", b"avif", bytes(4), b"avifmif1miafMA1A")
    first = len(ftyp) + len(_meta(items, references, 0)) + 8
    return ftyp + _meta(items, references, first) + box(b"mdat", *(data for _, data, _ in items))


def _meta(items: Sequence[tuple[bytes, bytes, Sequence[bytes]]], references: Sequence[bytes], first: int) -> bytes:
    """The meta box of items whose data begin at `first` and follow each other."""
    stored = [each for _, _, properties in items for each in properties]
    locations, entries, associations, number = b"", b"", b"", 0
    for item, (kind, data, properties) in enumerate(items, 1):
        locations += struct.pack(">HHHII", item, 0, 1, first, len(data))
        entries += full(b"infe", struct.pack(">HH4sx", item, 0, kind), version=2)
        first += len(data)
        essential = (b"av1C", b"irot", b"imir", b"clap")
        marks = [number + i | (each[4:8] in essential) << 7 for i, each in enumerate(properties, 1)]
        associations += struct.pack(">HB", item, len(marks)) + bytes(marks)
        number += len(properties)
    count = struct.pack(">H", len(items))
    return full(
        b"meta",
        full(b"hdlr", struct.pack(">I4s12sx", 0, b"pict", bytes(12))),
        full(b"pitm", struct.pack(">H", 1)),
        full(b"iloc", b"\x44\0", count, locations),
        full(b"iinf", count, entries),
        full(b"iref", *references) if references else b"",
        box(b"iprp", box(b"ipco", *stored), full(b"ipma", struct.pack(">I", len(items)), associations)),
    )
