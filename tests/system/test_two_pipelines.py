"""Two pipelines over one root: neither takes the outputs of the other for sources, unless its root says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.ledger.session import open_to_read
from pipeline.operations.guards import Confirmations
from pipeline.planning.plan import make_plan
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection
from tests.support.project import Project, contents_below

_YAML = """
inputs: {root}
stages: [{{name: up, uses: upper, output: '{output}'}}]
engine: serial
"""


def _two(folder: Path, *, first_root: str = "in", second_root: str = "in") -> Project:
    """Return a project of two pipelines, a and b, that write below one root, and three sources."""
    project = Project(folder)
    project.write("a.yaml", _YAML.format(root=first_root, output="in/from-a/{dir}/{name}"))
    project.write("b.yaml", _YAML.format(root=second_root, output="in/from-b/{dir}/{name}"))
    for name in ("x.txt", "deep/y.txt", "zz.txt"):
        project.write(f"in/{name}", f"text {name}")
    return project


def test_neither_takes_the_others_outputs(tmp_path: Path) -> None:
    """Night after night both make three outputs of three sources, and each names what it leaves out."""
    project = _two(tmp_path)
    assert project.run(yaml="a.yaml").done == 3
    for yaml, other, made in (("b.yaml", "a", 3), ("a.yaml", "b", 0), ("b.yaml", "a", 0)):
        summary = project.run(yaml=yaml)
        assert (summary.done, summary.sources, summary.exit) == (made, 3, 0)
        assert summary.notes == [f"left out, outputs of pipeline '{other}': from-{other}/"]
    assert len(contents_below(tmp_path / "in")) == 9


def test_check_and_plan_name_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run leaves out, `check` and `plan` say beforehand; `explain` says it of a file."""
    project = _two(tmp_path)
    project.run(yaml="a.yaml")
    monkeypatch.chdir(tmp_path)
    for verb in ("check", "plan"):
        assert main([verb, "b.yaml"]) == 0
        assert "left out, outputs of pipeline 'a': from-a/\n" in capsys.readouterr().err
    main(["explain", "b.yaml", "in/from-a/x.txt"])
    assert "not an input: outputs of pipeline 'a'" in capsys.readouterr().out
    listed = project.run(yaml="b.yaml", names=[b"from-a/x.txt", b"x.txt"])
    assert (listed.done, listed.notes[0]) == (1, "left out, outputs of pipeline 'a': from-a/x.txt")


@pytest.mark.parametrize("root", ["in/from-a", "in/from-a/deep"])
def test_a_chain_reads_what_its_root_names(tmp_path: Path, root: str) -> None:
    """A pipeline whose root is the output folder of another, or lies in it, takes all that is there."""
    project = _two(tmp_path, second_root=root)
    project.run(yaml="a.yaml")
    (tmp_path / "in/from-b").mkdir()
    assert project.run(yaml="b.yaml").done == (3 if root == "in/from-a" else 1)


def test_sources_that_turn_out_to_be_outputs_are_excluded_not_gone(tmp_path: Path) -> None:
    """Where all that a pipeline knew is claimed by another later, no disk is missing: its outputs are orphans."""
    project = _two(tmp_path, second_root="in")
    for name in ("x.txt", "zz.txt", "deep/y.txt"):
        (tmp_path / "in" / name).rename(tmp_path / Path(name).name)
        project.write(f"in/from-a/{Path(name).name}", "made before there were owner files")
    assert project.run(yaml="b.yaml").done == 3
    owned = tmp_path / "in/from-a/.filemill"
    owned.write_text('{"pipeline": "a", "state": "0123456789abcdef"}')
    summary = project.run(yaml="b.yaml")
    assert (summary.exit, summary.sources) == (0, 0)
    assert summary.notes == ["left out, outputs of pipeline 'a': from-a/"]
    project.write("in/x.txt", "a file that stays")
    for name in ("x.txt", "zz.txt", "y.txt"):  # as if the other pipeline had pruned them
        (tmp_path / "in/from-a" / name).unlink()
    with open_to_read(tmp_path / ".pipeline/b/ledger.sqlite") as ledger:
        config = load_config(tmp_path / "b.yaml")
        plan = make_plan(config, ledger, output_specs(config, ledger, record=False), Selection())
        assert {orphan.code for orphan in plan.store.orphans()} == {"excluded_now"}
    owned.write_bytes(b"{")
    assert project.run(yaml="b.yaml").notes == ["left out, outputs of a pipeline, by a damaged .filemill: from-a/"]


@pytest.mark.parametrize("folder", ["2023", "years/2023"])
def test_a_folder_of_many_sources_that_gets_an_owner_file(tmp_path: Path, folder: str) -> None:
    """Since another pipeline writes beside them, or outputs were copied there: their outputs are kept."""
    project = Project(tmp_path, _YAML.format(root="in", output="out/{dir}/{name}") + "prune: {max: 100%}\n")
    for number in range(20):
        project.write(f"in/{folder}/{number}", f"text {number}")
    others = folder.count("/")
    if others:  # else all that is known is left out, and no disk is missing
        project.write("in/years/x", "beside")
    assert project.run().done == 20 + others
    (tmp_path / f"in/{folder}/.filemill").write_text('{"pipeline": "c", "state": "0123456789abcdef"}')
    for _ in range(2):
        summary = project.run()
        assert (summary.exit, summary.pruned, len(project.outputs())) == (4, 0, 20 + others)
        text = f"folder {folder}/ holds outputs of pipeline 'c' now, and 20 known files of it are left out; their"
        assert summary.notes[-1].startswith(text)
    (tmp_path / f"in/{folder}/.filemill").rename(tmp_path / "owner")
    assert project.run().exit == 0
    (tmp_path / "owner").rename(tmp_path / f"in/{folder}/.filemill")
    assert project.run().exit == 4
    assert project.run(confirmed=Confirmations(rebuild=True)).pruned == 20
    assert (project.run().exit, len(project.outputs())) == (0, others)
