"""Calls functions of ours in a process of its own, in which the code of users may be imported; ours never does.

    this process                        server (isolation_server.py)       child, one for each call
    ------------                        ----------------------------       ------------------------
    Question, over a socket  ---------> imports our modules, forks  -----> goes where we are (folder, path, ...)
    where it is in hand, the answer <------------- a pipe ---------------- calls the function
    what it prints  <----------------------------- a pipe ----------------
    how it ended  <-------------------- waits for it

The server is started when it is first needed, and ends with us or when nobody has asked for a while. An answer is plain
data: whatever it is made of, nothing but filemill's own classes is imported here to unpack it.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.spawn import get_executable
from typing import Any, NamedTuple

from pipeline.errors import EnvironmentFailure

# What is read of a pipe at once.
_READ_BYTES = 1 << 16
# The classes that an answer may be made of, beside our own.
_PLAIN = {
    "builtins": {"set", "frozenset", "complex", "bytearray", "slice", "range", "KeyboardInterrupt"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "PurePath"},
    "collections": {"OrderedDict", "Counter", "defaultdict"},
}


class Question(NamedTuple):
    """What a child is to call, and where it is to be."""

    function: str
    """The module and the name of it, as `package.module:name`."""
    arguments: tuple[Any, ...]
    folder: str
    path: list[str]
    environment: dict[bytes, bytes]
    argv: list[str]
    umask: int
    no_bytecode: bool


class ProcessDied(Exception):
    """The child ended before it had answered."""

    def __init__(self, place: Any, how: str) -> None:
        super().__init__(how)
        self.place = place
        """What it had announced last."""
        self.how = how


announce: Callable[[Any], None] = lambda place: None  # noqa: E731, replaced in the child
"""Says what is about to be imported or called, so that a death can be blamed on it. Does nothing but in a child."""


def announce_place(place: Any) -> None:
    """Say what of a user's is about to be run: a death of this process is blamed on it."""
    announce(place)


def prepare(function: str) -> None:
    """Have the server import what a function needs that is soon called, while this process goes on."""
    global _server
    with _one_at_a_time:
        if _server is None or not _server.is_ours:
            _server = _Server(function)


def call(function: str, *arguments: Any) -> Any:
    """Call a function of ours, named as `package.module:name`, in a child process.

    Args:
        function: What is called.
        arguments: What it is given, which can be pickled.

    Returns:
        What it returned, as plain data and filemill's own classes.

    Raises:
        ProcessDied: The child ended before it had answered.
        Exception: What the function raised, where that is one of filemill's own errors.
    """
    global _server
    with _one_at_a_time:
        if _server is None or not _server.is_ours:
            _server = _Server()
        try:
            return _server.call(function, arguments)
        except _ServerGone:
            _server.close()
            _server = _Server()
            return _server.call(function, arguments)
        except BaseException as error:
            if not isinstance(error, Exception):  # such as Ctrl-C: what the child is at is not waited for
                _server.close()
                _server = None
            raise


def call_despite_deaths(function: str, *arguments: Any) -> Any:
    """Call a function that runs code of users, again after each death, and tell it of those.

    Its last argument says how each process ended that had died, by the place that was announced.

    Raises:
        ProcessDied: A child ended where nothing was announced.
    """
    deaths: dict[Any, str] = {}
    while True:
        try:
            return call(function, *arguments, deaths)
        except ProcessDied as error:
            if error.place is None or error.place in deaths:
                raise
            deaths[error.place] = error.how


class _ServerGone(Exception):
    """The server has ended, since nobody had asked it for a while."""


class _Server:
    """The process that forks a child for each call, from what it has imported already."""

    def __init__(self, function: str = "") -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            code = (
                f"import sys; sys.path[:] = {[place, *(each for each in sys.path if each)]!r}\n"
                f"from pipeline.stage.isolation_server import serve\nserve({theirs.fileno()}, {function!r})"
            )
            try:
                self._process = subprocess.Popen(
                    [get_executable(), *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            except OSError as error:
                ours.close()
                raise EnvironmentFailure(f"no process can be started to import the stages: {error}") from error
        self._socket = ours
        self._pid = os.getpid()
        self._modules: tuple[str, ...] = ()
        """Our own modules that children imported, which the server may have for the next."""

    @property
    def is_ours(self) -> bool:
        """Whether it was started by this very process."""
        return self._pid == os.getpid()

    def close(self) -> None:
        """End the server, and the child it may have."""
        if self.is_ours:
            self._socket.close()
            self._process.wait()

    def call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        answer, answer_end = os.pipe()
        output, output_end = os.pipe()
        try:
            try:
                self._send(_question(function, arguments), (answer_end, output_end))
            finally:
                os.close(answer_end)
                os.close(output_end)
            return self._take(_Answer(answer, output))
        finally:
            os.close(answer)
            os.close(output)

    def _send(self, question: Question, ends: tuple[int, int]) -> None:
        packed = pickle.dumps((question, self._modules))
        try:
            socket.send_fds(self._socket, [struct.pack("=Q", len(packed))], list(ends))
            self._socket.sendall(packed)
        except (BrokenPipeError, ConnectionResetError):
            raise _ServerGone from None

    def _take(self, answer: _Answer) -> Any:
        status = answer.wait(self._socket)
        if status is None:
            if answer.has_begun:
                raise ProcessDied(answer.place, "with the process that had started it")
            raise _ServerGone
        if answer.result is None:
            raise ProcessDied(answer.place, _describe_end(status))
        kind, value, modules = answer.result
        self._modules = modules
        if kind == "raised":
            raise value
        if kind == "bug":
            raise RuntimeError(f"in the process that imports the stages:\n{value}")
        return value


class _Answer:
    """What comes from a child over its two pipes: frames of a length and a pickle, and what it prints."""

    def __init__(self, answer: int, output: int) -> None:
        self.has_begun = False
        self.place: Any = None
        """What it announced last."""
        self.result: tuple[str, Any, tuple[str, ...]] | None = None
        self._answer = answer
        self._output = output
        self._read = b""

    def wait(self, server: socket.socket) -> int | None:
        """Take all that comes until the child has ended; return its exit status, or None where the server is gone."""
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
                    status = _receive(server)
                    while any(key.data is not None and key.data() for key, _ in selector.select(0)):
                        pass
                    return status

    def _take_answer(self) -> bool:
        data = _read(self._answer)
        self._read += data
        while len(self._read) >= 8 and len(self._read) - 8 >= (length := struct.unpack_from("=Q", self._read)[0]):
            word, value = unpack(self._read[8 : 8 + length])
            self._read = self._read[8 + length :]
            self.has_begun = True
            if word == "at":
                self.place = value
            else:
                self.result = value
        return bool(data)

    def _print(self) -> bool:
        data = _read(self._output)
        if data:
            with suppress(OSError, ValueError):
                sys.stderr.write(data.decode(errors="backslashreplace"))
                sys.stderr.flush()
        return bool(data)


def _read(file: int) -> bytes:
    try:
        return os.read(file, _READ_BYTES)
    except BlockingIOError:
        return b""


def _receive(server: socket.socket) -> int | None:
    """Return the exit status of the child that the server has waited for; None where the server has ended."""
    try:
        data = server.recv(4)
    except OSError:
        return None
    return int(struct.unpack("=i", data)[0]) if len(data) == 4 else None


def _question(function: str, arguments: tuple[Any, ...]) -> Question:
    os.umask(umask := os.umask(0o077))
    return Question(
        function=function,
        arguments=arguments,
        folder=os.getcwd(),
        path=list(sys.path),
        environment=dict(os.environb),
        argv=list(sys.argv),
        umask=umask,
        no_bytecode=sys.dont_write_bytecode,
    )


def _describe_end(status: int) -> str:
    if status >= 0:
        return f"with exit code {status}"
    try:
        return f"by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"by signal {-status}"


class _Unpickler(pickle.Unpickler):
    """Unpacks plain data and filemill's own classes, and imports nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()) or module == "pipeline" or module.startswith("pipeline."):
            return super().find_class(module, name)
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
