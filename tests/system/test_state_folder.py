"""The state folder is new, empty or ours, and nothing of a person's in it or around it is removed or written to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import Project, contents_below, made

from pipeline.config.load import load_config
from pipeline.errors import ConfigError, EnvironmentFailure, UsageError
from pipeline.files.state_dir import open_state, why_foreign

STATE = ".pipeline/pipeline"


# -- where it may lie --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (".", "holds this file; give it a folder of its own, such as .pipeline/NAME"),
        ("..", "holds this file; give"),
        ("/", "holds this file; give"),
        ("link", "holds this file; give"),
        ("in", "holds the input files; give"),
        ("out", "holds the outputs 'out/{dir}/{name}'; give"),
        ("in/a", "is in use, and not by filemill (b); name one that is new, empty or a state of filemill"),
        ("in/a/b", "is no folder; name one that is new"),
        ("photos", "is in use, and not by filemill (five, four, one and 2 others); name one"),
        ("dangling", "is a link that leads nowhere; make what it leads to, or name another"),
        ("out/state", "lies where an output 'out/{dir}/{name}' may come to lie; put it beside them, or begin its name"),
    ],
)
def test_a_folder_in_use_is_no_place_for_the_state(tmp_path: Path, state: str, says: str) -> None:
    """Exit 2 with the line, before anything is made there, whatever the folder holds."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", f"state: {state}")
    project.write("in/a/b", "text")
    for name in ("one", "two", "three", "four", "five"):
        project.write(f"photos/{name}", "mine")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "pipeline.yaml")
    assert raised.value.exit_code == 2
    assert str(raised.value).startswith(f"{tmp_path}/pipeline.yaml:7:8: the state folder {state!r} {says}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("state", ["new", "deep/er/new", "empty", "out/.state", "in/state", "disk", "flat/state"])
def test_any_other_folder_is(tmp_path: Path, state: str) -> None:
    """It may lie among the inputs, where the walk leaves it out, and among outputs where none can lie in it."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", f"state: {state}\nengine: serial")
    if state.startswith("flat"):
        project.edit("pipeline.yaml", "out/{dir}/{name}", "flat/{name}")
    (tmp_path / "empty").mkdir()
    for name in ("disk/lost+found/x", "disk/.gitignore"):
        project.write(name, "theirs")
    project.write("in/a", "text")
    for done in (1, 0):
        summary = project.run()
        assert (summary.done, summary.exit, summary.sources) == (done, 0, 1)
    assert (tmp_path / "disk/.gitignore").read_text() == "theirs"


def test_the_default_place_is_checked_too(tmp_path: Path) -> None:
    """The complaint says which folder it is, which the file does not name."""
    project = Project(tmp_path)
    project.write(f"{STATE}/mine", "text")
    with pytest.raises(ConfigError, match=r"pipeline.yaml:2:1: the state folder '.pipeline/pipeline' is in use"):
        project.run()


# -- what proves that it is ours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("proof", ["lock", "id", "ledger.sqlite", "ledger-good.sqlite"])
def test_any_file_that_only_filemill_writes_proves_it(tmp_path: Path, proof: str) -> None:
    """An old release's state has them, and one of them is enough, whatever became of the others."""
    project = made(tmp_path, "a", "b")
    for each in (tmp_path / STATE).iterdir():
        if each.name != proof and each.is_file():
            each.unlink()
    project.write(f"{STATE}/mine", "text")
    assert why_foreign(tmp_path / STATE) == ""
    load_config(tmp_path / "pipeline.yaml")


@pytest.mark.parametrize(
    "files",
    [
        {"lock": b"my key"},
        {"id": b"4711\n"},
        {"ledger.sqlite": b"SQLite format 3\0" + b"CREATE TABLE accounts"},
        {"lock": b"", "notes": b"mine"},
        {"runs/mine.log": b""},
        {"id.new": b"mine"},
    ],
)
def test_a_persons_file_of_such_a_name_proves_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    """Nothing is written there, and what is there stays."""
    for name, data in files.items():
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(data)
    with pytest.raises(UsageError, match="is in use, and not by filemill"):
        open_state(tmp_path / "s", "photos")
    assert {name: data.encode() for name, data in texts_below(tmp_path / "s").items()} == files


@pytest.mark.parametrize("files", [{}, {"lock": b""}, {"lock": b"\0" * 20, "id.new": b""}, {"lock": b"", "runs/": b""}])
def test_what_a_run_leaves_that_is_killed_at_once_is_no_obstacle(tmp_path: Path, files: dict[str, bytes]) -> None:
    """An empty lock, or one of zeros after a power cut, is the first that there is of a state."""
    for name, data in files.items():
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            (tmp_path / "s" / name).write_bytes(data)
        else:
            (tmp_path / "s" / name).mkdir()
    open_state(tmp_path / "s", "photos").close()


def test_a_state_in_a_place_that_is_no_more_allowed_can_be_moved(tmp_path: Path) -> None:
    """The complaint says what to move, and then nothing is made again."""
    project = made(tmp_path, "a", "b")
    for each in (tmp_path / STATE).iterdir():
        each.rename(tmp_path / each.name)
    project.edit("pipeline.yaml", "engine: serial", "state: .\nengine: serial")
    with pytest.raises(ConfigError) as raised:
        project.run()
    hint = str(raised.value).partition("hint: ")[2]
    assert hint.startswith("it is one so far: move id, ledger.sqlite, ledger-good.sqlite and runs/ to the new one")
    (tmp_path / "st").mkdir()
    for name in ("id", "ledger.sqlite", "ledger-good.sqlite", "runs"):
        (tmp_path / name).rename(tmp_path / "st" / name)
    project.edit("pipeline.yaml", "state: .", "state: st")
    summary = project.run()
    assert (summary.exit, summary.up_to_date, summary.done) == (0, 2, 0)


# -- what is a person's in it ------------------------------------------------------------------------------------------


def test_only_what_filemill_names_is_removed(tmp_path: Path) -> None:
    """Whatever a person keeps in our folders, a run that clears up after a killed one and one in order leave it."""
    project = made(tmp_path, "a")
    names = ["scratch/notes.txt", "scratch/2024/photo", "slots/slot-0.txt", "parts/x", "ledger.seal", ".gitignore"]
    names += [f"runs/cron{number}.log" for number in range(40)]
    names += ["ledger-good-mine.sqlite", *(f"ledger-damaged-{each}.sqlite" for each in ("mine", "a", "b"))]
    for name in names:
        project.write(f"{STATE}/{name}", "mine")
    killed = "20240101-000000-abcd"
    for name in (f"scratch/{killed}/1234/film", f"slots/{killed}/slot-0.txt"):
        project.write(f"{STATE}/{name}", "left")
    (tmp_path / STATE / "ledger.sqlite").write_text("damaged, so that it is set aside")
    project.write("in/b", "text")
    assert project.run().exit == 0
    left = texts_below(tmp_path / STATE)
    assert {name: left.get(name) for name in names} == dict.fromkeys(names, "mine")
    assert not [name for name in left if killed in name]


@pytest.mark.parametrize("name", ["scratch", "slots", "runs", "set-aside", "lock", "ledger.sqlite", "progress.json"])
def test_nothing_is_written_or_removed_behind_a_link(tmp_path: Path, name: str) -> None:
    """One in the place of a folder or file of ours is refused, and what it leads to stays as it is."""
    project = made(tmp_path, "a")
    theirs, place = tmp_path / "theirs", tmp_path / STATE / name
    is_file = "." in name or name == "lock"
    for file in ["20240101-000000-abcd/1/x", *(f"202401{day}-000000-aaaa.log" for day in range(10, 50))]:
        project.write(f"theirs/{file}", "mine")
    before = contents_below(theirs)
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.symlink_to(theirs / "20240101-000000-abcd/1/x" if is_file else theirs)
    project.write("in/b", "text")
    with pytest.raises(EnvironmentFailure) as raised:
        project.run()
    what = "regular file" if is_file else "folder"
    assert str(raised.value) == f"{place} is no {what}, but a link; remove it, and the same line goes on"
    assert contents_below(theirs) == before
    place.unlink()
    assert project.run().exit == 0


# -- what would be waited for ------------------------------------------------------------------------------------------


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # its path may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a folder": os.mkdir,
    "a socket": a_socket,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
LASTING = ("lock", "id", "progress.json", "reading.seal", "ledger.sqlite", "ledger.sqlite-wal", "ledger-good.sqlite")
PASSING = ("ledger.new", "ledger-good.new", "id.new", "reading.seal.new", ".gitignore", "progress.new")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ("lock", "progress.new") for kind in KINDS),
        *((name, kind) for name in (*LASTING[1:], *PASSING[:-1]) for kind in ("a FIFO", "a folder")),
    ],
)
def test_nothing_in_the_place_of_a_file_of_the_state_is_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    """A run and a reader go on without it or name it; once it is removed, all is well."""
    project = made(tmp_path, "a")
    place = tmp_path / STATE / name
    place.unlink(missing_ok=True)
    KINDS[kind](place)
    project.write("in/b", "text")
    signal.alarm(60)
    try:
        try:
            project.plan()
        except EnvironmentFailure as error:
            assert str(place) in str(error)
        try:
            assert project.run().exit == 0
        except EnvironmentFailure as error:
            assert str(place) in str(error)
            place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
            assert project.run().exit == 0
    finally:
        signal.alarm(0)
    assert (tmp_path / "out/b").read_text() == "TEXT"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [".filemill", ".filemill-owner"])
def test_nor_in_that_of_an_owner_file(tmp_path: Path, name: str, kind: str) -> None:
    """What holds nothing is replaced; a folder is named."""
    project = made(tmp_path, "a")
    place = tmp_path / "out" / name
    place.unlink(missing_ok=True)
    KINDS[kind](place)
    project.write("in/b", "text")
    signal.alarm(60)
    try:
        if kind == "a folder":
            with pytest.raises(EnvironmentFailure, match=f"/out/{name}: is a directory"):
                project.run()
            place.rmdir()
        assert project.run().exit == 0
    finally:
        signal.alarm(0)
    assert (tmp_path / "out/b").read_text() == "TEXT"


def texts_below(folder: Path) -> dict[str, str]:
    return {name: data.decode("latin-1") for name, data in contents_below(folder).items()}
