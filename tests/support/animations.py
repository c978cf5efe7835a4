"""Animations that tests make and read."""

from __future__ import annotations

import io
import struct
from typing import Any

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
    image = Image.open(io.BytesIO(data))
    frames = []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        frames.append(image.convert("RGBA"))
    return frames


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
