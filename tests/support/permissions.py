"""Permissions that hold for root too, so that a folder can be closed to the tests wherever they run."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: to read and write whatever the permissions are.
_OVERRIDE = 1 << 1 | 1 << 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def permissions_hold() -> Iterator[None]:
    """Have this thread, and those that it starts meanwhile, heed the permissions of files, also as root."""
    if os.geteuid():
        yield
        return
    before = _capabilities()
    now = (_Data * 2)(*before)
    now[0].effective &= ~_OVERRIDE
    _set_capabilities(now)
    try:
        yield
    finally:
        _set_capabilities(before)


def _capabilities() -> ctypes.Array[_Data]:
    data = (_Data * 2)()
    if ctypes.CDLL(None, use_errno=True).capget(ctypes.byref(_Header(_VERSION, 0)), data):
        raise OSError(ctypes.get_errno(), "capget")
    return data


def _set_capabilities(data: ctypes.Array[_Data]) -> None:
    if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(_Header(_VERSION, 0)), data):
        raise OSError(ctypes.get_errno(), "capset")
