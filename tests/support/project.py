"""A small project of text stages, run and planned in this process, for the tests that do both many times."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.load import load_config
from pipeline.ledger.intents import RESEAL_WHERE
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import key_of
from pipeline.ledger.session import open_to_read
from pipeline.operations.guards import NOTHING_CONFIRMED, Confirmations
from pipeline.operations.run import run
from pipeline.planning.decisions import Decision, text_of
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection
from pipeline.report.summary import Summary

UPPER = '''
def upper(text: str, *, mark: str = "") -> str:
    """Shout."""
    return text.upper() + mark
'''
MOODY = """
from pipeline import Skip
def upper(text: str) -> str:
    if text.startswith("skip"):
        raise Skip("not wanted")
    if text.startswith("bad"):
        raise ValueError("bad text")
    return text.upper()
"""
ONE_STAGE = """
inputs: in
stages:
  - name: up
    uses: upper
    output: out/{dir}/{name}
engine: serial
"""
LINES = """
from collections.abc import Iterator
def lines(text: str) -> Iterator[str]:
    yield from text.splitlines()
"""
NAMES = """
from collections.abc import Iterator
from pipeline import Item
def names(items: Iterator[Item[str]]) -> str:
    return "".join(f"{item.source} {item.value}\\n" for item in items)
"""
EVERY_KIND = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: lines, from: inputs, uses: lines, output: 'out/lines/{dir}/{stem}/{part}.txt'}
  - {name: sheet, from: up, uses: names, gather: true, group: '{dir}', output: 'out/{dir}/sheet.txt'}
engine: serial
"""

Why = tuple[str, str]


class Project:
    """A folder with a pipeline.yaml, a stage `upper`, and inputs under `in/`."""

    def __init__(self, folder: Path, yaml: str = ONE_STAGE) -> None:
        self.folder = folder
        self.write("pipeline.yaml", yaml)
        self.write("stages/upper.py", UPPER)
        (folder / "in").mkdir(exist_ok=True)

    def write(self, file: str, data: str | bytes) -> Path:
        """Write a file of the project and return its path; its folder is created if it is missing."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text, which must occur, in a file of the project."""
        text = (self.folder / file).read_text()
        assert old in text
        self.write(file, text.replace(old, new))

    def run(
        self,
        only: str | None = None,
        limit: int | None = None,
        force: bool = False,
        confirmed: Confirmations = NOTHING_CONFIRMED,
        yaml: str = "pipeline.yaml",
        **more: Any,
    ) -> Summary:
        """Run the pipeline and return the summary."""
        self._forget_modules()
        config = load_config(self.folder / yaml)
        return run(config, Selection(_patterns(only), limit, force, **more), confirmations=confirmed)

    def plan(
        self, only: str | None = None, limit: int | None = None, force: bool = False, **more: Any
    ) -> dict[str, Why]:
        """Return the action and the reason that a run would have for each output, by `stage source`."""
        self._forget_modules()
        config = load_config(self.folder / "pipeline.yaml")
        with open_to_read(config.state / "ledger.sqlite") as ledger:
            leaves = output_specs(config, ledger, record=False)
            selection = Selection(_patterns(only), limit, force, **more)
            plan = make_plan(config, ledger, leaves, selection, everything=True)
            return {
                f"{each.stage} {key_of(each.origin).decode()}": (each.action, text_of(each.reason))
                for each in decisions(plan)
            }

    def orphans(self, only: str | None = None) -> list[str]:
        """Return the targets of the orphans in the plan of a run."""
        self._forget_modules()
        config = load_config(self.folder / "pipeline.yaml")
        with open_to_read(config.state / "ledger.sqlite") as ledger:
            plan = make_plan(config, ledger, output_specs(config, ledger, record=False), Selection(_patterns(only)))
            return [orphan.target.decode() for orphan in plan.store.orphans() if orphan.status != "intended"]

    def outputs(self) -> dict[str, bytes]:
        """Return the contents of every file below `out/` by its relative path; owner files are left out."""
        return contents_below(self.folder / "out")

    def _forget_modules(self) -> None:
        """Remove the project's modules from `sys.modules`, so that they are imported again, as by a new process."""
        sys.dont_write_bytecode = True
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.folder)):
                del sys.modules[name]


def _patterns(only: str | None) -> tuple[str, ...]:
    return () if only is None else (only,)


def made(folder: Path, *names: str) -> Project:
    """Return a project over files of these names, with all outputs made; its stage is `MOODY`."""
    project = Project(folder)
    project.write("stages/upper.py", MOODY)
    for name in names:
        project.write(f"in/{name}", f"text {name}")
    assert project.run().done == len(names)
    return project


def every_kind(folder: Path) -> Project:
    """Return a project that makes of each text one file, parts, and a sheet of each folder; nothing is in it yet."""
    project = Project(folder, EVERY_KIND)
    project.write("stages/upper.py", MOODY)
    project.write("stages/lines.py", LINES)
    project.write("stages/names.py", NAMES)
    return project


@contextmanager
def ledger_of(folder: Path) -> Iterator[Ledger]:
    """Open the ledger of the project in a folder for reading and writing; its rows get their checksums afterwards."""
    file = folder / ".pipeline/pipeline/ledger.sqlite"
    with closing(Ledger(file)) as ledger:
        yield ledger
        ledger._connection.execute(f"{RESEAL_WHERE} TRUE")


def die_after(folder: Path, work: Callable[[Ledger], None]) -> None:
    """Have a process write to the ledger of the project in a folder, and be killed before it closes that."""
    if (child := os.fork()) == 0:
        try:
            ledger = Ledger(folder / ".pipeline/pipeline/ledger.sqlite")
            work(ledger)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def decisions(plan: Plan) -> list[Decision]:
    """Return all decisions of a plan."""
    return list(plan.store.decisions())


def contents_below(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file below a folder by its relative path; owner files are left out."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.name != ".filemill"}


def temporaries(folder: Path) -> list[Path]:
    """Return the temporaries below a folder."""
    return list(folder.rglob(".filemill-*"))
