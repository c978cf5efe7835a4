"""The scratch folder of one job: made when it is first needed, and gone with the job."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline.files.file_system import WRITING, blame_machine


class Scratch:
    """A folder of this process's own below the run's."""

    def __init__(self, above: Path) -> None:
        self._above = above
        self.folder: Path | None = None
        """None until it is needed."""
        self.files = 0
        """How many files of ours were asked for."""
        self.of_part: list[Path] = []
        """What stages have made in it of the part that is on its way."""

    def made(self) -> Path:
        """The folder, which is there now. Raises what the machine is to blame for."""
        if self.folder is None:
            self.folder = self._above / str(os.getpid())
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise blame_machine(error, self.folder, WRITING) from error
        return self.folder

    def file(self, suffix: str) -> Path:
        """A new path in it."""
        self.files += 1
        return self.made() / f"value-{self.files}{suffix}"

    def forget_after(self, number: int) -> None:
        """Remove our files but for so many, the first, and what was made of a part: a job may have thousands."""
        for each in range(number + 1, self.files + 1):
            for file in self.made().glob(f"value-{each}.*"):
                file.unlink(missing_ok=True)
        while self.of_part:
            self.of_part.pop().unlink(missing_ok=True)

    def holds(self, path: Path) -> bool:
        """Whether a file lies in it, and is not only linked there."""
        return self.folder is not None and not path.is_symlink() and self.folder in path.resolve().parents

    def clean_up(self) -> None:
        """Remove the folder, and whatever is in it."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
