"""Whatever is done to a project, a run that asks the note finds what a run finds that looks at every file."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import LINES, NAMES, Project

from pipeline.config.load import load_config
from pipeline.ledger.session import open_to_read
from pipeline.operations import unchanged_note
from pipeline.operations.guards import Confirmations
from pipeline.operations.run import run
from pipeline.operations.unchanged_note import answer_unchanged
from pipeline.planning.decisions import Orphan, text_of
from pipeline.planning.plan import make_plan
from pipeline.planning.ranges import Looked
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection
from pipeline.report.summary import Summary

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: lines, from: inputs, uses: lines, output: 'out/lines/{dir}/{stem}-{part}.txt'}
  - {name: some, from: inputs, uses: upper, match: ['*5*'], output: 'out/some/{dir}/{name}'}
  - {name: sent, from: inputs, uses: upper, output: none}
  - {name: sheet, from: up, uses: names, gather: true, group: '{dir}', output: 'out/{dir}/sheet.txt'}
depends: [table.txt]
prune: {max: 100%}
engine: serial
"""
UPPER = """
import helper
from pipeline import Skip
def upper(text: str, *, mark: str = "") -> str:
    if text.startswith("skip"):
        raise Skip("not wanted")
    return helper.shout(text) + mark
"""
HELPERS = ("def shout(text):\n    return text.upper()\n", "def shout(text):\n    return text.title()\n")
# Names with which ranges begin, so that a few files make so many that two processes look at them; and others.
FIRSTS = list(itertools.islice((n for n in map(str, itertools.count()) if not zlib.crc32(n.encode()) & 0x3FF), 9))
SOURCES = [*FIRSTS, "0", "5", "55", "a", "b", "d/5", "d/6", "e/7"]


class Drill:
    """One project and a person who does random things to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.project = Project(folder, YAML)
        self.folder = folder
        self.answers: Counter[str] = Counter()
        self.project.write("stages/upper.py", UPPER)
        self.project.write("stages/lines.py", LINES)
        self.project.write("stages/names.py", NAMES)
        self.project.write("helper.py", HELPERS[0])
        self.project.write("table.txt", "1")
        for name in SOURCES:
            self.project.write(f"in/{name}", f"text of {name}\nand more\n")
        for _ in range(2):  # the first one puts the project's folder on the path, which is part of the question
            assert self.project.run().exit == 0

    def any_of(self, *folders: str) -> Path | None:
        """Any regular file below these folders."""
        found = [each for folder in folders for each in sorted((self.folder / folder).rglob("*"))]
        files = [each for each in found if each.is_file() and not each.is_symlink() and each.name != ".filemill"]
        return self.chance.choice(files) if files else None

    # -- what a person does ----------------------------------------------------------------------------------------

    def nothing(self) -> None:
        """Most nights."""

    def write_source(self) -> None:
        text = self.chance.choice(["other", "text\nof\nthree lines", "skip this", "more"])
        self.project.write(f"in/{self.chance.choice(SOURCES)}", text)

    def add_source(self) -> None:
        self.project.write(f"in/{self.chance.choice(['d/new', 'new5', '!', 'zz', 'f/g/h'])}", "new")

    def remove(self) -> None:
        if file := self.any_of("in", "out"):
            file.unlink()

    def edit_output(self) -> None:
        if file := self.any_of("out"):
            file.write_text("mine")

    def change_size_and_keep_time(self) -> None:
        if file := self.any_of("in", "out"):
            found = file.stat()
            file.write_text(file.read_text() + "!")
            os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))

    def touch(self) -> None:
        if file := self.any_of("in", "out"):
            at = self.chance.choice([1, 10**9, 4 * 10**9])  # long ago, and by a clock that is wrong
            os.utime(file, (at, at))

    def swap(self) -> None:
        where = self.chance.choice(["in", "out"])
        one, other = self.any_of(where), self.any_of(where)
        if one and other and one != other:
            one.rename(self.folder / "aside")
            other.rename(one)
            (self.folder / "aside").rename(other)

    def change_mode(self) -> None:
        if file := self.any_of("in", "out"):
            file.chmod(self.chance.choice([0o600, 0o644, 0o444]))

    def put_a_link(self) -> None:
        if file := self.any_of("in"):
            file.rename(self.folder / "aside")
            file.symlink_to(self.chance.choice([self.folder / "aside", self.folder / "nowhere"]))

    def edit_yaml(self) -> None:
        old, new = self.chance.choice([
            ("uses: upper, output: none", "uses: upper, with: {mark: x}, output: none"),
            ("match: ['*5*']", "match: ['*6*']"), ("depends:", "# a remark\ndepends:"),
            ("name: sent", "name: told"), ("sheet, from: up", "sheet, from: some"),
            ("out/some/{dir}", "out/few/{dir}"), ("inputs: in\n", "inputs: {root: in, exclude: ['b']}\n"),
        ])  # fmt: skip
        text = (self.folder / "pipeline.yaml").read_text()
        self.project.write("pipeline.yaml", text.replace(old, new) if old in text else text.replace(new, old))

    def edit_code(self) -> None:
        file = self.folder / self.chance.choice(["helper.py", "stages/upper.py", "stages/more.py"])
        if file.name == "helper.py":
            at_once, found = self.chance.choice([True, False]), file.stat()
            file.write_text(HELPERS[file.read_text() == HELPERS[0]])
            if at_once:
                os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
        else:
            file.write_text((file.read_text() if file.exists() else "") + "# more\nMORE = 1\n")

    def edit_table(self) -> None:
        file = self.folder / "table.txt"
        found = file.stat()
        file.write_text(self.chance.choice(["1", "2", "3"]))
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))

    def keep_a_backup(self) -> None:
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        for name in (".pipeline", "out", "in"):
            shutil.copytree(self.folder / name, self.folder / "backup" / name, symlinks=True)

    def restore(self) -> None:
        name = self.chance.choice([".pipeline", "out", "in"])
        if (self.folder / "backup" / name).exists():
            shutil.rmtree(self.folder / name)
            shutil.copytree(self.folder / "backup" / name, self.folder / name, symlinks=True)

    # -- what two runs find ----------------------------------------------------------------------------------------

    def plan(self, looked: Looked | None = None, *, everything: bool = False) -> tuple[object, ...]:
        """The counts and the orphans of a plan."""
        self.project._forget_modules()
        config = load_config(self.folder / "pipeline.yaml")
        with open_to_read(config.state / "ledger.sqlite") as ledger:
            specs = output_specs(config, ledger, record=False)
            plan = make_plan(config, ledger, specs, Selection(), everything=everything, looked=looked)
            orphans: list[Orphan] = list(plan.store.orphans())
            counts = {(action, text_of(why)): n for (action, why), n in (plan.counts + plan.counts_of_groups).items()}
            files = {(action, text_of(why)): n for (action, why), n in plan.files.items() if n}
            return plan.sources, counts, files, orphans, dict(plan.unmatched), plan.walk.describe_left_out()

    def check(self) -> None:
        """Compare what the note answers with a plan that judges every file, and go on by what it answers."""
        answer = answer_unchanged(self.folder / "pipeline.yaml")
        expected = self.plan(everything=True)
        self.answers[type(answer).__name__] += 1
        if isinstance(answer, Summary):
            sources, counts, _, orphans, *_ = expected
            assert isinstance(counts, dict)
            assert {action for action, _ in counts} == {"up-to-date"} and not orphans
            assert (answer.sources, answer.up_to_date) == (sources, sum(counts.values()))
            return
        assert self.plan(answer) == expected
        self.run(looked=answer)
        if self.chance.random() < 0.7:  # what a person has edited is given up, so that nothing is left to be done
            self.run(force=True)
        self.run()
        assert self.plan() == self.plan(everything=True)

    def run(self, *, force: bool = False, looked: Looked | None = None) -> None:
        """Run the pipeline; where its guards stop that, a person says that it is meant."""
        self.project._forget_modules()
        config, meant = load_config(self.folder / "pipeline.yaml"), Confirmations(rebuild=True)
        if run(config, Selection(force=force), looked=looked).exit == 4:
            run(config, Selection(), confirmations=meant)


EDITS: list[Callable[[Drill], None]] = [
    Drill.nothing, Drill.nothing, Drill.write_source, Drill.write_source, Drill.add_source, Drill.remove,
    Drill.edit_output, Drill.change_size_and_keep_time, Drill.touch, Drill.swap, Drill.change_mode, Drill.put_a_link,
    Drill.edit_yaml, Drill.edit_code, Drill.edit_table, Drill.keep_a_backup, Drill.restore,
]  # fmt: skip


def drill(folder: Path, seed: int, edits: int) -> Counter[str]:
    """Do so many random things to a project, and return how often the note answered what."""
    person = Drill(folder, seed)
    for _ in range(edits):
        person.chance.choice(EDITS)(person)
        person.check()
    return person.answers


@pytest.mark.parametrize("seed", [1])
def test_what_is_done_to_a_project_is_found(tmp_path: Path, seed: int) -> None:
    drill(tmp_path, seed, 8)


def test_two_processes_find_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks at one half of the ranges."""
    monkeypatch.setattr(unchanged_note, "can_help", lambda: True)
    drill(tmp_path, 3, 8)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(4, 10))
def test_what_is_done_over_many_nights_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The note answers in part and in full in every one of these."""
    monkeypatch.setattr(unchanged_note, "can_help", lambda: bool(seed % 2))
    answers = drill(tmp_path, seed, 100)
    assert answers["Summary"] and answers["Looked"] and answers["NoneType"]
