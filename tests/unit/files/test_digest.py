"""The digest of a file's contents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline.files.digest import contents_of


def test_contents_are_what_counts_of_a_file(tmp_path: Path) -> None:
    """Other contents, other digest; what cannot be read says so the same way each time, and is not waited for."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    (tmp_path / "c").write_text("2")
    os.mkfifo(tmp_path / "fifo")
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "b") != contents_of(tmp_path / "c")
    assert contents_of(tmp_path / "nowhere") == "No such file or directory"
    assert contents_of(tmp_path) == "Is a directory"
    assert contents_of(tmp_path / "fifo") == "no regular file"


def test_what_cannot_be_read_for_want_of_a_descriptor_has_no_digest(tmp_path: Path) -> None:
    """The error's text would be the digest of every file then."""
    (tmp_path / "a").write_text("a")
    code = (
        "import resource; from pathlib import Path; from pipeline.files.digest import contents_of\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); contents_of(Path('a'))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "EnvironmentFailure: a: too many open files" in ran.stderr
