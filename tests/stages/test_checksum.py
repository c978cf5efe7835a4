"""The lines that checksum makes are those that coreutils makes and checks, whatever a file's name."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tracemalloc
from pathlib import Path
from typing import get_args

import pytest
from support.project import Project

from pipeline import Item
from stages.checksum import Algorithm, checksum

NAMES = [
    b"a.bin", b"-rf", b" a  b ", b"two\nlines", b"back\\slash", b"\\n", b"return\r", b"\xff\xfe.jpg", "ü'\"$x".encode(),
    b"*s",
]  # fmt: skip


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_coreutils_takes_the_line_for_its_own(tmp_path: Path, algorithm: Algorithm) -> None:
    """Each algorithm is that of the program of its name, which finds the file as the line says."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.bin").write_bytes(os.urandom(10_000))
    line = checksum(Item(tmp_path / "d/a.bin", "d/a.bin", tmp_path), algorithm=algorithm)
    program = "b2sum" if algorithm == "blake2b" else f"{algorithm}sum"
    assert line == subprocess.run([program, "d/a.bin"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert subprocess.run([program, "-c"], cwd=tmp_path, input=line, capture_output=True).returncode == 0


YAML = """
inputs: in
stages:
  - {name: sum, uses: checksum, output: "out/{dir}/{name}.sha256"}
  - {name: beside, from: inputs, uses: checksum, with: {names: name, algorithm: md5}, output: "out/{dir}/{name}.md5"}
engine: serial
"""


def test_in_a_pipeline(tmp_path: Path) -> None:
    """All outputs together, or each beside its file, are checked by sha256sum, whatever their names."""
    project = Project(tmp_path, YAML)
    for index, name in enumerate(NAMES):
        os.makedirs(tmp_path / "in/d e", exist_ok=True)
        Path(os.fsdecode(os.fsencode(tmp_path / "in/d e") + b"/" + name)).write_bytes(b"x" * index)
    assert project.run().done == 2 * len(NAMES)

    made = project.outputs()
    lines = b"".join(data for name, data in made.items() if name.endswith(".sha256"))
    checked = subprocess.run(["sha256sum", "--strict", "-c"], cwd=tmp_path / "in", input=lines, capture_output=True)
    assert (checked.returncode, checked.stdout.count(b": OK\n")) == (0, len(NAMES)), checked.stderr
    shutil.copytree(tmp_path / "out/d e", tmp_path / "in/d e", dirs_exist_ok=True)
    for name in made:
        if name.endswith(".md5"):
            subprocess.run(
                ["md5sum", "-c", "--", Path(name).name], cwd=tmp_path / "in/d e", check=True, capture_output=True
            )


def test_memory_is_flat(tmp_path: Path) -> None:
    """A file of any size is read in blocks."""
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(64_000_000)
    tracemalloc.start()
    try:
        line = checksum(Item(large, "large", tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert line == hashlib.sha256(bytes(64_000_000)).hexdigest().encode() + b"  large\n"
