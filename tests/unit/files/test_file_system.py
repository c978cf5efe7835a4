"""Which file system a path lies on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.files.file_system import mount_of, parse

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
def test_the_mount_of_a_path(path: bytes, place: str, kind: str) -> None:
    """The deepest above it, the last where there are two; names are read as the kernel escapes them."""
    mount = parse(MOUNTINFO, path)
    assert (mount.place, mount.kind) == (place, kind)


def test_a_file_system_of_this_machine(tmp_path: Path) -> None:
    """As `df` has it."""
    said = subprocess.run(["df", "--output=target", tmp_path], capture_output=True, text=True, check=True).stdout
    mount = mount_of(tmp_path / "not" / "there")
    assert mount.place == said.splitlines()[1] and mount.kind and os.path.isdir(mount.place)


def test_what_cannot_be_known_has_no_name() -> None:
    """A list of another form is no reason to fail."""
    assert parse(b"nonsense\n\n1 2 - x", b"/x") == ("", "")
