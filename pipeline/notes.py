"""What a person should know of an output that is done, such as that it shows only the first frame of its source."""

from __future__ import annotations

from contextvars import ContextVar, Token

Notes = dict[str, None]
"""In the order they were made, each once."""

_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Say something about the value that is being made; said twice, it counts once."""
    notes = _notes.get()
    if notes is not None:
        notes[text] = None


class collected:
    """Collects what is noted meanwhile. A class, since a generator's context costs a tiny file too much."""

    def __enter__(self) -> Notes:
        notes: Notes = {}
        self._token: Token[Notes | None] = _notes.set(notes)
        return notes

    def __exit__(self, *raised: object) -> None:
        _notes.reset(self._token)
