"""Which file system a path lies on, and which paths are mount points."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.files.file_system import MountPoints, mount_of

MOUNTINFO = rb"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/photos rw,relatime - nfs4 nas:/photos rw,vers=4.2
31 22 0:41 / /srv/photos\040old rw,relatime shared:3 master:1 - cifs //nas/old rw
32 30 0:42 / /srv/photos/local rw - xfs /dev/vdb rw
33 22 0:43 / /home/me/far rw - fuse.sshfs me@far: rw
34 22 0:44 / /twice rw - ext4 /dev/vdc rw
35 34 0:45 / /twice rw - 9p share rw
"""


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [
        (b"/srv", "/", "ext4"),
        (b"/srv/photos", "/srv/photos", "nfs4"),
        (b"/srv/photos/2024/x", "/srv/photos", "nfs4"),
        (b"/srv/photosynthesis", "/", "ext4"),
        (b"/srv/photos old/x", "/srv/photos old", "cifs"),
        (b"/srv/photos/local/x", "/srv/photos/local", "xfs"),
        (b"/home/me/far/x", "/home/me/far", "fuse.sshfs"),
        (b"/twice/x", "/twice", "9p"),
    ],
)
def test_the_mount_of_a_path(tmp_path: Path, path: bytes, place: str, kind: str) -> None:
    """The deepest above it, the last where there are two; names are read as the kernel escapes them."""
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    mount = mount_of(Path(os.fsdecode(path)), file)
    assert (mount.place, mount.kind) == (place, kind)
    assert MountPoints(file).above(path) == os.fsencode(place)


def test_mount_points_below_a_folder(tmp_path: Path) -> None:
    """At any depth, and not the folder itself."""
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    mounts = MountPoints(file)
    assert sorted(mounts.below(b"/srv")) == [b"photos", b"photos old", b"photos/local"]
    assert mounts.below(b"/srv/photos") == [b"local"] and b"/srv/photos" in mounts and b"/srv" not in mounts


@pytest.mark.parametrize(
    ("former", "path", "is_lacking"),
    [
        (b"/mnt/disk", b"/mnt/disk", True),
        (b"/mnt/disk", b"/mnt/disk/in", True),
        (b"/mnt/disk", b"/mnt/diskette", False),
        (b"/mnt/disk", b"/home/in", False),  # moved, or another machine
        (b"/srv/photos", b"/srv/photos/in", False),  # mounted
        (b"/", b"/in", False),
        (b"", b"/in", False),
    ],
)
def test_a_former_mount_point_is_lacking_at_or_above_a_path(
    tmp_path: Path, former: bytes, path: bytes, is_lacking: bool
) -> None:
    """Where the path lies elsewhere now, it says nothing."""
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    assert MountPoints(file).lacks(former, path) == is_lacking


def test_mount_points_without_proc(tmp_path: Path) -> None:
    """Each path is looked at, by its device and that of the folder above."""
    known, guessed = MountPoints(), MountPoints(tmp_path / "none")
    path = os.fsencode(tmp_path)
    assert guessed.above(path) == known.above(path) and b"/proc" in guessed and path not in guessed
    assert guessed.below(b"/") == []


def test_a_file_system_of_this_machine(tmp_path: Path) -> None:
    """As `df` has it."""
    said = subprocess.run(["df", "--output=target", tmp_path], capture_output=True, text=True, check=True).stdout
    mount = mount_of(tmp_path / "not" / "there")
    assert mount.place == said.splitlines()[1] and mount.kind and os.path.isdir(mount.place)


def test_what_cannot_be_known_has_no_name(tmp_path: Path) -> None:
    """A list of another form is no reason to fail."""
    file = tmp_path / "mountinfo"
    file.write_bytes(b"nonsense\n\n1 2 - x")
    assert mount_of(Path("/x"), file) == mount_of(Path("/x"), tmp_path / "none") == ("", "")
