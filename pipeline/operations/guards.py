"""What stops a run before it does harm: disks that are not there, somebody else's state or folder, a lost ledger.

    before the plan: is the state this pipeline's? is each output folder ours, and is what we made still in it?
    after the plan:  was any of the known files met? does the ledger know of the outputs that are there?

Nothing but the state folder is written to before all of them have passed. What they compare with are facts in the
ledger, which every run that passes records anew.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.model import Config
from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.files.ownership import Owner, claim, is_claimed, other_owner, owner_here
from pipeline.files.state_dir import known_identity
from pipeline.files.template import Template
from pipeline.ledger.ledger import Ledger
from pipeline.planning.output_spec import Selection
from pipeline.planning.plan import Plan
from pipeline.text import shown

# What an empty disk has of itself.
_OF_THE_DISK = "lost+found"


@dataclass(frozen=True)
class Meant:
    """What the user says is meant, where a guard would stop the run."""

    rebuild: bool = False
    """That known files, or the outputs on record, are gone."""
    take_over: bool = False
    """That state and output folders are this pipeline's from now on."""


NOTHING_ODD = Meant()


class Guards:
    """The guards of one pipeline, over its ledger and what is on disk."""

    def __init__(self, config: Config, ledger: Ledger, ours: Owner, meant: Meant) -> None:
        self._config = config
        self._ledger = ledger
        self._ours = ours
        self._meant = meant
        self._places: dict[str, dict[str, Any]] = ledger.facts.get("outputs") or {}
        """What is known of each output folder, as it is written: its device, and from which host it was claimed."""
        self.notes: list[str] = []
        """What looks odd, and was let pass."""

    # -- before the plan -----------------------------------------------------------------------------------------------

    def check_places(self) -> None:
        """Whose is all this, and is it there? Raises UsageError, EnvironmentFailure."""
        self.check_owners()
        if not self._meant.rebuild:
            for template in self._templates():
                self._check_outputs(template)

    def check_owners(self) -> None:
        """Whose are the state and the output folders? Raises UsageError."""
        taken = self._not_ours()
        if taken and not self._meant.take_over:
            raise UsageError(taken[0])

    def take_over(self) -> None:
        """Make what is somebody else's this pipeline's, on record; all else stays as it is."""
        taken = self._not_ours()
        if not taken:
            return
        for template in self._templates():
            place = _place(template)
            if place.is_dir():
                claim(place, self._ours)
        self._ledger.has_news = True
        self._ledger.begin()
        self._ledger.overrides.add("take-over", {"of": taken})
        self._ledger.facts.set("pipeline", self._identity())
        self._ledger.commit()

    def _not_ours(self) -> list[str]:
        """A sentence for each of our places that somebody else has."""
        found = [self._another_pipelines_state()]
        found += [self._another_owner(template) for template in self._templates()]
        return [each for each in found if each]

    def _identity(self) -> dict[str, str]:
        config = self._config
        return {
            "yaml": config.file.name,
            "root": config.written_root,
            "folder": str(config.folder),
            "state": str(config.state),
        }

    def describe_state(self) -> str:
        """A sentence for who only reads, where the state is another pipeline's; else nothing."""
        whose, _ = self._another_pipeline()
        return whose and f"{whose}: what is said here is of that"

    def _another_pipelines_state(self) -> str:
        whose, we = self._another_pipeline()
        return whose and f"{whose}; {we} needs a state or a name of its own, or takes this one over: {self._command()}"

    def _another_pipeline(self) -> tuple[str, str]:
        """Whose the state is and what we are beside that; nothing where it is ours."""
        then, now = self._ledger.facts.get("pipeline"), self._identity()
        if then is None:
            return "", ""
        state, yaml = _shown(os.path.relpath(self._config.state, self._config.folder)), _shown(then["yaml"])
        if (then["yaml"], then["root"]) != (now["yaml"], now["root"]):
            over = f"{_shown(now['yaml'])} over {_shown(now['root'])}"
            return f"the state {state} is that of {yaml} over {_shown(then['root'])}", over
        if then["state"] == now["state"] and _is_another_file(Path(then["folder"], then["yaml"]), self._config.file):
            return f"the state {state} is that of {_shown(then['folder'])}/{yaml}", "its copy"
        return "", ""

    def _another_owner(self, template: Template) -> str:
        known = self._places.get(_written(template), {})
        owner = other_owner(_place(template), self._ours, known.get("host"))
        if owner is None:
            return ""
        whose = f"pipeline {owner.pipeline!r} (state {_shown(owner.state_folder)} on {_shown(owner.host)})"
        ways = f"write elsewhere, or take it over: {self._command()}"
        return f"the output folder {shown(template.folder)} belongs to {whose}; {ways}"

    def _command(self) -> str:
        return f"python -m pipeline run {_shown(shlex.quote(str(self._config.file)))} --take-over"

    def _check_outputs(self, template: Template) -> None:
        """Is what the ledger knows of in an output folder there, or is a disk not mounted?"""
        place = _place(template)
        then, device = self._places.get(_written(template), {}).get("device"), _device(place)
        claimed, moved = is_claimed(place, self._ours), then is not None and device not in (None, then)
        if claimed and not moved:
            return
        recorded = self._ledger.outputs.done_below(_key(template))
        if not recorded:
            return
        if device is None:
            what = "is gone"
        elif _is_empty(place):
            what = "is empty"
        elif moved and not (claimed and any(os.path.lexists(_path(template, target)) for target in recorded)):
            what = "is on another disk than it was, without what was made in it"
        else:
            if moved:  # the number of a device is another after a reboot, or when a network's disk is mounted anew
                self.notes.append(f"the output folder {shown(template.folder)} is on another device than it was")
            return
        count = self._ledger.outputs.count_done_below(_key(template))
        outputs = f"{count:,} outputs" if count != 1 else "1 output"
        raise EnvironmentFailure(
            f"the output folder {shown(template.folder)} {what}, and the ledger knows of {outputs} there; "
            "is its disk mounted? if this is meant, 'run --rebuild' makes them anew"
        )

    # -- after the plan ------------------------------------------------------------------------------------------------

    def check_plan(self, plan: Plan, selection: Selection) -> None:
        """Does the plan start from what was there before? Raises EnvironmentFailure, UsageError."""
        if not self._meant.rebuild:
            self._check_sources(plan, selection)
        self._check_record(plan)

    def _check_sources(self, plan: Plan, selection: Selection) -> None:
        if plan.meets_known or selection.only is not None or selection.names is not None:
            return
        if selection.limit is not None and plan.jobs >= selection.limit:  # the walk was not to its end
            return
        if self._ledger.facts.get("sources") == 0:  # it was so before, and meant
            return
        root = shown(os.fsencode(self._config.inputs.root))
        why = dict(plan.walk.unlisted).get(b"")
        unknown = tuple(folder for folder, _ in plan.walk.unlisted if folder)
        known = self._ledger.outputs.count_sources(unknown)
        if not known:
            return
        those = f"none of the {known:,} known files is" if known != 1 else "the one known file is not"
        what = f"{those} in the input root {root}" if why is None else f"the input root {root} cannot be listed: {why}"
        raise EnvironmentFailure(f"{what}; is its disk mounted? if this is meant, 'run --rebuild' goes on without them")

    def _check_record(self, plan: Plan) -> None:
        """Outputs of which a ledger without a single row knows nothing are those of a lost one."""
        exist = plan.count("refuse", "not_ours")
        if not exist or not self._ledger.outputs.is_blank():
            return
        first = next(each.path for each in plan.store.decisions("refuse") if each.reason.code == "not_ours")
        those = f"the {exist:,} outputs that are there, the first {shown(first)}" if exist > 1 else shown(first)
        raise UsageError(
            f"no ledger in {_shown(str(self._config.state))} knows of {those}; "
            "'adopt' takes what is there as made, --force makes it anew"
        )

    def settle(self, plan: Plan, selection: Selection) -> None:
        """All have passed: claim the output folders, and record the facts for the next run."""
        for template in self._templates():
            place = _place(template)
            claim(place, self._ours)
            self._places[_written(template)] = {"device": _device(place), "host": self._ours.host}
        facts = {"pipeline": self._identity(), "outputs": self._places}
        if not selection.is_partial and not plan.walk.unlisted:
            facts["sources"] = plan.sources
        self._ledger.begin()
        for name, value in facts.items():
            self._ledger.facts.set(name, value)
        self._ledger.commit()

    def _templates(self) -> Iterator[Template]:
        """One template for each output folder."""
        found = {leaf.output.template.folder: leaf.output.template for leaf in self._config.leaves if leaf.output}
        yield from found.values()


def guards_of(config: Config, ledger: Ledger, meant: Meant = NOTHING_ODD) -> Guards:
    """The guards of a pipeline whose state exists, or does not yet."""
    return Guards(config, ledger, owner_here(config.state, known_identity(config.state), config.name), meant)


def _place(template: Template) -> Path:
    return Path(os.fsdecode(template.folder))


def _written(template: Template) -> str:
    return os.fsdecode(template.written_folder)


def _key(template: Template) -> bytes:
    """How the keys of a folder's outputs begin."""
    return template.written_folder.rstrip(b"/") + b"/"


def _path(template: Template, target: bytes) -> bytes:
    """Where the output of a key is."""
    return os.path.join(template.folder, target[len(_key(template)) :])


def _shown(text: str) -> str:
    return shown(os.fsencode(text))


def _device(place: Path) -> int | None:
    """The device on which a folder is; None where there is none."""
    try:
        return os.stat(place).st_dev
    except OSError:
        return None


def _is_empty(place: Path) -> bool:
    try:
        with os.scandir(place) as entries:
            return all(entry.name == _OF_THE_DISK for entry in entries)
    except OSError:  # whoever is to write there says what is wrong with it
        return False


def _is_another_file(file: Path, ours: Path) -> bool:
    """Whether there is such a file, and it is not ours by another path."""
    try:
        return not os.path.samefile(file, ours)
    except OSError:
        return False


def say_whose(config: Config, ledger: Ledger) -> None:
    """Say on stderr whose the state is, where it is not this pipeline's."""
    if said := guards_of(config, ledger).describe_state():
        print(said, file=sys.stderr)
