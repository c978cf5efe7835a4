"""Keeps a forkserver alive where the system refuses it a process; it imports this before all else.

Multiprocessing's own loop would end with a traceback, and all workers with it, since they are taken for dead then.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

_fork = os.fork


def _fork_or_go_on() -> int:
    """Fork; where that is refused, close what the client sent, which tells it, and wait for the next one."""
    gc.freeze()  # so that no worker copies the memory that it shares with us
    try:
        pid = _fork()
    except OSError as error:
        sent = sys._getframe(1).f_locals
        if not {"child_r", "child_w", "fds"} <= sent.keys():  # another version of the loop
            raise
        for fd in (sent["child_r"], sent["child_w"], *sent["fds"]):
            os.close(fd)
        raise OSError(errno.ECONNABORTED, "no process could be forked") from error  # the one that the loop survives
    if pid == 0:
        os.fork = _fork
    return pid


os.fork = _fork_or_go_on
