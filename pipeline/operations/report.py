"""Writes the report of a run that did anything, when all that it tells of is over.

Pictures are decoded, and the page is made, in a process that is forked for it: what a damaged file or a template does
to that, or how long it takes, does nothing to the run. Nothing of this is imported by a run without news.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files.file_system import describe
from pipeline.files.state_dir import reports_folder
from pipeline.ledger.origins import key_of, origin_of
from pipeline.operations.launch import count_workers
from pipeline.operations.run_context import RunContext
from pipeline.operations.side_process import beside
from pipeline.planning.decisions import ACTIONS, text_of
from pipeline.report.document import Circumstances, Measured, make_report, without_pictures
from pipeline.report.statistics import FailedOutput, Statistics
from pipeline.text import one_line

# How many runs before, new failures, and rows of the plan are told of.
_RUNS, _NEW, _PLANNED = 30, 20, 40
# What samples may take: a hundredth of the run, or what reads a few small texts, and a second at most.
_SAMPLES_SHARE, _SAMPLES_LEAST_S, _SAMPLES_MOST_S = 0.01, 0.02, 1.0
# Seconds after which a process that shows pictures or makes the page is ended: many times what it takes.
_LIMIT_S = 20.0
# The fact that the ledger keeps of a state folder in which it was said that there is no page.
_FACT = "report_without_page"
# What the process that makes the page says first.
_PAGE, _NO_LIBRARY, _FAILED = b"page", b"none", b"fail"


class _NoPage(Exception):
    """The page could not be made; the text is the traceback, or says what became of its process."""


def write_report(context: RunContext) -> None:
    """Write the report of a run; whatever goes wrong is one note, and a traceback in the log."""
    summary = context.summary
    try:
        report = _make(context)
        page = _page_of(context, report)
        data = json.dumps(without_pictures(report), ensure_ascii=False).encode("utf-8", "backslashreplace")
        summary.report = str(context.state.keep_report(data + b"\n", page).absolute())
    except Exception as error:
        folder = reports_folder(context.state.folder)
        said = describe(error, error.filename or folder) if isinstance(error, OSError) else repr(error)
        _warn(context, f"the report was not written: {said}", traceback.format_exc())


def _warn(context: RunContext, text: str, details: str) -> None:
    context.note(one_line(text))
    context.log.write(details)


# -- what the report tells ---------------------------------------------------------------------------------------------


def _make(context: RunContext) -> dict[str, Any]:
    """Return the report of a run."""
    summary, statistics = context.summary, context.statistics or Statistics(context.state.run)
    runs = context.ledger.runs.latest(_RUNS)
    about = Circumstances(
        number=runs[-1]["number"],
        started=runs[-1]["started"],
        ended=time.time(),
        host=os.uname().nodename,
        versions=context.ledger.runs.versions(),
        options=context.config.edits,
        processes=count_workers(context.config) if context.statistics else 0,
        plan=_planned(context),
        runs=list(map(_short, runs)),
        new=_new_failures(context, statistics),
        recovered=[
            (origin_of(source), stage) for source, stage in getattr(context.ledger.failures, "first_recovered", ())
        ],
        measures=_measures(context),
        samples=_samples(context, statistics),
    )
    return make_report(summary, statistics, about)


def _measures(context: RunContext) -> Measured:
    """Return what the engines of a run have measured."""
    calls, restarts = dict[str, Any](), Counter[int]()
    for engine in (*context.measured, context.engine):
        measures = getattr(engine, "measures", None)
        if measures is None:
            continue
        measured = measures()
        restarts.update(measured.restarts)
        for stage, histogram in measured.stages.items():
            calls[stage] = calls[stage].merged(histogram) if stage in calls else histogram
    return Measured(calls, restarts)


def _short(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown of one of the last runs; a count that it did not tell is 0, and its seconds None."""
    known = {key: run.get(key) for key in ("run", "number", "started", "seconds", "exit")}
    return known | {key: run.get(key, 0) for key in ("done", "failed", "bytes_out")}


def _planned(context: RunContext) -> list[dict[str, Any]]:
    """Return how many outputs were planned to be made or not, and why; those of most outputs first."""
    if not context.is_planned:
        return []
    counts = context.plan.counts + context.plan.counts_of_groups
    rows = [
        {"action": action, "reason": text_of(reason), "outputs": outputs}
        for (action, reason), outputs in counts.most_common(_PLANNED)
    ]
    return sorted(rows, key=lambda row: ACTIONS.index(row["action"]))


def _new_failures(context: RunContext, statistics: Statistics) -> list[FailedOutput]:
    """Return the first of the new failures; those that the plan refused are counted, which no job has told."""
    groups, new = statistics.failures, list[FailedOutput]()
    failures = context.ledger.failures
    for each in failures.of_run(context.state.run) if context.summary.failed else ():
        failed = FailedOutput(
            origin_of(each.source), each.stage, each.kind, each.error, each.place, seat=each.seat,
            is_new=bool(each.is_new),
        )  # fmt: skip
        if not each.tried:
            groups.add(failed)
        if each.is_new:
            known = groups.mark_new(failed)
            if len(new) < _NEW:
                output = known.output or failures.printed(each)
                new.append(groups.shorten(known._replace(output=output)))
    told = {(key_of(each.origin), each.stage) for each in new}
    moved = (each for group in groups.groups.values() for each in group.examples if each.is_new)
    new += [each for each in moved if (key_of(each.origin), each.stage) not in told]
    return new[:_NEW]


# -- what a process of its own does ------------------------------------------------------------------------------------


def _samples(context: RunContext, statistics: Statistics) -> dict[str, Any]:
    """Return what is shown of the outputs: nothing if that takes too long beside the run, or is not possible."""
    made = statistics.sampled.sample
    if not made:
        return {}
    cpu_s = min(_SAMPLES_MOST_S, max(_SAMPLES_LEAST_S, _SAMPLES_SHARE * context.summary.seconds))
    root, run = os.fsencode(context.config.inputs.root), context.state.run

    def work() -> bytes:
        from pipeline.report.samples import make_samples

        return json.dumps(make_samples(made, root, context.folder, run, cpu_s)).encode()

    answer = _apart(work, [context.state.lock_fd])
    if answer is None:
        context.log.write("no outputs are shown in the report: the process that was to read them died")
    return json.loads(answer) if answer else {}


def _page_of(context: RunContext, report: Mapping[str, Any]) -> bytes | None:
    """Return the page of a report; None where the library for it is missing, or the page fails, which is noted."""

    def work() -> bytes:
        try:
            from pipeline.report.html import render

            return _PAGE + render(report).encode("utf-8", "backslashreplace")
        except ImportError:
            return _NO_LIBRARY + traceback.format_exc().encode("utf-8", "backslashreplace")
        except Exception:
            return _FAILED + traceback.format_exc().encode("utf-8", "backslashreplace")

    answer = _apart(work, [context.state.lock_fd]) or _FAILED + b"the process that was to make it died"
    kind, said = answer[:4], answer[4:]
    if kind == _FAILED:
        details = said.decode()
        _warn(context, f"the report has no page, only {_json_name(context)}: {details.splitlines()[-1]}", details)
    _say_once(context, is_missing=kind == _NO_LIBRARY, details=said if kind == _NO_LIBRARY else b"")
    return said if kind == _PAGE else None


def _json_name(context: RunContext) -> str:
    return os.path.relpath(Path("reports", f"{context.state.run}.json"))


def _say_once(context: RunContext, *, is_missing: bool, details: bytes) -> None:
    """Note that there is no page for want of a library, once for each state folder, and again after there was one."""
    facts = context.ledger.facts
    if bool(facts.get(_FACT)) == is_missing:
        return
    if is_missing:
        text = "the report is JSON only, since its page needs jinja2: pip install 'filemill[report]'"
        _warn(context, text, details.decode())
    context.ledger.begin()
    facts.set(_FACT, True) if is_missing else facts.forget(_FACT)
    context.ledger.commit()


def _apart(work: Callable[[], bytes], not_inherited: Sequence[int]) -> bytes | None:
    """Return the answer of a forked process; None if it has none, as where it died or took too long."""

    def limited() -> bytes:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, _LIMIT_S)
        warnings.simplefilter("ignore")
        return work()

    with warnings.catch_warnings():
        # Another thread may hold a lock of its own, which this process asks for in vain: then it is ended.
        warnings.simplefilter("ignore", DeprecationWarning)
        with beside(limited, not_inherited) as answer:
            return answer()
