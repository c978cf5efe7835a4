"""The store of a root: what it gives for a walk, for reading, committing, looking, removing and claiming."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.files.ownership import Owner
from pipeline.files.store import NO_FILE_STAT, store_of
from pipeline.files.template import parse_template


@pytest.fixture
def root(tmp_path: Path) -> bytes:
    """An input root with two files."""
    for name in ("a.txt", "sub/b.txt"):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return os.fsencode(tmp_path / "in")


def test_what_is_walked_can_be_read(root: bytes) -> None:
    """A worker opens a source by the path under which the walk has found it."""
    store = store_of(root)
    found = [source.path for source in store.walk(root, exclude=["c*"])]
    assert found == [b"a.txt", b"sub/b.txt"]
    assert [Path(store.read(root) + os.fsdecode(path)).read_bytes() for path in found] == found


@pytest.mark.parametrize(
    "text", ["out/{dir}/{name}", "out/{stem}.txt", "out/{dir}/{stem}-{suffix}", "out/x{dir}/{name}"]
)
def test_outputs_of_a_span_are_looked_at_together(tmp_path: Path, root: bytes, text: str) -> None:
    """Sizes come first, times after them, in the order of the sources; what is no regular file counts as missing."""
    store, template = store_of(root), parse_template(text, tmp_path)
    sources = [b"a.txt", b"gone/c.txt", b"gone/d.txt", b"sub/b.txt"]
    committer = store.put("run", [])
    made = [committer.put(template.fill(source), source) for source in (sources[0], sources[3])]
    os.makedirs(template.fill(sources[2]))
    nothing = NO_FILE_STAT, NO_FILE_STAT
    sizes, times = (made[0].size_bytes, *nothing, made[1].size_bytes), (made[0].mtime_ns, *nothing, made[1].mtime_ns)
    assert store.stat_many(template, sources) == [*sizes, *times]
    store.remove(template.fill(sources[0]))
    assert store.stat_many(template, sources[:1]) == list(nothing)


def test_an_output_that_is_gone_cannot_be_removed(root: bytes) -> None:
    """Who removes is told so."""
    with pytest.raises(FileNotFoundError):
        store_of(root).remove(root + b"/gone")


def test_a_claimed_root_names_its_owner(tmp_path: Path) -> None:
    """The output folder is made, and says whose it is."""
    out = tmp_path / "out"
    store_of(os.fsencode(out)).claim(os.fsencode(out), Owner("id", "photos", "host", str(tmp_path)))
    assert json.loads((out / ".filemill").read_text())["pipeline"] == "photos"
