"""What is recorded of sources, kept in step with a walk over the same order of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pipeline.failures import Failure
from pipeline.ledger import Row

T = TypeVar("T", Row, Failure)


class Follower(Generic[T]):
    """Keeps a stream of records in step with a walk over the same order of sources."""

    def __init__(self, records: Iterator[T], passed: Callable[[T], None]) -> None:
        self._records: Iterator[T] = records
        self._passed: Callable[[T], None] = passed
        self._next: T | None = next(records, None)

    def take(self, source: bytes) -> list[T]:
        """The records of a source; those of sources before it, which the walk did not meet, are passed."""
        found: list[T] = []
        if self._next is None or self._next.source > source:
            return found
        while self._next is not None and self._next.source <= source:
            if self._next.source == source:
                found.append(self._next)
            else:
                self._passed(self._next)
            self._next = next(self._records, None)
        return found

    def pass_the_rest(self) -> None:
        """The walk has ended: no other record was met."""
        while self._next is not None:
            self._passed(self._next)
            self._next = next(self._records, None)
