"""Text for people: how names and reasons are shown, counted and put into JSON."""

from __future__ import annotations

import base64
import difflib
import os
import re
import sys
from collections.abc import Iterable


def shown(path: bytes) -> str:
    """A path on one line: what is not UTF-8 or not printable is escaped."""
    return _escaped(path.decode("utf-8", "backslashreplace"))


def one_line(text: str, most: int = 500) -> str:
    """A text of somebody else's as one line that a terminal cannot be harmed by, and that does not fill it."""
    line = _escaped(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def counted(number: int, noun: str) -> str:
    """So many of something: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def indented(text: str) -> str:
    """A text of somebody else's, set off from our own."""
    return "\n".join(f"    {_escaped(line)}" for line in text.expandtabs().splitlines())


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_json(path: bytes, key: str = "source") -> dict[str, str]:
    """The key with the path, and beside it `source_b64` or its like where JSON cannot hold the path itself."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {key: path.decode("utf-8", "backslashreplace"), f"{key}_b64": base64.b64encode(path).decode()}


# What particulars come after; and what is one wherever it stands: a quoted word that is no stage's name, or a number.
_BEFORE = re.compile(r"[:;,(]")
_PARTICULAR = re.compile(r"""(?<!stage\ )(?<!\w)(?:'[^']*'|"[^"]*")|\d[\w.]*""", re.VERBOSE)

NOT_OURS = "exists, not ours"
NO_FILE = "something that is no file stands in its place"


def in_general(text: str) -> str:
    """Return what an error or a skip says that files may have in common: the figures and names of one are left out."""
    head = _BEFORE.split(text, maxsplit=1)[0].strip()
    return _PARTICULAR.sub("...", head or text)


def program() -> str:
    """Return how the program was started, for messages that name a command: `filemill` or `python -m pipeline`."""
    return "filemill" if os.path.basename(sys.argv[0]) == "filemill" else "python -m pipeline"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to end a complaint with, if a known word is close."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
