"""One pass over the tree, with real stages from real modules: what is made, what fails alone, what is left behind."""

from __future__ import annotations

import builtins
import dataclasses
import gc
import io
import os
import resource
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.worker_bench import Bench, worker_bench

from pipeline.files.atomic import temporary_for
from pipeline.files.template import OWNER_FILE
from pipeline.messages import Job, Result, Source, Target
from pipeline.worker import main as worker
from pipeline.worker.job import JobRunner
from pipeline.worker.source import SourceReading
from pipeline.worker.stage_call import StageCaller

STAGES = '''
import builtins, os
from pathlib import Path
from PIL import Image
from support.worker_bench import Bench, worker_bench
from pipeline import Item, Picture, Skip

CALLS = []

def upper(text: str) -> str:
    CALLS.append("upper")
    return text.upper()

def same(text: str, *, mark: str = "") -> str:
    CALLS.append("same")
    return text + mark

def same_bytes(data: bytes) -> bytes:
    return data

def copied(item: Item[Path]) -> Path:
    made = item.scratch / f"copied{item.value.suffix}"
    made.write_bytes(item.value.read_bytes())
    return made

def load(image: Image.Image) -> Image.Image:
    CALLS.append("load")
    return image

def blacken(image: Image.Image) -> Image.Image:
    image.paste(0, (0, 0, *image.size))
    return image

def halve(picture: Picture) -> Image.Image:
    CALLS.append("halve")
    return picture.load((picture.size[0] // 2, picture.size[1] // 2))

def wide(picture: Picture) -> bool:
    return picture.size[0] > picture.size[1]

def no(text: str) -> bool:
    return False

def yes(text: str) -> bool:
    return True

def black_filter(image: Image.Image) -> bool:
    image.paste(0, (0, 0, *image.size))
    return True

def skip(text: str) -> str:
    raise Skip("not this one")

def skip_silently(text: str) -> str:
    raise Skip

def fail(text: str, *, how: str = "ValueError") -> str:
    raise getattr(builtins, how)("on purpose")

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even this")

def mute(text: str) -> str:
    raise Mute

def name_of(path: Path) -> str:
    return path.name

def folder_in_scratch(item: Item[bytes]) -> Path:
    (item.scratch / "made").mkdir()
    return item.scratch / "made"

def hard_link(item: Item[Path]) -> Path:
    os.link(item.value, item.scratch / "same")
    return item.scratch / "same"

def nothing(text: str) -> str:
    pass

def number(text: str) -> str:
    return 7

def maybe(text: str) -> bool:
    return "yes"

def cmyk(image: Image.Image) -> Image.Image:
    return image.convert("CMYK")

def mode(image: Image.Image) -> str:
    return image.mode

def describe(item: Item[str]) -> str:
    (item.scratch / "note").write_text("x")
    return f"{item.source}|{item.value}|{item.part}|{item.scratch.is_dir()}"

def bare(item: Item) -> str:
    return type(item.value).__name__

def in_scratch(item: Item[bytes]) -> Path:
    made = item.scratch / "made"
    made.write_bytes(item.value * 2)
    os.chmod(made, 0o600)
    return made

def link_in_scratch(item: Item[Path]) -> Path:
    link = item.scratch / "link"
    link.symlink_to(item.value)
    return link

def change(path: Path) -> str:
    path.write_text("changed by the stage")
    return "x"

def delete(path: Path) -> str:
    path.unlink()
    return "x"

def touch_source(item: Item[str]) -> str:
    os.utime(Path(os.environ["SOURCE_ROOT"]) / item.source, (1, 1))
    return item.value

class Counter:
    """Counts what it has seen."""
    def __init__(self, *, start: int = 0) -> None:
        self.seen = start
    def __call__(self, text: str) -> str:
        self.seen += 1
        return str(self.seen)
'''


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A worker for the stages above."""
    monkeypatch.setenv("SOURCE_ROOT", str(tmp_path / "in"))
    with worker_bench(tmp_path, STAGES) as bench:
        yield bench


def statuses(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.status for name, result in results.items()}


# -- one pass ----------------------------------------------------------------------------------------------------------


def test_every_value_is_made_once_however_many_read_it(bench: Bench) -> None:
    """A stage runs once for all that descend from it, and not at all for outputs that are not wanted."""
    bench.start(("upper", None), ("same-a", "upper", {"mark": "a"}), ("same-b", "upper", {"mark": "b"}), ("no", None))
    bench.text("x.txt")
    results = bench.work("x.txt", "upper", "same-a", "same-b")

    assert statuses(results) == {"upper": "done", "same-a": "done", "same-b": "done"}
    assert (bench.made("upper"), bench.made("same-a"), bench.made("same-b")) == ("HELLO", "HELLOa", "HELLOb")
    assert bench.calls == ["upper", "same", "same"]


def test_only_what_is_wanted_is_made(bench: Bench) -> None:
    """A thumb alone is made through its parent, whose own output is left untouched."""
    bench.start(("upper", None), ("same-thumb", "upper"), ("same-other", "upper"))
    bench.text("x.txt")
    results = bench.work("x.txt", "same-thumb")

    assert set(results) == {"same-thumb"}
    assert [path.name for path in bench.out.iterdir()] == ["same-thumb.txt"]
    assert bench.calls == ["upper", "same"]


def test_the_source_is_read_once_for_all_who_want_the_same(bench: Bench) -> None:
    """Two stages that want the picture loaded share one decoding: the second is served though the file is gone."""
    bench.start(("load-a", None), ("load-b", None), ("upper", None), ("same", None))
    bench.picture("x.png")
    bench.text("x.txt")
    for name in ("x.png", "x.txt"):
        os.utime(bench.root / name, (1e9, 1e9))
    opened: list[bytes] = []

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)):
            opened.append(os.fsencode(args[0]))

    sys.addaudithook(note)
    bench.work("x.png", "load-a", "load-b", suffix=".png")
    bench.work("x.txt", "upper", "same")

    assert opened.count(bytes(bench.root / "x.png")) == 2  # for its digest, and for the picture
    assert opened.count(bytes(bench.root / "x.txt")) == 1  # a stage is given the very text that was digested


def test_a_job_that_has_ended_is_gone_at_once(bench: Bench) -> None:
    """It holds the contents of its source, and the next job of a worker follows long before any cycle is looked for."""
    bench.start(("upper", None), ("yes", None), ("same", "yes"), ("copied", None), ("no", None), ("fail", None))
    bench.text("x.txt")
    gc.collect()  # what other tests have left
    gc.disable()
    try:
        bench.work("x.txt", "upper", "same", "copied", "no", "fail")
        left = [each for each in gc.get_objects() if isinstance(each, (JobRunner, StageCaller, SourceReading))]
    finally:
        gc.enable()
    assert left == []


def test_the_result_says_what_stat_says(bench: Bench) -> None:
    """Size and time of a result are those of the file under its final name."""
    bench.start(("upper", None))
    bench.text("x.txt")
    result = bench.work("x.txt", "upper")["upper"]
    found = os.stat(bench.out / "upper.txt")

    assert (result.size_bytes, result.mtime_ns) == (found.st_size, found.st_mtime_ns)
    assert stat.S_IMODE(found.st_mode) == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


SIBLINGS = [
    ("blacken", "load-next"), ("load-next", "blacken"), ("blacken", "halve"), ("halve", "blacken"),
    ("halve", "halve-next"), ("blacken", "wide"), ("black_filter", "load-next"), ("black_filter", "halve"),
    ("halve", "load-next", "blacken"), ("blacken", "halve", "load-next"), ("wide", "halve", "load-next"),
]  # fmt: skip


@pytest.mark.parametrize("siblings", SIBLINGS, ids="+".join)
@pytest.mark.parametrize("parent", ["load", "halve-parent", None])
def test_no_stage_spoils_its_siblings_value(bench: Bench, siblings: tuple[str, ...], parent: str | None) -> None:
    """Whoever paints over its image or closes its Picture does so for itself, in whatever order they come."""
    tree = [(parent, None)] if parent else []
    bench.start(*tree, *((name, parent) for name in siblings))
    bench.picture("x.png")
    results = bench.work("x.png", *siblings, suffix=".png")

    for name in siblings:
        assert results[name].status == "done", results[name].text
        if name in ("wide", "black_filter") and parent is None:
            continue  # what a filter of the source hands on is the source
        assert bench.pixel(name) == ((0, 0, 0) if name in ("blacken", "black_filter") else (255, 0, 0))


def test_an_output_is_not_what_a_later_stage_made_of_it(bench: Bench) -> None:
    """A stage's output is committed before anyone below can change the value."""
    bench.start(("load", None), ("blacken", "load"))
    bench.picture("x.png")
    bench.work("x.png", "load", "blacken", suffix=".png")

    assert (bench.pixel("load"), bench.pixel("blacken")) == ((255, 0, 0), (0, 0, 0))


def test_what_a_stage_makes_is_plain_again_for_the_next(bench: Bench) -> None:
    """`Image.Image` is L, LA, RGB or RGBA for every stage, whatever the one before it made."""
    bench.start(("cmyk", None), ("mode", "cmyk"))
    bench.picture("x.png")
    bench.work("x.png", "mode")

    assert bench.made("mode") == "RGB"


def test_a_class_is_built_once(bench: Bench) -> None:
    """A class lives as long as its worker, and takes its options once."""
    bench.start(("Counter", None, {"start": 5}))
    bench.text("x.txt")
    bench.work("x.txt", "Counter")
    bench.work("x.txt", "Counter")

    assert bench.made("Counter") == "7"


def test_values_are_converted_on_the_way(bench: Bench) -> None:
    """Text to bytes, bytes to a file and a file to text: the framework puts in what is missing."""
    bench.start(("upper", None), ("same_bytes", "upper"), ("copied", "same_bytes"), ("same", "copied"))
    bench.text("x.txt", "a\r\nü")
    results = bench.work("x.txt", "upper", "same_bytes", "copied", "same")

    assert set(statuses(results).values()) == {"done"}
    assert {(bench.out / f"{name}.txt").read_bytes() for name in results} == {"A\r\nÜ".encode()}


# -- left out ----------------------------------------------------------------------------------------------------------


def test_a_filter_hands_on_the_value_before_it(bench: Bench) -> None:
    """True lets the value through as it was, False leaves the file out of all that is below."""
    bench.start(("yes", None), ("upper-a", "yes"), ("no", None), ("upper-b", "no"), ("upper-c", "upper-b"))
    bench.text("x.txt")
    results = bench.work("x.txt", "upper-a", "upper-b", "upper-c")

    assert statuses(results) == {"upper-a": "done", "upper-b": "skipped", "upper-c": "skipped"}
    assert results["upper-c"].text == "left out by stage 'no'"


def test_a_skip_gives_its_reason(bench: Bench) -> None:
    """Skip leaves out what is below it, with the author's words, or ours where there are none."""
    bench.start(("skip", None), ("upper", "skip"), ("skip_silently", None), ("same", None))
    bench.text("x.txt")
    results = bench.work("x.txt", "skip", "upper", "skip_silently", "same")

    assert [results[name].text for name in ("skip", "upper")] == ["not this one"] * 2
    assert results["skip_silently"].text == "left out by stage 'skip_silently'"
    assert results["same"].status == "done"
    assert not (bench.out / "skip.txt").exists()


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ValueError", "SystemExit", "KeyboardInterrupt", "BaseException", "GeneratorExit"])
def test_whatever_a_stage_raises_fails_only_what_is_below_it(bench: Bench, how: str) -> None:
    """Siblings before and after are made, and the worker takes the next job."""
    bench.start(("upper", None), ("fail", None, {"how": how}), ("same-below", "fail"), ("same", None))
    bench.text("x.txt")
    results = bench.work("x.txt", "upper", "fail", "same-below", "same")

    assert statuses(results) == {"upper": "done", "fail": "failed", "same-below": "failed", "same": "done"}
    for name in ("fail", "same-below"):
        assert results[name].text == f"{how}: on purpose (in stage 'fail')"
        kind = "error" if issubclass(getattr(builtins, how), Exception) else "crashed"
        assert results[name].kind == kind and "mine.py" in results[name].detail
    assert statuses(bench.work("x.txt", "upper")) == {"upper": "done"}


def test_out_of_memory_is_a_kind_of_its_own(bench: Bench) -> None:
    """A MemoryError is told apart, since another machine might manage."""
    bench.start(("fail", None, {"how": "MemoryError"}))
    bench.text("x.txt")

    assert bench.work("x.txt", "fail")["fail"].kind == "memory"


def test_an_exception_that_cannot_be_printed_is_a_failure_like_any(bench: Bench) -> None:
    """Nothing that a stage raises ever leaves its job."""
    bench.start(("mute", None))
    bench.text("x.txt")

    assert "Mute" in bench.work("x.txt", "mute")["mute"].text


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("nothing", "stage 'nothing' returned None; return a value, or raise Skip(reason)"),
        ("number", "stage 'number' returned int, not str"),
        ("maybe", "stage 'maybe' returned str, not True or False"),
    ],
)
def test_what_a_stage_may_not_return(bench: Bench, stage: str, says: str) -> None:
    """None, another type than it said, and a filter's maybe are failures that name the stage and its line."""
    bench.start((stage, None), ("same", stage))
    bench.text("x.txt")
    result = bench.work("x.txt", "same")["same"]

    assert result.text.startswith(says) and "mine.py:" in result.text
    assert not bench.out.exists()


def test_a_file_that_is_no_text_fails_alone(bench: Bench) -> None:
    """What cannot be converted fails those that want it, and nobody else."""
    bench.start(("upper", None), ("same_bytes", None), ("load", None))
    (bench.root / "x").write_bytes(b"\xff\xfe")
    results = bench.work("x", "upper", "same_bytes", "load")

    assert statuses(results) == {"upper": "failed", "same_bytes": "done", "load": "failed"}
    assert results["upper"].text == "not UTF-8: byte 0xff at offset 0"
    assert results["load"].text == "not a picture"


def test_a_failed_output_leaves_the_old_one(bench: Bench) -> None:
    """What was there before stays until something whole replaces it."""
    bench.start(("load", None))
    bench.picture("x.png")
    bench.out.mkdir()
    (bench.out / "load.doc").write_text("old")
    result = bench.work("x.png", "load", suffix=".doc")["load"]

    assert result.text == "no picture can be written with the suffix '.doc'"
    assert bench.made("load", ".doc") == "old"


def test_an_output_that_fails_does_not_fail_its_children(bench: Bench) -> None:
    """What could not be saved can still be used."""
    bench.start(("load", None), ("mode", "load"))
    bench.picture("x.png")
    results = bench.work("x.png", "load", "mode", suffix=".doc")

    assert statuses(results) == {"load": "failed", "mode": "done"}


# -- the source --------------------------------------------------------------------------------------------------------


def test_a_source_that_vanished_is_said_so(bench: Bench) -> None:
    """Gone between the plan and its turn: every target says so."""
    bench.start(("upper", None), ("same", "upper"))
    results = bench.work("gone.txt", "upper", "same")

    assert {result.kind for result in results.values()} == {"vanished"}


def test_the_outcome_has_the_source_as_the_worker_saw_it(bench: Bench) -> None:
    """A source changed since the plan is done as it is now, and remembered so."""
    bench.start(("upper", None))
    bench.text("x.txt")
    os.utime(bench.root / "x.txt", (5, 5))
    outcome = worker.work(Job(Source(b"x.txt", 99, 99), (Target("upper", os.fsencode(bench.out / "u.txt")),)))

    assert outcome.source == Source(b"x.txt", 5, 5_000_000_000)
    assert outcome.results[0].status == "done"


@pytest.mark.parametrize("stage", ["change", "delete"])
def test_a_stage_that_changes_its_input_fails(bench: Bench, stage: str) -> None:
    """Inputs are for reading; the stage that did it is named, and what it made is not kept."""
    bench.start((stage, None), ("same", stage))
    bench.text("x.txt")
    results = bench.work("x.txt", stage, "same")

    kind = "changed" if stage == "change" else "vanished"
    assert all(result.text.startswith(f"{kind} while stage '{stage}' (") for result in results.values())
    assert {(each.kind, each.code, each.moved_under) for each in results.values()} == {(kind, "in_hand", stage)}
    assert not bench.out.exists()


def test_a_source_that_changes_while_it_is_read_is_done_next_time(bench: Bench) -> None:
    """What was made of half the old and half the new file is thrown away."""
    bench.start(("touch_source", None), ("same", "touch_source"))
    bench.text("x.txt")
    results = bench.work("x.txt", "touch_source", "same")

    assert {result.text for result in results.values()} == {"changed while reading; the next run does it"}
    assert not bench.out.exists() or not list(bench.out.iterdir())


def test_a_source_of_any_name(bench: Bench) -> None:
    """255 bytes, no UTF-8, a newline: the file is read and its output written."""
    bench.start(("upper", None), ("describe", None))
    for name in (b"n" * 251 + b".txt", b"\xff\xfe\n x.txt"):
        Path(os.fsdecode(os.fsencode(bench.root) + b"/" + name)).write_text("hello")
        target = os.fsencode(bench.out) + b"/" + name
        outcome = worker.work(Job(Source(name, 5, 5), (Target("upper", target),)))
        assert outcome.results[0].status == "done", outcome.results[0].text
        with open(target, "rb") as made:
            assert made.read() == b"HELLO"


# -- the scratch folder ------------------------------------------------------------------------------------------------


def test_an_item_tells_where_the_value_comes_from(bench: Bench) -> None:
    """The source's name, the value converted, no part, and a folder that is there and goes away."""
    bench.start(("describe", None), ("bare", None), ("bare-text", "describe"))
    (bench.root / "a").mkdir()
    bench.text("a/x.txt")
    bench.work("a/x.txt", "describe", "bare", "bare-text")

    assert bench.made("describe") == "a/x.txt|hello|None|True"
    assert bench.made("bare") in ("PosixPath", "Path")
    assert bench.made("bare-text") == "str"


def test_a_file_made_in_scratch_becomes_the_output(bench: Bench) -> None:
    """It is moved, with the permissions that any new file has, and not those of a temporary."""
    bench.start(("in_scratch", None))
    bench.text("x.txt")
    result = bench.work("x.txt", "in_scratch")["in_scratch"]
    found = os.stat(bench.out / "in_scratch.txt")

    assert bench.made("in_scratch") == "hellohello"
    assert stat.S_IMODE(found.st_mode) == 0o666 & ~current_umask()
    assert (result.size_bytes, result.mtime_ns) == (found.st_size, found.st_mtime_ns)


def test_a_file_made_in_scratch_that_others_still_read_is_copied(bench: Bench) -> None:
    """Those below get the file though it is an output as well."""
    bench.start(("in_scratch", None), ("upper", "in_scratch"), ("copied", "in_scratch"))
    bench.text("x.txt")
    bench.work("x.txt", "in_scratch", "upper", "copied")

    assert bench.made("in_scratch") == bench.made("copied") == "hellohello"
    assert bench.made("upper") == "HELLOHELLO"


def test_a_commit_never_takes_the_source(bench: Bench) -> None:
    """A stage that returns a link to its input has it copied, with no more permissions than it has."""
    stage = "link_in_scratch"
    bench.start((stage, None))
    bench.text("x.txt")
    os.chmod(bench.root / "x.txt", 0o600)
    assert bench.work("x.txt", stage)[stage].status == "done"
    made = bench.out / f"{stage}.txt"

    assert (bench.root / "x.txt").read_text() == made.read_text() == "hello"
    assert not made.is_symlink() and not made.samefile(bench.root / "x.txt")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_a_folder_is_no_output(bench: Bench) -> None:
    """A returned Path is a file; a folder made in scratch is refused, not moved."""
    bench.start(("folder_in_scratch", None))
    bench.text("x.txt")

    assert bench.work("x.txt", "folder_in_scratch")["folder_in_scratch"].status == "failed"
    assert not (bench.out / "folder_in_scratch.txt").exists()


def test_a_hard_link_to_the_source_is_copied(bench: Bench) -> None:
    """An output never shares its content with the source, nor changes who may read it."""
    bench.start(("hard_link", None))
    bench.text("x.txt")
    os.chmod(bench.root / "x.txt", 0o600)
    bench.work("x.txt", "hard_link")

    assert not (bench.out / "hard_link.txt").samefile(bench.root / "x.txt")
    assert stat.S_IMODE((bench.root / "x.txt").stat().st_mode) == 0o600


def test_a_scratch_file_handed_to_two_siblings_serves_both(bench: Bench) -> None:
    """Two stages that read the same scratch file both have their output, though that of one is moved first."""
    bench.start(("in_scratch", None), ("copied-a", "in_scratch"), ("copied-b", "in_scratch"))
    bench.text("x.txt")
    results = bench.work("x.txt", "copied-a", "copied-b")

    assert statuses(results) == {"copied-a": "done", "copied-b": "done"}, results
    assert bench.made("copied-a") == bench.made("copied-b") == "hellohello"


def test_an_image_for_a_program_lies_in_scratch_without_loss(bench: Bench) -> None:
    """A stage that wants a Path from one that makes an image gets a PNG of it."""
    bench.start(("load", None), ("copied", "load"))
    noise = Image.effect_noise((30, 20), 90)
    noise.save(bench.root / "x.png")
    bench.work("x.png", "copied", suffix=".png")

    assert Image.open(io.BytesIO((bench.out / "copied.png").read_bytes())).tobytes() == noise.tobytes()


# -- the machine -------------------------------------------------------------------------------------------------------


def test_temporaries_of_killed_runs_are_removed(bench: Bench) -> None:
    """Whoever redoes a target removes what unclean runs left beside it, and nothing else."""
    bench.start(("upper", None), unclean_runs=("run0",))
    bench.text("x.txt")
    bench.out.mkdir()
    target = os.fsencode(bench.out / "upper.txt")
    left, other = (Path(os.fsdecode(temporary_for(target, run))) for run in ("run0", "alive"))
    left.touch()
    other.touch()
    outcome = worker.work(Job(Source(b"x.txt", 5, 5), (Target("upper", target),)))

    assert outcome.results[0].status == "done"
    assert not left.exists() and other.exists()


def test_what_the_machine_refuses_is_no_files_fault(bench: Bench) -> None:
    """A write that the machine refuses is told apart, so that no file is blamed for it."""
    bench.start(("name_of", None))
    bench.text("x.txt")
    target = Target("name_of", os.fsencode(bench.out / "x.txt"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        outcome = worker.work(Job(Source(b"x.txt", 5, 5), (target,)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert outcome.results[0].status == "failed"
    assert (
        outcome.environment
        == f"{bench.out}/x.txt: too many open files (at most {lowest_free} in one process: ulimit -n)"
    )


def test_a_target_that_cannot_be_one_fails_alone(bench: Bench) -> None:
    """A folder in the target's place costs this output only, and is the machine's fault no more than the file's."""
    bench.start(("upper", None), ("same", "upper"))
    bench.text("x.txt")
    (bench.out / "upper.txt").mkdir(parents=True)
    results = bench.work("x.txt", "upper", "same")

    assert statuses(results) == {"upper": "failed", "same": "done"}
    assert "something that is no file stands in its place" in results["upper"].text
    assert bench.outcome is not None and bench.outcome.environment == ""


def test_a_file_where_the_output_folder_should_be_fails_the_job_not_the_worker(bench: Bench) -> None:
    """One result a target, whatever stands in the way, after a killed run as well."""
    bench.start(("upper", None), unclean_runs=("run0",))
    bench.text("x.txt")
    bench.out.write_text("a file")

    assert bench.work("x.txt", "upper")["upper"].status == "failed"


def test_the_stage_in_hand_is_announced(bench: Bench) -> None:
    """A supervisor is told which stage runs, and that it has ended, even when it raised."""
    bench.start(("upper", None), ("fail", "upper"))
    bench.text("x.txt")
    told: list[int] = []
    worker.work(Job(Source(b"x.txt", 5, 5), (Target("fail", os.fsencode(bench.out / "f.txt")),)), told.append)

    assert told == [0, -1, 1, -1]


def test_a_folder_that_is_lost_before_the_name_is_given_is_no_fault_of_the_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes the output folder away between the writing of a temporary and its naming."""
    bench.out.mkdir()
    (bench.out / OWNER_FILE).touch()
    bench.start(("upper", None))
    setup = dataclasses.replace(bench.setup, output_folders=(os.fsencode(bench.out),))
    worker.start(setup.pack())
    bench.text("x.txt")
    link = os.link

    def lose(*arguments: Any, **more: Any) -> None:
        bench.out.rename(bench.folder / "away")
        link(*arguments, **more)

    monkeypatch.setattr(os, "link", lose)
    found = os.stat(bench.root / "x.txt")
    target = Target("upper", os.fsencode(bench.out / "upper.txt"), is_new=True)
    outcome = worker.work(Job(Source(b"x.txt", found.st_size, found.st_mtime_ns), (target,)))
    assert "was removed or unmounted during the run" in outcome.environment
