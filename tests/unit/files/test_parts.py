"""The parts of a fan-out on disk: together or not at all, and never in the place of somebody else's file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import FileFailure
from pipeline.files.atomic import Committed, Committer, GiveName
from pipeline.files.parts import PartList, PartNames, Parts
from pipeline.messages import Target
from pipeline.notes import Notes


def writer(data: bytes) -> Callable[[bytes, GiveName], tuple[Committed, Notes]]:
    """What commits a part with this content."""
    return lambda path, name: (Committer("run").put(path, data, name=name), {})


def parts_in(folder: Path, *owned: str) -> Parts:
    """The parts of one source, as `FOLDER/out/a-NAME`."""
    before = os.fsencode(folder / "out" / "a-")
    target = Target("cut", before + b"{part}", (before, b""), tuple(before + name.encode() for name in owned))
    return Parts(b"a", target, PartList(folder / "parts", "run"))


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


def test_the_list_outlives_the_run_that_wrote_it(tmp_path: Path) -> None:
    """The next run reads which parts a killed one was about to write, and forgets them when it has seen to them."""
    parts_in(tmp_path).add("1", writer(b"1"))
    noted = list(PartList(tmp_path / "parts").noted("run"))
    assert [(each.name, each.size_bytes) for each in noted] == [(b"1", -1), (b"1", 1)]
    PartList(tmp_path / "parts").clear(["run"])
    assert list(PartList(tmp_path / "parts").noted()) == noted
    PartList(tmp_path / "parts").clear([])
    assert list(PartList(tmp_path / "parts").noted()) == []


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
