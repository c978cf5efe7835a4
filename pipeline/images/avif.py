"""Reads AVIF with the colours it names (nclx), its clean aperture, and what libavif refuses though it does no harm.

A file is a tree of boxes (ISO/IEC 14496-12). The boxes `iprp` and `ipma` say which properties a picture in it has
(ISO/IEC 23008-12, HEIF). How it is turned, Pillow's reader says: by `irot` and `imir` alone, as MIAF has it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from typing import IO

from PIL import AvifImagePlugin, Image, ImageFile

from pipeline.images import refuse_if_too_large
from pipeline.images.encodings import numbered_profile
from pipeline.notes import note
from pipeline.records import NamedTuple, dataclass

# The weights of red and blue in the luma of a matrix (ITU-T H.273, table 4): those that libyuv converts.
_WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
# Where in the boxes of an animation the colours of its frames are named, and the bytes before the boxes in these.
_TRACK = ((b"moov", 0), (b"trak", 0), (b"mdia", 0), (b"minf", 0), (b"stbl", 0), (b"stsd", 8), (b"av01", 78))


class _Box(NamedTuple):
    kind: bytes
    begin: int
    """The offset of what is in it."""
    end: int
    header_bytes: int


@dataclass(frozen=True)
class _Items:
    """The pictures of a file, by their numbers, and their properties."""

    primary: int
    meta: _Box
    properties: tuple[_Box, ...]
    """All properties, which are counted from 1."""
    of_item: dict[int, tuple[int, ...]]
    """The numbers of the properties of each picture."""

    def find(self, item: int, kind: bytes) -> list[_Box]:
        """Return the properties of a kind that a picture has."""
        boxes = (self.properties[number - 1] for number in self.of_item.get(item, ()))
        return [box for box in boxes if box.kind == kind]


class AvifFile(AvifImagePlugin.AvifImageFile):
    """An AVIF of which only a part, its clean aperture, is the picture, or whose colours are to be widened."""

    widening: tuple[float, ...] | None = None
    """The matrix that makes its colours those of limited range."""
    _whole_width: int | None = None
    _corner = (0, 0)

    def cut(self, left: int, top: int, width: int, height: int) -> None:
        """Make this part of the stored picture the picture."""
        self._whole_width, self._corner, self._size = self.width, (left, top), (width, height)
        self.seek(self.tell())

    def seek(self, frame: int) -> None:
        super().seek(frame)
        if self._whole_width and self.tile:
            pixel_bytes = len(self.mode)
            offset = (self._corner[1] * self._whole_width + self._corner[0]) * pixel_bytes
            args = self.mode, self._whole_width * pixel_bytes, 1
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), offset, args)]

    def load_seek(self, pos: int) -> None:
        assert self.fp is not None
        self.fp.seek(pos)

    def load_end(self) -> None:
        if self.widening and self.mode == "L":
            # What a matrix makes of a grey, whose every row has the same sum.
            self._im = self.point(lambda level: level * sum(self.widening[:3]) + self.widening[3]).im
        elif self.widening:
            image = Image.merge("RGB", self.split()[:3]).convert("RGB", self.widening)
            if self.mode == "RGBA":
                image.putalpha(self.getchannel("A"))
            self._im = image.im


def open_avif(file: IO[bytes], filename: str | bytes = "") -> AvifFile:
    """Open an AVIF.

    Raises:
        SyntaxError, ValueError, RuntimeError: Pillow's reader cannot make sense of it.
    """
    data = file.read()
    items = _items(data)
    data = _in_order(data, items) if items else data
    is_animation = data[8:12] == b"avis"  # whose frames libavif takes, not its picture
    nclx = _track_nclx(data) if is_animation else _item_nclx(data, items) if items else None
    matrix = _widening(data, nclx) if nclx and not (items and _is_premultiplied(data, items)) else None
    if nclx and matrix:
        data = data[: nclx.begin + 10] + b"\x80" + data[nclx.begin + 11 :]
    data = _with_extents(data, items) if items else data  # last, since it moves the boxes
    try:
        image = AvifFile(io.BytesIO(data), filename)
    except ValueError as error:
        if "exif" not in str(error).lower():
            raise
        note("its EXIF is damaged: left out")
        image = AvifFile(io.BytesIO(_without_exif(data)), filename)
    image.widening = matrix
    if nclx and "icc_profile" not in image.info:
        primaries, transfer = struct.unpack_from(">HH", data, nclx.begin + 4)
        if profile := numbered_profile(primaries, transfer, grey=image.mode == "L"):
            image.info["icc_profile"] = profile
    if items and not is_animation:
        _cut(image, data, items)
    file.close()
    return image


# -- boxes -------------------------------------------------------------------------------------------------------------


def _boxes(data: bytes, begin: int, end: int) -> Iterator[_Box]:
    """Yield the boxes between two offsets, up to one that does not fit (ISO/IEC 14496-12, 4.2)."""
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        header_bytes = 8
        if size == 1 and begin + 16 <= end:
            (size,), header_bytes = struct.unpack_from(">Q", data, begin + 8), 16
        size = size or end - begin
        if size < header_bytes or begin + size > end:
            return
        yield _Box(kind, begin + header_bytes, begin + size, header_bytes)
        begin += size


def _inside(data: bytes, box: _Box, kind: bytes, skipped: int = 0) -> _Box | None:
    """Return the first box of a kind in a box, whose own boxes begin after so many bytes."""
    return next((each for each in _boxes(data, box.begin + skipped, box.end) if each.kind == kind), None)


def _whole(data: bytes) -> _Box:
    return _Box(b"", 0, len(data), 0)


def _items(data: bytes) -> _Items | None:
    """Return the pictures of a file; None if its boxes cannot be read, of which Pillow's reader tells."""
    meta = _inside(data, _whole(data), b"meta")
    pitm, iprp = (_inside(data, meta, kind, 4) if meta else None for kind in (b"pitm", b"iprp"))
    ipco, ipma = (_inside(data, iprp, kind) if iprp else None for kind in (b"ipco", b"ipma"))
    if not (meta and pitm and ipco and ipma):
        return None
    properties = tuple(_boxes(data, ipco.begin, ipco.end))
    try:
        of_item = {item: _numbers_in(data, ipma, stored) for item, stored in _associations(data, ipma)}
        (primary,) = struct.unpack_from(">I" if data[pitm.begin] else ">H", data, pitm.begin + 4)
    except struct.error:
        return None
    if any(not 0 < number <= len(properties) for numbers in of_item.values() for number in numbers):
        return None
    return _Items(primary=primary, meta=meta, properties=properties, of_item=of_item)


def _is_wide(data: bytes, ipma: _Box) -> bool:
    return bool(data[ipma.begin + 3] & 1)


def _associations(data: bytes, ipma: _Box) -> Iterator[tuple[int, bytes]]:
    """Yield each item with the numbers of its properties as they are stored (HEIF, 9.3.2). Raises struct.error."""
    head, width = ">IB" if data[ipma.begin] else ">HB", 2 if _is_wide(data, ipma) else 1
    (count,) = struct.unpack_from(">I", data, ipma.begin + 4)
    at = ipma.begin + 8
    for _ in range(count):
        item, length = struct.unpack_from(head, data, at)
        at += struct.calcsize(head)
        yield item, data[at : at + length * width]
        at += length * width


def _numbers_in(data: bytes, ipma: _Box, stored: bytes) -> tuple[int, ...]:
    """Return numbers of properties without the bit that says whether a reader must know one."""
    wide = _is_wide(data, ipma)
    numbers = struct.unpack(f">{len(stored) // 2}H" if wide else f"{len(stored)}B", stored)
    return tuple(number & (0x7FFF if wide else 0x7F) for number in numbers if number & (0x7FFF if wide else 0x7F))


# -- colours -----------------------------------------------------------------------------------------------------------


def _item_nclx(data: bytes, items: _Items) -> _Box | None:
    return _nclx(data, items.find(items.primary, b"colr"))


def _track_nclx(data: bytes) -> _Box | None:
    """Return the box that names the colours of an animation, in its first track; a further one may be alpha."""
    box: _Box | None = _whole(data)
    skipped = 0
    for kind, next_skipped in _TRACK:
        box = _inside(data, box, kind, skipped) if box else None
        skipped = next_skipped
    return _nclx(data, _boxes(data, box.begin + skipped, box.end) if box else ())


def _nclx(data: bytes, boxes: Iterable[_Box]) -> _Box | None:
    """Return the colr box that has code points of ITU-T H.273, if there is one."""
    for box in boxes:
        if box.kind == b"colr" and data[box.begin : box.begin + 4] == b"nclx" and box.end - box.begin >= 11:
            return box
    return None


def _is_premultiplied(data: bytes, items: _Items) -> bool:
    """Return whether colours are stored multiplied by their alpha (HEIF, 6.10.1.2), which libavif must divide out."""
    iref = _inside(data, items.meta, b"iref", 4)
    return iref is not None and _inside(data, iref, b"prem", 4) is not None


def _widening(data: bytes, nclx: _Box) -> tuple[float, ...] | None:
    """Return how red, green and blue decoded as of full range become those of limited range; None if they are of full.

    libavif's own conversion of limited range (libyuv) cuts the weight of blue from 2.11 to 2, which is 14 levels wrong.
    """
    matrix, is_full = struct.unpack_from(">HB", data, nclx.begin + 8)
    if is_full >> 7 or matrix not in _WEIGHTS:
        return None
    red, blue = _WEIGHTS[matrix]
    weights = (red, 1 - red - blue, blue)
    luma, chroma = 255 / 219, 255 / 224
    rows: list[float] = []
    for channel in range(3):
        rows += [(luma - chroma) * weight + (chroma if channel == i else 0) for i, weight in enumerate(weights)]
        rows.append(-16 * luma)
    return tuple(rows)


# -- geometry ----------------------------------------------------------------------------------------------------------


def _cut(image: AvifFile, data: bytes, items: _Items) -> None:
    """Cut an image to its clean aperture (ISO/IEC 14496-12, 12.1.4), if that consists of whole pixels of it."""
    for box in items.find(items.primary, b"clap"):
        values = struct.unpack_from(">8i", data, box.begin) if box.end - box.begin >= 32 else (0,) * 8
        part = _aperture(values, image.size)
        refuse_if_too_large(image.size)  # all of it is decoded
        if part is None:
            note("its clean aperture is no part of it: the whole picture is taken")
        else:
            image.cut(*part)


def _in_order(data: bytes, items: _Items) -> bytes:
    """Return a file in which a picture to be mirrored and then turned is turned the other way and then mirrored.

    The order of its properties counts (HEIF, 6.5.1), but libavif turns first, since MIAF allows only that.
    """
    for irot in items.find(items.primary, b"irot"):
        imir = items.find(items.primary, b"imir")
        kinds = [items.properties[number - 1].kind for number in items.of_item[items.primary]]
        if imir and kinds.index(b"imir") < kinds.index(b"irot"):
            return data[: irot.begin] + bytes((-data[irot.begin] % 4,)) + data[irot.begin + 1 :]
    return data


def _aperture(values: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return left, top, width and height of a clean aperture, given as fractions; None if it is not in the picture."""
    sides = []
    for whole, (numerator, denominator, off_numerator, off_denominator) in zip(
        size, (values[0:2] + values[4:6], values[2:4] + values[6:8]), strict=True
    ):
        if denominator <= 0 or off_denominator <= 0 or numerator % denominator or numerator <= 0:
            return None
        side = numerator // denominator
        twice, rest = divmod((whole - side) * off_denominator + 2 * off_numerator, off_denominator)
        if rest or twice % 2 or not 0 <= twice // 2 <= whole - side:
            return None
        sides.append((twice // 2, side))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


# -- what does no harm -------------------------------------------------------------------------------------------------


def _with_extents(data: bytes, items: _Items) -> bytes:
    """Return a file in which alpha without an extent has that of its picture, which libavif asks for.

    The box that says so is written anew behind the rest, since all offsets in a file count from its beginning.
    """
    lacking = {item for item in items.of_item if items.find(item, b"auxC") and not items.find(item, b"ispe")}
    kinds = [box.kind for box in items.properties]
    extents = [number for number in items.of_item.get(items.primary, ()) if kinds[number - 1] == b"ispe"]
    if not lacking or not extents:
        return data

    def rewritten(box: _Box) -> bytes:
        if box.kind == b"iprp":
            return _box(box.kind, b"".join(map(rewritten, _boxes(data, box.begin, box.end))))
        if box.kind == b"ipma":
            return _box(box.kind, _extended(data, box, lacking, extents[0]))
        return data[box.begin - box.header_bytes : box.end]

    meta = items.meta
    inner = b"".join(map(rewritten, _boxes(data, meta.begin + 4, meta.end)))
    kind_at = meta.begin - meta.header_bytes + 4
    return data[:kind_at] + b"free" + data[kind_at + 4 :] + _box(b"meta", data[meta.begin : meta.begin + 4] + inner)


def _extended(data: bytes, ipma: _Box, lacking: set[int], extent: int) -> bytes:
    """Return what stands in an ipma box in which these items have one property more."""
    head, added = ">IB" if data[ipma.begin] else ">HB", extent.to_bytes(2 if _is_wide(data, ipma) else 1)
    written = data[ipma.begin : ipma.begin + 8]
    for item, stored in _associations(data, ipma):
        longer = stored + added if item in lacking else stored
        written += struct.pack(head, item, len(longer) // len(added)) + longer
    return written


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _without_exif(data: bytes) -> bytes:
    """Return a file in which no item is EXIF: their kind stands in an infe box (HEIF, 8.11.6)."""
    meta = _inside(data, _whole(data), b"meta")
    iinf = _inside(data, meta, b"iinf", 4) if meta else None
    if not iinf:
        return data
    changed = bytearray(data)
    for box in _boxes(data, iinf.begin + (8 if data[iinf.begin] else 6), iinf.end):
        at = box.begin + (8 if data[box.begin] == 2 else 10)
        if changed[at : at + 4] == b"Exif":
            changed[at : at + 4] = b"none"
    return bytes(changed)
