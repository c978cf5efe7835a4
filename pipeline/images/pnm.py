"""Decodes the PBM, PGM and PPM that Pillow takes seconds for: as text, or with a maxval other than 255 and 65535.

Samples come with 8 bits: value / maxval * 255, rounded half up; those above maxval are white, or in a text an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from PIL import Image, ImageFile

# Rows of a binary file that are scaled at a time, and bytes of a text that are read at a time.
_ROWS, _TEXT_BYTES = 64, 1 << 20
# Digits of a sample, with room for leading zeros.
_LONGEST = 10
_COMMENT = re.compile(rb"#[^\r\n]*")


def with_fast_pnm(opened: Image.Image) -> Image.Image:
    """Return a PNM, as Pillow opened it, with a faster decoder in the place of Pillow's; any other image as it is."""
    tiles: list[ImageFile._Tile] = getattr(opened, "tile", [])
    if opened.format == "PPM" and tiles and tiles[0].codec_name in _DECODERS:
        opened._mode = {"I": "L"}.get(opened.mode, opened.mode)
        opened.tile = [tiles[0]._replace(codec_name=f"filemill_{tiles[0].codec_name}")]  # type: ignore[attr-defined]
    return opened


def _scaled(value: int, maxval: int) -> int:
    return min(255, (2 * 255 * value + maxval) // (2 * maxval))


@lru_cache(maxsize=2)
def _levels(maxval: int) -> list[int]:
    return [_scaled(value, maxval) for value in range(65_536)]


class _Decoder(ImageFile.PyDecoder):
    """A decoder as Pillow calls it, with a raw mode and, unless it is for PBM, the maxval as arguments."""

    _pulls_fd = True
    is_fast = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Set all pixels of the image from the file."""
        row_bytes, row, rest = self.state.xsize * len(self.mode), 0, b""
        for part in self.parts():
            samples = rest + part
            rows = min(len(samples) // row_bytes, self.state.ysize - row)
            self._set_rows(row, rows, samples[: rows * row_bytes])
            row, rest = row + rows, samples[rows * row_bytes :]
            if row == self.state.ysize:
                return -1, 0
        have, wanted = row * row_bytes + len(rest), self.state.ysize * row_bytes
        raise EOFError(f"it ends within its pixels: {have} of {wanted} samples")

    def _set_rows(self, row: int, rows: int, samples: bytes) -> None:
        """Set some rows of the image, so that the samples of all are never in memory together."""
        if rows:
            decoder = Image._getdecoder(self.mode, "raw", "1;8" if self.mode == "1" else self.mode)
            decoder.setimage(self.im, (0, row, self.state.xsize, row + rows))
            decoder.decode(samples)

    def parts(self) -> Iterator[bytes]:
        """Yield the samples, a byte each."""
        raise NotImplementedError


class _Binary(_Decoder):
    def parts(self) -> Iterator[bytes]:
        assert self.fd is not None
        maxval = self.args[1]
        row = self.state.xsize * len(self.mode)
        if maxval <= 255:
            table = bytes(_scaled(value, maxval) for value in range(256))
            while part := self.fd.read(_ROWS * row):
                yield part.translate(table)
            return
        levels = _levels(maxval)
        while len(part := self.fd.read(2 * _ROWS * row)) >= 2 * row:
            rows = len(part) // (2 * row)
            deep = Image.frombytes("I;16B", (row, rows), part[: 2 * rows * row])
            yield deep.convert("I").point(levels, "L").tobytes()


class _Text(_Decoder):
    def parts(self) -> Iterator[bytes]:
        if self.mode == "1":
            for words in self.words():
                digits = b"".join(words)
                if digits.strip(b"01"):
                    raise ValueError("a pixel is neither 0 nor 1")
                yield digits.translate(bytes.maketrans(b"01", b"\xff\x00"))
            return
        maxval = self.args[1]
        table = {b"%d" % value: _scaled(value, maxval) for value in range(maxval + 1)}
        for words in self.words():
            try:
                yield bytes(map(table.__getitem__, words))
            except KeyError:  # leading zeros, or an error
                yield bytes(self.sample(word, table) for word in words)

    def sample(self, word: bytes, table: dict[bytes, int]) -> int:
        """Return one sample that is not written as usual. Raises ValueError if it is none."""
        if not word.isdigit() or (value := b"%d" % int(word)) not in table:
            raise ValueError(f"{word.decode('latin-1')!r} is no sample from 0 to {self.args[1]}")
        return table[value]

    def words(self) -> Iterator[list[bytes]]:
        """Yield the words of the text, without comments, which end with their line."""
        assert self.fd is not None
        rest, more = b"", b" "
        while more:
            more = self.fd.read(_TEXT_BYTES)
            text, rest = rest + more, b""
            comment = text.rfind(b"#")
            if comment >= 0 and not re.search(rb"[\r\n]", text[comment:]):  # it goes on in the next part
                text, rest = text[:comment] + b" ", b"#"
            words = _COMMENT.sub(b" ", text).split()
            if more and not rest and words and not text[-1:].isspace():
                rest = words.pop()
                if self.mode == "1":
                    words, rest = [*words, rest], b""
                elif len(rest) > _LONGEST:
                    raise ValueError("a sample is too long")
            yield words


_DECODERS: dict[str, type[_Decoder]] = {"ppm": _Binary, "ppm_plain": _Text}
for _name, _decoder in _DECODERS.items():
    Image.register_decoder(f"filemill_{_name}", _decoder)
