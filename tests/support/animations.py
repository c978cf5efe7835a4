"""Animations that tests make and read."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy
from PIL import Image, ImageDraw

from support.pictures import encode


def scenes(count: int = 4, size: tuple[int, int] = (60, 40), *, clear: bool = False) -> list[Image.Image]:
    """Return frames of a moving disc; with `clear` the pixels that it leaves become transparent again."""
    frames = []
    for index in range(count):
        frame = Image.new("RGBA", size, (0, 0, 0, 0) if clear else (250, 240, 200, 255))
        colour = (50 * index % 256, 80, 255 - 40 * index, 255)
        ImageDraw.Draw(frame).ellipse((10 * index, 10, 10 * index + 19, 29), fill=colour)
        frames.append(frame)
    return frames


def moving(frames: list[Image.Image], name: str, **options: Any) -> bytes:
    exact = {"lossless": True} if name == "WEBP" else {"quality": 100} if name == "AVIF" else {}
    return encode(frames[0], name, save_all=True, append_images=frames[1:], **({"duration": 50} | exact | options))


def seen(data: bytes) -> list[Image.Image]:
    """Return every frame of an animation as a viewer shows it."""
    if data.startswith(b"GIF8"):
        return _seen_of_gif(data)
    image = Image.open(io.BytesIO(data))
    frames = []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        frames.append(image.convert("RGBA"))
    return frames


def _seen_of_gif(data: bytes) -> list[Image.Image]:
    """Return the frames of a GIF by the letter of GIF89a, with a clear canvas, and without Pillow."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, shared = _palette_at(data, 13, flags)
    canvas = numpy.zeros((height, width, 4), numpy.uint8)
    frames, disposal, clear = [], 0, None
    while data[at : at + 1] not in (b"", b";"):
        kind = data[at]
        if kind == 0x21:
            if data[at + 1] == 0xF9:
                disposal, clear = data[at + 3] >> 2 & 7, data[at + 6] if data[at + 3] & 1 else None
            at, _ = _unblocked(data, at + 2)
            continue
        left, top, across, down, flags = struct.unpack_from("<4HB", data, at + 1)
        at, own = _palette_at(data, at + 10, flags)
        bits = data[at]
        at, packed = _unblocked(data, at + 1)
        rows = numpy.array(_unpacked(packed, bits)[: across * down]).reshape(down, across)
        if flags & 0x40:
            order = [*range(0, down, 8), *range(4, down, 8), *range(2, down, 4), *range(1, down, 2)]
            rows = rows[numpy.argsort(order)]
        palette = (own or shared).ljust(3 * 256, b"\0")
        colors = numpy.array([[*palette[each : each + 3], 255] for each in range(0, 3 * 256, 3)], numpy.uint8)
        before = canvas.copy()
        place = canvas[top : top + down, left : left + across]
        rows = rows[: place.shape[0], : place.shape[1]]
        is_drawn = rows != (-1 if clear is None else clear)
        place[is_drawn] = colors[rows][is_drawn]
        frames.append(Image.fromarray(canvas.copy()))
        if disposal == 2:
            place[:] = 0
        elif disposal == 3:
            canvas = before
        disposal, clear = 0, None
    return frames


def _palette_at(data: bytes, at: int, flags: int) -> tuple[int, bytes]:
    end = at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    return end, data[at:end]


def _unblocked(data: bytes, at: int) -> tuple[int, bytes]:
    joined = b""
    while data[at]:
        joined += data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return at + 1, joined


def _unpacked(packed: bytes, bits: int) -> list[int]:
    """Undo GIF's LZW, a code at a time."""
    whole, position = int.from_bytes(packed, "little"), 0
    pixels: list[int] = []
    table: list[list[int]] = []
    before: list[int] = []
    size = bits + 1
    while True:
        code = whole >> position & (1 << size) - 1
        position += size
        if code == 1 << bits:
            table, before, size = [[index] for index in range(1 << bits)] + [[], []], [], bits + 1
            continue
        if code == (1 << bits) + 1 or position > 8 * len(packed):
            return pixels
        entry = table[code] if code < len(table) else [*before, before[0]]
        pixels += entry
        if before and len(table) < 4096:
            table.append([*before, entry[0]])
        size = min(12, max(size, len(table).bit_length()))
        before = entry


def durations(data: bytes) -> list[int]:
    image = Image.open(io.BytesIO(data))
    found = []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        found.append(round(image.info.get("duration", 0)))
    return found


def plays(data: bytes) -> int:
    """Return how often an animation plays, 0 for ever; a GIF stores the repetitions, a WebP the plays."""
    image = Image.open(io.BytesIO(data))
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else 0 if loop == 0 else int(loop) + 1
    assert loop is not None
    return int(loop)


# A GIF written by hand: Pillow's writer would make every frame whole again. A frame is a box, a colour of the palette
# (0 white, 1 red, 2 green, 3 blue), how it is disposed of, and which colour is transparent.
Frame = tuple[tuple[int, int, int, int], int, int, "int | None"]


_PALETTE = b"\xff\xff\xff\xff\0\0\0\xff\0\0\0\xff"


def gif(screen: tuple[int, int], frames: list[Frame], *, loop: int | None = None, end: bytes = b";") -> bytes:
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x91, 0, 0) + _PALETTE
    if loop is not None:
        data += b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", loop) + b"\0"
    for box, colour, disposal, clear in frames:
        data += b"\x21\xf9\x04" + struct.pack("<BHB", disposal << 2 | (clear is not None), 10, clear or 0) + b"\0"
        data += b"," + struct.pack("<HHHHB", *box, 0) + b"\x02" + _in_blocks(_lzw(colour, box[2] * box[3])) + b"\0"
    return data + end


def _lzw(colour: int, pixels: int) -> bytes:
    """Compress pixels as codes of 3 bits; the table is cleared before every second pixel, so that codes never grow."""
    codes = [code for index in range(pixels) for code in ((4, colour) if index % 2 == 0 else (colour,))] + [5]
    whole = sum(code << 3 * index for index, code in enumerate(codes))
    return whole.to_bytes((3 * len(codes) + 7) // 8, "little")


def _in_blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
