"""Tells whether a picture file ends before its own structure says that it does: whether it was cut off.

Asked only of a file whose reader has failed, since readers use the same words for both.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

# A marker that may follow a JPEG's compressed data: neither a stuffed byte, a restart nor a fill byte (T.81, B.1.1).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END_OF_IMAGE = 0xD9
# A value of each type, as struct has it (TIFF 6.0, section 2; BigTIFF).
_TIFF_TYPES = {
    1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d", 13: "I",
    16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
# The offsets of strips or tiles, and the tag that has their lengths.
_TIFF_PARTS = {273: 279, 324: 325}
# The tag of an MPO's index that has its entries (CIPA DC-007, 5.2.3).
_MP_ENTRIES = 0xB002


def ends_early(data: bytes, name: str) -> bool | None:
    """Return whether a file of a format, by Pillow's name for it, ends too early; None if the format does not say.

    What is damaged in a way that hides where it should end does not end early.
    """
    if name not in _ENDS_EARLY:
        return None
    try:
        return _ENDS_EARLY[name](data)
    except (struct.error, IndexError):  # it ends within the description of a part
        return True


def jpeg_markers(data: bytes, at: int) -> Iterator[int]:
    """Yield the markers of a JPEG from a place behind its first one up to the end of the image, without restarts.

    Raises struct.error if the file ends within the segment of one, and IndexError if it ends before the image does.
    """
    while found := _MARKER.search(data, at):
        marker = data[found.start() + 1]
        yield marker
        if marker == _END_OF_IMAGE:
            return
        at = found.end() + struct.unpack_from(">H", data, found.end())[0]
    raise IndexError("no end of image")


def _jpeg(data: bytes, begin: int = 0) -> bool:
    for _ in jpeg_markers(data, begin + 2):
        pass
    return False


def _png(data: bytes) -> bool:
    at = 8
    while True:
        size_bytes, kind = struct.unpack_from(">I4s", data, at)
        if not kind.isalpha():
            return False
        at += 12 + size_bytes
        if at > len(data):
            return True
        if kind == b"IEND":
            return False


def _gif(data: bytes) -> bool:
    with suppress(ValueError):
        for _ in gif_blocks(data):
            pass
    return False


def gif_blocks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the label of each block of a GIF up to its end mark, and where it begins and ends (GIF89a, 20 to 27).

    The label of an image is b",", that of an extension b"!" and its kind, such as b"!\\xf9" before an image. Raises
    IndexError if the file ends earlier, and ValueError if something else is found.
    """
    begin = 13 + _palette_bytes(data[10])
    while (label := data[begin : begin + 1]) != b";":
        if label == b",":
            end = begin + 11 + _palette_bytes(data[begin + 9])
        elif label == b"!":
            label, end = data[begin : begin + 2], begin + 2
        elif not label:
            raise IndexError("no end mark")
        else:
            raise ValueError(f"a block {label!r}")
        while data[end]:
            end += 1 + data[end]
        end += 1
        yield label, begin, end
        begin = end


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(data: bytes) -> bool:
    size_bytes: int = struct.unpack_from("<I", data, 4)[0]
    return 8 + size_bytes > len(data)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, begin and end of the boxes of a file (ISO/IEC 14496-12, 4.2); the end may lie behind the file's."""
    at = 0
    while at < len(data):
        size_bytes, kind = struct.unpack_from(">I4s", data, at)
        if size_bytes == 1:
            (size_bytes,) = struct.unpack_from(">Q", data, at + 8)
        end = at + size_bytes if size_bytes else len(data)
        if end < at + 8:
            return
        yield kind, at, end
        at = end


def _avif(data: bytes) -> bool:
    found = list(_boxes(data))
    return b"mdat" not in [kind for kind, _, _ in found] or found[-1][2] > len(data)


def _jpeg_xl(data: bytes) -> bool | None:
    """Boxes have lengths, and the last part of a codestream says so (ISO 18181-2, 9); a bare one does not tell."""
    if data.startswith(b"\xff\x0a"):
        return None
    boxes, is_whole = list(_boxes(data)), False
    for kind, begin, _ in boxes:
        content = begin + (16 if data.startswith(b"\0\0\0\1", begin) else 8)
        is_whole = is_whole or kind == b"jxlc" or (kind == b"jxlp" and data[content] >= 0x80)
    _, begin, end = boxes[-1]
    is_open = data.startswith(bytes(4), begin)  # a box without a length, behind which nothing is missing
    return end > len(data) or (end == len(data) and not (is_whole or is_open))


def _jpeg2000(data: bytes) -> bool:
    """A codestream ends with a marker of its own (T.800, A.4.4)."""
    if not data.startswith(b"\xff\x4f"):
        for kind, begin, end in _boxes(data):
            if end > len(data):
                return True
            if kind == b"jp2c":
                data = data[begin:end]
                break
    return not data.rstrip(b"\0").endswith(b"\xff\xd9")


def _qoi(data: bytes) -> bool:
    return not data.endswith(bytes(7) + b"\1")


def _mpo(data: bytes) -> bool:
    """The index in the first picture says where each of the others begins; its lengths, writers get wrong."""
    begin = data.find(b"MPF\0") + 4
    if begin < 4:
        return _jpeg(data)
    order = "<" if data.startswith(b"II", begin) else ">"
    (at,) = struct.unpack_from(order + "I", data, begin + 4)
    entries = bytes(_tiff_values(data[begin:], at, order, {_MP_ENTRIES})[0].get(_MP_ENTRIES, ()))
    places = [place for (place,) in struct.iter_unpack(f"{order}8xI4x", entries)] or [0]
    return any(_jpeg(data, begin + place if place else 0) for place in places)


def _tiff(data: bytes) -> bool:
    order = "<" if data.startswith(b"II") else ">"
    is_big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (page,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    seen = set[int]()
    while page and page not in seen:
        seen.add(page)
        values, page = _tiff_values(data, page, order, {*_TIFF_PARTS, *_TIFF_PARTS.values()}, is_big=is_big)
        for tag, lengths in _TIFF_PARTS.items():
            for begin, size_bytes in zip(values.get(tag, ()), values.get(lengths, ()), strict=False):
                if begin + size_bytes > len(data):
                    return True
    return False


def _tiff_values(
    data: bytes, at: int, order: str, wanted: set[int], *, is_big: bool = False
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return values of tags of a page, and where the next is; struct.error if the file ends before any value does."""
    word, entry_bytes, counted = ("Q", 20, "Q") if is_big else ("I", 12, "H")
    (entries,) = struct.unpack_from(order + counted, data, at)
    at += struct.calcsize(counted)
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(at, at + entries * entry_bytes, entry_bytes):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", data, entry)
        if layout := _TIFF_TYPES.get(kind):
            size_bytes, place = count * struct.calcsize(layout), entry + 4 + struct.calcsize(word)
            if size_bytes > struct.calcsize(word):
                (place,) = struct.unpack_from(order + word, data, place)
            if place + size_bytes > len(data):
                raise struct.error("a value is cut off")
            if tag in wanted:
                values[tag] = struct.unpack_from(f"{order}{count}{layout}", data, place)
    return values, struct.unpack_from(order + word, data, at + entries * entry_bytes)[0]


def _ico(data: bytes) -> bool:
    (count,) = struct.unpack_from("<H", data, 4)
    entries = [struct.unpack_from("<II", data, 6 + 16 * number + 8) for number in range(count)]
    return any(begin + size_bytes > len(data) for size_bytes, begin in entries)


def _psd(data: bytes) -> bool:
    at = 26
    for _ in range(3):  # palette, resources, layers
        at += 4 + int(struct.unpack_from(">I", data, at)[0])
    channels, height, width, depth, _ = struct.unpack_from(">HIIHH", data, 12)
    (compression,) = struct.unpack_from(">H", data, at)
    rows = channels * height
    if compression == 0:
        at += 2 + rows * ((width * depth + 7) // 8)
    elif compression == 1:
        at += 2 + 2 * rows + sum(struct.unpack_from(f">{rows}H", data, at + 2))
    return bool(at > len(data))


def _bmp(data: bytes) -> bool:
    (size_bytes,) = struct.unpack_from("<I", data, 2)
    if struct.unpack_from("<I", data, 14)[0] >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        if compression in (0, 3):
            size_bytes = struct.unpack_from("<I", data, 10)[0] + (width * bits + 31) // 32 * 4 * abs(height)
    return bool(size_bytes > len(data))


_ENDS_EARLY: dict[str, Callable[[bytes], bool | None]] = {
    "JPEG": _jpeg, "MPO": _mpo, "PNG": _png, "GIF": _gif, "WEBP": _webp, "AVIF": _avif, "HEIF": _avif,
    "JXL": _jpeg_xl, "JPEG2000": _jpeg2000, "QOI": _qoi, "TIFF": _tiff, "ICO": _ico, "PSD": _psd, "BMP": _bmp,
}  # fmt: skip
