"""A terminal of a given size, and what a person sees on it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

import pyte

from support.program import wait_until


class Terminal:
    """Context manager around a pseudo-terminal, whose screen a thread of ours keeps up to date."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._ours, self.theirs = pty.openpty()
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.raw = b""
        """All that was written to the terminal."""
        self.resize(columns, rows)

    def __enter__(self) -> Terminal:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.hang_up()
        os.close(self._ours)

    def resize(self, columns: int, rows: int = 24) -> None:
        """Give the window another size, as a person does with a mouse."""
        with self._lock:
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            self._screen.resize(rows, columns)

    def open(self, encoding: str = "utf-8") -> TextIO:
        """Open the terminal for writing."""
        return open(os.dup(self.theirs), "w", encoding=encoding, errors="backslashreplace", buffering=1)

    def start(self, *command: str, cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program of which this is the terminal; it is killed at the exit, if it has not ended by then."""
        process = subprocess.Popen(
            command, cwd=cwd, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, start_new_session=True,
            env=os.environ | {"TERM": "xterm"} | environment, preexec_fn=_own_the_terminal,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def type(self, text: bytes) -> None:
        """Type a text; `\\x03` is Ctrl-C."""
        os.write(self._ours, text)

    def settle(self) -> None:
        """Wait until all that was written is on the screen."""
        os.write(self.theirs, b"\0")  # which shows nothing
        wait_until(lambda: self.raw.endswith(b"\0"))
        self.raw = self.raw[:-1]

    def hang_up(self) -> None:
        """Close the program's end, and wait until all that was written is on the screen."""
        if self._thread.is_alive():
            with suppress(OSError):
                os.close(self.theirs)
            self._thread.join(60)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without the empty ones at its end."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    def wait_for(self, *texts: str) -> list[str]:
        """Wait until the screen shows these texts, each within a line, and return its lines."""

        def shown() -> list[str]:
            lines = self.lines
            return lines if all(any(text in line for line in lines) for text in texts) else []

        try:
            return wait_until(shown)
        except AssertionError as error:
            raise AssertionError(f"{texts} not within {self.lines}") from error

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # nobody has the other end open
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)


def _own_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
