"""One value with several consumers: converted once for all of them, and spoilt by none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.notes import Notes, collected
from pipeline.stage.values import PATH, PICTURE, Kind, convert


class Shared:
    """Gives each consumer its share: each conversion is made once, and no consumer can spoil another's.

    All consumers of a loaded value but the last get a copy. A Picture is shared, since none can change it; a file that
    is made only to be read by a program is written for each.
    """

    def __init__(self, value: Any, kind: Kind, notes: Notes, wants: list[Kind], scratch: Callable[[str], Path]) -> None:
        self.kind = kind
        self.wants = wants
        self._scratch = scratch
        self._loaded: dict[Kind, Any] = {kind: value}
        self._notes: dict[Kind, Notes] = {kind: notes}

    def give(self, position: int) -> Any:
        """The share of the consumer at this position, of the kind it wants."""
        wanted = self.wants[position]
        if wanted not in self._loaded:
            if wanted is PATH:
                return convert(self._loaded[self.kind], self.kind, wanted, self._scratch)
            with collected() as notes:
                converted = convert(self._loaded[self.kind], self.kind, wanted, self._scratch)
            self._loaded[wanted], self._notes[wanted] = converted, self._notes[self.kind] | notes
        return wanted.copy(self._loaded[wanted]) if self._is_needed_after(position, wanted) else self._loaded[wanted]

    def notes(self, kind: Kind) -> Notes:
        """What was noted of the value as it is given out in this kind."""
        return self._notes.get(kind, self._notes[self.kind])

    def kept_path(self, position: int) -> Path | None:
        """The file that the consumer at this position is given, if others are given the same."""
        is_shared = self.kind is PATH and self.wants[position] is PATH and len(self.wants) > 1
        return self._loaded[PATH] if is_shared else None

    def taken(self, position: int) -> None:
        """Close the picture once no consumer after this one wants it: its pixels are many."""
        picture = self._loaded.get(PICTURE)
        if picture and PICTURE not in self.wants[position + 1 :]:
            picture.close()

    def pass_by(self, position: int, given: Any) -> Any:
        """What goes on after a filter at this position: the value as it was before it."""
        if self.wants[position] is self.kind:
            return given
        value = self._loaded[self.kind]
        return self.kind.copy(value) if self._is_needed_after(position, self.kind) else value

    def _is_needed_after(self, position: int, kind: Kind) -> bool:
        later = self.wants[position + 1 :]
        # Every conversion starts from the value itself.
        return bool(later) if kind is self.kind else kind in later
