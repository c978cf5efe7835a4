"""Files that fail: how often they are tried again, when they are held, and who may say that it is well."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.program import Pipeline, wait_until
from support.project import MOODY, ONE_STAGE, Project, ledger_of, made, temporaries

from pipeline.config.model import Errors
from pipeline.config.units import Share
from pipeline.files.state_dir import open_state
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.session import open_to_read
from pipeline.messages import FailureKind, Outcome, Result, Source

HELD = ("held", "held after 3 failed attempts")
ENDINGS = pytest.mark.parametrize(("ending", "counts"), [(0, 1), (1, 1), (3, 0), (4, 0), (70, 0), (130, 0)])


@pytest.fixture
def moody(tmp_path: Path) -> Project:
    """A file that fails and one that does not, as long as their contents say so."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("in/a", "good")
    project.write("in/bad", "bad one")
    return project


@pytest.fixture
def held(moody: Project) -> Project:
    """The same after three nights."""
    for _ in range(3):
        moody.run()
    assert moody.plan()["up bad"] == HELD
    return moody


def failures(project: Project) -> list[Failure]:
    with ledger_of(project.folder) as ledger:
        return list(ledger.failures.all())


# -- held --------------------------------------------------------------------------------------------------------------


def test_three_nights_then_it_is_held(moody: Project) -> None:
    """Each night says how often it was; after the third the file is left alone, and exit 6 says so every night."""
    for attempt in (1, 2):
        assert moody.run().failed == 1
        assert moody.plan()["up bad"] == ("make", f"failed before (error, attempt {attempt} of 3)")
    moody.run()
    for _ in range(3):
        assert moody.plan()["up bad"] == HELD
        summary = moody.run()
        assert (summary.held, summary.failed, summary.up_to_date, summary.exit) == (1, 0, 1, 6)
        assert any("--retry-failed" in line for line in summary.lines())
    assert [each.attempts for each in failures(moody)] == [3]


@pytest.mark.parametrize(("said", "plans"), [("1", "held after 1 failed attempt"), ("2", HELD[1].replace("3", "2"))])
def test_hold_after_says_how_often(moody: Project, said: str, plans: str) -> None:
    """The number is the user's."""
    moody.edit("pipeline.yaml", "engine", f"errors: {{hold_after: {said}}}\nengine")
    for _ in range(int(said)):
        moody.run()
    assert moody.plan()["up bad"] == ("held", plans)


def test_hold_after_never(moody: Project) -> None:
    """Whoever wants every run to try again says so."""
    moody.edit("pipeline.yaml", "engine", "errors: {hold_after: never}\nengine")
    for attempt in range(1, 6):
        assert moody.run().failed == 1
        assert moody.plan()["up bad"] == ("make", f"failed before (error, attempt {attempt})")


def change_contents(project: Project) -> None:
    project.write("in/bad", "bad again, and longer")


def change_time(project: Project) -> None:
    os.utime(project.folder / "in/bad", (1, 1))


def change_recipe(project: Project) -> None:
    project.edit("stages/upper.py", "text.upper()", "text.title()")


@pytest.mark.parametrize("change", [change_contents, change_time, change_recipe])
@pytest.mark.parametrize("dismissed", [False, True])
def test_a_change_is_a_new_beginning(held: Project, pipeline: Pipeline, change: object, dismissed: bool) -> None:
    """Another file, or another recipe, is tried again, three times, whatever anybody said of the old one."""
    if dismissed:
        pipeline("failures", "--dismiss", "bad")
    change(held)  # type: ignore[operator]
    assert held.plan()["up bad"][0] == "make"
    for attempt in (1, 2):
        assert held.run().failed == 1
        assert held.plan()["up bad"] == ("make", f"failed before (error, attempt {attempt} of 3)")
    held.run()
    assert held.plan()["up bad"] == HELD


def test_a_mended_file_is_forgotten(held: Project) -> None:
    """A held file that is replaced by a good one is done, and nothing is left of its past."""
    held.write("in/bad", "good now")
    assert (held.run().exit, failures(held)) == (0, [])
    assert held.outputs() == {"a": b"GOOD", "bad": b"GOOD NOW"}


def test_retry_failed_tries_once_more(held: Project) -> None:
    """It is planned and tried, and held at once if it fails again: the cause was not the machine's."""
    assert held.plan(retry_failed=True)["up bad"] == ("make", "failed before (error, attempt 3 of 3)")
    summary = held.run(retry_failed=True)
    assert (summary.failed, summary.held, summary.exit) == (1, 0, 1)
    assert held.plan()["up bad"] == ("held", "held after 4 failed attempts")
    assert held.plan(retry_failed=True)["up bad"] == ("make", "failed before (error, attempt 4)")


def test_force_overrides_a_hold(held: Project) -> None:
    """--force redoes all there is."""
    assert held.plan(force=True) == {"up a": ("make", "forced"), "up bad": ("make", "new")}
    assert held.run(force=True).failed == 1


def test_only_the_stage_that_failed_is_held(tmp_path: Path) -> None:
    """Another output of the same file, new in the tree, is made."""
    more = "  - {name: raw, from: inputs, uses: raw, output: 'raw/{name}'}\nengine"
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("stages/raw.py", "def raw(data: bytes) -> bytes:\n    return data\n")
    project.write("in/a", "bad")
    for _ in range(3):
        project.run()
    project.edit("pipeline.yaml", "engine", more)
    assert project.plan() == {"up a": HELD, "raw a": ("make", "new")}
    summary = project.run()
    assert (summary.done, summary.held, summary.exit) == (1, 1, 6)


def test_a_new_output_path_does_not_lift_a_hold(held: Project) -> None:
    """Where an output goes has no part in why it fails."""
    held.edit("pipeline.yaml", "out/{dir}", "other/{dir}")
    assert held.plan()["up bad"] == HELD


def test_a_held_file_keeps_its_claim(tmp_path: Path) -> None:
    """Whether a path is free does not depend on how often the other one was tried."""
    project = Project(tmp_path, ONE_STAGE.replace("{name}", "{stem}"))
    project.write("stages/upper.py", MOODY)
    project.write("in/a.x", "bad")
    for _ in range(3):
        project.run()
    project.write("in/a.y", "good")
    assert {action for action, _ in project.plan().values()} == {"refuse"}
    (project.folder / "in/a.y").unlink()
    assert project.plan() == {"up a.x": HELD}


def test_a_refusal_is_no_attempt(tmp_path: Path) -> None:
    """What was never tried is not held: once its path is free it is done."""
    project = Project(tmp_path, ONE_STAGE.replace("{name}", "{stem}"))
    project.write("in/a.x", "x")
    project.write("in/a.y", "y")
    for _ in range(5):
        assert project.run().failed == 2
    assert [each.attempts for each in failures(project)] == [0, 0]
    (project.folder / "in/a.y").unlink()
    assert project.plan() == {"up a.x": ("make", "failed before (collision)")}
    assert project.run().exit == 0


# -- which runs count --------------------------------------------------------------------------------------------------


@ENDINGS
def test_which_endings_count(tmp_path: Path, ending: int, counts: int) -> None:
    """A run that the machine, the budget or a signal ended is no reason to hold a file."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        for run in ("one", "two"):
            ledger.begin_run(run)
            result = Result("up", b"/out/a", "failed", "why", "error")
            ledger.record(Outcome(Source(b"a", 1, 1), (result,)), lambda _, path: path, {"up": 1})
            ledger.end_run(ending, {}, swept=False)
        (failure,) = ledger.failures.all()
        assert (failure.attempts, failure.error) == (2 * counts, "why")


@pytest.mark.parametrize("kind", ["vanished", "changed"])
def test_a_source_that_moved_is_no_failure(tmp_path: Path, kind: FailureKind) -> None:
    """Neither an attempt nor on the list; what is known of earlier failures stays."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger.begin_run("one")
        ledger.record(
            Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "failed", "why", kind),)), lambda _, path: path, {}
        )
        ledger.end_run(1, {}, swept=False)
        assert list(ledger.failures.all()) == []


SLOW_BAD = """
import time
def upper(text: str) -> str:
    if text == "bad":
        raise ValueError("bad text")
    time.sleep(0.2)
    return text.upper()
"""


@pytest.mark.processes
@pytest.mark.parametrize("engine", ["serial", "pool"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_runs_that_a_signal_ends_do_not_count(
    tmp_path: Path, pipeline: Pipeline, engine: str, number: signal.Signals
) -> None:
    """A file that failed in a run that was stopped is on the list with its reason, and without an attempt."""
    project = Project(tmp_path)
    project.write("stages/upper.py", SLOW_BAD)
    project.write("in/a", "bad")
    for name in range(60):
        project.write(f"in/b{name:02}", "slow")
    command = [sys.executable, "-m", "pipeline", "--engine", engine, "-j", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until(lambda: _has_failed(tmp_path))
    process.send_signal(number)
    assert process.wait(100) == (-9 if number == signal.SIGKILL else 130)
    (said,) = [json.loads(line) for line in pipeline("failures", "--json").stdout.splitlines()]
    assert (said["source"], said["kind"], said["attempts"]) == ("a", "error", 0)
    assert project.plan()["up a"] == ("make", "failed before (error)")
    assert len(project.outputs()) < 60


def _has_failed(folder: Path) -> bool:
    """Whether a failure is on record; read beside the run."""
    with open_to_read(folder / ".pipeline/pipeline/ledger.sqlite") as ledger:
        return next(ledger.failures.all(), None) is not None


# -- dismissed ---------------------------------------------------------------------------------------------------------


def test_dismissed_is_no_exit_1_any_more(held: Project, pipeline: Pipeline) -> None:
    """A person has said that it is well: the run says 0, the file stays on the list and in the counts."""
    done = pipeline("failures", "--dismiss", "ba*")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1 file dismissed\n")
    ran = pipeline("--json")
    said = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr, said["held"], said["dismissed"], said["up_to_date"]) == (0, "", 1, 1, 1)
    assert held.plan()["up bad"] == ("held", "dismissed (error)")
    *opening, line = pipeline("failures").stdout.splitlines()
    assert opening == ["pipeline: 0 files failed, none new; 1 dismissed", ""]
    assert line.endswith("ValueError: bad text (in stage 'up'), dismissed (error)")
    assert held.run(retry_failed=True).exit == 1
    assert held.run().exit == 0


def test_one_that_is_not_held_yet_can_be_dismissed(moody: Project, pipeline: Pipeline) -> None:
    """Whoever knows after the first night need not wait for the third."""
    moody.run()
    pipeline("failures", "--dismiss", "bad")
    assert moody.plan()["up bad"] == ("held", "dismissed (error)")
    assert moody.run().exit == 0


def test_others_are_not_dismissed(held: Project, pipeline: Pipeline) -> None:
    """Only what matches; nothing matching is no error, so that a script may say it every night."""
    held.write("in/sub/bad", "bad two")
    held.run()
    assert pipeline("failures", "--dismiss", "*.jpg").stderr == "0 files dismissed\n"
    assert pipeline("failures", "--dismiss", "/bad").stderr == "1 file dismissed\n"
    assert held.plan()["up sub/bad"] == ("make", "failed before (error, attempt 1 of 3)")
    assert held.run().exit == 1
    record = failures(held)
    assert [each.dismissed_at is not None for each in record] == [True, False]
    with ledger_of(held.folder) as ledger:
        assert ledger._connection.execute("SELECT dismissed_by FROM failures").fetchall() == [("/bad",), (None,)]


def test_what_was_dismissed_is_counted_in_files(tmp_path: Path, pipeline: Pipeline) -> None:
    """As above the list: a file of which two outputs failed is one."""
    more = "  - {name: more, from: inputs, uses: upper, output: 'more/{name}'}\nengine"
    project = Project(tmp_path, ONE_STAGE.replace("engine", more))
    project.write("stages/upper.py", MOODY)
    for name in ("a", "b"):
        project.write(f"in/{name}", "bad")
    project.run()
    assert opening(pipeline)[0].startswith("pipeline: 2 files failed, all new ")
    assert pipeline("failures", "--dismiss", "*").stderr == "2 files dismissed\n"
    assert opening(pipeline) == ["pipeline: 0 files failed, none new; 2 dismissed"]


def test_a_refusal_cannot_be_dismissed(tmp_path: Path, pipeline: Pipeline) -> None:
    """A file in the way of an output is somebody's to move."""
    project = made(tmp_path, "b")
    project.write("in/a", "x")
    project.write("out/a", "precious")
    assert project.run().exit == 1
    said = pipeline("failures", "--dismiss", "a").stderr.splitlines()
    assert said == ["0 files dismissed", "1 left: no stage failed over them, the place of their outputs is taken"]
    assert project.run().exit == 1


def test_a_bad_pattern_is_refused(moody: Project, pipeline: Pipeline) -> None:
    """Exit 2 and one sentence; without a ledger there is nothing to dismiss, nor is one made."""
    done = pipeline("failures", "--dismiss", "!")
    assert (done.returncode, done.stderr) == (2, "--dismiss: '!' is no gitignore pattern\n")
    assert pipeline("failures", "--dismiss", "*").stderr == "0 files dismissed\n"
    assert not (moody.folder / ".pipeline").exists()


def test_nothing_is_dismissed_beside_a_run(held: Project, pipeline: Pipeline) -> None:
    """The ledger has one writer at a time: exit 75."""
    with closing(open_state(held.folder / ".pipeline/pipeline", "pipeline")):
        done = pipeline("failures", "--dismiss", "*")
        assert done.returncode == 75 and "another run" in done.stderr
    assert held.plan()["up bad"] == HELD


# -- the list ----------------------------------------------------------------------------------------------------------

LOUD = 'def upper(text: str) -> str:\n    print("reading", text[:3])\n    raise ValueError("bad text")\n'


def test_the_list_has_what_was_printed(tmp_path: Path, pipeline: Pipeline) -> None:
    """The kind of the failure, attempts, the last error, and the words of the stage, which no terminal obeys."""
    project = Project(tmp_path)
    project.write("stages/upper.py", LOUD.replace("reading", "reading \\x1b[31m"))
    project.write("in/a", "text")
    pipeline("--engine", "pool")
    said = pipeline("failures").stdout.rpartition("\n\n")[2]
    assert said == ("a (up): error: ValueError: bad text (in stage 'up'), attempt 1 of 3\n    reading \\x1b[31m tex\n")
    project.write("stages/upper.py", 'def upper(text: str) -> str:\n    print("x" * 100_000)\n    assert 0\n')
    pipeline("--engine", "pool")
    assert 3000 < len(pipeline("failures").stdout) < 6000


def test_the_list_as_json(held: Project, pipeline: Pipeline) -> None:
    """Always the same keys, and beside them whether it is held, dismissed or new, only where it is."""
    held.write("in/sub/bad", "bad two")
    held.run()
    first, second = (json.loads(line) for line in pipeline("failures", "--json").stdout.splitlines())
    error = "ValueError: bad text (in stage 'up')"
    (failed_first, failed_last), run = failures(held), json.loads(pipeline("runs", "show", "--json").stdout)["run"]
    assert second.pop("failed_at") == second.pop("first_failed_at") == failed_last.first_failed_at / 1e9
    assert first.pop("failed_at") > first.pop("first_failed_at") == failed_first.first_failed_at / 1e9
    assert run == second.pop("run") != first.pop("run")
    assert {first.pop("worker"), second.pop("worker")} == {None}
    assert first.pop("place") == second.pop("place") == failed_last.place
    alike = {"stage": "up", "kind": "error", "error": error}
    assert first == {"source": "bad", "attempts": 3, "held": True, **alike}
    assert second == {"source": "sub/bad", "attempts": 1, "new": True, **alike}
    pipeline("failures", "--dismiss", "/bad")
    assert json.loads(pipeline("failures", "--json").stdout.splitlines()[0])["dismissed"] is True
    change_contents(held)
    assert not {"held", "dismissed"} & set(json.loads(pipeline("failures", "--json").stdout.splitlines()[0]))


# -- what a person needs first -----------------------------------------------------------------------------------------


def opening(pipeline: Pipeline) -> list[str]:
    """Return what stands above the list, less the places in the code."""
    above = pipeline("failures").stdout.rpartition("\n\n")[0]
    return re.sub(r" at stages/upper\.py:\d+$", "", above, flags=re.M).splitlines()


def next_step(pipeline: Pipeline) -> str:
    (line,) = (line for line in opening(pipeline) if line.startswith("next: "))
    return line


def test_the_list_opens_with_what_is_new_what_is_shared_and_what_to_do(tmp_path: Path, pipeline: Pipeline) -> None:
    """One line for a group, one for what is telling of it, one for whose fault it likely is, and one thing to do."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    for number in range(200):
        project.write(f"in/all/{number:03}.txt", "good")
    project.write("in/all/old.txt", "bad")
    project.run()
    for number in range(9):
        project.write(f"in/drafts/2024/{number}.txt", "bad")
    project.run()
    said, yaml = opening(pipeline), tmp_path / "pipeline.yaml"
    assert said[0].startswith("pipeline: 10 files failed, 9 new in the run of 20")
    assert said[0].endswith(", 10 since yesterday")
    assert said[1:] == [
        "",
        "10 files (9 new) in stage up: ValueError: bad text",
        "  of 10, 9 are in drafts/2024/ (4 % of all files)",
        "  likely the fault of the files: by what they share",
        "  all/old.txt, drafts/2024/0.txt, drafts/2024/1.txt, ...",
        "",
        f"next: python -m pipeline try {yaml} {tmp_path}/in/all/old.txt",
    ]
    project.write("in/all/old.txt", "good now")
    project.run()
    assert opening(pipeline)[3] == "  all 9 in drafts/2024/ (4 % of all files)"
    assert next_step(pipeline) == (
        f"next: look at {tmp_path}/in/drafts/2024/0.txt, and repair or replace the files; if they need not be done: "
        f"python -m pipeline failures {yaml} --dismiss /drafts/2024/"
    )
    assert pipeline("failures", "--dismiss", "/drafts/2024/").stderr == "9 files dismissed\n"
    assert opening(pipeline) == ["pipeline: 0 files failed, none new; 9 dismissed"]


ODD = [b"a b", b"a'b", b"[ab]*?.x", b"!#x", b"sub/\\x", "\u00e4.txt".encode(), b"-x", b"a$b`c"]


@pytest.mark.parametrize("name", ODD, ids=os.fsdecode)
def test_what_is_to_be_done_next_can_be_typed_as_it_is(tmp_path: Path, pipeline: Pipeline, name: bytes) -> None:
    """Into a shell, whatever the name of the file; and it dismisses that file alone."""
    project = Project(tmp_path)
    for each in (b"ok", b"ab.x", b"x", name):
        project.write(f"in/{os.fsdecode(each)}", b"\xff" if each == name else b"good")
    project.run()
    assert next_step(pipeline).startswith("next: repair or replace ")
    command = next_step(pipeline).partition("; if it need not be done: python -m pipeline ")[2]
    words = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert pipeline(*words.split(b"\0")[:-1]).stderr == "1 file dismissed\n"
    (left,) = failures(project)
    assert (left.source, left.dismissed_at is not None) == (name, True)


MIXED = """
def upper(text: str) -> str:
    if text.startswith("odd"):
        raise ValueError("odd text")
    if text.startswith("bad"):
        raise KeyError(text)
    return text
"""


def proposed(pipeline: Pipeline) -> list[str]:
    """Return the words of the command by which the opening proposes to dismiss files, as a shell reads them."""
    return shlex.split(next_step(pipeline).partition(": python -m pipeline ")[2])


@pytest.mark.parametrize(
    ("odd", "bad", "patterns"),
    [
        ("drafts/{}.x", "all/{}.x", ["/drafts/"]),
        ("drafts/{}.x", "drafts/{}.z", ["/drafts/**/*.x", "*.x"]),  # whichever is telling
        ("drafts/{}.x", "drafts/b{}.X", []),  # with the same folder and suffix, in any case
        ("{}.x", "b{}.y", ["*.x"]),
    ],
)
def test_what_fails_for_another_reason_is_not_dismissed_with_a_group(
    tmp_path: Path, pipeline: Pipeline, odd: str, bad: str, patterns: list[str]
) -> None:
    """The pattern that is proposed takes the group alone; where there is none, none is proposed."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MIXED)
    for number in range(120):
        project.write(f"in/all/{number:03}.txt", "good")
    for number in range(12):
        project.write(f"in/{odd.format(number)}", "odd")
    for number in range(4):
        project.write(f"in/{bad.format(number)}", "bad")
    project.run()
    if not patterns:
        assert next_step(pipeline).startswith("next: python -m pipeline try ")
        return
    *command, pattern = proposed(pipeline)
    assert command[-1] == "--dismiss" and pattern in patterns
    assert pipeline(*command, pattern).stderr.startswith("12 ")
    assert {each.error[:10] for each in failures(project) if each.dismissed_at} == {"ValueError"}


def test_few_files_without_a_pattern_are_named(tmp_path: Path, pipeline: Pipeline) -> None:
    """Each by a --dismiss of its own; not one that fails elsewhere for another reason."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MIXED)
    for name, text in {"a b": "odd", "sub/c": "odd", "c": "bad", "d": "good"}.items():
        project.write(f"in/{name}", text)
    project.run()
    assert proposed(pipeline)[-4:] == ["--dismiss", "/a\\ b", "--dismiss", "/sub/c"]
    assert pipeline(*proposed(pipeline)).stderr.startswith("2 ")
    assert [each.source for each in failures(project) if not each.dismissed_at] == [b"c"]


def test_a_name_that_cannot_be_typed_is_shown(tmp_path: Path, pipeline: Pipeline) -> None:
    """No pattern is offered for it, and nothing of it acts on a terminal."""
    project = Project(tmp_path)
    project.write("in/ok", "good")
    project.write(os.fsdecode(b"in/\x1b[31m\n\xff"), b"\xff")
    project.run()
    said = opening(pipeline)
    assert all(line.isprintable() for line in said) and "--dismiss" not in "".join(said)
    assert next_step(pipeline).startswith("next: python -m pipeline try ")


def test_one_file_is_spoken_of_as_one(moody: Project, pipeline: Pipeline) -> None:
    """In the night in which it fails, and in the next one."""
    moody.run()
    assert opening(pipeline)[0].startswith("pipeline: 1 file failed, new in the run of 20")
    moody.run()
    assert opening(pipeline)[0] == "pipeline: 1 file failed, not new, but since yesterday"


def test_an_exception_in_different_files_is_likely_the_stages_fault(moody: Project, pipeline: Pipeline) -> None:
    """One of them is to be tried; with -v or without it the text of an error is one line."""
    for number in range(4):
        moody.write(f"in/{'abcd'[number]}{number}.{'wxyz'[number]}", "bad one")
    moody.run()
    said = opening(pipeline)
    assert said[2:4] == [
        "5 files in stage up: ValueError: bad text",
        "  likely the fault of the stage: different files that share nothing telling",
    ]
    assert next_step(pipeline) == f"next: python -m pipeline try {moody.folder}/pipeline.yaml {moody.folder}/in/a0.w"


def test_what_lies_in_the_way_is_to_be_moved(tmp_path: Path, pipeline: Pipeline) -> None:
    project = made(tmp_path, "b")
    project.write("in/a", "x")
    project.write("out/a", "precious")
    project.run()
    assert opening(pipeline)[2:4] == [
        "1 file in stage up: collision: exists, not ours: out/a",
        "  likely the fault of the pipeline: the place of the output is taken",
    ]
    assert "move away what lies there" in next_step(pipeline)


def test_nothing_failed_is_one_line_on_stderr(tmp_path: Path, pipeline: Pipeline) -> None:
    """For whoever reads the list by a program there is nothing to read."""
    made(tmp_path, "b")
    for words in (["failures"], ["failures", "--json"]):
        said = pipeline(*words)
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "pipeline: no failures on record\n")


BROKEN_YAML, BROKEN_STAGE = ("pipeline.yaml", ONE_STAGE + "inputs: [\n"), ("stages/upper.py", "def upper(:\n")


@pytest.mark.parametrize(("file", "text"), [BROKEN_YAML, BROKEN_STAGE])
def test_the_list_of_a_pipeline_that_does_not_load(held: Project, pipeline: Pipeline, file: str, text: str) -> None:
    """One line says what is not known then; the list is there, and what is to be done first."""
    held.write(file, text)
    said = pipeline("failures")
    assert (said.returncode, said.stderr.count("\n")) == (0, 1)
    assert (
        said.stderr.startswith("pipeline.yaml:") and "which files are held cannot be said until it loads" in said.stderr
    )
    assert said.stdout.startswith("pipeline: 1 file failed, ") and " held" not in said.stdout
    assert "\nbad (up): error: ValueError: bad text (in stage 'up'), attempt 3\n" in said.stdout
    assert f"\nnext: mend the pipeline: python -m pipeline check {held.folder}/pipeline.yaml\n" in said.stdout
    (line,) = map(json.loads, pipeline("failures", "--json").stdout.splitlines())
    assert (line["source"], line["attempts"], "held" in line) == ("bad", 3, False)
    assert pipeline("failures", "--dismiss", "bad").returncode == 2


# -- the budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "planned", "allowed"),
    [(None, 10, None), (3, 10, 3), ("5%", 40, 2), ("5%", 39, 1), ("29%", 100, 29), ("0%", 9, 0), ("0.1%", 1000, 1)],
)
def test_what_a_budget_allows(written: str | int | None, planned: int, allowed: int | None) -> None:
    """A number is one of files; a share is one of the files that are planned, rounded down, exactly."""
    limit = Share(written) if isinstance(written, str) else written
    assert Errors(limit).allowance(planned) == allowed


@pytest.mark.parametrize("engine", ["serial", "pool"])
@pytest.mark.parametrize("budget", ["4", "10%"])
def test_too_many_failures_stop_the_run(tmp_path: Path, pipeline: Pipeline, engine: str, budget: str) -> None:
    """Exit 4 and one sentence; what was in hand is recorded, nothing counts as an attempt, the same line goes on."""
    project = Project(tmp_path, ONE_STAGE + f"errors: {{max: {budget}}}\npool: {{processes: 2}}\n")
    project.write("stages/upper.py", MOODY)
    for number in range(40):
        project.write(f"in/{number:02}", "bad" if 5 <= number < 20 else f"good {number}")
    ran = pipeline("--json", "--engine", engine)
    said = json.loads(ran.stdout)
    assert (ran.returncode, said["exit"]) == (4, 4) and said["failed"] >= 5
    assert f"stopped: 5 of 40 files failed already, and errors.max is {budget}; what was in hand was" in ran.stderr
    assert ran.stderr.count("stopped:") == 1
    if engine == "serial":
        assert (said["done"], said["failed"]) == (5, 5)
    assert {each.attempts for each in failures(project)} == {0} and not temporaries(tmp_path)
    ran = pipeline("--engine", engine, "--set", "errors.max=20")
    assert ran.returncode == 1 and len(project.outputs()) == 25
    assert {each.attempts for each in failures(project)} == {1}


def test_just_the_budget_is_not_too_many(tmp_path: Path) -> None:
    """More than it allows, not as many."""
    project = Project(tmp_path, ONE_STAGE + "errors: {max: 50%}\n")
    project.write("stages/upper.py", MOODY)
    for number in range(4):
        project.write(f"in/{number}", "bad" if number % 2 else "good")
    summary = project.run()
    assert (summary.done, summary.failed, summary.exit, summary.stopped) == (2, 2, 1, "")


def test_what_failed_before_comes_last(tmp_path: Path) -> None:
    """A budget that old failures use up stops no new file from being done: each night gets further."""
    project = Project(tmp_path, ONE_STAGE + "errors: {max: 1}\n")
    project.write("stages/upper.py", MOODY)
    for name in ("a", "b", "c"):
        project.write(f"in/{name}", "bad")
    project.write("in/z", "good")
    assert [project.run().exit for _ in range(2)] == [4, 4]
    assert project.outputs() == {"z": b"GOOD"}


def test_files_are_counted_not_outputs(tmp_path: Path) -> None:
    """One bad file is one, whatever would have been made of it; a collision uses nothing up."""
    more = "  - {name: more, from: inputs, uses: upper, output: 'more/{stem}'}\n"
    project = Project(tmp_path, ONE_STAGE.replace("engine", f"{more}errors: {{max: 1}}\nengine"))
    project.write("stages/upper.py", MOODY)
    for name, text in {"a": "bad", "b.x": "x", "b.y": "y", "c": "good"}.items():
        project.write(f"in/{name}", text)
    summary = project.run()
    assert (summary.failed, summary.exit, summary.stopped) == (4, 1, "")
