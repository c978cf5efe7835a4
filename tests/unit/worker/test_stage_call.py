"""One call of a stage: what it is given, what it must not do, and what becomes of an exception."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker_bench import Bench, worker_bench

from pipeline.errors import FileFailure, SourceMoved
from pipeline.messages import Target
from pipeline.stage.values import BYTES, PATH, PICTURE, TEXT, Kind
from pipeline.worker.stage_call import SharedValue, error_line, failed

STAGES = """
import threading
from pathlib import Path
from pipeline import Item

def copied(item: Item[Path]) -> Path:
    made = item.scratch / "made.txt"
    made.write_text(item.value.read_text())
    return made

def spoil(path: Path) -> str:
    path.write_text("spoilt")
    return "spoilt"

def read(path: Path) -> str:
    return path.read_text()

def same(path: Path) -> Path:
    return path

def missing(path: Path) -> Path:
    return Path("/nowhere/at/all")

def beside(path: Path) -> Path:
    made = path.with_name("made")
    made.write_text("x")
    return made

def leak(text: str) -> str:
    for _ in range(10):
        threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()
    return text

class Pooled:
    def __init__(self) -> None:
        self.threads = [threading.Thread(target=threading.Event().wait, args=(3,), daemon=True) for _ in range(3)]
    def __call__(self, text: str) -> str:
        while self.threads:
            self.threads.pop().start()
        return text
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker for stages of bad manners, with one source."""
    with worker_bench(tmp_path, STAGES) as bench:
        bench.text("a.txt", "text")
        yield bench


def line_of(text: str) -> int:
    """The line of the stages' module on which something stands."""
    return STAGES[: STAGES.index(text)].count("\n") + 1


# -- what a stage must not do ------------------------------------------------------------------------------------------


def test_a_file_that_others_read_is_not_changed(bench: Bench) -> None:
    """A stage that changes its input in place beside a sibling fails; alone it may."""
    bench.start(("copied", None), ("spoil", "copied"), ("read", "copied"))
    results = bench.work("a.txt", "spoil", "read")
    text = results["spoil"].text
    assert text.startswith("stage 'spoil' changed its input, which other stages read too")
    assert f"mine.py:{line_of('def spoil')})" in text
    assert bench.work("a.txt", "spoil")["spoil"].status == "done"
    assert (bench.root / "a.txt").read_text() == "text"


def test_a_source_is_not_changed(bench: Bench) -> None:
    """Nor is a source, whoever reads it."""
    bench.start(("spoil", None))
    result = bench.work("a.txt", "spoil")["spoil"]
    assert result.kind == "changed" and result.text.startswith("changed while stage 'spoil' (")
    assert f"mine.py:{line_of('def spoil')}) had it" in result.text


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("same", "stage 'same' returned the Path of its input; return a file of its own"),
        ("missing", "stage 'missing' returned the Path '/nowhere/at/all', which does not exist"),
        ("beside", "stage 'beside' made '{root}/made' among the inputs; take an Item and write into its scratch"),
    ],
)
def test_which_files_are_no_result(bench: Bench, stage: str, says: str) -> None:
    """The stage's own input, a file that is not there, and one that the next run would read."""
    bench.start((stage, None))
    assert bench.work("a.txt", stage)[stage].text.startswith(says.format(root=bench.root))


def test_threads_are_not_left_behind(bench: Bench) -> None:
    """A stage that leaves more threads with every file fails when they are many; one that keeps a few does not."""
    bench.start(("leak", None), ("Pooled", None))
    results = [bench.work("a.txt", "leak")["leak"] for _ in range(8)]
    assert results[0].status == "done" and results[-1].status == "failed"
    assert results[-1].text.startswith("stage 'leak' leaves its threads running: there are ")
    assert f"mine.py:{line_of('def leak')})" in results[-1].text
    assert {bench.work("a.txt", "Pooled")["Pooled"].status for _ in range(8)} == {"done"}


# -- the shares of a value ---------------------------------------------------------------------------------------------

LIST = Kind("list", lambda path: [], lambda value, file: None, ".list", copy=list)


def shared(value: object, kind: Kind, *wanted: Kind) -> SharedValue:
    """A value with consumers that want these kinds, none of which needs a file."""

    def new_file(suffix: str) -> Path:
        raise AssertionError(f"nobody needs a file {suffix}")

    return SharedValue(value, kind, {}, list(wanted), new_file)


def test_all_consumers_but_the_last_are_given_a_copy() -> None:
    """So no stage can spoil its sibling's value, and none is copied in vain."""
    value = [1]
    several = shared(value, LIST, LIST, LIST)
    first, last = several.take(0), several.take(1)
    assert first == last == [1] and first is not value and last is value


def test_a_conversion_is_made_once(tmp_path: Path) -> None:
    """Two consumers of a file's text read it once."""
    file = tmp_path / "a"
    file.write_text("text")
    several = shared(file, PATH, TEXT, TEXT)
    assert several.take(0) == "text"
    file.unlink()
    assert several.take(1) == "text"


def test_what_passes_a_filter_is_the_value_from_before_it() -> None:
    """A filter sees its own kind, and what goes on is what came."""
    alone = shared("text", TEXT, BYTES)
    assert alone.after_filter(0, alone.take(0)) == "text"
    value = [1]
    several = shared(value, LIST, LIST, LIST)
    passed = several.after_filter(0, several.take(0))
    assert passed == value and passed is not value


def test_only_a_file_that_several_read_is_shared(tmp_path: Path) -> None:
    """One that is read by one stage alone may be changed by it."""
    assert shared(tmp_path, PATH, PATH, TEXT).shared_path(0) == tmp_path
    assert shared(tmp_path, PATH, PATH, TEXT).shared_path(1) is None
    assert shared(tmp_path, PATH, PATH).shared_path(0) is None


def test_a_picture_is_closed_when_nobody_wants_it_any_more() -> None:
    """Its pixels are many; it stays open as long as a later stage reads it."""

    class Picture:
        is_open = True

        def close(self) -> None:
            self.is_open = False

    picture = Picture()
    several = shared(picture, PICTURE, PICTURE, PICTURE)
    several.release(0)
    assert picture.is_open
    several.release(1)
    assert not picture.is_open


# -- what a stage raised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text", "kind"),
    [
        (ValueError("two\nlines"), "ValueError: two lines (in stage 'up')", "error"),
        (ValueError(), "ValueError (in stage 'up')", "error"),
        (FileFailure("not a picture"), "not a picture", "error"),
        (MemoryError(), "MemoryError (in stage 'up')", "memory"),
        (SystemExit(3), "SystemExit: 3 (in stage 'up')", "crashed"),
        (SourceMoved("vanished"), error_line(SourceMoved("vanished")), "vanished"),
    ],
)
def test_an_exception_becomes_a_result(error: BaseException, text: str, kind: str) -> None:
    """In one line, with the stage where the sentence is not ours, and a kind that says what may help."""
    result = failed(Target("up", b"/out/a"), error, "up")
    assert (result.stage, result.path, result.status) == ("up", b"/out/a", "failed")
    assert (result.text, result.kind, result.detail) == (text, kind, "")
