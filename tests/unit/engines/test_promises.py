"""Runs on one machine know what the others have promised to their large jobs, and wait for nobody who is dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import ROOT

from pipeline.engines import promises
from pipeline.engines.promises import PromiseBoard

MACHINE, GROUP = "", "/sys/fs/cgroup/ours"


def board(folder: Path, *scopes: str) -> PromiseBoard:
    return PromiseBoard(lambda: [MACHINE, *scopes], folder / "board")


def test_a_promise_is_seen_by_the_others_and_not_by_its_own(tmp_path: Path) -> None:
    """Until it is withdrawn; one of nothing says that there are large jobs all the same."""
    ours, theirs = board(tmp_path), board(tmp_path)
    assert not ours.has_others and ours.others(MACHINE) == []
    theirs.put(500)
    assert ours.has_others and ours.others(MACHINE) == [500]
    assert not theirs.has_others
    theirs.put(0)
    assert ours.others(MACHINE) == [0]
    theirs.withdraw()
    assert not ours.has_others
    assert os.listdir(tmp_path / "board") == []


def test_a_promise_counts_in_every_bound_that_it_shares(tmp_path: Path) -> None:
    """A run in another control group takes nothing of ours, but of the machine's memory."""
    ours, theirs = board(tmp_path, GROUP), board(tmp_path, "/sys/fs/cgroup/other")
    theirs.put(500)
    assert (ours.others(MACHINE), ours.others(GROUP)) == ([500], [])


def test_what_is_not_renewed_is_void(tmp_path: Path) -> None:
    """A run that was killed or stopped promises nothing; its file is removed in the end."""
    ours, theirs = board(tmp_path), board(tmp_path)
    theirs.put(500)
    [file] = (tmp_path / "board").iterdir()
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"at": record["at"] - promises.VOID_S}))
    assert not ours.has_others and file.exists()
    file.write_text(json.dumps(record | {"at": record["at"] - promises.LITTER_S}))
    assert not ours.has_others and not file.exists()
    theirs.put(500)
    assert ours.others(MACHINE) == [500]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": "x"}', '{"at": 1e300, "bytes": 1, "scopes": [""]}'])
def test_what_cannot_be_read_is_no_promise(tmp_path: Path, text: str) -> None:
    """Whatever lies in the folder."""
    ours = board(tmp_path)
    (tmp_path / "board").mkdir(mode=0o700)
    (tmp_path / "board" / "1-1").write_text(text)
    assert not ours.has_others


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    """Another is told so at once, and may have it as soon as it is free."""
    ours, theirs = board(tmp_path), board(tmp_path)
    with theirs.locked() as is_free:
        assert is_free
        with ours.locked() as is_free_for_us:
            assert not is_free_for_us
    with ours.locked() as is_free_for_us:
        assert is_free_for_us


def test_who_is_stopped_while_it_holds_the_lock_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for which a promise is valid the others go on without it."""
    ours, theirs = board(tmp_path), board(tmp_path)
    with theirs.locked():
        with ours.locked() as is_free:
            assert not is_free
        monkeypatch.setattr(promises, "VOID_S", 0)
        with ours.locked() as is_free:
            assert is_free


def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A worker that is forked meanwhile has the descriptor for as long as it lives."""
    ours, theirs = board(tmp_path), board(tmp_path)
    with theirs.locked():
        child = os.fork()
        if child == 0:
            while True:
                os.read(os.pipe()[0], 1)  # until it is killed
    try:
        with ours.locked() as is_free:
            assert is_free
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_folder_that_others_can_write_to_is_not_believed(tmp_path: Path) -> None:
    """Nothing is shared then, and nothing fails."""
    ours, theirs = board(tmp_path), board(tmp_path)
    theirs.put(500)
    (tmp_path / "board").chmod(0o777)
    assert not ours.has_others
    ours.put(500)
    with ours.locked() as is_free:
        assert is_free
    assert len(os.listdir(tmp_path / "board")) == 1


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    """Then runs know nothing of each other."""
    (tmp_path / "file").touch()
    ours = board(tmp_path / "file")
    ours.put(500)
    with ours.locked() as is_free:
        assert is_free
    assert not ours.has_others
    ours.withdraw()


def test_runs_of_one_user_share_a_folder() -> None:
    """It is the same for every process, whatever its working folder."""
    code = "from pipeline.engines.promises import usual_folder; print(usual_folder())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == str(promises.usual_folder())
    assert str(os.getuid()) in promises.usual_folder().name
