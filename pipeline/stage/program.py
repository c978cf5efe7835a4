"""Runs a program to its end without a shell or a terminal, and leaves no process of it behind.

Its arguments may be words with fields, as in `--profile={icc}`: `parse` splits such a word, and `fill` joins it.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import shutil
import signal
import string
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

from pipeline.errors import FileFailure
from pipeline.files.process_limits import is_start_refused
from pipeline.files.removal import remove_tree as remove_tree

# Bytes of stderr that are kept, which is what a pipe holds, and characters of it that are shown, from its end.
_KEPT, _SHOWN = 65_536, 350
# Seconds between two looks whether a program has ended: only one that leaves stderr to others does not say so itself.
_TICK_S = 0.05
_F_SETSIG = 10  # fcntl has no name for it


def run_program(argv: Sequence[str], program: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a program to its end in a folder, without a shell or a terminal.

    Its standard output and its standard error go to the worker's standard error. In a worker it belongs to the
    worker's process group, which is killed at a timeout and when the parent is gone. In a process that is no worker,
    it has a group of its own, which dies with the program and with that process.

    Args:
        argv: the arguments, the first of which is the program's name for messages.
        program: the path of the executable.
        folder: the working directory.
        environment: all of its environment variables.

    Raises:
        FileFailure: if it cannot be started, ends with another exit code than 0, or is killed; the text has the last
            lines of its standard error, up to 350 characters.
    """
    is_alone, name = multiprocessing.parent_process() is None, Path(argv[0]).name
    ends = os.pipe()
    with open(ends[0], "rb") as watched, open(ends[1], "wb"):
        try:
            process = subprocess.Popen(
                argv, executable=program, cwd=folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE,
                pass_fds=[watched.fileno()] if is_alone else (), process_group=0 if is_alone else None,
                preexec_fn=partial(_bind, watched.fileno()) if is_alone else None,
            )  # fmt: skip
        except OSError as error:
            if is_start_refused(error):
                raise
            raise FileFailure(f"{name} cannot be started: {error.strerror}") from error
        try:
            said = _listen(process)
            code = process.wait()
        finally:
            _end(process, is_alone)
    if code:
        how = f"failed (exit code {code})" if code > 0 else f"was killed ({_name(-code)})"
        raise FileFailure(f"{name} {how}{_last_words(said)}")


def _bind(watched: int) -> None:
    """Make the kernel kill our process group when the other end of this pipe is closed, even by SIGKILL.

    A worker does so with its own group. The program inherits the watched pipe, and keeps it open.
    """
    if sys.platform == "linux":
        fcntl.fcntl(watched, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(watched, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(watched, fcntl.F_SETFL, fcntl.fcntl(watched, fcntl.F_GETFL) | os.O_ASYNC)


def _listen(process: subprocess.Popen[bytes]) -> bytes:
    """Copy what a program writes to its stderr to ours until it has ended, and return the last part of it."""
    assert process.stderr
    pipe, said, block, has_ended = process.stderr.fileno(), b"", b" ", False
    # What it left behind may keep stderr open for ever: when it has ended, what is in the pipe is all.
    while block and not has_ended:
        has_ended = process.poll() is not None
        if wait([pipe], 0 if has_ended else _TICK_S):
            block = os.read(pipe, _KEPT)
            said = (said + block)[-_KEPT:]
            with suppress(OSError):  # nobody may be there to read it
                os.write(2, block)
    return said


def _end(process: subprocess.Popen[bytes], leads_group: bool) -> None:
    """Kill the processes that a program left behind, and the program itself if an exception ended the wait for it."""
    with suppress(ProcessLookupError, PermissionError):
        if leads_group:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()
    if process.stderr:
        process.stderr.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _last_words(said: bytes) -> str:
    """Return the last lines of a program's stderr, at most _SHOWN characters of them, after a colon; empty if none."""
    lines = [line.strip() for line in re.split(r"[\r\n]", said.decode(errors="backslashreplace")) if line.strip()]
    shown = ""
    for line in reversed(lines):
        if len(shown) + len(line) > _SHOWN:
            break
        shown = f"{line} / {shown}" if shown else line
    return f": {shown or lines[-1][-_SHOWN:]}" if lines else ""


# -- arguments ---------------------------------------------------------------------------------------------------------

Word = list[tuple[str, str | None]]
"""Pieces of a text, each a literal and the field after it, if there is one."""


def parse(word: str | Path, fields: Iterable[str]) -> Word:
    """Split a word of `argv` into literals and fields. Raises ValueError for an unknown field."""
    if isinstance(word, Path):
        return [(str(word), None)]
    try:
        pieces = list(string.Formatter().parse(word))
    except ValueError:
        raise ValueError(f"argv: {word!r} has a single brace; a brace is written '{{{{' or '}}}}'") from None
    for _, field, spec, conversion in pieces:
        if field is not None and (field not in fields or spec or conversion):
            known = ", ".join(f"{{{each}}}" for each in fields)
            raise ValueError(f"argv: no field '{{{field}}}' in {word!r}; there are {known}, and a brace is '{{{{'")
    return [(literal, field) for literal, field, _, _ in pieces]


def fields_of(words: Iterable[Word]) -> set[str]:
    """Return the fields in the words of an `argv`."""
    return {field for word in words for _, field in word if field}


def fill(word: Word, values: Mapping[str, Path]) -> str:
    """Join a word of `argv` with the values of its fields."""
    return "".join(literal + (str(values[field]) if field else "") for literal, field in word)


def find_program(name: str, environment: Mapping[str, str]) -> str:
    """Return the absolute path of a program, found as a shell does. Raises ValueError if there is none."""
    found = shutil.which(name, path=environment.get("PATH"))
    if found is None and os.path.isfile(name):
        raise ValueError(f"{name!r} cannot be run as a program; make it executable, as in 'chmod +x'")
    if found is None:
        raise ValueError(f"there is no program {name!r}; is it installed?")
    return os.path.abspath(found)
