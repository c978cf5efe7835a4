"""Ledgers for the tests of their tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.records import done

from pipeline.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger in which a run has begun."""
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("one")
        yield ledger


@pytest.fixture
def second_run(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger that remembers an output of the run before."""
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("one")
        done(ledger)
        ledger.end_run(0, {}, swept=True)
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("two")
        yield ledger
