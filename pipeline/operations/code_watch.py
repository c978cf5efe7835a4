"""Whether the code and the tables that a run was planned with are still what they were."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config.model import Config
from pipeline.errors import CodeChanged, WorkersFailed
from pipeline.planning.recipe import contents_read
from pipeline.stage.code import CodeState
from pipeline.stage.code_guard import changed_file, changed_table
from pipeline.stage.counted import stamp_of


class CodeWatch:
    """Watches the files that the recipes of a run were made of, from before that."""

    def __init__(self, config: Config) -> None:
        contents = {path: stamp_of(path) for path in contents_read(config)}
        code = config.code_state
        tables = tuple(dict.fromkeys((*code.tables, *contents)))
        self.state: CodeState = replace(code, stamps={**contents, **code.stamps}, tables=tables)
        """The state of the code, with which workers compare the files that they load."""
        self.changed = ""
        """The first file that is not what it was when it was used; empty if there is none."""
        self.is_spoilt = False
        """Whether what is in hand may have been made of a table that is not what it was."""

    def on_loaded(self, file: str) -> None:
        """Note that a worker has loaded other code than was planned with."""
        self.changed = self.changed or file

    def check_tables(self) -> None:
        """Look whether a table was written to since the run was planned."""
        if not self.is_spoilt and (file := changed_table(self.state)):
            self.is_spoilt = True
            self.changed = self.changed or file

    def explain(self, error: WorkersFailed) -> Exception:
        """Return why no worker can start: that is what comes of other code than was planned with."""
        file = self.changed or changed_file(self.state)
        return CodeChanged(file) if file else error
