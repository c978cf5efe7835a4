"""Folders that are gone: a disk that is away costs nothing that was made, and what was removed on purpose is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.project import Project

from pipeline.errors import EnvironmentFailure
from pipeline.operations.guards import Confirmations

REBUILD = Confirmations(rebuild=True)


class Disks:
    """File systems that are mounted and unmounted at will."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, place: Path) -> Path:
        """Mount an empty file system; the test is skipped where that cannot be."""
        place.mkdir(parents=True, exist_ok=True)
        ran = subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True, text=True)
        if ran.returncode:
            pytest.skip(f"no file system can be mounted here: {ran.stderr.strip()}")
        self._mounted.append(place)
        return place

    def unmount(self, place: Path) -> None:
        """Take a file system away, with all that is in it; its folder stays."""
        subprocess.run(["umount", place], check=True)
        self._mounted.remove(place)

    def unmount_all(self) -> None:
        """Take away what is left."""
        for place in reversed(self._mounted):
            subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def disks() -> Iterator[Disks]:
    """Mounts, which are gone after the test."""
    disks = Disks()
    yield disks
    disks.unmount_all()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing was made yet."""
    return Project(tmp_path)


# -- outputs -----------------------------------------------------------------------------------------------------------


def test_an_output_folder_that_was_removed_is_made_again(project: Project) -> None:
    """`rm -rf dist`, or a cache that kept the state alone: no flag, one note; the night after says nothing."""
    for name in ("a", "sub/b"):
        project.write(f"in/{name}", name)
    project.run()
    shutil.rmtree(project.folder / "out")
    summary = project.run()
    assert (summary.done, summary.exit) == (2, 0) and set(project.outputs()) == {"a", "sub/b"}
    assert summary.notes == [f"the output folder {project.folder}/out was removed: its outputs are made again"]
    assert project.run().notes == []


@pytest.mark.parametrize("place", ["disk/out", "disk"])
def test_an_output_folder_on_a_disk_that_is_away_is_refused(project: Project, disks: Disks, place: str) -> None:
    """Be it the disk itself or a folder on it: nothing is written to what lies beneath."""
    disk = disks.mount(project.folder / "disk")
    project.edit("pipeline.yaml", "out/{dir}", f"{place}/{{dir}}")
    project.write("in/a", "a")
    assert project.run().done == 1
    disks.unmount(disk)
    for _ in range(2):
        with pytest.raises(EnvironmentFailure, match="and the ledger knows of 1 output there; is its disk mounted"):
            project.run()
        if disk.exists():
            os.rmdir(disk)  # its mount point may be gone, too
    assert not disk.exists()
    disks.mount(disk)
    with pytest.raises(EnvironmentFailure) if place == "disk" else nullcontext():
        assert project.run().done == 1  # an empty disk may be another one, a folder that is gone was removed from it
    assert project.run(confirmed=REBUILD).exit == 0 and (project.folder / place / "a").exists()
