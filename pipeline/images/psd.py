"""Reads PSD in parts, where Pillow has a whole channel of the file in memory, and a copy of it."""

from __future__ import annotations

from PIL import PsdImagePlugin

MAGIC = b"8BPS"
# Bytes that are read at a time.
_BLOCK = 1 << 20


class PsdFile(PsdImagePlugin.PsdImageFile):
    """A PSD file."""

    def load_read(self, read_bytes: int) -> bytes:
        """Read a part of what Pillow asks for, which goes on to ask while its decoder wants more."""
        assert self.fp is not None
        return self.fp.read(min(read_bytes, _BLOCK))
