"""The memory of runs: the last ones each by itself, older ones by the day, and nothing lost that a promise rests on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.project import Project, ledger_of, made
from support.records import done, fail

from pipeline.files.quiet_runs import QuietRun, add_quiet_run, has_many_quiet_runs, quiet_runs
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.runs import CLAIMS
from pipeline.operations.unchanged_note import answer_unchanged

STATE = ".pipeline/pipeline"
# Nights begin at noon in UTC, which is the same day in nearly every zone that the tests may run in.
FIRST_NS, NIGHT_NS, FIVE_MINUTES_NS, SECOND_NS = 1_767_268_800 * 10**9, 86_400 * 10**9, 300 * 10**9, 10**9


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        yield ledger


def name_of(number: int) -> str:
    return f"20260101-{number // 10_000:06}-{number % 10_000:04}"


def add_run(ledger: Ledger, exit_code: int | None = 0, *, swept: bool = False, **counts: float) -> int:
    """Record a run of the night after the one before, as it ended; None leaves it as a kill does."""
    name = name_of(ledger.runs.last_number() + 1)
    ledger.begin_run(name)
    if exit_code is not None:
        ledger.end_run(exit_code, {"run": name, "exit": exit_code, "seconds": 2.0, **counts}, swept=swept)
    started_ns = FIRST_NS + ledger.runs.number * NIGHT_NS
    values = started_ns, started_ns + 2 * SECOND_NS, ledger.runs.number
    ledger._connection.execute("UPDATE runs SET started = ?, ended = ? WHERE id = ?", values)
    return ledger.runs.number


def numbers(ledger: Ledger) -> list[int]:
    return [each.number for each in ledger.runs.past()]


# -- folding -----------------------------------------------------------------------------------------------------------


def test_the_last_400_runs_are_kept(ledger: Ledger) -> None:
    """Older ones are folded, some at a time, into days that tell their numbers, endings, sums, hosts and versions."""
    for _ in range(440):
        add_run(ledger, done=2, held=3)
    assert numbers(ledger) == [*range(1, 441)] and not list(ledger.days.all())
    add_run(ledger)
    assert numbers(ledger) == [*range(42, 442)]
    days = list(ledger.days.all())
    assert [(day.first_run, day.last_run, day.runs) for day in days] == [(each, each, 1) for each in range(1, 42)]
    assert (days[0].exits, days[0].totals) == ({"0": 1}, {"done": 2, "seconds": 2.0})
    assert days[0].day == "2026-01-02" and days[0].hosts == [os.uname().nodename]
    assert [set(each) for each in days[0].versions] == [{"filemill", "python"}]
    assert ledger.days.of(41) == days[-1] and ledger.days.of(42) is None


def test_a_day_adds_up_its_runs(ledger: Ledger) -> None:
    """Also those that are folded into it later, with each host and each version once."""
    for number in range(900):
        add_run(ledger, number % 2, failed=number % 2, new_failed=0, seconds=0.1)
        set_started = "UPDATE runs SET started = ?, host = ? WHERE id = ?"
        host = "nas" if number < 10 else "box"
        ledger._connection.execute(set_started, (FIRST_NS + number * SECOND_NS, host, ledger.runs.number))
    (day,) = ledger.days.all()
    assert day.runs == day.last_run == 900 - len(numbers(ledger)) and day.first_run == 1 and day.runs > 400
    assert day.exits == {"0": day.runs - day.runs // 2, "1": day.runs // 2}
    assert day.totals == {"failed": day.runs // 2, "seconds": pytest.approx(0.1 * day.runs)}
    assert day.hosts == ["nas", "box"] and len(day.versions) == 1


def test_a_run_that_may_have_left_temporaries_is_not_folded(ledger: Ledger) -> None:
    """It is kept by its name until a run over everything has met all that it may have left."""
    killed, stopped, well = add_run(ledger, None), add_run(ledger, 130), add_run(ledger, 0)
    ledger.begin_run(name_of(4))
    fail(ledger, "crashed")
    ledger.end_run(1, {}, swept=False)
    for _ in range(440):
        add_run(ledger)
    unclean = [name_of(each) for each in (killed, stopped, 4)]
    assert ledger.runs.unclean() == unclean and well not in numbers(ledger)
    assert numbers(ledger)[:4] == [killed, stopped, 4, 42]
    for _ in range(41):
        add_run(ledger, swept=True)
    assert ledger.runs.unclean() == [] and numbers(ledger)[0] > 4
    exits = [day.exits for day in ledger.days.all()]
    assert exits[:3] == [{"cut off": 1}, {"130": 1}, {"0": 1}] and sum(each.get("1", 0) for each in exits) == 1


def test_a_run_that_an_owner_file_names_or_whose_log_is_there_is_not_folded(ledger: Ledger, tmp_path: Path) -> None:
    """By the one a folder is known as ours, and by the other the log tells of nothing that the ledger does not know."""
    ledger.facts.set(CLAIMS, {"/out": 2, "/other": 1})
    (tmp_path / "runs").mkdir()
    (tmp_path / f"runs/{name_of(5)}.log").touch()
    for _ in range(441):
        add_run(ledger)
    assert numbers(ledger)[:4] == [1, 2, 5, 42]
    assert sum(day.runs for day in ledger.days.all()) == 41 - 3


def test_what_is_folded_is_known_by_its_number(ledger: Ledger) -> None:
    """An output says its run as long as it is there, and the day of that run from then on."""
    ledger.begin_run(name_of(1))
    ledger.begin()
    done(ledger)
    ledger.end_run(0, {"done": 1}, swept=True)
    before = ledger.runs.making_of(b"out/a")
    assert before and before.run and (before.run.name, before.run.exit, before.number) == (name_of(1), 0, 1)
    for _ in range(440):
        add_run(ledger)
    after = ledger.runs.making_of(b"out/a")
    assert after == before._replace(run=None) and ledger.runs.making_of(b"out/b") is None
    day = ledger.days.of(after.number)
    assert day and day.totals == {"done": 1}


def test_folding_falls_with_the_transaction_of_the_run(ledger: Ledger, tmp_path: Path) -> None:
    """A run that is killed while it begins has folded nothing, and lost nothing."""
    for _ in range(440):
        add_run(ledger)
    ledger.begin()
    ledger.runs.begin(name_of(441), None, 1)
    ledger.fold_runs()
    assert len(numbers(ledger)) == 400
    ledger.rollback()
    assert len(numbers(ledger)) == 440 and not list(ledger.days.all())


@pytest.mark.parametrize("column", ["summary", "versions"])
def test_what_is_damaged_in_a_row_stops_no_run(ledger: Ledger, column: str) -> None:
    """What a run said is told, and nothing rests on it."""
    for _ in range(440):
        add_run(ledger)
    ledger._connection.execute(f"UPDATE runs SET {column} = '[\"' WHERE id = 3")
    ledger._connection.execute("UPDATE runs SET host = NULL WHERE id = 3")
    add_run(ledger)
    assert ledger.days.of(3) is not None


# -- nights without news -----------------------------------------------------------------------------------------------


def quiet(number: int, after: str) -> QuietRun:
    started_ns = FIRST_NS + number * FIVE_MINUTES_NS
    return QuietRun(name_of(number), after, started_ns, started_ns + SECOND_NS // 50, 1, 1)


def add_quiet_runs(folder: Path, numbers: range, after: str) -> None:
    """Add quiet runs as so many runs would, but in one go."""
    add_quiet_run(folder, quiet(numbers[0], after))
    (line,) = (folder / "quiet-runs").read_text().splitlines(keepends=True)[-1:]
    lines = []
    for number in numbers[1:]:
        each = quiet(number, after)
        lines.append(f"{each.name} {after} {each.started_ns} {each.ended_ns} {line[-26:]}")
    with open(folder / "quiet-runs", "a") as opened:
        opened.writelines(lines)


def size_of_state(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def test_a_year_of_runs_every_five_minutes_stays_small(tmp_path: Path) -> None:
    """Nobody opens the ledger as long as the note answers; it stops before the file of quiet runs grows."""
    project = made(tmp_path, "a")
    assert project.run().up_to_date == 1 and answer_unchanged(tmp_path / "pipeline.yaml")
    state, began, first = tmp_path / STATE, 0, size_of_state(tmp_path / STATE)
    for _ in range(12):  # a month with an ordinary run each is enough: the note would see to more of them
        last = project.run().run
        add_quiet_runs(state, range(began, began + 8760), last)
        began += 8760
        assert has_many_quiet_runs(state) and answer_unchanged(tmp_path / "pipeline.yaml") is None
    project.run()
    assert not list(quiet_runs(state)) and answer_unchanged(tmp_path / "pipeline.yaml")
    with ledger_of(tmp_path) as ledger:
        assert len(numbers(ledger)) <= 440 + 30
        days = list(ledger.days.all())
        assert 360 <= len(days) <= 370 and sum(day.runs for day in days) + len(numbers(ledger)) == 12 * 8760 + 16
        assert max(day.runs for day in days) >= 288 and days[5].exits == {"0": 288}
    assert size_of_state(state) - first < 1_000_000


def test_the_note_answers_until_the_quiet_runs_are_many(tmp_path: Path) -> None:
    """Then one ordinary run takes them over, and leaves a note that answers again."""
    project = made(tmp_path, "a")
    last = project.run().run
    add_quiet_runs(tmp_path / STATE, range(399), last)
    assert not has_many_quiet_runs(tmp_path / STATE) and answer_unchanged(tmp_path / "pipeline.yaml")
    assert has_many_quiet_runs(tmp_path / STATE) and answer_unchanged(tmp_path / "pipeline.yaml") is None
    assert project.run().up_to_date == 1
    assert not has_many_quiet_runs(tmp_path / STATE) and answer_unchanged(tmp_path / "pipeline.yaml")
    assert not has_many_quiet_runs(tmp_path / "nowhere")


def test_an_output_folder_stays_ours_however_many_runs_were_since(tmp_path: Path) -> None:
    """On a machine that has another name now, only the run that its owner file names tells so."""
    project = made(tmp_path, "a")
    owner = tmp_path / "out/.filemill"
    last = project.run().run
    add_quiet_runs(tmp_path / STATE, range(2000), last)
    for each in (tmp_path / STATE / "runs").iterdir():
        each.unlink()
    assert project.run().exit == 0
    owner.write_text(owner.read_text().replace(os.uname().nodename, "former"))
    with ledger_of(tmp_path) as ledger:
        known = ledger.facts.get("outputs")
        assert len(numbers(ledger)) < 450 and known
        for each in known.values():
            each["host"] = "former"
        ledger.facts.set("outputs", known)
    assert project.run().exit == 0


def test_quiet_runs_have_left_nothing(tmp_path: Path) -> None:
    """A file that crashes its worker later has nobody look through all of them."""
    project = Project(tmp_path)
    project.write("in/a", "text")
    project.run()
    add_quiet_runs(tmp_path / STATE, range(3), project.run().run)
    project.run()
    with ledger_of(tmp_path) as ledger:
        swept = "SELECT name, swept FROM runs WHERE name LIKE '20260101%'"
        assert [row[1] for row in ledger._connection.execute(swept)] == [1, 1, 1]
