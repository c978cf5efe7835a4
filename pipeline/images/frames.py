"""Composes the frames of animations on their canvas, by the rules of their formats and as browsers do.

What no frame covers is clear, and so is what a frame leaves that is disposed of to the background. Pillow decodes each
frame of a GIF or PNG alone, as a file of its own; it knows no clear canvas, and composes palettes by their indices.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import IO, Any

from PIL import Image, ImageFile

from pipeline.errors import Unreadable
from pipeline.images import Size, refuse_if_too_large
from pipeline.images.color import to_plain
from pipeline.records import dataclass

# What becomes of a frame when the next is due (GIF89a, 23.c.iv; 4 is what some encoders write for 3).
_KEEP, _CLEAR, _RESTORE = 1, 2, 3
_GIF_DISPOSALS = {2: _CLEAR, 3: _RESTORE, 4: _RESTORE}
_PNG_DISPOSALS = {0: _KEEP, 1: _CLEAR, 2: _RESTORE}
# Frames in a file: each costs a third of a millisecond however small it is, which its number of pixels does not say.
_MOST_FRAMES = 10_000
# Rows of a frame that are laid on the canvas at a time, since it takes four times their memory meanwhile.
_ROWS = 256
# Bytes before a PNG's first chunk, and the chunks that all its frames need to be decoded.
_SIGNATURE, _SHARED = 8, (b"IHDR", b"PLTE", b"tRNS")
# What Pillow's reader of the file says of its first frame alone.
_OF_THE_FIRST = ("transparency", "background", "bbox", "disposal", "blend")


@dataclass(frozen=True)
class _Frame:
    """A frame, and its place on the canvas."""

    at: tuple[int, int]
    size: Size
    duration_ms: float
    disposal: int
    is_laid_over: bool
    """True if its transparent pixels show what was there; False if they take its place."""
    read: Callable[[Size], Image.Image]
    """Decodes the part of this size at its left top, to mode L, LA, RGB or RGBA."""


_Finder = Callable[[ImageFile.ImageFile, IO[bytes]], Iterator[_Frame]]


def with_composed_frames(opened: Image.Image) -> Image.Image:
    """Return a GIF, or a PNG or WebP that moves, as Pillow opened it with its frames composed; others as they are."""
    if isinstance(opened, ImageFile.ImageFile) and opened.fp:
        if opened.format == "GIF":
            return _Composed(opened, opened.fp, _frames_of_gif)
        if opened.format in _MOVING and getattr(opened, "is_animated", False):
            return _Composed(opened, opened.fp, _MOVING[opened.format])
    return opened


class _Composed(Image.Image):
    """An image with frames, to be used as Pillow's own: `seek` to one, and `load` it."""

    def __init__(self, opened: ImageFile.ImageFile, file: IO[bytes], find: _Finder) -> None:
        super().__init__()
        self.format, self._mode, self._size = opened.format, opened.mode, opened.size
        self.default_image: bool = getattr(opened, "default_image", False)
        self._opened, self.fp, self._find = opened, file, find
        self._wanted, self._shown = opened.tell(), -1
        self._take_info()

    def _take_info(self) -> None:
        self.info = {key: value for key, value in self._opened.info.items() if key not in _OF_THE_FIRST}

    @cached_property
    def n_frames(self) -> int:
        """The number of frames; of a PNG the number that it promises, which is no reason to refuse its first."""
        if self.format == "GIF":
            return sum(1 for _ in self._find(self._opened, self.fp))
        frames = int(getattr(self._opened, "n_frames", 1))
        if self.format != "PNG":  # whose frames are counted as they are found
            _refuse_many(frames)
        return frames

    def seek(self, frame: int) -> None:
        self._wanted = frame

    def tell(self) -> int:
        return self._wanted

    def load(self) -> Any:
        if self._wanted < self._shown or self._shown < 0:
            self._coming, self._shown = self._compose(), -1
        while self._shown < self._wanted:
            self._im = None  # before the next takes as much
            image = next(self._coming, None)
            if image is None:
                raise EOFError("it has fewer frames than it says")
            self._shown += 1
            self._im, self._mode = image.im, image.mode
        return super().load()

    def _compose(self) -> Iterator[Image.Image]:
        """Yield the canvas as each frame leaves it, having put the frame's duration into `info`."""
        canvas: Image.Image | None = None
        for number, frame in enumerate(self._find(self._opened, self.fp)):
            shown = self._drawn(frame, canvas)
            self._take_info()
            self.info["duration"] = frame.duration_ms
            yield _without_needless_alpha(shown)
            if number == 0 and self.default_image:
                continue  # it is for programs that know no animation
            if frame.disposal == _KEEP:
                canvas = shown
            elif frame.disposal == _CLEAR:
                canvas = shown.convert("RGBA")
                canvas.paste((0, 0, 0, 0), (*frame.at, *_end(frame)))
            del shown, frame  # which the next would be beside in memory

    def _drawn(self, frame: _Frame, canvas: Image.Image | None) -> Image.Image:
        """Draw a frame on the canvas, which is clear where there is none yet."""
        if not all(frame.size) or frame.at[0] >= self.width or frame.at[1] >= self.height:
            return canvas or Image.new("RGBA", self.size)
        refuse_if_too_large(frame.size)
        seen = (min(frame.size[0], self.width - frame.at[0]), min(frame.size[1], self.height - frame.at[1]))
        picture = frame.read(seen)
        if seen == self.size and (picture.mode in ("L", "RGB") or not frame.is_laid_over):
            return picture
        drawn = canvas.convert("RGBA") if canvas else Image.new("RGBA", self.size)
        for top in range(0, picture.height, _ROWS):
            part = picture.crop((0, top, picture.width, min(picture.height, top + _ROWS))).convert("RGBA")
            lay = drawn.alpha_composite if frame.is_laid_over else drawn.paste
            lay(part, (frame.at[0], frame.at[1] + top))
        return drawn

    def close(self) -> None:
        """Close the file."""
        self._opened.close()
        super().close()


def _end(frame: _Frame) -> tuple[int, int]:
    return frame.at[0] + frame.size[0], frame.at[1] + frame.size[1]


def _without_needless_alpha(image: Image.Image) -> Image.Image:
    is_opaque = image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)
    return image.convert("RGB") if is_opaque else image


def _refuse_many(frames: int) -> None:
    if frames > _MOST_FRAMES:
        raise Unreadable(f"too large: an animation of more than {_MOST_FRAMES} frames, which is the limit")


def _decoded(data: bytes, name: str, seen: Size) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=(name,)) as image:
        return to_plain(image if image.size == seen else image.crop((0, 0, *seen)))


# -- GIF (GIF89a) ------------------------------------------------------------------------------------------------------


def _frames_of_gif(_opened: ImageFile.ImageFile, file: IO[bytes]) -> Iterator[_Frame]:
    """Find the frames of a GIF. Raises EOFError if it ends within the description of one."""
    control, found = bytes(4), 0
    file.seek(6)  # after its name and version
    palette = _palette(file, _exactly(file, 7)[4])
    while (kind := file.read(1)) not in (b"", b";"):
        if kind == b"!":
            is_control = file.read(1) == b"\xf9"
            block = _block(file)
            if is_control and len(block) >= 4:
                control = block
            while block:
                block = _block(file)
        elif kind == b",":
            left, top, width, height, flags = struct.unpack("<4HB", _exactly(file, 9))
            own = _palette(file, flags)
            start = file.tell()
            file.seek(1, io.SEEK_CUR)  # the size of the codes
            while _block(file):
                pass
            end = file.tell()
            found += 1
            _refuse_many(found)
            yield _Frame(
                (left, top), (width, height), 10.0 * int.from_bytes(control[1:3], "little"),
                _GIF_DISPOSALS.get(control[0] >> 2 & 7, _KEEP), True,
                _GifReader(file, start, end, (width, height), flags & 0x40, own or palette, control),
            )  # fmt: skip
            file.seek(end)
            control = bytes(4)


@dataclass(frozen=True)
class _GifReader:
    """Decodes a frame of a GIF from its part of the file."""

    file: IO[bytes]
    start: int
    end: int
    size: Size
    interlacing: int
    palette: bytes
    control: bytes

    def __call__(self, seen: Size) -> Image.Image:
        """Return the frame as a GIF of its own is decoded, whose screen it fills."""
        self.file.seek(self.start)
        pixels = self.file.read(self.end - self.start)
        bits = (len(self.palette) // 3).bit_length() - 2
        screen = struct.pack("<2H3B", *self.size, 0x80 | bits if self.palette else 0, 0, 0) + self.palette
        control = b"!\xf9\4" + bytes([self.control[0] & 1]) + self.control[1:4] + b"\0"
        frame = b"," + struct.pack("<4HB", 0, 0, *self.size, self.interlacing)
        return _decoded(b"GIF89a" + screen + control + frame + pixels + b";", "GIF", seen)


def _exactly(file: IO[bytes], size_bytes: int) -> bytes:
    data = file.read(size_bytes)
    if len(data) < size_bytes:
        raise EOFError("it ends within the description of a frame")
    return data


def _palette(file: IO[bytes], flags: int) -> bytes:
    """Read the palette that follows, if the flags say that one does."""
    return _exactly(file, 3 << (flags & 7) + 1) if flags & 0x80 else b""


def _block(file: IO[bytes]) -> bytes:
    """Read a block of up to 255 bytes; the last one, and one that is not there, is empty."""
    size_bytes = file.read(1)
    return file.read(size_bytes[0]) if size_bytes else b""


# -- PNG (third edition, 11.3.6) ---------------------------------------------------------------------------------------


def _frames_of_png(opened: ImageFile.ImageFile, file: IO[bytes]) -> Iterator[_Frame]:
    """Find the frames of an animated PNG. Raises SyntaxError for one that is against the rules."""

    def read_first(_seen: Size) -> Image.Image:
        opened.seek(0)
        return to_plain(opened)

    head: dict[bytes, bytes] = {}
    waiting: _Frame | None = None
    pixels: list[bytes] = []
    if has_first := bool(getattr(opened, "default_image", False)):
        yield _Frame((0, 0), opened.size, 0.0, _KEEP, False, read_first)
    for sequence, (kind, body) in enumerate(_chunks_of_frames(file, head)):
        if int.from_bytes(body[:4]) != sequence:
            raise SyntaxError("the chunks of its frames are out of order")
        if kind == b"fdAT":
            pixels.append(body[4:])
            continue
        if waiting:
            yield waiting
        pixels = []
        waiting = _described(body, opened.size, head, pixels)
        if not has_first:
            yield replace(waiting, read=read_first)
            has_first, waiting = True, None
    if waiting:
        yield waiting


def _chunks_of_frames(file: IO[bytes], head: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks that describe frames or have their pixels; put what all frames share into `head`."""
    at, found = _SIGNATURE, 0
    while True:
        file.seek(at)
        start = file.read(8)
        size_bytes, kind = struct.unpack(">I4s", start) if len(start) == 8 else (0, b"IEND")
        if kind == b"IEND":
            return
        at += size_bytes + 12
        if kind in _SHARED:
            head[kind] = _exactly(file, size_bytes)
        elif kind in (b"fcTL", b"fdAT"):
            body = _exactly(file, size_bytes)
            if _exactly(file, 4) != struct.pack(">I", zlib.crc32(kind + body)):
                raise SyntaxError(f"bad checksum in {kind.decode()}")
            found += kind == b"fcTL"
            _refuse_many(found)
            yield kind, body


def _described(control: bytes, canvas: Size, head: dict[bytes, bytes], pixels: list[bytes]) -> _Frame:
    if len(control) < 26:
        raise SyntaxError("the description of a frame is too short")
    width, height, left, top, delay, unit, disposal, blend = struct.unpack_from(">4I2H2B", control, 4)
    if not (width and height) or left + width > canvas[0] or top + height > canvas[1]:
        raise SyntaxError(f"a frame of {width}x{height} at {left}, {top} does not lie in its canvas")
    disposal, read = _PNG_DISPOSALS.get(disposal, _KEEP), _PngReader(head, (width, height), pixels)
    return _Frame((left, top), (width, height), 1000 * delay / (unit or 100), disposal, blend == 1, read)


@dataclass(frozen=True)
class _PngReader:
    """Decodes a frame of an animated PNG from its chunks."""

    head: dict[bytes, bytes]
    size: Size
    pixels: list[bytes]

    def __call__(self, seen: Size) -> Image.Image:
        """Return the frame as a PNG of its own is decoded, with the palette and the transparency that all share."""
        header = struct.pack(">2I", *self.size) + self.head[b"IHDR"][8:]
        shared = [(kind, self.head[kind]) for kind in _SHARED[1:] if kind in self.head]
        chunks = [(b"IHDR", header), *shared, *((b"IDAT", part) for part in self.pixels), (b"IEND", b"")]
        return _decoded(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks), "PNG", seen)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# -- WebP --------------------------------------------------------------------------------------------------------------


def _frames_of_webp(opened: ImageFile.ImageFile, _file: IO[bytes]) -> Iterator[_Frame]:
    """Yield the frames as libwebp composes them, with their alpha: the header says only whether the frames have any.

    Nothing of them has to be left for the next.
    """
    opened.rawmode = opened._mode = "RGBA"  # type: ignore[attr-defined]
    for number in range(opened.n_frames):  # type: ignore[attr-defined]
        opened.seek(number)
        opened.load()
        read = partial(_whole, opened._new(opened.im))
        opened._im = None  # which is the frame's now, not copied
        yield _Frame((0, 0), opened.size, opened.info["duration"], _RESTORE, False, read)
        del read


def _whole(image: Image.Image, _seen: Size) -> Image.Image:
    return image


_MOVING: dict[str, _Finder] = {"PNG": _frames_of_png, "WEBP": _frames_of_webp}
