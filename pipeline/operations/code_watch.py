"""Watches the code and the tables that a run was planned with for changes during the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.config.model import Config
from pipeline.errors import CodeChanged, WorkersFailed
from pipeline.messages import LateFile
from pipeline.planning.late_code import LateCode
from pipeline.planning.recipe import contents_read
from pipeline.stage.code import CodeState
from pipeline.stage.code_guard import changed_file, changed_table
from pipeline.stage.counted import stamp_of


class CodeWatch:
    """Watches the files of a run's recipes, from before the recipes are made."""

    def __init__(self, config: Config, late: LateCode) -> None:
        contents = {path: stamp_of(path) for path in contents_read(config)}
        code = late.add_to(config.code_state)
        self._late = late
        tables = tuple(dict.fromkeys((*code.tables, *contents)))
        self.state: CodeState = replace(code, stamps={**contents, **code.stamps}, tables=tables)
        """The state of the code with which workers compare the files that they load."""
        self.changed = ""
        """The first file that has changed since it was used; empty if none has."""
        self.is_spoilt = False
        """True if jobs in hand may have used a table that has changed."""

    def on_loaded(self, file: str) -> None:
        """Record that a worker loaded code that differs from the plan's."""
        self.changed = self.changed or file

    def on_loaded_late(self, files: Iterable[LateFile]) -> list[str]:
        """Keep files that the plan did not know; return those that no run has met before."""
        new, changed = self._late.add(files)
        if changed:  # which of the jobs in hand use the other version, nobody knows
            self.is_spoilt = True
            self.on_loaded(changed)
        return new

    def check_tables(self) -> None:
        """Check whether a table was written to since the run was planned."""
        if not self.is_spoilt and (file := changed_table(self.state)):
            self.is_spoilt = True
            self.changed = self.changed or file

    def explain(self, error: WorkersFailed) -> Exception:
        """Return the error to raise where no worker can start: `CodeChanged` if changed code is the cause."""
        file = self.changed or changed_file(self.state)
        return CodeChanged(file) if file else error
