"""The file that lists the members of a group."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.files.group_manifest import Member, read_members, write_members


def test_members_are_read_as_they_were_written(tmp_path: Path) -> None:
    """In their order, whatever bytes their paths have."""
    members = [Member(b"/out/\xff\n", b"a", None, 1, 2), Member(b"/out/b", b"b", "0001", 0, -5)]
    write_members(os.fsencode(tmp_path / "list"), iter(members))
    assert list(read_members(os.fsencode(tmp_path / "list"))) == members


def test_a_member_that_changed_is_not_as_planned(tmp_path: Path) -> None:
    """Size and time tell; a file that is gone is not as planned either."""
    file = tmp_path / "a"
    file.write_text("a")
    found = file.stat()
    member = Member(os.fsencode(file), b"a", None, found.st_size, found.st_mtime_ns)
    assert member.as_planned()
    os.utime(file, (0, 0))
    assert not member.as_planned()
    file.unlink()
    assert not member.as_planned()
