"""File names that programs stumble over."""

from __future__ import annotations

import base64

ODD_NAMES = [
    b"-rf", b"--help", b"a b", b"new\nline", b"tab\tcr\r", b"quo'te\"s", b"$(x)`y`", b"back\\slash", b"100%(name)s%",
    b"\xff\xfe\x80", b"caf\xc3\xa9", b"cafe\xcc\x81", b"dots...", b"dot.", b"{stem}", b"*?[x]!#", b"x" * 255,
    b"\xed\xa0\x80", b"\xe2\x80\xae", b"~", b"nul.\x01", b" lead", b"trail ", b"sub\ndir/\xff/-x",
]  # fmt: skip


def source_of(line: dict[str, str]) -> bytes:
    return base64.b64decode(line["source_b64"]) if "source_b64" in line else line["source"].encode()
