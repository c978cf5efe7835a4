"""`run --sample N --output-root DIR`: some of the files, elsewhere, and nothing that the pipeline keeps is touched."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, contents_below, temporaries

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.config.relocate import below

YAML = """
inputs: .
stages:
  - name: up
    uses: upper
    match: ["*.txt"]
    output: out/{dir}/{name}
  - name: again
    uses: upper
    from: inputs
    match: ["*.txt"]
    output: ../beside/{dir}/{name}
  - name: sent
    uses: upper
    from: up
    output: none
engine: serial
"""


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose outputs lie below its input root, and beside it; the current folder."""
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", YAML)
    for number in range(20):
        project.write(f"in/{number:02}.txt", f"text {number}")
    project.write("in/other.md", "no stage reads this")
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture
def project(fresh: Project) -> Project:
    """The same, after a run."""
    assert fresh.run().done == 60
    return fresh


def sample(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a sample into ../some; gives the exit code and stderr."""
    code = main(["run", "--sample", "5", "--output-root", "../some", *arguments])
    return code, capfd.readouterr().err


def outputs(folder: Path) -> dict[str, bytes]:
    """What lies below a sample's folder, less its state."""
    return {name: data for name, data in contents_below(folder).items() if not name.startswith(".filemill-sample/")}


def test_a_sample_lands_elsewhere_and_touches_nothing(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every output lands below the folder, by its template's own path, one that leads out of the project by its whole
    path; ledger, state, owner files and outputs stay as they are, and so the next run finds nothing to do.
    """
    before = {each: (each.read_bytes(), os.stat(each).st_mtime_ns) for each in tmp_path.rglob("*") if each.is_file()}
    code, said = sample(capfd, "--set", "stages.up.with.mark=!")
    assert code == 0
    assert re.fullmatch(rf"a sample of 5 of 20 files, seed \d+: {re.escape(str(tmp_path))}/some\n", said)
    made = outputs(tmp_path / "some")
    own = [name for name in made if name.startswith("out/in/")]
    outside = [name for name in made if name.startswith(f"{tmp_path}/beside/in/".lstrip("/"))]
    assert len(own) == len(outside) == 5 and len(made) == 10
    assert all(made[name].endswith(b"!") for name in own)
    after = {each: (each.read_bytes(), os.stat(each).st_mtime_ns) for each in before}
    assert after == before
    assert project.run().up_to_date == 60


def test_a_seed_takes_the_same_files_again(project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The seed that was printed repeats the sample, into the same folder too, and another takes others."""
    seed = re.findall(r"seed (\d+)", sample(capfd)[1])[0]
    first = outputs(tmp_path / "some")
    assert sample(capfd, "--seed", seed) == (0, sample(capfd, "--seed", seed)[1])
    assert outputs(tmp_path / "some") == first
    names = set()
    for other in range(5):
        main(["run", "--sample", "5", "--output-root", f"../some-{other}", "--seed", str(other)])
        names.add(tuple(sorted(outputs(tmp_path / f"some-{other}"))))
    assert len(names) > 1


def test_what_a_killed_sample_left_is_cleared_away(fresh: Project, tmp_path: Path, pipeline_process: Pipeline) -> None:
    """`kill -9` in the middle, and the same line again makes the whole sample, with nothing half-made beside it."""
    killer = """
import os, signal
from pathlib import Path
def upper(text: str, *, mark: str = "") -> str:
    if Path("../kill").exists() and len(list(Path("../some/out/in").glob("*"))) > 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return text.upper()
"""
    fresh.write("stages/upper.py", killer)
    arguments = ["run", "--sample", "9", "--seed", "1", "--output-root", "../some"]
    (tmp_path / "kill").touch()
    assert pipeline_process(*arguments, cwd=fresh.folder).returncode == -signal.SIGKILL
    (tmp_path / "kill").unlink()
    assert pipeline_process(*arguments, cwd=fresh.folder).returncode == 0
    assert len(outputs(tmp_path / "some")) == 18
    assert temporaries(tmp_path / "some") == [tmp_path / "some" / ".filemill-sample"]


def test_a_sample_may_be_of_some_files_only(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--only` says of which; where there are fewer than asked for, all of them are taken."""
    code, said = sample(capfd, "--only", "1[0-2].txt")
    assert code == 0 and "a sample of 3 of 3 files" in said
    names = {name.rpartition("/")[2] for name in outputs(tmp_path / "some")}
    assert names == {"10.txt", "11.txt", "12.txt"}
    assert sample(capfd, "--only", "nothing") == (2, "there is no file to take a sample of\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sample", "5"], "--sample needs --output-root DIR, a folder for the outputs of the sample\n"),
        (["--output-root", "../x"], "--output-root is for --sample N; say how many files\n"),
        (["--seed", "5"], "--seed is for --sample N; say how many files\n"),
        (["--sample", "5", "--output-root", "../x", "--limit", "3"],
         "--sample and --limit each say which files; leave one of them out\n"),
        (["--sample", "5", "--output-root", "out"], "HERE/out is the pipeline's own; name another folder\n"),
        (["--sample", "5", "--output-root", "out/x"], "HERE/out is the pipeline's own; name another folder\n"),
        (["--sample", "5", "--output-root", "."], "HERE/out is the pipeline's own; name another folder\n"),
        (["--sample", "5", "--output-root", "x"], "it lies among the inputs; name another folder\n"),
        (["--sample", "5", "--output-root", "../full"],
         "is not empty, and of no earlier sample; name a new folder\n"),
        (["--sample", "5", "--output-root", "../full/file"], "is no folder\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    fresh: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """Half a sample, and a folder in which it would do harm, are refused in a sentence, and nothing is written."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = contents_below(tmp_path)
    assert main(["run", *arguments]) == 2
    said = capfd.readouterr().err
    assert said.endswith(says.replace("HERE", str(fresh.folder))) and said.count("\n") == 1
    assert contents_below(tmp_path) == before


def test_a_sample_in_the_pool(fresh: Project, tmp_path: Path, pipeline: Pipeline) -> None:
    """Workers make a sample as they make everything; before there has been any run, too; --json says how many."""
    fresh.edit("pipeline.yaml", "engine: serial", "pool: {processes: 2}")
    ran = pipeline("run", "--sample", "4", "--output-root", "../some", "--json", cwd=fresh.folder)
    assert (ran.returncode, json.loads(ran.stdout)["done"]) == (0, 8), ran.stderr
    assert len([name for name in outputs(tmp_path / "some") if name.startswith("out/in/")]) == 4
    assert not (fresh.folder / ".pipeline").exists() and not (fresh.folder / "out").exists()


def test_a_failure_is_one_in_a_sample_too(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """A sample ends with 1 where a file failed, and the ledger knows nothing of it."""
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    raise ValueError('no')\n")
    project._forget_modules()
    code, said = sample(capfd)
    assert code == 1 and "ValueError: no" in said and "10 failed" in said
    assert "next:" not in said and "log: " in said  # no command looks at the state of a sample
    (page,) = Path("../some/.filemill-sample/reports").glob("2*.json")
    assert json.loads(page.read_text())["verdict"]["next"] == []
    assert main(["failures"]) == 0 and "ValueError" not in capfd.readouterr().out


def test_the_page_of_a_part_claims_nothing_of_the_rest(fresh: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither after a sample nor after a run over some of the files."""
    assert sample(capfd)[0] == 0 and main(["run", "--limit", "1"]) == 0
    for folder in ("../some/.filemill-sample", ".pipeline/pipeline"):
        verdict = json.loads(Path(folder, "reports/report.json").read_text())["verdict"]
        assert verdict["text"].startswith("Exit 0: only a part of the files was looked at, and ")


def test_templates_below_another_folder(fresh: Project, tmp_path: Path) -> None:
    """What decides an output's bytes is the same elsewhere: only its folder is another."""
    config = load_config(fresh.folder / "pipeline.yaml")
    moved = below(config, tmp_path / "x", tmp_path / "x" / "state")
    for one, other in zip(config.leaves, moved.leaves, strict=True):
        assert one.output and other.output
        assert other.output.template.pieces == one.output.template.pieces
        assert other.output.template.folder.startswith(os.fsencode(tmp_path / "x"))
    assert [stage.name for stage in moved.ends] == ["up", "again"]


def test_files_that_no_stage_can_take_are_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a folder with thirty pictures and three texts, a sample for a stage of texts is the texts."""
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    for number in range(30):
        project.write(f"in/{number}.jpg", b"\0")
    for name in "abc":
        project.write(f"in/{name}.txt", name)
    monkeypatch.chdir(project.folder)
    code, said = sample(capfd)
    assert code == 0 and "a sample of 3 of 3 files" in said
