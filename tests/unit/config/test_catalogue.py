"""pipeline/config/catalogue.py, about.py and `stages`: what there is, what each takes, makes and knows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.program import Pipeline

from pipeline.cli import main
from pipeline.config.load import load_config

GREY = '''
from typing import Annotated, Literal
from annotated_types import Ge, Gt, Le, Lt
from PIL import Image
from pydantic import Field

def grey(
    image: Image.Image,
    *,
    depth: Annotated[int, Gt(0), Le(8)],
    way: Literal["mean", "luma"] = "luma",
    floor: Annotated[float, Ge(0), Lt(1)] = 0.5,
    marks: list[str] | None = None,
    keep: Annotated[bool, Field(description="Whether transparency is kept.")] = False,
) -> Image.Image:
    """Makes a picture grey. `depth` is in bits.

    Args:
        way: how grey
            is found
    """
    return image.convert("L")
'''
SPLIT = "from collections.abc import Iterator\ndef split(text: str) -> Iterator[str]:\n    yield text\n"
KEEP = (
    "from pipeline import Item\nclass Keep:\n    def __call__(self, item: Item[bytes]) -> bool:\n        return True\n"
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with stages of its own and no pipeline.yaml."""
    path = list(sys.path)
    (tmp_path / "stages").mkdir()
    for name, text in {"grey": GREY, "split": SPLIT, "keep": KEEP}.items():
        (tmp_path / "stages" / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The program in this process: exit code, stdout and stderr."""
    code = main(arguments)
    return code, *capfd.readouterr()


def test_every_stage_is_listed_with_what_it_takes_and_makes(capfd: pytest.CaptureFixture[str]) -> None:
    """Those in stages/ first, then the bundled ones, each with the first sentence of its docstring."""
    code, printed, said = run(capfd, "stages")
    lines = printed.splitlines()
    assert (code, said, lines[0]) == (0, "", "stages/")
    assert [re.sub("  +", "  ", line) for line in lines[1:4]] == [
        "  grey  Image.Image -> Image.Image  Makes a picture grey",
        "  keep  Item[bytes] -> bool",
        "  split  str -> Iterator[str]",
    ]
    assert lines[4] == "bundled"
    assert any(re.match(r"  resize +Picture -> Image.Image +Resizes a picture", line) for line in lines)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("broken", "import nonesuch\n", r".*broken\.py:1: cannot be imported: ModuleNotFoundError: .*"),
        ("leaves", "import sys\nsys.exit(3)\n", r".*leaves\.py:2: cannot be imported: SystemExit: 3"),
        ("tables", "x = 1\n", r".*tables\.py: no function or class 'tables' or 'Tables' .*"),
        ("bare", "def bare(x): ...\n", r".*bare\.py:1: parameter 'x' has no annotation.*"),
        (
            "typed",
            "def typed(x: bytes, *, of: object()) -> bytes: ...\n",
            r"option 'of' has a type that YAML cannot give.*",
        ),
        ("resize", "x = 1\n", r".*resize\.py has the name of a bundled stage"),
    ],
)
def test_one_that_cannot_be_used_is_listed_with_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, text: str, why: str
) -> None:
    """A broken module stops neither the list nor any other stage."""
    (tmp_path / "stages" / f"{name}.py").write_text(text)
    code, printed, said = run(capfd, "stages")
    assert code == 0 and re.search(rf"^cannot be used: {name}: {why}$", printed, re.M), printed
    assert "  grey " in printed and said == ""
    found = {each["name"]: each for each in map(json.loads, run(capfd, "stages", "--json")[1].splitlines())}
    assert re.fullmatch(why, found[name]["problem"]) and found["grey"]["takes"] == "Image.Image"


def test_what_a_module_prints_does_not_get_into_the_data(tmp_path: Path, pipeline: Pipeline) -> None:
    """stdout carries the list only."""
    (tmp_path / "stages" / "loud.py").write_text("print('hello')\ndef loud(x: bytes) -> bytes: return x\n")
    done = pipeline("stages", "loud", "--json")
    assert json.loads(done.stdout)["name"] == "loud" and done.stderr == "hello\n"


def test_one_stage_is_told_with_its_options(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Types in YAML's words, defaults, docs from signature and docstring, where it is, and how it is used."""
    code, printed, _ = run(capfd, "stages", "grey")
    assert code == 0
    for line in (
        "grey: Image.Image -> Image.Image",
        f"{tmp_path}/stages/grey.py:7",
        "  depth: whole number from 1 to 8; required",
        "  way: mean | luma; default \"luma\"",
        "  floor: number from 0 below 1; default 0.5",
        "  marks: list of text | null; default null",
        "      Whether transparency is kept.",
    ):  # fmt: skip
        assert line in printed.splitlines(), f"{line}\n---\n{printed}"
    assert printed.count("how grey") == 1


@pytest.mark.parametrize("name", ["grey", "split", "resize", "./stages/grey.py", "./stages/keep.py:Keep"])
def test_the_example_of_a_stage_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """What is shown as an example can be put into a pipeline as it stands; for a filter, with a stage after it."""
    (tmp_path / "in").mkdir()
    example = run(capfd, "stages", name)[1].partition("\nexample\n")[2]
    if name.endswith("Keep"):
        example += "  - name: after\n    uses: split\n    output: out/{stem}-{part}\n"
    (tmp_path / "pipeline.yaml").write_text(f"inputs: in\nstages:\n{example}")
    config = load_config(tmp_path / "pipeline.yaml")
    assert config.stages[0].stage.uses == name == yaml.safe_load(example)[0]["uses"]


def test_stages_of_another_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A pipeline that is named says where to look; the name of a stage may come before or after it."""
    (tmp_path / "other" / "stages").mkdir(parents=True)
    (tmp_path / "other" / "stages" / "shout.py").write_text("def shout(text: str) -> str: return text\n")
    assert "  shout " in run(capfd, "stages", "other/pipeline.yaml")[1]
    for arguments in (["other/pipeline.yaml", "shout"], ["shout", "other/pipeline.yaml"], ["-f", "other/x", "shout"]):
        assert run(capfd, "stages", *arguments)[1].startswith("shout: str -> str\n"), arguments


def test_one_stage_at_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    """Of two names neither is taken for a pipeline's."""
    assert run(capfd, "stages", "grey", "keep") == (2, "", "'grey' and 'keep': name one stage at a time\n")


def test_a_misspelt_stage_is_asked_about(capfd: pytest.CaptureFixture[str]) -> None:
    """A name that is none ends with 2 and what may have been meant."""
    assert run(capfd, "stages", "gray") == (2, "", "no stage 'gray'; did you mean 'grey'?\n")
