"""A Config becomes a Spec, which any process can open: that is how other machines will get it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import ROOT
from support.project import Project

from pipeline.config.load import load_config
from pipeline.engines import Spec
from pipeline.engines.chained import ChainedSpec
from pipeline.engines.pool import PoolSpec
from pipeline.engines.serial import SerialSpec
from pipeline.files.state_dir import State, open_state
from pipeline.messages import Job, Source, Target
from pipeline.operations.launch import engine_spec

STAGES = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
  - {name: more, from: up, uses: upper, with: {mark: '!'}, OWN output: 'out/{name}.more'}
retry: {max: 2, backoff: 10ms}
ENGINE
"""
# What another machine does: read the spec and the jobs, open the engine in a folder of its own, and run them.
ELSEWHERE = """
import json, pickle, sys
from pathlib import Path
spec, jobs = pickle.load(sys.stdin.buffer)
engine = spec.open(Path(sys.argv[1]))
found = []
try:
    for job in jobs:
        while not engine.has_room:
            found += engine.poll(1)
        engine.submit(job)
    while engine.busy:
        found += engine.poll(1)
finally:
    engine.close()
print(json.dumps([[each.stage, each.status, each.text] for outcome in found for each in outcome.results]))
"""


def spec_of(folder: Path, engine: str, own: str = "") -> tuple[Spec, State]:
    """The spec of a pipeline of two stages over three files, and the state that it was made for."""
    project = Project(folder, STAGES.replace("ENGINE", engine).replace("OWN", own))
    for name in "abc":
        project.write(f"in/{name}", name)
    project.write("out/.filemill", "")  # claimed, as a run does before it opens an engine
    config = load_config(folder / "pipeline.yaml")
    state = open_state(folder / "state", "pipeline")
    state.prepare()
    return engine_spec(config, state, []), state


def jobs_over(folder: Path) -> list[Job]:
    found = []
    for path in sorted((folder / "in").iterdir()):
        about, name = path.stat(), os.fsencode(path.name)
        out = os.fsencode(folder / "out") + b"/" + name
        source = Source(name, about.st_size, about.st_mtime_ns)
        found.append(Job(source, (Target("up", out), Target("more", out + b".more"))))
    return found


KINDS: dict[str, tuple[str, str, type]] = {
    "serial": ("engine: serial", "", SerialSpec),
    "fork": ("pool: {processes: 2, context: fork}", "", PoolSpec),
    "forkserver": ("pool: {processes: 2, context: forkserver}", "", PoolSpec),
    "spawn": ("pool: {processes: 2, context: spawn}", "", PoolSpec),
    "chained": ("pool: {processes: 2}", "pool: {processes: 1},", ChainedSpec),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_is_opened_in_another_process(tmp_path: Path, kind: str) -> None:
    """Pickled here and opened there, it runs the jobs; its own files lie in the folder that it was opened in."""
    engine, own, made = KINDS[kind]
    spec, state = spec_of(tmp_path, engine, own)
    assert isinstance(spec, made)
    given = pickle.dumps((spec, jobs_over(tmp_path)))
    opened = tmp_path / "elsewhere" / "engine"
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(opened)],
        input=given, capture_output=True, cwd="/", timeout=100, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    state.close()
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert sorted(found) == [["more", "done", ""]] * 3 + [["up", "done", ""]] * 3
    made_files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert made_files == {"a": "A", "a.more": "A!", "b": "B", "b.more": "B!", "c": "C", "c.more": "C!"}
    assert opened.is_dir() or kind == "serial"
    assert not list(opened.rglob("slot-*")) and not state.slots.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_is_equal_after_a_journey(tmp_path: Path, kind: str) -> None:
    """It is plain, frozen data: what arrives is what was sent."""
    spec, state = spec_of(tmp_path, *KINDS[kind][:2])
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(AttributeError):
        spec.blueprint = b""  # type: ignore[attr-defined]
    state.close()


def test_what_pipeline_yaml_says_is_in_the_spec(tmp_path: Path) -> None:
    """Each setting of the pool, the limits and the retries; memory is shared among all workers of all pools."""
    pool = "{processes: 3, maxtasksperchild: 7, context: spawn, max_memory: 300MB, start_timeout: 5s}"
    spec, state = spec_of(tmp_path, f"pool: {pool}\ntimeout: 4s", "timeout: 2s,")
    state.close()
    assert isinstance(spec, PoolSpec)
    said = spec.settings
    assert (said.processes, said.maxtasksperchild, said.context) == (3, 7, "spawn")
    assert (said.timeout_s, said.start_timeout_s, said.max_memory_bytes) == (4, 5, 300_000_000)
    assert (said.retries, said.backoff_s) == (2, 0.01)
    assert [(each.name, each.parent, each.timeout_s) for each in spec.stages] == [("up", None, None), ("more", 0, 2)]


def test_each_pool_of_its_own_is_an_engine(tmp_path: Path) -> None:
    """With its own settings; a stage says which engine runs it."""
    spec, state = spec_of(tmp_path, "pool: {processes: 2}", "pool: {processes: 1, maxtasksperchild: 5},")
    state.close()
    assert isinstance(spec, ChainedSpec)
    settings = [each.settings for each in spec.specs if isinstance(each, PoolSpec)]
    assert [(each.processes, each.maxtasksperchild) for each in settings] == [(2, None), (1, 5)]
    assert [each.engine for each in spec.stages] == [0, 1]
    assert settings[0].max_memory_bytes == settings[1].max_memory_bytes
