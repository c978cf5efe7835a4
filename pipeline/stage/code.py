"""The code of stages as plain data: which files it is in, what each does, and what they were when that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.stage.counted import Stamp


@dataclass(frozen=True)
class Code:
    """The code of a stage or an initializer, as plain data."""

    name: str
    """The module's and its own, such as `resize.Resize`."""
    files: Mapping[str, str]
    """The digest of every file whose code counts, by its path."""
    recipe: int | None = None
    """The module's own `RECIPE`, which counts instead of the files if it has one."""

    @property
    def identity(self) -> str:
        """The code's name and a digest of it, for a recipe; independent of where the files lie."""
        if self.recipe is not None:
            return f"{self.name} recipe {self.recipe}"
        digests = "".join(sorted(self.files.values()))
        return f"{self.name} {hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()}"


NO_CODE = Code("", {})


@dataclass(frozen=True)
class CodeState:
    """The state of the files of a pipeline's code when they were digested; a worker may load no other."""

    bytes: Mapping[str, str] = field(default_factory=dict)
    """The digest of the bytes of every source, by its path."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of what it does."""
    stamps: Mapping[str, Stamp | None] = field(default_factory=dict)
    """The stamp of every file."""
    tables: tuple[str, ...] = ()
    """The files that no import compiles: tables, libraries, scripts that are run. Only stamps tell of these."""


NO_STATE = CodeState()
