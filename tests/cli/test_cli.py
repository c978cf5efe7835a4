"""The command line: verbs, exit codes, and what is printed where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.program import Pipeline, on_terminal, wait_until
from support.project import Project

from pipeline import cli
from pipeline.cli import main
from pipeline.commands import run as run_verb

YAML = """\
inputs: in
stages:
  - name: up
    uses: upper
    output: out/{dir}/{name}
"""
UPPER = """\
def upper(text: str) -> str:
    return text.upper()
"""
SLOW = """\
import time


def upper(text: str) -> str:
    time.sleep(0.2)
    return text.upper()
"""

BEGUN = """\
import time
from pathlib import Path


def upper(text: str) -> str:
    (Path(__file__).parent.parent / "begun").touch()
    time.sleep(1000)
    return text.upper()
"""
HELD = """\
import time
from pathlib import Path


def upper(text: str) -> str:
    while not (Path(__file__).parent.parent / "go").exists():
        time.sleep(0.01)
    return text.upper()
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A small project over texts, with a stage of its own."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "upper.py").write_text(UPPER)
    (tmp_path / "pipeline.yaml").write_text(YAML)
    for number in range(3):
        (tmp_path / "in" / "sub" / f"{number}.txt").write_text(f"text {number}\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [["pipeline.yaml"], ["run", "pipeline.yaml"], [], ["-f", "pipeline.yaml"], ["run", "-f", "pipeline.yaml"]],
)
def test_the_same_run_may_be_asked_for_in_many_ways(texts: Path, pipeline: Pipeline, arguments: list[str]) -> None:
    """`run` and pipeline.yaml are what is meant where nothing else is said."""
    assert pipeline(*arguments).returncode == 0
    assert (texts / "out" / "sub" / "1.txt").read_text() == "TEXT 1\n"


def test_a_pipeline_of_any_name_can_be_given(texts: Path, pipeline: Pipeline) -> None:
    """`-f` names a pipeline whatever its name ends in."""
    (texts / "pipeline.yaml").rename(texts / "nightly")
    assert pipeline("-f", "nightly").returncode == 0
    assert (texts / "out" / "sub" / "1.txt").exists()
    assert "no verb 'nightly'" in pipeline("nightly").stderr


def test_only_twice_means_both(texts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--only` may be repeated: what matches any of the patterns is done, and what none matches is said."""
    for name in "abc":
        (texts / "in" / name).write_text(name)
    file = str(texts / "pipeline.yaml")
    assert main([file, "--engine", "serial", "--only", "/a", "--only", "/c", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["done"] == 2
    assert not (texts / "out" / "b").exists()
    assert main([file, "--engine", "serial", "--only", "x", "--only", "y z", "--json"]) == 0
    assert "no file matches --only x --only 'y z'\n" in capfd.readouterr().err
    assert main([file, "--only", "a", "--only", "!"]) == 2
    assert capfd.readouterr().err == "--only: '!' is no gitignore pattern\n"
    assert main([file, "--engine", "serial", "--only", "", "--json"]) == 0  # as `--only "$UNSET"` gives it
    assert json.loads(capfd.readouterr().out)["sources"] == sum(each.is_file() for each in (texts / "in").rglob("*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "pipeline.yaml", "--json", "in/-1"), ("explain", "--json", "in/-1", "pipeline.yaml"),
        ("explain", "-f", "pipeline.yaml", "in/-1", "--json"), ("explain", "pipeline.yaml", "--json", "--", "-1"),
        ("plan", "--set", "name=x", "pipeline.yaml", "--json"), ("plan", "pipeline.yaml", "--set", "name=x", "--json"),
    ],
)  # fmt: skip
def test_options_stand_anywhere(tmp_path: Path, pipeline: Pipeline, arguments: tuple[str, ...]) -> None:
    """Before the pipeline, after it, and between it and a path; after -- a path may begin with a dash."""
    Project(tmp_path).write("in/-1", "x")
    ran = pipeline(*arguments)
    assert (ran.returncode, ran.stderr) == (0, "") and json.loads(ran.stdout)["source"] == "-1"


def test_a_misspelt_verb_is_asked_about(pipeline: Pipeline) -> None:
    """A word that is neither a verb nor a pipeline is not taken for either."""
    done = pipeline("chekc")
    assert done.returncode == 2
    assert "did you mean 'check'?" in done.stderr


def test_no_pipeline_at_all_is_said_in_one_line(pipeline: Pipeline) -> None:
    """Without a pipeline.yaml the newcomer is told what to name."""
    done = pipeline()
    assert done.returncode == 2
    assert done.stderr.startswith("pipeline.yaml: No such file or directory\n  hint: ")


def test_check_shows_the_tree(texts: Path, pipeline: Pipeline) -> None:
    """`check` runs nothing, and its answer is one line a stage."""
    done = pipeline("check")
    assert (done.returncode, done.stdout) == (0, "up: inputs -> upper -> out/{dir}/{name}\n")
    assert not (texts / "out").exists() and not (texts / ".pipeline").exists()


def test_version_and_help_are_quick(pipeline: Pipeline) -> None:
    """`--help` of every verb answers without loading what only work needs."""
    assert pipeline("--version").stdout.startswith("filemill ")
    for verb in ([], ["run"], ["plan"], ["check"], ["failures"]):
        code = (
            "import sys\nfrom pipeline.cli import main\n"
            f"try: main({[*verb, '--help']!r})\nexcept SystemExit: pass\n"
            "print('LOADED', {'PIL', 'tqdm', 'pydantic', 'sqlite3', 'pathspec', 'yaml'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "usage: python -m pipeline" in done.stdout
        assert done.stdout.endswith("LOADED set()\n")


@pytest.mark.parametrize("content", [b"", b"not \xff text"], ids=["empty-is-text", "not-utf8"])
def test_a_bad_file_fails_alone(texts: Path, pipeline: Pipeline, content: bytes) -> None:
    """A file that its stage cannot read is named, leaves no output, and costs the others nothing."""
    (texts / "in" / "bad.txt").write_bytes(content)
    done = pipeline("--json")
    failed = int(bool(content))
    assert done.returncode == failed
    assert json.loads(done.stdout)["done"] == 4 - failed
    assert (texts / "out" / "bad.txt").exists() is not bool(content)
    if failed:
        assert "bad.txt (up): not UTF-8: byte 0xff at offset 4" in done.stderr
        listed = json.loads(pipeline("failures", "--json").stdout)
        error = "not UTF-8: byte 0xff at offset 4"
        assert listed.items() >= {"source": "bad.txt", "stage": "up", "kind": "error", "error": error}.items()
        assert (listed["attempts"], listed["new"]) == (1, True)


def test_a_mended_file_is_no_failure_any_more(texts: Path, pipeline: Pipeline) -> None:
    """What failed is tried again by every run, and forgotten when it is done."""
    (texts / "in" / "bad.txt").write_bytes(b"\xff")
    assert [pipeline().returncode, pipeline().returncode] == [1, 1]
    assert "attempt 2" in pipeline("failures").stdout
    (texts / "in" / "bad.txt").write_bytes(b"good")
    assert pipeline().returncode == 0
    assert pipeline("failures").stdout == ""


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_a_stage_that_cannot_be_built_stops_the_run(texts: Path, pipeline: Pipeline, engine: str) -> None:
    """A constructor that raises is no file's fault: one message with the stage's place, exit 3."""
    (texts / "stages" / "upper.py").write_text(
        "class Upper:\n    def __init__(self) -> None:\n        raise OSError('no model')\n\n"
        "    def __call__(self, text: str) -> str:\n        return text\n"
    )
    done = pipeline("--engine", engine)
    assert done.returncode == 3
    assert "stages/upper.py:1: the constructor of 'upper' raised OSError: no model" in done.stderr
    assert pipeline("failures").stdout == ""


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_run_in_order(texts: Path, pipeline: Pipeline, number: signal.Signals) -> None:
    """A signal lets what is in hand be finished and recorded; the same line then does the rest, and only that."""
    (texts / "stages" / "upper.py").write_text(SLOW)
    for index in range(40):
        (texts / "in" / f"{index:02}.txt").write_text("text\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "--json"],
        cwd=texts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list((texts / "out").glob("0*.txt")))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    summary = json.loads(stdout)
    assert process.returncode == summary["exit"] == 128 + number
    assert f"stopped: by {number.name}" in stderr
    assert 0 < summary["done"] < 43
    made = [path for path in (texts / "out").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(made) == summary["done"]
    rest = json.loads(pipeline("--json").stdout)
    assert (rest["done"], rest["up_to_date"]) == (43 - summary["done"], summary["done"])


@pytest.mark.processes
def test_a_signal_is_answered_on_the_terminal(texts: Path) -> None:
    """Whoever presses Ctrl-C is told at once that it was heard, and how to stop sooner."""
    (texts / "stages" / "upper.py").write_text(BEGUN.replace("1000", "2"))
    # Ctrl-C is pressed when a file is in hand: the shell becomes the program, and another one signals it.
    press = "(until [ -e begun ]; do sleep 0.05; done; kill -INT $$) & exec python -m pipeline"
    code, screen = on_terminal(press, texts)
    assert code == 130
    assert "SIGINT: finishing what is in hand; a second one stops at once" in screen
    assert "stopped: by SIGINT; the same line resumes" in screen


@pytest.mark.processes
def test_a_second_signal_stops_at_once(texts: Path) -> None:
    """Whoever does not want to wait is not made to, and what was done stays done."""
    (texts / "stages" / "upper.py").write_text(BEGUN)
    process = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=texts, stderr=subprocess.PIPE, text=True)
    wait_until((texts / "begun").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)  # two of a kind may be one to a process that gets no time in between
    process.communicate(timeout=100)
    assert process.returncode == 130


@pytest.mark.processes
def test_a_run_beside_another_leaves(texts: Path, pipeline: Pipeline) -> None:
    """The lock lets one run in; another leaves with 75 and names the one at work."""
    (texts / "stages" / "upper.py").write_text(HELD)
    first = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=texts)
    lock = texts / ".pipeline" / "pipeline" / "lock"
    wait_until(lambda: lock.exists() and lock.read_text())
    second = pipeline()
    (texts / "go").touch()
    assert second.returncode == 75
    assert f"another run of 'pipeline' is running (pid {first.pid} " in second.stderr
    assert first.wait(60) == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stderr_changes_no_exit_code(texts: Path, unbuffered: str) -> None:
    """Nothing can be said then; the code says it."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pipeline", "check", "nowhere.yaml"]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        assert subprocess.run(command, cwd=texts, stderr=full, env=environment, timeout=60).returncode == 2


def test_a_closed_stdout_is_no_error(texts: Path) -> None:
    """`plan -v | head -1` ends quietly."""
    code, screen = on_terminal("python -m pipeline plan -v | head -1", texts)
    assert (code, screen) == (0, "up: inputs (Path) -> str -> upper -> str -> out/{dir}/{name}")


def test_a_bug_of_ours_is_owned_up_to(capsys: pytest.CaptureFixture[str]) -> None:
    """What we did not foresee is one line for the user, with the traceback in a file, and exit 70."""
    from pipeline.cli import _report_bug

    assert _report_bug(KeyError("surprise")) == 70
    said = capsys.readouterr().err
    assert said.startswith("filemill has a bug: KeyError: 'surprise' (traceback in ") and said.count("\n") == 1
    log = Path(said.partition("traceback in ")[2].rstrip(")\n"))
    assert "surprise" in log.read_text()
    os.unlink(log)


@pytest.mark.parametrize(
    "words", [[], ["photos.yaml"], ["-q"], ["--verbose", "photos.yaml"], ["photos.yaml", "-v", "-q"]]
)
def test_without_argparse_a_run_is_read_as_with_it(words: list[str]) -> None:
    """A run without an option that matters is read by hand; the parser would have found the same."""
    plain = cli._plain_run(words)
    assert plain
    assert vars(run_verb.plain_arguments(**plain)) | {"pipeline": None} == vars(cli._parse("run", run_verb, words)) | {
        "pipeline": None
    }


@pytest.mark.parametrize(
    "words", [["a.yaml", "b.yaml"], ["-j2"], ["-f", "a.yaml"], ["--force"], ["-qv"], ["--"], [""], ["--help"]]
)
def test_everything_else_is_read_by_argparse(words: list[str]) -> None:
    """It has the words for what is wrong, and knows each option's values."""
    assert cli._plain_run(words) is None
