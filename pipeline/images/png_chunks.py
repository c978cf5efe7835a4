"""The chunks of a PNG: where they are, which of them are damaged, and a file with others in their place."""

from __future__ import annotations

import io
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import IO, Any

from PIL import PngImagePlugin

from pipeline.errors import Unreadable
from pipeline.notes import note
from pipeline.records import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">I4s")
# Bytes of a chunk around its data: length, kind and checksum.
_AROUND = 12
_PIXELS = (b"IDAT", b"fdAT")
# Chunks that describe an animation: without one of them the others make no sense.
_ANIMATION = (b"acTL", b"fcTL")
# What describes an animation and a frame of it (PNG 3, 11.3.6), and the most frames that one may promise.
_ACTL, _FCTL, _PROMISED_MAX = struct.Struct(">II"), struct.Struct(">5I2H2B"), 1 << 31
# Chunks that stand once, and before the pixels (PNG 3, 5.6), and the least and the most bytes of these and another.
_COLORS = (b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_SIZES = {b"tRNS": (1, 256), b"cICP": (4, 4), b"sRGB": (1, 1), b"gAMA": (4, 4), b"cHRM": (32, 32), b"pHYs": (9, 9)}
_PACKED = (b"iCCP", b"zTXt", b"iTXt")
# Keywords of texts that Pillow's reader would take for what its other chunks say, and decode the pixels by it.
_OF_PILLOW = frozenset(
    b"transparency icc_profile dpi interlace bbox default_image loop duration disposal blend".split()
)
TEXTS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
"""Kinds of texts that may say how the picture is turned."""
# Bytes of a text or a profile once unpacked, and of all of them: above these Pillow refuses the file.
_TEXT_MAX, _TEXTS_MAX = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
# Bytes whose checksum is computed at a time.
_BLOCK = 1 << 20
# Chunks of the largest pictures, which are often of 8 KiB each; each costs a microsecond and 200 bytes.
_CHUNKS_MAX = 250_000


class Chunk(NamedTuple):
    """The place of a chunk in a PNG."""

    kind: bytes
    begin: int
    """The offset of its first byte, with which its length begins."""
    size_bytes: int
    """The number of bytes of its data."""

    @property
    def end(self) -> int:
        """The offset behind its checksum."""
        return self.begin + _AROUND + self.size_bytes

    def data(self, file: IO[bytes]) -> bytes:
        """Read its data."""
        file.seek(self.begin + 8)
        return file.read(self.size_bytes)

    def is_sound(self, file: IO[bytes]) -> bool:
        """Return whether its checksum is right."""
        checksum, left = zlib.crc32(self.kind), self.size_bytes
        file.seek(self.begin + 8)
        while block := file.read(min(left, _BLOCK)):  # or it is cut off
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        return file.read(4) == struct.pack(">I", checksum)


def read_chunks(file: IO[bytes]) -> list[Chunk]:
    """Return the chunks of a PNG, among them its header and pixels.

    Raises:
        Unreadable: It is cut off before its pixels, or damaged there, or has more chunks than any picture needs.
    """
    chunks = list(islice(walk(file), _CHUNKS_MAX + 1))
    if len(chunks) > _CHUNKS_MAX:
        raise Unreadable(f"too large: a PNG of more than {_CHUNKS_MAX:,} chunks")
    if not any(chunk.kind == b"IDAT" for chunk in chunks) or not _begins_with_header(file):
        raise _without_pixels(file, chunks)
    return chunks


def lost_end(file: IO[bytes], chunks: Sequence[Chunk]) -> dict[Chunk, bytes]:
    """Return what follows the last whole chunk of a file without an end, to be left out, and add a note.

    Pixels that are cut off stay, since their decoder tells of them.
    """
    size_bytes, last = file.seek(0, io.SEEK_END), chunks[-1]
    if last.kind == b"IEND":
        return {}
    note("its end is missing: what follows its pixels may be lost")
    return {Chunk(b"", last.end, size_bytes - last.end - _AROUND): b""} if last.end < size_bytes else {}


def walk(file: IO[bytes]) -> Iterator[Chunk]:
    """Yield the chunks of a PNG, up to its end, or to the first that is none or is cut off; pixels may be."""
    size_bytes = file.seek(0, io.SEEK_END)
    read_head = _head_reader(file)
    begin, kind = len(SIGNATURE), b""
    while begin + _AROUND <= size_bytes and kind != b"IEND":
        length, kind = _HEAD.unpack(read_head(begin))
        chunk = Chunk(kind, begin, length)
        if not kind.isalpha() or (chunk.end > size_bytes and kind not in _PIXELS):
            return
        yield chunk
        begin = chunk.end


def end_of_sound_pixels(file: IO[bytes]) -> int | None:
    """Return the offset behind the pixels of a PNG; None if a checksum of their chunks is wrong. The file stays put."""
    here = file.tell()
    pixels = [chunk for chunk in walk(file) if chunk.kind == b"IDAT" and chunk.size_bytes]
    is_sound = all(chunk.is_sound(file) for chunk in pixels)
    file.seek(here)
    return pixels[-1].begin + 8 + pixels[-1].size_bytes if pixels and is_sound else None


def _head_reader(file: IO[bytes]) -> Callable[[int], bytes]:
    """Return a function that reads 8 bytes at an offset; of a file on disk no more than these, as its buffer would."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
        descriptor = file.fileno()
        return lambda begin: os.pread(descriptor, 8, begin)

    def read_head(begin: int) -> bytes:
        file.seek(begin)
        return file.read(8)

    return read_head


def _begins_with_header(file: IO[bytes]) -> bool:
    file.seek(len(SIGNATURE))
    return file.read(8) == b"\0\0\0\x0dIHDR"


def _without_pixels(file: IO[bytes], chunks: Sequence[Chunk]) -> Unreadable:
    """Return the error for a file whose chunks do not lead from its header to its pixels."""
    end = chunks[-1].end if chunks else len(SIGNATURE)
    file.seek(end)
    head = file.read(8)
    if chunks and not _begins_with_header(file):
        return Unreadable("damaged picture: it does not begin with its header")
    if chunks and chunks[-1].kind == b"IEND":
        return Unreadable("damaged picture: it has no pixels")
    if len(head) == 8 and not head[4:].isalpha():
        return Unreadable(f"damaged picture: there is no PNG chunk at byte {end:,}")
    return Unreadable("truncated picture: it ends before its pixels")


def note_left_out(chunk: Chunk, why: str) -> None:
    """Add a note that a chunk is left out."""
    note("damage beside its pixels: left out", f"PNG chunk {chunk.kind.decode('ascii')}: {why}")


def rewritten(file: IO[bytes], amended: dict[Chunk, bytes]) -> IO[bytes]:
    """Return a file with other bytes in place of some chunks, or the file itself if there are none; both rewound.

    The original is read wherever it counts, since a copy may be large, and is closed with the returned file.
    """
    if not amended:
        file.seek(0)
        return file
    pieces: list[bytes | range] = []
    at = 0
    for chunk in sorted(amended, key=lambda chunk: chunk.begin):
        pieces += [range(at, chunk.begin), amended[chunk]]
        at = chunk.end
    pieces.append(range(at, file.seek(0, io.SEEK_END)))
    return io.BufferedReader(_Pieces(file, pieces))


class _Pieces(io.RawIOBase):
    """A file that is put together of bytes, and of parts of another file, each given as the offsets of its bytes."""

    def __init__(self, file: IO[bytes], pieces: Sequence[bytes | range]) -> None:
        self._file, self._at = file, 0
        self._pieces = [piece for piece in pieces if piece]
        self._ends = [*accumulate(map(len, self._pieces))]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        if begin + offset < 0:
            raise ValueError("negative seek position")
        self._at = begin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of one piece."""
        number = bisect_right(self._ends, self._at)
        if number == len(self._pieces):
            return 0
        piece = self._pieces[number]
        part = piece[len(piece) - (self._ends[number] - self._at) :][: len(buffer)]
        count = len(part)
        if isinstance(part, range):
            self._file.seek(part.start)
            count = self._file.readinto(memoryview(buffer)[:count])  # type: ignore[attr-defined]
        else:
            buffer[:count] = part
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def encoded(kind: bytes, data: bytes) -> bytes:
    """Return a whole chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# -- what may be wrong beside the pixels -------------------------------------------------------------------------------


def left_out(file: IO[bytes], chunks: Sequence[Chunk]) -> tuple[dict[Chunk, bytes], dict[bytes, Chunk]]:
    """Return the chunks that are to be left out, each with no bytes in its place, and the sound ones by their kinds."""
    amended: dict[Chunk, bytes] = {}
    sound: dict[bytes, Chunk] = {}
    texts_bytes, is_late = 0, False
    for chunk in chunks:
        is_late |= chunk.kind == b"IDAT"
        if chunk.kind in (*_PIXELS, *_ANIMATION):  # pixels have a checksum of their own once unpacked
            continue
        try:
            texts_bytes += _check(file, chunk, chunk.kind in sound, is_late, texts_bytes)
        except ValueError as error:
            note_left_out(chunk, str(error))
            amended[chunk] = b""
            texts_bytes += _TEXT_MAX if chunk.kind in _PACKED else 0  # so much may have been unpacked
        else:
            sound[chunk.kind] = chunk
    return amended | _animation_left_out(file, chunks), sound


def _animation_left_out(file: IO[bytes], chunks: Sequence[Chunk]) -> dict[Chunk, bytes]:
    """Return the chunks of an animation that is no more than its first picture, or damaged where it begins.

    Damage in a later frame is told to who asks for that frame.
    """
    parts = [chunk for chunk in chunks if chunk.kind in (*_ANIMATION, b"fdAT")]
    frames = _promised_frames(file, chunks, parts) if parts else 0
    if parts and not frames:
        note("its animation is damaged: left out")
    is_still = frames == 1 and parts[1].begin < _begin_of_pixels(chunks)
    return {chunk: b"" for chunk in parts} if is_still or not frames else {}


def _promised_frames(file: IO[bytes], chunks: Sequence[Chunk], parts: Sequence[Chunk]) -> int:
    """Return the number of frames that the chunks of an animation promise; 0 if they make no sense (PNG 3, 11.3.6).

    A frame that is described before the picture's pixels has these and no others, so it is as large as the picture.
    """
    kinds = [chunk.kind for chunk in parts]
    if kinds[:2] != [*_ANIMATION] or kinds.count(b"acTL") > 1:
        return 0
    control, first = parts[:2]
    early = sum(chunk.begin < _begin_of_pixels(chunks) for chunk in parts)
    if early not in (1, 2) or (control.size_bytes, first.size_bytes) != (_ACTL.size, _FCTL.size):
        return 0
    if not all(chunk.is_sound(file) for chunk in parts if chunk.kind in _ANIMATION):
        return 0
    number, *place = _FCTL.unpack(first.data(file))[:5]
    size = struct.unpack(">II", chunks[0].data(file)[:8])
    if number or (early == 2 and (place != [*size, 0, 0] or kinds[2:3] == [b"fdAT"])):
        return 0
    frames: int = _ACTL.unpack(control.data(file))[0]
    return frames if frames <= _PROMISED_MAX else 0


def _begin_of_pixels(chunks: Sequence[Chunk]) -> int:
    return next(chunk.begin for chunk in chunks if chunk.kind == b"IDAT")


def _check(file: IO[bytes], chunk: Chunk, is_repeated: bool, is_late: bool, texts_bytes: int) -> int:
    """Check a chunk, and return the bytes of its text.

    Raises:
        ValueError: An ancillary chunk is of no use, and why.
        OSError: A critical chunk is damaged; the file may have been cut off as well.
    """
    is_critical = chunk.kind[:1].isupper()
    if not is_critical and chunk.size_bytes > _TEXTS_MAX:
        raise ValueError(f"it is larger than {_TEXTS_MAX >> 20} MB")
    if not chunk.is_sound(file):
        if is_critical:
            raise OSError(f"the checksum of its PNG chunk {chunk.kind.decode('ascii')} is wrong")
        raise ValueError("its checksum is wrong")
    if chunk.kind in _COLORS and (is_repeated or is_late):
        raise ValueError("it stands there twice" if is_repeated else "it follows the pixels")
    least, most = _SIZES.get(chunk.kind, (0, chunk.size_bytes))
    if not least <= chunk.size_bytes <= most:
        raise ValueError(f"it is too {'short' if chunk.size_bytes < least else 'long'}")
    if chunk.kind not in _PACKED and chunk.kind not in TEXTS:
        return 0
    if texts_bytes + max(_TEXT_MAX, chunk.size_bytes) > _TEXTS_MAX:
        raise ValueError(f"with it there may be more than {_TEXTS_MAX >> 20} MB of texts")
    data = chunk.data(file)
    if chunk.kind in TEXTS and data.partition(b"\0")[0] in _OF_PILLOW:
        raise ValueError("its keyword is none of a text")
    return _unpacked_bytes(chunk.kind, data) if chunk.kind in _PACKED else chunk.size_bytes


def _unpacked_bytes(kind: bytes, data: bytes) -> int:
    """Return the size of a profile or text once unpacked (PNG 3, 11.3.2.3 and 11.3.3)."""
    name, _, rest = data.partition(b"\0")
    if len(rest) < 2:
        raise ValueError("it is too short")
    if kind == b"iTXt" and not rest[0]:
        return len(data)
    method, packed = (rest[1], rest[2:].split(b"\0", 2)[-1]) if kind == b"iTXt" else (rest[0], rest[1:])
    if method:
        raise ValueError(f"its compression method {method} is unknown")
    unpacking = zlib.decompressobj()
    try:
        size_bytes = len(name) + len(unpacking.decompress(packed, _TEXT_MAX))
    except zlib.error:
        raise ValueError("it cannot be unpacked") from None
    if unpacking.unconsumed_tail:
        raise ValueError(f"it is larger than {_TEXT_MAX >> 20} MB once unpacked")
    return size_bytes
