"""The parts of a fan-out inside one job: taken one by one from the stage, and committed together for each output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import FileFailure
from pipeline.files.atomic import Check, Committed, GiveName
from pipeline.files.parts import PartNames, Parts
from pipeline.files.set_aside import SetAside
from pipeline.messages import Result, Target
from pipeline.notes import Notes, collected
from pipeline.stage.values import Kind as ValueKind
from pipeline.types import Part
from pipeline.worker.stage_call import NO_MORE, StageCaller, check_returned
from pipeline.worker.tree import BuiltStage


class FanOut:
    """The parts that a stage yields for one value; only one at a time is in memory."""

    def __init__(self, stage: BuiltStage, caller: StageCaller, set_aside: SetAside, *, is_again: bool) -> None:
        self.part = ""
        """The name of the current part."""
        self._stage = stage
        self._caller = caller
        self._set_aside = set_aside
        self._is_again = is_again
        self._names = PartNames(stage.name)
        self._outputs: dict[bytes, Parts] = {}
        """The parts of each output, by the path of the output; they do not have their final names yet."""
        self._skip_reasons: dict[bytes, str] = {}
        """The reason for which the first part of an output was left out, by the path of the output."""

    def next_part(self, parts: Iterator[Any], notes: Notes) -> tuple[Any, ValueKind, Notes] | None:
        """Return the next part to pass on, with its kind and notes; None after the last.

        `notes` are those of the value that the stage was given. Raises any exception of the stage, and FileFailure if
        the stage yields nothing.
        """
        stage = self._stage
        with collected() as noted:
            made = self._caller.next_part(stage, parts)
            if made is NO_MORE:
                if not self._names.count:
                    text = f"stage {stage.name!r} yielded nothing; raise Skip(reason) instead"
                    raise FileFailure(f"{text} ({stage.where})")
                return None
            name, value = (made.name, made.value) if isinstance(made, Part) else (None, made)
            self.part = self._names.take(name)
            check_returned(stage, value)
            if self._caller.steps:
                self._caller.steps.made(stage.name, value, self.part)
            return self._caller.accept(stage, value), stage.passes_on, notes | noted

    def write(
        self, target: Target, write: Callable[[bytes, GiveName], tuple[Committed, Notes]] | None, notes: Notes
    ) -> None:
        """Write the current part with `write`, without its final name; without `write`, the part has no file."""
        parts = self._outputs.get(target.path)
        if parts is None:
            parts = self._outputs[target.path] = Parts(target, self._set_aside, is_again=self._is_again)
        if write is None:
            parts.add_nothing(self.part, notes)
        else:
            parts.add(self.part, write)

    def skip(self, target: Target, reason: str) -> None:
        """Leave the current part out of an output."""
        self._skip_reasons.setdefault(target.path, reason)

    def commit(self, target: Target, check: Check) -> Result:
        """Give the parts of an output their names, and return its result. Raises OSError, and exceptions of `check`."""
        parts = self._outputs.get(target.path)
        if parts is None:
            count = self._names.count
            reason = f"{count} {'part' if count == 1 else 'parts'} left out: {self._skip_reasons[target.path]}"
            return Result(target.stage, target.path, "skipped", reason)
        made = parts.reveal(check)
        return Result(target.stage, target.path, "done", parts=made, notes=tuple(parts.notes.items()))

    def keep(self, keep: Callable[[bytes, bytes], None]) -> None:
        """Call `keep` with the temporary and the path of each part that was not committed."""
        for parts in self._outputs.values():
            parts.keep(keep)

    def discard(self) -> None:
        """Remove the parts that were not committed."""
        for parts in self._outputs.values():
            parts.discard()
