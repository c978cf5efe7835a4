"""Which clock is asked: no limit of time looks at the one that can be set."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
# Where limits of time are kept, and where is waited.
FILES = [
    *(PACKAGE / "engines").glob("*.py"),
    *(PACKAGE / "operations" / name for name in ("run.py", "job_loop.py", "recorder.py", "launch.py")),
    *(PACKAGE / "worker" / name for name in ("main.py", "job.py", "group_job.py", "fan_out.py", "stage_call.py")),
]
CLOCKS = {"time", "time_ns", "strftime", "localtime", "gmtime", "ctime", "now", "today", "utcnow"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_limits_are_kept_by_a_clock_that_nobody_sets(file: Path) -> None:
    """When the system's clock steps, no timeout, grace or pause becomes longer or shorter."""
    calls = [node.func for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Call)]
    asked = [call for call in calls if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)]
    assert not {call.attr for call in asked if call.value.id in ("time", "datetime")} & CLOCKS  # type: ignore[attr-defined]
