"""`new`: stages and pipelines that work as they are written, and nothing that was there is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.program import Pipeline
from support.project import contents_below

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.operations.scaffold_stage import TAKES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is the current one."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def fill(folder: Path, *names: str) -> None:
    """Put files of these names into a folder; pictures are pictures."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"some text\r\n")
        if file.suffix.lower() == ".jpg":
            Image.new("RGB", (90, 60), "tan").save(file)


@pytest.mark.parametrize(
    "takes", [each if each == "image" else pytest.param(each, marks=pytest.mark.slow) for each in TAKES]
)
def test_a_new_stage_works_and_its_test_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str], takes: str) -> None:
    """Whatever it takes, `pytest` in the folder passes as it is written, and a pipeline can use the stage."""
    assert main(["new", f"my_{takes}", "--takes", takes]) == 0
    printed, said = capfd.readouterr()
    assert printed.splitlines()[:3] == [
        f"stages/my_{takes}.py",
        f"tests/stages/test_my_{takes}.py",
        "tests/stages/conftest.py",
    ]
    assert "next: pytest tests/stages\n" in said
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-W", "error"]
    tests = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert tests.returncode == 0 and " passed" in tests.stdout, tests.stdout
    assert main(["stages"]) == 0
    assert "cannot be used" not in capfd.readouterr().out


def test_a_new_stage_is_tidy(tmp_path: Path) -> None:
    """What is written gives no linter anything to say."""
    for takes in TAKES:
        main(["new", f"my_{takes}", "--takes", takes])
    for words in (["format", "--check"], ["check", "--select", "E,F,W,B,UP,SIM,RUF"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", "."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("9x", "'9x' is no name for a stage: a stage is named like a Python function, with letters, digits and '_'"),
        ("a-b", "'a-b' is no name for a stage: "),
        ("../a", "'../a' is no name for a stage: "),
        ("_a", "'_a' is no name for a stage: "),
        ("class", "'class' is no name for a stage: "),
        ("resize", "'resize' is the name of a bundled stage; name it otherwise"),
        ("zip", "'zip' is a name that the stage itself would need; name it otherwise"),
        ("there", "there.py exists; nothing is overwritten"),
        ("tested", "test_tested.py exists; nothing is overwritten"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    """In one sentence, and nothing is written."""
    fill(tmp_path, "stages/there.py", "tests/stages/test_tested.py")
    before = contents_below(tmp_path)
    assert main(["new", name]) == 2
    said = capfd.readouterr().err
    assert says in said and said.count("\n") == 1
    assert contents_below(tmp_path) == before


def test_a_schema_that_is_there_knows_the_new_stage(tmp_path: Path) -> None:
    """An editor offers a new stage at once."""
    main(["schema", "-o", "pipeline.schema.json"])
    main(["new", "my_own"])
    assert '"with-my_own"' in (tmp_path / "pipeline.schema.json").read_text()


def test_two_commands_make_a_first_picture(tmp_path: Path, pipeline: Pipeline) -> None:
    """`new --pipeline` over a folder of photos, and a run, as it says itself."""
    fill(tmp_path / "my photos", "a.jpg", "trip/b.JPG", "notes.pages")
    new = pipeline("new", "--pipeline", "my photos")
    assert new.stdout == "pipeline.yaml\npipeline.schema.json\n"
    assert new.stderr == "my photos: 2 pictures; left out: 1 other file\nnext: python -m pipeline\n"
    ran = pipeline()
    assert ran.returncode == 0, ran.stderr
    made = {file.relative_to(tmp_path / "output").as_posix() for file in (tmp_path / "output").rglob("*.*p*")}
    assert {"web/a.webp", "web/trip/b.webp", "thumb/a.jpg", "thumb/trip/b.jpg"} <= made


@pytest.mark.parametrize(
    ("names", "uses"),
    [
        (["a.jpg"], {"resize"}),
        (["a.txt", "b.md"], {"text"}),
        (["a.jpg", "a.txt"], {"resize", "text"}),
        (["a.xyz"], {"checksum"}),
        (["a.jpg", "a.png"], {"resize"}),
        (["a.pdf", "b.PDF", "a.jpg"], {"pages", "resize"}),
        pytest.param(["a.wav", "b.mp4"], {"command"}, marks=needs_ffmpeg),
    ],
)
def test_what_a_folder_holds_decides_what_is_done(tmp_path: Path, names: list[str], uses: set[str]) -> None:
    """Each kind of file gets stages that fit, and the pipeline is right as it stands."""
    fill(tmp_path / "in", *names)
    assert main(["new", "--pipeline", "in"]) == 0
    config = load_config(tmp_path / "pipeline.yaml")
    assert {stage.stage.uses for stage in config.stages} == uses and not config.warnings
    has_twins = names == ["a.jpg", "a.png"]
    assert ("{name}.webp" in (tmp_path / "pipeline.yaml").read_text()) is has_twins


def test_what_is_not_installed_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program that a kind of file takes, it is as one that nothing is known of."""
    fill(tmp_path / "in", "a.wav")
    monkeypatch.setenv("PATH", "")
    assert main(["new", "--pipeline", "in"]) == 0
    assert load_config(tmp_path / "pipeline.yaml").stages[0].stage.uses == "checksum"


@needs_ffmpeg
def test_sounds_and_films_go_through_ffmpeg(tmp_path: Path, pipeline: Pipeline) -> None:
    """What is written for them works as it stands."""
    (tmp_path / "in").mkdir()
    made = [
        "-f",
        "lavfi",
        "-i",
        "sine=duration=0.2",
        "in/a.wav",
        "-f",
        "lavfi",
        "-i",
        "testsrc=duration=0.2",
        "in/b.mp4",
    ]
    subprocess.run(["ffmpeg", "-loglevel", "error", *made], cwd=tmp_path, check=True)
    assert main(["new", "--pipeline", "in"]) == 0
    ran = pipeline()
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "output/sound/a.opus").stat().st_size and (tmp_path / "output/still/b.jpg").stat().st_size


def test_a_folder_may_hold_its_own_pipeline(tmp_path: Path, pipeline: Pipeline) -> None:
    """`--pipeline .` reads neither itself nor what it makes."""
    fill(tmp_path, "a.xyz")
    assert main(["new", "--pipeline", "."]) == 0
    for _ in range(2):
        assert pipeline("run", "--json").stdout.count('"sources": 1') == 1


def test_a_pipeline_of_any_name_and_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that is named is written there; paths in it are relative to it, and odd ones are quoted."""
    fill(tmp_path / "odd: 'x' \"y\" #1", "a.txt")
    (tmp_path / "output").mkdir()
    assert main(["new", "other.yaml", "--pipeline", "odd: 'x' \"y\" #1"]) == 0
    assert "next: python -m pipeline other.yaml\n" in capfd.readouterr().err
    assert load_config(tmp_path / "other.yaml").inputs.root == tmp_path / "odd: 'x' \"y\" #1"
    assert main(["new", "sub/p.yaml", "--pipeline", "odd: 'x' \"y\" #1"]) == 0
    written = yaml.safe_load((tmp_path / "sub" / "p.yaml").read_text())
    assert written["inputs"]["root"].startswith("../odd") and written["stages"][0]["output"].startswith("output/")
    assert yaml.safe_load((tmp_path / "other.yaml").read_text())["stages"][0]["output"].startswith("output-2/")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name one thing to write: 'new STAGE', or 'new --pipeline FOLDER'\n"),
        (["x", "--pipeline", "in"], "name one thing to write: 'new STAGE', or 'new --pipeline FOLDER'\n"),
        (["--pipeline", "nowhere"], "nowhere does not exist\n"),
        (["--pipeline", "in/a.txt"], "in/a.txt is no folder\n"),
        (["--pipeline", os.fsdecode(b"b\xe9")], "b\\xe9: a name that is not UTF-8 cannot stand in a pipeline\n"),
        (["--pipeline", "empty"], "there is no file in empty; put some there first\n"),
        (["there.yaml", "--pipeline", "in"], "there.yaml exists; nothing is overwritten\n  hint: name another: "
                                             "python -m pipeline new other.yaml --pipeline in\n"),
    ],
)  # fmt: skip
def test_a_pipeline_that_cannot_be_written_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """In one sentence, and nothing is written."""
    fill(tmp_path, "in/a.txt", "there.yaml")
    (tmp_path / "empty").mkdir()
    fill(tmp_path, os.fsdecode(b"b\xe9/a.txt"))
    before = contents_below(tmp_path)
    assert (main(["new", *arguments]), capfd.readouterr().err) == (2, says)
    assert contents_below(tmp_path) == before


def test_a_stage_that_ends_its_process_is_listed(tmp_path: Path, pipeline: Pipeline) -> None:
    """`stages` and `schema` survive a module that ends the process which imports it, and name it."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/dead.py").write_text("import os\nos._exit(0)\n")
    listed = pipeline("stages")
    assert listed.returncode == 0 and "cannot be used: dead: 'dead': its import ended the process" in listed.stdout
    assert "left out: dead" in pipeline("schema").stderr
    assert pipeline("stages", "dead").returncode == 2
