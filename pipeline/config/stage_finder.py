"""Imports the stages that a pipeline names, lets each check its options, and complains about any failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.document import Document
from pipeline.config.model import Pool
from pipeline.config.schema import who_at
from pipeline.errors import StageError
from pipeline.stage.code_reader import CodeReader
from pipeline.stage.counted import file_of
from pipeline.stage.isolation import announce_place
from pipeline.stage.options import Place, check_options
from pipeline.stage.recorder import Recorder
from pipeline.stage.resolve import check_call, find, find_function, set_stage_path
from pipeline.stage.signature import Stage, keyword_options
from pipeline.types import FitBox

FoundStage = tuple[Stage, dict[str, Any], FitBox | None]
"""A stage, its options after defaults, and the box into which it fits pictures with these options, if any."""


class StageFinder:
    """Imports the stages and initializers of a pipeline, and lets the stages check their options."""

    def __init__(self, document: Document, folder: Path, recorder: Recorder, deaths: Mapping[Place, str]) -> None:
        self.folder = folder
        self.code = CodeReader(recorder, folder)
        self.looked_for: set[str] = set()
        """The paths at which an option might have named a file."""
        self._document = document
        self._recorder = recorder
        self._deaths = deaths

    def find_all(self) -> list[FoundStage | None]:
        """Return every stage with its options checked, even if the file has other errors; None for an invalid stage."""
        entries = self._document.data.get("stages")
        if not isinstance(entries, list):
            return []
        try:
            with self._importing(("stages",), "stages/__init__.py"):
                set_stage_path(self.folder)
        except StageError as error:
            self._document.complain(("stages",), error.text)
            return [None] * len(entries)
        return [self._find(index) for index in range(len(entries))]

    def find_initializer(self, place: Place, pool: Pool, who: str) -> Callable[..., Any] | None:
        """Return the initializer of a pool; None where it has none, or one that does not take its `initargs`."""
        if pool.initializer is None:
            return None
        at = (*place, "pool", "initializer")
        try:
            with self._importing(at, repr(pool.initializer)):
                set_stage_path(self.folder)
                function = find_function(pool.initializer)
            check_call(function, pool.initargs)
        except StageError as error:
            self._document.complain(at, f"{who}initializer: {error.text}", hint=error.hint)
            return None
        return function

    def _find(self, index: int) -> FoundStage | None:
        place: Place = ("stages", index)
        entry, who = self._document.at(place), who_at(self._document.data, place)
        uses, given = (entry.get("uses"), entry.get("with", {})) if isinstance(entry, dict) else (None, None)
        if not isinstance(uses, str) or not isinstance(given, dict):
            return None  # the vocabulary has said so
        where = ""
        try:
            with self._importing((*place, "uses"), repr(uses)):
                stage = find(uses, self.folder)
            self._note_changes(stage)
            where = f"{stage.where}: "
            options, problems = check_options(stage.options, given, self._is_file)
        except StageError as error:
            self._document.complain((*place, "uses"), f"{who}{where}{error.text}", hint=error.hint)
            return None
        for each in problems:
            name, text = str(each.place[0]) if each.place else "", each.text
            if name not in stage.options and name in _every_save_option():
                text = f"no option {name!r}; how an output is saved is said under output.save"
            self._document.complain((*place, "with", *each.place), f"{who}{text}", key=each.key)
        return stage, options, None if problems else self._ask(place, stage, options)

    def _is_file(self, text: str) -> bool:
        """Return whether a text names a file beside pipeline.yaml, and remember that it was looked for."""
        path = os.path.join(self.folder, text)
        self.looked_for.add(path)
        return os.path.isfile(path)

    def _ask(self, place: Place, stage: Stage, options: dict[str, Any]) -> FitBox | None:
        """Let a stage check its options, and return the box into which it fits pictures."""
        who = who_at(self._document.data, place)
        try:
            self._announce((*place, "with"), f"the check of {stage.uses!r}")
            stage.check(options)
            return stage.fit_box(options)
        except ValueError as error:
            self._document.complain((*place, "with"), f"{who}{error}")
        except StageError as error:
            self._document.complain((*place, "uses"), f"{who}{error.text}")
        finally:
            self._recorder.note_changes(())  # what its own check has changed, nobody else did
        return None

    @contextmanager
    def _importing(self, place: Place, what: str) -> Iterator[None]:
        self._announce(place, f"the import of {what}")
        self._recorder.is_importing = True
        try:
            yield
        finally:
            self._recorder.is_importing = False

    def _announce(self, place: Place, what: str) -> None:
        """Announce the code that runs next. Raises StageError where it ended an earlier process."""
        if how := self._deaths.get(place):
            raise StageError(f"{what} ended the process {how}")
        announce_place(place)

    def _note_changes(self, stage: Stage) -> None:
        files = [file_of(sys.modules.get(name)) for name in (stage.module, stage.target.__module__)]
        self._recorder.note_changes([file for file in files if file])


def _every_save_option() -> set[str]:
    from pipeline.images.encode import SAVERS

    return {name for saver in SAVERS.values() for name in keyword_options("save", saver)}
