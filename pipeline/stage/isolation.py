"""Calls functions of ours in a process of its own, in which the code of users may be imported; ours never does.

    this process                        server (isolation_server.py)       child, one for each call
    ------------                        ----------------------------       ------------------------
    Question, over a socket  ---------> imports our modules, forks  -----> goes where we are (folder, path, ...)
    where it is in hand, the answer <------------- a pipe ---------------- calls the function
    what it prints  <----------------------------- a pipe ----------------
    how it ended  <-------------------- waits for it
    a pipe that only we hold open -------------------------------------->  is killed once that is closed

The server is started when it is first needed, and ends with us or when nobody has asked for a while. It is a copy of
this process where that is nothing but the program, which costs less, and a new process anywhere else.

An answer is plain data: whatever it is made of, nothing but filemill's own classes is imported here to unpack it.
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import pickle
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline.errors import EnvironmentFailure
from pipeline.records import NamedTuple

if TYPE_CHECKING:
    import socket
    import subprocess

# What is read of a pipe at once.
_READ_BYTES = 1 << 16
# The lowest descriptor that is no standard stream, one of which a process may have been started without.
_ABOVE_STREAMS = 3
# With this exit code a child ends that cannot say any more why.
CUT_OFF = 74
_PATHS = {"Path", "PosixPath", "PurePosixPath", "PurePath"}
# The classes that an answer may be made of, beside our own; Python 3.13 says of paths where they are defined.
_PLAIN = {
    "builtins": {"set", "frozenset", "complex", "bytearray", "slice", "range", "KeyboardInterrupt"},
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "collections": {"OrderedDict", "Counter", "defaultdict"},
    "pipeline.stage.values": {"_same_kind"},
}


class Question(NamedTuple):
    """The call that a child is to make, and the surroundings for it."""

    function: str
    """The module and the name of it, as `package.module:name`."""
    arguments: tuple[Any, ...]
    path: list[str]
    environment: dict[bytes, bytes]
    argv: list[str]
    umask: int
    no_bytecode: bool


class Ended(NamedTuple):
    """The end of a child, or the reason why there was none, as its server reports it."""

    status: int = 0
    """The exit code, or the negative number of the signal that ended the child."""
    refused: int = 0
    """The number of the error, where no process could be started."""


ENDED = struct.Struct("=ii")
"""The form in which a question crosses."""


class ProcessDied(Exception):
    """The child ended before it had answered."""

    def __init__(self, place: Any, how: str) -> None:
        super().__init__(how)
        self.place = place
        """The place that the child had announced last."""
        self.how = how


announce: Callable[[Any], None] = lambda place: None  # noqa: E731, replaced in the child
"""Announces the code that is about to be imported or called, so that a death can be blamed on it; only in a child."""


def announce_place(place: Any) -> None:
    """Announce the user's code that is about to be run: a death of this process is blamed on it."""
    announce(place)


def prepare(function: str, *arguments: Any) -> None:
    """Have a child begin with a call that is soon made, while this process goes on; `call` takes its answer."""
    with _one_at_a_time:
        _drop_if(_server is not None and _server.question is not None)
        server = _server_of_ours(function)
        try:
            server.ask(function, arguments)
        except (OSError, _ServerGone):  # the call tries again, and says so
            _drop_if(True)


def call(function: str, *arguments: Any) -> Any:
    """Call a function of ours, named as `package.module:name`, in a child process.

    Args:
        function: What is called.
        arguments: What it is given, which can be pickled.

    Returns:
        What it returned, as plain data and filemill's own classes.

    Raises:
        ProcessDied: The child ended before it had answered.
        EnvironmentFailure: The machine does not let it be asked.
        Exception: What the function raised, where that is one of filemill's own errors.
    """
    with _one_at_a_time:
        try:
            return _ask(function, arguments)
        except _ServerGone:  # since nobody had asked it for a while, or somebody has killed it
            pass
        try:
            return _ask(function, arguments)
        except _ServerGone as gone:
            raise ProcessDied(gone.place, gone.how) from None


def call_despite_deaths(function: str, *arguments: Any) -> Any:
    """Call a function that runs code of users, again after each death, and tell it of those.

    Its last argument says how each process ended that had died, by the place that was announced.

    Raises:
        EnvironmentFailure: A child ended where nothing was announced, or the machine does not let it be asked.
    """
    deaths: dict[Any, str] = {}
    while True:
        try:
            return call(function, *arguments, deaths)
        except ProcessDied as error:
            if error.place is None or error.place in deaths:
                raise EnvironmentFailure(f"the process that imports the stages was ended {error.how}") from None
            deaths[error.place] = error.how


def _ask(function: str, arguments: tuple[Any, ...]) -> Any:
    _drop_if(_server is not None and _server.question not in (None, (function, arguments)))
    server = _server_of_ours()
    try:
        return server.call(function, arguments)
    except OSError as error:
        raise EnvironmentFailure(f"the process that imports the stages cannot be asked: {error}") from error
    finally:
        # Also after Ctrl-C: what the child is at is not waited for, nor taken for another's answer.
        _drop_if(server.is_asked)


def _drop_if(is_of_no_use: bool) -> None:
    """End the server where it is of no use for the next question."""
    global _server
    if is_of_no_use and _server is not None:
        server, _server = _server, None
        server.close()


def _server_of_ours(function: str = "") -> _Server:
    """Return the server of this very process, started if there is none."""
    global _server
    if _server is None:
        _server = _Server(function)
    return _server


class _ServerGone(Exception):
    """The server has ended."""

    def __init__(self, how: str, place: Any = None) -> None:
        super().__init__(how)
        self.how = how
        self.place = place
        """The place that the child had announced last."""


class _Server:
    """The process that forks a child for each call, from what it has imported already."""

    def __init__(self, function: str = "") -> None:
        import socket

        try:
            self._socket, theirs = socket.socketpair()
            with theirs, _above_streams(theirs.fileno()) as number:
                forked = _Forked(number, function, (self._socket, theirs)) if _is_nothing_else() else None
                self._process = forked or _started(number, function)
        except OSError as error:
            raise _not_started(error.errno, str(error)) from error
        self.is_asked = False
        """Whether it was asked, and has not said yet how the child has ended."""
        self.question: tuple[str, tuple[Any, ...]] | None = None
        """The function that a child is to call, and its arguments, until the answer is taken."""
        self._opened = ExitStack()
        self._modules: tuple[str, ...] = ()
        """Our own modules that children imported, which the server may have for the next."""

    def forget(self) -> None:
        """Leave the server to the process that has forked this one."""
        self._opened.close()
        self._socket.close()
        self._process.returncode = 0

    def close(self) -> int:
        """End the server, and the child it may have; return its exit code."""
        self._opened.close()
        self._socket.close()
        return self._process.wait()

    def ask(self, function: str, arguments: tuple[Any, ...]) -> None:
        """Have a child call a function, whose answer `call` takes. Raises _ServerGone and OSError."""
        packed = pickle.dumps((_question(function, arguments), self._modules))
        with ExitStack() as opened:
            answer, output, life = (opened.enter_context(_Pipe()) for _ in range(3))
            folder = opened.enter_context(_folder())
            self.is_asked = True
            self._send(packed, [answer.end, output.end, life.start, *folder])
            for each in (answer, output):
                each.close_end()
            life.close_start()
            self.question, self._answer = (function, arguments), _Answer(answer.start, output.start)
            self._opened = opened.pop_all()

    def call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        """Have a child call a function, unless it was asked that before, and take the answer.

        Raises _ServerGone, ProcessDied, OSError, and what the function raises.
        """
        if self.question is None:
            self.ask(function, arguments)
        with self._opened:
            self.question = None
            return self._take(self._answer)

    def _send(self, packed: bytes, descriptors: list[int]) -> None:
        import socket

        try:
            socket.send_fds(self._socket, [struct.pack("=Q", len(packed))], descriptors)
            self._socket.sendall(packed)
        except (BrokenPipeError, ConnectionResetError):
            raise _ServerGone(self._how_it_ended()) from None

    def _take(self, answer: _Answer) -> Any:
        ended = answer.wait(self._socket)
        if ended is None:
            raise _ServerGone(self._how_it_ended(), answer.place)
        self.is_asked = False
        if ended.refused:
            raise _not_started(ended.refused, os.strerror(ended.refused))
        if answer.result is None:
            raise ProcessDied(answer.place, _describe_end(ended.status))
        kind, value, modules = answer.result
        self._modules = modules
        if kind == "raised":
            raise value
        if kind == "bug":
            raise RuntimeError(f"in the process that imports the stages:\n{value}")
        return value

    def _how_it_ended(self) -> str:
        return f"with the one that had started it, which ended {_describe_end(self.close())}"


def _not_started(number: int | None, why: str) -> EnvironmentFailure:
    if number == errno.EAGAIN:
        from pipeline.files.process_limits import describe_refusal

        why = describe_refusal()
    return EnvironmentFailure(f"no process can be started to import the stages: {why}")


def _started(number: int, function: str) -> subprocess.Popen[bytes]:
    """Start a server as a new process, which asks nothing of this one."""
    import subprocess
    from multiprocessing.spawn import get_executable

    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path[:] = {[place, *(each for each in sys.path if each)]!r}\n"
        f"from pipeline.stage.isolation_server import serve\nserve({number}, {function!r})"
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [get_executable(), *flags, "-c", code],
        pass_fds=[number], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _is_nothing_else() -> bool:
    """Return whether a copy of this process is as good a server as a new one, and has most of what that would import.

    That is so while a process has been nothing but the program that reads its pipeline first of all.
    """
    return (
        pipeline.is_program
        and sys.platform == "linux"
        and threading.active_count() == 1
        and not {"pipeline.ledger.ledger", "pipeline.engines"} & sys.modules.keys()
    )


class _Forked:
    """A server that was forked from this process, in the shape of a Popen."""

    def __init__(self, number: int, function: str, others: Sequence[socket.socket]) -> None:
        self.returncode: int | None = None
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # what is in their buffers is ours to write
                stream.flush()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                for end in others:  # of which the server, or a child of it, would keep one open for ever
                    end.close()
                from pipeline.stage.isolation_server import serve

                for each in (0, 1):
                    with open(os.devnull, "r+b", buffering=0) as null:
                        os.dup2(null.fileno(), each)
                serve(number, function)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(1)

    def wait(self) -> int:
        """Wait for its end, and return its exit code as Popen does."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.returncode


class _Pipe:
    """A pipe, of which both ends are closed when it is left."""

    def __enter__(self) -> _Pipe:
        self.start, self.end = os.pipe()
        return self

    def __exit__(self, *error: object) -> None:
        self.close_start()
        self.close_end()

    def close_start(self) -> None:
        """Close the end that is read."""
        if self.start >= 0:
            os.close(self.start)
        self.start = -1

    def close_end(self) -> None:
        """Close the end that is written to."""
        if self.end >= 0:
            os.close(self.end)
        self.end = -1


@contextmanager
def _above_streams(number: int) -> Iterator[int]:
    """Give a copy of a descriptor that no standard stream of a new process takes the place of."""
    import fcntl

    copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STREAMS)
    try:
        yield copy
    finally:
        os.close(copy)


@contextmanager
def _folder() -> Iterator[list[int]]:
    """Give a descriptor of the working directory, which may have been moved or removed; none where it cannot be had."""
    opened = []
    with suppress(OSError):
        opened.append(os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        yield opened
    finally:
        for each in opened:
            os.close(each)


class _Answer:
    """The answer of a child, over two pipes: frames of a length and a pickle, and the text that it prints."""

    def __init__(self, answer: int, output: int) -> None:
        import codecs

        self.place: Any = None
        """The place that the child announced last."""
        self.result: tuple[str, Any, tuple[str, ...]] | None = None
        self._answer = answer
        self._output = output
        self._read = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def wait(self, server: socket.socket) -> Ended | None:
        """Take all that comes until the child has ended; return how it has, or None where the server is gone."""
        import selectors

        with selectors.DefaultSelector() as selector:
            for file, take in ((self._answer, self._take_answer), (self._output, self._print)):
                os.set_blocking(file, False)
                selector.register(file, selectors.EVENT_READ, take)
            selector.register(server, selectors.EVENT_READ, None)
            while True:
                ready = selector.select()
                for key, _ in ready:
                    if key.data is not None and not key.data():
                        selector.unregister(key.fileobj)
                if any(key.data is None for key, _ in ready):
                    ended = _receive(server)
                    while any(key.data is not None and key.data() for key, _ in selector.select(0)):
                        pass
                    return ended

    def _take_answer(self) -> bool:
        data = _read(self._answer)
        self._read += data
        while len(self._read) >= 8 and len(self._read) - 8 >= (length := struct.unpack_from("=Q", self._read)[0]):
            word, value = unpack(self._read[8 : 8 + length])
            self._read = self._read[8 + length :]
            if word == "at":
                self.place = value
            else:
                self.result = value
        return bool(data)

    def _print(self) -> bool:
        data = _read(self._output)
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            sys.stderr.write(self._decoder.decode(data, final=not data))
            sys.stderr.flush()
        return bool(data)


def _read(file: int) -> bytes:
    try:
        return os.read(file, _READ_BYTES)
    except BlockingIOError:
        return b""


def _receive(server: socket.socket) -> Ended | None:
    """Return how the child ended that the server has waited for; None where the server itself has."""
    try:
        data = server.recv(ENDED.size)
    except ConnectionResetError:
        return None
    return Ended(*ENDED.unpack(data)) if data else None


def _question(function: str, arguments: tuple[Any, ...]) -> Question:
    os.umask(umask := os.umask(0o077))
    return Question(
        function=function,
        arguments=arguments,
        path=list(sys.path),
        environment=dict(os.environb),
        argv=list(sys.argv),
        umask=umask,
        no_bytecode=sys.dont_write_bytecode,
    )


def _describe_end(status: int) -> str:
    import signal

    if status == CUT_OFF:
        return "by losing the pipe through which it would have answered"
    if status >= 0:
        return f"with exit code {status}"
    try:
        return f"by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"by signal {-status}"


class _Unpickler(pickle.Unpickler):
    """Unpacks plain data and filemill's own classes, and imports nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        if module.startswith("pipeline.") and "." not in name:  # a dot would lead to what the module has imported
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")


def unpack(packed: bytes) -> Any:
    """Unpickle plain data and filemill's own classes. Raises UnpicklingError for anything else."""
    return _Unpickler(io.BytesIO(packed)).load()


_server: _Server | None = None
_one_at_a_time = threading.Lock()


@atexit.register
def _close() -> None:
    if _server is not None:
        _server.close()


def _forget() -> None:
    """In a process that was forked from ours: the server is not its own, nor is a lock that another thread held."""
    global _server, _one_at_a_time
    _one_at_a_time = threading.Lock()
    if _server is not None:
        _server.forget()
        _server = None


os.register_at_fork(after_in_child=_forget)
