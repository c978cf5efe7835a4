"""What the ledger holds of the pipeline as a whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "l")) as ledger:
        yield ledger


def test_a_fact_is_as_it_was_said_last(ledger: Ledger) -> None:
    """One value a name; None where nothing was said."""
    assert ledger.facts.get("root") is None
    ledger.facts.set("root", {"path": "data", "device": 2**40})
    ledger.facts.set("root", {"path": "data/input"})
    assert ledger.facts.get("root") == {"path": "data/input"}


def test_decrees_stay_on_record(ledger: Ledger) -> None:
    """Each has a number, its time, and what was said, in the order in which they were made."""
    first = ledger.overrides.add("accept", {"stage": "web", "because": "code"})
    second = ledger.overrides.add("adopt", {"outputs": 3})
    made = list(ledger.overrides.all())
    assert [each.number for each in made] == [first, second]
    assert [(each.verb, each.said) for each in made] == [
        ("accept", {"stage": "web", "because": "code"}),
        ("adopt", {"outputs": 3}),
    ]
    assert abs(time.time() - made[0].at) < 60
