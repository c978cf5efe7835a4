"""Starts the program in processes that have Python and the program's libraries imported already.

Starting Python and importing pydantic is half of what a run over a few files costs, and the tests start the program
thousands of times. A launcher has done that once: it forks a process for each run, which has then the arguments, the
folder, the environment, the umask and the streams that it is given, and runs `pipeline` as `python -m pipeline` does.
Our engines, our ledger and the code of users are not imported before.

Two launchers take turns, so that of two runs one after the other neither has the other's hash seed, on which the
order of a set depends.
"""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

# What a run imports that takes long, less the modules after whose import a copy of the process is no server of imports
# any more: see `_is_nothing_else` in pipeline/stage/isolation.py.
_LIBRARIES = (
    "argparse", "ctypes", "datetime", "faulthandler", "json", "mimetypes", "multiprocessing.forkserver",
    "multiprocessing.heap", "multiprocessing.pool", "multiprocessing.resource_tracker", "random", "shlex",
    "sqlite3", "tempfile", "textwrap", "pydantic", "yaml",
    "pipeline.cli", "pipeline.commands.check", "pipeline.commands.run", "pipeline.config.load", "pipeline.config.read",
    "pipeline.ledger.failures", "pipeline.ledger.outputs", "pipeline.ledger.plan_tables", "pipeline.ledger.runs",
    "pipeline.planning.file_state", "pipeline.planning.recipe_diff", "pipeline.report.live",
    "pipeline.stage.code_reader", "pipeline.stage.isolation_server", "pipeline.worker.main",
)  # fmt: skip
# What Python and the C library read as a process starts; a process that was forked has read it before.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "GLIBC_", "MALLOC_")
_LENGTH_BYTES = 8
# It makes a run fail instead of hang.
_LIMIT_S = 100.0


def run_warm(*arguments: str | bytes, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m pipeline` to its end, in a process that a launcher forks; as a new one if it has variables."""
    if environment or any(name.startswith("COV") for name in os.environ):
        return run_cold(*arguments, cwd=cwd, **environment)
    read_at_start = frozenset((name, os.environ[name]) for name in os.environ if name.startswith(_READ_AT_START))
    launchers = _launchers.setdefault(read_at_start, [])
    if len(launchers) < 2:
        launchers.append(_Launcher())
    launchers.reverse()
    return launchers[0].run(arguments, cwd)


def run_cold(*arguments: str | bytes, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m pipeline` to its end as a new process, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, errors="surrogateescape",
        timeout=_LIMIT_S,
    )  # fmt: skip


class _Launcher:
    """A process that forks one process at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], cwd="/", pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def run(self, arguments: Sequence[str | bytes], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        stdout, stderr = os.pipe(), os.pipe()
        try:
            self._ask(arguments, cwd, [0, stdout[1], stderr[1]])
        finally:
            for each in (stdout[1], stderr[1]):
                os.close(each)
        pid = self._number()
        out, err = _read_all((stdout[0], stderr[0]), time.monotonic() + _LIMIT_S) or self._time_out(pid, arguments)
        return subprocess.CompletedProcess(arguments, self._number(), out, err)

    def _ask(self, arguments: Sequence[str | bytes], cwd: Path, streams: list[int]) -> None:
        os.umask(umask := os.umask(0o077))
        words = [os.fsencode(cwd), str(umask).encode(), str(len(arguments)).encode(), *map(os.fsencode, arguments)]
        question = b"\0".join([*words, *(b"=".join(each) for each in os.environb.items())])
        socket.send_fds(self._socket, [len(question).to_bytes(_LENGTH_BYTES, "big")], streams)
        self._socket.sendall(question)

    def _number(self) -> int:
        """Return the number that the launcher says next: a process's id, and then how it has ended."""
        said = self._socket.recv(_LENGTH_BYTES, socket.MSG_WAITALL)
        assert len(said) == _LENGTH_BYTES, "the launcher has ended"
        return int.from_bytes(said, "big", signed=True)

    def _time_out(self, pid: int, arguments: Sequence[str | bytes]) -> NoReturn:
        os.kill(pid, signal.SIGKILL)
        self._number()
        raise subprocess.TimeoutExpired([os.fsdecode(each) for each in arguments], _LIMIT_S)

    def close(self) -> None:
        """End the launcher."""
        self._socket.close()
        self._process.wait(_LIMIT_S)


_launchers: dict[frozenset[tuple[str, str]], list[_Launcher]] = {}
"""Two for each set of the variables that are read at the start."""


@atexit.register
def _close() -> None:
    for launchers in _launchers.values():
        for each in launchers:
            each.close()


def _read_all(files: tuple[int, int], deadline: float) -> tuple[str, str] | None:
    """Read two pipes until nobody has them open for writing, and close them; None if that takes too long."""
    found = {file: bytearray() for file in files}
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                if data := os.read(key.fd, 1 << 16):
                    found[key.fd] += data
                else:
                    selector.unregister(key.fd)
        is_whole = not selector.get_map()
    for file in files:
        os.close(file)
    # As subprocess does with text=True.
    out, err = (bytes(each).decode(errors="surrogateescape").replace("\r\n", "\n") for each in found.values())
    return (out.replace("\r", "\n"), err.replace("\r", "\n")) if is_whole else None


# -- in the launcher ---------------------------------------------------------------------------------------------------


def serve(asker: socket.socket) -> None:
    """Fork a process for each question, and say its id and how it has ended, until nobody asks any more."""
    for name in _LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()  # so that no process that is forked copies the memory that it shares with this one
    while question := _receive(asker):
        if (pid := os.fork()) == 0:
            asker.close()
            _become(*question)
            return
        for each in question[1]:
            os.close(each)
        _say(asker, pid)
        _say(asker, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    sys.exit()


def _receive(asker: socket.socket) -> tuple[bytes, list[int]] | None:
    length, streams, _, _ = socket.recv_fds(asker, _LENGTH_BYTES, 3)
    return (asker.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL), streams) if length else None


def _say(asker: socket.socket, number: int) -> None:
    asker.sendall(number.to_bytes(_LENGTH_BYTES, "big", signed=True))


def _become(question: bytes, streams: list[int]) -> None:
    """Make of this process one that was started as the question has it."""
    cwd, umask, count, *words = question.split(b"\0")
    arguments, variables = words[: int(count)], words[int(count) :]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.umask(int(umask))
    os.environb.clear()
    os.environb.update(dict(each.split(b"=", 1) for each in variables))
    sys.argv = ["-m", *map(os.fsdecode, arguments)]
    sys.path.insert(0, os.getcwd())
    sys.modules["__main__"] = types.ModuleType("__main__")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy._run_module_as_main("pipeline")  # type: ignore[attr-defined]
