"""Does once, in the forkserver, what every worker would do by itself; it is imported there after all else."""

from __future__ import annotations

from pipeline.stage.code_guard import guard
from pipeline.stage.resolve import hold_spare_memory

guard.judge_modules()
hold_spare_memory()
