"""pipeline/operations/job_loop.py: signals, which end a run in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from pipeline.errors import Interrupted
from pipeline.operations.job_loop import Signals

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """No signal is ignored, which it is where the tests run in the background or under nohup."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in CAUGHT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", CAUGHT, ids=lambda number: number.name)
def test_the_second_signal_interrupts(number: signal.Signals) -> None:
    """The first is noted, the second cuts off what is in hand; the handlers are as they were afterwards."""
    before = [signal.getsignal(each) for each in CAUGHT]
    with Signals(grace_s=60) as signals:
        os.kill(os.getpid(), number)
        assert (signals.first, signals.name) == (number, number.name)
        signals.check_grace()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the second signal was not answered")
    assert signals.is_interrupted and signals.first == number
    assert [signal.getsignal(each) for each in CAUGHT] == before


def test_the_grace_ends() -> None:
    """What is in hand has so long, and no longer."""
    with Signals(grace_s=-1) as signals:
        signals.check_grace()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.check_grace()
    assert not signals.is_interrupted


def test_what_is_ignored_stays_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals(grace_s=60) as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.first == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_catches_none() -> None:
    """Python gives signals to the main thread, whose business they are."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with Signals(grace_s=60):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
