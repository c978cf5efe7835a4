"""What makes an output stale beside its source, and what does not."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from support.project import Project

from pipeline.config.load import load_config
from pipeline.ledger.ledger import Ledger
from pipeline.planning.recipe import Recipe, output_specs

# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_digest_does_not_depend_on_the_order_of_options() -> None:
    """Sorting the options in pipeline.yaml redoes nothing."""
    assert Recipe({"a": 1, "b": 2}).digest == Recipe({"b": 2, "a": 1}).digest


# -- code on the way to an output --------------------------------------------------------------------------------------

HELPED = """
from {imported} import mark
def upper(text: str) -> str:
    return text.upper() + mark()
"""


def is_stale(project: Project) -> bool:
    return any(action == "make" for action, _ in project.plan().values())


@pytest.mark.parametrize(
    ("imported", "file"),
    [("stages.help", "stages/help.py"), (".help", "stages/help.py"), ("mine", "mine.py"), ("lib.help", "lib/help.py")],
)
def test_helpers_beside_the_yaml_are_code_of_the_stage(tmp_path: Path, imported: str, file: str) -> None:
    """What a stage imports from the YAML's folder counts as its own code, wherever it lies there."""
    project = Project(tmp_path)
    project.write(file, "def mark() -> str:\n    return '1'\n")
    project.write("stages/upper.py", HELPED.format(imported=imported))
    project.write("in/a", "x")
    project.run()
    project.write(file, "def mark() -> str:\n    'Said.'\n    return '1'\n")
    assert not is_stale(project)
    project.write(file, "def mark() -> str:\n    return '2'\n")
    assert project.plan()["up a"] == (
        "make",
        "up: code changed (" + os.path.relpath(tmp_path / file) + ")",
    )


def test_a_helper_imported_only_when_called_is_code_too(tmp_path: Path) -> None:
    """A line that imports inside a function has not run when the plan is made; its file counts all the same."""
    project = Project(tmp_path)
    project.write("late.py", "import later\nMARK = later.MARK\n")
    project.write("later.py", "MARK = '1'\n")
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    import late\n    return text + late.MARK\n")
    project.write("in/a", "x")
    project.run()
    assert not is_stale(project)
    project.write("later.py", "MARK = '2'\n")
    assert is_stale(project)


def test_imports_that_lead_nowhere_do_no_harm(tmp_path: Path) -> None:
    """Lines that never run may import what is not there."""
    project = Project(tmp_path)
    project.write("broken.py", "def :\n")
    code = "def upper(text: str) -> str:\n    return text\n    from .... import x\n    import nowhere.at.all, broken\n"
    project.write("stages/upper.py", code)
    project.write("in/a", "x")
    project.run()
    assert not is_stale(project)
    project.write("broken.py", "def ::\n")
    assert is_stale(project)


def test_a_helpers_own_word_is_taken(tmp_path: Path) -> None:
    """`RECIPE = 3` in what a stage imports stands for that file, and no more."""
    project = Project(tmp_path)
    project.write("own_word.py", "RECIPE = 3\ndef mark() -> str:\n    return '1'\n")
    project.write("stages/upper.py", HELPED.format(imported="own_word"))
    project.write("in/a", "x")
    project.run()
    project.edit("own_word.py", "'1'", "str(1)")
    assert not is_stale(project)
    project.edit("own_word.py", "RECIPE = 3", "RECIPE = 4")
    assert is_stale(project)
    project.run()
    project.edit("stages/upper.py", "mark()", "mark() * 1")
    assert is_stale(project)


def test_a_modules_own_word_is_taken(tmp_path: Path) -> None:
    """`RECIPE = 3` says that the outputs are the same whatever the code; another number that they are not."""
    project = Project(tmp_path)
    project.write("stages/upper.py", "RECIPE = 3\ndef upper(text: str) -> str:\n    return text.upper()\n")
    project.write("in/a", "x")
    project.run()
    project.edit("stages/upper.py", "text.upper()", "str.upper(text)")
    assert not is_stale(project)
    project.edit("stages/upper.py", "RECIPE = 3", "RECIPE = 4")
    assert is_stale(project)


# -- for ever the same -------------------------------------------------------------------------------------------------

EVERYTHING = """
inputs: in
depends: [note]
stages:
  - {name: text, uses: golden, with: {logo: note}, depends: [note], output: 'out/text/{name}'}
  - {name: web, from: inputs, uses: resize, with: {width: 100}, output: 'out/web/{stem}.webp'}
  - {name: own, from: inputs, uses: resize, with: {width: 50}, output: {path: 'out/{stem}.jpg', save: {color: keep}}}
pool: {initializer: 'golden_models:load', initargs: [note, 1]}
"""
GOLDEN_STAGE = """
import golden_helper
from pathlib import Path
def golden(text: str, *, logo: Path, odd: list[int] = [1, 2]) -> str:
    return text + str(golden_helper.mark())
"""
EXAMPLE_RECIPES = {"web": "279931a04b58e67a365c6209c33dc610", "thumb": "0615e9afa1c153cf56dd21b31182375a"}
EVERY_PART = {
    "text": "f6a47d89cb112d1c5420af5f4fd63bf1", "web": "3c2b74279bdff12b75cc56f40657863d",
    "own": "c3a475a55a09d1b8336cb2b63ae30176",
}  # fmt: skip


def recipes_of(yaml: Path) -> dict[str, str]:
    config = load_config(yaml)
    with closing(Ledger(None)) as ledger:
        return {leaf.stage: leaf.recipe.digest for leaf in output_specs(config, ledger, record=False)}


def test_an_upgrade_of_ours_redoes_nothing(example: Path, tmp_path: Path) -> None:
    """A recipe is what it was in the version before, wherever it is made.

    Where this fails, every output of every user is made anew: change the digests only with the number RECIPE of
    values.py or of resize.py, because other bytes are made.
    """
    assert recipes_of(example / "pipeline.yaml") == EXAMPLE_RECIPES
    project = Project(tmp_path / "project", EVERYTHING)
    project.write("note", "note\n")
    project.write("golden_models.py", "def load(a, b): pass\n")
    project.write("golden_helper.py", "def mark(): return 1\n")
    project.write("stages/golden.py", GOLDEN_STAGE)
    assert recipes_of(project.folder / "pipeline.yaml") == EVERY_PART


def test_formatting_renaming_and_moving_redo_nothing(tmp_path: Path) -> None:
    """All at once: other layout, comments and docstrings, another name of the stage, another place of the project."""
    project = Project(tmp_path / "here")
    project.write("in/a", "x")
    project.run()
    layout = "# Loud.\ndef upper( text : str,*,\n mark : str='' )->str:\n  'Shouts.'\n\n  return (text.upper()+mark)\n"
    project.write("stages/upper.py", layout)
    project.edit("pipeline.yaml", "name: up", "name: loud")
    project.folder = project.folder.rename(tmp_path / "there")
    assert project.plan() == {"loud a": ("up-to-date", "up to date")}
    assert project.run().done == 0 and project.outputs() == {"a": b"X"}
