"""`depends` and `libraries`: what else counts as part of the recipes, and every complaint about what cannot."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

import pytest
from support.project import Project

from pipeline.config.load import load_config
from pipeline.config.model import Config
from pipeline.errors import ConfigError

TREE = """
inputs: in
depends: [{whole}]
stages:
  - name: first
    uses: upper
    depends: [{first}]
    output: out/first/{{name}}
  - name: second
    from: first
    uses: upper
    depends: [{second}]
    output: out/second/{{name}}
engine: serial
"""


def tree(folder: Path, *, whole: str = "", first: str = "", second: str = "") -> Project:
    """Two stages in a row over one file, beside some files to depend on."""
    project = Project(folder, TREE.format(whole=whole, first=first, second=second))
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        project.write(f"prompts/{name}", name)
    project.write("in/x", "x")
    return project


def load(project: Project) -> Config:
    return load_config(project.folder / "pipeline.yaml")


def complaint(project: Project) -> str:
    with pytest.raises(ConfigError) as caught:
        load(project)
    return str(caught.value).partition("pipeline.yaml:")[2]


def stale(project: Project) -> dict[str, str]:
    return {output: why for output, (action, why) in project.plan().items() if action == "make"}


# -- what counts -------------------------------------------------------------------------------------------------------


def test_what_the_pipeline_depends_on_counts_for_every_output(tmp_path: Path) -> None:
    """Other contents, a file more and a file less are each named."""
    project = tree(tmp_path, whole="prompts/*.txt")
    assert project.run().done == 2 and stale(project) == {}
    project.write("prompts/a.txt", "other")
    assert stale(project) == dict.fromkeys(["first x", "second x"], "depends: contents of prompts/a.txt changed")
    project.write("prompts/a.txt", "a.txt")
    project.write("prompts/d.txt", "d")
    assert stale(project)["first x"] == "depends: prompts/d.txt added"
    assert project.run().done == 2 and stale(project) == {}
    (tmp_path / "prompts/d.txt").unlink()
    assert stale(project)["second x"] == "depends: prompts/d.txt removed"


def test_what_a_stage_depends_on_counts_for_it_and_all_below(tmp_path: Path) -> None:
    """And for nothing above it."""
    project = tree(tmp_path, first="prompts/a.txt", second="prompts/b.txt")
    project.run()
    project.write("prompts/b.txt", "other")
    assert stale(project) == {"second x": "second: contents of prompts/b.txt changed"}
    project.write("prompts/a.txt", "other")
    assert stale(project) == dict.fromkeys(["first x", "second x"], "first: contents of prompts/a.txt changed")
    project.run()
    project.edit("pipeline.yaml", "[prompts/b.txt]", "[prompts/*.txt]")
    assert stale(project) == {"second x": "second: depends: prompts/a.txt added"}


def test_contents_decide_and_not_times_or_patterns(tmp_path: Path) -> None:
    """Touching a file redoes nothing, nor does naming the same files in other words, nor a folder of a new name."""
    project = tree(tmp_path, whole="prompts/a.txt, prompts/b.txt")
    project.run()
    os.utime(tmp_path / "prompts/a.txt", (7, 7))
    project.edit("pipeline.yaml", "prompts/a.txt, prompts/b.txt", "./prompts/*.txt, prompts/a.txt")
    assert stale(project) == {}
    project.folder = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert stale(project) == {}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("prompts/*", ["prompts/a.txt", "prompts/b.txt"]),
        ("prompts/**", ["prompts/a.txt", "prompts/b.txt", "prompts/deep/c.txt"]),
        ("'prompts/[a]*'", ["prompts/a.txt"]),
        ("'prompts/../prompts/?.txt'", ["prompts/a.txt", "prompts/b.txt"]),
        ("'**/c.txt'", ["prompts/deep/c.txt"]),
        ("'odd[1].txt'", ["odd[1].txt"]),
        ("'../beside-*'", ["../beside-it"]),
        ("'**/*.made'", ["x.made"]),
    ],
)
def test_patterns_are_those_of_the_shell(tmp_path: Path, pattern: str, found: list[str]) -> None:
    """Folders are no files; what a run writes is left out; a name that is there is meant as it stands."""
    project = tree(tmp_path / "project", first=pattern)
    project.write("odd[1].txt", "odd")
    project.write("../beside-it", "beside")
    project.write(".pipeline/pipeline/id", "0123456789abcdef\n")
    for name in ("x.made", "out/first/x.made", ".pipeline/pipeline/x.made"):
        project.write(name, "made")
    assert list(load(project).stages[0].depends) == found


def test_any_name_counts(tmp_path: Path) -> None:
    """A name that is not UTF-8 is shown escaped."""
    project = tree(tmp_path, whole="prompts/*")
    project.run()
    with open(os.fsencode(tmp_path) + b"/prompts/\xff\n", "w"):
        pass
    assert stale(project)["first x"] == r"depends: prompts/\xff\n added"
    assert project.run().done == 2 and stale(project) == {}


def test_outputs_beside_the_yaml_hide_nothing(tmp_path: Path) -> None:
    """Where outputs lie in the YAML's own folder, everything else lies there too."""
    project = tree(tmp_path, whole="prompts/a.txt")
    project.edit("pipeline.yaml", "out/first/{name}", "'{stem}.first'")
    assert load(project).depends == ("prompts/a.txt",)


# -- what cannot -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("prompts/aa.txt", "no file 'prompts/aa.txt'; did you mean 'prompts/a.txt'?"),
        ("nowhere/a", "no file 'nowhere/a'"),
        ("prompts", "'prompts' is a folder; say 'prompts/**' for all that is in it"),
        ("prompts/", "'prompts/' is a folder; say 'prompts/**' for all that is in it"),
        ("fifo", "'fifo' is no regular file"),
        ("out/first/x", "'out/first/x' lies in the output folder of stage 'first', where every run writes"),
        (".pipeline/pipeline/log", "'.pipeline/pipeline/log' lies in the state folder, where every run writes"),
    ],
)
def test_a_name_that_cannot_count_is_refused(tmp_path: Path, name: str, says: str) -> None:
    """With its line and a caret, before anything runs."""
    project = tree(tmp_path, whole=name)
    os.mkfifo(tmp_path / "fifo")
    project.write("out/first/x", "x")
    project.write(".pipeline/pipeline/id", "0123456789abcdef\n")
    project.write(".pipeline/pipeline/log", "x")
    place, _, text = complaint(project).partition(" ")
    assert place == "3:11:" and text.splitlines()[0] == f"depends: {says}"


def test_every_complaint_is_made_at_once(tmp_path: Path) -> None:
    """Those about stages too, whatever else is wrong with them."""
    project = tree(tmp_path, whole="p", first="q", second="r")
    project.edit("pipeline.yaml", "engine: serial", "engine: serial\nlibraries: [pilow, PIL]")
    project.write("stages/upper.py", "nothing = 1\n")
    said = re.findall(r"(?<=\d: )(.*)$", complaint(project), re.M)
    assert [each for each in said if "upper" not in each] == [
        "depends: no file 'p'", "stage 'first': depends: no file 'q'", "stage 'second': depends: no file 'r'",
        "libraries: no distribution 'pilow' is installed; did you mean 'pillow'?",
        "libraries: no distribution 'PIL' is installed; did you mean 'pillow'?",
    ]  # fmt: skip


def test_a_pattern_that_matches_nothing_is_warned_of(tmp_path: Path) -> None:
    """It may be meant: no prompts yet. So may one that matches inputs, of which each redoes all."""
    project = tree(tmp_path, whole="prompts/*.text", first="'*/x'")
    first, second = load(project).warnings
    assert "pipeline.yaml:3:11: warning: depends: no file matches 'prompts/*.text'\n" in first
    text = "'*/x' matches 1 of the files under the input root; each that changes redoes all"
    assert f"warning: stage 'first': depends: {text}\n" in second


# -- libraries ---------------------------------------------------------------------------------------------------------


def test_a_library_counts_by_its_version_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by default; another version redoes everything and is said; how the name is spelt does not matter."""
    site = tmp_path / "site"

    def install(version: str) -> None:
        info = site / "odd_lib.dist-info/METADATA"
        info.parent.mkdir(parents=True, exist_ok=True)
        info.write_text(f"Metadata-Version: 2.1\nName: Odd.Lib\nVersion: {version}\n")

    install("1.0")
    monkeypatch.syspath_prepend(str(site))
    project = tree(tmp_path / "project")
    project.run()
    install("2.0")
    assert stale(project) == {}
    project.edit("pipeline.yaml", "engine: serial", "engine: serial\nlibraries: [odd_lib, pillow]")
    assert stale(project)["first x"] == "odd-lib none -> 2.0"
    assert project.run().done == 2
    project.edit("pipeline.yaml", "[odd_lib, pillow]", "[Pillow, Odd-Lib]")
    assert stale(project) == {}
    install("3.0")
    assert stale(project) == dict.fromkeys(["first x", "second x"], "odd-lib 2.0 -> 3.0")
    assert load(project).versions == {"pillow": metadata.version("pillow"), "odd-lib": "3.0"}
