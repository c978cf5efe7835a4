"""The events of a run, which the bar, `iterate`, `try` and progress.json receive during the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pipeline.messages import InHand, Outcome
from pipeline.records import NamedTuple


class Step(NamedTuple):
    """One event inside a job, such as the call of a stage; reported only by a worker that runs in this process."""

    stage: str
    what: Literal["built", "converted", "made", "skipped", "raised", "wrote", "failed"]
    """The kind of the event. `raised` means that the call of a stage raised; `failed` that an output failed."""
    value: str
    """The resulting value, described by type and size, or the text of the exception."""
    seconds: float
    error: BaseException | None = None
    """The exception of an event `raised` or `failed`."""


class RunObserver:
    """Receives the events of a run; every method does nothing unless it is overridden.

    An observer never changes a run: the run continues whatever a method returns or raises.
    """

    def on_start(self) -> None:
        """Called when the run holds its lock and begins to plan."""

    def on_planned(self, files: int) -> None:
        """Called once it is known that `files` files are handed to the engine, and once more for groups made of them.

        A first run may have handed out some of them before.
        """

    def on_held(self, outputs: int) -> None:
        """Called before `on_planned` with the number of outputs that are not tried, since they failed too often."""

    def on_step(self, step: Step) -> None:
        """Called after a stage was called, a value converted or an output written in this process."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Called after the outcome of a job was recorded in the ledger."""

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Called in place of `on_outcome` with many outcomes, each of a job that has ended and made all its outputs."""
        for outcome in outcomes:
            self.on_outcome(outcome)

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        """Called about once a second, from a thread of its own, with the jobs that workers are running."""

    def on_left(self, seconds: float) -> None:
        """Called from that thread, before `on_in_hand`, with the seconds that are left, as soon as something tells."""

    def on_slow(self, text: str) -> None:
        """Called from that thread, once for a job that takes far longer than others, with a text that says so."""

    def on_signal(self, name: str) -> None:
        """Called after a first signal such as SIGTERM: running jobs are finished, and no others are started."""

    def on_jobs_ended(self) -> None:
        """Called when the engine has finished the jobs that `on_planned` announced."""

    def on_note(self, text: str) -> None:
        """Called with a text that a person should read and that concerns no single output."""

    def on_end(self) -> None:
        """Called at the end of the run, when its summary is complete, also if it was refused before its first job."""


class Observers(RunObserver):
    """Hands every event on to several observers in turn; one that raises is reported and gets no more events."""

    def __init__(self, observers: Iterable[RunObserver], on_failure: Callable[[RunObserver, Exception], None]) -> None:
        self._observers = list(observers)
        self._on_failure = on_failure
        # Called for every file, and by most observers not at all.
        self._of_outcomes = list(filter(_takes_outcomes, self._observers))

    def add(self, observer: RunObserver) -> None:
        """Have one more observer receive the events from now on."""
        self._observers.append(observer)
        if _takes_outcomes(observer):
            self._of_outcomes.append(observer)

    def on_start(self) -> None:
        self._tell("on_start")

    def on_planned(self, files: int) -> None:
        self._tell("on_planned", files)

    def on_held(self, outputs: int) -> None:
        self._tell("on_held", outputs)

    def on_step(self, step: Step) -> None:
        self._tell("on_step", step)

    def on_outcome(self, outcome: Outcome) -> None:
        for observer in self._of_outcomes:
            try:
                observer.on_outcome(outcome)
            except Exception as error:
                self._leave_out(observer, error)

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        for observer in self._of_outcomes:
            try:
                observer.on_outcomes(outcomes)
            except Exception as error:
                self._leave_out(observer, error)

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        self._tell("on_in_hand", jobs)

    def on_left(self, seconds: float) -> None:
        self._tell("on_left", seconds)

    def on_slow(self, text: str) -> None:
        self._tell("on_slow", text)

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
                self._leave_out(observer, error)

    def _leave_out(self, observer: RunObserver, error: Exception) -> None:
        if observer in self._observers:  # else another thread has left it out
            self._observers.remove(observer)
        self._of_outcomes = [each for each in self._of_outcomes if each is not observer]
        self._on_failure(observer, error)


def _takes_outcomes(observer: RunObserver) -> bool:
    """Return whether an observer does anything with outcomes."""
    return (
        getattr(observer.on_outcome, "__func__", None) is not RunObserver.on_outcome
        or getattr(observer.on_outcomes, "__func__", None) is not RunObserver.on_outcomes
    )
