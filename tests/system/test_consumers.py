"""Stages that remove or change their inputs: nothing of the user's is lost by that, and the run stops."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, contents_below, temporaries

MOVES = """
inputs: in
stages:
  - name: moved
    uses: command
    with: {argv: [mv, "{source}", "{target}"]}
    output: out/
engine: ENGINE
"""

# Each takes its source away in another way, and makes something else of it.
STAGES = """
import subprocess
from collections.abc import Iterator
from pathlib import Path
from pipeline import FileFailure, Item, Part, Skip
from PIL import Image

ROOT = Path({root!r})

def unlinks(path: Path) -> bytes:
    data = path.read_bytes()
    path.unlink()
    return data

def unlinks_by_name(item: Item[bytes]) -> bytes:
    (ROOT / item.source).unlink()
    return item.value

def moves_and_fails(item: Item[Path]) -> Path:
    item.value.rename(item.scratch / "moved.txt")
    raise FileFailure("on purpose")

def unpacks(item: Item[Path]) -> Iterator[Part[bytes]]:
    data = item.value.read_bytes()
    yield Part(data[:2], "first")
    item.value.unlink()
    yield Part(data[2:], "second")

def skips(item: Item[Path]) -> Path:
    item.value.rename(item.scratch / "moved.txt")
    raise Skip("not wanted")

def paints(path: Path) -> Image.Image:
    path.unlink()
    return Image.new("RGB", (1, 1), "red")

def writes(path: Path) -> str:
    path.write_text(path.read_text() + "more")
    return "x"

def tells(text: str) -> str:
    return f"{{len(text)}}"
"""
YAML = """
inputs: in
stages:
  - {name: eats, uses: USES, output: 'OUTPUT'}
engine: serial
"""


def project_of(folder: Path, uses: str, output: str = "out/{dir}/{name}", names: str = "ab") -> Project:
    """A project of a stage that eats its inputs."""
    project = Project(folder, YAML.replace("USES", f"./stages/mine.py:{uses}").replace("OUTPUT", output))
    project.write("stages/mine.py", STAGES.format(root=str(folder / "in")))
    for name in names:
        project.write(f"in/sub/{name}.txt", f"text {name}")
    return project


def set_aside(project: Project) -> dict[str, bytes]:
    """The files set aside by all runs, by their paths below the run's folder."""
    found = contents_below(project.folder / ".pipeline/pipeline/set-aside")
    return {name.partition("/")[2]: data for name, data in found.items()}


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_mv_costs_no_contents_and_is_stopped(tmp_path: Path, pipeline: Pipeline, engine: str) -> None:
    """After three in a row, with exit 3 and the stage's name; every file is still there or set aside by its name."""
    project, texts = Project(tmp_path, MOVES.replace("ENGINE", engine)), {}
    for number in range(200):
        texts[f"in/sub/{number:03}.txt"] = b"text %d" % number
        project.write(f"in/sub/{number:03}.txt", texts[f"in/sub/{number:03}.txt"])
    ran = pipeline("-j", "1")
    assert ran.returncode == 3 and "files in a row changed or vanished while stage 'moved' had them" in ran.stderr
    kept, left = set_aside(project), contents_below(tmp_path / "in")
    assert kept | {f"in/{name}": data for name, data in left.items()} == texts
    assert len(kept) >= 3 and (len(kept) == 3 or engine == "pool") and project.outputs() == {}
    assert f"{len(kept)} files kept in .pipeline/pipeline/set-aside/" in ran.stderr and "in/sub/000.txt" in ran.stderr


def test_one_alone_fails_and_is_kept(tmp_path: Path, pipeline: Pipeline) -> None:
    """It may be somebody else's work, and so the run goes on; but it does not end as if all were well."""
    project = Project(tmp_path, MOVES.replace("ENGINE", "serial"))
    project.write("in/a.txt", "text")
    ran = pipeline("--json")
    assert ran.returncode == 1 and '"set_aside": 1' in ran.stdout
    assert "a.txt (moved): vanished while stage 'moved' (" in ran.stderr
    assert set_aside(project) == {"in/a.txt": b"text"}


@pytest.mark.parametrize(
    ("uses", "output", "kept"),
    [
        ("unlinks", "out/{dir}/{name}", {"in/sub/a.txt.bin": b"text a"}),
        ("unlinks_by_name", "out/{dir}/{name}", {"in/sub/a.txt": b"text a"}),
        ("unlinks_by_name", "out/{stem}.dat", {"in/sub/a.txt.dat": b"text a"}),
        ("moves_and_fails", "out/{dir}/{name}", {"in/sub/a.txt": b"text a"}),
        ("unpacks", "out/{stem}-{part}.txt", {"in/sub/a.txt": b"te", "in/sub/a.txt.bin": b"xt a"}),
        ("skips", "out/{dir}/{name}", {"in/sub/a.txt": b"text a"}),
        ("paints", "out/{stem}.png", {"in/sub/a.txt.png": None}),
    ],
)
def test_whatever_was_made_of_it_is_kept(tmp_path: Path, uses: str, output: str, kept: dict[str, bytes | None]) -> None:
    """In whichever way the source was taken away, and whatever became of the stage."""
    project = project_of(tmp_path, uses, output, names="a")
    summary = project.run()
    found = set_aside(project)
    assert found.keys() == kept.keys() and all(found[name] == data for name, data in kept.items() if data is not None)
    assert (summary.done, summary.set_aside) == (0, len(kept)) and project.outputs() == {}
    assert not temporaries(tmp_path)


def test_a_stage_that_eats_and_has_no_output(tmp_path: Path) -> None:
    """What it made itself is kept, not only what another stage made of that."""
    project = project_of(tmp_path, "unlinks", names="a")
    project.edit("pipeline.yaml", ", output: '", "}\n  - {name: tells, uses: './stages/mine.py:tells', output: '")
    project.run()
    assert set_aside(project) == {"in/sub/a.txt.bin": b"text a"}


def test_a_file_of_one_name_does_not_replace_another(tmp_path: Path) -> None:
    """Two that are kept of one source are both kept."""
    project = project_of(tmp_path, "moves_and_fails", names="a")
    project.edit(
        "stages/mine.py", "    raise FileFailure", "    (item.scratch / 'n.txt').write_text('n')\n    raise FileFailure"
    )
    project.run()
    assert set_aside(project) == {"in/sub/a.txt": b"text a", "in/sub/a-2.txt": b"n"}


def test_a_stage_that_writes_into_its_inputs_is_stopped(tmp_path: Path) -> None:
    """Each is reported as changed, none counts as an attempt, and after three it is no accident."""
    project = project_of(tmp_path, "writes", names="abcde")
    summary = project.run()
    assert (summary.exit, summary.failed, summary.done, summary.set_aside) == (3, 3, 0, 0)
    assert "3 files in a row changed or vanished while stage 'eats' had them" in summary.stopped
    assert {result.kind for _, result in summary.failures} == {"changed"}


def test_a_file_in_between_that_is_done_ends_the_row(tmp_path: Path) -> None:
    """Somebody who takes away a file now and then does not stop the run."""
    project = project_of(tmp_path, "unlinks", names="abcde")
    project.edit(
        "stages/mine.py", "    path.unlink()\n    return data", "    'c' in path.name or path.unlink()\n    return data"
    )
    summary = project.run()
    assert (summary.exit, summary.done, summary.failed, summary.set_aside) == (1, 1, 4, 4)


def test_files_that_are_gone_before_their_turn_are_nobodys_doing(tmp_path: Path) -> None:
    """A folder that its owner removes meanwhile is no stage's fault."""
    project = project_of(tmp_path, "unlinks", names="abcdef")
    project.edit("stages/mine.py", "    path.unlink()\n", "    [each.unlink() for each in path.parent.iterdir()]\n")
    summary = project.run()
    assert (summary.exit, summary.failed, summary.vanished) == (1, 1, 5)


def test_try_keeps_what_it_made_of_a_file_that_is_gone(tmp_path: Path, pipeline: Pipeline) -> None:
    """It is said where."""
    project_of(tmp_path, "unlinks", names="a")
    ran = pipeline("try", "pipeline.yaml", "in/sub/a.txt")
    where = Path(ran.stderr.rpartition("what was made of it is kept: ")[2].splitlines()[0])
    assert ran.returncode == 1 and list(contents_below(where).values()) == [b"text a"]
    shutil.rmtree(where.parents[1])


KILLED = """
import os, signal
from pathlib import Path
from pipeline import Item
def eats(item: Item[Path]) -> Path:
    item.value.rename(item.scratch / "moved.txt")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_worker_loses_no_source(tmp_path: Path, pipeline: Pipeline) -> None:
    """What it had moved to its scratch folder is kept, although nobody has committed it; the files have failed."""
    project = project_of(tmp_path, "eats")
    project.edit("pipeline.yaml", "engine: serial", "engine: pool")
    project.write("stages/mine.py", KILLED)
    ran = pipeline()
    assert ran.returncode == 1 and "vanished while a worker that died had it in hand" in ran.stderr, ran.stderr
    assert "in/sub/a.txt" in ran.stderr and "in/sub/b.txt" in ran.stderr, ran.stderr
    assert set(contents_below(tmp_path / ".pipeline/pipeline/set-aside").values()) == {b"text a", b"text b"}


def test_a_killed_run_loses_no_source(tmp_path: Path, pipeline: Pipeline) -> None:
    """The next run finds what the last one had moved to a scratch folder."""
    project = project_of(tmp_path, "eats", names="a")
    project.write("stages/mine.py", KILLED)
    assert pipeline().returncode == -9 and not list((tmp_path / "in/sub").iterdir())
    project.write("in/sub/other.txt", "other")
    project.write("stages/mine.py", "def eats(text: str) -> str:\n    return text\n")
    ran = pipeline()
    assert ran.returncode == 0 and "in/sub/a.txt" in ran.stderr
    kept = contents_below(tmp_path / ".pipeline/pipeline/set-aside")
    assert [(name.split("/", 1)[1], data) for name, data in kept.items()] == [("in/sub/a.txt", b"text a")]
    assert not list((tmp_path / ".pipeline/pipeline").glob("scratch/*"))


TAKES = {
    "a link to the file": "os.rename(os.path.realpath(item.value), made)",
    "a placeholder is left": "os.rename(item.value, made); item.value.write_text('gone')",
    "a folder is left": "os.rename(item.value, made); item.value.mkdir()",
    "a dangling link is left": "os.rename(item.value, made); item.value.symlink_to('nowhere')",
}
ENDS = {"returns": "return made", "raises": "raise ValueError", "skips": "raise Skip('no')"}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("takes", TAKES)
def test_a_source_is_taken_in_odd_ways(tmp_path: Path, pipeline: Pipeline, takes: str, end: str) -> None:
    """Its contents are kept, and the file has failed."""
    project = project_of(tmp_path, "eats", names="")
    project.write("store/a.txt", "text a")
    (tmp_path / "in/sub").mkdir(parents=True)
    source = tmp_path / "in/sub/a.txt"
    if "link to" in takes:
        source.symlink_to(tmp_path / "store/a.txt")
    else:
        source.write_text("text a")
    body = f"    made = item.scratch / 'x'\n    {TAKES[takes]}\n    {ENDS[end]}\n"
    head = "import os\nfrom pathlib import Path\nfrom pipeline import Item, Skip\n"
    project.write("stages/mine.py", f"{head}def eats(item: Item[Path]) -> Path:\n{body}")
    ran = pipeline()
    assert ran.returncode == 1 and "had it" in ran.stderr, ran.stderr
    assert list(contents_below(tmp_path / ".pipeline/pipeline/set-aside").values()) == [b"text a"]
