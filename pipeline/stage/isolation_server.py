"""The process that isolation.py starts: it forks a child for each question, waits for it, and says how it ended."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, NoReturn

from pipeline.errors import EnvironmentFailure, FilemillError
from pipeline.stage import isolation
from pipeline.stage.isolation import CUT_OFF, ENDED, Ended, Question

# Seconds after which a server that nobody has asked ends: the next question starts another in less than one.
IDLE_S = 20.0
# What a terminal or an operator sends to all processes of a program. The asker tells the server by leaving, and a child
# has a group of its own.
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_F_SETSIG = 10  # fcntl has no name for it
# The pipes for the answer, for what is printed and for the asker's life; the working directory may come as a fourth.
_DESCRIPTORS = 3


def serve(number: int, function: str = "") -> NoReturn:
    """Answer questions until nobody asks any more.

    Args:
        number: The descriptor of the socket to the asker.
        function: What is most likely asked for first.
    """
    gc.disable()  # what is imported here stays
    handlers = {each: signal.signal(each, signal.SIG_IGN) for each in _END_SIGNALS}
    handlers[signal.SIGINT] = signal.default_int_handler
    while (filler := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a standard stream that was closed would be taken by the next pipe, and then written over in the child
    os.close(filler)
    asker = socket.socket(fileno=number)
    ended, woken = os.pipe()
    for each in (ended, woken):
        os.set_blocking(each, False)
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(woken)
    if function:
        _import_ours((), function)
    while select.select([asker], [], [], IDLE_S)[0] and (question := _receive(asker)):
        (packed, modules), descriptors = question
        _import_ours(modules, packed.function)
        gc.freeze()  # so that no child copies the memory that it shares with us
        pid = _fork(asker, descriptors)
        if pid == 0:
            asker.close()
            signal.set_wakeup_fd(-1)
            _be_child(packed, handlers, *descriptors)
        for each in descriptors:
            os.close(each)
        if pid is not None:
            _wait(pid, asker, ended)
    os._exit(0)


def _receive(asker: socket.socket) -> tuple[tuple[Question, tuple[str, ...]], list[int]] | None:
    """Return a question and the descriptors that came with it; None where the asker has gone."""
    try:
        head, descriptors, _, _ = socket.recv_fds(asker, 8, _DESCRIPTORS + 1)
        if len(head) < 8:
            return None
        data = bytearray()
        while len(data) < (length := struct.unpack("=Q", head)[0]):
            if not (more := asker.recv(min(length - len(data), 1 << 16))):
                return None
            data += more
    except OSError:
        return None
    return pickle.loads(data), list(descriptors)


def _import_ours(modules: tuple[str, ...], function: str) -> None:
    """Import what every child would import of filemill itself."""
    for module in (*modules, function.partition(":")[0]):
        with suppress(Exception):  # the child says so
            importlib.import_module(module)


def _fork(asker: socket.socket, descriptors: list[int]) -> int | None:
    """Fork a child for a question that came with these descriptors; tell the asker where that cannot be."""
    try:
        if len(descriptors) < _DESCRIPTORS:  # some could not be opened here
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        pid = os.fork()
    except OSError as error:
        _say(asker, Ended(refused=error.errno or errno.EAGAIN))
        return None
    if pid:
        with suppress(OSError):  # the child does the same, whoever is first
            os.setpgid(pid, pid)
    return pid


def _say(asker: socket.socket, ended: Ended) -> None:
    with suppress(OSError):
        asker.sendall(ENDED.pack(*ended))


def _wait(pid: int, asker: socket.socket, ended: int) -> None:
    """Wait until a child has ended, and tell the asker how; one that nobody waits for any more is killed."""
    # It is not reaped before all of its group are dead: no other process can have its number until then.
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        ready, _, _ = select.select([asker.fileno(), ended], [], [])
        if asker.fileno() in ready:
            _kill_group(pid)
            os._exit(0)
        with suppress(BlockingIOError):
            os.read(ended, 1 << 10)
    _kill_group(pid)
    _say(asker, Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def _kill_group(pid: int) -> None:
    """Kill a child and what it has started and left behind."""
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


# -- in the child ------------------------------------------------------------------------------------------------------


def _be_child(
    question: Question, handlers: dict[signal.Signals, Any], answer: int, output: int, life: int, folder: int = -1
) -> NoReturn:
    """Answer a question, and end."""
    try:
        gc.enable()
        with suppress(OSError):
            os.setpgid(0, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        _die_with_the_asker(life)
        voice = _Voice(answer)
        try:
            _go_where_the_asker_is(question, folder)
            isolation.announce = lambda place: voice.say("at", place)
            isolation.announce(None)
            result = _result(question)
            _flush()
            voice.say("result", (*result, _our_modules()))
        except OSError as error:
            _flush()
            voice.say("result", ("raised", _failure(error), _our_modules()))
    except BaseException as error:
        with suppress(BaseException):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            _flush()
        os._exit(CUT_OFF if isinstance(error, OSError | _CutOff) else 70)
    os._exit(0)


def _die_with_the_asker(life: int) -> None:
    """Have the kernel kill this process once nobody holds the other end of a pipe, even if the server is dead, too."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
        if select.select([life], [], [], 0)[0]:  # it was too late to be told
            os._exit(0)


def _go_where_the_asker_is(question: Question, folder: int) -> None:
    if folder >= 0:
        try:
            os.fchdir(folder)
        except OSError:  # a folder that may be entered no more: we may be in it nevertheless
            if not os.path.samestat(os.fstat(folder), os.stat(".")):
                raise
        os.close(folder)
    os.umask(question.umask)
    os.environ.clear()
    os.environb.update(question.environment)
    sys.path[:] = question.path
    sys.argv[:] = question.argv
    sys.dont_write_bytecode = question.no_bytecode
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1))


def _result(question: Question) -> tuple[str, Any]:
    module, _, name = question.function.partition(":")
    try:
        return "returned", getattr(importlib.import_module(module), name)(*question.arguments)
    except (FilemillError, KeyboardInterrupt) as error:
        return "raised", error
    except (OSError, MemoryError) as error:
        return "raised", _failure(error)
    except Exception:
        import traceback

        return "bug", traceback.format_exc()


def _failure(error: Exception) -> EnvironmentFailure:
    said = str(error) or type(error).__name__
    return EnvironmentFailure(f"stopped by the machine, in the process that imports the stages: {said}")


class _CutOff(BaseException):
    """The pipe to the asker was closed by what was imported, or a message has reached it in part."""


class _Voice:
    """The pipe to the asker, as long as it is that, and this is the process that is to speak."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pid = os.getpid()
        self._pipe = os.fstat(number)

    def say(self, word: str, what: Any) -> None:
        """Send a message. Raises OSError if the machine does not let it be sent, and _CutOff."""
        if os.getpid() != self._pid:  # what was imported has forked, and goes on here in our name
            os._exit(0)
        packed = pickle.dumps((word, what))
        data = memoryview(struct.pack("=Q", len(packed)) + packed)
        length = len(data)
        try:
            if not os.path.samestat(os.fstat(self._number), self._pipe):
                raise _CutOff("the pipe to filemill was closed, and its number taken")
            while data:
                data = data[os.write(self._number, data) :]
        except OSError as error:
            if len(data) < length or error.errno == errno.EBADF:
                raise _CutOff(f"the pipe to filemill: {error}") from None
            raise


def _our_modules() -> tuple[str, ...]:
    return tuple(sorted(name for name in sys.modules if name.startswith("pipeline.") and not name.endswith("__main__")))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may be anything by now
            stream.flush()
