"""The code of stages as plain data: its files, the digest of each, and their state when they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from pipeline.files import hashlib
from pipeline.records import dataclass
from pipeline.stage.counted import Stamp


@dataclass(frozen=True)
class Code:
    """The code of a stage or an initializer, as plain data."""

    name: str
    """The name, with that of the module, such as `resize.Resize`."""
    files: Mapping[str, str]
    """The digest of every file whose code counts, by its path."""
    recipe: int | None = None
    """The module's own `RECIPE`, which counts instead of the files; None where it has none."""
    loads_late: bool = False
    """True if calls of it load modules whose names the text does not tell."""

    @property
    def identity(self) -> str:
        """The name and a digest of the code, as a recipe has them, which do not depend on where the files lie."""
        if self.recipe is not None:
            return f"{self.name} recipe {self.recipe}"
        digests = "".join(sorted(self.files.values()))
        return f"{self.name} {hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()}"


NO_CODE = Code("", {})


@dataclass(frozen=True)
class CodeState:
    """The state of a pipeline's files of code when they were digested; workers may load no other."""

    bytes: Mapping[str, str] = field(default_factory=dict)
    """The digest of the bytes of every source, by its path."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of the code of every source, without layout and comments, by its path."""
    stamps: Mapping[str, Stamp | None] = field(default_factory=dict)
    """The stamp of every file, by its path; None for one that does not exist."""
    tables: tuple[str, ...] = ()
    """The files that no import compiles, such as tables, libraries and scripts, of which only stamps are compared."""
    others: frozenset[str] = frozenset()
    """The other imported files, which count for no stage, such as those that a module with a `RECIPE` imports."""


NO_STATE = CodeState()
