"""What the ledger costs for each output: microseconds to record one, bytes of a row, and how long opening takes.

python bench/ledger_rows.py            100,000 outputs
python bench/ledger_rows.py 10000
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from pipeline.files.state_dir import open_state
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.session import open_to_write
from pipeline.messages import Job, Outcome, Result, Source, Target

_TOGETHER = 500


def main() -> int:
    """Record outputs twice, new ones and the same again, and open and close the ledger."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="ledger-rows-") as folder:
        state = Path(folder) / "state"
        for what, version in (("new outputs", 1), ("the same again", 2)):
            with closing(open_state(state, "bench")) as opened, open_to_write(opened, is_run=True) as ledger:
                ledger.begin_run(opened.run)
                seconds = _record(ledger, count, version)
                ledger.end_run(0, {}, swept=True)
            print(f"{what:24}{seconds / count * 1e6:8.1f} us an output")
        size = (state / "ledger.sqlite").stat().st_size
        print(f"{'size':24}{size / count:8.0f} bytes an output")
        _time("open, begin, end: nothing new", state)
    return 0


def _record(ledger: Ledger, count: int, version: int) -> float:
    began = time.process_time()
    for at in range(0, count, _TOGETHER):
        sources = [Source(b"d%04d/%07d.txt" % (n // 1000, n), 400, version) for n in range(at, at + _TOGETHER)]
        ledger.begin()
        ledger.intend([Job(each, (Target("up", b"out/" + each.path),)) for each in sources], _key)
        ledger.commit()
        ledger.begin()
        for n, each in enumerate(sources):
            digest = b"%08d%08d" % (n, version)
            result = Result("up", b"out/" + each.path, "done", size_bytes=400, mtime_ns=version, digest=digest)
            outcome = Outcome(each, (result,), 0.001, peak_bytes=50_000_000, seat=1)
            ledger.record(outcome, _key, {"up": 1})
        ledger.commit()
    return time.process_time() - began


def _key(stage: str, path: bytes) -> bytes:
    return path


def _time(what: str, state: Path) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    with closing(open_state(state, "bench")) as opened, open_to_write(opened, is_run=True) as ledger:
        ledger.begin_run(opened.run)
        ledger.end_run(0, {}, swept=True)
    print(f"{what:24}{(time.perf_counter() - began) * 1e3:8.0f} ms, {(time.process_time() - cpu) * 1e3:.0f} ms of CPU")


if __name__ == "__main__":
    sys.exit(main())
