"""How names of any bytes are shown, and how they get into JSON and back."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.program import ROOT

from pipeline.config.units import DURATION
from pipeline.text import (
    as_json,
    cut_inside,
    cut_to,
    format_pace,
    format_seconds,
    printable,
    program,
    quoted,
    seconds_of,
    shown,
    width_of,
)


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (4e-6, "4 µs"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (1.5, "1.5 s"),
     (2460, "41 min")],
)  # fmt: skip
def test_short_times_are_told_in_small_units(seconds: float, said: str) -> None:
    assert format_seconds(seconds) == said


@pytest.mark.parametrize(
    ("rate", "said"),
    [(0, "0.0 files/s"), (0.25, "4.0 s/file"), (1, "1.0 files/s"), (41.4, "41 files/s"), (1234, "1,234 files/s")],
)
def test_a_slow_pace_is_told_by_what_a_file_takes(rate: float, said: str) -> None:
    assert format_pace(rate) == said


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The program `filemill` in a folder of its own, with Python beside it, as in a virtual environment."""
    script = tmp_path / "an env" / "filemill"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho started\n")
    script.chmod(0o755)
    (script.parent / "python").symlink_to(sys.executable)
    return script


def started_by(words: str) -> str:
    """Return what a shell prints that is given a command in another folder."""
    return subprocess.run(words, shell=True, cwd="/", capture_output=True, text=True, check=True).stdout


def test_the_program_is_named_so_that_any_shell_starts_it(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`filemill` where PATH leads to this very file: not where it leads nowhere, to another, or only from here."""
    another = script.parents[1] / "filemill"
    another.write_bytes(script.read_bytes())
    another.chmod(0o755)
    whole = f"'{script}'"
    monkeypatch.chdir(script.parent)
    for typed in (str(script), "./filemill"):
        monkeypatch.setattr(sys, "argv", [typed])
        for folders, named in (
            (f"{script.parent}:/usr/bin:/bin", "filemill"), ("/usr/bin:/bin", whole), ("", whole), (".:/bin", whole),
            (f"{another.parent}:{script.parent}:/bin", whole), (f"/nowhere:{script.parent}:/bin", "filemill"),
        ):  # fmt: skip
            monkeypatch.setenv("PATH", folders)
            assert program() == named
            assert not folders or started_by(program()) == "started\n"
    monkeypatch.delenv("PATH")
    assert program() == whole


def test_python_is_named_so_that_it_is_this_one(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m pipeline` where PATH leads to this environment's; else the interpreter is named by its path."""
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/bin")
    assert program() == "python -m pipeline"
    monkeypatch.setenv("PATH", f"{script.parent}:/bin")  # that of another environment, which is a link to the same
    assert program() == f"{quoted(sys.executable)} -m pipeline"
    monkeypatch.setattr(sys, "executable", str(script.parent / "python"))
    assert program() == "python -m pipeline"
    monkeypatch.setenv("PATH", "/bin")
    assert program() == f"'{script.parent}/python' -m pipeline"
    assert started_by(f"PYTHONPATH={quoted(str(ROOT))} {program()} --version").startswith("filemill ")


@pytest.mark.parametrize(
    ("text", "columns", "cut"),
    [
        ("abc", 3, "abc"), ("abcdefghij.jpg", 11, "abcd....jpg"), ("\u5b57" * 9, 11, "\u5b57\u5b57...\u5b57\u5b57"),
        ("abcdef", 4, "a..."), ("abcdef", 1, "."), ("abcdef", 0, ""),
    ],
)  # fmt: skip
def test_a_name_is_cut_inside(text: str, columns: int, cut: str) -> None:
    """Its end tells as much as its beginning; it is never wider than asked."""
    assert cut_inside(text, columns) == cut and width_of(cut) <= columns
