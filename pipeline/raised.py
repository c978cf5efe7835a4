"""What a stage raised: said in one line, traced back, and as the result of the output that it cost."""

from __future__ import annotations

import traceback
from pathlib import Path

from pipeline.errors import FileFailure, SourceMoved
from pipeline.messages import Kind, Result, Target
from pipeline.names import one_line

_HERE = Path(__file__).parent


def failed(target: Target, error: BaseException, stage: str = "") -> Result:
    """The result of an output that an exception cost, raised in this stage, if it was in one."""
    text = said(error)
    if stage and not isinstance(error, FileFailure):
        text = f"{text} (in stage {stage!r})"
    kind: Kind = "error" if isinstance(error, Exception) else "crashed"
    if isinstance(error, MemoryError):
        kind = "memory"
    if isinstance(error, SourceMoved):
        kind = error.kind
    return Result(target.stage, target.path, "failed", text, kind, _traceback(error))


def said(error: BaseException) -> str:
    """An exception in one line."""
    text = text_of(error)
    if isinstance(error, FileFailure):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """What an exception says, in one line."""
    try:
        return one_line(str(error))
    except Exception:
        return "it cannot be printed"


def _traceback(error: BaseException) -> str:
    """Where an exception came from, less our own frames; nothing where we raised it ourselves, and said all there."""
    if isinstance(error, FileFailure):
        return ""
    trace = error.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == _HERE:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)) if trace is not None else ""
