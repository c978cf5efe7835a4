"""The memory survives kills, damage and restored backups: nothing is wrong, nothing stuck, and no edit lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.damage import HARMS, VICTIMS, Trial, keep_older, spoil
from support.program import Pipeline, on_terminal
from support.project import Project, every_kind

from pipeline.ledger import recovery


def settle() -> None:
    """Let a moment pass, since the clock of the files lags behind ours."""
    time.sleep(0.1)


@pytest.fixture
def killed(tmp_path: Path) -> Trial:
    """Files made, one of them edited and counted so; more were made, two recorded, and the run killed."""
    return killed_trial(tmp_path / "p", "plain")


def killed_trial(folder: Path, kind: str) -> Trial:
    folder.mkdir()
    trial = Trial(folder, kind)
    keep_older(trial, folder.parent / "older")
    trial.edit("old0")
    settle()
    trial.add("then", 2)
    assert trial.project.run().edited == 1
    trial.add("new", 4)
    trial.kill_run(after=2)
    trial.edit("old1")
    trial.edit("new0")
    return trial


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("kind", ["plain", pytest.param("fan-out", marks=pytest.mark.slow)])
def test_damage_to_any_file_of_the_state(tmp_path: Path, kind: str, victim: str) -> None:
    """After a kill and edits, whatever becomes of one file: the same line makes all right, and no edit is lost."""
    original = killed_trial(tmp_path / "p", kind)
    shutil.copytree(tmp_path / "p", tmp_path / "kept", symlinks=True)
    for harm in HARMS:
        shutil.rmtree(tmp_path / "p")
        shutil.copytree(tmp_path / "kept", tmp_path / "p", symlinks=True)
        spoil(original, victim, harm, tmp_path / "older")
        print(victim, harm)
        original.check()


@pytest.mark.parametrize("kind", ["plain", "fan-out"])
@pytest.mark.parametrize("harm", HARMS)
def test_damage_to_a_ledger_at_rest(tmp_path: Path, kind: str, harm: str) -> None:
    """Nobody was killed: what a person had edited before is kept, and what is done is not made again."""
    trial = Trial(tmp_path, kind)
    older = keep_older(trial, tmp_path / "older")
    trial.edit("old0")
    settle()
    trial.add("new", 2)
    trial.project.run()
    spoil(trial, "ledger.sqlite", harm, older)
    if harm != "older":
        assert trial.check().edited == 1
    else:
        trial.check()


def test_an_older_ledger_is_known_by_the_logs_of_its_runs(tmp_path: Path) -> None:
    """Where the owner file of the outputs is older too, the logs tell that more was made."""
    (tmp_path / "p").mkdir()
    trial = Trial(tmp_path / "p", "plain")
    older = keep_older(trial, tmp_path / "older")
    trial.add("new", 3)
    trial.edit("old1")
    assert trial.project.run().done == 3
    for victim in ("ledger.sqlite", "ledger-good.sqlite", "out/.filemill"):
        spoil(trial, victim, "older", older)
    assert trial.check().failed == 0


@pytest.mark.parametrize("harm", ["emptied", "half", "flipped", "gone"])
def test_a_damaged_copy_is_renewed_by_any_run(tmp_path: Path, harm: str) -> None:
    """Even by one that makes nothing, or is killed: the ledger itself may be the next to be damaged."""
    (tmp_path / "p").mkdir()
    trial = Trial(tmp_path / "p", "plain")
    spoil(trial, "ledger-good.sqlite", harm, tmp_path)
    trial.add("new", 2)
    trial.kill_run(after=1)
    spoil(trial, "ledger.sqlite", "half", tmp_path)
    trial.edit("old1")
    assert trial.check().failed == 0


def test_without_ledger_and_copy_nothing_is_overwritten(killed: Trial) -> None:
    """Nothing is known then: exit 2, and a sentence that names the cure."""
    before = killed.project.outputs()
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger-good.sqlite"):
        (killed.state / name).write_bytes(b"nothing of use")
    with pytest.raises(Exception, match="'adopt' takes what is there as made"):
        killed.project.run()
    assert killed.project.outputs() == before


# -- a person's edits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "fan-out"])
def test_an_edit_between_a_kill_and_the_next_run(tmp_path: Path, kind: str) -> None:
    """What was done is known to be an edit, and kept; in the place of what was in hand it is set aside and named."""
    (tmp_path / "p").mkdir()
    trial = Trial(tmp_path / "p", kind)
    trial.add("new", 3)
    trial.kill_run(after=1)
    trial.edit("old1")  # long done
    trial.edit("new1")  # made, and not recorded
    summary = trial.check()
    assert (summary.edited, summary.set_aside) == (1, 1)
    assert any(f"out/{trial.outputs_of('new1')[0]}" in note for note in summary.notes)


@pytest.mark.parametrize("kind", ["plain", "fan-out"])
def test_an_edit_of_what_a_killed_run_made_of_a_changed_source(tmp_path: Path, kind: str) -> None:
    """An output that was in hand is set aside if it was edited, also where its source differs from the record."""
    (tmp_path / "p").mkdir()
    trial = Trial(tmp_path / "p", kind)
    for name in ("old0", "old1"):
        trial.project.write(f"in/{name}", f"newer {name}")
    trial.kill_run(after=1)
    trial.edit("old1")  # made anew, and not recorded
    assert trial.check().set_aside == 1


def test_an_edit_between_a_kill_and_a_restart_of_the_machine(killed: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at 02:30, edited at 09:00, restarted at 12:00: no edit from before the run is touched, all are there."""
    settle()
    killed.edit("new1")
    monkeypatch.setattr(recovery, "boot_id", lambda: "another")
    monkeypatch.setattr(recovery, "boot_time_ns", time.time_ns)
    summary = killed.check()
    assert (summary.edited, summary.set_aside) == (1, 3)


def test_weeks_of_edits_and_then_a_damaged_ledger(tmp_path: Path) -> None:
    """Edits since the copy was made are set aside where nobody can tell them from ours, and each is named."""
    trial = Trial(tmp_path, "plain")
    settle()
    for name in ("old0", "old2", "old4"):
        trial.edit(name)
        assert trial.project.run().done == 0
    (trial.state / "ledger.sqlite").write_bytes(b"nothing of use")
    summary = trial.check()
    assert summary.set_aside == 3 and sum("out/old" in note for note in summary.notes) == 1


# -- restored from a backup --------------------------------------------------------------------------------------------


def version(project: Project, number: int) -> None:
    """Make a version of every output."""
    for name in ("a", "b"):
        project.write(f"in/{name}", f"version {number} of {name}" + "!" * number)
    assert project.run().exit == 0


@pytest.mark.parametrize("back", [1, 2, 3, 4])
@pytest.mark.parametrize("has_old_time", [True, False])
def test_an_output_from_an_older_backup_is_made_anew(tmp_path: Path, back: int, has_old_time: bool) -> None:
    """It is known by its digest, or by a time before it was made; a fifth version back with a new time is an edit."""
    project = Project(tmp_path)
    for number in range(5):
        version(project, number)
        shutil.copy2(tmp_path / "out/a", tmp_path / f"kept{number}")
        os.utime(tmp_path / f"kept{number}", (number, number))
    latest = project.outputs()
    shutil.copy2(tmp_path / f"kept{4 - back}", tmp_path / "out/a")
    if not has_old_time:
        os.utime(tmp_path / "out/a", (time.time() + 10,) * 2)
    summary = project.run()
    is_edit = back == 4 and not has_old_time
    assert (summary.edited, summary.done) == ((1, 0) if is_edit else (0, 1))
    assert is_edit or project.outputs() == latest
    assert summary.set_aside == (back == 4 and has_old_time)


def test_an_output_copied_back_with_another_time_is_as_it_was(tmp_path: Path) -> None:
    """Its contents say so; it is read once, and not every night."""
    project = Project(tmp_path)
    version(project, 0)
    os.utime(tmp_path / "out/a", (time.time() + 60,) * 2)
    summary = project.run()
    assert (summary.up_to_date, summary.edited, summary.done) == (2, 0, 0)
    with closing(sqlite3.connect(tmp_path / ".pipeline/pipeline/ledger.sqlite")) as ledger:
        (known,) = ledger.execute("SELECT mtime_ns FROM outputs WHERE target = CAST('out/a' AS BLOB)").fetchone()
    assert known == (tmp_path / "out/a").stat().st_mtime_ns


def test_edited_outputs_are_counted_everywhere(tmp_path: Path, pipeline: Pipeline) -> None:
    """In the summary, in --json and in `status`."""
    project = Project(tmp_path)
    version(project, 0)
    project.write("out/a", "mine")
    ran = pipeline("--json")
    assert '"edited": 1' in ran.stdout, ran.stdout
    assert "1 edited" in pipeline("status").stdout


# One output of each kind: a file, a part of a fan-out, and what is made of a group.
OF_EVERY_KIND = ("up/a/1", "lines/a/1/000001.txt", "a/sheet.txt")


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Project, list[dict[str, bytes]]]:
    """A project with outputs of every kind, made five times of another text; and what they were each time."""
    project, found = every_kind(tmp_path), []
    for number in range(5):
        for name in ("a/1", "a/2"):
            project.write(f"in/{name}", f"{number}: " + "text\n" * (number + 1) + "end")
        assert project.run().exit == 0
        found.append(project.outputs())
    return project, found


def put(project: Project, output: str, data: bytes, later_s: float) -> None:
    """Write to an output, and set its time to so long after the one it had."""
    file = project.folder / "out" / output
    then_ns = file.stat().st_mtime_ns
    file.write_bytes(data)
    os.utime(file, ns=(0, then_ns + round(later_s * 1e9)))


@pytest.mark.parametrize("output", OF_EVERY_KIND)
def test_an_edit_that_keeps_the_time_is_set_aside(tmp_path: Path, output: str) -> None:
    """A file of another size may be torn or edited: it is kept apart and named; an empty one needs no copy."""
    project = every_kind(tmp_path)
    project.write("in/a/1", "some text")
    assert project.run().exit == 0
    before, edit = project.outputs(), b"by a person, who kept the time"
    for data, is_kept in ((edit, 1), (b"", 0)):
        put(project, output, data, 0)
        summary = project.run()
        assert (summary.exit, summary.edited, summary.set_aside) == (0, 0, is_kept), summary
        assert any(f"out/{output}" in note for note in summary.notes) == bool(is_kept)
        assert project.outputs() == before
    kept = (tmp_path / ".pipeline/pipeline/set-aside").rglob("*")
    assert [file.read_bytes() for file in kept if file.is_file()] == [edit]


@pytest.mark.parametrize("back", [1, 2, 3])
@pytest.mark.parametrize("later_s", [-1000, 1000])
@pytest.mark.parametrize("output", OF_EVERY_KIND)
def test_one_of_the_last_three_versions_is_no_edit(
    versions: tuple[Project, list[dict[str, bytes]]], output: str, later_s: float, back: int
) -> None:
    """Of every kind of output, with its old time or a new one: it is made anew, nothing is kept aside or counted."""
    project, found = versions
    assert found[-1][output] != found[-1 - back][output]
    put(project, output, found[-1 - back][output], later_s)
    summary = project.run()
    assert (summary.edited, summary.set_aside, summary.exit) == (0, 0, 0) and project.outputs() == found[-1]
    assert project.run().done == 0


@pytest.mark.parametrize("output", OF_EVERY_KIND)
def test_a_version_that_is_too_old_to_be_remembered(
    versions: tuple[Project, list[dict[str, bytes]]], output: str
) -> None:
    """Older than its record it is no edit: it is made anew, and set aside first. With a new time it is kept."""
    project, found = versions
    put(project, output, found[0][output], -1000)
    summary = project.run()
    assert (summary.edited, summary.set_aside) == (0, 1) and project.outputs() == found[-1]
    assert any(f"out/{output}" in note for note in summary.notes)
    put(project, output, found[0][output], 1000)
    for _ in range(2):
        summary = project.run()
        assert (summary.edited, summary.set_aside, summary.exit) == (1, 0, 0)
        assert project.outputs()[output] == found[0][output]


@pytest.mark.parametrize(
    ("size", "later_s", "is_edit"), [(0, 0, False), (0, 1000, False), (3, 0, False), (3, 1000, True)]
)
@pytest.mark.parametrize("output", OF_EVERY_KIND)
def test_an_output_that_a_full_disk_has_cut(
    versions: tuple[Project, list[dict[str, bytes]]], output: str, size: int, later_s: float, is_edit: bool
) -> None:
    """It is made anew: what is left of it at its own time is set aside. With a new time it is kept and counted."""
    project, found = versions
    put(project, output, found[-1][output][:size], later_s)
    summary = project.run()
    assert (summary.edited, summary.set_aside, summary.exit) == (is_edit, size > 0 and not is_edit, 0)
    assert (project.outputs()[output] == found[-1][output]) is not is_edit


@pytest.mark.parametrize("later_s", [-1000, 1000])
@pytest.mark.parametrize("output", OF_EVERY_KIND)
def test_an_output_that_was_copied_back_is_as_it_was(
    versions: tuple[Project, list[dict[str, bytes]]], output: str, later_s: float
) -> None:
    """Neither it nor what is made of it is made anew, and its time is recorded: now and by the next run."""
    project, found = versions
    put(project, output, found[-1][output], later_s)
    for _ in range(2):
        summary = project.run()
        assert (summary.done, summary.edited, summary.set_aside) == (0, 0, 0) and project.outputs() == found[-1]
    with closing(sqlite3.connect(project.folder / ".pipeline/pipeline/ledger.sqlite")) as ledger:
        (known,) = ledger.execute(
            "SELECT mtime_ns FROM outputs WHERE target = ?", (f"out/{output}".encode(),)
        ).fetchone()
    assert known == (project.folder / "out" / output).stat().st_mtime_ns


@pytest.mark.parametrize("output", OF_EVERY_KIND)
def test_an_edit_is_counted_until_its_source_changes(
    versions: tuple[Project, list[dict[str, bytes]]], pipeline: Pipeline, output: str
) -> None:
    """Every night, by the summary, by --json and by `status`; and not among what is up to date."""
    project, found = versions
    put(project, output, b"by hand", 1000)
    for _ in range(2):
        ran = pipeline("--json")
        # Of an edited file a sheet is made with what it says.
        said = json.loads(ran.stdout)
        assert ran.returncode == 0 and said["edited"] == 1
        assert said["up_to_date"] + said["done"] == len(found[-1]) - 1
        assert "1 edited" in pipeline("status").stdout
    code, shown = on_terminal("python -m pipeline", project.folder)
    assert code == 0 and "1 edited" in shown
    for name in ("a/1", "a/2"):
        project.write(f"in/{name}", "another text, and longer than all\nend\nof it")
    summary = project.run()
    assert summary.edited == 0 and project.outputs()[output] != b"by hand"
    assert "edited" not in pipeline("status").stdout


def test_versions_are_remembered_under_another_path(versions: tuple[Project, list[dict[str, bytes]]]) -> None:
    """An output that was renamed is known by the digests that it had under its old path."""
    project, found = versions
    project.edit("pipeline.yaml", "out/up/{dir}", "out/loud/{dir}")
    assert project.run().renamed == 2
    put(project, "loud/a/1", found[1]["up/a/1"], 1000)
    summary = project.run()
    assert (summary.done, summary.edited) == (1, 0) and project.outputs()["loud/a/1"] == found[-1]["up/a/1"]


@pytest.mark.parametrize("what", ["out", ".pipeline", "everything but the inputs"])
@pytest.mark.parametrize("kind", ["plain", "fan-out"])
def test_a_folder_restored_beside_a_newer_one(tmp_path: Path, what: str, kind: str) -> None:
    """Outputs of Monday with the ledger of today, or the other way round: all is made right, and no edit is lost."""
    (tmp_path / "p").mkdir()
    trial = Trial(tmp_path / "p", kind)
    folders = ["out", ".pipeline"] if what.startswith("every") else [what]
    for each in folders:
        shutil.copytree(trial.folder / each, tmp_path / "monday" / each, symlinks=True)
    settle()
    for number in range(5):
        trial.project.write(f"in/old{number}", f"of another day, {number}")
    trial.add("new", 2)
    assert trial.project.run().exit == 0
    for each in folders:
        shutil.rmtree(trial.folder / each)
        shutil.copytree(tmp_path / "monday" / each, trial.folder / each, symlinks=True)
    if what != "out":
        trial.edit("old3")
    trial.edits.pop(trial.outputs_of("old3")[0], None) if what.startswith("every") else None
    trial.check()


# -- the state folder during a run -------------------------------------------------------------------------------------

MEDDLE = """
import os, pathlib
def upper(text: str) -> str:
    if text.endswith("1"):
        {}
    return text.upper()
"""


def test_a_state_folder_that_is_moved_away_ends_the_run(tmp_path: Path, pipeline: Pipeline) -> None:
    """Exit 3 and one sentence, not 0: what was made is in no ledger any more."""
    project = Project(tmp_path)
    project.write("in/0", "text 0")
    project.write("in/1", "text 1")
    state, away = tmp_path / ".pipeline/pipeline", tmp_path / "away"
    project.write("stages/upper.py", MEDDLE.format(f"os.rename({str(state)!r}, {str(away)!r})"))
    ran = pipeline()
    assert ran.returncode == 3 and "was moved, removed or replaced" in ran.stderr and "Traceback" not in ran.stderr
    assert not (state / "ledger.sqlite").exists()
    shutil.rmtree(state, ignore_errors=True)
    away.rename(state)
    assert pipeline().returncode == 0 and pipeline("--json").stdout.count('"done": 0')


def test_a_lock_file_that_is_removed_lets_no_second_run_in(tmp_path: Path, pipeline: Pipeline) -> None:
    """The second is refused, by the lock that the first has made again or by the ledger's own; both folders stay."""
    project = Project(tmp_path)
    project.write("in/0", "text 0")
    project.write("in/1", "text 1")
    second = (
        "import subprocess, sys; (pathlib.Path(LOCK)).unlink();"
        " done = subprocess.run([sys.executable, '-m', 'pipeline', '--state', STATE], capture_output=True);"
        " pathlib.Path(SAID).write_text(f'{done.returncode} {done.stderr.decode()}')"
    )
    state = tmp_path / ".pipeline/pipeline"
    second = second.replace("LOCK", repr(str(state / "lock"))).replace("SAID", repr(str(tmp_path / "said")))
    project.write("stages/upper.py", MEDDLE.format(second.replace(", '--state', STATE", "")))
    ran = pipeline()
    assert ran.returncode == 0, ran.stderr
    said = (tmp_path / "said").read_text()
    assert said.startswith("75 ") and "another run is running" in said
    assert (state / "lock").exists() and pipeline().returncode == 0


def test_what_a_killed_run_made_of_a_source_that_is_gone(tmp_path: Path, pipeline: Pipeline) -> None:
    """It is not left for ever, in the way of a new source of that name, where nothing tells of it: it is set aside."""
    project = Project(tmp_path)
    kill = "import os\ndef upper(text: str) -> str:\n    os.kill(os.getpid(), 9) if text == 'kill' else None\n"
    project.write("stages/upper.py", f"{kill}    return text.upper()\n")
    project.write("in/x/a", "text")
    project.write("in/y", "kill")
    assert pipeline().returncode == -9 and (tmp_path / "out/x/a").exists()
    (tmp_path / "in/x/a").unlink()
    project.write("in/y", "live")
    ran = pipeline()
    assert ran.returncode == 0 and "out/x/a" in ran.stderr and project.outputs() == {"y": b"LIVE"}
    project.write("in/x/a", "another")
    assert pipeline().returncode == 0 and project.outputs()["x/a"] == b"ANOTHER"
