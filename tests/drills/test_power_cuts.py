"""Real power cuts in the middle of runs: the same line heals all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.damage import PARTS, STAGES
from support.power import cut_power, make_image, mounted
from support.program import ROOT
from support.project import contents_below

COUNT = 4000
PROCESSES = 2
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


SLOWLY = """
import time
def slowly(text):
    time.sleep({pause_s})
    return text
"""


def write_project(home: Path, kind: str, cut_s: float) -> None:
    """Write a project that is at work for longer than until the cut."""
    stage, yaml = STAGES["fan-out" if kind == "fan-out" else "plain"]
    stage = OLD_TIME if kind == "old time" else stage
    (home / "stages").mkdir()
    calls = COUNT * (PARTS if kind == "fan-out" else 1)
    for value in ("text", "item.value"):
        stage = stage.replace(f"{value}.upper()", f"slowly({value}).upper()")
    (home / "stages/upper.py").write_text(SLOWLY.format(pause_s=(cut_s + 1.0) * PROCESSES / calls) + stage)
    yaml = yaml.replace("engine: serial", f"pool: {{processes: {PROCESSES}, context: fork}}")
    (home / "pipeline.yaml").write_text(yaml + ("state: ../state/of it\n" if kind.startswith("state") else ""))
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
            found |= {f"{source.name}-{n + 1:06}.txt": f"{text} {n}".encode() for n in range(PARTS)}
        else:
            found[source.name] = text.encode()
    return found


KINDS = ("plain", "fan-out", "old time", "state cut before", "state cut after")
"""What the outputs are; in the last two the state lies on another disk, of which the power is cut apart."""
CUTS_S = (0.2, 1.0, 3.0, 6.0, 9.0)
FILE_SYSTEMS = ("ext4", "xfs")
CASES = [(file_system, kind, cut_s) for file_system in FILE_SYSTEMS for kind in KINDS for cut_s in CUTS_S]
QUICK = [("ext4", "plain", 0.2)]


@pytest.mark.parametrize(
    ("file_system", "kind", "cut_s"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_the_same_line_heals_a_power_cut(tmp_path: Path, file_system: str, kind: str, cut_s: float) -> None:
    """After it every output is right and none is refused; the line after that makes nothing."""
    disks = {"disk": tmp_path / "disk"}
    if kind.startswith("state"):
        disks["state"] = tmp_path / "state"
    for name in disks:
        make_image(tmp_path / f"{name}.image", file_system)
    home = disks["disk"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Every second, rather than every five, what the journal holds may reach the disk before the files' contents do.
    options = "loop,commit=1" if file_system == "ext4" else "loop"
    with ExitStack() as stack:
        for name, place in disks.items():
            stack.enter_context(mounted(tmp_path / f"{name}.image", place, options))
        write_project(home, kind, cut_s)
        os.sync()
        run = subprocess.Popen(
            [sys.executable, "run.py"], cwd=home, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while run.poll() is None and not any((home / "out").glob("0*")):
            time.sleep(0.002)
        time.sleep(cut_s)
        for place in sorted(disks.values(), reverse=kind == "state cut before"):
            cut_power(place)
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    with ExitStack() as stack:
        for name, place in disks.items():
            stack.enter_context(mounted(tmp_path / f"{name}.image", place))
        for line in ("heals", "makes nothing"):
            ran = subprocess.run(
                [sys.executable, "anew.py", "--json"], cwd=home, env=environment, capture_output=True, text=True
            )
            assert ran.returncode == 0, f"{line}: {ran.stderr}"
            assert contents_below(home / "out") == expected(home, kind)
        assert '"done": 0' in ran.stdout
