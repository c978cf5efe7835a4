"""A stage with a pool of its own: joined to the others by values in files, bounded, and with the same promises."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.program import wait_until
from support.project import Project, temporaries

from pipeline.config.load import load_config
from pipeline.engines.chained import ChainedEngine
from pipeline.errors import ConfigError
from pipeline.messages import Job, Outcome, Source, StageInfo, Target

pytestmark = pytest.mark.processes

STAGES = '''
import os, time
from pathlib import Path
from PIL import Image
from pipeline import Item, Skip

def note(what: str) -> None:
    """A line in the project's list of what was done where."""
    fd = os.open(Path(__file__).parent.parent / "done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{what} {os.getpid()}\\n".encode())
    os.close(fd)

def grey(image: Image.Image) -> Image.Image:
    """Wide and fast."""
    note("grey")
    return image.convert("L")

class Slow:
    """Has something large to load, and does one file at a time."""
    def __init__(self, *, seconds: float = 0.01) -> None:
        note("load")
        self.seconds = seconds
    def __call__(self, item: Item[Image.Image]) -> Image.Image:
        note("slow")
        scratch = Path(__file__).parent.parent / ".pipeline/pipeline/scratch"
        files = list(scratch.glob("*/handed/*"))
        note(f"files-{len(files)}")
        time.sleep(self.seconds)
        if "skip" in item.source:
            raise Skip("not this")
        if "bad" in item.source:
            raise ValueError("bad picture")
        if "die" in item.source:
            os._exit(7)
        return item.value.resize((4, 4))

def tiny(image: Image.Image) -> Image.Image:
    """Below it, in the shared pool again."""
    note("tiny")
    return image.resize((2, 2))

def text(path: Path) -> str:
    return path.read_bytes()[:4].hex()

def prepare() -> None:
    note("prepare")
'''
YAML = """
inputs: in
stages:
  - {name: grey, uses: 'stages.work:grey', output: 'out/grey/{stem}.png'}
  - {name: slow, from: grey, uses: 'stages.work:Slow', output: 'out/slow/{stem}.png',
     pool: {processes: 1, initializer: 'stages.work:prepare'}}
  - {name: tiny, from: slow, uses: 'stages.work:tiny', output: 'out/tiny/{stem}.png'}
  - {name: text, from: inputs, uses: 'stages.work:text', output: 'out/text/{stem}.txt'}
pool: {processes: 2}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Twenty small pictures, a fast stage, a slow one with its own pool, and one below that."""
    project = Project(tmp_path, YAML)
    project.write("stages/work.py", STAGES)
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 2 * number, 5 * number)).save(tmp_path / f"in/{number}.png")
    return project


def done(project: Project) -> dict[str, list[int]]:
    """In which processes each thing was done since this was asked last."""
    file = project.folder / "done"
    found: dict[str, list[int]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        what, pid = line.split()
        found.setdefault(what, []).append(int(pid))
    file.unlink(missing_ok=True)
    return found


def line(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=100)


def test_each_stage_runs_in_its_pool_and_the_outputs_are_those_of_one(project: Project) -> None:
    """The slow stage is loaded once, in one process with its own initializer; all others run in the shared pool; and
    every byte is what it is without processes.
    """
    assert line(project).returncode == 0
    where = done(project)
    assert len(where["load"]) == len(where["prepare"]) == 1
    assert set(where["slow"]) == set(where["load"]) and len(where["slow"]) == 20
    shared = set(where["grey"]) | set(where["tiny"])
    assert len(where["grey"]) == len(where["tiny"]) == 20
    assert 1 <= len(shared) <= 2 and not shared & set(where["slow"])
    most = max(int(what.partition("-")[2]) for what in where if what.startswith("files-"))
    assert 1 <= most <= 2 * 8 * 3, "what is on its way is bounded"
    outputs = project.outputs()
    assert len(outputs) == 80 and not temporaries(project.folder)
    assert not (project.folder / ".pipeline/pipeline/scratch").exists()
    assert line(project).returncode == 0 and done(project) == {}
    for folder in (project.folder / "out", project.folder / ".pipeline"):
        subprocess.run(["rm", "-r", folder], check=True)
    assert line(project, "--engine", "serial").returncode == 0
    assert project.outputs() == outputs


def test_what_goes_wrong_costs_what_is_below_it(project: Project) -> None:
    """A skip, an error and a crash in the pool of its own leave the outputs above and beside as they are."""
    for name in ("skip", "bad", "die"):
        Image.new("RGB", (8, 8)).save(project.folder / f"in/{name}.png")
    found = line(project, "--json")
    assert found.returncode == 1
    assert '"done": 86, "up_to_date": 0, "skipped": 2, "failed": 4' in found.stdout
    assert "bad.png (slow, tiny): ValueError: bad picture" in found.stderr
    assert "die.png (slow, tiny): the worker ended by exit code 7 in stage 'slow'" in found.stderr
    assert {"grey/die.png", "text/bad.txt"} <= set(project.outputs())


def test_a_file_that_fails_in_both_pools_is_one_failed_file(project: Project) -> None:
    """The error budget counts files: one whose outputs fail in two pools is no second one."""
    project.edit(
        "stages/work.py", "    return path.read_bytes()[:4].hex()", "    return path.read_bytes()[:4].decode('ascii')"
    )
    project.edit("pipeline.yaml", "pool: {processes: 2}", "pool: {processes: 2}\nerrors: {max: 1}")
    for path in (project.folder / "in").iterdir():
        path.unlink()
    Image.new("RGB", (8, 8)).save(project.folder / "in/bad.png")
    found = line(project, "--json")
    assert found.returncode == 1 and '"done": 1,' in found.stdout and '"failed": 3' in found.stdout, found.stderr


def test_only_what_is_stale_goes_through_the_slow_stage(project: Project) -> None:
    """A change below it, beside it or in its pool's settings makes only that anew."""
    line(project)
    done(project)
    project.edit("pipeline.yaml", "processes: 1,", "processes: 2,")
    (project.folder / "out/text/3.txt").unlink()
    assert line(project).returncode == 0 and done(project) == {}
    (project.folder / "out/grey/3.png").unlink()
    assert line(project).returncode == 0
    assert {what: len(pids) for what, pids in done(project).items()} == {"grey": 1}
    (project.folder / "out/tiny/5.png").unlink()
    assert line(project).returncode == 0
    where = done(project)
    assert [len(where[what]) for what in ("grey", "slow", "tiny")] == [1, 1, 1]


def test_a_path_is_handed_over_with_its_suffix(tmp_path: Path) -> None:
    """The source itself goes as it is, and is there afterwards; a file made in the scratch folder is moved."""
    project = Project(tmp_path, """
inputs: in
stages:
  - {name: copied, uses: 'stages.files:copied'}
  - {name: shown, uses: 'stages.files:shown', pool: {processes: 1}, output: 'out/{name}.txt'}
  - {name: straight, from: inputs, uses: 'stages.files:shown', pool: {processes: 1}, output: 'out/{name}.straight'}
pool: {processes: 1}
""")  # fmt: skip
    project.write("stages/files.py", """
from pathlib import Path
from pipeline import Item
def copied(item: Item[Path]) -> Path:
    made = item.scratch / ("made" + item.value.suffix)
    made.write_bytes(item.value.read_bytes() * 2)
    return made
def shown(path: Path) -> str:
    return path.suffix + path.read_text()
""")  # fmt: skip
    for name in ("a.txt", "b.dat"):
        project.write(f"in/{name}", name)
    assert line(project).returncode == 0
    assert project.outputs() == {
        "a.txt.txt": b".txta.txta.txt", "b.dat.txt": b".datb.datb.dat",
        "a.txt.straight": b".txta.txt", "b.dat.straight": b".datb.dat",
    }  # fmt: skip
    assert sorted(each.name for each in (tmp_path / "in").iterdir()) == ["a.txt", "b.dat"]


def test_a_stage_that_gathers_may_have_one(tmp_path: Path) -> None:
    """It is called in its own workers, which load nothing else, when the files of its group are made."""
    project = Project(tmp_path, """
inputs: in
stages:
  - {name: one, uses: 'stages.many:one', output: 'out/{name}'}
  - {name: all, from: one, gather: true, uses: 'stages.many:Joined', pool: {processes: 1}, output: 'out/all.txt'}
pool: {processes: 2}
""")  # fmt: skip
    project.write("stages/many.py", """
import os
from collections.abc import Iterator
from pipeline import Item
def one(text: str) -> str:
    return f"{text} {os.getpid()}"
class Joined:
    def __call__(self, items: Iterator[Item[str]]) -> str:
        return ",".join(item.value.partition(" ")[0] for item in items) + f" {os.getpid()}"
""")  # fmt: skip
    for name in "abc":
        project.write(f"in/{name}", name)
    assert line(project).returncode == 0
    outputs = project.outputs()
    joined, pid = outputs.pop("all.txt").split()
    assert joined == b"a,b,c"
    assert pid not in {text.split()[1] for text in outputs.values()}


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment(project: Project, rounds: int) -> None:
    """After a kill -9 the same line ends as an undisturbed one does, and nobody is left."""
    began = time.monotonic()
    assert line(project).returncode == 0
    seconds, expected = time.monotonic() - began, project.outputs()
    for _ in range(rounds):
        subprocess.run(["rm", "-r", project.folder / "out", project.folder / ".pipeline"], check=True)
        process = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, process_group=0)
        time.sleep(random.uniform(seconds / 3, seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert line(project).returncode == 0
        assert project.outputs() == expected and not temporaries(project.folder)
        assert not (project.folder / ".pipeline/pipeline/scratch").exists()


def test_a_signal_ends_it_in_order(project: Project) -> None:
    """What is in hand is finished in both pools, and the same line does the rest."""
    project.edit("pipeline.yaml", "uses: 'stages.work:Slow',", "uses: 'stages.work:Slow', with: {seconds: 0.2},")
    process = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.PIPE)
    begun = project.folder / "done"
    wait_until(lambda: begun.exists() and "slow" in begun.read_text())
    process.terminate()
    assert process.wait(100) == 128 + signal.SIGTERM
    assert process.stderr and b"stopped: by SIGTERM" in process.stderr.read()
    process.stderr.close()
    assert 0 < len(project.outputs()) < 80
    assert line(project).returncode == 0
    assert len(project.outputs()) == 80 and not temporaries(project.folder)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("{processes: 0}", "stage 'slow': processes: "),
        ("{proceses: 1}", "stage 'slow': unknown key 'proceses'; did you mean 'processes'?"),
        ("{initializer: 'stages.work:none'}", "stage 'slow': initializer: "),
        ("{initargs: [1]}", "stage 'slow': initargs: there is no 'initializer' to take them"),
    ],
)
def test_what_a_pool_cannot_be(project: Project, pool: str, said: str) -> None:
    """What is wrong with it is said when the pipeline is loaded, as of the shared one."""
    project.edit("pipeline.yaml", "{processes: 1, initializer: 'stages.work:prepare'}", pool)
    with pytest.raises(ConfigError) as raised:
        load_config(project.folder / "pipeline.yaml")
    assert said in str(raised.value)


class Held:
    """An engine that gives outcomes when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.outcomes: list[Outcome] = []

    has_room = True

    @property
    def busy(self) -> bool:
        return bool(self.jobs or self.outcomes)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def poll(self, timeout_s: float) -> list[Outcome]:
        outcomes, self.outcomes = self.outcomes, []
        return outcomes


def test_what_does_not_cross_is_not_bounded() -> None:
    """Only jobs that leave values count as on their way; the others go on as the engine has room."""

    def jobs(stage: str) -> Iterator[Job]:
        for number in range(1000):
            yield Job(Source(b"%d" % number, 1, 1), (Target(stage, b"/out/%d" % number),))

    infos = [StageInfo("a", None), StageInfo("b", 0, None, 1)]
    for stage, most in (("a", 1000), ("b", 10)):
        shared, own = Held(), Held()
        engine = ChainedEngine([shared, own], infos, 10)  # type: ignore[list-item]
        waiting = jobs(stage)
        while engine.has_room and (job := next(waiting, None)):
            engine.submit(job)
        assert (len(shared.jobs), own.jobs) == (most, [])
