"""What a person should know of an output that is done, such as that it shows only the first frame of its source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_notes: ContextVar[dict[str, None] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Say something about the value that is being made; said twice, it counts once."""
    notes = _notes.get()
    if notes is not None:
        notes[text] = None


@contextmanager
def collected() -> Iterator[dict[str, None]]:
    """Collect what is noted meanwhile, in order."""
    notes: dict[str, None] = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)
