"""How an output gets its place: whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.errors import FileFailure
from pipeline.files.atomic import Committer, digest_of, remove_temporaries, temporary_for


def writes(data: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(data)

    return write


def test_commit_makes_folders_and_says_what_stat_says(tmp_path: Path) -> None:
    """An output's folders are made, and what is reported of it is what the next plan will see."""
    target = tmp_path / "a" / "b" / "x"
    committed = Committer("run").write(os.fsencode(target), writes(b"12345"))
    found = target.stat()
    assert (committed.size_bytes, committed.mtime_ns) == (found.st_size, found.st_mtime_ns)
    assert target.read_bytes() == b"12345" and os.listdir(target.parent) == ["x"]


def test_bytes_at_hand_are_committed_the_same(tmp_path: Path) -> None:
    """Whether a file is written piece by piece, at once or moved, what is reported of it is the same."""
    committer = Committer("run")
    data = os.urandom(100_000)
    put = committer.put(os.fsencode(tmp_path / "put"), data)
    wrote = committer.write(os.fsencode(tmp_path / "wrote"), writes(data))
    (tmp_path / "scratch").write_bytes(data)
    moved = committer.move(tmp_path / "scratch", os.fsencode(tmp_path / "moved"))
    for name, committed in (("put", put), ("wrote", wrote), ("moved", moved)):
        path = tmp_path / name
        assert path.read_bytes() == data and committed
        assert committed == (len(data), path.stat().st_mtime_ns, digest_of(os.fsencode(path)))
    assert put.digest == wrote.digest == digest_of(os.fsencode(tmp_path / "moved"))


@pytest.mark.parametrize("way", ["put", "write", "move"])
def test_a_refusal_leaves_the_old_output(tmp_path: Path, way: str) -> None:
    """What is asked last, such as whether the source is still the same, may say no: then nothing has happened."""
    target = os.fsencode(tmp_path / "x")
    (tmp_path / "x").write_text("old")
    (tmp_path / "scratch").write_text("new")

    def refuse() -> None:
        raise ValueError

    committer = Committer("run")
    with pytest.raises(ValueError):
        if way == "put":
            committer.put(target, b"new", refuse)
        elif way == "write":
            committer.write(target, writes(b"new"), refuse)
        else:
            committer.move(tmp_path / "scratch", target, refuse)
    assert (tmp_path / "x").read_text() == "old" and not list(tmp_path.glob(".filemill-*"))


def test_the_target_is_old_or_new_and_the_temporary_beside_it(tmp_path: Path) -> None:
    """While an output is written, the old one is whole under its name, and the new one in the same folder."""
    (tmp_path / "x").write_text("old")
    seen: list[object] = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        seen.extend([(tmp_path / "x").read_text(), sorted(os.listdir(tmp_path))])

    Committer("run").write(os.fsencode(tmp_path / "x"), write)
    assert seen[0] == "old" and (tmp_path / "x").read_text() == "new"
    assert seen[1] == [temporary_for(os.fsencode(tmp_path / "x"), "run").decode().rpartition("/")[2], "x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_nothing_is_left_where_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    """A failure of any kind leaves the old output and no temporary."""
    (tmp_path / "x").write_text("old")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(error):
        Committer("run").write(os.fsencode(tmp_path / "x"), write)
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "old"


def test_a_folder_under_the_targets_name_fails_and_leaves_nothing(tmp_path: Path) -> None:
    """Even where only the rename fails, the temporary goes; what is in the way is named."""
    (tmp_path / "x").mkdir()
    with pytest.raises(FileFailure, match=r"something that is no file stands in its place: .*/x"):
        Committer("run").write(os.fsencode(tmp_path / "x"), writes(b"1"))
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
@pytest.mark.parametrize("way", ["put", "write", "move"])
def test_permissions_are_the_umasks(tmp_path: Path, umask: int, way: str) -> None:
    """An output may be read by whoever the umask let at the start, even when a stage's own file was private."""
    before = os.umask(umask)
    try:
        committer = Committer("run")
        os.umask(0o077)  # as a stage may do
        if way == "move":
            (tmp_path / "scratch").touch(mode=0o600)
            assert committer.move(tmp_path / "scratch", os.fsencode(tmp_path / "x"))
        elif way == "put":
            committer.put(os.fsencode(tmp_path / "x"), b"1")
        else:
            committer.write(os.fsencode(tmp_path / "x"), writes(b"1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_a_moved_file_is_not_copied(tmp_path: Path) -> None:
    """A large file that a stage made in its scratch folder is renamed."""
    (tmp_path / "scratch").write_text("big")
    inode = (tmp_path / "scratch").stat().st_ino
    assert Committer("run").move(tmp_path / "scratch", os.fsencode(tmp_path / "x"))
    assert (tmp_path / "x").stat().st_ino == inode and os.listdir(tmp_path) == ["x"]


def test_a_commit_never_takes_the_source_by_its_second_name(tmp_path: Path) -> None:
    """A hard link to the source is copied, not moved: output and source would be one file, with one mode."""
    (tmp_path / "source").touch(mode=0o600)
    (tmp_path / "scratch").hardlink_to(tmp_path / "source")
    assert Committer("run").move(tmp_path / "scratch", os.fsencode(tmp_path / "x")) is None
    assert stat.S_IMODE((tmp_path / "source").stat().st_mode) == 0o600


def test_a_name_of_255_bytes_works(tmp_path: Path) -> None:
    """The temporary's name is short whatever the target's."""
    target = os.fsencode(tmp_path) + b"/" + b"\xff" * 255
    Committer("run").write(target, writes(b"1"))
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff" * 255]


def test_temporaries_are_opened_exclusively_and_never_through_a_link(tmp_path: Path) -> None:
    """A link that someone has put under the temporary's name is removed, not followed."""
    target, victim = os.fsencode(tmp_path / "x"), tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, temporary_for(target, "run"))
    Committer("run").write(target, writes(b"new"))
    assert victim.read_text() == "precious" and (tmp_path / "x").read_bytes() == b"new"
    assert not (tmp_path / "x").is_symlink()


def test_a_folder_removed_in_mid_run_is_made_again(tmp_path: Path) -> None:
    """What a committer has made once it does not take for granted."""
    committer, target = Committer("run"), tmp_path / "out" / "x"
    for _ in range(2):
        committer.write(os.fsencode(target), writes(b"1"))
        target.unlink()
        target.parent.rmdir()


def test_temporaries_of_killed_runs_are_removed_by_name(tmp_path: Path) -> None:
    """Only those of the named runs and of this target go; a folder that is none does no harm."""
    target = os.fsencode(tmp_path / "x")
    for path in (temporary_for(target, "dead"), temporary_for(target, "alive"), temporary_for(target + b"2", "dead")):
        Path(os.fsdecode(path)).touch()
    remove_temporaries(target, ["dead", "unknown"])
    (tmp_path / "file").touch()
    remove_temporaries(os.fsencode(tmp_path / "file" / "x"), ["dead"])
    assert len(list(tmp_path.glob(".filemill-*"))) == 2


def test_commit_imports_nothing_heavy() -> None:
    """Every spawned worker pays for what this module imports."""
    code = "import sys, pipeline.files.atomic; print([m for m in ('PIL', 'pydantic', 'sqlite3') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
