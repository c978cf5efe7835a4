"""The note of a run that left nothing to be done answers the next one only while all is as it was."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.permissions import permissions_hold
from support.project import MOODY, ONE_STAGE, Project, ledger_of

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.files.quiet_runs import QuietRun, add_quiet_run, quiet_runs
from pipeline.files.state_dir import open_state
from pipeline.ledger.session import open_to_write
from pipeline.operations import unchanged_note
from pipeline.operations.guards import Confirmations
from pipeline.operations.run import run
from pipeline.operations.unchanged_note import answer_unchanged
from pipeline.planning.selection import Selection
from pipeline.report.summary import Summary

YAML = f"""{ONE_STAGE}depends: [table.txt]
libraries: [shouting]
"""
STAGE = f"import helper\n{MOODY}".replace("text.upper()", "helper.shout(text)")
STATE = ".pipeline/pipeline"


def answer(project: Project) -> Summary | None:
    """What the note answers to a run of the project."""
    found = answer_unchanged(project.folder / "pipeline.yaml")
    return found if isinstance(found, Summary) else None


def note(project: Project) -> Path:
    return project.folder / STATE / "unchanged.note"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Three texts that are made, and a note that says so; the root is a link, and the state as old as the first run."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", STAGE)
    project.write("helper.py", "def shout(text):\n    return text.upper()\n")
    project.write("table.txt", "1")
    project.write("libraries/shouting-1.0.dist-info/METADATA", "Name: shouting\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "libraries"))
    (tmp_path / "in").rename(tmp_path / "first")
    (tmp_path / "in").symlink_to("first")
    for name in ("a", "b", "below/c"):
        project.write(f"in/{name}", f"text {name}")
    assert project.run().done == 3
    shutil.copytree(tmp_path / STATE, tmp_path / "older")
    assert project.run().up_to_date == 3
    assert note(project).exists()
    yield project
    if (tmp_path / "first/below").exists():
        (tmp_path / "first/below").chmod(0o700)


def touch(file: Path) -> None:
    os.utime(file, ns=(0, 10**18))


def switch_root(at: Path) -> None:
    shutil.copytree(at / "first", at / "second")
    (at / "in").unlink()
    (at / "in").symlink_to("second")


def replace_state(at: Path) -> None:
    shutil.rmtree(at / STATE)
    shutil.move(at / "older", at / STATE)


def replace_outputs(at: Path) -> None:
    shutil.copytree(at / "out", at / "copy")
    shutil.rmtree(at / "out")
    (at / "copy").rename(at / "out")


def flip_a_bit(file: Path) -> None:
    with open(file, "r+b") as opened:
        opened.seek(-40, os.SEEK_END)
        byte = opened.read(1)[0]
        opened.seek(-40, os.SEEK_END)
        opened.write(bytes([byte ^ 1]))


def rewrite(file: Path, text: str) -> None:
    """Write other text of the same size into the very file, and give it its time back."""
    found = file.stat()
    assert len(text) == found.st_size
    file.write_text(text)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a source is edited": lambda at: (at / "in/a").write_text("text A!"),
    "a source is touched": lambda at: touch(at / "in/a"),
    "a source is added": lambda at: (at / "in/d").write_text("text d"),
    "a source is removed": lambda at: (at / "in/below/c").unlink(),
    "a source is renamed": lambda at: (at / "in/a").rename(at / "in/d"),
    "a link that leads nowhere is added": lambda at: (at / "in/d").symlink_to("nowhere"),
    "an output is removed": lambda at: (at / "out/a").unlink(),
    "an output is edited": lambda at: (at / "out/a").write_text("mine"),
    "an output is touched": lambda at: touch(at / "out/a"),
    "the YAML is edited": lambda at: (at / "pipeline.yaml").write_text(f"{YAML}# more\n"),
    "the stage is edited": lambda at: (at / "stages/upper.py").write_text(f"{STAGE}\nMORE = 1\n"),
    "a helper is edited": lambda at: (at / "helper.py").write_text("def shout(text):\n    return text.lower()\n"),
    "a helper is edited at once": lambda at: rewrite(at / "helper.py", "def shout(text):\n    return text.lower()\n"),
    "a module is added": lambda at: (at / "stages/more.py").write_text(""),
    "a file of depends is edited": lambda at: (at / "table.txt").write_text("12"),
    "a file of depends is edited at once": lambda at: rewrite(at / "table.txt", "2"),
    "another version of a library": lambda at: (at / "libraries/shouting-1.0.dist-info").rename(
        at / "libraries/shouting-2.0.dist-info"
    ),
    "an owner file is removed": lambda at: (at / "out/.filemill").unlink(),
    "an owner file is rewritten": lambda at: (at / "out/.filemill").write_text("{}"),
    "the folder of outputs is another": replace_outputs,
    "a folder of inputs has outputs now": lambda at: (at / "in/below/.filemill").write_text("{}"),
    "a link leads to another root": switch_root,
    "the ledger is damaged": lambda at: flip_a_bit(at / STATE / "ledger.sqlite"),
    "the ledger is gone": lambda at: (at / STATE / "ledger.sqlite").unlink(),
    "the copy of the ledger is gone": lambda at: (at / STATE / "ledger-good.sqlite").unlink(),
    "a run has left its log": lambda at: (at / STATE / "ledger.sqlite-wal").write_text(""),
    "an unknown run was there": lambda at: (at / STATE / "runs/20260101-000000-abcd.log").write_text(""),
    "the state is another": lambda at: (at / STATE / "id").write_text("0123456789abcdef\n"),
    "the state is of an older backup": replace_state,
    "the state has moved": lambda at: (at / STATE).rename(at / "elsewhere"),
    "the lock is gone": lambda at: (at / STATE / "lock").rename(at / "lock"),
    "the note is damaged": lambda at: flip_a_bit(at / STATE / "unchanged.note"),
    "the note is cut": lambda at: os.truncate(at / STATE / "unchanged.note", 100),
    "the note is empty": lambda at: os.truncate(at / STATE / "unchanged.note", 0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_gives_an_ordinary_run(project: Project, change: Callable[[Path], object]) -> None:
    """The note says nothing, rather than that something has changed."""
    assert (before := answer(project)) is not None and before.up_to_date == 3
    assert answer(project) is not None, "its own answer must not be a change"
    change(project.folder)
    assert answer(project) is None


def test_a_run_with_work_leaves_a_note_of_what_the_next_would_say(project: Project) -> None:
    """Made, skipped and found as they were, all count as up to date; what was made of an edited source is covered."""
    project.write("in/a", "text A")
    project.write("in/d", "skip this")
    said = project.run()
    assert (said.done, said.skipped, said.up_to_date) == (1, 1, 2)
    found = answer(project)
    note(project).unlink()
    ordinary = project.run()
    assert found is not None and (found.up_to_date, found.sources) == (ordinary.up_to_date, ordinary.sources) == (4, 4)
    project.write("out/a", "mine")
    assert answer(project) is None


def test_a_project_that_has_moved_gives_an_ordinary_run(project: Project, tmp_path: Path) -> None:
    for each in ("pipeline.yaml", "stages", "helper.py", "table.txt", "first", "in", "out", ".pipeline"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        shutil.move(tmp_path / each, tmp_path / "moved" / each)
    assert answer_unchanged(tmp_path / "moved/pipeline.yaml") is None


@pytest.mark.parametrize("what", ["boot_id", "host"])
def test_another_start_or_host_gives_an_ordinary_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What was on the disk before a power cut need not be so now; a state may be shared by several machines."""
    if what == "boot_id":
        monkeypatch.setattr(unchanged_note, "boot_id", lambda: "another")
    else:
        named = os.uname()
        monkeypatch.setattr(os, "uname", lambda: os.uname_result((named[0], "another", *named[2:])))
    assert answer(project) is None


def test_a_folder_that_cannot_be_listed_gives_an_ordinary_run(project: Project) -> None:
    """Nobody knows what is in it, and that run leaves no note."""
    (project.folder / "first/below").chmod(0)
    with permissions_hold():
        assert answer(project) is None
        assert project.run().exit == 1 and not note(project).exists()


def test_a_run_at_work_gives_an_ordinary_run(project: Project) -> None:
    """It says that another is running; the note would be of before that."""
    with open(project.folder / STATE / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert answer(project) is None
    assert answer(project) is not None


@pytest.mark.parametrize(
    "words",
    [
        ["--force"], ["--only", "a"], ["--limit", "1"], ["--retry-failed"], ["--rebuild"], ["--take-over"], ["--json"],
        ["--set", "name=other"], ["-j", "1"], ["--engine", "pool"], ["-f", "pipeline.yaml"], ["--grace", "1"],
        ["--dry-run"], ["--files-from", "list"],
    ],
    ids="".join,
)  # fmt: skip
def test_an_option_that_matters_gives_an_ordinary_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(project.folder)
    project.write("list", "a\n")
    project.run(), project.run()  # the working folder is part of the question
    assert main(["run", "pipeline.yaml", *words]) in (0, 2)
    assert not list(quiet_runs(project.folder / STATE))


@pytest.mark.parametrize(
    "change",
    [
        lambda project: project.run(only="a"),
        lambda project: project.run(limit=1),
        lambda project: project.run(retry_failed=True),
        lambda project: project.run(confirmed=Confirmations(rebuild=True)),
        lambda project: run(load_config(project.folder / "pipeline.yaml", ["errors.max=5"]), Selection()),
        lambda project: project.run(force=True),
    ],
    ids=["only", "limit", "retry", "rebuild", "set", "force"],
)
def test_only_a_plain_run_leaves_a_note(project: Project, change: Callable[[Project], Summary]) -> None:
    """Any other is about something else, and the note of before is gone with the first thing that it writes."""
    assert change(project).exit == 0
    assert not note(project).exists() and answer(project) is None
    project.run()
    assert answer(project) is not None


@pytest.mark.parametrize(
    ("yaml", "source"),
    [
        (YAML, "bad one"),
        (YAML.replace("inputs: in", "inputs: {root: in, settle: 60s}"), "text"),
        (YAML.replace("engine", "changed_by: hash\nengine"), ""),
    ],
    ids=["failed and held", "settling", "by contents"],
)
def test_no_note_where_the_next_run_may_find_something(project: Project, yaml: str, source: str) -> None:
    project.write("pipeline.yaml", yaml)
    if source:
        project.write("in/new", source)
    for _ in range(5):
        project.run()
        assert not note(project).exists()


def test_no_note_where_an_orphan_is_kept(project: Project) -> None:
    """What is done with it may be another matter the next time."""
    (project.folder / "in/a").unlink()
    for _ in range(3):
        assert project.run().exit == 0
        assert not note(project).exists()


def test_what_the_walk_leaves_out_is_said_again(project: Project) -> None:
    project.write("in/d", "text d").unlink()
    (project.folder / "in/d").symlink_to("nowhere")
    said = [project.run() for _ in range(2)][-1].notes
    found = answer(project)
    assert found is not None and found.notes == said == ["left out, a dangling link: d"]


def test_sources_that_no_stage_takes_are_counted_again(project: Project) -> None:
    """They are covered like all others."""
    project.write("in/d.jpg", b"\xff\xd8\0")
    said = [project.run() for _ in range(2)][-1]
    found = answer(project)
    assert found is not None and found.lines()[0].split("(")[:-1] == said.lines()[0].split("(")[:-1]
    assert found.kinds_unmatched == {"jpg": 1}
    project.write("in/d.jpg", "text")
    assert answer(project) is None


@pytest.mark.parametrize("data", [b"{}", b"[]", b"null", b"\xff", b'{"run": 1}', b"{", b""])
def test_a_note_in_another_form_is_not_asked(project: Project, data: bytes) -> None:
    """As of another version; that its digest is right makes it no better."""
    note(project).write_bytes(hashlib.blake2b(data, digest_size=16).digest() + data)
    assert answer(project) is None


def test_every_writer_of_the_ledger_removes_the_note(project: Project) -> None:
    """Be it one that then finds nothing to write, or is killed at once."""
    with closing(open_state(project.folder / STATE, "pipeline")) as state, open_to_write(state):
        assert not note(project).exists()
    assert not note(project).exists()


# -- the ledger learns of quiet runs -----------------------------------------------------------------------------------


def runs_of(project: Project) -> list[str]:
    with ledger_of(project.folder) as ledger:
        return [each for (each,) in ledger._connection.execute("SELECT name FROM runs ORDER BY id")]


def test_the_next_writer_brings_quiet_runs_into_the_ledger(project: Project) -> None:
    quiet = [each.run for each in (answer(project), answer(project)) if each]
    assert [each.name for each in quiet_runs(project.folder / STATE)] == quiet
    last = project.run().run
    assert runs_of(project)[2:] == [*quiet, last]
    assert not list(quiet_runs(project.folder / STATE))


def test_quiet_runs_after_another_run_are_not_taken_over(project: Project) -> None:
    """After a ledger of an older backup they would tell of a time up to which it knows all."""
    state = project.folder / STATE
    assert answer(project) is not None
    for name in ("ledger.sqlite", "ledger-good.sqlite"):
        shutil.copy2(project.folder / "older" / name, state / name)
    project.run()
    assert len(runs_of(project)) == 2 and not list(quiet_runs(state))


@pytest.mark.parametrize("torn", ["", "2026", "x" * 107, "\n\n", "\xff"])
def test_a_line_that_is_not_whole_is_passed_over(tmp_path: Path, torn: str) -> None:
    """As a full disk, or a process that is killed, leaves it."""
    run = QuietRun("20260101-000000-abcd", "20260101-000000-0000", 1, 2, 3, 4)
    add_quiet_run(tmp_path, run)
    size = (tmp_path / "quiet-runs").stat().st_size
    with open(tmp_path / "quiet-runs", "a", encoding="latin-1") as opened:
        opened.write(torn)
    assert list(quiet_runs(tmp_path)) == [run]
    add_quiet_run(tmp_path / ".", run)
    assert (tmp_path / "quiet-runs").stat().st_size == 2 * size + len(torn)
