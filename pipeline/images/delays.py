"""Splits the duration of a frame into parts that a format can say, and writes them into a GIF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.errors import FileFailure
from pipeline.images.endings import gif_blocks

# GIF has 16 bits for hundredths of a second (GIF89a, 23.c.vii), WebP 24 bits for milliseconds (RFC 9649, 2.7.1.1).
_GIF_MOST, _WEBP_MOST = 0xFFFF, 0xFFFFFF
# Parts of one frame: 18 hours in a GIF. More would be damage, and take any amount of memory.
_MOST_PARTS = 100


def parts_in_webp(duration_ms: int) -> list[int]:
    """Return the durations with which a WebP shows a frame, one after the other, to show it for so long."""
    return _parts(duration_ms, _WEBP_MOST, "WEBP")


def with_delays(data: bytes, durations: Sequence[int]) -> bytes:
    """Return a GIF with the delays of its frames; one that is shown for longer than a delay can say is repeated.

    Pillow writes frames that are alike as one, and fails where their delays together exceed 16 bits.

    Args:
        data: A GIF as Pillow writes it, in which each delay says how many frames have become that one.
        durations: For how long each of the frames that Pillow was given is shown, in hundredths of a second.

    Raises:
        FileFailure: A frame is shown for longer than 18 hours.
    """
    written, at, taken = bytearray(), 0, 0
    for begin, end in _frames(data):
        written += data[at:begin]
        alike = int.from_bytes(data[begin + 4 : begin + 6], "little")
        for delay in _parts(sum(durations[taken : taken + alike]), _GIF_MOST, "GIF"):
            written += data[begin : begin + 4] + delay.to_bytes(2, "little") + data[begin + 6 : end]
        at, taken = end, taken + alike
    return bytes(written + data[at:])


def _parts(duration: int, most: int, name: str) -> list[int]:
    """Return a duration as parts of at most `most`, which are even: a viewer may not show a short rest as such."""
    count = max(1, -(-duration // most))
    if count > _MOST_PARTS:
        raise FileFailure(f"cannot be written as {name}: a frame lasts longer than {_MOST_PARTS} frames can")
    return [duration * (part + 1) // count - duration * part // count for part in range(count)]


def _frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of each frame of a GIF that Pillow wrote, from its graphic control extension on."""
    control = 0
    for label, begin, end in gif_blocks(data):
        if label == b"!\xf9":
            control = begin
        elif label == b",":
            yield control, end
