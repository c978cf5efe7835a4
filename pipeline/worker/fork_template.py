"""Does once, in the forkserver, what every worker would do by itself; it is imported there after all else."""

from __future__ import annotations

from pipeline.stage.code_guard import guard
from pipeline.stage.resolve import hold_spare_memory
from pipeline.stage.signature import read_signature


def _stage(text: str, *, option: str = "") -> str:
    return text + option


hold_spare_memory()
# What takes long the first time, such as to compile a class of records, has been done where workers come from.
read_signature("", _stage, __name__)
guard.judge_modules()  # at last, since what comes before it may import more
