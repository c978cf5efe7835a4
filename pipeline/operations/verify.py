"""Reads outputs again and compares them with the ledger, to find missing, torn, edited and decayed ones."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

from pipeline.files.atomic import digest_of
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.session import open_to_read
from pipeline.planning.file_state import compare_file, is_the_same
from pipeline.records import NamedTuple
from pipeline.text import NO_FILE

# Reading is the disk's work, and hashing lets other threads go on.
_THREADS = 4
# How many outputs may be in hand at once.
_AHEAD = 64
# Findings that are looked at again together.
_CHUNK = 1000

FindingKind = Literal["as recorded", "missing", "torn", "older", "edited", "unreadable", "contents changed"]


class Finding(NamedTuple):
    """The state of one output, compared with its record."""

    row: OutputRecord
    kind: FindingKind
    text: str
    """The kind with its details, such as sizes."""


def verify(ledger: Path, folder: Path) -> Iterator[Finding]:
    """Yield a finding for every output recorded as done, even during a run. `folder` is that of the YAML."""
    base, before = os.fsencode(folder), _state_of(ledger)
    with open_to_read(ledger) as opened:
        found = _examine_all((row for row in opened.outputs.all() if _is_settled(row)), base)
        while chunk := list(islice(found, _CHUNK)):
            bad = {each.row.target for each in chunk if each.kind != "as recorded"}
            # Outputs that a run has made meanwhile are compared with their new records.
            renewed = _look_again(ledger, base, bad) if bad and _state_of(ledger) != before else {}
            for each in chunk:
                if each.row.target not in bad or not renewed:
                    yield each
                elif again := renewed.get(each.row.target):
                    yield again


def _is_settled(row: OutputRecord) -> bool:
    """Return whether a record is final; an output that was being made when a run stopped will be made again."""
    return row.status == "done" and not row.in_flight and row.size is not None


def _state_of(ledger: Path) -> list[tuple[int, int]]:
    """Return sizes and times of the ledger's files, which change when a run writes to it."""
    found = []
    for file in (ledger, ledger.with_name(f"{ledger.name}-wal")):
        try:
            there = file.stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((there.st_size, there.st_mtime_ns))
    return found


def _look_again(ledger: Path, base: bytes, targets: set[bytes]) -> dict[bytes, Finding | None]:
    """Return a finding for each output by its current record; None for those that a run is making."""
    findings: dict[bytes, Finding | None] = {}
    with open_to_read(ledger) as opened:
        for target in targets:
            row = opened.outputs.get(target)
            is_made = row is None or not _is_settled(row) or opened.intents.get(target) is not None
            findings[target] = None if row is None or is_made else examine(row, os.path.join(base, target))
    return findings


def _examine_all(rows: Iterable[OutputRecord], base: bytes) -> Iterator[Finding]:
    """Yield a finding for each row, in order; several outputs are read at a time."""
    waiting: deque[Future[Finding]] = deque()
    with ThreadPoolExecutor(_THREADS, "verify") as readers:
        try:
            for row in rows:
                waiting.append(readers.submit(examine, row, os.path.join(base, row.target)))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            readers.shutdown(cancel_futures=True)


def _describe_other(row: OutputRecord, path: bytes, size: int) -> Finding:
    code = compare_file(row, path)[1].code
    if code == "up_to_date":
        return Finding(row, "as recorded", "")
    if code == "output_torn":
        return Finding(row, "torn", f"torn (size {row.size} -> {size})")
    if code == "output_older":
        return Finding(row, "older", "an older version")
    return Finding(row, "edited", "edited by someone else")


def examine(row: OutputRecord, path: bytes) -> Finding:
    """Read one output, and compare it with its record."""
    try:
        before = os.stat(path)
        if not stat.S_ISREG(before.st_mode):
            return Finding(row, "edited", NO_FILE)
        if not is_the_same(before, row.size, row.mtime_ns):
            return _describe_other(row, path, before.st_size)
        digest = digest_of(path)
        if row.digest is None or digest == row.digest:
            return Finding(row, "as recorded", "")
        if not is_the_same(os.stat(path), row.size, row.mtime_ns):
            return Finding(row, "edited", "edited by someone else")
        return Finding(row, "contents changed", "contents changed, though size and time are as recorded")
    except (FileNotFoundError, NotADirectoryError):
        return Finding(row, "missing", "missing")
    except OSError as error:
        return Finding(row, "unreadable", f"unreadable: {error.strerror or error}")
