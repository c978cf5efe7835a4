"""Raw files, sidecars and films beside pictures: what a stage cannot take is counted, and in nobody's way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.pictures import encode, paint
from support.program import Pipeline
from support.project import Project

PICTURES = """
inputs: in
stages:
  - {name: web, uses: resize, with: {width: 8}, output: 'out/{dir}/{stem}.webp'}
engine: serial
"""
JPEG = encode(paint(16, 12), "JPEG")
TIFF = encode(paint(16, 12), "TIFF")
# What lies beside a picture of a camera or a telephone; a raw file begins as a TIFF does.
COMPANIONS = {
    "IMG_2.xmp": b"<x:xmpmeta/>",
    "IMG_2.CR2": TIFF,
    "IMG_2.dng": TIFF,
    "IMG_2.MOV": b"\0\0\0\x14ftypqt  ",
    "IMG_2": b"a note",
    "IMG_2.aae": b"",
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A picture with its companions."""
    project = Project(tmp_path, PICTURES)
    project.write("in/a/IMG_2.JPG", JPEG)
    for name, data in COMPANIONS.items():
        project.write(f"in/a/{name}", data)
    return project


def test_companions_are_in_nobodys_way(project: Project, pipeline: Pipeline) -> None:
    """The picture is made, the others are counted by their kinds, every night alike, and `plan` and `explain` agree."""
    for done in (1, 0):
        ran = pipeline("--json")
        said = json.loads(ran.stdout)
        assert (ran.returncode, said["done"], said["up_to_date"], said["failed"]) == (0, done, 1 - done, 0), ran.stderr
        assert (said["sources"], said["unmatched"]) == (7, 6)
        kinds = {"xmp": 1, "cr2": 1, "dng": 1, "mov": 1, "aae": 1, "without suffix": 1}
        assert said["kinds_unmatched"] == kinds
    assert list(project.outputs()) == ["a/IMG_2.webp"] and project.orphans() == []
    assert "6         0  unmatched, no stage reads them: " in pipeline("plan").stdout
    assert "an input that no stage can take" in pipeline("explain", "in/a/IMG_2.xmp").stdout


def test_a_night_without_news_counts_them_too(project: Project) -> None:
    """Ranges of files that are passed over whole have the same counts, also where none of them can be taken."""
    for number in range(1500):
        project.write(f"in/z/{number:04}.xmp", "x")
        project.write(f"in/b/{number:04}.jpg" if number < 3 else f"in/b/{number:04}.mov", JPEG if number < 3 else b"x")
    counts = set()
    for _ in range(3):
        summary = project.run()
        counts.add((summary.done + summary.up_to_date, summary.unmatched, summary.sources, summary.exit))
    assert counts == {(4, 3003, 3007, 0)}
    (project.folder / "in/a/IMG_2.JPG").unlink()
    assert project.orphans() == ["out/a/IMG_2.webp"]


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("bad.jpg", b"no picture", "error"),  # its name says that it is one
        ("empty.PNG", b"", "error"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "error"),  # as some telephones name them
        ("photo", JPEG, None),  # its first bytes say so
        ("photo.dat", TIFF, None),
        ("Photo.Of.Me", encode(paint(16, 12), "PNG"), None),
    ],
)
def test_what_may_be_a_picture_is_taken(tmp_path: Path, name: str, data: bytes, kind: str | None) -> None:
    """A damaged file fails by its name, and is not passed over."""
    project = Project(tmp_path, PICTURES)
    project.write(f"in/{name}", data)
    summary = project.run()
    assert (summary.done, summary.unmatched) == (kind is None, 0)
    assert [result.kind for _, result in summary.failures] == ([kind] if kind else [])


def test_two_pictures_still_contend(project: Project) -> None:
    """Nobody could tell which of them is meant."""
    project.write("in/a/IMG_2.png", encode(paint(16, 12), "PNG"))
    summary = project.run()
    assert {result.kind for _, result in summary.failures} == {"collision"} and summary.failed == 2


def test_what_settles_or_is_listed_is_in_nobodys_way_either(project: Project) -> None:
    """A sidecar that is being written beside a picture that was there."""
    project.edit("pipeline.yaml", "inputs: in", "inputs: {root: in, settle: 1h}")
    os.utime(project.folder / "in/a/IMG_2.JPG", (1, 1))
    summary = project.run()
    assert (summary.done, summary.settling, summary.unmatched, summary.exit) == (1, 0, 6, 0)
    listed = project.run(names=iter([b"a/IMG_2.JPG", b"a/IMG_2.xmp"]))
    assert (listed.up_to_date, listed.unmatched, listed.exit) == (1, 1, 0)


MIXED = """
inputs: in
stages:
  - {name: big, uses: larger_than, with: {width: 4}}
  - {name: web, uses: resize, with: {width: 8}, output: 'out/{dir}/{stem}.webp'}
  - {name: sums, from: inputs, uses: checksum, output: 'out/{dir}/{name}.sha256'}
  - {name: up, from: inputs, uses: upper, output: 'out/up/{dir}/{name}'}
engine: serial
"""


def test_each_branch_takes_what_it_can(tmp_path: Path) -> None:
    """A stage of Paths takes every file, one of texts no picture, and a filter what the next stage takes."""
    project = Project(tmp_path, MIXED)
    for name, data in (("a.JPG", JPEG), ("a.xmp", b"text"), ("b.mov", b"\0\0"), ("c.png", b"text, no picture")):
        project.write(f"in/{name}", data)
    for _ in range(2):
        summary = project.run()
        assert summary.unmatched == 0 and {str(origin) for origin, _ in summary.failures} == {"c.png"}
    assert sorted(project.outputs()) == [
        "a.JPG.sha256", "a.webp", "a.xmp.sha256", "b.mov.sha256", "c.png.sha256", "up/a.xmp", "up/c.png",
    ]  # fmt: skip


def test_what_was_made_once_is_not_forgotten(tmp_path: Path) -> None:
    """A file of which something was made fails when it becomes unreadable, and nothing is pruned."""
    project = Project(tmp_path, PICTURES)
    project.write("in/photo", JPEG)
    assert project.run().done == 1
    project.write("in/photo", "spoilt")
    summary = project.run()
    assert (summary.failed, summary.unmatched, project.orphans()) == (1, 0, [])
