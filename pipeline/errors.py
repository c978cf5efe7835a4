"""The exceptions of filemill, and the exit code of a run that ends with each.

::

    FilemillError                      70
    ├── UsageError                      2   the command line, or a call from Python, asks for something impossible
    ├── ConfigError                     2   pipeline.yaml is wrong; carries every complaint at once
    ├── StageError                      2   a stage breaks the contract; says its file and line
    ├── EnvironmentFailure              3   the machine stopped us part-way; the same line again resumes
    │   ├── RunHangs                    3   another run holds the lock of this state folder, and hangs
    │   ├── WorkersFailed               3   no worker could be started
    │   ├── SourceUnreachable           3   the machine cannot read one source; three in a row end the run
    │   ├── FolderDenied                3   a folder of outputs may not be written to; those in others are made
    │   ├── CodeChanged                 3   the stages' code is not what the run was planned with
    │   └── Unfollowed                130   whoever takes the outcomes of a run has left, as by Ctrl-C
    ├── PolicyStop                      4   a limit of the user's own stopped us; what was in hand is finished
    ├── AlreadyRunning                 75   another run holds the lock of this state folder
    └── FileFailure                     1   one file cannot be done; never leaves its job
        ├── NotOurs                     1   a file that we did not make lies where an output belongs
        ├── Unreadable                  1   the file is not what its reader needs
        └── SourceMoved                 1   the source changed or vanished while it was read: no stage's fault

Beside the tree, since it is no error but the user's wish: Interrupted (BaseException), SIGNALLED + the signal's number.
"""

from __future__ import annotations

from typing import Literal

ENDED_IN_ORDER = (0, 1, 6)
"""The exit codes of runs that came to their end: all that was to be made was made, or tried."""
HELD_ONLY = 6
"""The exit code of a run in which no file failed, while files are held from earlier runs."""
TIME_IS_UP = 5
"""The exit code of a run that its time limit ended, while all was well."""
SUCCEEDED = (0, TIME_IS_UP, HELD_ONLY)
"""The exit codes of runs after which nobody need do anything today."""
NOT_STOPPED = (*SUCCEEDED, 1)
"""The exit codes of runs that nothing but their time limit stopped; one that ends otherwise always says why."""
SIGNALLED = 128
"""The exit code of a run that a signal has stopped, less the number of the signal."""


class FilemillError(Exception):
    """The base of all our errors; the program prints its text instead of a traceback."""

    exit_code = 70

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.text}\n  hint: {self.hint}" if self.hint else self.text


class UsageError(FilemillError):
    """The command line, or a call from Python, asks for something impossible."""

    exit_code = 2


class ConfigError(FilemillError):
    """pipeline.yaml is wrong; the text lists every complaint, each with its place."""

    exit_code = 2


class StageError(FilemillError):
    """A stage breaks the contract; the text begins with the stage's file and line."""

    exit_code = 2


class EnvironmentFailure(FilemillError):
    """The machine stopped the run part-way; what is done is safe and a rerun resumes."""

    exit_code = 3
    refused: Literal["", "source", "folder"] = ""
    """What alone the machine refused, so that other files may well be done; empty if it is not known to be one."""


class RunHangs(EnvironmentFailure):
    """Another run holds the lock of the state folder, and hangs."""


class WorkersFailed(EnvironmentFailure):
    """No worker could be started, so no file can be blamed."""


class SourceUnreachable(EnvironmentFailure):
    """The machine cannot read one source, such as from a bad sector of its disk; others may well be read."""

    refused = "source"


class FolderDenied(EnvironmentFailure):
    """A folder of outputs may not be written to; others may well be."""

    refused = "folder"


class CodeChanged(EnvironmentFailure):
    """The code of the stages, or another input of the plan, was changed during the run."""

    def __init__(self, file: str) -> None:
        super().__init__(f"{file} changed during the run")
        self.file = file

    def __reduce__(self) -> tuple[type[CodeChanged], tuple[str]]:
        return CodeChanged, (self.file,)


class Unfollowed(EnvironmentFailure):
    """Whoever takes the outcomes of a run has left it: a person's stop, like Ctrl-C."""

    exit_code = SIGNALLED + 2


class PolicyStop(FilemillError):
    """A limit that the user set, such as the error budget, stopped the run."""

    exit_code = 4


class AlreadyRunning(FilemillError):
    """Another run holds the lock of the state folder."""

    exit_code = 75
    holder: tuple[int, str] | None = None
    """The process id and the host of who holds the lock; None if that is not known."""


class FileFailure(FilemillError):
    """One file cannot be done; the text is shown in the summary and kept in the ledger."""

    exit_code = 1


class NotOurs(FileFailure):
    """A file that we did not make lies where an output belongs."""

    def __init__(self, text: str, by: bytes = b"") -> None:
        super().__init__(text)
        self.by = by
        """The path of the existing file, as spelt in the file system."""


class Unreadable(FileFailure):
    """A file is not what its reader needs: empty, not a picture, truncated, too large, not UTF-8."""


class SourceMoved(FileFailure):
    """The source changed or vanished while it was read; what was made of one that changed is discarded."""

    def __init__(self, kind: Literal["changed", "vanished"], stage: str = "") -> None:
        texts = {"changed": "changed while reading; the next run does it", "vanished": "vanished while reading"}
        who = f"while stage {stage} had it; a stage reads its input and changes nothing of it"
        super().__init__(f"{kind} {who}" if stage else texts[kind])
        self.kind = kind
        self.was_in_hand = bool(stage)
        """True if it happened during the call of a stage that was given the path of the source."""


class Interrupted(BaseException):
    """A second signal, or the end of the grace period after the first, ends the run without waiting for its jobs."""
