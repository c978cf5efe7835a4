"""pipeline/operations/run.py: the steps of a run, and who observes them."""

from __future__ import annotations

import inspect
from pathlib import Path

from support.project import Project

from pipeline.config.load import load_config
from pipeline.messages import Outcome
from pipeline.observer import RunObserver
from pipeline.operations.run import STEPS, run
from pipeline.planning.selection import Selection


class Listening(RunObserver):
    """Remembers the events of a run, and may fail at the first outcome."""

    def __init__(self, *, fails: bool = False) -> None:
        self.heard: list[str] = []
        self._fails = fails

    def on_start(self) -> None:
        self.heard.append("start")

    def on_planned(self, files: int) -> None:
        self.heard.append(f"planned {files}")

    def on_outcome(self, outcome: Outcome) -> None:
        self.heard.append(str(outcome.origin))
        if self._fails:
            raise ValueError("of the observer's own")

    def on_note(self, text: str) -> None:
        self.heard.append(f"note {text}")

    def on_jobs_ended(self) -> None:
        self.heard.append("jobs ended")

    def on_end(self) -> None:
        self.heard.append("end")


def texts(folder: Path) -> Project:
    """Two texts and a stage of their own."""
    project = Project(folder)
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    return text.upper()\n")
    for name in "ab":
        project.write(f"in/{name}", name)
    return project


def test_every_step_is_read_at_a_glance() -> None:
    """The run is one tuple of short functions, each with a sentence that says what it does."""
    assert all(len(inspect.getsource(step).splitlines()) < 30 and step.__doc__ for step in STEPS)


def test_observers_hear_of_a_run_in_order(tmp_path: Path) -> None:
    """From its start to its end; a run with nothing to do starts and ends."""
    config = load_config(texts(tmp_path).folder / "pipeline.yaml")
    first, second, selective = Listening(), Listening(), Listening()
    assert run(config, Selection(), [first]).done == 2
    assert first.heard == ["start", "planned 2", "a", "b", "jobs ended", "end"]
    assert run(config, Selection(), [second]).up_to_date == 2
    assert second.heard == ["start", "end"]
    run(config, Selection(only=("x", "y z")), [selective])
    assert selective.heard == ["start", "note no file matches --only x --only 'y z'", "end"]


def test_an_observer_that_fails_costs_no_output(tmp_path: Path) -> None:
    """It is left out, which is noted, and its traceback is in the log; the run and other observers go on."""
    config = load_config(texts(tmp_path).folder / "pipeline.yaml")
    bad, good = Listening(fails=True), Listening()
    summary = run(config, Selection(), [bad, good])
    assert (summary.done, summary.exit) == (2, 0) and bad.heard[-1] == "a" and good.heard[-1] == "end"
    assert summary.notes == ['Listening failed and was left out from then on: ValueError("of the observer\'s own")']
    (log,) = (tmp_path / ".pipeline/pipeline/runs").glob("*.log")
    assert "Traceback" in log.read_text()


def test_a_run_that_nobody_follows_stops(tmp_path: Path) -> None:
    """What is recorded stays, and the same line resumes."""
    config = load_config(texts(tmp_path).folder / "pipeline.yaml")
    summary = run(config, Selection(), is_followed=lambda: False)
    assert summary.exit == 130 and "nobody takes its outcomes any more" in summary.stopped
    assert run(config, Selection()).exit == 0
