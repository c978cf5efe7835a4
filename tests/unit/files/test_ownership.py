"""Whose an output folder is."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFailure
from pipeline.files.ownership import Owner, claim, is_claimed, other_owner, owner_here
from pipeline.files.state_dir import State, open_state


def opened(folder: Path) -> State:
    """A state folder that was opened by a run which has ended."""
    state = open_state(folder, "photos")
    state.close()
    return state


def owner(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / ".filemill").read_text()))


def as_owner(state: State, pipeline: str = "photos") -> Owner:
    return owner_here(state.folder, state.id, pipeline)


def claims(out: Path, state: State, pipeline: str = "photos") -> None:
    """Claim a folder that is nobody else's."""
    assert other_owner(out, as_owner(state, pipeline), None) is None
    claim(out, as_owner(state, pipeline))


def test_a_claimed_folder_carries_the_states_id(tmp_path: Path) -> None:
    """The owner file says whose the folder is, and claiming again changes nothing."""
    state = opened(tmp_path / "s")
    claims(tmp_path / "out", state)
    before = (tmp_path / "out" / ".filemill").stat()
    assert owner(tmp_path / "out")["state"] == state.id and is_claimed(tmp_path / "out", as_owner(state))
    claims(tmp_path / "out", opened(tmp_path / "s"))
    assert (tmp_path / "out" / ".filemill").stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path / "out") == [".filemill"]


def test_another_pipeline_is_refused(tmp_path: Path) -> None:
    """Two pipelines never write into one folder: the second finds whose it is."""
    first = opened(tmp_path / "one")
    claims(tmp_path / "out", first)
    assert other_owner(tmp_path / "out", as_owner(opened(tmp_path / "two"), "other"), None) == as_owner(first)


def test_a_clone_with_a_copied_state_is_refused(tmp_path: Path) -> None:
    """A copy of the state has the same id; while the first is still there, the copy may not write."""
    claims(tmp_path / "out", opened(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert other_owner(tmp_path / "out", as_owner(opened(tmp_path / "two")), None)
    shutil.rmtree(tmp_path / "one")
    claims(tmp_path / "out", opened(tmp_path / "two"))


def test_a_clone_on_another_machine_is_found_out(tmp_path: Path) -> None:
    """One state on two machines, each with its ledger: whose ledger did not see the last claim is not the owner.

    One that is shared by them, or that has moved to a machine of another name, did see it.
    """
    here = as_owner(opened(tmp_path / "s"))
    there = replace(here, host="elsewhere")
    claim(tmp_path / "out", here)
    assert other_owner(tmp_path / "out", there, here.host) is None  # as moved, or copied: nobody can tell yet
    claim(tmp_path / "out", there)
    assert other_owner(tmp_path / "out", here, here.host) == there
    assert other_owner(tmp_path / "out", here, there.host) is None


def test_a_run_that_the_ledger_knows_proves_whose_a_folder_is(tmp_path: Path) -> None:
    """Where the name of the machine is damaged, and not where the other machine has made something."""
    here = as_owner(opened(tmp_path / "s"))
    there = replace(here, host="elsewhere")
    claim(tmp_path / "out", here, 6, "run-a")
    claim(tmp_path / "out", there)
    assert other_owner(tmp_path / "out", here, here.host, {"run-a"}) is None
    claim(tmp_path / "out", there, 6, "run-b")
    assert other_owner(tmp_path / "out", here, here.host, {"run-a"}) == there


def test_a_moved_project_is_accepted(tmp_path: Path) -> None:
    """State and outputs that move together stay together, and the owner file follows."""
    claims(tmp_path / "a" / "out", opened(tmp_path / "a" / "s"))
    (tmp_path / "a").rename(tmp_path / "b")
    claims(tmp_path / "b" / "out", opened(tmp_path / "b" / "s"))
    assert owner(tmp_path / "b" / "out")["folder"] == str(tmp_path / "b" / "out")


def test_a_state_that_only_was_removed_is_accepted(tmp_path: Path) -> None:
    """`rm -r .pipeline` does not lock anybody out: the same state folder on the same machine is the same owner."""
    first = opened(tmp_path / "s")
    claims(tmp_path / "out", first)
    shutil.rmtree(tmp_path / "s")
    claims(tmp_path / "out", opened(tmp_path / "s"))
    assert owner(tmp_path / "out")["state"] != first.id


@pytest.mark.parametrize("damage", [b"[" * 100_000, b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_owner_file_is_written_anew(tmp_path: Path, damage: bytes) -> None:
    """An owner file that says nothing locks nobody out; what a killed claim left is used up."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".filemill").write_bytes(damage)
    (tmp_path / "out" / ".filemill-owner").write_bytes(damage)
    state = opened(tmp_path / "s")
    claims(tmp_path / "out", state)
    assert owner(tmp_path / "out")["state"] == state.id and os.listdir(tmp_path / "out") == [".filemill"]


def test_an_output_folder_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    """Nothing is run, with one sentence that names the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailure, match=r"the output folder .*file/out cannot be used"):
        claims(tmp_path / "file" / "out", opened(tmp_path / "s"))
