"""Engines measure the calls of stages and count the workers that they replace."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pool_engines import Make, run
from support.pool_jobs import job
from support.program import wait_until
from support.project import Project

from pipeline.config.load import load_config
from pipeline.engines import Engine
from pipeline.files.state_dir import open_state
from pipeline.messages import Job, Measures, Source, Target
from pipeline.operations.launch import engine_spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

STAGES = """
import time
from collections.abc import Iterator
def up(text: str) -> str:
    return text.upper()
def lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        time.sleep(0.02)
        yield line
def more(text: str) -> str:
    if "bad" in text:
        raise ValueError("on purpose")
    return text + "!"
"""
YAML = """
inputs: in
stages:
  - {name: up, uses: ./stages/mine.py:up, output: 'out/{name}'}
  - {name: lines, from: inputs, uses: ./stages/mine.py:lines}
  - {name: more, from: lines, uses: ./stages/mine.py:more, output: 'out/{name}-{part}'}
ENGINE
"""
ENGINES = {
    "serial": "engine: serial",
    "pool": "pool: {processes: 2}",
    "chained": "pool: {processes: 1}",
}


def measured(folder: Path, kind: str) -> Measures:
    """Run four jobs, of which one fails in its second part; return what was measured, after the engine's end."""
    yaml = YAML.replace("ENGINE", ENGINES[kind])
    yaml = yaml.replace("mine.py:lines}", "mine.py:lines, pool: {processes: 1}}") if kind == "chained" else yaml
    project = Project(folder, yaml)
    project.write("stages/mine.py", STAGES)
    project.write("out/.filemill", "")  # claimed, as a run does before it opens an engine
    out = bytes(folder / "out")
    state = open_state(folder / "state", "pipeline")
    state.prepare()
    engine: Engine = engine_spec(load_config(folder / "pipeline.yaml"), state, []).open(state.slots, (state.lock_fd,))
    try:
        for name in ("a", "b", "c", "bad"):
            found = project.write(f"in/{name}", f"one\n{name}\nthree\n").stat()
            path, around = out + b"/" + name.encode(), (out + b"/" + name.encode() + b"-", b"")
            targets = Target("up", path), Target("more", path + b"-*", around=around)
            while not engine.has_room:
                engine.poll(1)
            engine.submit(Job(Source(name.encode(), found.st_size, found.st_mtime_ns), targets))
        while engine.busy:
            engine.poll(1)
    finally:
        engine.close()
        state.close()
    return engine.measures()


@pytest.mark.parametrize("kind", ENGINES)
def test_every_call_of_a_stage_is_measured(tmp_path: Path, kind: str) -> None:
    """One that raises too; a fan-out is one call for all of its parts, and a stage below is called for each."""
    found = measured(tmp_path, kind)
    assert {name: its.calls for name, its in found.stages.items()} == {"up": 4, "lines": 4, "more": 3 * 3 + 2}
    lines = found.stages["lines"]
    assert lines.total_s >= 11 * 0.02, "the seconds of every part"
    assert lines.quantile(0.5) > 0.05 and lines.slowest_s >= 3 * 0.02
    assert found.stages["up"].quantile(0.95) < lines.quantile(0.95)
    assert found.restarts == {}


def test_the_calls_of_all_batches_add_up(make: Make) -> None:
    """Of many batches and several workers, by the names of the stages."""
    engine = make()
    run(engine, [job(f"ok {number}", "decode", "print") for number in range(1000)])
    assert {name: its.calls for name, its in engine.measures().stages.items()} == {"decode": 1000, "print": 1000}


def test_workers_that_were_replaced_are_counted(make: Make) -> None:
    """By seat: two that crash, as is forgiven once, one that runs out of time, and six that have done their share."""
    engine = make(timeout_s=0.5, maxtasksperchild=5)
    run(engine, [job("segv"), job("sleep 100"), *(job(f"ok {number}") for number in range(40))])
    assert wait_until(lambda: sum(engine.measures().restarts.values()) >= 9)
    found = engine.measures().restarts
    assert set(found) <= set(range(6))
    engine.close()
    assert sum(engine.measures().restarts.values()) >= sum(found.values()), "known after its end"


def test_workers_that_leave_at_the_end_are_not_replaced(make: Make) -> None:
    engine = make()
    run(engine, [job("ok")])
    engine.close()
    assert engine.measures().restarts == {}


def test_a_pool_that_is_rebuilt_has_replaced_its_workers(make: Make) -> None:
    """Those that were killed for another's sake too."""
    engine = make()
    run(engine, [job("ok")])
    assert engine._session
    wait_until(lambda: engine._session and len(engine._session.workers) == 2)
    engine._session.workers[0].process.kill()
    run(engine, [job(f"ok {number}") for number in range(20)])
    wait_until(lambda: not engine.poll(0) and sum(engine.measures().restarts.values()) > 1)
    replaced = sum(engine.measures().restarts.values())
    assert replaced in (2, 3), "that which was killed, the other, and perhaps a replacement that had just started"
