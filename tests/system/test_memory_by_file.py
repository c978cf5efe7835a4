"""Large files run beside fewer others instead of being killed: within a real limit of memory, alone and two at once."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from support.memory_group import MemoryGroup, memory_group
from support.program import ROOT

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

MB = 1_000_000
YAML = """
inputs: in
stages:
  - {name: held, uses: hold, with: {turn: 1}, output: 'out/{name}'}
pool: {processes: 2}
"""
# A file says how much memory it takes, and for how long; the output, when that was and in which process.
HOLD = '''
import os
import time


def hold(text: str, *, turn: int) -> str:
    """Hold some memory for a while."""
    megabytes, seconds = text.split()[:2]
    began = time.monotonic()
    held = b"x" * (int(megabytes) * 1_000_000)
    time.sleep(float(seconds))
    return f"{began} {time.monotonic()} {os.getpid()} {len(held)}"
'''
# What a file of this kind says; larger ones need more memory.
SMALL, HUGE, ENDLESS = "5 0.1", f"250 1 {'x' * 100_000}", f"3000 1 {'x' * 10_000_000}"


class Span(NamedTuple):
    """When a file was in hand, and in which process."""

    began: float
    ended: float
    pid: int


def project(folder: Path, small: int, huge: int) -> Path:
    """A pipeline over texts, some of which take much memory."""
    (folder / "in").mkdir(parents=True)
    (folder / "stages").mkdir()
    (folder / "stages" / "hold.py").write_text(HOLD)
    (folder / "pipeline.yaml").write_text(YAML)
    for name, count, text in (("small", small, SMALL), ("huge", huge, HUGE)):
        for number in range(count):
            (folder / "in" / f"{name}-{number:02}").write_text(text)
    return folder


def make_again(folder: Path, turn: int) -> None:
    """Have every output made anew by the next run."""
    file = folder / "pipeline.yaml"
    file.write_text(file.read_text().replace(f"turn: {turn - 1}", f"turn: {turn}"))


def start(folder: Path, group: MemoryGroup) -> subprocess.Popen[str]:
    return group.start([sys.executable, "-m", "pipeline", "--json"], folder, PYTHONPATH=str(ROOT))


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The summary of a run."""
    out, error = process.communicate(timeout=200)
    assert out, error
    return dict(json.loads(out))


def spans(folder: Path, name: str) -> list[Span]:
    """When the files of this name were in hand, the earliest first."""
    texts = [path.read_text().split() for path in (folder / "out").glob(f"{name}-*")]
    return sorted(Span(float(began), float(end), int(pid)) for began, end, pid, _ in texts)


def overlapping(found: list[Span]) -> list[tuple[Span, Span]]:
    return [(each, after) for each, after in pairwise(sorted(found)) if each.ended > after.began]


def test_huge_files_run_one_at_a_time_beside_small_ones(tmp_path: Path) -> None:
    """Nothing is killed, neither while nothing is known nor later, when no worker waits for the other."""
    folder = project(tmp_path / "p", small=40, huge=4)
    with memory_group(560 * MB) as group:
        for turn in (2, 3):
            assert ended(start(folder, group))["done"] == 44
            assert (group.kills, overlapping(spans(folder, "huge"))) == (0, [])
            make_again(folder, turn)
    huge, small = spans(folder, "huge"), spans(folder, "small")
    assert len({span.pid for span in huge + small}) == 2, "no worker was killed"
    beside = [each for each in small if any(span.began <= each.began <= span.ended for span in huge)]
    assert len(beside) >= 20, "of 40, for which there is room on the other worker"


def test_two_runs_share_the_memory(tmp_path: Path) -> None:
    """There is one huge file at a time in both together, even while neither knows what its files take."""
    folders = [project(tmp_path / name, small=20, huge=2) for name in "ab"]
    with memory_group(720 * MB) as group:
        for process in [start(folder, group) for folder in folders]:
            assert ended(process)["done"] == 22
        assert group.kills == 0
        for folder in folders:
            make_again(folder, 2)
        for process in [start(folder, group) for folder in folders]:
            assert ended(process)["done"] == 22
        assert group.kills == 0
    huge = [span for folder in folders for span in spans(folder, "huge")]
    assert overlapping(huge) == []
    assert len({span.pid for folder in folders for name in ("huge", "small") for span in spans(folder, name)}) == 4


def test_what_no_machine_holds_fails_for_its_memory(tmp_path: Path) -> None:
    """After it ran alone; all others are done, and no innocent one is blamed."""
    folder = project(tmp_path / "p", small=10, huge=1)
    (folder / "in" / "endless-00").write_text(ENDLESS)
    with memory_group(560 * MB) as group:
        summary = ended(start(folder, group))
        assert (summary["done"], summary["failed"]) == (11, 1)
        listed = start(folder, group)
        again = ended(listed)
        assert (again["done"], again["failed"]) == (0, 1)
        command = [sys.executable, "-m", "pipeline", "failures", "--json"]
        failures = group.start(command, folder, PYTHONPATH=str(ROOT)).communicate(timeout=60)[0]
    [failed] = map(json.loads, failures.splitlines())
    assert (failed["source"], failed["kind"]) == ("endless-00", "memory")


PICTURES = """
inputs: in
stages:
  - {name: web, uses: resize, with: {width: 201}, output: 'out/{stem}.webp'}
pool: {processes: 2}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("runs", [1, 2])
def test_huge_pictures(tmp_path: Path, runs: int, level: int) -> None:
    """Real ones: 40 small and 4 huge, where one huge one fits at a time, be its file large or small: none is killed."""
    folders = [tmp_path / name for name in "ab"[:runs]]
    small = Image.effect_noise((700, 700), 60).convert("RGB")
    huge = Image.linear_gradient("L").resize((6000, 6000)).convert("RGB")  # takes 240 MB more than a worker
    for folder in folders:
        (folder / "in").mkdir(parents=True)
        (folder / "pipeline.yaml").write_text(PICTURES)
        for number in range(40):
            small.rotate(number).save(folder / "in" / f"small-{number:02}.jpg")
        for number in range(4):
            huge.save(folder / "in" / f"huge-{number:02}.png", compress_level=level)
    with memory_group((560 if runs == 1 else 800) * MB) as group:
        for process in [start(folder, group) for folder in folders]:
            assert ended(process)["done"] == 44
        assert group.kills == 0
        for folder in folders:
            (folder / "pipeline.yaml").write_text(PICTURES.replace("201", "202"))
        for process in [start(folder, group) for folder in folders]:
            assert ended(process)["done"] == 44
        assert group.kills == 0
