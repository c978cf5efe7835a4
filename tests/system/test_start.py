"""The start of a run: what it imports, and the forkserver that gets ready meanwhile, which is a copy of the program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import ROOT, Pipeline, wait_until
from support.project import Project

YAML = """
inputs: in
stages:
  - {name: seen, uses: 'stages.seen:seen', output: 'out/{dir}/{name}'}
pool: {processes: 1}
"""
# What a worker, and the process that has forked it, has open and does with signals; and what it has imported.
SEEN = """
import json, os, sys

def process(number):
    folder = f"/proc/{number}"
    status = dict(line.split(":\\t", 1) for line in open(f"{folder}/status").read().splitlines() if ":\\t" in line)
    opened = {}
    for each in os.listdir(f"{folder}/fd"):
        try:
            opened[each] = os.readlink(f"{folder}/fd/{each}")
        except OSError:  # of the listing itself
            pass
    return {"opened": opened, "signals": {key: status[key] for key in ("SigBlk", "SigIgn", "SigCgt")},
            "threads": status["Threads"]}

def seen(text: str) -> str:
    main = sys.modules["__main__"]
    return json.dumps({"worker": process("self"), "server": process(os.getppid()), "modules": sorted(sys.modules),
                       "path": sys.path, "main": getattr(main, "__file__", None), "argv": sys.argv})
"""
# Writes what a process has imported when it ends; only the program itself comes to that.
WITNESS = """
import atexit, gc, os, sys

@atexit.register
def tell():
    with open(os.path.join(os.environ["WITNESS"], str(os.getpid())), "w") as file:
        file.write("\\n".join([*sys.modules, *["garbage-is-collected"] * gc.isenabled()]))
"""
# What a run that was told nothing new has no use for.
HEAVY = {
    "pydantic", "pydantic_core", "yaml", "argparse", "gettext", "importlib.metadata", "email", "PIL", "tqdm",
    "pathspec", "_hashlib", "pipeline.config.read", "pipeline.config.schema", "pipeline.config.document",
    "pipeline.stage.options",
}  # fmt: skip


def project(folder: Path) -> Project:
    made = Project(folder, YAML)
    made.write("stages/seen.py", SEEN)
    made.write("in/a", "a")
    return made


def test_a_run_with_work_imports_no_more_than_it_needs(tmp_path: Path, pipeline: Pipeline) -> None:
    """What the pipeline is, is known since the last run: neither pydantic nor YAML, nor argparse without options."""
    made = project(tmp_path / "project")
    made.write("../witness/sitecustomize.py", WITNESS)
    told = tmp_path / "told"
    environment = {"PYTHONPATH": f"{tmp_path / 'witness'}:{ROOT}", "WITNESS": str(told)}
    for source in ("a", "b", "c"):  # the first time it is read, the second time by other words
        told.mkdir()
        made.write(f"in/{source}", source)
        ended = pipeline(*(["-j1"] if source == "b" else []), cwd=made.folder, **environment)
        assert ended.returncode == 0, ended.stderr
        (witness,) = told.iterdir()
        imported = set(witness.read_text().split())
        assert {"pipeline.operations.run", "pipeline.engines.pool", "sqlite3", "garbage-is-collected"} <= imported
        assert HEAVY & imported == ({"argparse", "gettext"} if source == "b" else set())
        witness.unlink()
        told.rmdir()


@pytest.mark.processes
def test_a_worker_of_a_copy_is_as_one_of_a_new_interpreter(tmp_path: Path, pipeline: Pipeline) -> None:
    """It has no more open, the same signals, and nothing of the program that it was copied from."""
    found = {}
    for name in ("program", "script"):
        made = project(tmp_path / name)
        if name == "program":
            ended = pipeline(cwd=made.folder)
        else:
            made.write("run.py", "import pipeline\nassert pipeline.run(pipeline.load('pipeline.yaml')).exit == 0\n")
            command = [sys.executable, "run.py"]
            ended = subprocess.run(command, cwd=made.folder, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        found[name] = json.loads(made.outputs()["a"])
    for process in ("worker", "server"):
        program, script = found["program"][process], found["script"][process]
        assert program["signals"] == script["signals"], process
        assert program["threads"] == script["threads"] == "1"
        assert kinds_of(program["opened"]) == kinds_of(script["opened"]), process
    assert found["program"]["main"] is None
    heavy = {"pydantic", "yaml", "sqlite3", "PIL", "pipeline.ledger", "pipeline.planning"}
    assert not heavy & set(found["script"]["modules"])


def kinds_of(opened: dict[str, str]) -> list[str]:
    """What descriptors lead to, without what differs from process to process."""
    return sorted(re.split(r":\[|-\d", os.path.basename(to))[0] for to in opened.values())


@pytest.mark.processes
def test_a_forkserver_that_has_no_work_ends_with_the_run(tmp_path: Path, pipeline: Pipeline) -> None:
    """It was started before anybody knew."""
    made = project(tmp_path)
    assert pipeline().returncode == 0
    assert pipeline("--limit", "1").returncode == 0  # no question that the note answers
    wait_until(lambda: not in_folder(made.folder))


def in_folder(folder: Path) -> list[Path]:
    """The living processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(process)
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_what_follows_the_program_goes_on(tmp_path: Path) -> None:
    """It ends its process at once, but neither below a profiler nor before exit functions and what they print."""
    code = "import atexit; atexit.register(print, 'the end'); from pipeline.cli import be_program; be_program()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words, said in ((["-c", code], "the end"), (["-m", "cProfile", "-m", "pipeline"], "function calls")):
        command = [sys.executable, *words, "--version"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.startswith("filemill ") and said in done.stdout, done.stderr
