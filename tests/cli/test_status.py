"""How far a run has come, asked from another terminal."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.program import Pipeline, wait_until
from support.project import ONE_STAGE, Project

from pipeline.report.standing import describe_in_hand, progress_file, read_progress

SLOW = "import time\ndef upper(text: str) -> str:\n    time.sleep(0.2)\n    return text.upper()\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    for number in range(40):
        project.write(f"in/{number:02}", "x")
    return project


def test_before_and_after_a_run(project: Project, pipeline: Pipeline) -> None:
    """One line on stdout, exit 0, and nothing is made by asking."""
    said = pipeline("status")
    assert (said.returncode, said.stdout, said.stderr) == (0, "pipeline: has not run yet\n", "")
    assert not (project.folder / ".pipeline").exists()
    pipeline()
    ended = r"pipeline: 40 done \(40 files, [0-9.]+ s\) ended 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d with exit 0\n"
    assert re.fullmatch(ended, pipeline("status").stdout)
    progress_file(project.folder / ".pipeline/pipeline").unlink()
    assert re.fullmatch(r"pipeline: run \d+-\d+-\w+ ended .* with exit 0\n", pipeline("status").stdout)
    said_json = json.loads(pipeline("status", "--json").stdout)
    assert (said_json["standing"], said_json["done"], said_json["exit"]) == ("ended", 40, 0)


@pytest.mark.processes
def test_beside_a_run_and_after_its_death(project: Project, pipeline: Pipeline) -> None:
    """Who runs since when, and how many files of how many; a killed run is told from one at work."""
    project.write("stages/upper.py", SLOW)
    run = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.DEVNULL)
    folder = project.folder / ".pipeline/pipeline"
    wait_until(lambda: read_progress(folder)[1].get("through", 0) >= 3)
    said = pipeline("status").stdout
    head, *rest = said.splitlines()
    assert re.match(rf"pipeline: running \d+ of 40 files, .*in hand, for .* s.* \(pid {run.pid} on .*\)$", head)
    assert rest and all(re.match(r"  \d\d: in hand for .*, since \d\d:\d\d:\d\d \(stage 'up', ", each) for each in rest)
    assert json.loads(pipeline("status", "--json").stdout)["standing"] == "running"
    run.send_signal(signal.SIGKILL)
    run.wait()
    said = pipeline("status").stdout
    assert said.startswith("pipeline: the run that began 20") and "was cut off; the same line again resumes" in said


def test_the_ledger_is_not_opened_while_a_run_is_on(project: Project, pipeline: Pipeline) -> None:
    """What says how far the run has come is the small file alone, whatever became of the database."""
    project.run()
    (project.folder / ".pipeline/pipeline/ledger.sqlite").write_bytes(b"nothing of use")
    assert "with exit 0" in pipeline("status").stdout


def test_a_stopped_run_says_why(tmp_path: Path, pipeline: Pipeline) -> None:
    """The exit code, and the reason beside it."""
    project = Project(tmp_path, ONE_STAGE.replace("engine:", "errors: {max: 1}\nengine:"))
    project.write("in/a", b"\xff")
    project.write("in/b", b"\xff")
    project.write("in/c", b"\xff")
    assert project.run().exit == 4
    assert "with exit 4, stopped: 2 of 3 files failed already" in pipeline("status").stdout


def test_a_refused_run_says_why(project: Project, pipeline: Pipeline) -> None:
    """Whoever asks in the morning is told what stopped the night's run, before it did anything."""
    assert project.run().exit == 0
    (project.folder / "in").rename(project.folder / "away")
    (project.folder / "in").mkdir()
    assert pipeline().returncode == 3
    said = pipeline("status").stdout
    assert said.startswith("pipeline: nothing done (0 files")
    assert "with exit 3, stopped: none of the 40 known files is in the input root" in said


# -- --check -----------------------------------------------------------------------------------------------------------


def check(pipeline: Pipeline, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the lines of `status --check`, which has nothing for stderr."""
    said = pipeline("status", "--check", *arguments)
    assert said.stderr == ""
    return said.returncode, said.stdout


def age(project: Project, seconds: float) -> None:
    """Make the last success one of so long ago."""
    file = progress_file(project.folder / ".pipeline/pipeline")
    fields = json.loads(file.read_bytes())
    file.write_text(json.dumps(fields | {"last_success": fields["last_success"] - seconds}))


def test_check_tells_a_monitor_in_one_line(project: Project, pipeline: Pipeline) -> None:
    """Never ran, all is well, too old, and all is well again after a night with nothing to do."""
    assert check(pipeline) == (1, "pipeline: has not run yet\n")
    assert not (project.folder / ".pipeline").exists()
    assert pipeline().returncode == 0
    code, said = check(pipeline, "--max-age", "26h")
    assert code == 0 and said.startswith("pipeline: OK, last success ") and said.count("\n") == 1
    age(project, 30 * 3600)
    code, said = check(pipeline, "--max-age", "26h")
    assert code == 1 and said.startswith("pipeline: last success 30 h ago, ") and said.endswith("more than 26 h\n")
    assert check(pipeline)[0] == 0  # without --max-age it may be of any age
    assert pipeline().returncode == 0  # which is answered from the note
    assert check(pipeline, "--max-age", "26h")[0] == 0
    told = json.loads(check(pipeline, "--max-age", "26h", "--json")[1])
    assert told["ok"] is True and told["verdict"].startswith("OK, ") and told["standing"] == "ended"


def test_a_success_in_the_future_is_none(project: Project, pipeline: Pipeline) -> None:
    """The clock was wrong once: that does not keep a monitor silent for years, nor through runs that fail."""
    assert pipeline().returncode == 0
    age(project, -1e8)
    code, said = check(pipeline, "--max-age", "26h")
    assert code == 1 and said.endswith(", which is yet to come: a clock is wrong\n")
    assert check(pipeline)[0] == 1
    project.write("in/07", b"\xff")
    for _ in range(2):
        assert pipeline().returncode == 1
    assert check(pipeline) == (1, "pipeline: no run was a success yet\n")
    project.write("in/07", "x")
    assert pipeline().returncode == 0
    age(project, -60)  # another machine's clock may be a little ahead
    assert check(pipeline, "--max-age", "1s")[0] == 0


def test_check_opens_no_ledger_and_writes_nothing(project: Project, pipeline: Pipeline) -> None:
    """It is asked every minute, by users who may write nothing."""
    assert pipeline().returncode == 0
    state = project.folder / ".pipeline/pipeline"
    (state / "ledger.sqlite").write_bytes(b"nothing of use")
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in project.folder.rglob("*")}
    assert check(pipeline)[0] == 0
    assert {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in project.folder.rglob("*")} == before


def test_check_says_what_failed_anew(project: Project, pipeline: Pipeline) -> None:
    """By the count of the run's summary, whose names come with it."""
    assert pipeline().returncode == 0
    project.write("in/07", b"\xff")
    assert pipeline().returncode == 1
    file = progress_file(project.folder / ".pipeline/pipeline")
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"new_failed": 1}))
    code, said = check(pipeline)
    assert code == 1 and re.fullmatch(r"pipeline: 1 new failure in the run of \d\d:\d\d: 07\n", said)
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"new_failed": 0}))
    assert check(pipeline)[0] == 0  # the same file, known since yesterday


TWO = "  - {name: two, from: inputs, uses: upper, output: 'two/{dir}/{name}'}\n"


def test_check_names_the_new_failures_each_once(project: Project, pipeline: Pipeline) -> None:
    """Not the old ones before them, no file twice for its two outputs, and of a long name its two ends."""
    project.write("pipeline.yaml", ONE_STAGE.replace("engine", f"{TWO}engine"))
    for number in range(25):  # more than a summary keeps
        project.write(f"in/{number:02}", b"\xff")
    assert pipeline().returncode == 1
    long = f"z/{'d' * 200}/{'e' * 200}.txt"
    for name in (long, f"z{long}", f"zz{long}", "99"):
        project.write(f"in/{name}", b"\xff")
    assert pipeline().returncode == 1
    code, said = check(pipeline)
    names = r"99, (z/d+\.\.\.e+\.txt), zz/d+\.\.\.e+\.txt, \.\.\."
    found = re.fullmatch(rf"pipeline: 8 new failures in the run of \d\d:\d\d: {names}\n", said)
    assert code == 1 and found and len(said) < 400 and len(found[1]) == 80


def test_no_name_forges_a_line(project: Project, pipeline: Pipeline) -> None:
    """Nagios reads the lines of a check as they come, and a terminal does what a control character says."""
    assert pipeline().returncode == 0
    evil = b"0\nphotos: OK, all is well\x1b[2J\xff\xe2\x80\xae"
    Path(os.fsdecode(os.fsencode(project.folder) + b"/in/" + evil)).write_bytes(b"\xff")
    assert pipeline().returncode == 1
    said = check(pipeline)[1]
    assert said.endswith(r": 0\nphotos: OK, all is well\x1b[2J\xff\u202e" + "\n") and said.count("\n") == 1
    file = progress_file(project.folder / ".pipeline/pipeline")
    fields = json.loads(file.read_bytes())
    row = {"source": fields["failures"][0]["source"], "stage": "up\nx", "seconds": 1.0, "pid": 1}
    file.write_text(json.dumps(fields | {"stage": "running", "in_hand": [row], "stopped": "a\nb", "boot": "before"}))
    shown = pipeline("status").stdout
    assert "was cut off" in shown and shown.count("\n") == 2 and "\x1b" not in shown
    assert describe_in_hand(row, fields).startswith(r"0\nphotos: OK, all is well\x1b[2J\xff\u202e (")


def test_check_says_what_stopped_the_last_run(project: Project, pipeline: Pipeline) -> None:
    """A disk that is gone is no matter of age."""
    assert pipeline().returncode == 0
    (project.folder / "in").rename(project.folder / "away")
    (project.folder / "in").mkdir()
    assert pipeline().returncode == 3
    code, said = check(pipeline)
    assert code == 1 and "with exit 3, stopped: none of the 40 known files" in said


@pytest.mark.parametrize("part", [("--only", "00", "--force"), ("--limit", "1", "--force"), ("--files-from", "list")])
def test_a_part_is_no_success_and_ends_no_alarm(project: Project, pipeline: Pipeline, part: tuple[str, ...]) -> None:
    """What the last run over all files said stays until the next one: its success, its new failures, and its end."""
    project.write("list", "00\n")
    assert pipeline(*part).returncode == 0
    assert check(pipeline) == (1, "pipeline: no run was a success yet\n")
    assert pipeline().returncode == 0
    age(project, 30 * 3600)
    assert pipeline(*part).returncode == 0
    assert "last success 30 h ago" in check(pipeline, "--max-age", "26h")[1]
    project.write("in/07", b"\xff")
    assert pipeline().returncode == 1
    for _ in range(2):
        assert pipeline(*part).returncode == 0
        code, said = check(pipeline)
        assert code == 1 and re.fullmatch(r"pipeline: 1 new failure in the run of \d\d:\d\d: 07\n", said)
    assert pipeline().returncode == 1  # over all: it is known by now
    assert "new failure" not in check(pipeline)[1]
    (project.folder / "in").rename(project.folder / "away")
    (project.folder / "in").mkdir()
    assert pipeline().returncode == 3
    (project.folder / "in").rmdir()
    (project.folder / "away").rename(project.folder / "in")
    assert pipeline(*part).returncode == 0
    assert "with exit 3, stopped: none of the 40 known files" in check(pipeline)[1]


@pytest.mark.parametrize(
    ("file", "wrong", "code", "text"),
    [
        ("in", None, 3, "the input root .*/in does not exist"),
        ("stages/upper.py", "def upper(", 2, r"pipeline.yaml:\d+:\d+: .*stages/upper.py:1: .*SyntaxError"),
        ("site.yaml", None, 2, r"pipeline.yaml:\d+:\d+: defaults: 'site.yaml'"),
        ("site.yaml", "errors: {max: no}", 2, "site.yaml:1:"),
    ],
)
def test_a_run_that_could_not_begin_is_the_last_one(
    project: Project, pipeline: Pipeline, file: str, wrong: str | None, code: int, text: str
) -> None:
    """Though its pipeline.yaml is as before: the night was lost, and is again until one goes well."""
    project.write("site.yaml", "errors: {max: 5}")
    project.write("pipeline.yaml", f"defaults: site.yaml{ONE_STAGE}")
    assert pipeline("--only", "00").returncode == 0
    assert pipeline().returncode == 0
    (project.folder / file).rename(project.folder / "away")
    if wrong is not None:
        project.write(file, wrong)
    for arguments in ((), (), ("--only", "00")):
        assert pipeline(*arguments).returncode == code
        found, said = check(pipeline)
        assert found == 1 and re.match(rf"pipeline: the last run ended .* with exit {code}, stopped: {text}", said)
        assert said.count("\n") == 1 and "^" not in said
    if wrong is not None:
        (project.folder / file).unlink()
    (project.folder / "away").rename(project.folder / file)
    assert pipeline("plan").returncode == 0 and check(pipeline)[0] == 1
    assert pipeline().returncode == 0
    assert check(pipeline)[0] == 0


def test_what_is_asked_wrongly_says_nothing_of_the_nights(project: Project, pipeline: Pipeline) -> None:
    """Neither do verbs that only look, nor a sample; and beside a run that is on nothing is written."""
    assert pipeline().returncode == 0
    for arguments in (("--set", "stages.up.with.no=1"), ("--set", "x"), ("--limit", "no")):
        assert pipeline(*arguments).returncode == 2
    file = progress_file(project.folder / ".pipeline/pipeline")
    before = file.read_bytes()
    (project.folder / "in").rename(project.folder / "away")
    for arguments in (("plan",), ("check",), ("--dry-run",), ("--sample", "1", "--output-root", "sample")):
        assert pipeline(*arguments).returncode in (2, 3)
    assert file.read_bytes() == before
    with (project.folder / ".pipeline/pipeline/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert pipeline().returncode == 3
    assert file.read_bytes() == before and check(pipeline)[0] == 0


def test_new_failures_of_parts_count_until_a_run_over_all(project: Project, pipeline: Pipeline) -> None:
    """One part does not hide what the part before it has met."""
    assert pipeline().returncode == 0
    project.write("in/07", b"\xff")
    assert pipeline("--only", "07").returncode == 1
    assert "1 new failure" in check(pipeline)[1]
    assert pipeline("--only", "00", "--force").returncode == 0
    assert ": 07\n" in check(pipeline)[1]
    project.write("in/08", b"\xff")
    assert pipeline("--only", "08").returncode == 1
    assert pipeline("--only", "00", "--force").returncode == 0
    assert "2 new failures" in check(pipeline)[1]
    assert pipeline().returncode == 1
    assert "new failure" not in check(pipeline)[1]


@pytest.mark.parametrize("damage", ["stages: [", "stages: []", "inputs: in\nstages: 3", ""])
def test_check_of_a_pipeline_that_does_not_load(project: Project, pipeline: Pipeline, damage: str) -> None:
    """One line and no traceback, though the last run went well."""
    assert pipeline().returncode == 0
    project.write("pipeline.yaml", damage)
    code, said = check(pipeline)
    assert code == 1 and re.match(r"pipeline\.yaml:(\d+:\d+:)? (?!pipeline)", said) and said.count("\n") == 1
    assert pipeline("status", "--check", str(project.folder / "pipeline.yaml")).stdout.count("pipeline.yaml") <= 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"at": 1}', b"[" * 100_000])
def test_check_of_a_damaged_progress_file(project: Project, pipeline: Pipeline, damage: bytes) -> None:
    """Nothing is known then, which is not well; the next run ends as ever, also one with a note, and writes it anew."""
    assert pipeline().returncode == 0
    file = progress_file(project.folder / ".pipeline/pipeline")
    for change in ("", "y"):
        file.write_bytes(damage)
        (file.parent / "told.json").write_bytes(damage)
        code, said = check(pipeline)
        assert code == 1 and said == f"pipeline: {file} is damaged, so nothing is known; the next run writes it anew\n"
        assert pipeline("status").stdout.count("\n") == 1
        project.write("in/07", change or "x")
        night = pipeline()
        assert (night.returncode, night.stdout, night.stderr) == (0, "", "")
        assert check(pipeline)[0] == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"in_hand": [1]}, {"failures": [{"source": "a"}]}, {"last": {}}, {"whole": {"standing": "ended", "run": "r"}},
        {"last": {"standing": "ended", "run": "r", "started": 1, "at": "x", "exit": 0}}, {"exit": None},
        {"whole": {"standing": "ended", "run": "r", "started": 1, "at": 1, "exit": 0, "new_failed": "x"}},
    ],
)  # fmt: skip
def test_odd_rows_and_earlier_runs_end_nothing(project: Project, pipeline: Pipeline, odd: dict[str, object]) -> None:
    """Neither who asks nor the next run, over all or a part."""
    assert pipeline().returncode == 0
    file = progress_file(project.folder / ".pipeline/pipeline")
    fields = json.loads(file.read_bytes())
    for arguments in (("--only", "07"), ()):
        file.write_text(json.dumps(fields | odd))
        code, said = check(pipeline)
        assert code == 1 and " is damaged, so nothing is known" in said
        assert pipeline("status").returncode == 0
        assert pipeline(*arguments).returncode == 0
        assert read_progress(file.parent)[0] == "ended"


@pytest.mark.parametrize("field", ["last_success", "exit", "stopped", "new_failed", "failures", "at"])
def test_check_of_fields_that_are_odd(project: Project, pipeline: Pipeline, field: str) -> None:
    """Whoever has written to it, one line is said and an exit code of ours."""
    assert pipeline().returncode == 0
    file = progress_file(project.folder / ".pipeline/pipeline")
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {field: {"\x1b[2J": ["\n"]}}))
    code, said = check(pipeline, "--max-age", "1h")
    assert code == 1 and said.endswith("progress.json is damaged, so nothing is known; the next run writes it anew\n")
    shown = pipeline("status")
    assert shown.returncode == 0 and shown.stdout.count("\n") == 1 and "\x1b" not in shown.stdout


def test_many_pipelines_the_worst_first(project: Project, tmp_path: Path, pipeline: Pipeline) -> None:
    """One line each, by the file where names are alike; the exit code is that of the worst."""
    for name in "abc":
        (tmp_path / name).mkdir()
        for part in ("pipeline.yaml", "stages/upper.py", "in/00"):
            Project.write(project, f"{name}/{part}", (tmp_path / part).read_bytes())
    files = [f"{name}/pipeline.yaml" for name in "abcd"]
    assert pipeline(files[0]).returncode == 0 and pipeline(files[2]).returncode == 0
    code, said = check(pipeline, files[0])
    assert code == 0
    code, said = check(pipeline, *files)
    heads = [line.partition(": ") for line in said.splitlines()]
    assert code == 1 and [head for head, *_ in heads] == ["d/pipeline.yaml", *(files[number] for number in (1, 0, 2))]
    assert heads[0][2] == "No such file or directory" and heads[2][2].startswith("OK, ")
    told = json.loads(check(pipeline, "--json", *files)[1])
    assert [each["ok"] for each in told] == [False, False, True, True] and told[0]["standing"] == "unknown"
    said_all = pipeline("status", *files)
    assert said_all.returncode == 2 and len(said_all.stdout.splitlines()) == 4
    assert [each["standing"] for each in json.loads(pipeline("status", "--json", *files[:3]).stdout)] == [
        "ended", "never", "ended"
    ]  # fmt: skip


# Python itself may lie where only root may read, so that all must have been imported before.
AS_NOBODY = """
import contextlib, io, os, sys
from pipeline.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(sys.argv[1:])
os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_may_check(pipeline: Pipeline) -> None:
    """As Nagios runs: he may read the state, not write it, and not even read the inputs or the stages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        project = Project(folder)
        project.write("in/a", "x")
        assert pipeline(str(folder / "pipeline.yaml")).returncode == 0
        for closed in ("in", "stages", "out"):
            (folder / closed).chmod(0o700)

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", AS_NOBODY, "status", *arguments, str(folder / "pipeline.yaml")]
            return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)

        done = as_nobody("--check", "--max-age", "26h")
        assert (done.stderr, done.returncode) == ("", 0) and done.stdout.startswith("pipeline: OK, ")
        assert as_nobody().stdout.startswith("pipeline: 1 done (1 file, ")
        (folder / ".pipeline/pipeline").chmod(0o700)
        done = as_nobody("--check")
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("progress.json cannot be read: Permission denied\n")


def test_check_is_quick(project: Project, pipeline: Pipeline) -> None:
    """Nothing that a run needs is imported: a monitor asks about hundreds of pipelines."""
    assert pipeline().returncode == 0
    code = (
        "import sys; from pipeline.cli import main; main(['status', '--check']); print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project.folder
    ).stderr.split()  # fmt: skip
    heavy = {"yaml", "pydantic", "sqlite3", "PIL", "multiprocessing", "tqdm", "pipeline.engines", "pipeline.ledger"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-age", "26h"), "--max-age is for --check"),
        (("--check", "--max-age", "26"), "--max-age: a duration with its unit is needed"),
        (("--watch", "--json"), "--watch is for people"),
    ],
)
def test_options_that_make_no_sense(
    project: Project, pipeline: Pipeline, arguments: tuple[str, ...], said: str
) -> None:  # fmt: skip
    """Are refused, with what to do."""
    done = pipeline("status", *arguments)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


# -- --watch -----------------------------------------------------------------------------------------------------------

HELD = """
import time
from pathlib import Path
GO = Path(__file__).parent.parent / "go"
def upper(text: str) -> str:
    while text == "wait" and not GO.exists():
        time.sleep(0.01)
    return text.upper()
"""


@pytest.fixture
def held(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has one file in hand, of a long name, until there is a file `go`."""
    project.write("stages/upper.py", HELD)
    project.write(f"in/{'n' * 60}", "wait")
    with subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder) as run:
        folder = project.folder / ".pipeline/pipeline"
        wait_until(lambda: any(each["seconds"] > 0.5 for each in read_progress(folder)[1].get("in_hand", ())))
        yield run
        run.kill()


@pytest.mark.processes
def test_watch_draws_in_place_until_the_end(project: Project, held: subprocess.Popen[bytes]) -> None:
    """At forty columns lines are broken between words, names inside; each picture is in the place of the last."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    watch = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "status", "--watch"], cwd=project.folder, stdout=theirs,
        env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while seen.count(b"\x1b[J") < 2:
        seen += os.read(ours, 4096)
    project.write("go", "")
    with suppress(OSError):  # how Linux says that nobody has the other end open
        while more := os.read(ours, 4096):
            seen += more
    assert watch.wait(60) == 0 and held.wait(60) == 0
    pictures = seen.decode().replace("\r\n", "\n").split("\x1b[J")[1:]
    assert "ended" in pictures[-1].replace("\n", "") or "done" in pictures[-1]
    for before, after in itertools.pairwise(pictures):
        body, up = re.fullmatch(r"(.*\n)(?:\x1b\[(\d+)F)", before, re.S).groups()  # type: ignore[union-attr]
        assert body.count("\n") == int(up) and after
        assert all(len(line) < 40 for line in body.splitlines())
    assert re.match(r"pipeline: running \d+ of 41 files,", pictures[0])
    said = " ".join(pictures[0].split())
    assert re.search(rf" in hand, for .* \(pid {held.pid} on .*\) n+\.\.\.n+: in hand for ", said)


@pytest.mark.processes
def test_watch_without_a_terminal_prints_what_is_new(project: Project, held: subprocess.Popen[bytes]) -> None:
    """Lines without escapes, and nothing again that was said before."""
    command = [sys.executable, "-m", "pipeline", "status", "--watch"]
    with subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout
        first = watch.stdout.readline()
        project.write("go", "")
        rest = watch.stdout.read()
    assert first.startswith("pipeline: running ") and watch.returncode == 0 and "\x1b" not in rest
    assert re.search(r"pipeline: \d+ done .* with exit 0\n$", rest)


@pytest.mark.processes
def test_one_output_that_failed_is_one(project: Project, pipeline: Pipeline) -> None:
    project.write("stages/upper.py", SLOW)
    project.write("in/00", b"\xff")
    run = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.DEVNULL)
    folder = project.folder / ".pipeline/pipeline"
    wait_until(lambda: read_progress(folder)[1].get("failed"))
    said = pipeline("status").stdout
    run.kill()
    run.wait()
    assert "1 output failed" in said.splitlines()[0]


@pytest.mark.processes
def test_a_run_that_was_suspended_says_so(project: Project, held: subprocess.Popen[bytes], pipeline: Pipeline) -> None:
    """By Ctrl-Z, or by somebody who has forgotten it: how it goes on is said, and it does not count as hung."""
    held.send_signal(signal.SIGSTOP)
    folder = project.folder / ".pipeline/pipeline"
    wait_until(lambda: read_progress(folder)[0] == "suspended")
    said = pipeline("status").stdout
    assert said.startswith("pipeline: suspended since ") and f"`kill -CONT {held.pid}`" in said
    out = pipeline()
    assert out.returncode == 75 and f"`kill -CONT {held.pid}` lets it go on" in out.stderr
    code, said = check(pipeline)
    assert code == 1 and "no run was a success yet" in said
    held.send_signal(signal.SIGCONT)
    wait_until(lambda: read_progress(folder)[0] == "running")
    held.kill()
    held.wait()
    code, said = check(pipeline)
    assert code == 1 and "was cut off" in said
