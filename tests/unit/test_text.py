"""How names of any bytes are shown, and how they get into JSON and back."""

from __future__ import annotations

import base64
import json
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.units import DURATION
from pipeline.text import as_json, cut_to, printable, quoted, seconds_of, shown, width_of


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"a b.jpg", "a b.jpg"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"\xff.jpg", "\\xff.jpg"),
        (b"two\nlines\t\x1b[31m", "two\\nlines\\t\\x1b[31m"),
        ("\u202egpj".encode(), "\\u202egpj"),
    ],
)
def test_a_name_is_shown_on_one_line(name: bytes, says: str) -> None:
    """Readable where it can be; line ends, escapes and what turns the text around are spelt out."""
    assert shown(name) == says


@given(st.binary(min_size=1, max_size=40))
def test_no_name_can_move_the_cursor(name: bytes) -> None:
    """Whatever is in a name, a summary that shows it stays as it is laid out, in UTF-8."""
    assert shown(name).isprintable() and shown(name).encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("two\n\tlines\n", "two\n        lines\n"),
        ("\x1b]0;title\x07 50%\r60%", "\\x1b]0;title\\x07 50%\\r60%"),
        ("\x9b2J\x85\u2028\u202e", "\\x9b2J\\x85\\u2028\\u202e"),
    ],
)
def test_a_text_acts_on_no_terminal(text: str, says: str) -> None:
    """Lines and tabs stay; what moves the cursor, sets a title or turns the text around is spelt out."""
    assert printable(text) == says


@given(st.binary(min_size=1, max_size=40))
def test_bytes_can_be_had_back_from_json(name: bytes) -> None:
    """`source` where UTF-8 can say it, `source_b64` beside it where not."""
    read = json.loads(json.dumps(as_json(name), ensure_ascii=False).encode())
    assert base64.b64decode(read["source_b64"]) == name if "source_b64" in read else read["source"].encode() == name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("60s", 60), ("5m", 300), ("1.5 h", 5400), ("2d", 172_800), ("0s", 0)],
)
def test_a_duration_is_written_as_in_the_yaml(text: str, seconds: float) -> None:
    """On the command line, where nothing of the vocabulary of pipeline.yaml is loaded for it."""
    assert seconds_of(text) == seconds == DURATION.parse(text)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1e3s", "5 minutes", "5m\n", "٥s", "1.s", " 5s"])
def test_what_is_no_duration(text: str) -> None:
    """Anything else."""
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("text", "columns", "cut"),
    [
        ("short", 5, "short"),
        ("longer", 5, "lo..."),
        ("日本語です", 10, "日本語です"),
        ("日本語です", 9, "日本語..."),
        ("日本語です", 8, "日本..."),
        ("e\u0301" * 5, 5, "e\u0301" * 5),
        ("longer", 2, ".."),
        ("longer", 0, ""),
    ],
)
def test_a_line_is_cut_to_the_columns_of_a_terminal(text: str, columns: int, cut: str) -> None:
    """Wide characters take two, accents none."""
    assert cut_to(text, columns) == cut and width_of(cut) <= columns


@pytest.mark.parametrize(
    "path",
    [
        b"plain",
        b"with space",
        b"it's",
        b"new\nline",
        b"esc\x1b[2J'",
        b"not utf-8 \xff",
        "rtl \u202e ä".encode(),
        b"a\\b\t",
    ],
)
def test_a_quoted_path_is_one_word_of_bash(path: bytes) -> None:
    """Whoever copies the command names that file, and nothing of it acts on the terminal."""
    word = quoted(os.fsdecode(path))
    assert word.isprintable()
    ran = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert ran.stdout == path
