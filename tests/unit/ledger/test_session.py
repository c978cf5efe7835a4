"""The ledger opened and closed: damage is noticed and made good, and readers only read."""

from __future__ import annotations

import ast
import errno
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.program import ROOT, Pipeline
from support.project import MOODY, ONE_STAGE, Project

from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.files.atomic import temporary_for
from pipeline.files.state_dir import open_state
from pipeline.ledger import checkpoint, recovery
from pipeline.ledger.checkpoint import copy_of, keep_copy
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.session import open_to_read, open_to_write
from pipeline.messages import Outcome
from pipeline.operations import recorder as journal

COUNT = 12
NAMES = [f"{number:02}" for number in range(COUNT)]
MARKED = ONE_STAGE.replace("uses: upper", "uses: upper\n    with: {mark: '1'}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Some files, made with the mark 1."""
    project = Project(tmp_path, MARKED)
    for name in NAMES:
        project.write(f"in/{name}", f"text {name}")
    assert project.run().done == COUNT
    return project


def marked(mark: str) -> dict[str, bytes]:
    """The outputs as they are with a mark."""
    return {name: f"TEXT {name}{mark}".encode() for name in NAMES}


def set_mark(project: Project, mark: str) -> None:
    project.write("pipeline.yaml", MARKED.replace("'1'", f"'{mark}'"))


def ledger_file(project: Project) -> Path:
    return project.folder / ".pipeline/pipeline/ledger.sqlite"


def state(project: Project) -> dict[str, bytes]:
    """Every file that belongs to the ledger, with what is in it."""
    return {each.name: each.read_bytes() for each in ledger_file(project).parent.glob("ledger*")}


def kill_run(project: Project, after: int, log_most_bytes: int = 1 << 24) -> None:
    """A run that commits every output at once, and is killed after some."""
    if (child := os.fork()) == 0:
        seen = 0
        record = Ledger.record

        def record_and_die(self: Ledger, *rest: object) -> None:
            nonlocal seen
            record(self, *rest)  # type: ignore[arg-type]
            seen += any(isinstance(each, Outcome) for each in rest)
            if seen > after:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            journal.COMMIT_EVERY_S = -1.0
            checkpoint._LOG_MOST_BYTES = log_most_bytes
            Ledger.record = record_and_die  # type: ignore[method-assign]
            project.run()
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


# -- damage ------------------------------------------------------------------------------------------------------------


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def zero(data: bytearray, chance: random.Random) -> None:
    begin = chance.randrange(len(data))
    end = min(len(data), begin + chance.choice((1, 100, 5000)))
    data[begin:end] = bytes(end - begin)


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 20))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def spoil(file: Path, harm: Callable[[bytearray, random.Random], None], chance: random.Random) -> bool:
    """Damage a file; says whether that changed it."""
    data = bytearray(file.read_bytes())
    before = bytes(data)
    if data:
        harm(data, chance)
        file.write_bytes(data)
    return bytes(data) != before


def erase(data: bytearray, chance: random.Random) -> None:
    at = 4096 * chance.randrange(1, len(data) // 4096)
    data[at : at + 8] = b"nonsense"


@pytest.mark.parametrize("harm", [truncate, erase])
def test_a_damaged_ledger_is_noticed_and_its_copy_taken(
    project: Project, harm: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever became of its bytes: it is set aside with a sentence, nothing done is redone, and nothing crashes."""
    for seed in range(6):
        file = ledger_file(project)
        assert not capsys.readouterr().err
        if not spoil(file, harm, random.Random(f"{harm.__name__} {seed}")):
            continue
        summary = project.run()
        said = capsys.readouterr().err
        assert f"the ledger {file} " in said and "its copy of" in said and "ledger-damaged-" in said
        assert (summary.exit, summary.up_to_date) == (0, COUNT) and project.outputs() == marked("1")
        assert project.run().up_to_date == COUNT and not capsys.readouterr().err
    assert 1 <= len(list(ledger_file(project).parent.glob("ledger-damaged-*.sqlite"))) <= 2


@pytest.mark.parametrize("seed", range(14))
def test_a_killed_and_damaged_ledger_never_calls_up_to_date_what_is_not(
    project: Project, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with another option is killed, one of the ledger's files is damaged, and the option is taken back: what the
    run had made by then passes neither for fresh nor for somebody's edit; what was lost is said.
    """
    chance = random.Random(seed)
    set_mark(project, "2")
    project.write("in/new", "new")
    kill_run(project, chance.randrange(COUNT), chance.choice((1 << 24, 20_000)))
    (project.folder / "in/new").unlink()
    made_anew = project.folder / "out/new"
    made_anew.unlink(missing_ok=True)
    set_mark(project, "1")
    victim = ("ledger.sqlite", "ledger.sqlite-wal", "ledger-good.sqlite")[seed % 3]
    changed = spoil(ledger_file(project).with_name(victim), chance.choice((truncate, zero, flip)), chance)
    summary = project.run()
    assert summary.exit == 0 and project.outputs() == marked("1")
    said = capsys.readouterr().err
    assert not changed or victim.startswith("ledger-good") or "made anew where it differs" in said, said
    assert project.run().up_to_date == COUNT


def test_outputs_that_only_the_lost_ledger_knew_are_made_anew(project: Project) -> None:
    """They are not refused as somebody's; a file that lay there before the copy was made is."""
    project.write("out/z", "precious")
    time.sleep(0.1)  # the clock of the files lags behind ours
    set_mark(project, "2")
    assert project.run().done == COUNT
    for name in ("x", "y", "z"):
        project.write(f"in/{name}", name)
    kill_run(project, 2)
    assert (project.folder / "out/x").exists()
    ledger_file(project).write_bytes(b"nothing of use")
    summary = project.run()
    assert (summary.exit, summary.failed) == (1, 1)
    assert project.outputs() == marked("2") | {"x": b"X2", "y": b"Y2", "z": b"precious"}
    assert project.run().failed == 1


def test_an_edit_from_before_the_copy_is_kept(project: Project) -> None:
    """A ledger that is behind doubts only what was made since its copy."""
    edited = project.write("out/03", "mine")
    time.sleep(0.1)  # the clock of the files lags behind ours
    project.write("in/new", "new")
    project.run()
    ledger_file(project).write_bytes(b"nothing of use")
    project.run()
    assert edited.read_text() == "mine"


def test_without_a_good_copy_nothing_is_known(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The copy is looked at too; with neither, what exists is not overwritten."""
    ledger_file(project).write_bytes(b"nothing of use")
    copy = copy_of(ledger_file(project))
    copy.write_bytes(copy.read_bytes()[:-1000])
    before = project.outputs()
    project.write("in/00", "changed")
    try:
        project.run()
    except Exception as error:
        assert getattr(error, "exit_code", None) == 2
    assert "there is no good copy of it" in capsys.readouterr().err
    assert project.outputs() == before


def test_a_ledger_that_is_gone_is_taken_from_its_copy(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody removed it, or a disk did: nothing done is lost."""
    ledger_file(project).unlink()
    assert project.run().exit == 0
    assert f"the ledger {ledger_file(project)} is gone, and its copy of" in capsys.readouterr().err


def test_temporaries_of_a_run_that_the_copy_does_not_know_are_cleared_away(project: Project) -> None:
    """Its log tells of it."""
    killed = "20260101-000000-abcd"
    (ledger_file(project).parent / "runs" / f"{killed}.log").touch()
    left = Path(os.fsdecode(temporary_for(os.fsencode(project.folder / "out/03"), killed)))
    left.touch()
    ledger_file(project).write_bytes(b"nothing of use")
    project.run()
    assert not left.exists()


# -- power cuts --------------------------------------------------------------------------------------------------------


def test_after_a_power_cut_what_had_not_reached_the_disk_is_made_anew(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made since the last sync is trusted by its contents alone, not by its size and time."""
    for name in NAMES:
        os.utime(project.folder / "in" / name, (1, 1))
        os.utime(project.folder / "out" / name, (2, 2))
    set_mark(project, "2")
    kill_run(project, 6)
    (project.folder / "out/02").write_bytes(bytes((project.folder / "out/02").stat().st_size))
    monkeypatch.setattr(recovery, "boot_id", lambda: "another")
    monkeypatch.setattr(recovery, "boot_time_ns", time.time_ns)
    summary = project.run()
    assert "the machine stopped during a run" in capsys.readouterr().err
    assert summary.exit == 0 and summary.up_to_date >= 5 and project.outputs() == marked("2")
    assert project.run().up_to_date == COUNT


def test_a_killed_run_without_a_power_cut_costs_nothing_that_was_committed(project: Project) -> None:
    """The log is whole, so nothing recorded is doubted."""
    set_mark(project, "2")
    kill_run(project, 6)
    summary = project.run()
    assert summary.up_to_date >= 5 and project.outputs() == marked("2")


def ask_twice(project: Project, pipeline: Pipeline) -> None:
    """A verb that writes, twice, since each opens the ledger as the one before has left it."""
    for _ in range(2):
        assert pipeline("failures", "--dismiss", "*").stderr == "0 files dismissed\n"


def refuse_a_run(project: Project, pipeline: Pipeline) -> None:
    (project.folder / "in").rename(project.folder / "away")
    (project.folder / "in").mkdir()
    assert pipeline().returncode in (3, 4)
    (project.folder / "in").rmdir()
    (project.folder / "away").rename(project.folder / "in")


@pytest.mark.parametrize("between", [ask_twice, refuse_a_run])
def test_nothing_is_lost_by_a_writer_between_a_killed_run_and_the_next(
    project: Project, pipeline: Pipeline, between: Callable[[Project, Pipeline], None]
) -> None:
    """It brings the log in, so that the next finds none; and what was uncertain when it came stays so."""
    set_mark(project, "2")
    kill_run(project, 6)
    between(project, pipeline)
    ran = pipeline()
    assert (ran.returncode, ran.stderr) == (0, "") and project.outputs() == marked("2")
    set_mark(project, "3")
    kill_run(project, 6)
    log = ledger_file(project).with_name("ledger.sqlite-wal")
    log.write_bytes(log.read_bytes()[:-100])
    assert "the end of the ledger's log is lost" in pipeline("failures", "--dismiss", "*").stderr
    between(project, pipeline)
    with open_to_read(ledger_file(project)) as ledger:
        assert ledger.window is not None and "log is lost" in ledger.window.why
    assert pipeline().returncode == 0 and project.outputs() == marked("3")
    with open_to_read(ledger_file(project)) as ledger:
        assert ledger.window is None


# -- readers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refuses", ["the disk takes no copy", "the run ends by an error"])
def test_a_ledger_that_was_not_closed_in_order_is_neither_damaged_nor_behind(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """SQLite brings the log into the file as it closes that, whatever became of us."""
    project.write("in/new", "new")
    in_the_way = ledger_file(project).with_name("ledger-good.new")
    if refuses == "the disk takes no copy":
        in_the_way.mkdir()
        with pytest.raises(EnvironmentFailure, match="could not be closed in order, with a good copy"):
            project.run()
        in_the_way.rmdir()
    else:
        with monkeypatch.context() as patched, pytest.raises(EnvironmentFailure, match="no space left"):
            patched.setattr(Ledger, "end_run", lambda *_, **__: fail(errno.ENOSPC))
            project.run()
    summary = project.run()
    assert (summary.exit, summary.done, summary.up_to_date) == (0, 0, COUNT + 1)
    assert capsys.readouterr().err == ""


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_a_reader_changes_nothing(project: Project, pipeline: Pipeline, killed: bool, damaged: bool) -> None:
    """Not even what a killed run left, or what is damaged: it says in one sentence what the next run will do."""
    if killed:
        set_mark(project, "2")
        kill_run(project, 6)
    if damaged:
        spoil(ledger_file(project), truncate, random.Random(1))
    before = state(project)
    for verb in ("plan", "failures"):
        ran = pipeline(verb)
        assert ran.returncode == (3 if damaged else 0), ran.stderr
        said = ran.stderr.removesuffix("pipeline: no failures on record\n")
        assert said.count("\n") == damaged and "Traceback" not in said
        assert not damaged or "the next run sets it aside" in ran.stderr
    assert state(project) == before


def test_no_verb_opens_the_ledger_by_itself() -> None:
    """What opens it in place without looking, or without the lock, might not see that it is damaged."""
    for file in [*(ROOT / "pipeline/commands").glob("*.py"), ROOT / "pipeline/operations/run.py"]:
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
        assert "Ledger" not in names, f"{file.name}: use open_to_read or open_to_write"


# -- during a run ------------------------------------------------------------------------------------------------------

MEDDLING = """
import os
def upper(text: str, *, mark: str = "") -> str:
    if text.endswith("05"):
        fd = os.open(FILE, os.O_WRONLY)
        os.pwrite(fd, b"meddled with", 0)
        os.close(fd)
    return text.upper() + mark
"""


def test_damage_during_a_run_is_not_kept(project: Project, pipeline: Pipeline) -> None:
    """Whether SQLite notices it or not: the copy is not of that, and the next run makes it good."""
    project.write("stages/upper.py", MEDDLING.replace("FILE", repr(str(ledger_file(project)))))
    ran = pipeline()
    assert ran.returncode in (0, 3) and "Traceback" not in ran.stderr
    project.write("stages/upper.py", MEDDLING.replace("FILE", repr("/dev/null")))
    ran = pipeline()
    assert ran.returncode == 0 and "its copy of" in ran.stderr
    assert project.outputs() == marked("1") and pipeline().stderr == ""


@pytest.mark.parametrize("damage", ["os.truncate(file, 4096)", "open(file, 'wb').write(b'x' * 20000)"])
def test_a_first_run_whose_ledger_is_ruined_says_so(tmp_path: Path, pipeline: Pipeline, damage: str) -> None:
    """It cannot keep a good copy, and does not end as if all were well."""
    project = Project(tmp_path)
    project.write("in/a", "a")
    file = repr(str(ledger_file(project)))
    stage = f"import os\nfile = {file}\ndef upper(text: str) -> str:\n    {damage}\n    return text\n"
    project.write("stages/upper.py", stage)
    ran = pipeline()
    assert ran.returncode == 3 and "ledger" in ran.stderr and "Traceback" not in ran.stderr, ran.stderr


def test_a_long_log_is_brought_into_the_file_meanwhile(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not grow for ever."""
    monkeypatch.setattr(journal, "COMMIT_EVERY_S", -1.0)
    monkeypatch.setattr(checkpoint, "_LOG_MOST_BYTES", 1)
    sizes = []
    bring_in_log = checkpoint.bring_in_log

    def watch(ledger: Ledger) -> None:
        bring_in_log(ledger)
        file = ledger_file(project)
        sizes.append((file.with_name(f"{file.name}-wal").stat().st_size, file.stat().st_size))

    monkeypatch.setattr(checkpoint, "bring_in_log", watch)
    # So that a log of the least size is more than half of the file.
    monkeypatch.setattr(checkpoint, "size_of", lambda file: 0 if file == ledger_file(project) else file.stat().st_size)
    set_mark(project, "2")
    assert project.run().done == COUNT
    assert len(sizes) > 2 and {log for log, _ in sizes} == {0}


def test_a_writer_that_gives_up_leaves_it_in_order(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the user's, or a second Ctrl-C, is no reason to doubt it; nor is what was not committed kept."""
    state = open_state(ledger_file(project).parent, "pipeline")
    with pytest.raises(UsageError), open_to_write(state) as ledger:
        ledger.begin_run(state.run)
        ledger.facts.set("kept", 1)
        ledger.begin()
        ledger.facts.set("begun", 1)
        raise UsageError("not so")
    state.close()
    assert not capsys.readouterr().err
    with open_to_read(ledger_file(project)) as ledger:
        assert (ledger.facts.get("kept"), ledger.facts.get("begun")) == (1, None)
    assert project.run().exit == 0 and not capsys.readouterr().err


def test_no_memory_is_shared(project: Project) -> None:
    """So that the folder may lie on a network's disk."""
    set_mark(project, "2")
    kill_run(project, 0)
    assert ledger_file(project).with_name("ledger.sqlite-wal").exists()
    assert not ledger_file(project).with_name("ledger.sqlite-shm").exists()


# -- the copy ----------------------------------------------------------------------------------------------------------


def test_one_copy_is_kept_and_a_run_without_work_makes_none(project: Project) -> None:
    """The last good one; it costs nothing where nothing was done."""
    file = ledger_file(project)
    first = copy_of(file).read_bytes()
    project.run()
    assert copy_of(file).read_bytes() == first
    set_mark(project, "2")
    project.run()
    assert list(file.parent.glob("ledger-good*")) == [copy_of(file)]
    assert copy_of(file).read_bytes() != first and rows_of(copy_of(file)) == rows_of(file)


def rows_of(file: Path) -> list[str]:
    """Every row of a ledger's file."""
    with closing(sqlite3.connect(file)) as opened:
        return list(opened.iterdump())


def small(folder: Path, *more: str) -> Project:
    """A project over two files and these, after its first run."""
    project = Project(folder)
    project.write("stages/upper.py", MOODY)
    for name in ("1.txt", "2", *more):
        project.write(f"in/{name}", name)
    project.run()
    return project


def rename_one(project: Project, pipeline: Pipeline) -> None:
    project.edit("pipeline.yaml", "out/{dir}/{name}", "out/{dir}/{stem}.txt")
    assert project.run().renamed == 1


def prune_one(project: Project, pipeline: Pipeline) -> None:
    (project.folder / "in/2").unlink()
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    assert project.run().pruned == 1


def prune_by_hand(project: Project, pipeline: Pipeline) -> None:
    (project.folder / "in/2").unlink()
    assert "1 orphan removed" in pipeline("prune", "--yes").stderr


def adopt_one(project: Project, pipeline: Pipeline) -> None:
    project.write("in/b", "x")
    project.write("out/b", "X")
    assert "1 output adopted" in pipeline("adopt", "--yes").stderr


def accept_one(project: Project, pipeline: Pipeline) -> None:
    project.edit("stages/upper.py", "text.upper()", "str(text.upper())")
    assert "accepted" in pipeline("accept", "--stage", "up", "--because", "code", "--yes").stderr


def dismiss_one(project: Project, pipeline: Pipeline) -> None:
    assert "1 file dismissed" in pipeline("failures", "--dismiss", "bad").stderr


@pytest.mark.parametrize("change", [rename_one, prune_one, prune_by_hand, adopt_one, accept_one, dismiss_one])
def test_the_copy_has_what_changed_last(
    tmp_path: Path, pipeline: Pipeline, change: Callable[[Project, Pipeline], None]
) -> None:
    """Also where nothing was made, however little it was."""
    project = small(tmp_path, *(["bad"] if change is dismiss_one else []))
    change(project, pipeline)
    assert rows_of(copy_of(ledger_file(project))) == rows_of(ledger_file(project))


@pytest.mark.parametrize("change", [prune_by_hand, dismiss_one])
def test_a_verb_takes_the_copy_of_a_ledger_that_is_gone(
    tmp_path: Path, pipeline: Pipeline, change: Callable[[Project, Pipeline], None]
) -> None:
    """It does not say that nothing was ever made."""
    project = small(tmp_path, "bad")
    ledger_file(project).unlink()
    change(project, pipeline)


def test_a_copy_that_is_not_whole_does_not_take_the_place_of_the_one_before(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was copied is opened and read first; what a killed writer left of a copy is written over."""
    file = ledger_file(project)
    before = copy_of(file).read_bytes()
    file.with_name("ledger-good.new").write_bytes(b"half")
    set_mark(project, "2")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "has_lost_tables", lambda connection: True)
        with pytest.raises(EnvironmentFailure, match="could not be closed in order, with a good copy"):
            project.run()
    assert project.outputs() == marked("2")
    assert copy_of(file).read_bytes() == before and not file.with_name("ledger-good.new").exists()
    with closing(Ledger(file)) as ledger:
        keep_copy(ledger, file)
    assert rows_of(copy_of(file)) == rows_of(file)
