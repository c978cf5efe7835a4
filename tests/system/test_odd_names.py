"""Names of any bytes, all the way: found, planned, done, failed, listed, logged, and shown on one line."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.odd_names import ODD_NAMES, source_of
from support.program import Pipeline
from support.project import MOODY, Project, temporaries

from pipeline.files.walk import SYSTEM_NAMES
from pipeline.text import shown

# Bytes that are one byte of many a name's trouble, and whole pieces of others.
_PIECES = [
    b"\xff", b"\x80", b"\xed\xa0\x80", b"\n", b"\r", b"\t", b"\x1b[31m", b"\x01", b"\x7f", b" ", b"-", b"--", b".",
    b"..", b"'", b'"', b"`x`", b"$(x)", b"${x}", b"%s", b"%(name)s", b"{dir}", b"{", b"}", b"*", b"?", b"[a]", b"!",
    b"#", b"\\", b"~", b":", b";", b"&", b"|", b"<", b">", b"a", b"A", b"z" * 120,
    *(each.encode() for each in ("é", "e\u0301", "ﬁ", "\u202e", "\u00a0", "\u200b", "ß", "İ", "Å", "A\u030a", "🙂")),
]  # fmt: skip


def _is_name(name: bytes) -> bool:
    is_any = 0 < len(name) <= 255 and not name.startswith(b".") and b"/" not in name and b"\0" not in name
    return is_any and name not in SYSTEM_NAMES  # those are left out


NAMES = st.one_of(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6).map(b"".join), st.binary(min_size=1, max_size=255)
).filter(_is_name)
TREES = st.lists(st.tuples(st.lists(NAMES, max_size=2), NAMES), min_size=1, max_size=6)


@contextmanager
def fresh_project() -> Iterator[Project]:
    """A project for one example."""
    folder = Path(tempfile.mkdtemp(prefix="odd-"))
    try:
        project = Project(folder)
        project.write("stages/upper.py", MOODY)
        yield project
    finally:
        shutil.rmtree(folder)


def put(project: Project, name: bytes, text: str) -> bool:
    """Write an input of this name; tells whether it can be one beside the others."""
    place = os.path.join(os.fsencode(project.folder), b"in", name)
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "xb") as file:
            file.write(text.encode())
    except OSError:  # a folder lies there, or a file where a folder would have to
        return False
    return True


def listed(text: str) -> list[bytes]:
    """The sources in lines of JSON, in byte order."""
    return sorted(source_of(json.loads(line)) for line in text.splitlines())


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_whatever_the_names_are(trees: list[tuple[list[bytes], bytes]]) -> None:
    """Each output has its input's own bytes as its name; what fails is recorded under them, and all is shown on one
    line; the next plan knows every one again.
    """
    with fresh_project() as project:
        texts = {}
        for number, (folders, name) in enumerate(trees):
            path, text = b"/".join([*folders, name]), f"bad {number}" if number % 3 == 2 else f"good {number}"
            if put(project, path, text):
                texts[path] = text
        summary = project.run()
        bad = {path for path, text in texts.items() if text.startswith("bad")}
        assert (summary.done, summary.failed, summary.sources) == (len(texts) - len(bad), len(bad), len(texts))
        assert {origin.path for origin, _ in summary.failures} == bad
        assert all(line.isprintable() for line in summary.lines())
        made = {os.fsencode(path): data.decode() for path, data in project.outputs().items()}
        assert made == {path: text.upper() for path, text in texts.items() if path not in bad}
        again = project.run()
        assert (again.done, again.up_to_date, again.failed) == (0, len(made), len(bad))
        assert not temporaries(project.folder)


def test_odd_names_on_the_command_line(tmp_path: Path, pipeline: Pipeline) -> None:
    """Plan, run, failures, the log, and a list of names: as JSON the bytes can be had back, as text each is a line."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    for name in ODD_NAMES:
        assert put(project, name, "bad")
    assert listed(pipeline("plan", "--json").stdout) == sorted(ODD_NAMES)
    ran = pipeline("--json", "--engine", "pool")
    assert (ran.returncode, json.loads(ran.stdout)["failed"]) == (1, len(ODD_NAMES))
    assert all(line.isprintable() for line in ran.stderr.splitlines())
    assert listed(pipeline("failures", "--json").stdout) == sorted(ODD_NAMES)
    lines = pipeline("failures").stdout.rpartition("\n\n")[2].splitlines()
    assert sorted(line.partition(" (up): ")[0] for line in lines) == sorted(shown(name) for name in ODD_NAMES)
    (log,) = (tmp_path / ".pipeline/pipeline/runs").glob("*.log")
    assert all(f"{shown(name)} (up): error: " in log.read_text(encoding="utf-8") for name in ODD_NAMES)
    for name in ODD_NAMES:
        (tmp_path / "in" / os.fsdecode(name)).write_text("good now")
    for names, separator in ((ODD_NAMES[:12], b"\0"), ([name for name in ODD_NAMES if b"\n" not in name], b"\n")):
        (tmp_path / "names").write_bytes(separator.join(names) + separator)
        ran = pipeline("--json", "--files-from", "names")
        assert (ran.returncode, json.loads(ran.stdout)["sources"]) == (0, len(names)), ran.stderr
    assert pipeline("--json").returncode == 0 and pipeline("failures").stdout == ""
    assert sorted(os.fsencode(path) for path in project.outputs()) == sorted(ODD_NAMES)


def test_twins_are_two_files(tmp_path: Path, pipeline: Pipeline) -> None:
    """Two names that look alike, or are one but for their case, are two sources with an output each."""
    project = Project(tmp_path)
    twins = [unicodedata.normalize(form, "Åé") for form in ("NFC", "NFD")] + ["dot", "dot.", "dot..", "dot ", "DOT"]
    for name in twins:
        put(project, name.encode(), f"text of {name!a}")
    assert pipeline("--engine", "serial").returncode == 0
    assert project.outputs() == {name: f"TEXT OF {name!a}".upper().encode() for name in twins}
