"""Leaves out the scans of a progressive JPEG that make no difference to its decoder at an eighth of the size.

There, a block of 8 x 8 pixels becomes one pixel, its DC coefficient. The AC coefficients, most of the file, come in
scans of their own (ITU-T T.81, G.1.1.1.1), and decoding them takes most of the time.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from pipeline.records import dataclass

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SOF2, _SOS, _EOI = 0xC2, 0xDA, 0xD9
# Segments without a bearing on where scans begin and end: Huffman and quantisation tables, APPn, comments.
_TABLES = {0xC4, 0xDB, *range(0xE0, 0xF0), 0xFE}
# What ends the data of a scan: in them 0xff is followed by 0, and as a filling before a marker by itself.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# A Huffman table with one code, a bit 0, for EOB14 (T.81, G.1.2.2): with 14 further bits 0, this block and the 16,383
# that follow have no coefficients.
_TABLE_OF_EOB14 = b"\xff\xc4" + struct.pack(">HB16BB", 20, 0x10, 1, *[0] * 15, 0xE0)
_BLOCKS_OF_EOB14, _BITS_OF_EOB14 = 1 << 14, 15


@dataclass(frozen=True)
class _Segment:
    marker: int
    begin: int
    """The offset of the marker."""
    end: int
    """The offset of the next marker: a scan ends with its data."""


def without_ac_scans(jpeg: bytes) -> bytes | None:
    """Return a progressive JPEG without the AC scans that its pixels at an eighth of the size do not depend on.

    An empty scan stands for those of a component, since libjpeg smooths a component of which it has seen none.

    Returns:
        The shorter JPEG. None if it is not progressive, damaged, or unusual: if it has other than three components,
        chroma that is not sampled once, restart markers, or no end.
    """
    try:
        segments = list(_segments(jpeg))
        (frame,) = (jpeg[each.begin + 4 : each.end] for each in segments if each.marker == _SOF2)
        unneeded, blocks = _unneeded_components(frame)
        kept = [jpeg[each.begin : each.end] for each in segments if not _is_unneeded(jpeg, each, unneeded)]
    except (ValueError, struct.error, IndexError):
        return None
    return b"".join([_START, *kept, _TABLE_OF_EOB14, *(_empty_scan(each, blocks) for each in unneeded), _END])


def _segments(jpeg: bytes) -> Iterator[_Segment]:
    """Yield the segments between the start and the end of an image. Raises ValueError where any other is found."""
    place = len(_START)
    while jpeg[place : place + 2] != _END:
        fill, marker, size_bytes = struct.unpack_from(">BBH", jpeg, place)
        if fill != 0xFF or marker not in (_SOF2, _SOS, *_TABLES):
            raise ValueError(f"marker {marker:#x}")
        end = place + 2 + size_bytes
        if marker == _SOS:
            found = _MARKER.search(jpeg, end)
            if not found:
                raise ValueError("no end")
            end = found.start()
        yield _Segment(marker, place, end)
        place = end


def _unneeded_components(frame: bytes) -> tuple[Sequence[int], int]:
    """Return the identifiers of the components of which a block is a pixel, and a bound of their blocks.

    Chroma at half the size is decoded to 2 x 2 pixels a block, so it needs its AC coefficients. Raises ValueError for
    frames of other kinds (T.81, B.2.2).
    """
    height, width, components = struct.unpack_from(">xHHB", frame)
    identifiers, sampling = frame[6::3], frame[7::3]
    if components != 3 or len(frame) != 15 or sampling[1:] != b"\x11\x11":
        raise ValueError("unusual components")
    blocks = (-(-width // 32) * 4) * (-(-height // 32) * 4)
    return identifiers if sampling[0] == 0x11 else identifiers[:1], blocks


def _is_unneeded(jpeg: bytes, segment: _Segment, components: Sequence[int]) -> bool:
    """Return whether a segment is an AC scan of one of these components, which has no other (T.81, B.2.3)."""
    if segment.marker != _SOS:
        return False
    count, component = jpeg[segment.begin + 4], jpeg[segment.begin + 5]
    first = jpeg[segment.begin + 5 + 2 * count]
    return first > 0 and component in components


def _empty_scan(component: int, blocks: int) -> bytes:
    """Return an AC scan in which no block has coefficients."""
    runs = -(-blocks // _BLOCKS_OF_EOB14)
    return b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, component, 0, 1, 63, 0) + bytes(-(-runs * _BITS_OF_EOB14 // 8))
