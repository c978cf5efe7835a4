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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.engines.measuring import merged
from pipeline.files.file_system import describe
from pipeline.files.state_dir import reports_folder
from pipeline.ledger.origins import key_of, origin_of
from pipeline.operations.launch import count_workers, pools_of
from pipeline.operations.run_context import RunContext
from pipeline.operations.side_process import beside
from pipeline.planning.decisions import ACTIONS, text_of
from pipeline.report.document import Circumstances, make_report, without_pictures
from pipeline.report.statistics import FailedOutput, Made, Statistics
from pipeline.text import one_line

# How many runs before, new failures, and rows of the plan are told of.
_RUNS, _NEW, _PLANNED = 30, 20, 40
# CPU seconds that samples may take: a hundredth of the run, or what reads a few small texts, and a second at most.
_SAMPLES_SHARE, _SAMPLES_LEAST_S, _SAMPLES_MOST_S = 0.01, 0.02, 1.0
# What shows a dozen photographs: whoever tries a few looks at the report for them, and hardly sees this time go by.
_PICTURES_LEAST_S = 0.3
# Seconds after which the process that shows pictures and makes the page is ended: many times what it takes.
_LIMIT_S = 10.0
# The fact that the ledger keeps of a state folder in which it was said that there is no page.
_FACT = "report_without_page"
# What the process that makes the page says of what follows.
_PAGE, _NO_LIBRARY, _FAILED = b"page", b"no library", b"failed"


def write_report(context: RunContext) -> None:
    """Write the report of a run; whatever goes wrong is one note, and a traceback in the log."""
    summary = context.summary
    try:
        report = _make(context)
        samples, page = _show(context, report)
        report |= samples
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
        pools=pools_of(context.config) if context.statistics else [],
        processes=count_workers(context.config) if context.statistics else 0,
        plan=_planned(context),
        runs=list(map(_short, runs)),
        new=_new_failures(context, statistics),
        recovered=[(origin_of(source), stage) for source, stage in context.ledger.failures.first_recovered],
        measures=merged(each.measures() for each in (*context.measured, context.engine) if each),
    )
    return make_report(summary, statistics, about)


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
            is_new=each.is_new,
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


def _show(context: RunContext, report: Mapping[str, Any]) -> tuple[dict[str, Any], bytes | None]:
    """Return the samples of the outputs, and the page of a report with them; None where it cannot be made.

    If the process dies, as over a damaged picture, another one makes the page without samples.
    """
    made = context.statistics.sampled.sample if context.statistics else []
    answer = _apart(lambda: _shown(report, _samples(context, made)), context.state.lock_fd)
    if answer is None and made:
        context.log.write("no outputs are shown in the report: the process that was to read them died")
        answer = _apart(lambda: _shown(report, {}), context.state.lock_fd)
    samples, kind, said = (answer or b"{}\n" + _FAILED + b"\nthe process that was to make it died").split(b"\n", 2)
    if kind == _FAILED:
        details = said.decode()
        name = f"reports/{context.state.run}.json"
        _warn(context, f"the report has no page, only {name}: {details.splitlines()[-1]}", details)
    _say_once(context, is_missing=kind == _NO_LIBRARY, details=said.decode() if kind == _NO_LIBRARY else "")
    return json.loads(samples), said if kind == _PAGE else None


def _samples(context: RunContext, made: Sequence[Made]) -> dict[str, Any]:
    """Return samples of what was made, as far as there is time for them beside what the run took."""
    from pipeline.report.samples import is_picture, make_samples

    least_s = _PICTURES_LEAST_S if any(is_picture(each.path) for each in made) else _SAMPLES_LEAST_S
    cpu_s = min(_SAMPLES_MOST_S, max(least_s, _SAMPLES_SHARE * context.summary.seconds))
    return make_samples(made, os.fsencode(context.config.inputs.root), context.folder, context.state.run, cpu_s)


def _shown(report: Mapping[str, Any], samples: Mapping[str, Any]) -> bytes:
    """Return a line with the samples, one that says what follows, and the page, or why there is none."""
    kind, said = _PAGE, ""
    try:
        from pipeline.report.html import render

        said = render({**report, **samples})
    except ImportError:
        kind, said = _NO_LIBRARY, traceback.format_exc()
    except Exception:
        kind, said = _FAILED, traceback.format_exc()
    return json.dumps(samples).encode() + b"\n" + kind + b"\n" + said.encode("utf-8", "backslashreplace")


def _say_once(context: RunContext, *, is_missing: bool, details: str) -> None:
    """Note that there is no page for want of a library, once for each state folder, and again after there was one."""
    facts = context.ledger.facts
    if bool(facts.get(_FACT)) == is_missing:
        return
    if is_missing:
        text = "the report is JSON only, since its page needs jinja2: pip install 'filemill[report]'"
        _warn(context, text, details)
    context.ledger.begin()
    facts.set(_FACT, True) if is_missing else facts.forget(_FACT)
    context.ledger.commit()


def _apart(work: Callable[[], bytes], lock_fd: int) -> bytes | None:
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
        with beside(limited, [lock_fd]) as answer:
            return answer()
