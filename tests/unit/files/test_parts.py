"""The parts of a fan-out on disk: together or not at all, and never in the place of somebody else's file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import FileFailure
from pipeline.files.atomic import Committed, Committer, GiveName, temporary_for
from pipeline.files.parts import PartNames, Parts, find_parts, remove_temporaries_of
from pipeline.files.set_aside import SetAside
from pipeline.messages import Target
from pipeline.notes import Notes


def writer(data: bytes) -> Callable[[bytes, GiveName], tuple[Committed, Notes]]:
    """What commits a part with this content."""
    return lambda path, name: (Committer("run").put(path, data, name=name), {})


def parts_in(folder: Path, *owned: str, handed_ns: int = 0, is_again: bool = False) -> Parts:
    """The parts of one source, as `FOLDER/out/a-NAME`."""
    before = os.fsencode(folder / "out" / "a-")
    target = Target(
        "cut", before + b"{part}", around=(before, b""), owned=tuple(before + name.encode() for name in owned)
    )
    set_aside = SetAside(folder / "aside", folder)
    return Parts(target._replace(handed_ns=handed_ns), set_aside, is_again=is_again)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "out").iterdir()}


def test_parts_are_seen_together(tmp_path: Path) -> None:
    """Before the last part is made none has its name, and then all have."""
    parts = parts_in(tmp_path)
    for name in ("1", "2"):
        parts.add(name, writer(name.encode()))
        assert all(each.startswith(".filemill-") for each in files(tmp_path))
    made = parts.reveal(lambda: None)
    assert files(tmp_path) == {"a-1": b"1", "a-2": b"2"} and [each.name for each in made] == ["1", "2"]


def test_no_part_is_left_of_those_given_up(tmp_path: Path) -> None:
    """A failure after some parts leaves neither them nor temporaries."""
    parts = parts_in(tmp_path)
    parts.add("1", writer(b"1"))
    parts.discard()
    assert files(tmp_path) == {}


def test_a_file_of_somebody_elses_is_kept(tmp_path: Path) -> None:
    """Whether it was there before or comes in between, and the new parts are taken back."""
    parts = parts_in(tmp_path)
    for name in ("1", "2"):
        parts.add(name, writer(b"ours"))
    (tmp_path / "out" / "a-2").write_bytes(b"theirs")
    with pytest.raises(FileFailure, match="exists, not ours"):
        parts.reveal(lambda: None)
    assert files(tmp_path) == {"a-2": b"theirs"}
    with pytest.raises(FileFailure, match="exists, not ours"):
        parts_in(tmp_path).add("2", writer(b"ours"))


def test_a_part_made_before_is_replaced(tmp_path: Path) -> None:
    """What the ledger knows as ours gives way."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a-1").write_bytes(b"old")
    parts = parts_in(tmp_path, "1")
    parts.add("1", writer(b"new"))
    parts.reveal(lambda: None)
    assert files(tmp_path) == {"a-1": b"new"}


def test_what_a_worker_that_died_has_made_is_ours(tmp_path: Path) -> None:
    """It is younger than the job, which comes again; older files are not."""
    for number, again in enumerate((False, True)):
        before = parts_in(tmp_path, handed_ns=time.time_ns())
        before.add(str(number), writer(b"1"))
        before.reveal(lambda: None)
        parts = parts_in(tmp_path, handed_ns=1 if again else time.time_ns(), is_again=again)
        if again:
            parts.add(str(number), writer(b"2"))
            parts.reveal(lambda: None)
        else:
            with pytest.raises(FileFailure, match="exists, not ours"):
                parts.add(str(number), writer(b"2"))
    assert files(tmp_path) == {"a-0": b"1", "a-1": b"2"}


def test_parts_are_found_by_what_surrounds_their_names(tmp_path: Path) -> None:
    """Also where they lie in folders of their own; and the temporaries beside them go by their run."""
    for name in ("out/a-1.txt", "out/a-x.txt", "out/a-.txt", "out/b-1.txt", "out/a-é.txt", "out/p1/a.txt", "out/p2/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    out = os.fsencode(tmp_path / "out")
    assert [each.name for each in find_parts(out + b"/a-", b".txt")] == ["1", "x"]
    assert [(each.name, each.path) for each in find_parts(out + b"/p", b"/a.txt")] == [("1", out + b"/p1/a.txt")]
    left = [temporary_for(out + name, run) for name in (b"/a-2.txt", b"/p1/a.txt") for run in ("one", "two")]
    for path in left:
        Path(os.fsdecode(path)).touch()
    remove_temporaries_of(out + b"/p", b"/a.txt", ["one"])
    assert [os.path.exists(path) for path in left] == [False, True, False, True]
    assert list(find_parts(out + b"/none/", b"")) == []


@pytest.mark.parametrize("name", ["", "a/b", "é", "x y", "1\n"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    """A part's name is made of letters, digits, "_", "." and "-"."""
    with pytest.raises(FileFailure, match="may be in it"):
        PartNames("cut").take(name)


def test_parts_without_names_are_numbered() -> None:
    """The index has six digits, so that names sort as the parts come; a name comes once."""
    names = PartNames("cut")
    assert [names.take(None), names.take("x"), names.take(None)] == ["000001", "x", "000003"]
    with pytest.raises(FileFailure, match="two parts named 'x'"):
        names.take("x")
