"""Counts code that a stage loads only when it is called, under a name that its text does not tell.

Workers report each such file with the digest of what they loaded. The ledger keeps that by the name of the stage's
code: in a later plan, the files that have changed since are a part of the recipe. So outputs that were made before a
file was known stay as they are, and none that was made with another version of it passes for up to date.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pipeline.config.model import Config, StageConfig
from pipeline.ledger.ledger import Ledger
from pipeline.messages import LateFile
from pipeline.stage.code import CodeState
from pipeline.stage.counted import stamp_of
from pipeline.stage.syntax import digest_of_file

_FACT = "late code"


class LateCode:
    """The files that stages loaded only when they were called, each read once."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._known: dict[str, dict[str, str]] = ledger.facts.get(_FACT) or {}
        """The digest of each file when a stage first loaded it, by the name of the stage's code and the path."""
        self._read: dict[str, str] = {}
        """The present digest of each file, by its path relative to the folder of pipeline.yaml."""

    def known(self, stage: StageConfig) -> Mapping[str, str]:
        """Return the digest of each file when the stage loaded it first, by its path relative to pipeline.yaml."""
        return self._known.get(stage.code.name, {}) if stage.code.recipe is None else {}

    def changed(self, stage: StageConfig) -> Mapping[str, str]:
        """Return the present digests of the files that have changed since the stage loaded them first."""
        known = sorted(self.known(stage).items())
        return {path: now for path, was in known if (now := self._digest(path)) != was}

    def add_to(self, state: CodeState) -> CodeState:
        """Return the state of a run's code with these files as they are now, so that workers load no others."""
        paths = {path for stage in self._config.stages for path in self._known.get(stage.code.name, ())}
        stamps = {self._full(path): stamp_of(self._full(path)) for path in paths}
        digests = {self._full(path): self._digest(path) for path in paths}
        tables = tuple(path for path in stamps if not path.endswith(".py"))
        return replace(
            state,
            digests={**digests, **state.digests},
            stamps={**stamps, **state.stamps},
            tables=tuple(dict.fromkeys((*state.tables, *tables))),
        )

    def add(self, loaded: Iterable[LateFile]) -> tuple[list[str], str]:
        """Keep what a worker has loaded; return the paths not known before, and one that was loaded in two versions."""
        new: list[str] = []
        for index, file, digest in loaded:
            path = os.path.relpath(file, self._config.folder)
            now = self._read.setdefault(path, digest)
            if now != digest:
                return new, file
            for stage in self._users(index):
                known = self._known.setdefault(stage.code.name, {})
                if stage.code.recipe is None and path not in known:
                    known[path] = digest
                    new.append(path)
        if new:
            self._ledger.facts.set(_FACT, self._known)
        return list(dict.fromkeys(new)), ""

    def _users(self, index: int) -> Iterator[StageConfig]:
        """Yield the stages that may use what was loaded in the call of one of them; a later user finds it loaded.

        What a library loads, or an initializer, may be any stage's.
        """
        stages = self._config.stages
        loader = stages[index] if index >= 0 else None
        for stage in stages:
            if stage is loader or stage.code.loads_late or loader is None or not loader.code.loads_late:
                yield stage

    def _digest(self, path: str) -> str:
        if path not in self._read:
            file = self._full(path)
            hides = os.path.join(file.removesuffix(".py"), "__init__.py")  # a package comes before a module
            self._read[path] = digest_of_file(hides if os.path.exists(hides) else file)
        return self._read[path]

    def _full(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._config.folder, path))
