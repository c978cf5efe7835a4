"""pipeline/stage/code_guard.py: what a process that runs stages forgets before it begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A worker that is forked from a process which has judged its modules, with one of the user's loaded before or after.
FORKED = """
import multiprocessing, sys
from pipeline.stage.code import NO_STATE
from pipeline.stage.code_guard import guard
def work():
    if "after" in sys.argv:
        import mine
    guard.start(NO_STATE)
    sys.exit("mine" in sys.modules or "pipeline" not in sys.modules)
if "before" in sys.argv:
    import mine
guard.judge_modules()
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
worker.join()
sys.exit(worker.exitcode)
"""


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_a_worker_forgets_the_users_modules(tmp_path: Path, when: str) -> None:
    """Also where those of the process that it is forked from were looked through before, for all its workers."""
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "script.py").write_text(FORKED)
    subprocess.run([sys.executable, "script.py", when], cwd=tmp_path, check=True, timeout=60)
