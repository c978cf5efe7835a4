"""Reads PNG as its standard says (PNG, third edition): the colours it names, and pixels whatever is wrong beside them.

Pillow's reader is given a file without the ancillary chunks that are damaged or misplaced, and with an ICC profile for
colours that are named by numbers (cICP, gAMA, cHRM). A file that has neither is given as it is.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, reduce
from itertools import islice
from typing import IO, NamedTuple

from PIL import Image, ImageChops, PngImagePlugin

from pipeline.errors import Unreadable
from pipeline.images.encodings import (
    PRIMARIES,
    Curve,
    build_profile,
    note_tone_mapping,
    numbered_profile,
    power,
    srgb_curve,
)
from pipeline.notes import note

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour types (PNG 3, table 8).
_GREY, _RGB, _PALETTE, _GREY_ALPHA = 0, 2, 3, 4
_HEAD = struct.Struct(">I4s")
_PIXELS = (b"IDAT", b"fdAT")
# Chunks of an animation: without one of them the others make no sense.
_ANIMATION = (b"acTL", b"fcTL")
# Chunks that stand once, and before the pixels (PNG 3, 5.6), with the bytes that they have at least.
_COLORS = {b"tRNS": 1, b"cICP": 4, b"iCCP": 3, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_PACKED = (b"iCCP", b"zTXt", b"iTXt")
# Texts that may say how the picture is turned.
_TEXTS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
# Bytes of a text or a profile once unpacked, and of all of them: above these Pillow refuses the file.
_TEXT_MAX, _TEXTS_MAX = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
# Chunks of the largest pictures, which are often of 8 KiB each; each costs a microsecond and 200 bytes.
_CHUNKS_MAX = 250_000
# Bytes whose checksum is computed at a time.
_BLOCK = 1 << 20
# How far a gamma and a coordinate may be off and be meant to be sRGB's: 0.45 is, and libpng allows as much for the
# other. Then the gammas that a display may have had.
_SRGB_GAMMA, _GAMMA_SLACK, _XY_SLACK = 0.45455, 0.005, 0.01
_GAMMAS = (0.1, 10)


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
        return self.begin + 12 + self.size_bytes

    def data(self, file: IO[bytes]) -> bytes:
        """Read its data."""
        file.seek(self.begin + 8)
        return file.read(self.size_bytes)

    def is_sound(self, file: IO[bytes]) -> bool:
        """Return whether its checksum is right."""
        checksum, left = zlib.crc32(self.kind), self.size_bytes
        file.seek(self.begin + 8)
        while left:
            block = file.read(min(left, _BLOCK))
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        return file.read(4) == struct.pack(">I", checksum)


class PngFile(PngImagePlugin.PngImageFile):
    """A PNG in which one 16-bit colour may be transparent, and whose 16-bit greys with alpha are greys."""

    transparent16: tuple[int, int, int] | None = None
    """The red, green and blue, of 16 bits, of the pixels that are transparent."""
    text_follows = False
    """Whether EXIF or XMP may follow the pixels (PNG 3, 5.6), where Pillow reads them with the pixels."""

    def _open(self) -> None:
        super()._open()
        self._stored = self.tile[0]

    def load_end(self) -> None:
        super().load_end()
        if self.transparent16:
            self.putalpha(self._alpha16(self.transparent16))
        elif self._stored.args == "LA;16B" and not self.is_animated:  # which Pillow reads as RGBA
            self._im, self._mode = self.im.convert("LA", 0), "LA"

    def _alpha16(self, color: tuple[int, int, int]) -> Image.Image:
        """Return the alpha of pixels of which one colour is transparent; their low bytes are decoded once more."""
        assert self.fp is not None
        self.fp.seek(0)
        low = PngImagePlugin.PngImageFile(self.fp)
        low.tile = [self._stored._replace(args="RGB;16L")]
        bands = [*zip(self.split(), [value >> 8 for value in color], strict=True),
                 *zip(low.split(), [value & 255 for value in color], strict=True)]  # fmt: skip
        differs = (band.point([255 * (level != value) for level in range(256)]) for band, value in bands)
        return reduce(ImageChops.lighter, differs)


def open_png(file: IO[bytes], filename: str | bytes = "") -> PngFile:
    """Open a PNG; what is left out of it is noted.

    Raises:
        Unreadable: A chunk without which its pixels have no meaning is damaged or missing.
        SyntaxError: Pillow's reader cannot make sense of it.
    """
    chunks = list(islice(walk(file), _CHUNKS_MAX + 1))
    if len(chunks) > _CHUNKS_MAX:
        raise Unreadable(f"too large: a PNG of more than {_CHUNKS_MAX:,} chunks")
    kinds = {chunk.kind for chunk in chunks}
    if b"IDAT" not in kinds or chunks[0].kind != b"IHDR" or chunks[0].size_bytes < 13:
        file.seek(0)
        return PngFile(file, filename)  # which says what is wrong
    depth, color_type = struct.unpack(">8xBB", chunks[0].data(file)[:10])
    amended, sound = _left_out(file, chunks)
    if color_type == _PALETTE:
        amended |= _palette(sound)
    amended |= _colors(file, sound, color_type)
    replaced, transparent16 = _transparency(file, sound.get(b"tRNS"), depth, color_type)
    amended |= replaced
    if transparent16 and b"acTL" in kinds:
        raise Unreadable("unsupported: an animated PNG with 16 bits a channel and a transparent colour")
    rewritten = _rewritten(file, amended)
    image = PngFile(rewritten, filename)
    image.transparent16 = transparent16
    image.text_follows = _text_follows([chunk.kind for chunk in chunks if amended.get(chunk) != b""])
    if rewritten is not file:
        file.close()
    return image


def walk(file: IO[bytes]) -> Iterator[Chunk]:
    """Yield the chunks of a PNG, up to its end, or to the first that is none or is cut off; pixels may be."""
    size_bytes = file.seek(0, io.SEEK_END)
    read_head = _head_reader(file)
    begin, kind = len(SIGNATURE), b""
    while begin + 12 <= size_bytes and kind != b"IEND":
        length, kind = _HEAD.unpack(read_head(begin))
        if not kind.isalpha() or (begin + 12 + length > size_bytes and kind not in _PIXELS):
            return
        yield Chunk(kind, begin, length)
        begin += 12 + length


def _head_reader(file: IO[bytes]) -> Callable[[int], bytes]:
    """Return a function that reads 8 bytes at an offset; of a file on disk no more than these, as its buffer would."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
        descriptor = file.fileno()
        return lambda begin: os.pread(descriptor, 8, begin)

    def read_head(begin: int) -> bytes:
        file.seek(begin)
        return file.read(8)

    return read_head


def has_text_after_pixels(image: Image.Image) -> bool:
    """Return whether the EXIF or XMP of a PNG may follow its pixels; also of one that a stage opened."""
    if isinstance(image, PngFile):
        return image.text_follows
    file: IO[bytes] | None = getattr(image, "fp", None)
    if not file:  # it is decoded already
        return False
    here = file.tell()
    text_follows = _text_follows([chunk.kind for chunk in walk(file)])
    file.seek(here)
    return text_follows


def _text_follows(kinds: Sequence[bytes]) -> bool:
    return b"IDAT" in kinds and not set(kinds[kinds.index(b"IDAT") :]).isdisjoint(_TEXTS)


def _note_left_out(chunk: Chunk, why: str) -> None:
    note("damage beside its pixels: left out", f"PNG chunk {chunk.kind.decode('ascii')}: {why}")


def _rewritten(file: IO[bytes], amended: dict[Chunk, bytes]) -> IO[bytes]:
    """Return a file with other bytes in place of some chunks, or the file itself if there are none; both rewound."""
    if not amended:
        file.seek(0)
        return file
    whole, at = io.BytesIO(), 0
    for chunk in sorted(amended, key=lambda chunk: chunk.begin):
        file.seek(at)
        whole.write(file.read(chunk.begin - at) + amended[chunk])
        at = chunk.end
    file.seek(at)
    whole.write(file.read())
    whole.seek(0)
    return whole


def _encoded(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# -- what may be wrong beside the pixels -------------------------------------------------------------------------------


def _left_out(file: IO[bytes], chunks: Sequence[Chunk]) -> tuple[dict[Chunk, bytes], dict[bytes, Chunk]]:
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
            _note_left_out(chunk, str(error))
            amended[chunk] = b""
            texts_bytes += _TEXT_MAX if chunk.kind in _PACKED else 0  # so much may have been unpacked
        else:
            sound[chunk.kind] = chunk
    if not all(chunk.is_sound(file) for chunk in chunks if chunk.kind in _ANIMATION):
        note("its animation is damaged: left out")
        amended |= {chunk: b"" for chunk in chunks if chunk.kind in (*_ANIMATION, b"fdAT")}
    return amended, sound


def _check(file: IO[bytes], chunk: Chunk, is_repeated: bool, is_late: bool, texts_bytes: int) -> int:
    """Check a chunk, and return the bytes of its text.

    Raises:
        ValueError: An ancillary chunk is of no use, and why.
        Unreadable: A critical chunk is damaged.
    """
    is_critical = chunk.kind[:1].isupper()
    if not is_critical and chunk.size_bytes > _TEXTS_MAX:
        raise ValueError(f"it is larger than {_TEXTS_MAX >> 20} MB")
    if not chunk.is_sound(file):
        if is_critical:
            raise Unreadable(f"damaged picture: the checksum of its PNG chunk {chunk.kind.decode('ascii')} is wrong")
        raise ValueError("its checksum is wrong")
    if chunk.kind in _COLORS and (is_repeated or is_late):
        raise ValueError("it stands there twice" if is_repeated else "it follows the pixels")
    if chunk.size_bytes < _COLORS.get(chunk.kind, 0):
        raise ValueError("it is too short")
    if chunk.kind not in _PACKED and chunk.kind not in _TEXTS:
        return 0
    if texts_bytes + max(_TEXT_MAX, chunk.size_bytes) > _TEXTS_MAX:
        raise ValueError(f"with it there may be more than {_TEXTS_MAX >> 20} MB of texts")
    return _unpacked_bytes(chunk.kind, chunk.data(file)) if chunk.kind in _PACKED else chunk.size_bytes


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


def _palette(sound: dict[bytes, Chunk]) -> dict[Chunk, bytes]:
    """Check that there is a palette, and leave out the transparency of colours that it has not."""
    palette, transparency = sound.get(b"PLTE"), sound.get(b"tRNS")
    if palette is None or palette.size_bytes % 3 or not 0 < palette.size_bytes <= 768:
        raise Unreadable("damaged picture: its palette is missing, or has a wrong number of colours")
    if transparency is None or 3 * transparency.size_bytes <= palette.size_bytes:
        return {}
    _note_left_out(sound.pop(b"tRNS"), "it has more entries than the palette")
    return {transparency: b""}


def _transparency(
    file: IO[bytes], chunk: Chunk | None, depth: int, color_type: int
) -> tuple[dict[Chunk, bytes], tuple[int, int, int] | None]:
    """Return what is to be read in place of a tRNS chunk, and a transparent colour that Pillow cannot compare.

    Only the bits of a sample count (PNG 3, 11.3.1.1). Pillow compares greys of 2 and 4 bits once they have 8.
    """
    if chunk is None or color_type not in (_GREY, _RGB):
        return {}, None
    data, count = chunk.data(file), 1 if color_type == _GREY else 3
    if len(data) < 2 * count:
        _note_left_out(chunk, "it is too short")
        return {chunk: b""}, None
    values = [value & ((1 << depth) - 1) for value in struct.unpack(f">{count}H", data[: 2 * count])]
    if (depth, color_type) == (16, _RGB):
        return {chunk: b""}, (values[0], values[1], values[2])
    scale = {2: 85, 4: 17}.get(depth, 1)
    scaled = struct.pack(f">{count}H", *(scale * value for value in values))
    return ({} if scaled == data else {chunk: _encoded(b"tRNS", scaled)}), None


# -- colours -----------------------------------------------------------------------------------------------------------


def _colors(file: IO[bytes], sound: dict[bytes, Chunk], color_type: int) -> dict[Chunk, bytes]:
    """Return the chunks to replace so that an ICC profile names the colours: by cICP, iCCP, sRGB, or gAMA and cHRM.

    The first of them that is there counts (PNG 3, table 18). Nothing is replaced where the colours are sRGB, or have
    a profile already.
    """
    grey = color_type in (_GREY, _GREY_ALPHA)
    named = {kind: sound[kind].data(file) for kind in (b"cICP", b"gAMA", b"cHRM") if kind in sound}
    if b"cICP" in named:
        try:
            profile = _profile_by_numbers(named[b"cICP"], grey)
        except ValueError as error:
            _note_left_out(sound[b"cICP"], str(error))
        else:
            unused = {sound[b"iCCP"]: b""} if b"iCCP" in sound else {}
            return unused | ({sound[b"cICP"]: profile} if profile else {})
    if b"iCCP" in sound or b"sRGB" in sound or not named.keys() & {b"gAMA", b"cHRM"}:
        return {}
    try:
        profile = _profile_by_gamma(named.get(b"gAMA", b"")[:4], named.get(b"cHRM", b"")[:32], grey)
    except ValueError as error:
        note("its colours cannot be told: read as sRGB", str(error))
        return {}
    return {sound[b"gAMA" if b"gAMA" in named else b"cHRM"]: profile} if profile else {}


def _profile_by_numbers(numbers: bytes, grey: bool) -> bytes:
    """Return the iCCP chunk for a cICP chunk (PNG 3, 11.3.2.6); an empty one for sRGB."""
    primaries, transfer, matrix, full_range = numbers[:4]
    if matrix:
        raise ValueError(f"its matrix is {matrix}, not 0")
    profile = numbered_profile(primaries, transfer, grey=grey, full_range=bool(full_range))
    note_tone_mapping(transfer)
    return _encoded(b"iCCP", b"cICP\0\0" + zlib.compress(profile)) if profile else b""


@lru_cache(maxsize=16)
def _profile_by_gamma(gamma: bytes, chromaticities: bytes, grey: bool) -> bytes:
    """Return the iCCP chunk for a gAMA and a cHRM chunk, of which one may be empty; an empty one for sRGB.

    Without chromaticities they are those of sRGB, and without gamma the curve is that of sRGB. So it is with a gamma of
    1/2.2 and sRGB's chromaticities, or none, by which sRGB is meant (PNG 3, 11.3.2.5).
    """
    curve: Curve = srgb_curve
    primaries = PRIMARIES[1]
    if chromaticities and not grey:
        stored = tuple(value / 100_000 for value in struct.unpack(">8i", chromaticities))
        near = max(abs(a - b) for a, b in zip(stored, primaries, strict=True)) <= _XY_SLACK
        primaries = primaries if near else stored
    if gamma:
        value = int.from_bytes(gamma) / 100_000
        if not _GAMMAS[0] <= value <= _GAMMAS[1]:
            raise ValueError(f"gamma {value:g}")
        is_srgb = primaries is PRIMARIES[1] and abs(value - _SRGB_GAMMA) <= _GAMMA_SLACK
        curve = srgb_curve if is_srgb else power(1 / value)
    if curve is srgb_curve and primaries is PRIMARIES[1]:
        return b""
    return _encoded(b"iCCP", b"gAMA\0\0" + zlib.compress(build_profile(primaries, curve, grey)))
