"""What happens to people: odd files, rude stages, closed streams. One file at most is lost, and it is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from support.program import Pipeline, wait_until
from support.project import Project

STAGE = """\
import os
from pathlib import Path

from pipeline import Item, Skip


def upper(item: Item[str]) -> str:
    {body}
    return item.value.upper()
"""
PATHS = """\
from pathlib import Path


def upper(path: Path) -> Path:
    {body}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project over texts, one of whose names is not UTF-8."""
    made = Project(tmp_path)
    made.edit("pipeline.yaml", "engine: serial\n", "")
    made.write("in/a.txt", "a")
    (tmp_path / "in" / os.fsdecode(b"bad\xff.txt")).write_text("b")
    return made


@pytest.mark.parametrize("engine", ["serial", "pool"])
@pytest.mark.parametrize("raised", ["ValueError(f'cannot read {item.source}')", "Skip(f'not wanted: {item.source}')"])
def test_a_text_that_is_no_utf8_is_a_text(project: Project, pipeline: Pipeline, engine: str, raised: str) -> None:
    """The reason of a failure or a skip may hold any file's name."""
    project.write("stages/upper.py", STAGE.format(body=f"raise {raised}"))
    done = pipeline("--json", "--engine", engine)
    assert done.returncode == (1 if raised.startswith("ValueError") else 0), done.stderr
    assert r"\udcff" in pipeline("failures").stdout + pipeline("plan", "-v").stdout


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".png", ".tif", ".tiff", ".gif"])
def test_every_format_reaches_its_output(tmp_path: Path, pipeline: Pipeline, suffix: str) -> None:
    """Each format that can be asked for is written, through the same commit as all."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "in" / os.fsdecode(b"odd\xff.png"))
    (tmp_path / "pipeline.yaml").write_text(
        f"inputs: in\nstages:\n  - {{name: a, uses: resize, with: {{width: 20}}, output: 'out/{{stem}}{suffix}'}}\n"
    )
    done = pipeline()
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / os.fsdecode(b"odd\xff" + suffix.encode())) as made:
        assert made.size == (20, 15)


@pytest.mark.processes
def test_a_source_that_turns_into_a_fifo_is_not_waited_for(project: Project) -> None:
    """What is no regular file any more when its turn comes fails, and is not opened."""
    project.write("stages/upper.py", STAGE.format(body="__import__('time').sleep(0.5)"))
    project.edit("pipeline.yaml", "inputs: in\n", "inputs: in\npool: {processes: 1}\n")
    project.write("in/z.txt", "z")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.PIPE, text=True
    )
    wait_until((project.folder / "out" / "a.txt").exists)
    (project.folder / "in" / "z.txt").unlink()
    os.mkfifo(project.folder / "in" / "z.txt")
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "z.txt (up): is no regular file any more" in said


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(project: Project, closed: str) -> None:
    """A daemon that closes what it does not need gets its outputs all the same."""
    command = f"{sys.executable} -m pipeline --json {closed}"
    assert subprocess.run(command, shell=True, cwd=project.folder, capture_output=True).returncode == 0
    assert (project.folder / "out" / "a.txt").exists()


def test_a_full_stdout_is_the_machines_fault(project: Project) -> None:
    """What cannot be written is said on stderr, as the machine's doing."""
    command = f"{sys.executable} -m pipeline plan --json > /dev/full"
    done = subprocess.run(command, shell=True, cwd=project.folder, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == "stopped by the machine: [Errno 28] No space left on device: 'stdout'\n"


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_nobody_elses_words_on_our_stdout(project: Project, pipeline: Pipeline, engine: str) -> None:
    """stdout is one JSON object, though the stage prints, as do its module and its program."""
    body = "print('a word'); __import__('subprocess').run(['echo', 'another'])"
    project.write("stages/upper.py", "print('when imported')\n" + STAGE.format(body=body))
    done = pipeline("--json", "--engine", engine)
    assert json.loads(done.stdout)["done"] == 2


def test_serial_tries_again_too(project: Project, pipeline: Pipeline) -> None:
    """`retry` is a promise of the pipeline's, whichever engine keeps it."""
    body = "with open('calls', 'a') as calls: calls.write('x')\n    raise ValueError"
    project.write("stages/upper.py", STAGE.format(body=body))
    project.edit("pipeline.yaml", "inputs: in\n", "inputs: in\nretry: {max: 2, backoff: 10ms}\n")
    assert pipeline("--engine", "serial").returncode == 1
    assert (project.folder / "calls").read_text() == "x" * 6


@pytest.mark.processes
def test_a_second_signal_is_no_attempt_of_the_file(project: Project, pipeline: Pipeline) -> None:
    """Whoever interrupts the serial engine finds the file in hand among the failures, without an attempt."""
    body = "open('begun', 'w').close(); __import__('time').sleep(1000)"
    project.write("stages/upper.py", STAGE.format(body=body))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "--engine", "serial"], cwd=project.folder, stderr=subprocess.PIPE, text=True
    )
    wait_until((project.folder / "begun").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)  # two of a kind may be one to a process that gets no time in between
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "stopped: by SIGINT, what was in hand was cut off; the same line resumes" in said
    listed = pipeline("failures").stdout
    assert ": interrupted: cut off after" in listed and "attempt" not in listed


def test_texts_cannot_harm_the_terminal(project: Project, pipeline: Pipeline) -> None:
    """An exception's text is one line of bounded length, its control characters escaped."""
    project.write("stages/upper.py", STAGE.format(body=r"raise ValueError('\x1b[31mred\nnext' + 'x' * 100_000)"))
    done = pipeline()
    assert "\x1b" not in done.stderr and r"\x1b[31mred next" in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 700


def test_a_stages_umask_is_its_own(project: Project, pipeline: Pipeline) -> None:
    """Outputs have the permissions that the run's umask gives; a file whose call leaves another one fails."""
    project.write("stages/upper.py", STAGE.format(body="os.umask(0o077 if item.value == 'a' else os.umask(0))"))
    done = pipeline()
    assert done.returncode == 1 and "left the umask changed for the next files" in done.stderr
    umask = os.umask(0)
    os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (project.folder / "out").glob("*.txt")] == [0o666 & ~umask]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return Path('nowhere')", "returned the Path 'nowhere', which does not exist"),
        ("return path.parent", "which is a folder"),
        ("made = path.with_suffix('.rev'); made.touch(); return made", "among the inputs; take an Item"),
    ],
    ids=["missing", "folder", "among-inputs"],
)
def test_a_wrong_path_is_named(project: Project, pipeline: Pipeline, body: str, says: str) -> None:
    """A stage that returns a Path nobody can use is told so, by its name."""
    project.write("stages/upper.py", PATHS.format(body=body))
    done = pipeline()
    assert done.returncode == 1
    assert says in done.stderr


def test_a_folder_in_an_outputs_place_is_left_alone(project: Project, pipeline: Pipeline) -> None:
    """What is not a file is neither replaced nor called torn."""
    assert pipeline().returncode == 0
    (project.folder / "out" / "a.txt").unlink()
    (project.folder / "out" / "a.txt").mkdir()
    done = pipeline()
    assert done.returncode == 1
    assert "a.txt (up): something that is no file stands in its place: out/a.txt" in done.stderr
    for when in (1, 2):  # the plan looks at the source first
        os.utime(project.folder / "in" / "a.txt", (when, when))
        done = pipeline()
        assert done.returncode == 1 and "something that is no file stands in its place: /" in done.stderr
        assert "Errno" not in done.stderr


def test_an_edit_right_after_the_run_is_kept(project: Project, pipeline: Pipeline) -> None:
    """An output that someone else changed is theirs, however soon they did."""
    assert pipeline().returncode == 0
    (project.folder / "out" / "a.txt").write_text("edited")
    assert pipeline().returncode == 0
    assert (project.folder / "out" / "a.txt").read_text() == "edited"


def test_a_lost_state_is_told_what_to_do(project: Project, pipeline: Pipeline) -> None:
    """Without its ledger a run overwrites nothing, and says how to go on; that way works."""
    assert pipeline().returncode == 0
    for path in sorted((project.folder / ".pipeline").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    done = pipeline()
    assert done.returncode == 2
    assert "'adopt' takes what is there as made, --force makes it anew" in done.stderr
    assert pipeline("--force").returncode == 0
    assert pipeline().returncode == 0


def test_the_log_is_pointed_at(project: Project, pipeline: Pipeline) -> None:
    """A failure with more to tell names the log, and the log has the traceback and what was printed."""
    project.write("stages/upper.py", STAGE.format(body="print('a clue'); raise ValueError('no')"))
    done = pipeline()
    log = Path(done.stderr.rpartition("log: ")[2].splitlines()[0])
    assert "a clue" in log.read_text() and "stages/upper.py" in log.read_text()
