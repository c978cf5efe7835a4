"""Brings texts to UTF-8 and to one kind of line ending: a stage over something other than pictures."""

from __future__ import annotations

import codecs
from typing import Literal

from pipeline import Unreadable

# Bumped when the same options give another text, so that the outputs are redone.
RECIPE = 1

# What a file begins with -> its encoding; UTF-32 first, since its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be", codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip


class Text:
    """Brings a text to UTF-8, without a byte order mark, and to one kind of line ending.

    `encoding` is what the text is in, by Python's name for it, such as `cp1252` or `shift_jis`. With `auto` a byte
    order mark of UTF-8, UTF-16 or UTF-32 decides; without one it is UTF-8. `fallback` is what a text is taken for that
    `auto` finds not to be UTF-8; without it such a text fails, as does what a named encoding cannot read: nothing is
    guessed, and no character is replaced.

    `newline` is how lines end: `lf` as on Unix, or `crlf` as on Windows. `strip_trailing` removes spaces and tabs at
    the ends of lines. `final_newline` ends the last line where it does not end yet.
    """

    def __init__(
        self,
        *,
        encoding: str = "auto",
        fallback: str | None = None,
        newline: Literal["lf", "crlf"] = "lf",
        strip_trailing: bool = False,
        final_newline: bool = False,
    ) -> None:
        self._encoding, self._fallback = encoding, fallback
        self._newline, self._strip, self._final = newline, strip_trailing, final_newline

    @staticmethod
    def check(*, encoding: str, fallback: str | None, **others: object) -> None:
        """Refuse encodings that Python does not know, when the pipeline is loaded. Raises ValueError."""
        if fallback is not None and encoding != "auto":
            raise ValueError("'fallback' is for encoding 'auto'; a named encoding is taken at its word")
        for name in {encoding, fallback} - {"auto", None}:
            try:
                "a".encode(str(name))
            except (LookupError, ValueError):
                raise ValueError(f"no text encoding {name!r}; Python knows utf-8, cp1252, shift_jis, ...") from None

    def __call__(self, data: bytes) -> str:
        text = self._decode(data).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        if self._strip:
            text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
        if self._final and text and not text.endswith("\n"):
            text += "\n"
        return text.replace("\n", "\r\n") if self._newline == "crlf" else text

    def _decode(self, data: bytes) -> str:
        if self._encoding != "auto":
            return decode(data, self._encoding)
        for mark, encoding in _MARKS.items():
            if data.startswith(mark):
                return decode(data, encoding)
        try:
            text = decode(data, "utf-8")
        except Unreadable as error:
            if self._fallback:
                return decode(data, self._fallback)
            raise Unreadable(f"{error.text}; say what it is with 'encoding', or with 'fallback'") from None
        if "\0" in text:  # as UTF-8 it would pass, and come out with a NUL after every letter
            raise Unreadable(f"no text: a NUL at offset {data.index(0)}; if it is UTF-16, say 'encoding: utf-16-le'")
        return text


def decode(data: bytes, encoding: str) -> str:
    """Decode all of a text. Raises `Unreadable` with the byte that does not belong there."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        # Some decoders leave the byte order mark out when they count.
        offset = error.start + len(data) - len(error.object)
        raise Unreadable(f"not {encoding.upper()}: byte 0x{data[offset]:02x} at offset {offset}") from None
