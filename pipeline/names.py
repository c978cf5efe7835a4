"""How a file name, which may be any bytes, and a text of somebody else's are shown to a person and put into JSON."""

from __future__ import annotations

import base64


def shown(path: bytes) -> str:
    """A path on one line: what is not UTF-8 or not printable is escaped."""
    return _escaped(path.decode("utf-8", "backslashreplace"))


def one_line(text: str, most: int = 500) -> str:
    """A text of somebody else's as one line that a terminal cannot be harmed by, and that does not fill it."""
    line = _escaped(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def indented(text: str) -> str:
    """A text of somebody else's, set off from our own."""
    return "\n".join(f"    {_escaped(line)}" for line in text.expandtabs().splitlines())


def _escaped(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_json(source: bytes) -> dict[str, str]:
    """The key `source`, and `source_b64` beside it where JSON cannot hold the name itself."""
    try:
        return {"source": source.decode("utf-8")}
    except UnicodeDecodeError:
        return {"source": source.decode("utf-8", "backslashreplace"), "source_b64": base64.b64encode(source).decode()}
