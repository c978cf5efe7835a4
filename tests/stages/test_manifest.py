"""What manifest says of files, in CSV and in JSON lines, whatever their names and however many they are."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.project import Project

from pipeline import Item, Skip
from stages.manifest import manifest

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: list, from: up, uses: manifest, gather: true, output: out/list.csv}
  - name: lines
    from: up
    uses: manifest
    gather: true
    group: "{dir}"
    with: {format: jsonl, columns: [source, path, part, size, modified, md5]}
    output: out/{dir}/lines.jsonl
engine: serial
"""
NAMES = [b"a.txt", b"d/b,\"c\".txt", b"d/two\nlines.txt", "d/ü.txt".encode(), b"e/\xff.txt"]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Texts with names that need quoting, listed as a whole and by folder."""
    project = Project(tmp_path, YAML)
    for name in NAMES:
        file = os.path.join(os.fsencode(tmp_path), b"in", name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        Path(os.fsdecode(file)).write_text("text")
    return project


def test_csv_has_a_line_for_each_file(project: Project) -> None:
    """With its path from pipeline.yaml's folder, so that each is found from there, and is what the line says."""
    assert project.run().failed == 0
    rows = list(csv.DictReader(io.StringIO(project.outputs()["list.csv"].decode(), newline="")))
    assert [row["path"] for row in rows] == sorted("out/up/" + name.decode(errors="backslashreplace") for name in NAMES)
    for row in rows:
        assert row["path"] == f"out/up/{row['source']}"
        assert (row["size"], row["sha256"]) == ("4", hashlib.sha256(b"TEXT").hexdigest())
        assert (project.folder / row["path"]).is_file() or "\\xff" in row["path"]


def test_json_lines_say_any_name_exactly(project: Project) -> None:
    """In the columns that are asked for, in their order; a name that is not UTF-8 is there in base 64, too."""
    project.run()
    outputs = project.outputs()
    [line] = outputs["e/lines.jsonl"].splitlines()
    said = json.loads(line)
    assert list(said) == ["source", "source_b64", "path", "path_b64", "part", "size", "modified", "md5"]
    assert base64.b64decode(said["path_b64"]) == b"out/up/e/\xff.txt"
    assert (said["part"], said["size"], said["md5"]) == (None, 4, hashlib.md5(b"TEXT").hexdigest())
    assert said["modified"].endswith("Z")
    assert [json.loads(line)["source"] for line in outputs["d/lines.jsonl"].splitlines()] == [
        'd/b,"c".txt', "d/two\nlines.txt", "d/ü.txt",
    ]  # fmt: skip


def test_it_is_made_again_when_a_file_changes(project: Project) -> None:
    """And is up to date otherwise."""
    project.run()
    project.write("in/a.txt", "other")
    assert project.run().done == 3
    assert hashlib.sha256(b"OTHER").hexdigest() in project.outputs()["list.csv"].decode()
    assert project.run().done == 0


def test_memory_is_flat(tmp_path: Path) -> None:
    """A line is written before the next file is looked at."""
    (tmp_path / "a").write_text("a")

    def items(count: int) -> Iterator[Item[Path]]:
        for number in range(count):
            yield Item(tmp_path / "a", f"{number:09}" * 20, tmp_path, None, "a")

    manifest(items(10))
    tracemalloc.start()
    try:
        file = manifest(items(10_000), columns=("source", "size"))
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert len(file.read_text().splitlines()) == 10_001


def test_nothing_is_no_list() -> None:
    """Called with no file at all, it leaves the group out."""
    with pytest.raises(Skip, match="nothing to list"):
        manifest(iter(()))
