"""Counts the outputs that an override would set, for `adopt` and `accept` to show before they ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.text import counted


class Tally:
    """The number of outputs that an override can set, by stage, and of those that it cannot, by stage and reason."""

    def __init__(self, found: Iterable[tuple[str, str]]) -> None:
        counts = Counter(found)
        self.fit = {stage: count for (stage, why), count in counts.items() if not why}
        self.left = {key: count for key, count in counts.items() if key[1]}

    @property
    def total(self) -> int:
        """The number of outputs that the override can set."""
        return sum(self.fit.values())

    def lines(self, *, some: str, none: str, left: str) -> Iterator[str]:
        """Yield the lines to show: the total with `some` after it, or `none`, and the rest with `left` after it."""
        yield f"{counted(self.total, 'output')} {some}" if self.fit else f"no outputs {none}"
        yield from (f"  {count:>9,}  {stage}" for stage, count in self.fit.items())
        if self.left:
            yield f"{counted(sum(self.left.values()), 'output')} left, {left}"
        yield from (f"  {count:>9,}  {stage}: {why}" for (stage, why), count in self.left.items())
