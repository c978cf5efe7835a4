"""The state of a process that no call of a stage may change, since the next files meet it: streams, umask, timers."""

from __future__ import annotations

import _locale

# Without the wrapper of `signal`, which makes an enum of each handler and takes 10 to 20 times as long.
import _signal  # type: ignore[import-not-found]
import fcntl
import gc
import locale
import os
import resource
import select
import signal
import sys
from _thread import _count as count_threads  # what threading counts, which takes a lock for it
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

# No stage keeps more files open than this, or than half of what the system allows: the rest is a leak.
_MOST_OPEN = 4096
# The umask while it is read: a file that is made at that moment is closed to others, and never open to them.
_READING_UMASK = 0o077
# As plain numbers: converting those of an enum would take most of the time of asking for all handlers.
_SIGNALS = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)
_NO_TIMER = (0.0, 0.0)
_STREAMS = ("stdin", "stdout", "stderr")
_ENVIRON = os.environ
_device_and_number = attrgetter("st_dev", "st_ino")


def _mark(descriptors: Sequence[int]) -> bool:
    """Mark the open file of each descriptor; return whether the system can.

    The mark is the number of the signal that Linux would send when the file is ready, which nothing asks it to do. A
    file that is opened later has none. To read it takes a fourth of the time of fstat.
    """
    try:
        for mark, descriptor in enumerate(descriptors, signal.SIGRTMIN):
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, mark)
        return all(fcntl.fcntl(descriptor, fcntl.F_GETSIG) for descriptor in descriptors)
    except (OSError, AttributeError):
        return False


def _identify(descriptor: int, _: int) -> Any:
    """Return what identifies the file of a descriptor. Raises OSError if it is closed."""
    return _device_and_number(os.fstat(descriptor))


def _glance(descriptors: Sequence[int], threads: int, *, may_mark: bool) -> Callable[[], bool]:
    """Return a function that tells whether the whole state is the present one, in the least time, after every call.

    It compares every part that `ProcessState` keeps, and whether too many files are open: what a glance does not
    compare is never set back. What it finds changed, it leaves so.

    Args:
        descriptors: Those of the streams, and those that this process cannot work without.
        threads: How many threads are our own.
        may_mark: Whether the open files of the descriptors are none of another program's, so that they may be marked.

    Raises:
        OSError, ValueError, AttributeError: Something is closed or gone, which each part tells.
    """
    is_marked = may_mark and _mark(descriptors)
    identify, what = (fcntl.fcntl, fcntl.F_GETSIG) if is_marked else (_identify, 0)
    files = [(descriptor, identify(descriptor, what)) for descriptor in descriptors]
    stdin, stdout, stderr = sys.stdin, sys.stdout, sys.stderr
    are_closed = stdin.closed, stdout.closed, stderr.closed
    pid, folder, mask, blocked = os.getpid(), os.getcwd(), _umask(threads), _blocked()
    user, group = _user()
    open_files, file_size = _limits()
    locale_name = _locale.setlocale(locale.LC_ALL, None)
    # The mapping itself would decode every variable.
    environ = os.environ._data.copy()  # type: ignore[attr-defined]
    handlers = [*map(_signal.getsignal, _SIGNALS)]
    recursion_limit, collects = sys.getrecursionlimit(), gc.isenabled()
    if [*map(_signal.getitimer, _TIMERS)] != [_NO_TIMER] * len(_TIMERS):
        raise ValueError("a timer that runs is never as it was")
    poller = select.poll()  # tells with one system call that a descriptor is closed, without an exception for it
    poller.register(unused := _unused_descriptor(), 0)
    is_unused = [(unused, select.POLLNVAL)]

    def is_as_now() -> bool:
        try:
            for descriptor, file in files:
                if identify(descriptor, what) != file:
                    return False
            # A umask is only told when another is set. Set the very one that it should be: no thread meets any other.
            if (found := os.umask(mask)) != mask:
                os.umask(found)
                return False
            return (
                os.getpid() == pid
                and sys.stdin is stdin
                and sys.stdout is stdout
                and sys.stderr is stderr
                and (stdin.closed, stdout.closed, stderr.closed) == are_closed
                and os.getcwd() == folder
                and os.geteuid() == user
                and os.getegid() == group
                and resource.getrlimit(resource.RLIMIT_NOFILE) == open_files
                and resource.getrlimit(resource.RLIMIT_FSIZE) == file_size
                and _locale.setlocale(locale.LC_ALL, None) == locale_name
                and os.environ is _ENVIRON
                and os.environ._data == environ  # type: ignore[attr-defined]
                and [*map(_signal.getsignal, _SIGNALS)] == handlers
                and _signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
                and sys.getrecursionlimit() == recursion_limit
                and gc.isenabled() is collects
                and _signal.getitimer(signal.ITIMER_REAL) == _NO_TIMER
                and _signal.getitimer(signal.ITIMER_VIRTUAL) == _NO_TIMER
                and _signal.getitimer(signal.ITIMER_PROF) == _NO_TIMER
                and poller.poll(0) == is_unused
            )
        except (OSError, ValueError, AttributeError, RuntimeError):  # the last where two threads poll at once
            return False

    return is_as_now


class ProcessState:
    """The state that was kept, and that each call of a stage is compared with. Reading it takes some microseconds."""

    def __init__(self) -> None:
        self.is_spoilt = False
        """True if something could not be set back, so that no other file should meet it."""
        self._on_lost: Callable[[], object] | None = None
        self._needed: list[int] = []
        self._copies: dict[int, int] = {}
        """Duplicates of the descriptors 0 to 2, by which these are set back."""
        self._modules = self._pid = self._threads = 0
        self._kept: list[Any] = []
        self.may_leak = False
        """True if the last call was met with so many open files that `leaked` must look."""
        self._is_as_kept: Callable[[], bool] | None = None
        self._parts: tuple[tuple[Callable[[], Any], Callable[[Any], str]], ...] = (
            # A limit first, under which the others might not be read.
            (_limits, _restore_limits),
            (lambda: _identities(self._needed), self._lose),
            (lambda: _identities(range(3)), self._restore_descriptors),
            (_streams, _restore_streams),
            (_folder, _restore_folder),
            (lambda: _umask(self._threads), _restore_umask),
            (_user, self._restore_user),
            (lambda: locale.setlocale(locale.LC_ALL), _restore_locale),
            (_environment, self._restore_environment),
            (lambda: [*map(_signal.getsignal, _SIGNALS)], _restore_handlers),
            (_blocked, _restore_blocked),
            (lambda: (sys.getrecursionlimit(), gc.isenabled()), self._restore_interpreter),
            (lambda: [signal.getitimer(timer)[0] > 0 for timer in _TIMERS], _stop_timers),
        )
        """How each part is read, and how it is set back and described."""

    def keep(self, needed: Sequence[int] = (), on_lost: Callable[[], object] | None = None) -> None:
        """Keep the present state.

        Args:
            needed: Descriptors that this process cannot work without.
            on_lost: Function that is called when one of them is closed or replaced, to end this process.
        """
        self.forget()
        for number in range(3):
            with suppress(OSError):  # it is closed, and stays so
                self._copies[number] = os.dup(number)
        self._needed, self._on_lost = list(needed), on_lost
        self._modules, self._pid, self._threads = len(sys.modules), os.getpid(), count_threads()
        self._kept = [read() for read, _ in self._parts]
        self._glance()

    @property
    def is_kept(self) -> bool:
        """True if calls are compared with a state."""
        return bool(self._kept)

    def forget(self) -> None:
        """Compare no call with this state any more."""
        for copy in self._copies.values():
            with suppress(OSError):
                os.close(copy)
        self._copies.clear()
        self._kept, self._is_as_kept, self.may_leak, self.is_spoilt = [], None, False, False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the present state for a time."""
        self.keep()
        try:
            yield
        finally:
            self.forget()

    def restore(self) -> str:
        """Set back what differs from the state that was kept; return it in words, or an empty text."""
        if self._is_as_kept and self._is_as_kept():
            self._modules = len(sys.modules)
            return ""
        kept, changed = self._kept, []
        if not kept:
            return ""
        if os.getpid() != self._pid:  # a stage has forked, and its child came back in our place
            os._exit(1)
        for number, (read, restore) in enumerate(self._parts):
            try:
                if read() == kept[number]:
                    continue
                if text := restore(kept[number]):
                    changed.append(text)
                kept[number] = read()
            except (OSError, ValueError, TypeError) as error:
                self.is_spoilt = True
                changed.append(f"what cannot be set back ({error})")
                with suppress(OSError):
                    kept[number] = read()
        self._modules = len(sys.modules)
        self._glance()
        return ", ".join(changed)

    def _glance(self) -> None:
        self.may_leak = _lowest_free() >= _most_open()
        self._is_as_kept = None
        with suppress(OSError, ValueError, AttributeError):
            # Only a worker has any that it needs, and the files of its other descriptors are its own as well.
            self._is_as_kept = _glance((*self._needed, 0, 1, 2), self._threads, may_mark=bool(self._needed))

    def leaked(self) -> int:
        """Return the number of open descriptors if there are more than any stage keeps, else 0."""
        if not self._kept or not self.may_leak:
            return 0
        gc.collect()  # closes the files that only a cycle of objects holds
        count = _lowest_free()
        if count < _most_open():
            return 0
        self.is_spoilt = True
        return count

    def _lose(self, was: Any) -> str:
        if self._on_lost:
            self._on_lost()
        self.is_spoilt = True
        return "file descriptors that are not its own"

    def _restore_descriptors(self, was: list[Any]) -> str:
        now = _identities(range(3))
        numbers = [number for number in range(3) if now[number] != was[number]]
        for number in numbers:
            if number in self._copies:
                os.dup2(self._copies[number], number)  # fails if the copy was closed too, and the worker is spoilt
            else:
                os.close(number)
        return f"file descriptor {' and '.join(map(str, numbers))}"

    def _restore_user(self, was: tuple[int, int]) -> str:
        """Set back the effective user and group, which is not possible if the real ones were changed, too."""
        os.seteuid(was[0])
        os.setegid(was[1])
        self.is_spoilt = True  # Linux has forgotten that this process shall die with its parent
        return "the user"

    def _restore_interpreter(self, was: tuple[int, bool]) -> str:
        """Set back what no module has set that was imported for the first time."""
        if len(sys.modules) > self._modules:
            return ""
        sys.setrecursionlimit(was[0])
        (gc.enable if was[1] else gc.disable)()
        return "the recursion limit or the garbage collector"

    def _restore_environment(self, was: dict[Any, Any]) -> str:
        """Set back variables; those that a module sets when it is imported come once, and stay."""
        is_replaced = getattr(os, "environ", None) is not _ENVIRON
        os.environ = _ENVIRON  # noqa: B003, it is the very object that was there
        now = _environment()
        added = now.keys() - was.keys() if len(sys.modules) > self._modules else set()
        names = sorted(name for name in (was.keys() | now.keys()) - added if was.get(name) != now.get(name))
        for name in names:
            if name in was:
                os.environb[name] = was[name]
            else:
                del os.environb[name]
        shown = [os.fsdecode(name) for name in names] or ["os.environ"] * is_replaced
        return f"the environment ({', '.join(shown)})" if shown else ""


# -- the parts of it ---------------------------------------------------------------------------------------------------


def _identities(numbers: Sequence[int]) -> list[tuple[int, int] | None]:
    """Return for each descriptor what identifies its file; None if it is closed."""
    found: list[tuple[int, int] | None] = []
    for number in numbers:
        try:
            status = os.fstat(number)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def _lowest_free() -> int:
    """Return the lowest descriptor that is free, which tells how many are open."""
    try:
        number = os.dup(2)
    except OSError:  # closed, or not one is free
        return 0 if _identities((2,)) == [None] else sys.maxsize
    os.close(number)
    return number


def _most_open() -> int:
    """Return how many open files are a leak."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_OPEN if soft < 0 else min(soft // 2, _MOST_OPEN)


def _unused_descriptor() -> int:
    """Return the highest number that is free, and in use only once as many files are open as are a leak."""
    for number in range(_most_open() - 1, -1, -1):
        if _identities((number,)) == [None]:
            return number
    raise ValueError("so many files are open already")


def _streams() -> list[tuple[Any, bool]]:
    return [(stream, _is_closed(stream)) for stream in (sys.stdin, sys.stdout, sys.stderr)]


def _is_closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except AttributeError:  # None, or something that is never closed
        return False
    except ValueError:  # its buffer was detached
        return True


def _restore_streams(was: list[tuple[Any, bool]]) -> str:
    """Set back the streams; one that was closed is opened again."""
    names = []
    # By the closed one, which stdout and stderr share in the serial engine: it is that of stderr, so that comes first.
    reopened: dict[int, Any] = {}
    for number, (name, (stream, was_closed)) in reversed([*enumerate(zip(_STREAMS, was, strict=True))]):
        is_closed = _is_closed(stream) and not was_closed
        if getattr(sys, name) is stream and not is_closed:
            continue
        if is_closed:
            if id(stream) not in reopened:
                mode = "w" if number else "r"
                reopened[id(stream)] = open(number, mode, 1, encoding="utf-8", errors="backslashreplace", closefd=False)
            new = reopened[id(stream)]
            if getattr(sys, f"__{name}__") is stream:
                setattr(sys, f"__{name}__", new)
            stream = new
        setattr(sys, name, stream)
        names.append(f"sys.{name}")
    return " and ".join(reversed(names))


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _restore_folder(was: str) -> str:
    os.chdir(was)
    return "the working folder"


def _umask(threads: int) -> int:
    """Return the umask; with more threads than our own, of which one may make a file meanwhile, do not touch it."""
    if sys.platform == "linux" and count_threads() > threads:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(_READING_UMASK)
    os.umask(umask)
    return umask


def _restore_umask(was: int) -> str:
    os.umask(was)
    return "the umask"


def _user() -> tuple[int, int]:
    return os.geteuid(), os.getegid()


def _limits() -> list[tuple[int, int]]:
    return [*map(resource.getrlimit, _LIMITS)]


def _restore_limits(was: list[tuple[int, int]]) -> str:
    for limit, values in zip(_LIMITS, was, strict=True):
        resource.setrlimit(limit, values)
    return "a limit of resources"


def _restore_locale(was: str) -> str:
    locale.setlocale(locale.LC_ALL, was)
    return "the locale"


def _environment() -> dict[Any, Any]:
    # The mapping itself would decode every variable, at each call of a stage.
    found = getattr(os, "environ", None)
    return dict(getattr(found, "_data", found or {}))


def _restore_handlers(was: list[Any]) -> str:
    names = []
    for number, handler in zip(_SIGNALS, was, strict=True):
        if _signal.getsignal(number) != handler:
            names.append(signal.Signals(number).name if number in set(signal.Signals) else str(number))
            signal.signal(number, handler)
    return f"the handler of {' and '.join(names)}"


def _blocked() -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _restore_blocked(was: set[Any]) -> str:
    signal.pthread_sigmask(signal.SIG_SETMASK, was)
    return "which signals are blocked"


def _stop_timers(was: list[bool]) -> str:
    """Stop the timers that a call has left running; one that has ended needs nothing."""
    left = [timer for timer, was_set in zip(_TIMERS, was, strict=True) if not was_set and signal.getitimer(timer)[0]]
    for timer in left:
        signal.setitimer(timer, 0)
    return "a timer" if left else ""


process_state = ProcessState()
"""The one state of this process."""
