"""pipeline/operations/endings.py: which event is told to whom, and what is remembered of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import AlreadyRunning, EnvironmentFailure, PolicyStop, RunHangs, UsageError
from pipeline.operations.endings import Ending, Memory, ending_of_error, event_of
from pipeline.report.metrics import Figures
from pipeline.report.notify import Entry

EVERY = ("failure", "recovery", "success", "stuck")
NEVER = None


@pytest.mark.parametrize(
    ("on", "always", "before", "exit_code", "event"),
    [
        # The first night.
        (EVERY, False, NEVER, 0, "success"),
        (EVERY, False, NEVER, 1, "failure"),
        (("failure", "recovery"), False, NEVER, 0, ""),
        # Nothing new.
        (EVERY, False, 0, 0, ""),
        (EVERY, False, 0, 6, ""),
        (EVERY, False, 1, 1, ""),
        (EVERY, False, 3, 3, ""),
        # It turns.
        (EVERY, False, 0, 1, "failure"),
        (EVERY, False, 0, 70, "failure"),
        (EVERY, False, 1, 0, "recovery"),
        (EVERY, False, 3, 5, "recovery"),
        (EVERY, False, 3, 6, "recovery"),
        # What failed is only held now, or was not come to in time.
        (EVERY, False, 1, 6, ""),
        (EVERY, False, 1, 5, ""),
        (("success",), True, 1, 6, "success"),
        (("success",), False, 1, 0, "success"),
        (("success",), False, 0, 1, ""),
        (("failure",), False, 1, 0, ""),
        # It fails in another way.
        (EVERY, False, 1, 3, "failure"),
        (EVERY, False, 3, 4, "failure"),
        # Always: each success and each failure; a recovery only from something.
        (EVERY, True, 0, 0, "success"),
        (EVERY, True, 1, 1, "failure"),
        (EVERY, True, 1, 0, "recovery"),
        (("recovery",), True, 0, 0, ""),
    ],
)
def test_events(on: tuple[str, ...], always: bool, before: int | None, exit_code: int, event: str) -> None:
    entry = Entry(on, ("tell",), always=always)
    assert event_of(entry, before, Ending(exit_code, "")) == event


def test_new_failures_are_told_while_others_go_on() -> None:
    """Whoever knows that something fails is told once more when something else does."""
    assert event_of(Entry(EVERY), 1, Ending(1, "", new_failed=2)) == "failure"


def test_files_that_are_held_have_not_recovered(tmp_path: Path) -> None:
    """Whoever was told that files fail is told the recovery once they are made, or all others that failed with them."""
    entry, memory = Entry(EVERY, ("tell",)), Memory.load(str(tmp_path))
    for ending, event in (
        (Ending(1, "", new_failed=1), "failure"),
        (Ending(6, "", held=1), ""),
        (Ending(6, "", held=1), ""),
        (Ending(0, "", recovered=1), "recovery"),
        (Ending(1, "", new_failed=1, held=1), "failure"),
        (Ending(6, "", held=1, recovered=1), "recovery"),
        (Ending(6, "", held=1), ""),
    ):
        assert event_of(entry, memory.exit_known_to(entry), ending) == event
        memory.learn(entry, ending, is_told=True)


def test_what_was_not_looked_at_has_not_recovered(tmp_path: Path) -> None:
    """A run may leave failing files for the next one, with any exit code of those that are well."""
    entry, memory = Entry(EVERY, ("tell",)), Memory.load(str(tmp_path))
    for ending, event in (
        (Ending(1, "", new_failed=1), "failure"),
        (Ending(0, "", is_failing=True), ""),
        (Ending(5, "", recovered=1, is_failing=True), ""),
        (Ending(1, ""), ""),
        (Ending(3, ""), "failure"),
        (Ending(0, "", is_failing=True), "recovery"),
        (Ending(1, ""), "failure"),
        (Ending(0, "", recovered=1), "recovery"),
    ):
        assert event_of(entry, memory.exit_known_to(entry), ending) == event
        memory.learn(entry, ending, is_told=True)


def test_a_run_that_hangs_is_told_as_such() -> None:
    """To whoever asks for it; to others it is a failure like any other, and both are told once."""
    hung = Ending(3, "", is_hung=True)
    assert event_of(Entry(EVERY), 0, hung) == "stuck"
    assert event_of(Entry(("failure",)), 0, hung) == "failure"
    assert event_of(Entry(EVERY), 3, hung) == ""


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (UsageError("not ours"), 2),
        (EnvironmentFailure("no disk"), 3),
        (OSError(28, "No space left on device"), 3),
        (PolicyStop("too many"), 4),
        (ValueError("secret"), 70),
        (KeyboardInterrupt(), 130),
        (AlreadyRunning("another run"), 75),
    ],
)
def test_the_ending_of_an_error(error: BaseException, exit_code: int) -> None:
    """Its text is that of an error that is meant for a person."""
    ending = ending_of_error(error)
    assert (ending.exit, ending.is_hung) == (exit_code, False) and "secret" not in ending.text
    assert ending.concerns_pipeline == (exit_code < 128)


def test_a_run_that_finds_another_one_hanging() -> None:
    ending = ending_of_error(RunHangs("the run of 02:30 has not moved since 02:41"))
    assert ending.is_hung and ending.exit == 3 and ending.text.startswith("the run of 02:30")


def test_a_part_of_the_files_that_went_well_tells_nothing() -> None:
    """It says nothing about the others; what fails in it is wrong all the same."""
    assert not Ending(0, "", is_whole=False).concerns_pipeline
    assert Ending(1, "", is_whole=False).concerns_pipeline


def test_memory(tmp_path: Path) -> None:
    """It is kept as it was; what could not be told is told by the next run, and entries that are no more are gone."""
    mail, page = Entry(("failure", "recovery"), ("mail",)), Entry(("failure",), ("page",))
    memory = Memory.load(str(tmp_path))
    assert memory.exits == {}
    memory.learn(mail, Ending(1, ""), is_told=True)
    memory.learn(page, Ending(3, ""), is_told=True)
    memory.figures = Figures(last_run=1.5, files={"done": 3})
    memory.save()
    again = Memory.load(str(tmp_path))
    assert (again.exits, again.figures) == (memory.exits, memory.figures) and len(again.exits) == 2
    again.learn(mail, Ending(0, ""), is_told=False)  # the recovery is to be told still
    again.learn(page, Ending(1, ""), is_told=False)
    assert list(again.exits.values()) == [1]
    again.keep([page])
    assert again.exits == {}


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "[" * 100_000, '{"exits": {}, "figures": {"more": 1}}', '{"exits": 1, "figures": {}}']
)
def test_a_damaged_memory_is_none(tmp_path: Path, data: str) -> None:
    (tmp_path / "told.json").write_text(data)
    assert Memory.load(str(tmp_path)).exits == {}


def test_two_entries_that_differ_are_two(tmp_path: Path) -> None:
    """Whatever differs; the file has nothing of what an entry says."""
    memory, entry = Memory.load(str(tmp_path)), Entry(("failure",), ("tell", "${SECRET}"))
    for each in (entry, replace_on(entry), entry._replace(always=True), entry._replace(argv=("tell",))):
        memory.learn(each, Ending(0, ""), is_told=True)
    memory.figures = replace(memory.figures, exit=2)
    memory.save()
    text = (tmp_path / "told.json").read_text()
    assert len(json.loads(text)["exits"]) == 4 and "SECRET" not in text


def replace_on(entry: Entry) -> Entry:
    return entry._replace(on=("recovery",))
