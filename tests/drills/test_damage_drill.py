"""Kills at any moment with damage and edits between: nothing is wrong, nothing stuck, and no edit lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.damage import HARMS, Trial, keep_older, spoil

SECONDS = 10.0
VICTIMS = ("ledger.sqlite-wal", "ledger.sqlite", "ledger-good.sqlite", "lock", "out/.filemill")
BOTH = {"ledger.sqlite", "ledger-good.sqlite"}


def kill_at_any_moment(trial: Trial, chance: random.Random) -> bool:
    """Run, and be killed at some moment of opening, making or ending; tells whether it was."""
    if (child := os.fork()) == 0:
        try:
            trial.project.run()
        finally:
            os._exit(0)
    time.sleep(chance.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["plain", "fan-out"])
def test_kills_with_damage_between(tmp_path: Path, kind: str, seed: int) -> None:
    """Sources come and change, runs are killed, files of the state are damaged one at a time, outputs are edited."""
    chance = random.Random(seed)
    (tmp_path / "p").mkdir()
    trial = Trial(tmp_path / "p", kind, count=20)
    older = keep_older(trial, tmp_path / "older")
    until, kills, rounds = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < until:
        rounds += 1
        for name in trial.edits:  # a source that changes replaces an edit, as it should
            trial.project.write(f"in/{name.partition('-')[0]}", f"text {rounds}")
        trial.edits = {}
        for number in range(chance.randrange(4)):
            trial.project.write(f"in/old{chance.randrange(25)}", f"text {rounds}.{number}")
        left = set(VICTIMS)
        for _ in range(chance.randrange(1, 4)):
            kills += kill_at_any_moment(trial, chance)
            if chance.random() < 0.4:
                victim = chance.choice(sorted(left))
                spoil(trial, victim, chance.choice(list(HARMS)), older)
                if victim in BOTH:  # without either, nothing is known of what was made
                    left -= BOTH
        if chance.random() < 0.5:
            trial.project.run()
            trial.edit("old1")
        trial.check()
    assert kills > 10
