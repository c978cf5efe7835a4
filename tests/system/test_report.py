"""The report that a run leaves: what is in it, when there is one, and what its failure costs, which is nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.mounts import bound, mounted
from support.pictures import encode, paint
from support.program import ROOT, Pipeline, wait_until
from support.project import Project

from pipeline.operations import report as report_writer
from pipeline.report import html, samples
from pipeline.report.summary import Summary

STATE = ".pipeline/pipeline"
YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
  - {name: first, uses: upper, from: inputs, with: {mark: '!'}, output: 'out/first/{name}'}
pool: {processes: 2}
errors: {hold_after: 2}
"""
MOODY = '''
import os, signal
from pathlib import Path
from pipeline import Skip
def upper(text: str, *, mark: str = "") -> str:
    """Shout."""
    if text.startswith("skip"):
        raise Skip("not wanted")
    if text.startswith("bad"):
        print("about to fail")
        raise ValueError(f"bad text: {text!r}")
    if text.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return text.upper() + mark
'''
SLOW = """
import time
def slow(text: str, *, hang: str = "hang") -> str:
    time.sleep(60 if text == hang else 0.1)
    if text == "bad":
        raise ValueError("bad")
    return text.upper()
"""
BLOCKS_JINJA = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "jinja2":
            raise ModuleNotFoundError("No module named 'jinja2'", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path, YAML)
    made.write("stages/upper.py", MOODY)
    return made


def reports(project: Project) -> Path:
    return project.folder / STATE / "reports"


def read(project: Project, name: str = "report.json") -> Any:
    return json.loads((reports(project) / name).read_text("utf-8"))


def page(project: Project) -> str:
    return (reports(project) / "latest.html").read_text("utf-8")


@pytest.mark.processes
def test_every_figure_is_what_the_run_did(project: Project, pipeline: Pipeline) -> None:
    """A night with files that are made, fail, crash their worker and are left out; and the night after."""
    texts = {f"{number:02}": "x" * number for number in range(1, 21)}
    texts |= {"bad1": "bad one", "bad2": "bad two", "crash": "crash", "skip": "skip"}
    for name, text in texts.items():
        project.write(f"in/{name}", text)
    ended = pipeline("--json", "--set", "errors.hold_after=3")
    summary, found = json.loads(ended.stdout), read(project)
    assert ended.returncode == found["exit"] == 1
    state = project.folder / STATE
    assert found["format"] == 1 and (found["pipeline"], found["number"]) == ("pipeline", 1)
    assert found["run"] == summary["run"] and found["options"] == ["errors.hold_after=3"]
    assert found["yaml"] == str(project.folder / "pipeline.yaml") and found["state"] == str(state)
    assert found["log"] == str(state / f"runs/{found['run']}.log") and Path(found["log"]).exists()
    assert found["host"] == os.uname().nodename and set(found["versions"]) == {"filemill", "python"}
    assert 0 < found["seconds"] < found["ended"] - found["started"] + 1
    assert found["verdict"]["level"] == "bad" and "6 outputs failed" in found["verdict"]["text"]
    counts = {"sources": 24, "done": 40, "failed": 6, "skipped": 2, "up_to_date": 0, "held": 0}
    assert found["counts"] | counts == found["counts"]
    assert {key: summary[key] for key in counts} == counts
    # Bytes of what was made: each source once, and its two outputs, the second of which has a mark.
    made = sum(range(1, 21))
    assert found["bytes"] == {"in": made, "out": 2 * made + 20, "saved": -made - 20}
    timeline = found["timeline"]
    assert (sum(timeline["files"]), sum(timeline["failed"])) == (24, 3)
    assert found["processes"] == 2 and sum(each["files"] for each in found["workers"]) == 24
    assert len({each["seat"] for each in found["workers"]}) == len(found["workers"])
    assert 0 < sum(each["busy_s"] for each in found["workers"]) < 2 * found["seconds"]
    assert sum(each["files"] for each in found["sizes"]) == 24
    for each in found["sizes"]:
        inside = [text for text in texts.values() if each["from_bytes"] <= len(text) < each["to_bytes"]]
        assert each["files"] == len(inside) and 0 <= each["mean_s"] <= each["slowest_s"]
    assert [each["bytes_in"] for each in found["biggest"]] == sorted(map(len, texts.values()), reverse=True)[:20]
    assert len(found["slowest"]) == 20 and found["slowest"][0]["seconds"] == max(
        each["seconds"] for each in found["slowest"]
    )
    groups = {(each["stage"], each["kind"], each["reason"]): each for each in found["failures"]}
    assert {key: (each["files"], each["is_new"]) for key, each in groups.items()} == {
        ("up", "error", "ValueError"): (2, True), ("first", "error", "ValueError"): (2, True),
        ("up", "crashed", groups_reason(groups, "up")): (1, True),
        ("first", "crashed", groups_reason(groups, "first")): (1, True),
    }  # fmt: skip
    example = groups["up", "error", "ValueError"]["examples"][0]
    assert example["source"] in ("bad1", "bad2") and example["text"].startswith("ValueError: bad text: 'bad ")
    assert 'raise ValueError(f"bad text' in example["detail"] and "about to fail" in example["output"]
    assert example["is_new"] and example["seat"] in {each["seat"] for each in found["workers"]}
    assert sorted({each["source"] for each in found["new"]["failures"]}) == ["bad1", "bad2", "crash"]
    assert {"action": "make", "reason": "new", "outputs": 48} in found["plan"]
    (this,) = found["runs"]
    assert (this["run"], this["number"], this["exit"], this["done"], this["failed"]) == (found["run"], 1, 1, 40, 6)
    assert this["bytes_out"] == found["bytes"]["out"] and this["seconds"] == found["seconds"]
    for diff in found["diffs"]:
        assert texts[diff["source"]].upper() in "".join(text for sign, text in diff["lines"] if sign == "+")
    assert len(found["diffs"]) == 6 and found["gallery"] == []

    project.write("in/bad1", "good now")
    assert pipeline().returncode == 1
    after = read(project)
    assert (after["number"], after["counts"]["done"], after["counts"]["up_to_date"]) == (2, 2, 42)
    assert after["bytes"] == {"in": 8, "out": 17, "saved": -9}
    assert after["new"]["failures"] == [] and not any(each["is_new"] for each in after["failures"])
    assert [each["number"] for each in after["runs"]] == [1, 2]
    assert {"action": "up-to-date", "reason": "up to date", "outputs": 40} in after["plan"]
    first = read(project, f"{found['run']}.json")
    assert first == found, "the report of a run stays as it was"


def test_files_that_pass_through_several_pools(project: Project, pipeline: Pipeline) -> None:
    """Each counts once, with the seconds of all pools and those lost with a worker; no two workers have one number."""
    project.write("stages/slow.py", SLOW)
    own = "pool: {processes: 1}"
    stages = f"""inputs: in
timeout: 0.5s
pool: {{processes: 2}}
stages:
  - {{name: first, uses: slow, from: inputs, with: {{hang: "no"}}, output: 'out/first/{{name}}'}}
  - {{name: heavy, uses: slow, from: inputs, {own}, output: 'out/heavy/{{name}}'}}
  - {{name: large, uses: slow, from: first, {own}, with: {{hang: "no"}}, output: 'out/large/{{name}}'}}
"""
    (project.folder / "pipeline.yaml").write_text(stages)
    for name, text in (("a", "fine"), ("b", "bad"), ("c", "hang")):
        project.write(f"in/{name}", text)
    assert pipeline().returncode == 1
    found = read(project)
    assert sum(found["timeline"]["files"]) == 3 and sum(found["timeline"]["failed"]) == 2
    assert found["bytes"]["in"] == len("fine" + "hang") and sum(each["files"] for each in found["sizes"]) == 3
    slowest = {each["source"]: each for each in found["slowest"]}
    assert len(slowest) == len(found["slowest"]) == len(found["biggest"]) == 3
    assert found["slowest"][0]["source"] == "c" and slowest["c"]["seconds"] > 0.6
    assert set(slowest["a"]["stages"]) == {"first", "heavy", "large"} and slowest["a"]["seconds"] > 0.3
    workers = {each["pool"]: each for each in found["workers"]}
    seats = [each["seat"] for each in found["workers"]]
    assert set(workers) == {"", "heavy", "large"} and len(set(seats)) == len(seats)
    assert [(each["name"], each["processes"]) for each in found["pools"]] == [("", 2), ("heavy", 1), ("large", 1)]
    assert found["pools"][1]["busy_s"] > 0.6
    assert sum(each["restarts"] for each in found["workers"] if each["pool"] == "heavy") == 1
    shown = json.loads(pipeline("runs", "show", "--slowest", "5", "--json").stdout)
    seconds = {each["source"]: each["seconds"] for each in shown["slowest"]}
    assert set(seconds) == {"a", "c"} and 0.3 < seconds["a"] == pytest.approx(slowest["a"]["seconds"], abs=1e-4)


def groups_reason(groups: dict[tuple[str, str, str], Any], stage: str) -> str:
    return next(reason for of, kind, reason in groups if (of, kind) == (stage, "crashed"))


def test_reports_are_private_and_whole(project: Project, pipeline: Pipeline) -> None:
    """They show what their run read, which others may not be allowed to; nothing else lies beside them."""
    project.write("in/a", "text")
    assert pipeline().returncode == 0
    run = read(project)["run"]
    modes = {each.name: oct(each.stat().st_mode & 0o777) for each in reports(project).iterdir()}
    assert modes == dict.fromkeys((f"{run}.html", f"{run}.json", "latest.html", "report.json"), "0o600")
    assert (reports(project) / f"{run}.html").read_bytes() == page(project).encode()


def test_a_night_without_news_leaves_none(project: Project, pipeline: Pipeline) -> None:
    """Neither one in which all is up to date, nor one in which there are only files that are held."""
    project.write("in/a", "text")
    assert pipeline().returncode == 0
    before = sorted(reports(project).iterdir())
    for arguments in ([], ["--limit", "1"], ["--set", "pool.processes=1"]):
        assert pipeline(*arguments).returncode == 0
        assert sorted(reports(project).iterdir()) == before
    project.write("in/bad", "bad")
    for _ in range(2):
        assert pipeline().returncode == 1
    before = sorted(reports(project).iterdir())
    pipeline()
    assert sorted(reports(project).iterdir()) == before and len(before) == 8


def test_the_reports_of_thirty_runs_are_kept(tmp_path: Path) -> None:
    """And what a person has put beside them."""
    project = Project(tmp_path)
    mine = project.write(f"{STATE}/reports/mine.html", "mine")
    project.write(f"{STATE}/id", "0123456789abcdef\n")
    runs = []
    for number in range(33):
        project.write("in/a", f"text {number}")
        runs.append(project.run().run)
    names = {each.name for each in reports(project).iterdir()}
    kept = {f"{run}.{suffix}" for run in runs[-30:] for suffix in ("html", "json")}
    assert names == kept | {"latest.html", "report.json", mine.name}
    assert [each["run"] for each in read(project)["runs"]] == runs[-30:]


def stopped_by_signal(project: Project) -> tuple[int, str]:
    slow = "import time\ndef upper(text: str, *, mark: str = '') -> str:\n    time.sleep(0.1)\n    return text\n"
    project.write("stages/upper.py", slow)
    for number in range(200):
        project.write(f"in/{number}", "x")
    run = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.DEVNULL)
    wait_until(lambda: list((project.folder / "out").glob("[0-9]*")))
    run.send_signal(signal.SIGTERM)
    return run.wait(60), "by SIGTERM"


def stopped_by_errors(project: Project) -> tuple[int, str]:
    for number in range(5):
        project.write(f"in/{number}", "bad")
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", "--set", "errors.max=1"], cwd=project.folder, stderr=subprocess.PIPE
    )
    return ended.returncode, "errors.max is 1"


def refused(project: Project) -> tuple[int, str]:
    """An output folder that somebody else has claimed."""
    project.write("in/a", "a")
    project.write("out/.filemill", '{"state": "0123456789abcdef"}')
    ended = subprocess.run([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.PIPE)
    return ended.returncode, ""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("end", "exit_code"),
    [(stopped_by_signal, 143), (stopped_by_errors, 4), (refused, 2)],
    ids=["by a signal", "by errors", "refused"],
)
def test_a_run_that_did_not_come_to_its_end_leaves_one(project: Project, end: Any, exit_code: int) -> None:
    """It says why, and what to do."""
    code, why = end(project)
    found = read(project)
    assert code == exit_code == found["exit"] and why in found["stopped"] and found["stopped"]
    assert found["verdict"]["next"] and str(exit_code) in found["verdict"]["text"]
    assert found["runs"][-1]["exit"] == exit_code
    assert page(project)


def test_what_a_plan_refuses_is_told(project: Project, pipeline: Pipeline) -> None:
    """Though no job was handed out."""
    project.write("in/b", "b")
    assert pipeline().returncode == 0
    project.write("in/a", "a")
    project.write("out/a", "mine")
    project.write("out/first/a", "mine")
    assert pipeline().returncode == 1
    found = read(project)
    assert {(each["stage"], each["kind"], each["files"]) for each in found["failures"]} == {
        ("up", "collision", 1), ("first", "collision", 1),
    }  # fmt: skip
    assert len(found["new"]["failures"]) == 2 and found["processes"] in (0, 2)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_full_disk_costs_one_warning(project: Project, pipeline: Pipeline, tmp_path: Path) -> None:
    """No half file is left, and the exit code and the outputs are as they would be."""
    project.write("in/a", "text")
    assert pipeline().returncode == 0
    before = {each.name: each.read_bytes() for each in reports(project).iterdir()}
    with mounted("tmpfs", tmp_path) as place, bound(place, reports(project)):
        for name, data in before.items():
            (place / name).write_bytes(data)
        with open(place / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(b"x" * 4096)
        project.write("in/b", "text")
        ended = pipeline("-v")
        assert ended.returncode == 0 and (project.folder / "out/b").read_text() == "TEXT"
        files = {each.name: each.read_bytes() for each in place.iterdir() if each.name != "filler"}
        assert files == before
        said = "".join(log.read_text() for log in (project.folder / STATE / "runs").iterdir())
        (warning,) = [line for line in said.splitlines() if line.startswith("the report was not written: ")]
        assert "/reports: no space left on device (tmpfs at" in warning
        assert "Traceback" in said


@pytest.mark.parametrize("kind", ["a link", "a dangling link", "a file", "a FIFO"])
def test_what_is_no_folder_of_reports_costs_one_warning(project: Project, pipeline: Pipeline, kind: str) -> None:
    """Nothing is written or removed behind it, the next run goes on, and readers find no report."""
    project.write("in/a", "text")
    assert pipeline().returncode == 0
    (name,) = (each.stem for each in reports(project).glob("2*.json"))
    theirs = reports(project).rename(project.folder / "theirs")
    before = sorted(theirs.iterdir())
    if kind == "a FIFO":
        os.mkfifo(reports(project))
    elif kind == "a file":
        reports(project).write_text("mine")
    else:
        reports(project).symlink_to(theirs if kind == "a link" else "nowhere")
    project.write("in/b", "text")
    ended = pipeline()
    assert ended.returncode == 0 and (project.folder / "out/b").read_text() == "TEXT"
    assert ended.stderr.count("the report was not written: ") == 1 and f"{STATE}/reports" in ended.stderr
    assert sorted(theirs.iterdir()) == before
    assert pipeline().returncode == 0
    assert "there is no report in " in pipeline("report").stderr
    assert "report: none" in pipeline("runs", "show", name).stdout


def run_on(folder: Path) -> tuple[Project, Summary]:
    project = Project(folder)
    project.write("in/a", "text")
    return project, project.run()


def test_a_template_that_raises_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON is written; the page of an earlier run does not pass for this one's."""
    project, _ = run_on(tmp_path)
    assert page(project)
    monkeypatch.setattr(html, "render", lambda report: report["no such key"])
    project.write("in/b", "text")
    summary = project.run()
    assert summary.exit == 0 and [note for note in summary.notes if "KeyError" in note] == summary.notes
    assert summary.report == str(reports(project) / f"{summary.run}.json")
    assert not (reports(project) / "latest.html").exists()
    assert 'lambda report: report["no such key"]' in Path(summary.log).read_text()
    assert read(project)["run"] == summary.run


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_process_that_dies_or_hangs_over_the_page_costs_one_warning(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with one that decodes pictures; the run itself goes on."""
    monkeypatch.setattr(report_writer, "_LIMIT_S", 0.5)
    ways = {"dies": lambda report: os.kill(os.getpid(), signal.SIGKILL), "hangs": lambda report: time.sleep(1000)}
    monkeypatch.setattr(html, "render", ways[how])
    _, summary = run_on(tmp_path)
    assert summary.exit == 0 and len(summary.notes) == 1 and "the process that was to make it died" in summary.notes[0]
    assert summary.report.endswith(".json")


def test_a_decoder_that_dies_costs_the_samples_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a damaged file may have it do; the page is made without them, and nothing need be said but in the log."""
    monkeypatch.setattr(samples, "make_samples", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    project, summary = run_on(tmp_path)
    assert (summary.exit, summary.notes) == (0, [])
    assert page(project) and read(project)["diffs"] == []
    assert "no outputs are shown in the report" in Path(summary.log).read_text()


def test_without_jinja2_the_json_is_written(project: Project, pipeline: Pipeline) -> None:
    """That there is no page is said once, and again only after there was one."""
    blocked = project.write("blocked/sitecustomize.py", BLOCKS_JINJA).parent
    said = []
    without, with_it = f"{blocked}:{ROOT}", str(ROOT)
    for name, path in (("a", without), ("b", without), ("c", with_it), ("d", without)):
        project.write(f"in/{name}", "text")
        ended = pipeline(PYTHONPATH=path)
        assert ended.returncode == 0
        found = read(project)
        assert found["counts"]["done"] == 2
        assert (reports(project) / "latest.html").exists() == (reports(project) / f"{found['run']}.html").exists()
        assert (reports(project) / "latest.html").exists() == (path == with_it)
        log = (project.folder / STATE / f"runs/{found['run']}.log").read_text()
        said.append("pip install 'filemill[report]'" in log)
    assert said == [True, False, False, True]


def test_pictures_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the page and not in the JSON; a source that is gone meanwhile is left out."""
    monkeypatch.setattr(report_writer, "_PICTURES_LEAST_S", 60.0)
    stage = "{name: web, uses: resize, with: {width: 90}, output: 'out/{stem}.jpg'}"
    project = Project(tmp_path, f"inputs: in\nstages:\n  - {stage}\nengine: serial\n")
    for number in range(15):
        project.write(f"in/{number:02}.png", encode(paint(300, 200), "PNG"))
    summary = project.run()
    assert (summary.done, summary.exit) == (15, 0)
    found, shown = read(project), page(project)
    assert len(found["gallery"]) == 12 and found["diffs"] == []
    for entry in found["gallery"]:
        assert entry["output"] == f"out/{Path(entry['source']).stem}.jpg" and entry["stage"] == "web"
        size = (tmp_path / "in" / entry["source"]).stat().st_size
        assert entry["before"] == {"width": 300, "height": 200, "bytes": size}
        assert (entry["after"]["width"], entry["after"]["height"]) == (90, 60)
    assert shown.count("data:image/jpeg;base64,") == 24 and len(shown.encode()) < 1_000_000


def test_hostile_names_and_messages(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, markup and surrogates come back from the JSON as they are shown elsewhere."""
    project = Project(tmp_path)
    failing = "def upper(text: str) -> str:\n    raise ValueError('</script>\\udcff\\x1b[2J' + 'x' * 10_000)\n"
    project.write("stages/upper.py", failing)
    names = [b"\xff.txt", b"<img onerror=alert(1)>", "\u202egpj.exe".encode(), b"new\nline\x1b"]
    for name in names:
        project.write(os.fsdecode(b"in/" + name), "text")
    assert project.run().exit == 1
    (group,) = read(project)["failures"]
    assert group["files"] == 4 and all(len(each["text"]) <= 4000 for each in group["examples"])
    shown = {name.decode("utf-8", "backslashreplace") for name in names}
    assert {each["source"] for each in group["examples"]} == shown
    assert page(project)
