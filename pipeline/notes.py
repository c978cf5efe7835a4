"""Notes on an output that was made, for a person, such as "first frame only"."""

from __future__ import annotations

from contextvars import ContextVar, Token

from pipeline.text import one_line

Notes = dict[str, str]
"""The notes in the order of their making, each mapped to its text without particulars, by which notes are counted."""

_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


def note(text: str, particulars: str = "") -> None:
    """Add a note to the value that is being made; a note that is added twice counts once.

    Args:
        text: The text under which this note is counted over all outputs, such as "first frame only".
        particulars: The text added for this output alone, such as "of 4".
    """
    notes = _notes.get()
    if notes is not None:
        text, particulars = one_line(text), one_line(particulars)
        notes[f"{text}, {particulars}" if particulars else text] = text


class collected:
    """Collects the notes made inside its `with` block.

    A class, since entering a `@contextmanager` costs several times as much, which shows for tiny files.
    """

    def __enter__(self) -> Notes:
        notes: Notes = {}
        self._token: Token[Notes | None] = _notes.set(notes)
        return notes

    def __exit__(self, *raised: object) -> None:
        _notes.reset(self._token)
