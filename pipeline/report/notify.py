"""Tells somebody how a run ends: starts programs without a shell, and pings addresses as healthchecks has it.

    start of a run                      URL/start
    end, if all is well                 URL
    end, if it has failed               URL/fail, with the first failures
    end, if a signal stopped it         URL/log, which changes nothing of what the address thinks of the runs

Everything is sent from threads, takes a limited time, and raises nothing: what could not be told is a text.
"""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from pipeline.records import NamedTuple
from pipeline.text import PING_TO, VARIABLE, one_line

# Seconds that a program may take until it and all it has started is killed; and that a ping may take.
ARGV_LIMIT_S = 30.0
PING_LIMIT_S = 10.0
# Seconds more in which a thread says that a program's time was over.
_SPARE_S = 1.0
# The share of a ping's time that is kept for that, and for as long the end of a run waits for the ping of its start.
_SPARE = 0.1
# What is said of an address that has not answered when its time is over.
_NO_ANSWER = "no answer in time"
# Seconds between two looks at whether something was told.
_LOOK_EVERY_S = 0.05
# Bytes of a ping's body, all of which healthchecks keeps of it; and of a program's stdin, which any pipe takes at once,
# so that nobody waits for a program that does not read it.
_BODY_BYTES = 10_000
_STDIN_BYTES = 32_000


class NotTold(Exception):
    """Something could not be told; the text says why, and has no secret in it."""


class Entry(NamedTuple):
    """An entry of `notify`, as pipeline.yaml has it."""

    on: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    ping: str = ""
    always: bool = False

    def __str__(self) -> str:
        """Name the entry without anything that may be secret, such as the path of a URL."""
        return f"ping {_host_of(self.ping)}" if self.ping else f"argv {one_line(self.argv[0])}"


class Sending:
    """Something that is being told in a thread of its own."""

    def __init__(self, entry: Entry, send: Callable[[Sending], None], limit_s: float, late: str) -> None:
        """Begin to send.

        Args:
            entry: Who is told.
            send: What the thread does.
            limit_s: The seconds that whoever waits gives it in all.
            late: Why it was not told if it takes longer.
        """
        self.entry = entry
        self.program: int | None = None
        """The process id of a program that was started, which leads a group of its own; None once it has ended."""
        self.has_begun = threading.Event()
        """Set once the program was started, or there is none to start."""
        self._send = send
        self._limit_s = limit_s
        self._problem: str | None = late
        self._began = time.monotonic()
        # One that waits for a name server for ever is left behind, also when the program ends.
        self._thread = threading.Thread(target=self._run, name=f"notify {entry}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # how Python says that the machine has no more of them
            self._problem = "no thread could be started"

    def _run(self) -> None:
        try:
            self._send(self)
            self._problem = None
        except NotTold as error:
            self._problem = str(error)
        except Exception as error:  # its text may have the address in it
            self._problem = f"failed with {type(error).__name__}"

    def wait(self, is_interrupted: Callable[[], bool] = lambda: False, most_s: float = math.inf) -> str:
        """Wait for the end, but not beyond the limit; return why it was not told, empty if it was.

        Args:
            is_interrupted: Function that is called repeatedly; once it returns True the waiting ends.
            most_s: The seconds that whoever waits has.
        """
        deadline = min(self._began + self._limit_s, time.monotonic() + most_s)
        while self._thread.is_alive() and time.monotonic() < deadline and not is_interrupted():
            self._thread.join(_LOOK_EVERY_S)
        return self._problem or ""

    def abandon(self) -> None:
        """Kill the program and all it has started, if it is at work."""
        if self._thread.is_alive():
            self.has_begun.wait(_SPARE_S)
        if self.program is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.program, signal.SIGKILL)


def expand(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a text with the variables of the environment that it names. Raises NotTold where one is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise NotTold(f"the environment has no {found[1]}")
        return environment[found[1]]

    return re.sub(VARIABLE, value, text)


# -- programs ----------------------------------------------------------------------------------------------------------


def start_program(entry: Entry, facts: Mapping[str, str], text: str, folder: str) -> Sending:
    """Start the program of an entry in a folder, with facts in its environment and a text as its stdin."""
    call = partial(_call, entry, dict(facts), text, folder)
    return Sending(entry, call, ARGV_LIMIT_S + _SPARE_S, f"took longer than {ARGV_LIMIT_S:g} s")


def _call(entry: Entry, facts: dict[str, str], text: str, folder: str, sending: Sending) -> None:
    import subprocess

    argv, nowhere = [expand(each) for each in entry.argv], subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, cwd=folder, env=os.environ | facts,
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:  # ValueError: a NUL in a variable
        raise NotTold(f"cannot be started: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    sending.program = process.pid
    sending.has_begun.set()
    assert process.stdin is not None
    with suppress(OSError):  # it does not read what it is given
        process.stdin.write(text.encode("utf-8", "backslashreplace")[:_STDIN_BYTES])
    with suppress(OSError):
        process.stdin.close()
    try:
        code = process.wait(ARGV_LIMIT_S)
    except subprocess.TimeoutExpired:
        sending.abandon()
        process.wait()
        raise NotTold(f"took longer than {ARGV_LIMIT_S:g} s, and was killed") from None
    finally:
        sending.program = None
    if code:
        raise NotTold(f"ended with {code}" if code > 0 else f"was killed by signal {-code}")


# -- pings -------------------------------------------------------------------------------------------------------------


def start_ping(entry: Entry, what: str, rid: str, body: str, after: Sending | None = None) -> Sending:
    """Ping the address of an entry.

    Args:
        entry: The entry.
        what: What is appended to the path, such as `/start`; empty for a success.
        rid: The id of the run, by which a start and an end belong together.
        body: What is sent with it.
        after: The ping that is to arrive before, if it does soon.
    """
    # Here, since a process that is forked meanwhile could not import what another thread was just importing.
    import urllib.request  # noqa: F401

    # A thread of a run takes none of its signals, which may be blocked elsewhere for a while.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        late = f"did not get through: {_NO_ANSWER}"  # also if it answers without an end
        return Sending(entry, partial(_ping, entry, what, rid, body, after), PING_LIMIT_S, late)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ping(entry: Entry, what: str, rid: str, body: str, after: Sending | None, sending: Sending) -> None:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    sending.has_begun.set()
    if after:
        after.wait(most_s=_SPARE * PING_LIMIT_S)
    url = expand(entry.ping).strip()
    if not re.fullmatch(PING_TO, url):
        raise NotTold("what the environment has for it is no URL that begins with https://, or http:// to this machine")
    data = body.encode("utf-8", "backslashreplace")[:_BODY_BYTES].decode("utf-8", "ignore").encode()
    headers = {"User-Agent": "filemill", "Content-Type": "text/plain; charset=utf-8"}
    request = Request(_address(url, what, rid), data=data, headers=headers, method="POST")
    try:
        urlopen(request, timeout=(1 - 2 * _SPARE) * PING_LIMIT_S).close()
    except HTTPError as error:
        error.close()
        raise NotTold(f"was answered with {error.code}") from None
    except OSError as error:
        raise NotTold(f"did not get through: {_why(error)}") from None


def _address(url: str, what: str, rid: str) -> str:
    """Return the address of an event of a run."""
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, f"rid={rid}")))
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + what, query=query, fragment=""))


def _why(error: OSError) -> str:
    """Return why an address cannot be reached; the text of the error itself may have the address in it."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return _NO_ANSWER
    return one_line(getattr(reason, "strerror", None) or type(reason).__name__)


def new_rid() -> str:
    """Return a new id of a run, in the form of a UUID."""
    digits = os.urandom(16).hex()
    return "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}", f"8{digits[17:20]}", digits[20:]))


def _host_of(ping: str) -> str:
    """Return what may be told of an address: its host, or the variable that has it."""
    if found := re.match(VARIABLE, ping):
        return found[0]
    return one_line(re.sub(r"^(\w+://)(?:[^/?#]*@)?([^/?#]*).*", r"\1\2", ping, flags=re.DOTALL))
