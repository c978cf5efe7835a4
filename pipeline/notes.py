"""What a person should know of an output that is done, such as that it shows only the first frame of its source."""

from __future__ import annotations

from contextvars import ContextVar, Token

Notes = dict[str, str]
"""Each note once, in the order they were made, with what it has in common with those on other outputs."""

_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


def note(text: str, particulars: str = "") -> None:
    """Note something about the value that is being made; noted twice, it counts once.

    Args:
        text: What is counted over many outputs, such as "first frame only".
        particulars: What is told of this one beside that, such as "of 4".
    """
    notes = _notes.get()
    if notes is not None:
        notes[f"{text}, {particulars}" if particulars else text] = text


class collected:
    """Collects what is noted meanwhile. A class, since a generator's context costs a tiny file too much."""

    def __enter__(self) -> Notes:
        notes: Notes = {}
        self._token: Token[Notes | None] = _notes.set(notes)
        return notes

    def __exit__(self, *raised: object) -> None:
        _notes.reset(self._token)
