"""What stops a run before it does harm: nothing is written but the state, and one sentence says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import ONE_STAGE, Project, contents_below, ledger_of

from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.operations.guards import Confirmations

REBUILD, TAKE_OVER = Confirmations(rebuild=True), Confirmations(take_over=True)
NAMES = ("a", "b", "sub/c")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three files, made."""
    project = Project(tmp_path)
    for name in NAMES:
        project.write(f"in/{name}", f"text {name}")
    assert project.run().done == 3
    return project


def test_no_changed_byte_of_an_owner_file_stops_a_run(project: Project) -> None:
    """It is a hint: in any of its values, as in `host`, a byte may be another."""
    file = project.folder / "out/.filemill"
    whole = file.read_text()
    for key, value in json.loads(whole).items():
        changed = f"~{str(value)[1:]}" if isinstance(value, str) else value + 1
        file.write_text(json.dumps(json.loads(whole) | {key: changed}))
        assert project.run().up_to_date == 3, key
        assert json.loads(file.read_text())["host"] == os.uname().nodename


# -- disks that are not there ------------------------------------------------------------------------------------------


def test_a_root_without_any_known_file_stops_the_run(project: Project, pipeline: Pipeline) -> None:
    """Exit 3 before a byte: another disk is mounted there, or none; --rebuild says it is meant, once."""
    (project.folder / "in").rename(project.folder / "away")
    project.write("in/other", "x")
    before = contents_below(project.folder / "out")
    ran, planned = pipeline(), pipeline("plan")
    assert ran.returncode == 3 and ran.stdout == "" and contents_below(project.folder / "out") == before
    expected = f"none of the 3 known files is in the input root {project.folder}/in; is its disk mounted?"
    assert ran.stderr == f"{expected} if this is meant, 'run --rebuild' goes on without them\n"
    assert planned.returncode == 0 and f"a run would end with exit code 3: {expected}" in planned.stderr
    assert project.run(confirmed=REBUILD).done == 1
    assert project.run().exit == 0


def test_an_empty_root_that_was_meant_is_no_news(project: Project) -> None:
    """After --rebuild the next night says nothing, and files that come then are done."""
    shutil.rmtree(project.folder / "in")
    (project.folder / "in").mkdir()
    with pytest.raises(EnvironmentFailure, match="none of the 3 known files"):
        project.run()
    with pytest.raises(EnvironmentFailure):  # over a part that could have met any, too
        project.run(limit=5)
    assert project.run(only="a").exit == 0
    assert project.run(confirmed=REBUILD).exit == 0 and project.run().exit == 0
    project.write("in/new", "x")
    assert project.run().done == 1


@pytest.mark.parametrize("link", [False, True])
def test_a_root_that_is_gone_is_the_machines_fault(project: Project, pipeline: Pipeline, link: bool) -> None:
    """Exit 3 where there is a ledger of what was made from it; a mistake in the YAML, exit 2, where there is none.

    What does not need the inputs tells what it knows.
    """
    (project.folder / "in").rename(project.folder / "away")
    if link:
        (project.folder / "in").symlink_to("not-mounted")
    for verb in ("run", "plan"):
        ran = pipeline(verb)
        assert ran.returncode == 3 and "does not exist, and this pipeline has run before" in ran.stderr
    for verb in ("status", "failures", "verify"):
        assert pipeline(verb).returncode == 0
    shutil.rmtree(project.folder / ".pipeline")
    ran = pipeline()
    assert ran.returncode == 2 and "pipeline.yaml:2:9: the input root 'in' does not exist" in ran.stderr


@pytest.mark.parametrize("lost", ["empty", "a link that leads nowhere"])
def test_an_output_folder_without_its_outputs_stops_the_run(project: Project, lost: str) -> None:
    """Exit 3, and no owner file is written into what may be the mount point of a disk that is away."""
    out = project.folder / "out"
    out.rename(project.folder / "away")
    if lost == "empty":
        out.mkdir()
        (out / "lost+found").mkdir()
    else:
        out.symlink_to("nowhere")
    left = os.listdir(out) if out.exists() else None
    how = "empty" if lost == "empty" else "gone"
    expected = rf"output folder .*/(out|nowhere) is {how}, and the ledger knows of 3 outputs"
    with pytest.raises(EnvironmentFailure, match=expected + r" there; is its disk mounted\? .* 'run --rebuild'"):
        project.run()
    assert (os.listdir(out) if out.exists() else None) == left
    with ledger_of(project.folder) as ledger:
        assert ledger._connection.execute("SELECT exit FROM runs ORDER BY id DESC, started DESC").fetchall().count((3,))
    if lost == "a link that leads nowhere":
        out.unlink()
    assert project.run(confirmed=REBUILD).done == 3


def test_a_stage_that_was_just_added_is_no_reason(project: Project) -> None:
    """Its folder is not there yet; nor is that of outputs that were only ever skipped or moved elsewhere."""
    more = "  - {name: more, from: inputs, uses: upper, output: 'more/{dir}/{name}'}\nengine"
    project.edit("pipeline.yaml", "engine", more)
    assert project.run().done == 3
    project.edit("pipeline.yaml", "out/{dir}", "new/{dir}")
    assert project.run().exit == 0


def test_outputs_that_were_removed_by_hand_are_made_anew(project: Project) -> None:
    """Where the owner file is still there, the disk is, too."""
    for name in NAMES:
        (project.folder / "out" / name).unlink()
    assert project.run().done == 3
    (project.folder / "out/.filemill").unlink()
    assert project.run().up_to_date == 3 and (project.folder / "out/.filemill").exists()


@pytest.fixture
def disk(project: Project) -> Iterator[Path]:
    """Another file system in the place of the output folder."""
    place = project.folder / "out"
    place.rename(project.folder / "hidden")
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_another_disk_stops_the_run_unless_it_holds_what_was_made(project: Project, disk: Path) -> None:
    """A disk that was mounted anew has another number: what was made is there then. A foreign one has nothing of it."""
    (disk / "something").write_text("of somebody else's")
    with pytest.raises(EnvironmentFailure, match="is on another disk than it was, without what was made in it"):
        project.run()
    assert os.listdir(disk) == ["something"]
    shutil.copytree(project.folder / "hidden", disk, dirs_exist_ok=True)
    summary = project.run()
    assert summary.up_to_date == 3 and any("on another device" in note for note in summary.notes)
    assert project.run().notes == []


# -- a lost ledger -----------------------------------------------------------------------------------------------------


def test_outputs_without_a_ledger_stop_the_run(project: Project, pipeline: Pipeline) -> None:
    """Exit 2 before anything is made, with the ways on; each of them works."""
    shutil.rmtree(project.folder / ".pipeline")
    project.write("in/d", "new")
    ran = pipeline()
    assert ran.returncode == 2 and ran.stderr == (
        f"no ledger in {project.folder}/.pipeline/pipeline knows of the 3 outputs that are there, the first "
        f"{project.folder}/out/a; 'adopt' takes what is there as made, --force makes it anew\n"
    )
    assert not (project.folder / "out/d").exists()
    assert f"a run would end with exit code 2: no ledger in {project.folder}" in pipeline("plan").stderr
    with pytest.raises(UsageError):
        project.run(only="a")
    assert project.run(force=True).done == 4


def test_a_killed_first_run_does_not_lock_itself_out(tmp_path: Path, pipeline: Pipeline) -> None:
    """What it made before it could record it was intended: no ledger was lost."""
    project = Project(tmp_path)
    project.write("in/a", "x")
    project.write(
        "stages/upper.py",
        "import os, signal\ndef upper(text: str) -> str:\n    here = os.path.dirname(__file__)\n"
        "    open(here + '/../out/a', 'w').write('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n    return ''\n",
    )
    assert pipeline().returncode == -9 and (tmp_path / "out/a").read_text() == "half"
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    return text.upper()\n")
    assert pipeline().returncode == 0 and (tmp_path / "out/a").read_text() == "X"


# -- whose is it -------------------------------------------------------------------------------------------------------


def test_a_copied_yaml_with_the_same_state_is_refused(project: Project, pipeline: Pipeline) -> None:
    """Exit 2, one sentence with the command that takes over; then the former one gets it."""
    shutil.copy(project.folder / "pipeline.yaml", project.folder / "it's.yaml")
    project.edit("pipeline.yaml", "inputs", "name: pipeline\ninputs")
    project.edit("it's.yaml", "inputs", "name: pipeline\ninputs")
    ran = pipeline("it's.yaml")
    assert ran.returncode == 2 and ran.stderr == (
        "the state .pipeline/pipeline is that of pipeline.yaml over in; it's.yaml over in needs a state or a name of"
        """ its own, or takes this one over: python -m pipeline run 'it'"'"'s.yaml' --take-over\n"""
    )
    assert "a run would end with exit code 2: the state" in pipeline("plan", "it's.yaml").stderr
    assert pipeline("run", "it's.yaml", "--take-over").returncode == 0
    assert pipeline("it's.yaml").returncode == 0
    assert pipeline().returncode == 2
    with ledger_of(project.folder) as ledger:
        override = next(ledger.overrides.all())
    assert override.verb == "take-over" and "is that of pipeline.yaml" in override.details["of"][0]


@pytest.mark.parametrize("verb", ["failures", "verify", "explain in/a", "status", "plan", "runs"])
def test_who_only_reads_is_told_whose_it_is(project: Project, pipeline: Pipeline, verb: str) -> None:
    """One sentence on stderr, so that another pipeline's files are not taken for one's own; none where they are."""
    ordinary = "", "3 outputs verified: 3 as recorded\n", "pipeline: no failures on record\n"
    assert pipeline(*verb.split()).stderr in ordinary
    project.write("other.yaml", (project.folder / "pipeline.yaml").read_text() + "name: pipeline\n")
    said = pipeline(*verb.split(), "-f", "other.yaml").stderr
    assert len(re.findall(r"(is that|was one) of pipeline\.yaml.*", said)) == 1, said


def test_another_pipelines_failures_are_not_dismissed(project: Project, pipeline: Pipeline) -> None:
    """What it knows is its own matter."""
    project.write("other.yaml", (project.folder / "pipeline.yaml").read_text() + "name: pipeline\n")
    ran = pipeline("failures", "other.yaml", "--dismiss", "*")
    assert ran.returncode == 2 and "is that of pipeline.yaml over in; other.yaml over in needs" in ran.stderr


def test_another_root_with_the_same_state_is_refused(project: Project) -> None:
    """Files of one root are not taken for those of another; a root renamed on purpose is taken over once."""
    (project.folder / "in").rename(project.folder / "pictures")
    project.edit("pipeline.yaml", "inputs: in", "inputs: pictures")
    with pytest.raises(UsageError, match=r"is that of pipeline.yaml over in; pipeline.yaml over pictures needs"):
        project.run()
    assert project.run(confirmed=TAKE_OVER).up_to_date == 3
    project.edit("pipeline.yaml", "inputs: pictures", f"inputs: {project.folder}/pictures/")
    assert project.run().up_to_date == 3


def test_a_moved_project_is_the_same(project: Project) -> None:
    """Neither state nor outputs are somebody else's because the folder above has another name."""
    moved = project.folder / "moved"
    moved.mkdir()
    for name in ("in", "out", "stages", "pipeline.yaml", ".pipeline"):
        (project.folder / name).rename(moved / name)
    assert Project(moved).run().up_to_date == 3


def test_a_clone_that_shares_the_state_is_refused(project: Project, tmp_path: Path) -> None:
    """With an absolute state, a copy of the project would be taken for the project that was moved."""
    project.edit("pipeline.yaml", "engine", f"state: {tmp_path}/state\nengine")
    shutil.rmtree(project.folder / "out")
    project.run()
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("in", "stages"):
        shutil.copytree(project.folder / name, clone / name)
    shutil.copy(project.folder / "pipeline.yaml", clone)
    with pytest.raises(UsageError, match=r"is that of .*/pipeline.yaml; its copy needs a state or a name of its own"):
        Project(clone, (clone / "pipeline.yaml").read_text()).run()
    assert not (clone / "out").exists()


def test_two_pipelines_over_one_folder_never_overwrite_each_other(project: Project, pipeline: Pipeline) -> None:
    """The second is refused until it takes over; what the first made is not its, and the first is refused then."""
    (project.folder / "in2").mkdir()
    project.write("in2/a", "other")
    project.write("other.yaml", ONE_STAGE.replace("inputs: in", "inputs: in2"))
    ran = pipeline("other.yaml")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert f"out belongs to pipeline 'pipeline' (state {project.folder}/.pipeline/pipeline on " in ran.stderr
    assert ran.stderr.endswith("write elsewhere, or take it over: python -m pipeline run other.yaml --take-over\n")
    taken = pipeline("other.yaml", "--take-over")
    assert taken.returncode == 2 and "knows of" in taken.stderr and "'adopt'" in taken.stderr
    assert (project.folder / "out/a").read_text() == "TEXT A"
    assert json.loads((project.folder / "out/.filemill").read_text())["pipeline"] == "other"
    assert pipeline().returncode == 2
    assert pipeline("--take-over").returncode == 0 and pipeline("other.yaml").returncode == 2


def test_a_clone_over_the_same_folder_is_refused(project: Project, tmp_path: Path) -> None:
    """With absolute outputs, a copy of the whole project, state and all, would write into the first one's folder."""
    first = Project(tmp_path / "first", ONE_STAGE.replace("out/{dir}", f"{tmp_path}/shared/{{dir}}"))
    first.write("in/a", "x")
    assert first.run().done == 1
    shutil.copytree(first.folder, tmp_path / "second")
    second = Project(tmp_path / "second", (first.folder / "pipeline.yaml").read_text())
    second.write("in/a", "other")
    with pytest.raises(UsageError, match=r"shared belongs to pipeline 'pipeline' .*first/.pipeline/pipeline on"):
        second.run()
    assert (tmp_path / "shared/a").read_text() == "X" and first.run().up_to_date == 1


# -- fifty at once -----------------------------------------------------------------------------------------------------

TWENTY = """
import os, sys
import pipeline.operations.run, pipeline.config.load, pipeline.commands.run  # once for all
from pipeline.cli import main
go, children = os.pipe(), {}
for number in range(20):
    child = os.fork()
    if not child:
        os.close(go[1])
        os.read(go[0], 1)  # until the parent closes its end: then all start at once
        sys.stderr = open(f"said-{number}", "w", buffering=1)
        os._exit(main(["pipeline.yaml"]))
    children[child] = number
os.close(go[1])
for left in range(20, 0, -1):
    if left == 1:
        open("done", "w").close()  # all but one have left
    child, status = os.wait()
    print(child, os.waitstatus_to_exitcode(status), open(f"said-{children[child]}").read().strip(), flush=True)
"""
WAITING = """
import os, time
def upper(text: str) -> str:
    while not os.path.exists("done"):
        time.sleep(0.01)
    return text.upper()
"""


def test_of_twenty_starts_at_once_one_runs(tmp_path: Path) -> None:
    """The others leave with 75 and say who is at work, and since when."""
    project = Project(tmp_path)
    project.write("stages/upper.py", WAITING)
    project.write("in/a", "x")
    ran = subprocess.run([sys.executable, "-c", TWENTY], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    *refused, winner = [line.split(" ", 2) for line in ran.stdout.splitlines()]
    assert winner[1] == "0" and project.outputs() == {"a": b"X"}
    assert len(refused) == 19
    said = f"another run of 'pipeline' is running (pid {winner[0]} on "
    assert all(code == "75" and text.startswith(said) and " since " in text for _, code, text in refused)


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0, 1, -(10**18), 4 * 10**18, 2 * 10**18])
def test_times_of_1970_and_of_the_future_are_times(project: Project, when: int) -> None:
    """A source or an output with any time is made once, and up to date then."""
    os.utime(project.folder / "in/a", ns=(when, when))
    assert project.run().done == 1
    assert project.run().up_to_date == 3
    os.utime(project.folder / "out/b", ns=(when, when))
    assert (project.run().done, project.run().failed) == (0, 0)
