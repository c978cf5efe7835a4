"""How a run ends when it is told to: the first signal lets what is in hand be finished, a second one does not."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from pipeline.errors import Interrupted

_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Catches SIGINT, SIGTERM and SIGHUP while it is entered."""

    def __init__(self, grace_s: float) -> None:
        self.first = 0
        """The number of the first signal; 0 while there was none."""
        self.interrupted = False
        """Whether what was in hand could not be finished."""
        self._grace_s = grace_s
        self._at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """What the first signal is called."""
        return signal.Signals(self.first).name

    def check_grace(self) -> None:
        """Raise Interrupted once what is in hand has had its time since the first signal."""
        if self.first and time.monotonic() - self._at > self._grace_s:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.first:
            raise Interrupted
        self.first, self._at = number, time.monotonic()

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python gives signals to the main thread only, which is whoever called us
        for number in _CAUGHT:
            # nohup ignores SIGHUP, a shell's background job SIGINT: that is left as it is.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.interrupted = isinstance(error, Interrupted)
        return self.interrupted
