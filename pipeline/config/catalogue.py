"""Lists the stages that a pipeline can use by name: those in `stages/` beside its YAML, and the bundled ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.config.document import read_document
from pipeline.errors import ConfigError, StageError
from pipeline.files.file_system import read_regular
from pipeline.records import dataclass
from pipeline.stage import describe as about
from pipeline.stage.isolation import announce_place
from pipeline.stage.resolve import BUNDLED, find, set_stage_path
from pipeline.stage.signature import Stage


@dataclass(frozen=True)
class Entry:
    """A module of a `stages` folder, with its stage if that can be used."""

    name: str
    file: Path
    stage: Stage | None
    problem: str = ""
    """The reason why the module cannot be used as a stage; empty if it can."""

    @property
    def is_bundled(self) -> bool:
        """True if the stage is a bundled one."""
        return self.file.is_relative_to(BUNDLED)


NO_DEATHS: Mapping[str, str] = {}
"""The end of each process that died while it imported a stage, by the stage."""


def list_stages(folder: Path, deaths: Mapping[str, str] = NO_DEATHS) -> list[Entry]:
    """List every stage that a pipeline in a folder sees by name, its own before the bundled ones, each in order.

    A module that cannot be imported is listed with the reason. Raises StageError where `stages/__init__.py` fails.
    """
    set_stage_path(folder)
    return [_entry(name, file, folder, deaths) for name, file in _modules()]


def visible_stages(pipeline: Path, deaths: Mapping[str, str] = NO_DEATHS) -> list[Entry]:
    """List every stage that a pipeline can use by name, and those that it names by their file or package."""
    folder = pipeline.resolve().parent
    entries = list_stages(folder, deaths)
    for uses in dict.fromkeys(_uses_of(pipeline)):
        if re.search("[.:/]", uses):
            with suppress(StageError):  # `check` says what is wrong with it
                entries.append(find_stage(uses, folder, deaths))
    return entries


def _uses_of(pipeline: Path) -> Iterator[str]:
    """Yield the `uses` of every stage of a pipeline file; nothing if it cannot be read."""
    try:
        data = read_document(str(pipeline), read_regular(pipeline)).data
    except (OSError, ConfigError):
        return
    stages = data.get("stages")
    for stage in stages if isinstance(stages, list) else []:
        if isinstance(stage, dict) and isinstance(stage.get("uses"), str):
            yield stage["uses"]


def _modules() -> Iterator[tuple[str, Path]]:
    """Yield the modules on the stage path; of two that share a name, the first."""
    seen: set[str] = set()
    for place in map(Path, sys.modules["stages"].__path__):
        files = [*place.glob("[!_.]*.py"), *place.glob("[!_.]*/__init__.py")]
        for file in sorted(files):
            name = file.parent.name if file.name == "__init__.py" else file.stem
            if name not in seen:
                seen.add(name)
                yield name, file


def _entry(name: str, file: Path, folder: Path, deaths: Mapping[str, str]) -> Entry:
    try:
        return Entry(name, file, _usable(name, folder, deaths))
    except StageError as error:
        return Entry(name, file, None, error.text)


def find_stage(uses: str, folder: Path, deaths: Mapping[str, str] = NO_DEATHS) -> Entry:
    """Find the stage that a pipeline in a folder means by a name. Raises StageError where none can be used."""
    set_stage_path(folder)
    stage = _usable(uses, folder, deaths)
    return Entry(uses, Path(sys.modules[stage.module].__file__ or stage.module), stage)


def _usable(uses: str, folder: Path, deaths: Mapping[str, str]) -> Stage:
    """Return a stage whose options YAML can give. Raises StageError for any other."""
    if how := deaths.get(uses):
        raise StageError(f"{uses!r}: its import ended the process {how}")
    announce_place(uses)
    stage = find(uses, folder)
    announce_place(None)
    about.options(stage)
    return stage
