"""Real power cuts in the middle of runs: the same line heals all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.damage import STAGES
from support.power import cut_power, make_image, mounted
from support.program import ROOT
from support.project import contents_below

COUNT = 3000
RUN = "import sys\nfrom pipeline.cli import main\nif __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n"
# What a start of the machine changes: its number, and the time since when it runs.
ANEW = """
import time
from pipeline.ledger import recovery
recovery.boot_id = lambda: "another"
recovery.boot_time_ns = time.time_ns
"""
OLD_TIME = """
import os
from pathlib import Path
from pipeline import Item
def upper(item: Item[str]) -> Path:
    made = item.scratch / "made"
    made.write_text(item.value.upper())
    os.utime(made, (1, 1))
    return made
"""


def write_project(home: Path, kind: str) -> None:
    """Write a project whose outputs are plain, parts, or keep an old time."""
    stage, yaml = STAGES["fan-out" if kind == "fan-out" else "plain"]
    stage = OLD_TIME if kind == "old time" else stage
    (home / "stages").mkdir()
    (home / "stages/upper.py").write_text(stage)
    (home / "pipeline.yaml").write_text(yaml.replace("engine: serial", "pool: {processes: 2, context: fork}"))
    (home / "run.py").write_text(RUN)
    (home / "anew.py").write_text(ANEW + RUN)
    (home / "in").mkdir()
    for number in range(COUNT):
        (home / f"in/{number:05}").write_text(f"the text of {number} " * 20)


def expected(home: Path, kind: str) -> dict[str, bytes]:
    """What a run over the project leaves."""
    found = {}
    for source in (home / "in").iterdir():
        text = source.read_text().upper()
        if kind == "fan-out":
            found |= {f"{source.name}-{n + 1:06}.txt": f"{text} {n}".encode() for n in range(3)}
        else:
            found[source.name] = text.encode()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("cut_s", [0.0, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("kind", ["plain", "fan-out", "old time"])
@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_the_same_line_heals_a_power_cut(tmp_path: Path, file_system: str, kind: str, cut_s: float) -> None:
    """After it every output is right and none is refused; the line after that makes nothing."""
    image, home = tmp_path / "image", tmp_path / "disk"
    make_image(image, file_system)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Every second, rather than every five, what the journal holds may reach the disk before the files' contents do.
    with mounted(image, home, "loop,commit=1" if file_system == "ext4" else "loop"):
        write_project(home, kind)
        os.sync()
        run = subprocess.Popen(
            [sys.executable, "run.py"], cwd=home, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while run.poll() is None and not any((home / "out").glob("0*")):
            time.sleep(0.002)
        time.sleep(cut_s)
        cut_power(home)
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    with mounted(image, home):
        for line in ("heals", "makes nothing"):
            ran = subprocess.run(
                [sys.executable, "anew.py", "--json"], cwd=home, env=environment, capture_output=True, text=True
            )
            assert ran.returncode == 0, (line, ran.stderr)
            assert contents_below(home / "out") == expected(home, kind)
        assert '"done": 0' in ran.stdout
