"""pipeline/report/document.py: the report as plain data."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.program import ROOT

from pipeline.messages import Group, Histogram, Measures, Outcome, Result, Source
from pipeline.report.document import Circumstances, make_report, without_pictures
from pipeline.report.statistics import Statistics
from pipeline.report.summary import Summary, next_commands

KEYS = {
    "format", "pipeline", "run", "number", "yaml", "state", "log", "host", "versions", "options", "started", "ended",
    "seconds", "exit", "stopped", "notes", "verdict", "counts", "bytes", "new", "timeline", "workers", "pools",
    "processes", "stages", "sizes", "failures", "slowest", "biggest", "gallery", "diffs", "plan", "runs",
}  # fmt: skip


def test_the_page_explains_every_key() -> None:
    rows = "".join(re.findall(r"^\| (`.*?) \|", (ROOT / "docs/report.md").read_text(), re.M))
    assert set(re.findall(r"`(\w+)`", rows)) == KEYS


def report(summary: Summary, statistics: Statistics | None = None) -> Any:
    about = Circumstances(
        number=7, started=1000.0, ended=1002.5, host="host", versions={"filemill": "1"}, options=["a=1"], processes=3,
        pools=[("", 2, range(6)), ("heavy", 1, range(6, 10))],
        plan=[{"action": "make", "reason": "new", "outputs": 1}], runs=[{"run": "r"}], new=[],
        recovered=[(Source(b"a\xff", 1, 1), "web"), (Group("sheet", b"g"), "sheet")],
        measures=Measures({"web": Histogram(3, 1.5, 1.0, {0: 1, -4: 2})}, {1: 4}),
    )  # fmt: skip
    return make_report(summary, statistics or Statistics("seed"), about)


def test_every_key_is_always_there() -> None:
    """Also of a run that was refused before its first job."""
    made = report(Summary(exit=2, stopped="why", cut_off=["a: cut off"], notes=["noted"]))
    assert set(made) == KEYS
    assert (made["seconds"], made["stopped"], made["notes"]) == (2.5, "why", ["a: cut off", "noted"])
    assert made["new"]["recovered"] == [
        {"source": "a\\xff", "source_b64": "Yf8=", "stage": "web"},
        {"source": "group g", "group": "g", "stage": "sheet"},
    ]
    assert made["stages"] == [
        {"name": "web", "calls": 3, "total_s": 1.5, "median_s": 0.545254, "p95_s": 1.0, "slowest_s": 1.0,
         "histogram": [[0.5, 2], [1.0, 1]]}
    ]  # fmt: skip
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(
    ("fields", "level", "said", "commands"),
    [
        ({"exit": 0}, "good", "Exit 0: every output is up to date", []),
        ({"exit": 1, "failed": 2, "new_failed": 1, "held": 3}, "bad",
         "Exit 1: 2 outputs failed, 1 of them new, 3 outputs held from before; all others",
         ["failures", "run --retry-failed"]),
        ({"exit": 1, "failed": 1, "new_failed": 1, "stopped": "its time is up"}, "bad",
         "Exit 1: 1 output failed for the first time; all others",
         ["failures", "run"]),
        ({"exit": 2}, "bad", "Exit 2: refused", ["check"]),
        ({"exit": 3, "held": 1}, "bad", "Exit 3: the machine stopped it part-way",
         ["run", "failures", "run --retry-failed"]),
        ({"exit": 4, "held": 1}, "bad", "Exit 4: a folder of inputs is lost",
         ["plan", "failures", "run --retry-failed"]),
        ({"exit": 4, "failed": 9, "stopped": "x", "remedy": "failures"}, "bad", "Exit 4: a limit of your own",
         ["failures"]),
        ({"exit": 4, "failed": 1, "stopped": "x", "remedy": "prune"}, "bad", "Exit 4: a limit of your own",
         ["prune", "failures"]),
        ({"exit": 5}, "fair", "Exit 5: its time was up", ["run"]),
        ({"exit": 6, "held": 1}, "fair", "Exit 6: no file failed; files are held from earlier runs",
         ["failures", "run --retry-failed"]),
        ({"exit": 0, "held": 1, "dismissed": 1}, "good", "Exit 0: every output is up to date, but", []),
        ({"exit": 0, "is_partial": True}, "good", "Exit 0: only a part of the files was looked at, and", []),
        ({"exit": 143}, "fair", "Exit 143: stopped by SIGTERM", ["run"]),
        ({"exit": 70}, "bad", "Exit 70: it did not end in order", ["run"]),
    ],
)  # fmt: skip
def test_the_verdict_says_what_the_exit_code_means(
    fields: dict[str, Any], level: str, said: str, commands: list[str]
) -> None:
    """With the commands that help, each whole, so that it can be copied."""
    summary = Summary(yaml="/a b/p.yaml", **fields)
    verdict = report(summary)["verdict"]
    assert verdict["level"] == level and verdict["text"].startswith(said)
    words = (each.split(" ", 1) for each in commands)
    whole = [" ".join(["python -m pipeline", verb, "'/a b/p.yaml'", *options]) for verb, *options in words]
    assert verdict["next"] == whole and next_commands(summary) == tuple(whole)


def test_restarts_are_those_of_each_seat() -> None:
    """The most memory of a worker is unknown where none was measured."""
    statistics = Statistics("seed")
    statistics.on_outcome(Outcome(Source(b"a", 10, 1), (Result("web", b"/o", "done"),), 0.5, seat=1))
    assert report(Summary(), statistics)["workers"] == [
        {"seat": 1, "pool": "", "busy_s": 0.5, "files": 1, "restarts": 4, "peak_bytes": None}
    ]


def test_workers_are_told_by_their_pool() -> None:
    """Whose share of the time is that of its own workers."""
    statistics = Statistics("seed")
    for seat, seconds in ((1, 0.5), (6, 1.0), (7, 0.25)):
        statistics.on_outcome(Outcome(Source(b"a", 10, 1), (), seconds, seat=seat))
    made = report(Summary(), statistics)
    assert [(each["seat"], each["pool"]) for each in made["workers"]] == [(1, ""), (6, "heavy"), (7, "heavy")]
    assert made["pools"] == [
        {"name": "", "processes": 2, "busy_s": 0.5}, {"name": "heavy", "processes": 1, "busy_s": 1.25},
    ]  # fmt: skip


def test_the_json_names_the_pictures_and_does_not_hold_them() -> None:
    side = {"data": "data:image/jpeg;base64,AAAA", "width": 1, "height": 2, "bytes": 3}
    made = report(Summary()) | {"gallery": [{"source": "a", "before": side, "after": side}]}
    (entry,) = without_pictures(made)["gallery"]
    assert entry == {"source": "a"} | {key: {"width": 1, "height": 2, "bytes": 3} for key in ("before", "after")}
    assert made["gallery"][0]["before"] == side
