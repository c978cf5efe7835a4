"""The trace of a run: a file with a line of JSON for each job, written during the run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring as json_string
from pathlib import Path
from typing import Any

from pipeline.engines.made_jobs import ANSWER_WIDTH, MADE_WIDTH, PEAK_BYTES, SECONDS
from pipeline.files.file_system import describe
from pipeline.messages import InHand, Outcome, Source
from pipeline.observer import RunObserver
from pipeline.report.whole_files import WholeFiles

# So many rows are written together; fewer about once a second.
_ROWS_TOGETHER = 1000


class Trace(RunObserver):
    """Writes the trace of one run; makes its file with the first row.

    Events come from two threads, since it is also told once a second which jobs are in hand.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self._rows: list[str] = []
        self._fd: int | None = None
        self._has_failed = False
        self._lock = threading.Lock()
        self._whole_files = WholeFiles()

    def on_outcome(self, outcome: Outcome) -> None:
        if whole := self._whole_files.add(outcome):
            self._add([row_of(whole)])

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        batches = getattr(outcomes, "batches", None)
        if batches is None:
            super().on_outcomes(outcomes)
            return
        for batch in batches:  # takes half the time of going through the outcomes
            self._add(rows_of(*batch))

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        with self._lock:
            self._write()

    def on_jobs_ended(self) -> None:
        self._add(map(row_of, self._whole_files.take_rest()))

    def on_end(self) -> None:
        with self._lock:
            self._write()
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _add(self, rows: Iterable[str]) -> None:
        with self._lock:
            self._rows += rows
            if len(self._rows) >= _ROWS_TOGETHER:
                self._write()

    def _write(self) -> None:
        """Append the rows to the file; an error is noted once, and ends the trace, not the run."""
        rows, self._rows = self._rows, []
        if not rows or self._has_failed:
            return
        try:
            if self._fd is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            _append(self._fd, "".join(rows).encode())
        except OSError as error:
            self._has_failed = True
            self._note(f"no trace is written from here on: {describe(error, self._path)}")


def _append(fd: int, data: bytes) -> None:
    """Append whole lines, or nothing: on a full disk no line is left that ends half-way."""
    size_bytes, left = os.lseek(fd, 0, os.SEEK_END), memoryview(data)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        os.ftruncate(fd, size_bytes)
        raise


def rows_of(jobs: Sequence[Any], made: Sequence[Any], seat: int, usages: Sequence[tuple[float, float]]) -> list[str]:
    """Return the rows of jobs that made all of their outputs, by what `MadeBatch` has of each.

    This is done for each of very many tiny files, so nearly all of them, with one output, are spared some calls.
    """
    row = (
        '{%s, "stage": "%s", "outcome": "done", "start": %.6f, "seconds": %.6f, "cpu": %.6f, "peak_rss": %s, '
        f'"bytes_in": %d, "bytes_out": %d, "worker": {seat}}}\n'
    )
    return [
        row % (
            name, targets[0][0] if len(targets) == 1 else ",".join([target[0] for target in targets]), start_s,
            its[SECONDS], cpu_s, "null" if its[PEAK_BYTES] is None else its[PEAK_BYTES], source[1],
            its[ANSWER_WIDTH] if len(targets) == 1 else sum(its[ANSWER_WIDTH::MADE_WIDTH]),
        )
        for (source, targets), name, its, (start_s, cpu_s) in zip(
            [job[:2] for job in jobs], _named([job[0] for job in jobs]), made, usages, strict=True
        )
    ]  # fmt: skip


def _named(sources: Sequence[Source]) -> list[str]:
    """Return for each source the keys that name it."""
    try:
        names = b"\0".join([source[0] for source in sources]).decode().split("\0")  # no name has a NUL in it
    except UnicodeDecodeError:
        return [json.dumps(source.as_json(), ensure_ascii=False)[1:-1] for source in sources]
    return [f'"source": {json_string(name)}' for name in names]


def row_of(outcome: Outcome) -> str:
    """Return the row of any job."""
    source, results, usage = outcome.source, outcome.results, outcome.usage
    failed = [result for result in results if result.status == "failed"]
    is_done = any(result.status == "done" for result in results)
    said: dict[str, Any] = {"stage": ",".join(dict.fromkeys(result.stage for result in results))}
    if failed or outcome.environment:
        said |= {"outcome": "failed", "kind": failed[0].kind if failed else "environment"}
    else:
        said["outcome"] = "done" if is_done else "skipped"
    bytes_out = sum(sum(part.size_bytes for part in each.parts) or each.size_bytes for each in results)
    said |= {
        "start": usage and round(usage.start_s, 6),
        "seconds": round(outcome.spent_s, 6),
        "cpu": usage and usage.cpu_s and round(usage.cpu_s, 6),
        "peak_rss": outcome.peak_bytes,
        "bytes_in": source.size_bytes if source else outcome.bytes_in,
        "bytes_out": bytes_out,
        "worker": usage.seat if usage else outcome.seat,
    }
    return json.dumps(outcome.origin.as_json() | said, ensure_ascii=False) + "\n"
