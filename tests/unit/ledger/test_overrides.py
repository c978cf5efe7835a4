"""What a person had the ledger take as true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.overrides import AdoptedOutput
from pipeline.messages import Outcome, Result, Source


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(Ledger(None)) as ledger:
        yield ledger


def adopted(name: bytes = b"a") -> AdoptedOutput:
    return AdoptedOutput(Source(name, 10, 1000), b"out/" + name, "up", 1, 5, 2000, b"5" * 16, None, None)


def test_overrides_stay_on_record(ledger: Ledger) -> None:
    """Each has a number, its time, and its details, in the order in which they were made."""
    first = ledger.overrides.add("accept", {"stage": "web", "because": "code"})
    second = ledger.overrides.add("adopt", {"outputs": 3})
    made = list(ledger.overrides.all())
    assert [each.number for each in made] == [first, second]
    assert [(each.verb, each.details) for each in made] == [
        ("accept", {"stage": "web", "because": "code"}),
        ("adopt", {"outputs": 3}),
    ]
    assert abs(time.time() - made[0].at) < 60
    assert ledger.overrides.get(second) == made[1] and ledger.overrides.get(99) is None


def test_what_is_adopted_counts_as_made(ledger: Ledger) -> None:
    """It has a record as one that was made, with the override's number, and no failure any more."""
    refused = Result("up", b"out/a", "failed", "not ours")
    ledger.record(Outcome(Source(b"a", 10, 1000), (refused,)), lambda stage, path: path, {}, tried=False)
    ledger.overrides.adopt([adopted()], 7)
    (record,) = ledger.outputs.all()
    assert (record.status, record.recipe, record.size, record.digest) == ("done", 1, 5, b"5" * 16)
    assert record.override == 7 and not record.in_flight
    assert not list(ledger.failures.all())


def test_what_is_accepted_has_another_recipe(ledger: Ledger) -> None:
    """Its record says by which override, until a run makes it; ranges of unchanged sources are judged anew."""
    ledger.overrides.adopt([adopted(b"a"), adopted(b"b")], 1)
    ledger.unchanged.add([UnchangedRange(b"a", None, 2, b"digest", {})])
    ledger.overrides.accept([(b"out/b", 4)], 2)
    assert [(each.recipe, each.override) for each in ledger.outputs.all()] == [(1, 1), (4, 2)]
    assert ledger.unchanged.get(b"a") is None
    done = Result("up", b"out/b", "done", size_bytes=5, mtime_ns=2000, digest=b"5" * 16)
    ledger.record(Outcome(Source(b"b", 10, 1000), (done,)), lambda stage, path: path, {"up": 4})
    assert [each.override for each in ledger.outputs.all()] == [1, None]
