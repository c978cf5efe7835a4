"""What a run without a terminal says: what is new, once; and that is where cron's mails come from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from support.permissions import permissions_hold
from support.program import Pipeline, wait_until
from support.project import MOODY, Project, ledger_of

from pipeline.report.standing import read_progress

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
engine: serial
"""
# Fails within a helper of the user's, which is in a module of its own, and that within the standard library.
STAGE = """
from stages.reading import number
def upper(text: str) -> str:
    return str(number(text))
"""
HELPER = """
from json import loads
def number(text):
    return loads(text)
"""
NOT_JSON = "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (in stage 'up')"
WEEK_S = 7 * 86_400


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose stage takes numbers only; its files are `1` and `2`, and `bad` fails."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", STAGE)
    project.write("stages/reading.py", HELPER)
    for name, text in (("1", "1"), ("2", "2"), ("bad", "no number")):
        project.write(f"in/{name}", text)
    return project


def fact(project: Project, name: str) -> object:
    """Return a fact of the ledger."""
    with ledger_of(project.folder) as ledger:
        return ledger.facts.get(name)


def set_fact(project: Project, name: str, value: object) -> None:
    """Change a fact of the ledger, as if an earlier run had left it so."""
    with ledger_of(project.folder) as ledger:
        ledger.facts.set(name, value)


def _progress(project: Project, pid: int, failed: int) -> float:
    """Return when a process last wrote of its run, once so many outputs have failed in it; 0 before."""
    fields = read_progress(project.folder / ".pipeline/pipeline")[1]
    return float(fields["at"]) if fields and fields["pid"] == pid and fields["failed"] >= failed else 0.0


def test_a_new_failure_is_said_once_with_all_that_helps(project: Project, pipeline: Pipeline) -> None:
    """By its stage, reason, and file and line of the user's code; then the command, and where all lies."""
    folder = project.folder
    first = pipeline("-q")
    headline, failed, *rest = first.stderr.splitlines()
    assert (first.returncode, first.stdout) == (1, "")
    assert headline.startswith("pipeline: 2 done, 1 failed (3 files, ")
    assert failed == f"  bad (up): {NOT_JSON} at stages/reading.py:4"
    log = next((folder / ".pipeline/pipeline/runs").glob("*.log"))
    assert rest == [
        f"next: python -m pipeline failures {folder}/pipeline.yaml",
        f"pipeline: {folder}/pipeline.yaml", f"state: {folder}/.pipeline/pipeline", f"log: {log}",
        f"report: {folder}/.pipeline/pipeline/reports/{log.stem}.html",
    ]  # fmt: skip
    again = pipeline()
    assert (again.returncode, again.stderr) == (1, "")
    assert "1 failed" in pipeline("-v").stderr


@pytest.mark.processes
def test_what_a_killed_run_could_not_tell_is_told_by_the_next(project: Project, pipeline: Pipeline) -> None:
    """Nobody has heard of it: it is new in the mail, for the monitor and in the list of runs, once."""
    project.write("in/bad", "1")
    assert pipeline().returncode == 0
    go = f"Path({str(project.folder / 'go')!r})"
    waits = f"    while text == '7' and not {go}.exists():\n        time.sleep(0.01)\n"
    project.write(
        "stages/upper.py", f"import time\nfrom pathlib import Path\n{STAGE.replace('    return', f'{waits}    return')}"
    )
    project.write("in/bad", "no number")
    project.write("in/slow", "7")
    for _ in range(2):  # also where two in a row are killed
        with subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.DEVNULL) as run:
            failed_at = wait_until(partial(_progress, project, run.pid, 1))
            # A beat later it is on record.
            wait_until(lambda pid=run.pid, at=failed_at: _progress(project, pid, 1) > at + 0.5)
            run.kill()
    project.write("go", "")
    night = pipeline()
    assert night.returncode == 1 and "\n  bad (up): JSONDecodeError" in night.stderr
    assert ": bad\n" in pipeline("status", "--check").stdout
    assert "1 file failed, new in the run of" in pipeline("failures").stdout
    again = pipeline()
    assert (again.returncode, again.stderr) == (1, "")
    assert "new failure" not in pipeline("status", "--check").stdout


def test_verbose_always_ends_with_the_summary(project: Project, pipeline: Pipeline) -> None:
    """So that the log of a CI is not empty: also where nothing was to be done, or the run before says what."""
    project.write("in/bad", "3")
    assert pipeline().stderr == ""
    for arguments in (("-v",), ("-v",), ("-v", "--json"), ("-v", "--force")):
        assert pipeline(*arguments).stderr.startswith("pipeline: 3 "), arguments
    assert pipeline("-v", "-q").stderr == pipeline("--json").stderr == ""


def test_another_source_or_recipe_is_another_failure(project: Project, pipeline: Pipeline) -> None:
    """It was tried anew, and in vain; so it is said, and so is what has recovered."""
    assert "1 failed" in pipeline().stderr and not pipeline().stderr
    project.write("in/bad", "still no number")
    assert "  bad (up): " in pipeline().stderr and not pipeline().stderr
    project.edit("stages/reading.py", "loads(text)", "loads(text) + 1")
    assert "  bad (up): " in pipeline().stderr and not pipeline().stderr
    project.write("in/bad", "3")
    mended = pipeline("--json")
    assert '"recovered": 1' in mended.stdout
    assert (mended.returncode, mended.stderr.splitlines()[1]) == (0, "recovered: bad (up)")
    assert (pipeline().returncode, pipeline().stderr) == (0, "")


def test_a_new_failure_among_old_ones_is_alone_in_the_mail(project: Project, pipeline: Pipeline) -> None:
    """The others are counted in the first line."""
    pipeline()
    project.write("in/worse", "nor this")
    headline, failed, command, *_ = pipeline().stderr.splitlines()
    assert "2 failed (1 new)" in headline and failed.startswith("  worse (up): ") and command.startswith("next: ")
    assert "  new: worst (up): " in (project.write("in/worst", "nor that") and pipeline("-v").stderr)


def test_a_source_that_changed_while_it_was_read_is_new_each_time(tmp_path: Path, pipeline: Pipeline) -> None:
    """Nothing of it is on record, and its output is missing."""
    project = Project(tmp_path, YAML)
    body = "from pathlib import Path\ndef upper(file: Path) -> str:\n    file.touch()\n    return 'x'\n"
    project.write("stages/upper.py", body)
    project.write("in/a", "a")
    for _ in range(2):
        assert "  a (up): changed while stage 'up'" in pipeline().stderr


def test_a_job_that_was_only_cut_off_has_not_failed(tmp_path: Path, pipeline: Pipeline) -> None:
    """So its first failure is a new one; and made, it has not recovered."""
    project = Project(tmp_path, YAML)
    wait = "import os, signal, time\ndef upper(text: str) -> str:\n"
    kill = (
        "    if not os.path.exists('go'):\n        [os.kill(os.getpid(), 2) for _ in '123']\n        time.sleep(60)\n"
    )
    project.write("stages/upper.py", f"{wait}{kill}    return str(int(text))\n")
    project.write("in/a", "one")
    cut = pipeline("--grace", "0")
    assert cut.returncode == 130 and "  a: cut off after " in cut.stderr and "stopped: by SIGINT" in cut.stderr
    assert f"next: python -m pipeline run {tmp_path}/pipeline.yaml" in cut.stderr
    project.write("go", "")
    assert "  a (up): ValueError: " in pipeline().stderr


def test_after_a_limit_the_command_is_none_that_meets_it_again(project: Project, pipeline: Pipeline) -> None:
    """The list of what failed, also where others are held."""
    project.edit("pipeline.yaml", "engine", "errors: {hold_after: 1}\nengine")
    assert pipeline().returncode == 1
    project.edit("pipeline.yaml", "hold_after: 1", "hold_after: 1, max: 0%")
    project.write("in/worse", "no number")
    stopped = pipeline()
    assert stopped.returncode == 4 and "1 held" in stopped.stderr
    assert f"next: python -m pipeline failures {project.folder}/pipeline.yaml\n" in stopped.stderr


def test_held_files_are_silent_and_said_once_a_week(project: Project, pipeline: Pipeline) -> None:
    """With names, reasons and both cures; the exit code says each night that they are there."""
    for _ in range(3):
        assert pipeline().returncode == 1
    for _ in range(2):
        silent = pipeline()
        assert (silent.returncode, silent.stderr) == (6, "")
    set_fact(project, "told_held_at", time.time() - WEEK_S + 3600)
    assert pipeline().stderr == ""
    set_fact(project, "told_held_at", time.time() - WEEK_S)
    weekly = pipeline()
    file = f"{project.folder}/pipeline.yaml"
    assert (weekly.returncode, weekly.stderr.splitlines()[1]) == (
        6,
        f"held, since they failed too often: bad (1 JSONDecodeError); once mended: python -m pipeline run {file}"
        f" --retry-failed; if they need not be done: python -m pipeline failures {file} --dismiss PATTERN",
    )
    assert pipeline().stderr == ""
    assert pipeline("failures", "--dismiss", "bad").returncode == 0
    assert (pipeline().returncode, fact(project, "told_held_at")) == (0, None)


def test_commands_repeat_the_edits_of_the_run(project: Project, pipeline: Pipeline) -> None:
    """Whoever follows them makes nothing anew, as he would with the options of pipeline.yaml."""
    edit = ("--set", "stages.up.output=out/{name}.x y", "--set", "errors.hold_after=1")
    assert [pipeline(*edit).returncode for _ in range(2)] == [1, 6]
    set_fact(project, "told_held_at", time.time() - WEEK_S)
    said = "run FILE --retry-failed --set 'stages.up.output=out/{name}.x y' --set errors.hold_after=1;"
    assert said.replace("FILE", f"{project.folder}/pipeline.yaml") in pipeline(*edit).stderr


def test_what_is_tried_for_all_that_failed_alike_is_held(project: Project, pipeline: Pipeline) -> None:
    """It fails as before each night: silence, exit 6, and no attempt more; the reminder names it."""
    project.edit("pipeline.yaml", "engine", "errors: {hold_after: 1}\nengine")
    for name in ("bad2", "bad3"):
        project.write(f"in/{name}", "not a number")
    assert pipeline().returncode == 1
    for _ in range(3):
        silent = pipeline()
        assert (silent.returncode, silent.stderr) == (6, "")
    set_fact(project, "told_held_at", time.time() - WEEK_S)
    assert "held, since they failed too often: bad, bad2, bad3 (3 JSONDecodeError)" in pipeline().stderr
    with ledger_of(project.folder) as ledger:
        assert [each.attempts for each in ledger.failures.all()] == [1, 1, 1]
    assert pipeline("--retry-failed").returncode == 1


def test_a_clock_that_was_ahead_silences_nothing(project: Project, pipeline: Pipeline) -> None:
    """What was told in a time to come is told again."""
    project.edit("pipeline.yaml", "engine", "errors: {hold_after: 1}\nengine")
    assert [pipeline().returncode for _ in range(2)] == [1, 6]
    set_fact(project, "told_held_at", time.time() + 50 * WEEK_S)
    assert "held, since they failed too often: bad" in pipeline().stderr
    assert pipeline().stderr == ""


def test_a_lasting_condition_is_said_once(project: Project) -> None:
    """Until it was over; a run over some files neither says it again nor forgets it."""
    project.write("in/bad", "3")
    folder = project.write("in/b/4", "4").parent
    said = "folder b/ cannot be listed: Permission denied; what is in it was left alone"
    assert project.run().exit == 0
    with permissions_hold():
        folder.chmod(0)
        summary = project.run()
        assert (summary.exit, summary.news()[1]) == (1, said)
        for _ in range(2):
            summary = project.run()
            assert (summary.exit, summary.notes, summary.news()) == (1, [said], [])
        project.run(only="1")
        assert project.run().news() == []
        folder.chmod(0o700)
        assert project.run().exit == 0
        folder.chmod(0)
        assert said in project.run().news()
        folder.chmod(0o700)


def test_what_was_set_aside_is_said_each_time(tmp_path: Path, pipeline: Pipeline) -> None:
    """It may be all that is left of a source, which a stage has removed."""
    project = Project(tmp_path, YAML)
    body = "from pathlib import Path\ndef upper(file: Path) -> bytes:\n    data = file.read_bytes()\n"
    project.write("stages/upper.py", f"{body}    file.unlink()\n    return data\n")
    for _ in range(2):
        project.write("in/a", "a")
        assert "1 file kept in .pipeline/pipeline/set-aside/" in pipeline().stderr


def test_a_first_run_that_streams_has_new_failures(tmp_path: Path, pipeline: Pipeline) -> None:
    """Sixty of one reason are one line; the ledger knows the worker and the place of each."""
    project = Project(tmp_path, YAML.replace("engine: serial", "pool: {processes: 2}"))
    project.write("stages/upper.py", MOODY)
    for number in range(60):
        project.write(f"in/{number:02}", "bad")
    summary = pipeline("--json")
    assert '"new_failed": 60' in summary.stdout
    assert "  60 files (up): ValueError: bad text (in stage 'up') at stages/upper.py:7, e.g. " in summary.stderr
    with ledger_of(tmp_path) as ledger:
        found = ledger._connection.execute("SELECT DISTINCT place, seat IN (0, 1) FROM failures").fetchall()
    assert found == [("stages/upper.py:7", 1)]


def test_a_killed_worker_is_known_by_its_seat(tmp_path: Path, pipeline: Pipeline) -> None:
    """Though it had no time to say anything, nor where it was."""
    project = Project(tmp_path, YAML.replace("engine: serial", "pool: {processes: 1}"))
    project.write("stages/upper.py", "import os\ndef upper(text: str) -> str:\n    os.kill(os.getpid(), 9)\n")
    project.write("in/a", "a")
    assert pipeline().returncode == 1
    with ledger_of(tmp_path) as ledger:
        found = ledger._connection.execute("SELECT kind, seat IN (0, 1), place FROM failures").fetchall()
    assert found == [("crashed", 1, "")]  # the second of two was in the place that was free


def test_a_place_of_any_name_can_be_kept(tmp_path: Path, pipeline: Pipeline) -> None:
    """The folder of a module may have a name that is no UTF-8."""
    folder = tmp_path / os.fsdecode(b"odd\xff\n")
    folder.mkdir()
    project = Project(folder, YAML)
    project.write("stages/upper.py", MOODY)
    project.write("in/a", "bad")
    said = pipeline(cwd=folder)
    assert "  a (up): ValueError: bad text (in stage 'up') at " in said.stderr and said.returncode == 1
    assert "stages/upper.py:7" in said.stderr
    assert f"next: python -m pipeline failures $'{tmp_path}/odd\\377\\012/pipeline.yaml'\n" in said.stderr
