"""Calls in a process of its own: answers are plain data, deaths are told, and nothing is left behind."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import wait_until, wait_until_gone

from pipeline.errors import ConfigError, EnvironmentFailure
from pipeline.stage.isolation import ProcessDied, call, prepare, unpack

LIGHT = """
import sys
from pathlib import Path
from pipeline.config.load import load_config
load_config(Path("pipeline.yaml"))
assert not {"pydantic", "yaml", "PIL", "stages", "stages.upper"} & set(sys.modules), sys.modules
"""


def test_an_answer_is_plain_data() -> None:
    """What is no plain data and of no class of ours is refused, and nothing is imported to see what it is."""
    assert unpack(pickle.dumps((Path("a"), {1, "b"}, ConfigError("text"))))[:2] == (Path("a"), {1, "b"})
    with pytest.raises(pickle.UnpicklingError, match=r"posix.system is no plain data"):
        unpack(pickle.dumps(_Hostile()))


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_a_child_is_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder, environment and `sys.path` are those of the moment of the call."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARK_OF_A_TEST", "x")
    assert call("os:getcwd") == str(tmp_path)
    assert call("os:getenv", "MARK_OF_A_TEST") == "x"


@pytest.mark.parametrize(("code", "how"), [(0, "with exit code 0"), (3, "with exit code 3")])
def test_a_death_is_told(code: int, how: str) -> None:
    """A child that ends before it has answered raises, however it ends; the next call has another."""
    with pytest.raises(ProcessDied, match=how):
        call("os:_exit", code)
    assert call("os:getppid") != os.getpid()


def test_the_processes_end_with_ours(tmp_path: Path) -> None:
    """Whatever becomes of the program, neither the server nor a child outlives it."""
    code = "import os; from pipeline.stage.isolation import call; print(call('os:getppid'), flush=True); os._exit(1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    wait_until_gone([int(done.stdout)])


def test_a_call_takes_the_answer_of_what_was_prepared(tmp_path: Path) -> None:
    """It is not made twice; a call of anything else does without that answer."""
    folder, other = str(tmp_path / "folder"), str(tmp_path / "other")
    prepare("os:mkdir", folder)
    wait_until(lambda: (tmp_path / "folder").exists())
    assert call("os:mkdir", folder) is None
    with pytest.raises(EnvironmentFailure, match="File exists"):
        call("os:mkdir", folder)
    prepare("os:mkdir", other)
    assert call("os:getcwd") == os.getcwd()
    prepare("time:sleep", 1000)
    prepare("os:getcwd")
    assert call("os:getcwd") == os.getcwd()


def test_what_was_prepared_ends_with_us(tmp_path: Path) -> None:
    """Nobody takes its answer any more."""
    code = "from pipeline.stage import isolation as i; i.prepare('time:sleep', 1000); print(i._server._process.pid)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    wait_until_gone([int(done.stdout)])


def test_to_load_a_pipeline_is_light(tmp_path: Path) -> None:
    """A process that only asks for a pipeline imports neither its stages nor what reads YAML and options."""
    (tmp_path / "in").mkdir()
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/upper.py").write_text("def upper(text: str) -> str:\n    return text\n")
    stage = "{name: up, uses: upper, output: 'out/{name}'}"
    (tmp_path / "pipeline.yaml").write_text(f"inputs: in\nstages:\n  - {stage}\n")
    subprocess.run([sys.executable, "-c", LIGHT], cwd=tmp_path, check=True, timeout=60)
