"""The environment of workers: the threads of libraries are limited before they are imported, and `pool.env` counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
from support.project import Project

from pipeline.config.threads import THREAD_VARIABLES
from pipeline.engines.host import available_processes

# A library reads the variables when it is imported, as this module does.
STAGES = """
import json, os

FOUND = {name: os.environ.get(name) for name in [*THREADS, "MODEL"]}

def found(text: str) -> str:
    return json.dumps(FOUND)
""".replace("THREADS", repr(THREAD_VARIABLES))
YAML = """
inputs: in
engine: ENGINE
pool: {processes: PROCESSES, context: CONTEXT, env: ENV}
stages:
  - {name: found, uses: 'stages.found:found', output: 'out/{name}'}
  - name: own
    from: inputs
    uses: stages.found:found
    output: out/own-{name}
    pool: {processes: 1, env: {MODEL: small}}
"""


def project(
    folder: Path, *, engine: str = "pool", processes: int = 1, context: str = "forkserver", env: str
) -> Project:
    yaml = YAML.replace("ENGINE", engine).replace("PROCESSES", str(processes)).replace("CONTEXT", context)
    made = Project(folder, yaml.replace("ENV", env))
    made.write("stages/found.py", STAGES)
    made.write("in/a", "a")
    return made


@pytest.fixture
def own_forkserver() -> Iterator[None]:
    """A server of this test's own: it has the environment of the moment in which it was started."""
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


@pytest.mark.processes
@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_each_worker_is_told_its_share_of_the_threads(
    tmp_path: Path, context: str, own_forkserver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all variables, less those that the run's environment or `pool.env` has."""
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    for name in {*THREAD_VARIABLES} - {"MKL_NUM_THREADS"}:
        monkeypatch.delenv(name, raising=False)
    made = project(tmp_path, context=context, env="{OMP_NUM_THREADS: 3, MODEL: large}")
    made.run()
    share = str(max(1, available_processes() // 2))
    expected = dict.fromkeys(THREAD_VARIABLES, share) | {"MKL_NUM_THREADS": "5"}
    outputs = made.outputs()
    assert json.loads(outputs["a"]) == expected | {"OMP_NUM_THREADS": "3", "MODEL": "large"}
    assert json.loads(outputs["own-a"]) == expected | {"MODEL": "small"}


def test_in_the_runs_own_process_it_is_put_back(tmp_path: Path) -> None:
    """The serial engine sets what `env` names, and limits no threads, since it is alone."""
    made = project(tmp_path, engine="serial", env="{FILEMILL_TEST: 1}")
    made.write("stages/found.py", "import os\n\ndef found(text: str) -> str:\n    return os.environ['FILEMILL_TEST']\n")
    made.run()
    assert made.outputs()["a"] == b"1"
    assert "FILEMILL_TEST" not in os.environ


def test_another_value_makes_the_outputs_again(tmp_path: Path) -> None:
    """But not another number of threads, which changes nothing but the time."""
    made = project(tmp_path, engine="serial", env="{MODEL: large}")
    assert made.run().done == 2
    made.edit("pipeline.yaml", "{MODEL: large}", "{MODEL: large, OMP_NUM_THREADS: 2}")
    assert made.run().done == 0
    made.edit("pipeline.yaml", "MODEL: large", "MODEL: huge")
    assert made.plan()["found a"] == ("make", "env: MODEL large -> huge")
    assert made.run().done == 2
