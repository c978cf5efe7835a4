"""Makes the report of a run as plain data, of which report.json and the HTML page are made; see docs/report.md."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import HELD_ONLY, SIGNALLED, TIME_IS_UP, PolicyStop, Unfollowed
from pipeline.messages import Group, Histogram, Measures, Origin
from pipeline.records import dataclass
from pipeline.report.comparison import FORMAT
from pipeline.report.statistics import FailedOutput, JobFigures, Statistics
from pipeline.report.summary import Summary, next_commands
from pipeline.text import counted

# Digits of seconds: more are noise.
_DIGITS = 6
_COUNTS = (
    "sources", "done", "up_to_date", "skipped", "failed", "new_failed", "recovered", "held", "dismissed", "edited",
    "settling", "vanished", "unmatched", "renamed", "pruned", "set_aside",
)  # fmt: skip
# What the exit codes mean, and how grave that is; 1 and signals have sentences of their own.
_VERDICTS: dict[int, tuple[str, str]] = {
    0: ("good", "every output is up to date"),
    2: ("bad", "refused: what was asked for is not possible, and nothing was made"),
    3: ("bad", "the machine stopped it part-way; what is done is safe, and the same line resumes"),
    4: ("bad", "a limit of your own stopped it; what was in hand was finished"),
    TIME_IS_UP: ("fair", "its time was up, and all was well so far; the same line resumes"),
    HELD_ONLY: ("fair", "no file failed; files are held from earlier runs"),
}


@dataclass(frozen=True)
class Circumstances:
    """What a report says of a run beside its summary and its statistics."""

    number: int
    started: float
    """This and `ended` are in seconds since 1970."""
    ended: float
    host: str
    versions: Mapping[str, str]
    options: Sequence[str]
    pools: Sequence[tuple[str, int, range]]
    """The name of each pool, empty for the shared one, its number of workers, and the numbers that these may have."""
    processes: int
    plan: Sequence[Mapping[str, Any]]
    runs: Sequence[Mapping[str, Any]]
    new: Sequence[FailedOutput]
    """The first of the failures that are new."""
    recovered: Sequence[tuple[Origin, str]]
    """The first of the outputs, by origin and stage, that had failed and are made."""
    measures: Measures


def make_report(summary: Summary, statistics: Statistics, about: Circumstances) -> dict[str, Any]:
    """Return the report of a run, still without its gallery and diffs; every key is always there."""
    return {
        "format": FORMAT,
        "pipeline": summary.pipeline,
        "run": summary.run,
        "number": about.number,
        "yaml": summary.yaml,
        "state": summary.state,
        "log": summary.log,
        "host": about.host,
        "versions": dict(about.versions),
        "options": list(about.options),
        "started": round(about.started, 3),
        "ended": round(about.ended, 3),
        "seconds": round(summary.seconds or about.ended - about.started, 3),
        "exit": summary.exit,
        "stopped": summary.stopped,
        "notes": [*summary.cut_off, *summary.notes],
        "verdict": _verdict(summary),
        "counts": {name: getattr(summary, name) for name in _COUNTS},
        "bytes": _bytes(statistics),
        "new": {
            "failures": [_failure(each) for each in about.new],
            "recovered": [_name(origin) | {"stage": stage} for origin, stage in about.recovered],
        },
        "timeline": _timeline(statistics),
        "workers": _workers(statistics, about),
        "pools": _pools(statistics, about.pools),
        "processes": about.processes,
        "stages": [_stage(*each) for each in about.measures.stages.items()],
        "sizes": _sizes(statistics),
        "failures": _failures(statistics),
        "slowest": [_job(each) for each in statistics.slowest.jobs()],
        "biggest": [_job(each) for each in statistics.biggest.jobs()],
        "gallery": [],
        "diffs": [],
        "plan": [dict(each) for each in about.plan],
        "runs": [dict(each) for each in about.runs],
    }


def without_pictures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report whose gallery names its pictures and does not hold them."""
    sides = ("before", "after")
    gallery = [
        entry | {side: {key: value for key, value in entry[side].items() if key != "data"} for side in sides}
        for entry in report["gallery"]
    ]
    return {**report, "gallery": gallery}


# -- the verdict -------------------------------------------------------------------------------------------------------


def _verdict(summary: Summary) -> dict[str, Any]:
    level, text = _level_and_text(summary)
    return {"level": level, "text": text, "next": list(next_commands(summary))}


def _level_and_text(summary: Summary) -> tuple[str, str]:
    code = summary.exit
    if code > SIGNALLED:
        who = "a person" if code == Unfollowed.exit_code else signal.Signals(code - SIGNALLED).name
        return "fair", f"Exit {code}: stopped by {who}; what is done is safe, and the same line resumes"
    if code == 1:
        what = [counted(summary.failed, "output") + " failed"] if summary.failed else []
        if summary.new_failed == summary.failed > 0:
            what = [f"{what[0]} for the first time"]
        elif summary.new_failed:
            what += [f"{summary.new_failed:,} of them new"]
        what += [f"{counted(summary.held - summary.dismissed, 'output')} held from before"] * (
            summary.held > summary.dismissed
        )
        return "bad", f"Exit 1: {', '.join(what or ['not all could be done'])}; all others are safely done"
    level, text = _VERDICTS.get(code, ("bad", "it did not end in order"))
    if code == PolicyStop.exit_code and not summary.stopped:
        text = "a folder of inputs is lost, and its outputs are kept"
    if code == 0 and summary.is_partial:
        text = "only a part of the files was looked at, and nothing of that is left to be done"
    if code == 0 and summary.held:
        text += ", but for those that were dismissed"
    return level, f"Exit {code}: {text}"


# -- the figures -------------------------------------------------------------------------------------------------------


def _bytes(statistics: Statistics) -> dict[str, int]:
    read, written = statistics.bytes_in, statistics.bytes_out
    return {"in": read, "out": written, "saved": read - written}


def _timeline(statistics: Statistics) -> dict[str, Any]:
    timeline = statistics.timeline
    return {
        "start": round(timeline.start, 3),
        "step_s": timeline.step_s,
        "files": timeline.files,
        "failed": timeline.failed,
    }


def _workers(statistics: Statistics, about: Circumstances) -> list[dict[str, Any]]:
    restarts = about.measures.restarts
    return [
        {
            "seat": seat,
            "pool": next((name for name, _, seats in about.pools if seat in seats), ""),
            "busy_s": round(each.busy_s, _DIGITS),
            "files": each.files,
            "restarts": restarts.get(seat, 0),
            "peak_bytes": each.peak_bytes or None,
        }
        for seat, each in sorted(statistics.seats.items())
    ]


def _pools(statistics: Statistics, pools: Sequence[tuple[str, int, range]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "processes": processes,
            "busy_s": round(sum(each.busy_s for seat, each in statistics.seats.items() if seat in seats), _DIGITS),
        }
        for name, processes, seats in pools
    ]


def _stage(name: str, calls: Histogram) -> dict[str, Any]:
    """Return what the calls of a stage took."""
    return {
        "name": name,
        "calls": calls.calls,
        "total_s": round(calls.total_s, _DIGITS),
        "median_s": round(calls.quantile(0.5), _DIGITS),
        "p95_s": round(calls.quantile(0.95), _DIGITS),
        "slowest_s": round(calls.slowest_s, _DIGITS),
        "histogram": [[2 ** (bucket / 4), count] for bucket, count in sorted(calls.counts.items())],
    }


def _sizes(statistics: Statistics) -> list[dict[str, Any]]:
    return [
        {
            "from_bytes": 1 << bits >> 1,
            "to_bytes": 1 << bits,
            "files": each.files,
            "mean_s": round(each.total_s / each.files, _DIGITS),
            "slowest_s": round(each.slowest_s, _DIGITS),
        }
        for bits, each in sorted(statistics.sizes.items())
    ]


def _job(job: JobFigures) -> dict[str, Any]:
    return _name(job.origin) | {
        "stages": list(job.stages),
        "seconds": round(job.seconds, _DIGITS),
        "bytes_in": job.bytes_in,
        "bytes_out": job.bytes_out,
        "peak_bytes": job.peak_bytes,
        "seat": job.seat,
    }


# -- the failures ------------------------------------------------------------------------------------------------------


def _failures(statistics: Statistics) -> list[dict[str, Any]]:
    """Return the groups of failures, that with most files first."""
    groups = statistics.failures.groups
    return [
        {
            "stage": key[0],
            "kind": key[1],
            "reason": key[2],
            "files": group.files,
            "is_new": group.is_new,
            "examples": [_failure(each) for each in group.examples],
        }
        for key, group in sorted(groups.items(), key=lambda each: (-each[1].files, each[0]))
    ]


def _failure(failed: FailedOutput) -> dict[str, Any]:
    return _name(failed.origin) | {
        "stage": failed.stage,
        "kind": failed.kind,
        "text": failed.text,
        "place": failed.place,
        "detail": failed.detail,
        "output": failed.output,
        "seat": failed.seat,
        "is_new": failed.is_new,
    }


def _name(origin: Origin) -> dict[str, Any]:
    """Return the members that name a source, or a group, which has no source, in words."""
    return origin.as_json() | ({"source": str(origin)} if isinstance(origin, Group) else {})
