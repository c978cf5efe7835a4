"""Writes the values of a job: temporary files into its scratch folder, outputs to their targets."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.files.atomic import Check, Committed, Committer, GiveName, give_name
from pipeline.files.file_system import WRITING, blame_machine
from pipeline.files.naming import name_new
from pipeline.files.permissions import Permissions
from pipeline.files.set_aside import SetAside, clear_scratch, made_in, mark_scratch
from pipeline.messages import Target
from pipeline.notes import Notes, collected
from pipeline.stage.values import PATH, Kind, write

# A rise of the peak that tells nothing: allocators take memory in such pieces.
_RISE_BYTES = 1 << 20
_numbers = count(1)
# In so much time no process takes more than some megabytes, even if it does nothing else.
_PEAK_HOLDS_S = 0.001


class Scratch:
    """The temporary folder of one job, below the run's; created when it is first needed, removed with the job."""

    folder: Path | None = None
    """The path of the folder; None until it has been needed."""
    _count = 0
    _part_files: tuple[Path, ...] = ()

    def __init__(self, above: Path, base: Path, source: bytes) -> None:
        """Create no folder yet; `base` is the pipeline's folder, and `source` empty for a group."""
        self._above, self._base, self._source = above, base, source

    def create(self) -> Path:
        """Return the folder, creating it if it is missing. Raises EnvironmentFailure."""
        if self.folder is None:
            # Of its own, so that what could not be removed of one job is never found by the next.
            self.folder = self._above / f"{os.getpid()}-{next(_numbers)}"
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._source:
                    mark_scratch(self.folder, self._base, self._source)
            except OSError as error:
                raise blame_machine(error, self.folder, WRITING) from error
        return self.folder

    def new_file(self, suffix: str) -> Path:
        """Return an unused path in the folder."""
        self._count += 1
        return self.create() / f"value-{self._count}{suffix}"

    def holds(self, path: Path) -> bool:
        """Return whether a file lies in the folder, and is not only linked there."""
        return self.folder is not None and not path.is_symlink() and self.folder in path.resolve().parents

    def add_part_file(self, path: Path) -> None:
        """Remember a file that a stage made of the current part."""
        if self.holds(path):
            self._part_files += (path,)

    def begin_part(self) -> int:
        """Return the mark for `end_part` that separates the files of a new part from earlier files."""
        return self._count

    def end_part(self, begun: int) -> None:
        """Remove the files of a part, since a job may have thousands of parts."""
        for number in range(begun + 1, self._count + 1):
            for file in self.create().glob(f"value-{number}.*"):
                file.unlink(missing_ok=True)
        for file in self._part_files:
            file.unlink(missing_ok=True)
        self._part_files = ()

    def files(self) -> list[bytes]:
        """Return the paths of the regular files in the folder that are not empty, in byte order."""
        return made_in(self.create())

    def remove(self, set_aside: Path) -> None:
        """Remove the folder and its contents; set them aside if the source is gone."""
        if self.folder is not None:
            clear_scratch(self.folder, set_aside)


class PeakMeter:
    """Tells the most memory that this process has held in each of its jobs."""

    def __init__(self) -> None:
        self._before_bytes = 0
        """The peak before the job; a job that does not exceed it has none of its own."""
        self._has_risen = True
        """True if the peak may be that of an earlier job."""
        self._is_exact = True
        """True if the peak before the job was what the process held then, and none of long ago."""
        self._peak_bytes = 0
        self._read_at_s = 0.0
        """When `_peak_bytes` was read."""

    def begin(self) -> None:
        """Begin anew, if the job before has raised the peak: what that held is free by now.

        Telling the kernel so takes as long as a small job does, and after most of them there is no need.
        """
        if self._has_risen:
            self._has_risen = False
            with suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
                file.write(b"5")
            self._read_at_s = 0.0
            self._before_bytes = self._read()
            self._is_exact = self._before_bytes <= _held_bytes() + _RISE_BYTES

    def take(self) -> int | None:
        """Return the most memory held since `begin`, as of a millisecond ago at most; None if it is unknown."""
        peak = self._read()
        if peak > self._before_bytes + _RISE_BYTES:
            self._has_risen = True
            return peak
        return peak if self._is_exact else None

    def _read(self) -> int:
        if (now_s := time.perf_counter()) - self._read_at_s > _PEAK_HOLDS_S:
            self._read_at_s = now_s
            # In KiB on Linux. It includes what the parent held of which this process was spawned.
            self._peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return self._peak_bytes


def _held_bytes() -> int:
    with suppress(OSError), open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


peak_meter = PeakMeter()


def naming_of(target: Target, set_aside: SetAside, *, is_again: bool) -> GiveName:
    """Return the function that gives an output its name.

    If nothing was at the path when the run was planned, nothing is replaced, unless the output `is_again` made, so that
    the file there may be ours. A file that may be a person's is set aside first.
    """
    if target.is_new and not is_again:
        return name_new if target.digests is None else set_aside.guarding(target.digests, name_new)
    if target.is_new or target.digests is not None:
        return set_aside.guarding(target.digests or (), give_name)
    return give_name


def write_output(
    committer: Committer,
    path: bytes,
    value: Any,
    kind: Kind,
    notes: Notes,
    check: Check,
    name: GiveName | None = None,
    *,
    permissions: Permissions,
    save: Mapping[str, Any],
    source: bytes,
    may_move: bool,
) -> tuple[Committed, Notes]:
    """Commit a value as an output; return its record for the ledger, and its notes with those of the writing.

    `name` gives the finished temporary its name. A file that `may_move` is renamed rather than copied. Metadata that
    the save options keep is read from the source.
    """
    if kind.encode is not None:
        return committer.put(path, kind.encode(value), check, name, permissions), notes
    if kind is PATH and may_move and (moved := committer.move(value, path, check, name, permissions)):
        return moved, notes
    suffix = os.path.splitext(os.fsdecode(path))[1]

    def fill(file: BinaryIO) -> None:
        write(value, kind, file, suffix, dict(save), Path(os.fsdecode(source)))

    with collected() as noted:
        return committer.write(path, fill, check, name, permissions), notes | noted
