"""pipeline/config/load.py, schema.py and checks.py: what pipeline.yaml may say, and every complaint."""

from __future__ import annotations

import copy
import json
import math
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.program import Pipeline

from pipeline.cli import main
from pipeline.config.document import read_document
from pipeline.config.load import load_config
from pipeline.config.model import Config, Errors
from pipeline.config.units import Share
from pipeline.errors import ConfigError

STAGES = {
    "prose": "def prose(value: str, *, n: int = 1) -> str: ...\n",
    "keep": "def keep(value: str) -> bool: ...\n",
    "keep_image": "from PIL import Image\ndef keep_image(value: Image.Image) -> bool: ...\n",
    "raw": "def raw(value: bytes) -> bytes: ...\n",
    "where": "from pathlib import Path\ndef where(value: Path, *, logo: Path | None = None) -> Path: ...\n",
    "needs": "def needs(value: bytes, *, model: str) -> bytes: ...\n",
    "broken": "def broken(value: bytes, n: int) -> bytes: ...\n",
    "checked": "def checked(value: bytes) -> bytes: ...\ndef check(**options): {}['n']\nchecked.check = check\n",
    "quality": "from PIL import Image\ndef quality(value: Image.Image, *, quality: int = 1) -> Image.Image: ...\n",
}

Load = Callable[..., Config]
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with an input root and some stages."""
    path = list(sys.path)
    (tmp_path / "in").mkdir()
    (tmp_path / "stages").mkdir()
    for name, text in STAGES.items():
        (tmp_path / "stages" / f"{name}.py").write_text(text)
    yield tmp_path
    sys.path[:] = path


@pytest.fixture
def load(project: Path) -> Load:
    """Writes pipeline.yaml and loads it."""

    def run(text: str, *edits: str) -> Config:
        (project / "pipeline.yaml").write_text(textwrap.dedent(text))
        return load_config(project / "pipeline.yaml", edits)

    return run


@pytest.fixture
def refused(load: Load) -> Callable[..., list[str]]:
    """Loads what is wrong; gives the complaints without the source lines, as `4:14: text`."""

    def run(text: str, *edits: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, *edits)
        lines = str(caught.value).splitlines()
        return [re.sub(r"^.*pipeline\.yaml:(?=\d)", "", each) for each in lines if not each.startswith("    ")]

    return run


@pytest.fixture
def main_in(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs the command line in this process, in a folder; gives its exit code, stdout and stderr."""

    def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        return main(arguments), *capfd.readouterr()

    return run


STAGE = "{name: a, uses: resize, with: {width: 9}, output: 'out/{stem}.png'}"


def pipeline_with(*, stage: str = STAGE, inputs: str = "in", rest: str = "") -> str:
    """A pipeline of three lines: inputs in the first, the stage in the third."""
    return f"inputs: {inputs}\nstages:\n  - {stage}\n{rest}"


# -- what it may say ---------------------------------------------------------------------------------------------------

EVERYTHING = """\
# yaml-language-server: $schema=./pipeline.schema.json
name: photos
inputs:
  root: in
  include: ["*.jpg", "*.png"]
  exclude: ["drafts/", "!drafts/keep/"]
stages:
  - name: web
    uses: resize
    with: {width: 1600, height: 1600}
    output:
      path: out/web/{dir}/{stem}.webp
      save: {quality: 82}
  - name: thumb
    from: web
    uses: resize
    with: {width: 200, height: 200, fit: cover}
    output: out/thumb/{dir}/{stem}.jpg
  - name: text
    from: inputs
    uses: prose
  - name: words
    uses: keep
    output: out/words/
pool:
  processes: 4
  maxtasksperchild: 500
  context: spawn
  initializer: models_of_config:load
  initargs: [model.bin]
changed_by: mtime
engine: serial
state: .pipeline/other
"""


def test_everything(project: Path, load: Load) -> None:
    """The whole vocabulary that has work behind it is read, with paths relative to the YAML's folder."""
    (project / "models_of_config.py").write_text("def load(path): ...\n")
    config = load(EVERYTHING)
    assert (config.name, config.engine, config.folder) == ("photos", "serial", project)
    assert (config.inputs.root, config.state) == (project / "in", project / ".pipeline/other")
    assert config.inputs.include == ("*.jpg", "*.png")
    assert config.inputs.exclude == ("drafts/", "!drafts/keep/")
    assert [(stage.name, stage.parent) for stage in config.stages] == [
        ("web", None), ("thumb", 0), ("text", None), ("words", 2),
    ]  # fmt: skip
    assert [stage.name for stage in config.leaves] == ["web", "thumb", "words"]
    web = config.stages[0]
    assert web.output is not None
    assert (web.options["width"], web.options["fit"], web.output.save["quality"]) == (1600, "inside", 82)
    pool = config.pool
    assert (pool.processes, pool.maxtasksperchild, pool.context) == (4, 500, "spawn")
    assert (pool.initializer, pool.initargs) == ("models_of_config:load", ("model.bin",))


def test_defaults(project: Path, load: Load) -> None:
    """What is left out has its default: the name is the file's stem, the context forkserver."""
    config = load(pipeline_with())
    assert (config.name, config.engine, config.state) == ("pipeline", "pool", project / ".pipeline/pipeline")
    assert (config.pool.processes, config.pool.maxtasksperchild, config.pool.context) == (None, None, "forkserver")
    assert (config.inputs.include, config.inputs.exclude) == ((), ())
    assert config.stages[0].output is not None
    assert config.stages[0].output.save["compress_level"] == 6


def test_a_path_option_stays_as_written(load: Load) -> None:
    """A Path option is kept as it is written, since the recipe must not change when the project moves."""
    config = load(pipeline_with(stage="{name: a, uses: where, with: {logo: art/x.png}, output: 'out/{name}'}"))
    assert config.stages[0].options == {"logo": Path("art/x.png")}


def test_errors_and_settle(load: Load) -> None:
    """No budget, three attempts and no waiting, where nothing is said; `hold_after: never` for ever."""
    config = load(pipeline_with())
    assert (config.errors, config.inputs.settle_s) == (Errors(max=None, hold_after=3), None)
    config = load(pipeline_with(inputs="{root: in, settle: 1.5s}", rest="errors: {max: 0.5%, hold_after: never}"))
    assert (config.errors, config.inputs.settle_s) == (Errors(max=Share("0.5%"), hold_after=None), 1.5)
    assert load(pipeline_with(rest="errors: {max: 7}")).errors == Errors(max=7, hold_after=3)


@pytest.mark.parametrize("output", ["none", "{path: none}"])
def test_output_none_is_no_file_of_that_name(load: Callable[..., Config], output: str) -> None:
    """A stage may leave no file, and then has no template."""
    stage = load(pipeline_with(stage=f"{{name: a, uses: raw, output: {output}}}")).stages[0]
    assert (stage.output, stage.leaves_no_file) == (None, True)


# -- what it may not say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", ["1:1: key 'inputs' is missing", "1:1: key 'stages' is missing", "1:1: unknown key 'a'"]),
        ("inputs: in\nstages: 5", ["2:9: stages: a list is needed, not 5"]),
        ("inputs: in\nstages:", ["2:8: stages: a list is needed, not null"]),
        ("inputs: in\nstages: {a: 1}", ["2:9: stages: a list is needed"]),
        ("inputs: in\nstages: []", ["2:9: stages: at least one is needed"]),
        ("inputs: in\nstages: [5]", ["2:10: stage 1: a mapping is needed, not 5"]),
        (pipeline_with(inputs="[in]"), ["1:9: inputs: a mapping is needed"]),
        (pipeline_with(inputs=""), ["1:8: inputs: a mapping is needed, not null"]),
        (pipeline_with(inputs="{}"), ["1:9: key 'root' is missing"]),
        (pipeline_with(inputs="{rot: in, root: in}"), ["1:10: unknown key 'rot'; did you mean 'root'?"]),
        (pipeline_with(inputs="{root: 5}"), ["1:16: root: text is needed, not 5"]),
        (pipeline_with(inputs="{root: in, include: '*.jpg'}"), ["1:29: include: a list is needed, not \"*.jpg\""]),
        (pipeline_with(inputs="{root: in, include: [no, 5]}"), ["1:34: include: text is needed, not 5"]),
        (pipeline_with(rest="pol: {}"), ["4:1: unknown key 'pol'; did you mean 'pool'?"]),
        (pipeline_with(rest="name: a b"),
         ["4:7: name: at most 64 letters, digits, '_' and '-' are needed, the first not '-', not 'a b'"]),
        (pipeline_with(rest="engine: pol"),
         ["4:9: engine: should be 'serial' or 'pool', not \"pol\"; did you mean 'pool'?"]),
        (pipeline_with(rest="pool: {processes: 0}"),
         ["4:19: processes: should be greater than or equal to 1, not 0"]),
        (pipeline_with(rest="pool: {processes: '4'}"), ['4:19: processes: a whole number is needed, not "4"']),
        (pipeline_with(rest="pool: {processes: true}"), ["4:19: processes: a whole number is needed, not true"]),
        (pipeline_with(rest="pool: {maxtasksperchild: 1.0}"),
         ["4:26: maxtasksperchild: a whole number is needed, not 1.0"]),
        (pipeline_with(rest="pool: {context: forkserve}"),
         ["4:17: context: should be 'fork', 'forkserver' or 'spawn', not \"forkserve\"; did you mean 'forkserver'?"]),
        (pipeline_with(rest="pool: {initializer: models}"),
         ["4:21: initializer: module:function is needed, not 'models'"]),
        (pipeline_with(rest="pool: {initargs: [1]}"), ["4:18: initargs: there is no 'initializer' to take them"]),
        (pipeline_with(rest='state: "a\\0b"'),
         ["4:8: state: text is needed, not empty and without NUL, not 'a\\x00b'"]),
        (pipeline_with(rest="state: in"),
         ["4:8: the state folder 'in' holds the input files; give it a folder of its own, such as .pipeline/NAME"]),
        (pipeline_with(stage="{name: a}"), ["3:5: stage 'a': key 'uses' is missing"]),
        (pipeline_with(stage="{uses: raw, output: 'o/{name}'}"), ["3:5: stage 1: key 'name' is missing"]),
        (pipeline_with(stage="{name: 5, uses: raw, output: 'o/{name}'}"),
         ["3:12: stage 1: name: text is needed, not 5"]),
        (pipeline_with(stage="{name: a, uses: raw, output: 5}"),
         ["3:34: stage 'a': output: a mapping is needed, not 5"]),
        (pipeline_with(stage="{name: a, uses: raw, output: {save: {}}}"), ["3:34: stage 'a': key 'path' is missing"]),
        (pipeline_with(stage="{name: a, use: raw, uses: raw, output: {path: 'o/{name}', svae: {}}}"),
         ["3:15: stage 'a': unknown key 'use'; did you mean 'uses'?",
          "3:63: stage 'a': unknown key 'svae'; did you mean 'save'?"]),
        (pipeline_with(stage="{name: a, uses: raw, with: , output: 'o/{name}'}"),
         ["3:31: stage 'a': with: a mapping is needed, not null"]),
    ],
)  # fmt: skip
def test_vocabulary(refused: Callable[..., list[str]], text: str, said: list[str]) -> None:
    """What is no word of the vocabulary, or of the wrong type, is refused at its place, once."""
    assert refused(text) == said


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("errors: {max: 0}",
         "4:15: max: a percentage is needed, such as 5%, not 0; or should be greater than or equal to 1, not 0"),
        ("errors: {hold_after: 0}",
         "4:22: hold_after: should be greater than or equal to 1, not 0; or should be 'never', not 0"),
        ("errors: {hold_aftr: 3}", "4:10: unknown key 'hold_aftr'; did you mean 'hold_after'?"),
        ("timeout: 60", "4:10: timeout: a duration with its unit is needed, such as 500ms, 60s or 5m, not 60"),
        ("timeout: 60 sec",
         "4:10: timeout: a duration with its unit is needed, such as 500ms, 60s or 5m, not '60 sec'"),
        ("pool: {max_memory: 2G}", "4:20: max_memory: a size with its unit is needed, such as 500MB or 2GiB, not '2G'"),
        ("errors: {max: 5x}", "4:15: max: a percentage is needed, such as 5%, not '5x'; or a whole number is needed, "
                              'not "5x"'),
        ("retry: {mx: 1}", "4:9: unknown key 'mx'; did you mean 'max'?"),
        ("prune: {mx: 1}", "4:9: unknown key 'mx'; did you mean 'max'?"),
    ],
)  # fmt: skip
def test_amounts_and_keys_of_mappings(refused: Callable[..., list[str]], rest: str, said: str) -> None:
    """An amount without its unit, and a misspelt key below the top; a union complains once."""
    assert said in refused(pipeline_with(rest=rest))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("{name: a, uses: resize, with: {widht: 9}, output: 'o/{stem}.png'}",
         "3:36: stage 'a': no option 'widht'; did you mean 'width'?"),
        ("{name: a, uses: resize, with: {width: '9'}, output: 'o/{stem}.png'}",
         "3:43: stage 'a': option 'width': a whole number is needed, not \"9\""),
        ("{name: a, uses: resize, with: {width: 0}, output: 'o/{stem}.png'}",
         "3:43: stage 'a': option 'width': should be greater than 0, not 0"),
        ("{name: a, uses: resize, with: {quality: 82}, output: 'o/{stem}.png'}",
         "3:36: stage 'a': no option 'quality'; how an output is saved is said under output.save"),
        ("{name: a, uses: quality, with: {quality: x}, output: 'o/{stem}.png'}",
         "3:46: stage 'a': option 'quality': a whole number is needed, not \"x\""),
        ("{name: a, uses: needs, output: 'o/{name}'}", "3:5: stage 'a': option 'model' is missing"),
        ("{name: a, uses: needs, with: {}, output: 'o/{name}'}", "3:34: stage 'a': option 'model' is missing"),
        ("{name: a, uses: raww, output: 'o/{name}'}", "3:21: stage 'a': no stage 'raww'; did you mean 'raw'?"),
        ("{name: inputs, uses: raw, output: 'o/{name}'}",
         "3:12: 'inputs' is the source itself; name the stage otherwise"),
        ("{name: a, uses: raw}", "3:5: stage 'a' has no 'output' and no stage reads from it"),
        ("{name: a, uses: raw, output: }", "3:5: stage 'a' has no 'output' and no stage reads from it"),
        ("{name: a, from: b, uses: raw, output: 'o/{name}'}", "3:21: stage 'a': no stage 'b'"),
        ("{name: a, from: input, uses: raw, output: 'o/{name}'}",
         "3:21: stage 'a': no stage 'input'; did you mean 'inputs'?"),
        ("{name: a, from: a, uses: raw, output: 'o/{name}'}",
         "3:21: stage 'a' reads from 'a', which must stand before it"),
    ],
)  # fmt: skip
def test_stages(refused: Callable[..., list[str]], stage: str, said: str) -> None:
    """What is wrong with a stage or its options is refused with its name, at the word that is wrong."""
    assert refused(pipeline_with(stage=stage)) == [said]


def test_a_broken_stage_says_its_own_line(project: Path, refused: Callable[..., list[str]]) -> None:
    """A stage that breaks the contract is refused at `uses`, with its own file and line, and one hint at the end."""
    said = refused(pipeline_with(stage="{name: a, uses: broken, output: 'o/{name}'}"))
    assert said[0].startswith(f"3:21: stage 'a': {project}/stages/broken.py:1: a stage has exactly one parameter")
    assert said[1] == "  hint: options from pipeline.yaml stand after a '*'"


def test_a_check_that_fails_itself_is_the_stages_fault(project: Path, refused: Callable[..., list[str]]) -> None:
    """What a stage's `check` raises, where that is no ValueError, is said with its file and line."""
    said = refused(pipeline_with(stage="{name: a, uses: checked, output: 'o/{name}'}"))
    assert said == [f"3:21: stage 'a': {project}/stages/checked.py:1: the check of 'checked' raised KeyError: 'n'"]


TREE = """\
inputs: in
stages:
  - {name: a, uses: resize, with: {width: 9}, output: 'o/a/{stem}.png'}
  - {name: b, uses: resize, with: {width: 9}, output: 'o/b/{stem}.png'}
"""


def test_after_an_output_from_must_be_said(refused: Callable[..., list[str]]) -> None:
    """A stage after one with an output says what it reads, so that an appended size is never made of a crop."""
    assert refused(TREE) == [
        "4:5: stage 'b' stands after 'a', which has an output; say 'from: a' to read what that stage makes, "
        "or 'from: inputs' for the source"
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: b, ", "name: b, from: inputs, ", []),
        ("name: b, ", "name: b, from: a, ", []),
        ("name: b, ", "name: a, from: inputs, ", ["4:12: stage name 'a' stands here twice"]),
        ("name: a, ", "name: a, from: b, ",
         ["3:21: stage 'a' reads from 'b', which must stand before it", "4:5: stage 'b' stands after 'a'"]),
        ("name: b, ", "name: b, from: aa, ", ["4:21: stage 'b': no stage 'aa'; did you mean 'a'?"]),
        ("o/b/", "o/a/", ["4:5: stage 'b' stands after 'a'", "4:55: stages 'a' and 'b' have the same output"]),
    ],
)  # fmt: skip
def test_the_tree(load: Load, refused: Callable[..., list[str]], old: str, new: str, said: list[str]) -> None:
    """Each stage reads from the source or from a stage above it; names and outputs are its own."""
    text = TREE.replace(old, new)
    if not said:
        assert load(text)
    else:
        assert [got[: len(each)] for got, each in zip(refused(text), said, strict=True)] == said


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("prose", "resize", "stage 'b' takes Picture, but 'a' makes str; there is no conversion ("),
        ("resize", "prose", "stage 'b' takes str, but 'a' makes Image.Image; there is no conversion ("),
    ],
)
def test_types_of_neighbours(refused: Callable[..., list[str]], first: str, second: str, said: str) -> None:
    """Neighbours whose values do not fit are refused before anything runs."""
    sized = {"resize": ", with: {width: 5}"}
    stages = (
        f"  - {{name: a, uses: {first}{sized.get(first, '')}}}\n"
        f"  - {{name: b, uses: {second}{sized.get(second, '')}, output: 'o/{{stem}}.png'}}\n"
    )
    text = f"inputs: in\nstages:\n{stages}"
    assert refused(text)[0].startswith(f"4:21: {said}")


# -- templates and save options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("out/{stem}.webp", ""), ("out/{{x}}/{stem}.png", ""), ("../out/{dir}/{name}", ""), ("out/", ""),
        ("out/{dir}/", ""), ("/tmp/nowhere/{stem}.tif", ""), ("in/small/{stem}.gif", ""), ("out/{stem}_s{suffix}", ""),
        ("~nobody-here/{name}", ""), ("out/{stem}.JPG", ""),
        ("out/x.png", "every file would have the one output 'out/x.png'; use {stem} or {name} in it"),
        ("out/{sten}.png", "no field {sten}; there are {dir}, {name}, {stem}, {suffix}, {part}"),
        ("out/{}.png", "no field {}"), ("out/{stem.png", "a single '{' in"), ("out/stem}.png", "a single '}' in"),
        ("out/{dir}/../{name}", "'.' or '..' after the first field"), ("out/{stem}.png/", ""),
        ("out/{part}.png", "{part} is for stages that fan out"),
        ("out/{stem}.xyz", "no picture can be written as '.xyz'"),
        ("out/{stem}", "no picture can be written without a suffix; end with .jpg or {suffix}"),
        ("out/{stem}_small", "no picture can be written without a suffix"),
        ("out/{suffix}.bak", "no picture can be written as '.bak'"),
        ("in/{stem}.png", "its outputs would lie among the inputs and be read as such; put them under a folder"),
        ("in/", "its outputs would lie among the inputs"), ("./out/../in/{name}", "its outputs would lie among"),
        ("link/{name}", "its outputs would lie among the inputs"),
    ],
)  # fmt: skip
def test_templates(project: Path, load: Load, refused: Callable[..., list[str]], path: str, said: str) -> None:
    """A template that cannot name outputs, or would name inputs, is refused; escapes and folders are understood."""
    (project / "link").symlink_to("in")
    text = pipeline_with(stage=f"{{name: a, uses: resize, with: {{width: 9}}, output: '{path}'}}")
    if not said:
        assert load(text)
        return
    complaints = refused(text)
    assert len(complaints) == 1
    assert complaints[0].startswith("3:55: stage 'a': ")
    assert said in complaints[0]


@pytest.mark.parametrize(
    ("uses", "path", "save", "said"),
    [
        ("quality", "o/{stem}.jpg", "{quality: 95, progressive: true}", ""),
        ("quality", "o/{stem}.avif", "{speed: 10}", ""),
        ("quality", "o/{stem}.jpg", "{quality: 0}",
         "save: option 'quality': should be greater than or equal to 1, not 0"),
        ("quality", "o/{stem}.webp", "{quality: 101}", "should be less than or equal to 100, not 101"),
        ("quality", "o/{stem}.webp", "{method: 7}", "should be less than or equal to 6, not 7"),
        ("quality", "o/{stem}.jpg", "{qualty: 5}", "save: no option 'qualty'; did you mean 'quality'?"),
        ("quality", "o/{stem}.png", "{quality: 5}",
         "save: no option 'quality'; there are 'compress_level', 'optimize'"),
        ("quality", "o/{stem}.gif", "{quality: 5}", "save: no option 'quality'; there are 'background'"),
        ("quality", "o/{stem}.jpg", "{subsampling: 4:2:0}", ""),
        ("quality", "o/{stem}.tif", "{compression: lwz}", "did you mean 'lzw'?"),
        ("quality", "o/", "{quality: 5}", "has no save options, since its format differs from file to file"),
        ("raw", "o/{name}", "{quality: 5}", "has no save options, since it does not make a picture"),
    ],
)  # fmt: skip
def test_save_options(
    load: Load, refused: Callable[..., list[str]], uses: str, path: str, save: str, said: str
) -> None:
    """Each format has its own save options, validated like a stage's."""
    text = pipeline_with(stage=f"{{name: a, uses: {uses}, output: {{path: '{path}', save: {save}}}}}")
    if not said:
        assert load(text)
    else:
        complaints = refused(text)
        assert len(complaints) == 1
        assert said in complaints[0]


def test_a_filter_hands_on_what_it_was_handed(load: Load) -> None:
    """Behind a filter the value is still what it was before it: a picture can be saved after one."""
    stages = "  - {name: a, uses: resize, with: {width: 9}}\n  - {name: b, uses: keep_image, output: 'o/{stem}.jpg'}\n"
    config = load(f"inputs: in\nstages:\n{stages}")
    assert config.stages[1].output is not None
    assert config.stages[1].output.save["quality"] == 82


# -- inputs and the initializer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("nowhere", "the input root 'nowhere' does not exist"), ("pipeline.yaml", "the input root 'pipeline.yaml' is"),
        ("~nobody-here/x", "does not exist"), ("x" * 300, "does not exist"),
    ],
)  # fmt: skip
def test_the_input_root(refused: Callable[..., list[str]], root: str, said: str) -> None:
    """An input root that is no folder is refused before anything runs."""
    assert said in refused(pipeline_with(inputs=root))[0]


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["!", "/", "a/**b["])
def test_patterns(load: Load, refused: Callable[..., list[str]], key: str, pattern: str) -> None:
    """A pattern is one that gitignore has, or refused at its place; no other exception escapes."""
    text = pipeline_with(inputs=f"{{root: in, {key}: [ok, '{pattern}']}}")
    if pattern != "!":
        assert load(text)
    else:
        assert refused(text) == [f"1:34: {key}: {pattern!r} is no gitignore pattern"]


def test_initializer(project: Path, refused: Callable[..., list[str]]) -> None:
    """An initializer that is missing, or does not take the initargs, is refused at its place."""
    (project / "models_refused.py").write_text("def load(path): ...\n")
    said = refused(pipeline_with(rest="pool: {initializer: 'models_refused:lod'}"))
    assert said == [f"4:21: initializer: {project}/models_refused.py: no function 'lod'; did you mean 'load'?"]
    said = refused(pipeline_with(rest="pool: {initializer: 'models_refused:load'}"))
    assert "does not take these 'initargs': missing a required argument: 'path'" in said[0]
    said = refused(pipeline_with(rest="pool: {initializer: 'models_nowhere:load'}"))
    assert "models_nowhere: cannot be imported: ModuleNotFoundError" in said[0]


# -- all at once -------------------------------------------------------------------------------------------------------


def test_all_at_once(refused: Callable[..., list[str]]) -> None:
    """Complaints of every kind come together in the order of the file, even those that only a stage can tell."""
    said = refused("""\
        nmae: x
        inputs: {root: in, settle: 5}
        inputs: twice
        stages:
          - {name: a, uses: resize, with: {widht: 1, height: '1'}, output: 'o/{stem}.png'}
          - {name: b, uses: nosuch, output: 'p/{name}'}
          - {name: c, uses: !!str raw, output: {path: 'q/{name}'}}
        pool: {processes: 0}
    """)
    assert [each.split(": ")[0] for each in said] == [
        "1:1", "2:28", "3:1", "5:36", "5:54", "6:21", "7:21", "8:19",
    ]  # fmt: skip


def test_all_of_the_tree_at_once(refused: Callable[..., list[str]]) -> None:
    """A stage that cannot be found hides nothing of what is wrong with the others."""
    said = refused("""\
        inputs: nowhere
        stages:
          - {name: a, uses: nosuch, output: 'o/{x}'}
          - {name: b, from: inputs, uses: resize, with: {width: 9}, output: 'p/{stem}.xyz'}
          - {name: c, from: inputs, uses: raw}
    """)
    assert [each.split(": ")[0] for each in said] == ["1:9", "3:21", "4:69", "5:5"]


@pytest.mark.parametrize("form", ["{}: 1\n", "pool: {{{}: 1}}\n"], ids=["top", "pool"])
def test_thousands_of_unknown_keys(refused: Callable[..., list[str]], form: str) -> None:
    """A file of nothing but unknown keys is refused in a time that grows with it, and no faster."""

    def seconds(count: int) -> float:
        began = time.process_time()
        keys = [f"k{number}" for number in range(count)]
        rest = "".join(form.format(key) for key in keys) if form[0] == "{" else form.format(": 1, ".join(keys))
        assert refused(pipeline_with(rest=rest))
        return time.process_time() - began

    seconds(100)
    assert seconds(4900) < 25 * seconds(490)


ODD: list[Any] = [
    None, True, 0, -1, 1.5, math.inf, 10**400, "", "a", "none", "inputs", "..", "/", "~", "{stem}", "{", "*", "\0",
    "é" * 200, "x\ny", [], {}, [[]], [None], {"a": 1}, {"": None}, ["a", ["b"]], "resize", "./stages/raw.py", "a:b",
]  # fmt: skip


def places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in the data."""
    yield place
    for step in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[step], (*place, step))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_file_says(project: Path, data: st.DataObject) -> None:
    """A pipeline with anything in any place is loaded or refused, never with an exception but ConfigError, and never in
    the words of a library.
    """
    document = read_document("p.yaml", EVERYTHING.encode()).data
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places(document))[1:]))
        holder = document
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    (project / "p.yaml").write_text(json.dumps(document).replace("Infinity", ".inf"))
    try:
        load_config(project / "p.yaml")
    except ConfigError as error:
        # Not the source lines: the file may hold any word.
        said = [line for line in str(error).splitlines() if not line.startswith("    ")]
        assert not re.search(r"pydantic|validation|instance|tuple|dict|None", "\n".join(said))


# -- the edits of the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("stages.a.with.width=x", "stage 'a': option 'width': a whole number is needed, not \"x\""),
        ("stages.a.with.widht=5", "stage 'a': no option 'widht'; did you mean 'width'?"),
        ("pool.processes=0", "processes: should be greater than or equal to 1, not 0"),
        ("inputs.settle=5", "settle: a duration with its unit is needed, such as 500ms, 60s or 5m, not 5"),
        ("inputs=nowhere", "the input root 'nowhere' does not exist"),
        ("stages.a.output={x}.png", "stage 'a': no field {x}"),
        ("stages.b.with.width=5", "no stage 'b'"),
        ("name.x=5", "name: text is needed"),
        ("stages=5", "stages: a list is needed, not 5"),
        ("pool=null", "pool: a mapping is needed, not null"),
    ],
)
def test_edits_refused(refused: Callable[..., list[str]], edit: str, said: str) -> None:
    """What is wrong with an edit is said of the edit, not of a line of the file."""
    assert refused(pipeline_with(), edit)[0].startswith(f"--set {edit}: {said}")


def test_edits(load: Load) -> None:
    """Edits count as if the file said so; the later one wins."""
    config = load(pipeline_with(), "stages.a.with.width=5", "stages.a.with.width=6", "pool.context=fork", "name=x")
    assert (config.stages[0].options["width"], config.pool.context, config.name) == (6, "fork", "x")


# -- from the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pipeline_with(rest="zz: 1"), "pipeline.yaml:4:1: unknown key 'zz'\n    zz: 1\n    ^\n"),
        (pipeline_with(inputs="nowhere"), "pipeline.yaml:1:9: the input root 'nowhere' does not exist\n"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "pipeline.yaml:1:1: not UTF-8: byte 0x89\n"),
        (b"", "pipeline.yaml:1:1: the file is empty; it must say at least 'inputs' and 'stages'\n"),
    ],
)
@pytest.mark.parametrize("verb", [["run"], ["check"], ["plan"], ["failures"], []])
def test_exit_2(main_in: Main, project: Path, verb: list[str], content: str | bytes, said: str) -> None:
    """Whatever is wrong with the file, every verb ends with exit 2, says so on stderr, and touches nothing."""
    (project / "pipeline.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    before = sorted(project.rglob("*"))
    code, printed, complained = main_in(project, *verb, "pipeline.yaml")
    assert (code, printed) == (2, "")
    assert complained.startswith(said)
    assert [each for each in sorted(project.rglob("*")) if "__pycache__" not in str(each)] == before


@pytest.mark.parametrize(
    ("name", "said"), [("gone.yaml", "No such file"), ("in", "Is a directory"), ("x" * 300, "name")]
)
def test_a_file_that_cannot_be_read(main_in: Main, project: Path, name: str, said: str) -> None:
    """A pipeline that is not there is exit 2, with the reason and how to name one."""
    code, _, complained = main_in(project, "check", "-f", name)
    assert code == 2
    assert said in complained
    assert "hint: name the pipeline" in complained


def test_an_endless_file(main_in: Main, project: Path) -> None:
    """A device that never ends is no pipeline, and refused at once."""
    code, _, complained = main_in(project, "check", "-f", "/dev/zero")
    assert (code, "/dev/zero: no regular file" in complained) == (2, True)


def test_the_state_of_the_pipeline_is_found_from_anywhere(main_in: Main, project: Path, tmp_path: Path) -> None:
    """Relative paths are relative to the YAML's folder, whatever the working directory."""
    (project / "pipeline.yaml").write_text(pipeline_with())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, printed, _ = main_in(elsewhere, "check", str(project / "pipeline.yaml"))
    assert (code, printed) == (0, "a: inputs -> resize -> out/{stem}.png\n")


HEAVY = ("PIL", "tqdm", "pydantic", "sqlite3", "pathspec", "yaml")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["plan", "--help"], ["nonsense"]])
def test_help_is_light(pipeline: Pipeline, arguments: list[str]) -> None:
    """Help, and what is refused by its first word, load none of the heavy libraries."""
    loaded: Any = pipeline(*arguments, PYTHONPROFILEIMPORTTIME="1").stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in loaded.splitlines() if "|" in line}
    assert "pipeline" in names
    assert names.isdisjoint(HEAVY)
