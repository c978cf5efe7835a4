"""pipeline/config/json_schema.py and `schema`: an editor takes for right and wrong what the program does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from support.program import ROOT

from pipeline.cli import main
from pipeline.config.catalogue import list_stages
from pipeline.config.document import read_document
from pipeline.config.json_schema import pipeline_schema

STAGE = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from pydantic import BaseModel, Field

class Corner(BaseModel):
    left: int
    top: int = 0

def stamp(data: bytes, *, logo: Path, at: Corner | None = None, size: tuple[int, int] = (1, 2),
          mode: Annotated[Literal["on", "under"], Field(description="Over or under it.")] = "on") -> bytes:
    """Stamps a file with a `logo`. Nothing else.

    `mode: on` is seen best.
    """
    return data
'''
HEAD = "inputs: in\nstages:\n  - name: a\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a stage of its own, beside those that are bundled."""
    path = list(sys.path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "stamp.py").write_text(STAGE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path


def documented_stages() -> dict[str, str]:
    """Every stage that README and docs have the reader write, as a block that begins with `# stages/NAME.py`."""
    text = "\n".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    return {name: block for block, name in re.findall(r"^```python\n(# stages/(\w+)\.py\n.*?)^```$", text, re.M | re.S)}


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Draft7Validator:
    """Checks what is read from YAML by the schema for this project; made once, since the stages stay the same."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "stages").mkdir()
    for name, text in {**documented_stages(), "stamp": STAGE}.items():
        (folder / "stages" / f"{name}.py").write_text(text)
    schema = pipeline_schema(list_stages(folder))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def complaints(text: str, validator: Draft7Validator) -> list[str]:
    """What a validator has against a text, read as YAML 1.2 is, down to the branches that do not fit."""
    found: list[str] = []
    errors = list(validator.iter_errors(read_document("pipeline.yaml", text.encode()).data))
    while errors:
        error = errors.pop()
        found.append(error.message)
        errors += error.context or []
    return found


def documented() -> list[tuple[str, str]]:
    """Every whole pipeline that README and docs show, and the example."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        (page.name, block)
        for page in pages
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)
        if re.search(r"^inputs:", block, re.M)
    ]
    return [("pipeline.yaml", (ROOT / "pipeline.yaml").read_text()), *blocks]


def test_every_pipeline_of_the_docs_fits(validator: Draft7Validator) -> None:
    """What the docs and the example say is right for an editor, too."""
    assert len(documented()) >= 3
    for name, text in documented():
        assert not complaints(text, validator), f"{name}:\n{text}"


@pytest.mark.parametrize(
    "stage",
    [
        "    uses: stamp\n    with: {logo: a.png}\n    output: out/\n",
        "    uses: stamp\n    with: {logo: a.png, at: {left: 3}, size: [3, 4], mode: under}\n    output: out/\n",
        "    uses: ./other.py:Stamp\n    with: {anything: 1}\n    output: {path: out/}\n",
        "    uses: resize\n    with: {width: 8}\n    output: {path: 'o/{stem}.JPG', save: {quality: 8}}\n",
        "    uses: resize\n    match: ['*.png']\n    output: none\n    timeout: 500ms\n",
        "    uses: resize\n    output: o/\nnotify: [{on: [stuck], argv: [a]}, {ping: 'https://a/${B}'}]\n",
    ],
)
def test_what_is_right_fits(validator: Draft7Validator, stage: str) -> None:
    """Short forms and long ones, stages of all names, options of all types."""
    assert not complaints(HEAD + stage, validator)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "    uses: resize\n    with: {widht: 8}\n    output: out/\n", "'widht' was unexpected"),
        (HEAD + "    uses: resize\n    with: {width: wide}\n    output: out/\n", "'wide' is not of type 'integer'"),
        (HEAD + "    uses: resize\n    with: {fit: tight}\n    output: out/\n", "'tight' is not one of"),
        (HEAD + "    uses: resize\n    with: {width: 0}\n    output: out/\n", "0 is less than or equal to"),
        (HEAD + "    uses: reszie\n    output: out/\n", "'resize' was expected"),
        (HEAD + "    uses: stamp\n    output: out/\n", "'with' is a required property"),
        (HEAD + "    uses: stamp\n    with: {}\n    output: out/\n", "'logo' is a required property"),
        (HEAD + "    uses: stamp\n    with: {logo: a, at: {lefft: 1}}\n    output: out/\n", "'lefft' was unexpected"),
        (HEAD + "    uses: stamp\n    with: {logo: a, size: [1]}\n    output: out/\n", "[1] is too short"),
        (HEAD + "    uses: resize\n    output: {path: o.webp, save: {qualty: 8}}\n", "'qualty' was unexpected"),
        (HEAD + "    uses: resize\n    ouput: out/\n", "'ouput' was unexpected"),
        (HEAD + "    uses: resize\n    timeout: 10\n", "10 is not of type 'string'"),
        (HEAD + "    uses: resize\n    timeout: 10 sec\n", "'10 sec' does not match"),
        ("inputs: in\nstages: []\n", "[] should be non-empty"),
        ("stages: [{name: a, uses: resize}]\n", "'inputs' is a required property"),
        (HEAD + "    uses: resize\nengine: dask\n", "'dask' is not one of"),
        (HEAD + "    uses: resize\npool: {max_memory: 2GB!}\n", "'2GB!' does not match"),
        (HEAD + "    uses: resize\nnotify: [{on: [failure]}]\n", "'argv' is a required property"),
        (HEAD + "    uses: resize\nnotify: [{on: [failed], argv: [a]}]\n", "'failed' is not one of"),
        (HEAD + "    uses: resize\nnotify: [{on: [], argv: [a]}]\n", "[] should be non-empty"),
        (HEAD + "    uses: resize\nnotify: [{ping: 'http://hc.example'}]\n", "'http://hc.example' does not match"),
        (HEAD + "    uses: resize\nnotify: [{on: [failure], ping: 'https://a.b'}]\n", "should not be valid under"),
    ],
)  # fmt: skip
def test_what_is_wrong_does_not_fit(validator: Draft7Validator, text: str, says: str) -> None:
    """What `check` refuses, an editor marks: options, types, units, keys, and what has no work behind it yet."""
    found = complaints(text, validator)
    assert any(says in each for each in found), found


def test_options_and_keys_have_their_docs(project: Path) -> None:
    """An editor shows of an option what its type or the stage's docstring says, of a key what the vocabulary says."""
    schema = pipeline_schema(list_stages(project))
    options = schema["definitions"]["with-stamp"]["properties"]
    assert options["logo"]["description"] == "Stamps a file with a `logo`."
    assert schema["definitions"]["with-resize"]["properties"]["frames"]["description"].startswith(
        "`frames: all` resizes"
    )
    assert options["mode"]["description"] == "Over or under it." and options["mode"]["default"] == "on"
    uses = schema["definitions"]["StageEntry"]["properties"]["uses"]["anyOf"]
    assert {"const": "stamp", "title": "stamp", "description": "Stamps a file with a `logo`"} in uses
    models = {"Pipeline": schema, **schema["definitions"]}
    for name in ("Pipeline", "Inputs", "Output", "StageEntry", "Pool", "Retry", "Errors", "Prune", "Notify"):
        for key, said in models[name]["properties"].items():
            assert said.get("description"), f"{name}.{key} has no docstring in model.py"


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The program in this process: exit code, stdout and stderr."""
    code = main(arguments)
    return code, *capfd.readouterr()


def test_stages_that_the_pipeline_names_otherwise_are_known_too(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those of a file or a package that is named in the pipeline at hand have their options in the schema."""
    (project / "more").mkdir()
    (project / "more" / "odd-name.py").write_text("def Pick(data: bytes, *, most: int) -> bytes: return data\n")
    stage = "    uses: ./more/odd-name.py:Pick\n    output: out/\n    with: "
    (project / "pipeline.yaml").write_text(HEAD + stage + "{}\n")
    schema = json.loads(run(capfd, "schema")[1])
    validator = Draft7Validator(schema)
    assert not complaints(HEAD + stage + "{most: 3}\n", validator)
    assert "'most' is a required property" in complaints(HEAD + stage + "{}\n", validator)
    (project / "pipeline.yaml").write_text("{{")
    assert "with-__more_odd_name_py_Pick" not in json.loads(run(capfd, "schema")[1])["definitions"]


def test_schema_is_written(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On stdout, or into a file, also one of its own that is there; with no pipeline.yaml at hand, too."""
    code, printed, _ = run(capfd, "schema")
    assert code == 0 and json.loads(printed)["definitions"]["with-stamp"]
    for _ in range(2):
        assert run(capfd, "schema", "-o", "pipeline.schema.json") == (0, "", "")
    assert (project / "pipeline.schema.json").read_text() == printed
    assert [each.name for each in project.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("pipeline.yaml", "pipeline.yaml exists and is no JSON Schema; name another file\n"),
        ("stages", "stages cannot be written: Is a directory\n"),
        ("no/where.json", "no/where.json cannot be written: No such file or directory\n"),
    ],
)
def test_schema_overwrites_nothing_else(project: Path, capfd: pytest.CaptureFixture[str], file: str, says: str) -> None:
    """A file that is no schema keeps what is in it, and what cannot be written is said in a sentence."""
    (project / "pipeline.yaml").write_text("inputs: in\n")
    assert run(capfd, "schema", "-o", file) == (2, "", says)
    assert (project / "pipeline.yaml").read_text() == "inputs: in\n"


def test_schema_is_not_written_by_mistake(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that is named without -o is no pipeline."""
    says = "x.json is no pipeline; '-o x.json' writes the schema there\n"
    assert run(capfd, "schema", "x.json") == (2, "", says)


def test_a_stage_that_cannot_be_imported_is_left_out_with_the_reason(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One broken stage does not cost the others their completion."""
    (project / "stages" / "broken.py").write_text("import nonesuch\n")
    code, printed, said = run(capfd, "schema")
    definitions: dict[str, Any] = json.loads(printed)["definitions"]
    assert code == 0 and "with-stamp" in definitions and "with-broken" not in definitions
    assert re.fullmatch(r"left out: broken: .*broken\.py:1: cannot be imported: .*'nonesuch'\n", said)
