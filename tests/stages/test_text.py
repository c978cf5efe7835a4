"""What text makes of bytes: UTF-8 with one kind of line ending, or a sentence that names the byte that is wrong."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest
from support.project import Project

from pipeline.errors import ConfigError, Unreadable
from stages.text import Text

SAID = "naïve ☃ 𝄞\nsecond\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_says_the_encoding(encoding: str) -> None:
    """It is believed, and is not in the text any more; also where the encoding is named."""
    marked = ("\ufeff" + SAID).encode(encoding)
    assert Text()(marked) == SAID
    assert Text(encoding=encoding)(marked) == SAID


def test_without_a_mark_it_is_utf_8_or_the_fallback() -> None:
    """The fallback is for those that are not UTF-8, and for no others; an empty text is one, too."""
    assert Text()(SAID.encode()) == SAID
    assert Text(fallback="cp1252")(SAID.encode()) == SAID
    assert Text(fallback="cp1252")("naïve".encode("cp1252")) == "naïve"
    assert Text(encoding="shift_jis")("日本".encode("shift_jis")) == "日本"
    assert Text(final_newline=True)(b"") == Text()(codecs.BOM_UTF8) == ""


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (b"abc\xe9d", {}, "not UTF-8: byte 0xe9 at offset 3; say what it is with 'encoding', or with 'fallback'"),
        (codecs.BOM_UTF8 + b"ab\xff", {}, "not UTF-8: byte 0xff at offset 5"),
        (codecs.BOM_UTF8 + b"ab\xff", {"encoding": "utf-8-sig"}, "not UTF-8-SIG: byte 0xff at offset 5"),
        (codecs.BOM_UTF16_LE + b"a\0b", {}, "not UTF-16-LE: byte 0x62 at offset 4"),
        (b"ab\x81", {"fallback": "cp1252"}, "not CP1252: byte 0x81 at offset 2"),
        ("ab".encode("utf-16-le"), {}, "no text: a NUL at offset 1; if it is UTF-16, say 'encoding: utf-16-le'"),
    ],
)
def test_what_cannot_be_decoded_is_named(data: bytes, options: dict[str, Any], said: str) -> None:
    """With the byte and its place in the file, its mark counted; and never replaced by a guess."""
    with pytest.raises(Unreadable) as raised:
        Text(**options)(data)
    assert raised.value.text.startswith(said)


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({}, "a \n\nb\t\n  c\u2028d\x0b\x0ce "),
        ({"newline": "crlf"}, "a \r\n\r\nb\t\r\n  c\u2028d\x0b\x0ce "),
        ({"strip_trailing": True}, "a\n\nb\n  c\u2028d\x0b\x0ce"),
        ({"final_newline": True}, "a \n\nb\t\n  c\u2028d\x0b\x0ce \n"),
        ({"newline": "crlf", "strip_trailing": True, "final_newline": True}, "a\r\n\r\nb\r\n  c\u2028d\x0b\x0ce\r\n"),
    ],
)
def test_lines_end_in_one_way(options: dict[str, Any], made: str) -> None:
    """Lines of Unix, Windows and old Macs alike, and nothing else of the text changes; done twice is done once."""
    stage = Text(**options)
    assert stage("a \r\n\nb\t\r  c\u2028d\x0b\x0ce ".encode()) == made
    assert stage(made.encode()) == made


def test_a_long_run_of_spaces_takes_no_time() -> None:
    """Nor does anything else that grows with the square of a line."""
    assert len(Text(strip_trailing=True)(b" " * 3_000_000 + b"x")) == 3_000_001


YAML = """
inputs: in
stages:
  - {name: plain, uses: text, with: {fallback: latin-1, newline: crlf, final_newline: true}, output: out/}
engine: serial
"""


def test_in_a_pipeline(tmp_path: Path) -> None:
    """Outputs are UTF-8, byte for byte; a file that is no text fails alone."""
    project = Project(tmp_path, YAML)
    project.write("in/a.txt", "é\nb".encode("latin-1"))
    project.write("in/d/b.csv", codecs.BOM_UTF16_LE + "é;b".encode("utf-16-le"))
    project.write("in/c.bin", b"\0\1")
    summary = project.run()
    assert (summary.done, summary.failed) == (2, 1)
    assert project.outputs() == {"a.txt": "é\r\nb\r\n".encode(), "d/b.csv": "é;b\r\n".encode()}
    assert summary.failures[0][1].text.startswith("no text: a NUL at offset 0")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("latin-1", "latin-x", "no text encoding 'latin-x'; Python knows"),
        ("latin-1", "rot13", "no text encoding 'rot13'"),
        ("fallback: latin-1", "fallback: latin-1, encoding: utf-8", "'fallback' is for encoding 'auto'"),
    ],
)
def test_encodings_are_checked_when_the_pipeline_is_loaded(tmp_path: Path, old: str, new: str, said: str) -> None:
    """One that Python does not know, or that could never be used, is refused before anything runs."""
    project = Project(tmp_path, YAML.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        project.run()
