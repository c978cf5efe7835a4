"""How jobs and answers are written for the way between parent and worker: a good part of what a tiny file costs.

A frozen dataclass takes four times as long to pickle as a tuple of its fields. So a job crosses as bare fields, and
an outcome without its source, unless the worker saw another one than the job named.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from pipeline.engines.cases import Fall
from pipeline.engines.slots import NO_STAGE
from pipeline.messages import Job, Outcome, Source, Target

Answer = Outcome | Fall


def pack_jobs(jobs: Sequence[Job]) -> bytes:
    rows = [
        (job.source.path, job.source.size_bytes, job.source.mtime_ns, [(t.stage, t.path) for t in job.targets])
        for job in jobs
    ]
    return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)


def unpack_jobs(data: bytes) -> list[Job]:
    return [
        Job(Source(path, size_bytes, mtime_ns), tuple([Target(*target) for target in targets]))
        for path, size_bytes, mtime_ns, targets in pickle.loads(data)
    ]


def pack_answers(jobs: Sequence[Job], answers: Sequence[Answer]) -> bytes:
    """Write the answers to the first of `jobs`; what cannot be written becomes a fall of its job alone."""
    rows = [_row(job, answer) for job, answer in zip(jobs, answers, strict=False)]
    try:
        return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return pickle.dumps([_sendable(row) for row in rows])


def unpack_answers(jobs: Sequence[Job], data: bytes) -> list[Answer]:
    """Read what `pack_answers` wrote."""
    try:
        rows = pickle.loads(data)
    except Exception as error:
        return [Fall("error", NO_STAGE, f"the outcome cannot be read by the parent: {error}")] * len(jobs)
    return [
        row
        if isinstance(row, Fall)
        else Outcome(row[0] or job.source, row[1], row[2], environment=row[3], output=row[4])
        for job, row in zip(jobs, rows, strict=False)
    ]


def _row(job: Job, answer: Answer) -> object:
    if isinstance(answer, Fall):
        return answer
    source = None if answer.source is job.source or answer.source == job.source else answer.source
    return source, answer.results, answer.seconds, answer.environment, answer.output


def _sendable(row: object) -> object:
    try:
        pickle.dumps(row)
    except Exception as error:
        return Fall("error", NO_STAGE, f"the outcome cannot be sent to the parent: {error}")
    return row
