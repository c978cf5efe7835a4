"""`--files-from`: a list of names narrows which jobs run, and never says what exists."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.odd_names import ODD_NAMES
from support.program import Pipeline
from support.project import ONE_STAGE, Project, contents_below
from support.trees import PATHS, make

from pipeline.errors import UsageError
from pipeline.files.walk import Walk
from pipeline.ledger.ledger import Ledger
from pipeline.planning.selection import FileList, read_names

FRESH = ("up-to-date", "up to date")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Five files, of which one is done and another one's output is an orphan."""
    project = Project(tmp_path)
    for name in ("a", "b", "c", "sub/d", "gone"):
        project.write(f"in/{name}", name)
    project.run(only="/b")
    project.run(only="gone")
    (tmp_path / "in/gone").unlink()
    return project


def listing(root: Path | bytes, names: list[bytes], **rules: object) -> tuple[list[bytes], Walk]:
    """The sources of a list, and the walk by whose rules they were looked up."""
    walk = Walk(os.fsencode(root), **rules)  # type: ignore[arg-type]
    with closing(Ledger(None)) as ledger:
        return [source.path for source in FileList(os.fsencode(root), walk, ledger, names)], walk


# -- the list ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\n\n\nb", [b"a", b"b"]),
        (b" a \n\xff\n-x\n", [b" a ", b"\xff", b"-x"]),
        (b"a\0b\0", [b"a", b"b"]),
        (b"new\nline\0b", [b"new\nline", b"b"]),
        (b"\0\0a\0\0", [b"a"]),
        (b"a\r\n", [b"a\r"]),
        (b"x" * 4096 + b"\0" + b"y\nz\0", [b"x" * 4096, b"y\nz"]),
        (b"name\n" * 50_000, [b"name"] * 50_000),
        (b"na\nme\0" * 50_000, [b"na\nme"] * 50_000),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_names_end_in_newlines_or_nul(tmp_path: Path, content: bytes, names: list[bytes]) -> None:
    """NUL where the first name ends so, and then newlines are part of names; nothing is stripped."""
    (tmp_path / "list").write_bytes(content)
    assert list(read_names(str(tmp_path / "list"))) == names


@pytest.mark.parametrize(("name", "said"), [("nowhere", "No such file"), (".", "Is a directory")])
def test_a_list_that_cannot_be_read(project: Project, pipeline: Pipeline, name: str, said: str) -> None:
    """Exit 2 in one line, before anything is run."""
    for verb in ("run", "plan"):
        ran = pipeline(verb, "--files-from", name)
        assert (ran.returncode, ran.stdout) == (2, "") and said in ran.stderr and ran.stderr.count("\n") == 1


NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)


@given(st.lists(NAMES, max_size=30), st.integers(1, 9))
def test_any_name_comes_through(names: list[bytes], block: int) -> None:
    """Whatever bytes a name has, newlines among them, ended by NUL it comes out as it went in."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(name + b"\0" for name in names))
        file.flush()
        assert list(read_names(file.name)) == names
        plain = [name for name in names if b"\n" not in name]
        file.seek(0)
        file.truncate()
        file.write(b"\n" * block + b"\n".join(plain))
        file.flush()
        assert list(read_names(file.name)) == plain


def test_what_is_no_list_is_said_so(tmp_path: Path) -> None:
    """A gigabyte without an end of line is not read into memory."""
    (tmp_path / "list").write_bytes(b"x" * 300_000)
    with pytest.raises(UsageError, match="no list of names"):
        list(read_names(str(tmp_path / "list")))


# -- what it stands for ------------------------------------------------------------------------------------------------


@settings(max_examples=examples(60), deadline=None)
@given(PATHS, st.randoms(use_true_random=False))
def test_a_list_of_all_is_the_walk(tree: list[bytes], order: random.Random) -> None:
    """Whatever the names, their order and how often they are said, a list of all files is what the walk finds."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.fsencode(folder)
        for path in tree:
            make(root, path)
        walked = [source.path for source in Walk(root)]
        names = [order.choice([path, b"./" + path, root + b"/" + path, path.replace(b"/", b"//")]) for path in walked]
        names += names[:3]
        order.shuffle(names)
        found, walk = listing(root, names)
        assert found == walked and not walk.left_out


def test_names_that_are_no_inputs_are_named(tmp_path: Path) -> None:
    """Each with its reason; whoever listed what is not there, or lies elsewhere, has made a mistake."""
    for name in (b"a.jpg", b"b.txt", b".hidden", b".git/x.jpg", b"out/x.jpg", b"drafts/x.jpg", b"sub/x.jpg"):
        make(os.fsencode(tmp_path / "in"), name)
    (tmp_path / "in/linked").symlink_to("sub")
    (tmp_path / "in/dangling.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in/fifo.jpg")
    names = [
        b"a.jpg", b"b.txt", b".hidden", b".git/x.jpg", b"out/x.jpg", b"drafts/x.jpg", b"linked/x.jpg", b"dangling.jpg",
        b"fifo.jpg", b"sub", b"sub/", b"linked", b"a.jpg/x.jpg", b"nowhere.jpg", b"x" * 300, b"../in2/a.jpg",
        b"/etc/passwd", b"..", b"sub/../a.jpg",
    ]  # fmt: skip
    found, walk = listing(
        tmp_path / "in", names, include=["*.jpg", "sub", "linked", "x*"], exclude=["drafts/"],
        without=[os.fsencode(tmp_path / "in/out")],
    )  # fmt: skip
    assert found == [b"a.jpg"] and walk.is_misled
    assert dict(walk.left_out_names) == {
        b"b.txt": "not among the inputs", b".hidden": "hidden", b".git/x.jpg": "hidden",
        b"out/x.jpg": "not among the inputs", b"drafts/x.jpg": "not among the inputs",
        b"linked/x.jpg": "in a linked folder", b"dangling.jpg": "a dangling link", b"fifo.jpg": "a FIFO",
        b"sub": "a folder", b"linked": "a linked folder", b"a.jpg/x.jpg": "not there", b"nowhere.jpg": "not there",
        b"x" * 300: "not there", b"../in2/a.jpg": "outside the input root", b"/etc/passwd": "outside the input root",
        b"..": "outside the input root",
    }  # fmt: skip


def test_the_root_under_any_of_its_names(tmp_path: Path) -> None:
    """Absolute names may be those of the link that the pipeline names, or of where it leads."""
    make(os.fsencode(tmp_path / "in"), b"a")
    (tmp_path / "link").symlink_to("in")
    for name in (tmp_path / "in/a", tmp_path / "link/a"):
        assert listing(tmp_path / "link", [os.fsencode(name)])[0] == [b"a"]
    found, walk = listing(tmp_path / "link", [b".", os.fsencode(tmp_path / "in"), b"a\0b", b"in\0"])
    assert found == [] and set(walk.left_out) <= {"a folder", "not among the inputs", "not there"}


# -- the run -----------------------------------------------------------------------------------------------------------


def test_a_list_narrows_what_runs(project: Project) -> None:
    """What is not named is neither done, counted, gone nor pruned; what is named and fresh is up to date."""
    names = [b"c", b"./b", b"c"]
    assert project.plan(names=names) == {"up b": FRESH, "up c": ("make", "new")}
    summary = project.run(names=names)
    assert (summary.sources, summary.done, summary.up_to_date, summary.exit) == (2, 1, 1, 0)
    assert project.outputs() == {"b": b"B", "c": b"C", "gone": b"GONE"}
    assert project.orphans() == ["out/gone"]
    assert set(project.plan()) == {"up a", "up b", "up c", "up sub/d"}


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_a_list_from_stdin_or_a_file(project: Project, pipeline: Pipeline, separator: bytes) -> None:
    """As find prints it, with -print0 or without."""
    names = b"./a" + separator + os.fsencode(project.folder / "in/sub/d") + separator
    (project.folder / "list").write_bytes(names)
    planned = pipeline("plan", "--json", "--files-from", "list").stdout.splitlines()
    assert [json.loads(line)["source"] for line in planned] == ["a", "sub/d"]
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", "--json", "--files-from", "-"],
        cwd=project.folder, input=names, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(ran.stdout)["done"] == 2 and set(project.outputs()) == {"a", "b", "gone", "sub/d"}


def test_odd_names_are_done(tmp_path: Path, pipeline: Pipeline) -> None:
    """No UTF-8, newlines, leading dashes, 255 bytes: by a list as by a walk."""
    project = Project(tmp_path)
    for name in ODD_NAMES:
        make(os.fsencode(tmp_path / "in"), name)
    (tmp_path / "list").write_bytes(b"\0".join(reversed(ODD_NAMES)))
    ran = pipeline("--json", "--files-from", "list", "--engine", "serial")
    assert (ran.returncode, json.loads(ran.stdout)["done"]) == (0, len(ODD_NAMES)), ran.stderr
    assert project.run().up_to_date == len(ODD_NAMES)


def test_names_that_are_wrong_are_said(project: Project, pipeline: Pipeline) -> None:
    """Exit 1, up to twenty of them named; the others on the list are done."""
    (project.folder / "list").write_text("a\n/etc/passwd\n" + "".join(f"nowhere-{n:02}\n" for n in range(25)))
    ran = pipeline("--files-from", "list")
    assert ran.returncode == 1 and "left out, outside the input root: /etc/passwd\n" in ran.stderr
    assert "left out, not there: nowhere-00, nowhere-01, " in ran.stderr and "nowhere-19 and 5 more\n" in ran.stderr
    assert project.outputs()["a"] == b"A"
    assert "nowhere-07" in pipeline("plan", "--files-from", "list").stderr


@pytest.mark.parametrize("content", ["", "\n\n", ".hidden\n"])
def test_a_list_of_nothing_does_nothing(project: Project, pipeline: Pipeline, content: str) -> None:
    """`find -newer` may find nothing, or what is no input: exit 0 and silence."""
    (project.folder / "list").write_text(content)
    ran = pipeline("--files-from", "list", "--json")
    assert (ran.returncode, ran.stderr, json.loads(ran.stdout)["sources"]) == (0, "", 0)
    assert set(project.outputs()) == {"b", "gone"}


def test_a_list_with_only_and_limit(project: Project) -> None:
    """Each narrows what the others leave."""
    assert set(project.plan(only="sub/", names=[b"a", b"sub/d"])) == {"up sub/d"}
    assert project.run(limit=1, names=[b"a", b"c"]).done == 1


@pytest.mark.parametrize("named", [[b"a.y"], [b"a.y", b"a.x"]])
def test_a_renamed_source_takes_its_path_over(tmp_path: Path, named: list[bytes]) -> None:
    """Whether or not the old name is on the list: it is gone, so its path is free; one that is there keeps it."""
    project = Project(tmp_path, ONE_STAGE.replace("{name}", "{stem}"))
    project.write("in/a.x", "x")
    project.run()
    project.write("in/a.y", "y")
    assert project.plan(names=[b"a.y"]) == {"up a.y": ("refuse", "collision with a.x: both want out/a")}
    (project.folder / "in/a.x").unlink()
    assert project.plan(names=list(named)) == {"up a.y": ("make", "new")}
    assert project.run(names=list(named)).done == 1 and project.outputs() == {"a": b"Y"}


def test_failures_of_others_are_kept(tmp_path: Path) -> None:
    """A list says nothing of files that are not on it."""
    project = Project(tmp_path)
    for name in ("a", "b"):
        project.write(f"in/{name}", b"\xff")
    project.run()
    project.write("in/a", "good")
    assert project.run(names=[b"a"]).exit == 0
    assert project.plan()["up b"] == ("make", "failed before (error, attempt 1 of 3)")


def test_a_list_costs_the_same_whatever_its_length(tmp_path: Path) -> None:
    """Names are sorted on disk: eight times as many take hardly more memory, in any order."""
    peaks = []
    (tmp_path / "in").mkdir()
    for count in (5_000, 40_000):
        order = random.Random(0)
        names = (b"%032x" % order.getrandbits(128) for _ in range(count))
        with closing(Ledger(tmp_path / f"{count}")) as ledger:
            tracemalloc.start()
            walk = Walk(os.fsencode(tmp_path / "in"))
            assert list(FileList(os.fsencode(tmp_path / "in"), walk, ledger, names)) == []
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert walk.left_out == {"not there": count}
    assert peaks[1] < peaks[0] * 1.2 + 50_000, peaks


def test_outputs_of_a_listed_run_are_those_of_a_walk(tmp_path: Path) -> None:
    """In two halves by lists, or at once: the same bytes, and then nothing is left to do."""
    project = Project(tmp_path)
    for number in range(20):
        project.write(f"in/d{number % 3}/{number}", f"text {number}")
    names = [source.path for source in Walk(os.fsencode(tmp_path / "in"))]
    assert project.run(names=names[10:]).done == 10 and project.run(names=names[:10][::-1]).done == 10
    by_list = contents_below(tmp_path / "out")
    assert project.run().up_to_date == 20 and contents_below(tmp_path / "out") == by_list
