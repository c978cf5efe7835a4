"""Records one output, `out/a` of the source `a`, in a ledger as a run does: intended, done, failed or skipped."""

from __future__ import annotations

from pipeline.ledger.ledger import Ledger
from pipeline.messages import FailureKind, Job, Outcome, Result, Source, Target

SOURCE = Source(b"a", 10, 1000)
RECIPES = {"up": 1}


def key(stage: str, path: bytes) -> bytes:
    return path.removeprefix(b"/project/")


def intend(ledger: Ledger, source: Source = SOURCE, path: bytes = b"/project/out/a") -> None:
    ledger.intend([Job(source, (Target("up", path),))], key)


def done(ledger: Ledger, source: Source = SOURCE, path: bytes = b"/project/out/a") -> None:
    result = Result("up", path, "done", size_bytes=5, mtime_ns=2000, digest=b"5" * 16)
    ledger.record(Outcome(source, (result,)), key, RECIPES)


def fail(ledger: Ledger, kind: FailureKind = "error") -> None:
    ledger.record(Outcome(SOURCE, (Result("up", b"/project/out/a", "failed", "why", kind),)), key, RECIPES)


def skip(ledger: Ledger) -> None:
    ledger.record(Outcome(SOURCE, (Result("up", b"/project/out/a", "skipped", "too dark"),)), key, RECIPES)
