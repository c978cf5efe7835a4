"""Sources that change or vanish during a run: no stage's failure, nothing kept of what was half read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import ONE_STAGE, Project, ledger_of, temporaries

BOTH = pytest.mark.parametrize("engine", ["serial", "pool"])

# What somebody else does to a source while the stage is at work, and what the stage makes of that.
MEDDLED = """
import os
from pathlib import Path

HERE = Path({folder!r})

def upper(text: str) -> str:
    if text.startswith("meddled"):
        {deed}
    {end}
"""
GROW = "with open(HERE / 'in/a', 'a') as file: file.write(' more')"
REPLACE = "(HERE / 'new').write_text('whole'); os.replace(HERE / 'new', HERE / 'in/a')"
TOUCH = "os.utime(HERE / 'in/a', (7, 7))"
FOLDER = "os.unlink(HERE / 'in/a'); os.mkdir(HERE / 'in/a')"
UNLINK = "os.unlink(HERE / 'in/a')"
DONE = "return text.upper()"
FAILS = "raise ValueError('half a file')"


def meddle(project: Project, deed: str, end: str = DONE) -> None:
    project.write("stages/upper.py", MEDDLED.format(folder=str(project.folder), deed=deed, end=end))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A file to be meddled with and one that is not."""
    project = Project(tmp_path)
    project.write("in/a", "meddled with")
    project.write("in/b", "left alone")
    return project


def failures(project: Project) -> list[bytes]:
    with ledger_of(project.folder) as ledger:
        return [failure.source for failure in ledger.failures.all()]


# -- changed -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("end", [DONE, "return text.upper() if text[0] != 'm' else 1 / 0"], ids=["made", "raised"])
@pytest.mark.parametrize("deed", [GROW, REPLACE, TOUCH], ids=["grows", "replaced", "touched"])
def test_a_source_that_changes_is_done_by_the_next_run(
    project: Project, pipeline: Pipeline, engine: str, deed: str, end: str
) -> None:
    """Said so with exit 1, whatever the stage made of it; no output, no attempt, nothing on the list of failures."""
    meddle(project, deed, end)
    ran = pipeline("--json", "--engine", engine)
    assert ran.returncode == 1 and "  a (up): changed while reading; the next run does it\n" in ran.stderr
    assert json.loads(ran.stdout)["failed"] == 1 and project.outputs() == {"b": b"LEFT ALONE"}
    assert failures(project) == [] and not temporaries(project.folder)
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    return text.upper()\n")
    assert pipeline("--engine", engine).returncode == 0
    assert project.outputs()["a"] == (project.folder / "in/a").read_bytes().upper()


@BOTH
def test_an_old_output_stays_meanwhile(project: Project, pipeline: Pipeline, engine: str) -> None:
    """What was made of the file as it was is kept until there is better."""
    project.run()
    meddle(project, GROW)
    assert pipeline("--engine", engine, "--force").returncode == 1
    assert project.outputs() == {"a": b"MEDDLED WITH", "b": b"LEFT ALONE"}
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    return text.upper()\n")
    assert project.plan()["up a"] == ("make", "source changed (size 12 -> 17)")


def test_what_fails_over_a_file_that_stays_is_its_stages_failure(project: Project) -> None:
    """Only a source that moved is an excuse."""
    meddle(project, "pass", FAILS)
    assert project.run().failed == 2 and failures(project) == [b"a", b"b"]


def test_a_stage_that_breaks_the_contract_is_blamed_for_it(project: Project) -> None:
    """A stage that returns None returns None, whatever becomes of the file."""
    meddle(project, GROW, "return None")
    assert "returned None" in project.run().failures[0][1].text and failures(project) == [b"a", b"b"]


def test_a_file_that_changes_every_night_is_never_held(project: Project) -> None:
    """Nor does it use up the budget."""
    project.edit("pipeline.yaml", "engine", "errors: {max: 0%, hold_after: 1}\nengine")
    meddle(project, GROW)
    for _ in range(3):
        summary = project.run()
        assert (summary.failed, summary.exit, summary.stopped) == (1, 1, "")
    assert project.plan()["up a"] == ("make", "new")


def test_a_picture_that_is_still_being_written(tmp_path: Path) -> None:
    """A decoder calls half a picture truncated; that it was being written says more."""
    from PIL import Image

    project = Project(tmp_path, ONE_STAGE.replace("{name}", "{stem}.png"))
    Image.effect_noise((300, 300), 50).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    project.write("in/a.jpg", whole[: len(whole) // 2])
    project.write(
        "stages/upper.py",
        "import os\nfrom PIL import Image\nfrom pathlib import Path\nfrom pipeline import Picture\n"
        "def upper(picture: Picture) -> Image.Image:\n"
        f"    os.replace({str(tmp_path / 'whole.jpg')!r}, {str(tmp_path / 'in/a.jpg')!r})\n"
        "    return picture.load()\n",
    )
    summary = project.run()
    assert [result.kind for _, result in summary.failures] == ["changed"], summary.failures


@BOTH
def test_beside_somebody_who_writes_all_the_time(tmp_path: Path, pipeline: Pipeline, engine: str) -> None:
    """A file that is rewritten in place again and again: no run takes a state before the last for it."""
    project = Project(tmp_path)
    project.write("stages/upper.py", "def upper(data: bytes) -> bytes:\n    return data\n")
    writer = (
        "import sys, time\nfor number in range(10**6):\n    with open('in/a', 'r+b', buffering=0) as file:\n"
        "        for _ in range(40):\n            file.write(b'%06d ' % number * 1000)\n"
    )
    project.write("in/a", b"%06d " % 0 * 40_000)
    writing = subprocess.Popen([sys.executable, "-c", writer], cwd=tmp_path)
    try:
        for _ in range(2):
            ran = pipeline("--engine", engine)
            assert ran.returncode in (0, 1) and "Traceback" not in ran.stderr
    finally:
        writing.kill()
        writing.wait()
    assert pipeline("--engine", engine).returncode == 0
    assert project.outputs()["a"] == (tmp_path / "in/a").read_bytes() and not temporaries(tmp_path)


# -- vanished ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("end", [DONE, "return text.upper() if text[0] != 'm' else 1 / 0"], ids=["made", "raised"])
def test_a_source_that_vanishes_is_counted_so(project: Project, pipeline: Pipeline, engine: str, end: str) -> None:
    """A run that began a moment later would not have seen it: exit 0, nobody's failure, nothing made of it."""
    meddle(project, UNLINK, end)
    ran = pipeline("--json", "--engine", engine)
    said = json.loads(ran.stdout)
    assert (ran.returncode, said["vanished"], said["failed"], said["done"]) == (0, 1, 0, 1), ran.stderr
    assert project.outputs() == {"b": b"LEFT ALONE"} and failures(project) == [] and not temporaries(project.folder)
    assert set(project.plan()) == {"up b"} and project.run().exit == 0


@pytest.mark.parametrize("deed", ["unlink", "rmtree"])
def test_gone_when_its_turn_came(project: Project, deed: str) -> None:
    """The same for a file, or its whole folder, that was there when the run was planned."""
    project.write("in/sub/c", "x")
    does = "os.unlink(HERE / 'in/sub/c')" + ("; os.rmdir(HERE / 'in/sub')" if deed == "rmtree" else "")
    meddle(project, does)
    summary = project.run()
    assert (summary.vanished, summary.failed, summary.done, summary.exit) == (1, 0, 2, 0)
    assert "1 vanished" in summary.lines()[0]


def test_a_folder_in_its_place(project: Project) -> None:
    """What is no file any more has vanished."""
    meddle(project, FOLDER)
    assert project.run().vanished == 1


def test_a_held_file_that_vanishes_is_forgotten(tmp_path: Path) -> None:
    """Nothing is held for what is gone."""
    project = Project(tmp_path, ONE_STAGE + "errors: {hold_after: 1}\n")
    project.write("in/a", b"\xff")
    project.run()
    assert project.plan()["up a"][0] == "held"
    (tmp_path / "in/a").unlink()
    summary = project.run()
    assert (summary.held, summary.exit, failures(project)) == (0, 0, [])


@BOTH
def test_a_disk_that_vanishes_stops_the_run(project: Project, pipeline: Pipeline, engine: str) -> None:
    """When the root itself is another folder by now, files are not just gone: exit 3, and the same line resumes."""
    for number in range(20):
        project.write(f"in/c{number:02}", "x")
    meddle(project, "os.rename(HERE / 'in', HERE / 'away'); os.mkdir(HERE / 'in')", "return text.upper()")
    ran = pipeline("--engine", engine, "-j", "1")
    assert ran.returncode == 3 and "is not the folder any more that it was at the start" in ran.stderr
    os.rmdir(project.folder / "in")
    os.rename(project.folder / "away", project.folder / "in")
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    return text.upper()\n")
    assert pipeline("--engine", engine).returncode == 0 and len(project.outputs()) == 22
