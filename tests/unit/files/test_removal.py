"""What is removed is what lies in the folder itself, and nothing that it only leads to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.files.removal import remove_tree


def test_a_folder_goes_with_all_that_is_in_it_but_nothing_behind_a_link(tmp_path: Path) -> None:
    """Links, FIFOs and names that are no text are entries like any other; one that is itself a link stays."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, ours / "deep" / "deeper"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("text")
    (ours / "link").symlink_to(theirs)
    os.mkfifo(ours / "deep" / "fifo")
    (tmp_path / "linked").symlink_to(theirs)
    with open(os.fsencode(ours) + b"/\xff", "w"):
        pass
    for each in (ours, tmp_path / "linked", tmp_path / "none"):
        remove_tree(each)
    assert sorted(os.listdir(tmp_path)) == ["linked", "theirs"] and os.listdir(theirs) == ["file"]


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("place", ["ours/deep", "ours"])
def test_what_is_mounted_stays(tmp_path: Path, kind: str, place: str) -> None:
    """A stage may mount a disk in its scratch folder, and die; a folder that is shown a second time has one device."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours" / "deep").mkdir(parents=True)
    (tmp_path / "ours" / "file").touch()
    what = ["--bind", tmp_path / "theirs"] if kind == "bind" else ["-t", "tmpfs", "none"]
    if os.geteuid() or subprocess.run(["mount", *what, tmp_path / place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (tmp_path / place / "film").write_text("all of it")
        remove_tree(tmp_path / "ours")
        assert (tmp_path / place / "film").read_text() == "all of it"
        assert place == "ours" or os.listdir(tmp_path / "ours") == ["deep"]
    finally:
        subprocess.run(["umount", tmp_path / place], check=True)
