"""A small run, as a process of its own, for the drills that kill or signal it: METHOD FOLDER SECONDS-PER-JOB.

Prints READY when the first jobs are in hand, a line for each outcome, and at the end why it ended.
It has no `__main__` guard, so that the drills show that workers do not import it.
"""

import fcntl
import os
import signal
import sys
from pathlib import Path

from pipeline.engines.pool import PoolSettings, PoolSpec
from support import pool_jobs

method, folder, seconds = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
settings = PoolSettings(processes=2, context=method)
spec = PoolSpec(settings, pool_jobs.STAGES, pool_jobs.start, b"kept", pool_jobs.work)
engine = spec.open(folder / "slots", close_fds=[lock])
signals: list[int] = []


def hear(number: int, _: object) -> None:
    """Note in a file that a signal has come."""
    signals.append(number)
    with open(folder / "heard", "ab") as heard:
        heard.write(b"x")


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, hear)
for n in range(100):
    engine.submit(pool_jobs.job(f"child {seconds} {folder}/pids{n}"))
seen = False
while engine.busy and len(signals) < 2:
    for outcome in engine.poll(0.05):
        print("OUTCOME", outcome.results[0].status, flush=True)
    if signals:
        engine.drain()
    if not seen and (folder / "pids0").exists() and (folder / "pids1").exists():
        seen = True
        print("READY", *(w.process.pid for w in engine._session.workers), flush=True)
engine.close()
print("END", *signals, flush=True)
