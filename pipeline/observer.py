"""The events of a run that may be observed while it goes on: by the bar, `iterate`, `try` and reports."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pipeline.messages import Outcome


class Step(NamedTuple):
    """One thing that happened to a file inside a worker; sent only where the worker is in this process."""

    stage: str
    what: Literal["built", "converted", "made", "skipped", "raised", "wrote", "failed"]
    """`raised` is the call of a stage, `failed` an output, for whatever reason."""
    value: str
    """The value that came of it, described by type and size, or what was said."""
    seconds: float
    error: BaseException | None = None
    """What was raised."""


class RunObserver:
    """Receives the events of a run; every method does nothing unless it is overridden.

    An observer never changes what a run does: the run carries on whatever is returned here.
    """

    def on_planned(self, files: int) -> None:
        """`files` files are about to be handed to the engine."""

    def on_step(self, step: Step) -> None:
        """A stage was called, a value converted or an output written, in this process."""

    def on_outcome(self, outcome: Outcome) -> None:
        """The outcome of a job has been recorded in the ledger."""

    def on_note(self, text: str) -> None:
        """Something a person should know happened that concerns no single output."""
