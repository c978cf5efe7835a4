"""How a file name, which may be any bytes, is shown to a person and written into JSON."""

from __future__ import annotations

import base64


def shown(path: bytes) -> str:
    """A path on one line: what is not UTF-8 or not printable is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_json(source: bytes) -> dict[str, str]:
    """The key `source`, and `source_b64` beside it where JSON cannot hold the name itself."""
    try:
        return {"source": source.decode("utf-8")}
    except UnicodeDecodeError:
        return {"source": source.decode("utf-8", "backslashreplace"), "source_b64": base64.b64encode(source).decode()}
