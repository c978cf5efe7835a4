"""`notify`: whoever is named there is told how runs end, once where something changes, and no run depends on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.heartbeats import Heartbeats, heartbeats
from support.program import Pipeline, pids_in, wait_until, wait_until_gone
from support.project import Project

from pipeline.config.load import load_config
from pipeline.errors import RunHangs
from pipeline.operations import hand_watch
from pipeline.operations.run import run
from pipeline.operations.standing import status_of, verdict_on
from pipeline.operations.telling import Settings, Teller, tell_refused
from pipeline.planning.selection import Selection
from pipeline.report import notify

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
engine: serial
"""
# Waits where the text says so until there is a file `go`.
STAGE = """
import time
from pathlib import Path
HERE = Path(__file__).parent.parent
def upper(text: str) -> str:
    if text == "bad":
        raise ValueError("bad text")
    if text == "wait":
        (HERE / "begun").touch()
        while not (HERE / "go").exists():
            time.sleep(0.01)
    return text.upper()
"""
# Appends one line to the file `told`: what the program was told, as JSON.
TELL = f"""#!{sys.executable}
import json, os, sys
facts = {{key.removeprefix("FILEMILL_"): value for key, value in os.environ.items() if key.startswith("FILEMILL_")}}
with open("told", "a") as file:
    file.write(json.dumps(facts | {{"text": sys.stdin.read(), "argv": sys.argv[1:], "folder": os.getcwd()}}) + "\\n")
"""
EVERY = "[failure, recovery, success, stuck]"
UNTOLD = "warning: notify: "


@pytest.fixture
def server() -> Iterator[Heartbeats]:
    with heartbeats() as found:
        yield found


def project_in(folder: Path, *entries: str) -> Project:
    """A project of one text, with these entries of `notify`."""
    project = Project(folder)
    project.write("pipeline.yaml", YAML + "notify:\n" + "".join(f"  - {each}\n" for each in entries))
    project.write("stages/upper.py", STAGE)
    project.write("tell", TELL).chmod(0o755)
    project.write("in/a", "a")
    return project


def told(project: Project) -> list[dict[str, object]]:
    file = project.folder / "told"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def events(project: Project) -> list[str]:
    return [f"{each['EVENT']} {each['EXIT']}" for each in told(project)]


# -- nights ------------------------------------------------------------------------------------------------------------


def test_a_week_of_nights(tmp_path: Path, pipeline: Pipeline, server: Heartbeats) -> None:
    """A program is told what is new; a heartbeat is sent every night, also by one that has nothing to do."""
    project = project_in(
        tmp_path, f"{{on: {EVERY}, argv: [./tell]}}", "{on: [success], argv: [./tell, each], always: true}",
        f"ping: {server.url}/a",
    )  # fmt: skip
    nights = (("", 0), ("", 0), ("bad", 1), ("", 1), ("good", 0), ("", 0))
    for text, code in nights:
        if text:
            project.write("in/b", text)
        ended = pipeline("pipeline.yaml")
        assert ended.returncode == code and UNTOLD not in ended.stderr
    of_every_night = [each for each in told(project) if each["argv"] == ["each"]]
    assert [each["EVENT"] for each in of_every_night] == ["success"] * 4
    once = [f"{each['EVENT']} {each['EXIT']}" for each in told(project) if not each["argv"]]
    assert once == ["success 0", "failure 1", "recovery 0"]
    assert server.paths == [
        "/a/start", "/a",
        "/a",  # nothing was new, and nobody measures how long that took
        "/a/start", "/a/fail",
        "/a/start", "/a/fail",
        "/a/start", "/a",
        "/a",
    ]  # fmt: skip
    ids = [each.rid for each in server.beats]
    assert ids[0] == ids[1] and ids[3] == ids[4] and len(set(ids)) == len(nights)
    assert server.beats[4].body.startswith("exit 1\npipeline: 1 up to date, 1 failed")
    assert "b (up): ValueError: bad text" in server.beats[4].body
    assert (tmp_path / ".pipeline/pipeline/quiet-runs").read_text().count("\n") == 1


def test_what_a_program_is_told(tmp_path: Path, pipeline: Pipeline) -> None:
    """The facts in its environment, the summary on stdin; in a folder whose name is as odd as it may be."""
    folder = tmp_path / "odd\n\x1b[1m ‮;$(x)"
    folder.mkdir()
    project = project_in(folder, f"{{on: {EVERY}, argv: [./tell, '$HOME', 'a b', '${{HOME}}']}}")
    project.write("in/b\n\x1b", "bad")
    assert pipeline("pipeline.yaml", cwd=folder).returncode == 1
    (found,) = told(project)
    state = folder / ".pipeline/pipeline"
    (log,) = (state / "runs").glob("*.log")
    assert found.pop("text").startswith("pipeline: 1 done, 1 failed (2 files, ")  # type: ignore[attr-defined]
    assert found == {
        "EVENT": "failure", "PIPELINE": "pipeline", "EXIT": "1", "RUN": log.stem, "YAML": str(folder / "pipeline.yaml"),
        "STATE": str(state), "LOG": str(log), "REPORT": found["REPORT"], "DONE": "1", "FAILED": "1",
        "NEW_FAILED": found["NEW_FAILED"], "HELD": "0", "argv": ["$HOME", "a b", os.environ["HOME"]],
        "folder": str(folder),
    }  # fmt: skip
    os.unlink(folder / "in/b\n\x1b")
    for _ in range(2):  # the second by the note of the first
        assert pipeline("pipeline.yaml", cwd=folder).returncode == 0
    assert told(project)[1]["EVENT"] == "recovery" and told(project)[1]["STATE"] == str(state)


def test_a_change_of_notify_makes_nothing_anew(tmp_path: Path, pipeline: Pipeline, server: Heartbeats) -> None:
    """And the next night, which has nothing to do, tells by the new words."""
    project = project_in(tmp_path, f"ping: {server.url}/old")
    for _ in range(2):
        assert pipeline("pipeline.yaml").returncode == 0
    project.edit("pipeline.yaml", "/old", "/new")
    ended = json.loads(pipeline("run", "--json").stdout)
    assert (ended["done"], ended["up_to_date"]) == (0, 1)
    for _ in range(2):
        assert pipeline("pipeline.yaml").returncode == 0
    assert server.paths == ["/old/start", "/old", "/old", "/new/start", "/new", "/new", "/new"]
    project.edit("pipeline.yaml", f"  - ping: {server.url}/new\n", "")
    project.edit("pipeline.yaml", "notify:\n", "")
    for _ in range(2):
        assert pipeline("pipeline.yaml").returncode == 0
    assert len(server.beats) == 7


# -- what cannot be told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "code"), [("good", 0), ("bad", 1)])
def test_what_cannot_be_told_is_a_warning_and_no_more(
    tmp_path: Path, pipeline: Pipeline, server: Heartbeats, text: str, code: int
) -> None:
    """Outputs and exit code are as ever, the others are told, and the program is told by the next night."""
    project = project_in(
        tmp_path, f"{{on: {EVERY}, argv: [./later]}}", "ping: 'http://127.0.0.1:1/secret'", f"ping: {server.url}/a",
        f"{{on: {EVERY}, argv: [./tell, '${{NOT_SET}}']}}", f"{{on: {EVERY}, argv: [./tell]}}",
    )  # fmt: skip
    project.write("in/b", text)
    for night in (1, 2):
        ended = pipeline("pipeline.yaml")
        assert ended.returncode == code and (tmp_path / "out/a").read_text() == "A"
        warnings = [line for line in ended.stderr.splitlines() if line.startswith("warning: ")]
        assert warnings == [
            f"{UNTOLD}argv {tmp_path}/later: cannot be started: No such file or directory",
            f"{UNTOLD}ping http://127.0.0.1:1: did not get through: Connection refused",
            f"{UNTOLD}argv {tmp_path}/tell: the environment has no NOT_SET",
        ]
        assert len(told(project)) == 1 and len(server.beats) == (2 if night == 1 else 3 if code == 0 else 4)
    shutil.copy(tmp_path / "tell", tmp_path / "later")
    assert pipeline("pipeline.yaml").returncode == code and len(told(project)) == 2


def test_a_server_that_hangs_costs_its_time_and_no_more(
    tmp_path: Path, server: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is sent during the run, and both are given up: one warning."""
    monkeypatch.setattr(notify, "PING_LIMIT_S", 1.0)
    project = project_in(tmp_path, f"ping: {server.url}/secret")
    server.hangs = True
    summary = project.run()
    assert (summary.exit, summary.done) == (0, 1)
    assert summary.untold == [f"notify: ping {server.url}: did not get through: no answer in time"]
    assert server.paths == ["/secret/start", "/secret"]


@pytest.mark.processes
def test_a_program_that_hangs_delays_the_end_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed with all that it has started."""
    monkeypatch.setattr(notify, "ARGV_LIMIT_S", 2)
    project = project_in(tmp_path, f"{{on: {EVERY}, argv: [./hang]}}")
    project.write("hang", "#!/bin/sh\necho $$ >> pids\n(echo $$ >> pids; exec sleep 600) & sleep 600\n").chmod(0o755)
    summary = project.run()
    assert summary.exit == 0
    assert summary.untold == [f"notify: argv {tmp_path}/hang: took longer than 2 s, and was killed"]
    wait_until_gone(pids_in(tmp_path / "pids", 2))


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_does_not_wait_for_it_changes_no_exit_code(tmp_path: Path, number: int) -> None:
    """Ctrl-C while a program is told ends the telling; what was made is made."""
    project = project_in(tmp_path, f"{{on: {EVERY}, argv: [./hang]}}")
    project.write("hang", "#!/bin/sh\necho $$ >> pids\nexec sleep 600\n").chmod(0o755)
    command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        pids = pids_in(tmp_path / "pids", 1)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and said == f"{UNTOLD}not everybody was told, since it was interrupted\n"
    wait_until_gone(pids)


def test_secrets_are_kept_nowhere(tmp_path: Path, pipeline: Pipeline, server: Heartbeats) -> None:
    """Neither in the state folder nor in what is printed, whether all is well or nothing gets through."""
    project = project_in(tmp_path, "ping: '${PING_URL}'", f"{{on: {EVERY}, argv: [./tell, 'Bearer ${{TOKEN}}']}}")
    secrets = {"PING_URL": f"{server.url}/correct-horse", "TOKEN": "battery-staple"}
    said = ""
    for text in ("good", "", "bad", "good", "wrong"):
        if text == "wrong":
            secrets["PING_URL"] = "https://correct-horse.invalid/correct-horse"
            (tmp_path / "tell").chmod(0o644)
            project.write("in/b", "bad")
        elif text:
            project.write("in/b", text)
        ended = pipeline("pipeline.yaml", **secrets)
        said += ended.stdout + ended.stderr
    assert server.paths.count("/correct-horse/fail") == 1 and told(project)[0]["argv"] == ["Bearer battery-staple"]
    assert said.count(UNTOLD) == 2 and "ping ${PING_URL}: did not get through" in said
    state = {file: file.read_bytes() for file in (tmp_path / ".pipeline").rglob("*") if file.is_file()}
    assert {"told.json", "reading.seal", "ledger.sqlite", "progress.json"} <= {file.name for file in state}
    for secret in ("correct-horse", "battery-staple"):
        assert secret not in said and not [file for file, data in state.items() if secret.encode() in data]


# -- runs that do not come to their end --------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_run_that_is_killed_has_a_start_and_no_end(tmp_path: Path, server: Heartbeats) -> None:
    """That is what a monitor of heartbeats waits for; the next run has an id of its own."""
    project = project_in(tmp_path, f"ping: {server.url}/a", f"{{on: {EVERY}, argv: [./tell]}}")
    project.write("in/b", "wait")
    command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, process_group=0) as process:
        wait_until((tmp_path / "begun").exists)
        server.wait_for(1)
        os.killpg(process.pid, signal.SIGKILL)
    project.write("go", "")
    subprocess.run(command, cwd=tmp_path, check=True)
    assert server.paths == ["/a/start", "/a/start", "/a"] and events(project) == ["success 0"]
    assert server.beats[0].rid != server.beats[1].rid == server.beats[2].rid


@pytest.mark.processes
def test_a_run_that_a_person_stops_has_not_failed(tmp_path: Path, server: Heartbeats) -> None:
    """The monitor gets it as a message; nobody else is told, and a second run meanwhile tells nothing at all."""
    project = project_in(tmp_path, f"ping: {server.url}/a", f"{{on: {EVERY}, argv: [./tell]}}")
    project.write("in/b", "wait")
    command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_until((tmp_path / "begun").exists)
        server.wait_for(1)
        assert subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE).returncode == 75
        process.send_signal(signal.SIGTERM)
        project.write("go", "")
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert server.paths == ["/a/start", "/a/log"] and server.beats[1].body.startswith("exit 143\n")
    assert events(project) == []


def test_who_leaves_the_outcomes_has_stopped_the_run(tmp_path: Path, server: Heartbeats) -> None:
    """As Ctrl-C does: no alarm, neither by a program nor by `status --check`."""
    project = project_in(tmp_path, f"ping: {server.url}/a", f"{{on: {EVERY}, argv: [./tell]}}")
    assert project.run().exit == 0
    project.write("in/b", "text")
    summary = run(load_config(tmp_path / "pipeline.yaml"), Selection(), is_followed=lambda: False)
    assert summary.exit == 130 and summary.untold == []
    assert server.paths[2:] == ["/a/start", "/a/log"] and events(project) == ["success 0"]
    assert verdict_on(status_of(str(tmp_path / "pipeline.yaml"))).text.startswith("OK, last success ")
    report = json.loads((tmp_path / ".pipeline/pipeline/reports/report.json").read_text())
    assert report["verdict"]["text"].startswith("Exit 130: stopped by a person; ")


def break_root(project: Project) -> None:
    shutil.rmtree(project.folder / "in")


def break_state(project: Project) -> None:
    (project.folder / ".pipeline/pipeline/lock").unlink()
    (project.folder / ".pipeline/pipeline/lock").mkdir()


def lose_files(project: Project) -> None:
    """All files are gone, which a guard takes for a disk that is not mounted."""
    for each in (project.folder / "in").iterdir():
        each.unlink()


@pytest.mark.parametrize("fault", [break_root, break_state, lose_files])
def test_a_run_that_ends_before_its_first_job_is_told(
    tmp_path: Path, pipeline: Pipeline, server: Heartbeats, fault: object
) -> None:
    """Once, though it is the same every night; and its recovery."""
    project = project_in(tmp_path, f"{{on: {EVERY}, argv: [./tell]}}", f"ping: {server.url}/a")
    for name in "bcdefghijklm":
        project.write(f"in/{name}", name)
    assert pipeline("pipeline.yaml").returncode == 0
    shutil.copytree(tmp_path / "in", tmp_path / "kept")
    fault(project)  # type: ignore[operator]
    for _ in range(2):
        ended = pipeline("pipeline.yaml")
        assert ended.returncode in (3, 4) and "warning" not in ended.stderr
    failure = told(project)[1]
    assert events(project) == ["success 0", f"failure {ended.returncode}"]
    assert str(failure["text"]).splitlines()[0] == ended.stderr.splitlines()[0]
    assert server.paths[2:] == (["/a/start", "/a/fail"] if fault is lose_files else ["/a/fail"]) * 2
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    (tmp_path / "kept").rename(tmp_path / "in")
    if stat.S_ISDIR((tmp_path / ".pipeline/pipeline/lock").stat().st_mode):
        (tmp_path / ".pipeline/pipeline/lock").rmdir()
    assert pipeline("pipeline.yaml").returncode == 0 and events(project)[-1] == "recovery 0"


def test_a_bug_is_told(tmp_path: Path, server: Heartbeats) -> None:
    """Without its text, which may be of anything; what cannot be told of it is said with it."""
    project = project_in(
        tmp_path, f"{{on: {EVERY}, argv: [./tell]}}", f"ping: {server.url}/a", "ping: 'http://127.0.0.1:1'"
    )
    assert project.run().exit == 0
    settings = Settings.of(load_config(tmp_path / "pipeline.yaml"))
    with pytest.raises(ZeroDivisionError) as caught, Teller(settings, is_whole=True):
        raise ZeroDivisionError("secret")
    assert events(project) == ["success 0", "failure 70"] and server.paths[-1] == "/a/fail"
    assert "secret" not in server.beats[-1].body
    assert caught.value.__notes__ == ["notify: ping http://127.0.0.1:1: did not get through: Connection refused"]


def test_another_run_that_hangs_is_told_once(tmp_path: Path) -> None:
    """Whoever is locked out by it every hour finds it so every hour."""
    project = project_in(tmp_path, f"{{on: {EVERY}, argv: [./tell]}}", "{on: [failure], argv: [./tell, other]}")
    config = load_config(tmp_path / "pipeline.yaml")
    (tmp_path / ".pipeline/pipeline").mkdir(parents=True)
    for _ in range(2):
        error = RunHangs("the run of 02:30 has not moved since 02:41")
        tell_refused(config, error)
        assert not hasattr(error, "__notes__")
    assert sorted(events(project)) == ["failure 3", "stuck 3"]
    assert {each["text"] for each in told(project)} == {"the run of 02:30 has not moved since 02:41\n"}
    shutil.rmtree(tmp_path / ".pipeline")


# -- which runs, and which files ---------------------------------------------------------------------------------------


def test_a_part_of_the_files_is_no_night(tmp_path: Path, pipeline: Pipeline, server: Heartbeats) -> None:
    """What fails in it is told; that it went well says nothing about the others. A sample is a person's trial."""
    project = project_in(tmp_path, f"{{on: {EVERY}, argv: [./tell], always: true}}", f"ping: {server.url}/a")
    assert pipeline("--only", "a").returncode == 0 and pipeline("--limit", "1").returncode == 0
    project.write("in/b", "bad")
    assert pipeline("--sample", "2", "--output-root", "sample").returncode == 1
    assert events(project) == [] and server.paths == []
    assert pipeline("--only", "b").returncode == 1
    assert events(project) == ["failure 1"] and server.paths == ["/a/fail"]
    assert pipeline("--only", "a").returncode == 0 and len(told(project)) == 1


def test_a_file_that_is_left_for_the_next_run_has_not_recovered(tmp_path: Path, pipeline: Pipeline) -> None:
    """Somebody may be writing to it; whoever was told that it fails is told once it is made, or dismissed."""
    project = project_in(tmp_path, f"{{on: {EVERY}, argv: [./tell]}}")
    bad = project.write("in/b", "bad")
    assert pipeline("pipeline.yaml").returncode == 1
    project.edit("pipeline.yaml", "inputs: in", "inputs: {root: in, settle: 1h}")
    os.utime(tmp_path / "in/a", (1e9, 1e9))
    os.utime(bad)
    assert pipeline("pipeline.yaml").returncode == 0
    assert events(project) == ["failure 1"]
    os.utime(bad, (1e9, 1e9))
    assert pipeline("pipeline.yaml").returncode == 1
    assert pipeline("failures", "--dismiss", "b").returncode == 0
    assert pipeline("pipeline.yaml").returncode == 0
    assert events(project) == ["failure 1", "failure 1", "recovery 0"]


def test_a_file_that_is_stuck_is_told_while_the_run_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes, shortened here; once in a run."""
    monkeypatch.setattr(hand_watch, "SLOW_S", 0.1)
    monkeypatch.setattr(hand_watch, "_EVERY_S", 0.02)
    project = project_in(tmp_path, "{on: [stuck], argv: [./tell]}", "{on: [failure], argv: [./tell]}")
    project.edit("pipeline.yaml", "serial", "pool\npool: {processes: 2}")
    project.write("in/b", "wait")
    project.write("in/c", "wait")
    project.write("tell", f"{TELL}open('go', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    summary = run(load_config(tmp_path / "pipeline.yaml"), Selection())
    assert summary.exit == 0 and summary.untold == []
    (found,) = told(project)
    assert (found["EVENT"], found["EXIT"], found["RUN"]) == ("stuck", "", summary.run)
    assert re.match(r"[bc]: in hand for \d s \(stage 'up', process \d+\)", str(found["text"]))


def test_nobody_pays_for_what_he_does_not_use(tmp_path: Path) -> None:
    """Without the words nothing is imported for them; with a program neither HTTP nor Prometheus is."""
    command = [sys.executable, "-X", "importtime", "-m", "pipeline", "pipeline.yaml"]
    for entries, expected in (([], set()), ([f"{{on: {EVERY}, argv: ['true']}}"], {"pipeline.operations.telling"})):
        folder = tmp_path / str(len(entries))
        folder.mkdir()
        project = project_in(folder, *entries)
        if not entries:
            project.edit("pipeline.yaml", "notify:\n", "")
        for _ in range(3):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
            ours = {"pipeline.operations.telling", "pipeline.report.notify", "pipeline.report.metrics"} & imported
            assert ours == (expected and expected | {"pipeline.report.notify", "pipeline.report.metrics"})
            assert not {"urllib.request", "http.client", "ssl", "prometheus_client"} & imported
        assert (folder / ".pipeline/pipeline/quiet-runs").exists()


@pytest.mark.processes
@pytest.mark.parametrize("engine", ["serial", "pool\npool: {context: fork, processes: 2}"])
def test_a_start_delays_nothing(tmp_path: Path, server: Heartbeats, engine: str) -> None:
    """The first job begins while the address has not answered; the end waits for it no longer than it may take."""
    project = project_in(tmp_path, f"ping: {server.url}/a")
    project.edit("pipeline.yaml", "serial", engine)
    project.write("in/b", "wait")
    server.hangs = True
    command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_until((tmp_path / "begun").exists)
        began = time.monotonic()
        server.wait_for(1)
        server.hangs = False
        server.has_ended.set()
        project.write("go", "")
        process.communicate(timeout=60)
    assert process.returncode == 0 and server.paths == ["/a/start", "/a"]
    assert time.monotonic() - began < notify.PING_LIMIT_S
