"""How runs end, which event that is for whom, and what was told of the runs before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SIGNALLED, SUCCEEDED, EnvironmentFailure, FilemillError, RunHangs
from pipeline.files import hashlib
from pipeline.files.file_system import read_regular
from pipeline.files.state_dir import TOLD_FILE
from pipeline.files.sync import replace_file
from pipeline.records import dataclass
from pipeline.report.metrics import Figures
from pipeline.report.notify import Entry

if TYPE_CHECKING:
    from pipeline.report.summary import Summary

_A_BUG, _FILES_FAILED = 70, 1
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Ending:
    """How a run has ended."""

    exit: int
    text: str
    """What a person reads of it."""
    run: str = ""
    log: str = ""
    report: str = ""
    done: int = 0
    failed: int = 0
    new_failed: int = 0
    held: int = 0
    recovered: int = 0
    is_failing: bool = False
    """True if files that had failed are neither made nor only held: they may have been left for the next run."""
    is_hung: bool = False
    """True if another run was found that hangs."""
    is_whole: bool = True
    """True unless the run was over a part of the files, of which no success tells anything about the others."""

    @classmethod
    def of(cls, summary: Summary, *, is_failing: bool = False, is_whole: bool = True) -> Ending:
        """Return the ending of a run that has a summary."""
        return cls(
            summary.exit, "\n".join(summary.lines()), summary.run, summary.log, summary.report, summary.done,
            summary.failed, summary.new_failed, summary.held, summary.recovered, is_failing, is_whole=is_whole,
        )  # fmt: skip

    @property
    def is_well(self) -> bool:
        """True if nothing is wrong with the run."""
        return self.exit in SUCCEEDED

    def ends_failure(self, before: int | None) -> bool:
        """Return whether all is well again after a run with an exit code.

        It is not where what failed is only held now, or was not looked at.
        """
        is_mended = (self.exit == 0 or self.recovered > 0) and not self.is_failing
        return self.is_well and (is_mended or before != _FILES_FAILED)

    @property
    def is_signalled(self) -> bool:
        """True if a person has stopped the run by a signal."""
        return self.exit >= SIGNALLED

    @property
    def concerns_pipeline(self) -> bool:
        """True if it says something about the pipeline: a person's stop does not, nor a part that went well."""
        return not self.is_signalled and (self.is_whole or not self.is_well)


def event_of(entry: Entry, before: int | None, ending: Ending) -> str:
    """Return the event that is told to the program of an entry; empty if there is nothing to tell.

    Args:
        entry: The entry.
        before: The exit code of the last run that it knows of, 0 if all was well; None if it knows of none.
        ending: How the run has ended.
    """
    if ending.is_well:
        is_over = ending.ends_failure(before)
        events = [
            ("recovery", is_over and before not in (None, 0)),
            ("success", (is_over and before != 0) or entry.always),
        ]
    else:
        is_news = before != ending.exit or ending.new_failed > 0 or entry.always
        events = [("stuck", ending.is_hung and is_news), ("failure", is_news)]
    return next((event for event, is_due in events if is_due and event in entry.on), "")


def ending_of_error(error: BaseException | None, *, run: str = "", log: str = "", is_whole: bool = True) -> Ending:
    """Return the ending for an exception that ended a run."""
    # Python wraps a KeyboardInterrupt raised in a class body.
    is_stopped = any(isinstance(each, KeyboardInterrupt) for each in (error, getattr(error, "__cause__", None)))
    if isinstance(error, FilemillError):
        code = error.exit_code
    elif isinstance(error, OSError):
        code = EnvironmentFailure.exit_code
    else:
        code = SIGNALLED + 2 if is_stopped else _A_BUG
    text = str(error) if isinstance(error, (FilemillError, OSError)) else f"filemill has a bug: {type(error).__name__}"
    return Ending(code, text, run, log, is_hung=isinstance(error, RunHangs), is_whole=is_whole)


@dataclass
class Memory:
    """What was told of the runs before, by way of the file in the state folder."""

    file: Path
    exits: dict[str, int]
    """The exit code that each entry knows of, 0 if all was well, by the digest of the entry."""
    figures: Figures

    @classmethod
    def load(cls, state: str) -> Memory:
        """Read the file; one that is not there, or damaged, is that of a pipeline that has not run."""
        file = Path(state) / TOLD_FILE
        try:
            data = json.loads(read_regular(file))
            return cls(file, dict(data["exits"]), Figures(**data["figures"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return cls(file, {}, Figures())

    def save(self) -> None:
        """Write the file, if that can be: without it the next run tells once more."""
        data = {"exits": self.exits, "figures": self.figures.as_json()}
        with suppress(OSError):
            replace_file(self.file, json.dumps(data).encode(), self.file.with_name(f"{TOLD_FILE}.new"))

    def exit_known_to(self, entry: Entry) -> int | None:
        """Return the exit code that an entry knows of, 0 if all was well; None if it knows of none."""
        return self.exits.get(_key(entry))

    def learn(self, entry: Entry, ending: Ending, *, is_told: bool) -> None:
        """Remember that an entry knows of an ending, or that it could not be told, so that the next run tells it."""
        before = self.exit_known_to(entry)
        if is_told and not (ending.is_well and not ending.ends_failure(before)):
            self.exits[_key(entry)] = 0 if ending.is_well else ending.exit
        elif not ending.is_well:
            self.exits.pop(_key(entry), None)

    def keep(self, entries: Sequence[Entry]) -> None:
        """Forget the entries that are no more."""
        self.exits = {key: code for key, code in self.exits.items() if key in set(map(_key, entries))}


def _key(entry: Entry) -> str:
    return hashlib.blake2b(json.dumps(entry).encode(), digest_size=_DIGEST_BYTES).hexdigest()
