"""The scratch folder of one job: there when it is needed, and gone with the job."""

from __future__ import annotations

from pathlib import Path

from pipeline.worker.scratch import Scratch


def test_the_folder_is_created_when_it_is_needed(tmp_path: Path) -> None:
    """A job that needs none pays for none, and leaves none."""
    scratch = Scratch(tmp_path / "run", tmp_path, b"")
    scratch.remove(tmp_path / "set-aside")
    assert list(tmp_path.iterdir()) == []
    file = scratch.new_file(".txt")
    file.write_text("x")
    assert file != scratch.new_file(".txt") and scratch.holds(file)
    scratch.remove(tmp_path / "set-aside")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_is_linked_there_does_not_lie_there(tmp_path: Path) -> None:
    """Nor does a path that leads out of it: a file that it holds may be renamed."""
    scratch = Scratch(tmp_path / "run", tmp_path, b"")
    (tmp_path / "source").write_text("x")
    link = scratch.create() / "link"
    link.symlink_to(tmp_path / "source")
    assert not scratch.holds(link) and not scratch.holds(scratch.create() / ".." / ".." / "source")


def test_the_files_of_a_part_go_with_it(tmp_path: Path) -> None:
    """Those that a stage made of it as well; older ones stay."""
    scratch = Scratch(tmp_path / "run", tmp_path, b"")
    kept = scratch.new_file(".txt")
    begun = scratch.begin_part()
    ours, made = scratch.new_file(".png"), scratch.create() / "made"
    for file in (kept, ours, made):
        file.write_text("x")
    scratch.add_part_file(made)
    scratch.end_part(begun)
    assert list(scratch.create().iterdir()) == [kept]
