"""The bottom line of a terminal that shows how far a run has come; imported only where there is one to show."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm

from pipeline.report.progress import Progress
from pipeline.stdio import has_color, in_color

# Columns of the bar itself: with fewer it shows nothing, and more of them tell no more.
_LEAST_BAR, _MOST_BAR = 6, 40
# The columns of a terminal that does not say how many it has.
_USUAL_COLUMNS = 80


class ProgressLine(tqdm):  # type: ignore[type-arg]  # it iterates over nothing
    """A tqdm bar whose line is composed anew for the width that the terminal has at the moment."""

    # The thread of the run that calls `on_in_hand` refreshes it once a second; tqdm needs none of its own for that,
    # nor a lock between processes.
    monitor_interval = 0
    lock = _lock = threading.RLock()

    def __init__(self, progress: Progress, stream: TextIO) -> None:
        self._progress = progress
        self._has_color = has_color(stream)
        self._raw = _Raw(stream)
        super().__init__(total=progress.total, initial=progress.done, file=self._raw, leave=False, position=0)
        self._hook = _Hook(stream, self)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return a function that shows a text in place of the line.

        tqdm itself would write spaces over a longer text before, beyond the edge of a window that was made smaller. The
        cursor is left at the beginning of the line, where the next text covers the ^C that a terminal echoes.
        """

        def show(text: str) -> None:
            file.write(f"\r{text}\x1b[K\r")
            file.flush()

        return show

    def __str__(self) -> str:
        room = self._columns() - 1
        parts = self._progress.parts(self.format_dict["rate"], room)
        text = ", ".join(parts)
        if self._progress.share is not None:
            text = f"{self._bar(room - len(text) - 2)}{text}"
        if self._has_color and self._progress.failed_text in parts:
            text = text.replace(self._progress.failed_text, in_color(self._progress.failed_text, "red"))
        return text

    def _columns(self) -> int:
        """Return the columns of the terminal, which may have changed since the last time."""
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self._raw.fileno()).columns or _USUAL_COLUMNS
        return _USUAL_COLUMNS

    def _bar(self, room: int) -> str:
        """Return a bar of at most so many columns, and a space; nothing where that is too little to tell anything."""
        columns = min(room, _MOST_BAR)
        if columns < _LEAST_BAR:
            return ""
        done = int((self._progress.share or 0) * columns)
        return f"{('#' if self.ascii else '█') * done:{columns}}| "

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
        """Show the line as it is now, unless it is closed; an exception on the way leaves nothing locked."""
        with self.lock:
            if not self.disable:
                self.display()

    def advance(self) -> None:
        """Take over the progress, and show it if the last time is long enough ago."""
        with self.lock:
            self.total = self._progress.total
            self.update(self._progress.done - self.n)

    def write_above(self, text: str) -> None:
        """Write whole lines above this one."""
        with self.lock:
            self.clear(nolock=True)
            self._raw.write(text)
            self.refresh()

    def close(self) -> None:
        """Remove the line."""
        with self.lock:
            if hasattr(self, "_hook"):
                self._hook.remove()
            super().close()


class _Raw:
    """A stream as it is without the hook, for the line itself."""

    def __init__(self, stream: TextIO) -> None:
        self.write, self.flush, self.fileno, self.encoding = stream.write, stream.flush, stream.fileno, stream.encoding


class _Hook:
    """Has whatever this process prints to a stream appear above the line, by whole lines and from any thread.

    The stream stays the same object, since the state of the process is compared before and after each call of a stage.
    """

    def __init__(self, stream: TextIO, line: ProgressLine) -> None:
        self._stream, self._line, self._pid = stream, line, os.getpid()
        self._write = stream.write
        self._begun: dict[int, str] = {}
        """The beginning of a line that each thread has not ended yet: `print` writes the end of it by itself."""
        stream.write = self._write_above  # type: ignore[method-assign]

    def _write_above(self, text: str) -> int:
        if os.getpid() != self._pid:  # a forked worker, in which the lock may be held by a thread that is not there
            return self._write(text)
        with self._line.lock:
            thread = threading.get_ident()
            ended, newline, self._begun[thread] = f"{self._begun.get(thread, '')}{text}".rpartition("\n")
            if newline:
                self._line.write_above(f"{ended}\n")
        return len(text)

    def remove(self) -> None:
        """Give the stream back as it was."""
        if self._stream.__dict__.pop("write", None):
            for begun in filter(None, self._begun.values()):
                self._line.write_above(f"{begun}\n")
