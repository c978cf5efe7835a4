"""Puts together what several pools have done for one file, for whoever tells of files and not of parts of them."""

from __future__ import annotations

from pipeline.messages import Outcome


class WholeFiles:
    """Keeps the outcomes of the files with which other pools go on, as many as are on their way at a time."""

    def __init__(self) -> None:
        self._begun: dict[bytes, Outcome] = {}

    def add(self, outcome: Outcome) -> Outcome | None:
        """Return the outcome of a whole file, or group; None while another pool goes on with it."""
        source = outcome.source
        before = self._begun.pop(source.path, None) if self._begun and source else None
        outcome = _joined(before, outcome) if before else outcome
        if not outcome.goes_on or source is None:
            return outcome
        self._begun[source.path] = outcome
        return None

    def take_rest(self) -> list[Outcome]:
        """Return what has become of files with which no pool goes on any more, since the run was stopped."""
        rest, self._begun = [each for each in self._begun.values() if each.results], {}
        return rest


def _joined(before: Outcome, outcome: Outcome) -> Outcome:
    return outcome._replace(
        results=before.results + outcome.results,
        seconds=before.seconds + outcome.seconds,
        environment=before.environment or outcome.environment,
        peak_bytes=max(before.peak_bytes or 0, outcome.peak_bytes or 0) or None,
        usage=before.usage.merged(outcome.usage) if before.usage else outcome.usage,
    )
