"""Keeps a source or a group in the columns `source`, `source_size` and `source_mtime_ns` of a table.

A source is kept as its path, size and time. A group is kept as `/stage` or `/stage/name`, the number of its members and
their digest: no path of a source begins with a slash, so all groups lie side by side in the order of that column.
"""

from __future__ import annotations

from pipeline.messages import Group, Origin, Source

# SQLite's integers end in the year 2262; file systems' times do not.
_LATEST_NS = 2**63 - 1

GROUPS = b"/", b"0"
"""The range of the column in which the groups lie: "0" is what comes after "/"."""
ARE_GROUPS = "(source >= X'2F' AND source < X'30')"
"""The condition that holds for the rows of groups."""
ARE_FILES = "(source < X'2F' OR source >= X'30')"
"""The condition that holds for the rows of sources."""


def kept_time(mtime_ns: int) -> int:
    """Return a file's time as the ledger can hold it."""
    return mtime_ns if -_LATEST_NS <= mtime_ns <= _LATEST_NS else max(-_LATEST_NS, min(mtime_ns, _LATEST_NS))


def kept_times(times: tuple[int, ...]) -> tuple[int, ...]:
    """Return `kept_time` of each of these times, of which there is at least one."""
    are_kept = min(times) >= -_LATEST_NS and max(times) <= _LATEST_NS
    return times if are_kept else tuple(map(kept_time, times))


def columns_of(origin: Origin) -> tuple[bytes, int, int]:
    """Return the three columns of a source or a group."""
    if isinstance(origin, Source):
        return origin.path, origin.size_bytes, kept_time(origin.mtime_ns)
    return key_of(origin), origin.members, origin.digest


def key_of(origin: Origin) -> bytes:
    """Return the column `source` of a source or a group."""
    if isinstance(origin, Source):
        return origin.path
    return b"/" + origin.stage.encode() + (b"" if origin.name is None else b"/" + origin.name)


def origin_of(source: bytes, size: int | None = None, mtime_ns: int | None = None) -> Origin:
    """Return the source or the group that the columns stand for."""
    if not is_group(source):
        return Source(source, size or 0, mtime_ns or 0)
    stage, slash, name = source[1:].partition(b"/")
    return Group(stage.decode(), name if slash else None, size or 0, mtime_ns or 0)


def is_group(source: bytes) -> bool:
    """Return whether the column `source` names a group."""
    return source.startswith(b"/")
