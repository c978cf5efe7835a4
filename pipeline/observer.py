"""The events of a run, as the bar, `iterate`, `try` and progress.json receive them while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from pipeline.messages import Outcome


class Step(NamedTuple):
    """One event inside a job, such as the call of a stage; reported only by a worker that runs in this process."""

    stage: str
    what: Literal["built", "converted", "made", "skipped", "raised", "wrote", "failed"]
    """`raised` is the call of a stage, `failed` an output, for whatever reason."""
    value: str
    """The value that came of it, described by type and size, or what was said."""
    seconds: float
    error: BaseException | None = None
    """The exception that was raised."""


class RunObserver:
    """Receives the events of a run; every method does nothing unless it is overridden.

    An observer never changes what a run does: the run carries on whatever is returned or raised here.
    """

    def on_start(self) -> None:
        """The run holds its lock and begins to plan."""

    def on_planned(self, files: int) -> None:
        """`files` files are about to be handed to the engine; called once more for the groups made of them."""

    def on_step(self, step: Step) -> None:
        """A stage was called, a value converted or an output written, in this process."""

    def on_outcome(self, outcome: Outcome) -> None:
        """The outcome of a job has been recorded in the ledger."""

    def on_tick(self) -> None:
        """The engine is at work; called about ten times a second, whether or not a job has ended."""

    def on_signal(self, name: str) -> None:
        """A first signal such as SIGTERM arrived: jobs in hand are finished, and no others are started."""

    def on_jobs_ended(self) -> None:
        """The engine has no more of the jobs that were announced by `on_planned`."""

    def on_note(self, text: str) -> None:
        """Something a person should know happened that concerns no single output."""

    def on_end(self) -> None:
        """The run has ended, and its summary is complete; also called when it was refused before its first job."""


class Observers(RunObserver):
    """Hands every event on to several observers in turn; one that raises is reported and gets no more events."""

    def __init__(self, observers: Iterable[RunObserver], on_failure: Callable[[RunObserver, Exception], None]) -> None:
        self._observers = list(observers)
        self._on_failure = on_failure

    def on_start(self) -> None:
        self._tell("on_start")

    def on_planned(self, files: int) -> None:
        self._tell("on_planned", files)

    def on_step(self, step: Step) -> None:
        self._tell("on_step", step)

    def on_outcome(self, outcome: Outcome) -> None:
        self._tell("on_outcome", outcome)

    def on_tick(self) -> None:
        self._tell("on_tick")

    def on_signal(self, name: str) -> None:
        self._tell("on_signal", name)

    def on_jobs_ended(self) -> None:
        self._tell("on_jobs_ended")

    def on_note(self, text: str) -> None:
        self._tell("on_note", text)

    def on_end(self) -> None:
        self._tell("on_end")

    def _tell(self, event: str, *details: object) -> None:
        for observer in tuple(self._observers):
            try:
                getattr(observer, event)(*details)
            except Exception as error:
                self._observers.remove(observer)
                self._on_failure(observer, error)
