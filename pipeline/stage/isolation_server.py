"""The process that isolation.py starts: it forks a child for each question, waits for it, and says how it ended."""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from typing import Any

from pipeline.errors import FilemillError
from pipeline.stage import isolation
from pipeline.stage.isolation import Question

# Seconds after which a server that nobody has asked ends: the next question starts another in less than one.
IDLE_S = 20.0


def serve(number: int, function: str = "") -> None:
    """Answer questions until nobody asks any more.

    Args:
        number: The descriptor of the socket to the asker.
        function: What is most likely asked for first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to us too; the asker tells us by leaving
    while (filler := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a standard stream that was closed would be taken by the next pipe, and then written over in the child
    os.close(filler)
    asker = socket.socket(fileno=number)
    ended, woken = os.pipe()
    for each in (ended, woken):
        os.set_blocking(each, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(woken)
    if function:
        _import_ours((), function)
    while select.select([asker], [], [], IDLE_S)[0] and (question := _receive(asker)):
        (packed, modules), ends = question
        _import_ours(modules, packed.function)
        pid = os.fork()
        if pid == 0:
            asker.close()
            signal.set_wakeup_fd(-1)
            _be_child(packed, *ends)
        for end in ends:
            os.close(end)
        _wait(pid, asker, ended)


def _receive(asker: socket.socket) -> tuple[tuple[Question, tuple[str, ...]], list[int]] | None:
    """Return a question and the descriptors that came with it; None where the asker has gone."""
    try:
        head, ends, _, _ = socket.recv_fds(asker, 8, 2)
        if len(head) < 8:
            return None
        data = b""
        while len(data) < (length := struct.unpack("=Q", head)[0]):
            if not (more := asker.recv(min(length - len(data), 1 << 16))):
                return None
            data += more
    except OSError:
        return None
    return pickle.loads(data), list(ends)


def _import_ours(modules: tuple[str, ...], function: str) -> None:
    """Import what every child would import of filemill itself."""
    for module in (*modules, function.partition(":")[0]):
        with suppress(ImportError):  # the child says so
            importlib.import_module(module)


def _wait(pid: int, asker: socket.socket, ended: int) -> None:
    """Wait until a child has ended, and tell the asker how; one that nobody waits for any more is killed."""
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
        ready, _, _ = select.select([asker.fileno(), ended], [], [])
        if asker.fileno() in ready:
            _kill_group(pid)
            os._exit(0)
        with suppress(BlockingIOError):
            os.read(ended, 1 << 10)
    _kill_group(pid)
    with suppress(OSError):
        asker.sendall(struct.pack("=i", os.waitstatus_to_exitcode(found[1])))


def _kill_group(pid: int) -> None:
    """Kill a child and what it has started and left behind."""
    for kill in (os.killpg, os.kill):
        with suppress(OSError):
            kill(pid, signal.SIGKILL)


# -- in the child ------------------------------------------------------------------------------------------------------


def _be_child(question: Question, answer: int, output: int) -> None:
    """Answer a question, and end."""
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _go_where_the_asker_is(question)
        isolation.announce = lambda place: _send(answer, ("at", place))
        isolation.announce(None)
        result = _result(question)
        _flush()
        _send(answer, ("result", (*result, _our_modules())))
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
            _flush()
        os._exit(70)
    os._exit(0)


def _go_where_the_asker_is(question: Question) -> None:
    os.chdir(question.folder)
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
    except Exception:
        return "bug", traceback.format_exc()


def _send(answer: int, message: Any) -> None:
    packed = pickle.dumps(message)
    data = memoryview(struct.pack("=Q", len(packed)) + packed)
    while data:
        data = data[os.write(answer, data) :]


def _our_modules() -> tuple[str, ...]:
    return tuple(sorted(name for name in sys.modules if name.startswith("pipeline.") and not name.endswith("__main__")))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
