"""Every stage that a pipeline can use by its name alone: the bundled ones, and those in `stages/` beside its YAML."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError
from pipeline.signature import Stage
from pipeline.stage import BUNDLED, find, set_stage_path
from pipeline.stdio import stdout_to_stderr


@dataclass(frozen=True)
class Entry:
    """One module of a `stages` folder, and the stage in it, if it has one that can be used."""

    name: str
    file: Path
    stage: Stage | None
    problem: str = ""
    """Why it cannot be used."""

    @property
    def is_bundled(self) -> bool:
        """Whether it came with the program."""
        return self.file.is_relative_to(BUNDLED)


def list_stages(folder: Path) -> list[Entry]:
    """Every stage that a pipeline in this folder sees by name, its own before the bundled ones, each in order.

    A module that cannot be imported is listed with the reason. Raises StageError where `stages/__init__.py` cannot be.
    """
    with stdout_to_stderr():  # a module may print when it is imported
        set_stage_path(folder)
        return [_entry(name, file, folder) for name, file in _modules()]


def _modules() -> Iterator[tuple[str, Path]]:
    """The modules on the stage path; of two that share a name the first."""
    seen: set[str] = set()
    for place in map(Path, sys.modules["stages"].__path__):
        files = [*place.glob("[!_.]*.py"), *place.glob("[!_.]*/__init__.py")]
        for file in sorted(files):
            name = file.parent.name if file.name == "__init__.py" else file.stem
            if name not in seen:
                seen.add(name)
                yield name, file


def _entry(name: str, file: Path, folder: Path) -> Entry:
    try:
        return Entry(name, file, find(name, folder))
    except StageError as error:
        return Entry(name, file, None, error.text)


def find_stage(uses: str, folder: Path) -> Entry:
    """The stage that a pipeline in this folder means by a name. Raises StageError where there is none to be used."""
    with stdout_to_stderr():
        set_stage_path(folder)
        stage = find(uses, folder)
    return Entry(uses, Path(sys.modules[stage.module].__file__ or stage.module), stage)
