"""Guards, which stop a run before it does harm: missing disks, another pipeline's state or folder, a lost ledger.

    before the plan: is the state this pipeline's? is each output folder ours, and are the recorded outputs in it?
    after the plan:  was any of the known files found? does the ledger know of the existing outputs?
    during the run:  are the input root and the output folders still there?

Nothing but the state folder is written to before the guards of the plan have passed. They compare with facts in the
ledger, which every run that passes records anew.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.config.model import Config
from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.files.atomic import refuse_lost
from pipeline.files.file_system import MountPoints
from pipeline.files.links import find_links
from pipeline.files.ownership import Owner, is_claimed, listed_links, other_owner, owner_here
from pipeline.files.state_dir import known_identity
from pipeline.files.store import store_of
from pipeline.files.template import Template
from pipeline.ledger.input_folders import ROOT, InputFolder
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.runs import CLAIMS
from pipeline.planning.plan import Plan
from pipeline.planning.respelling import respell
from pipeline.planning.selection import Selection
from pipeline.records import dataclass
from pipeline.text import program, shown

# The one folder that an empty disk has of itself.
_LOST_AND_FOUND = "lost+found"
_NO_LINKS: Mapping[bytes, dict[str, str]] = {}


@dataclass(frozen=True)
class Confirmations:
    """The user's confirmations, each of which lets a run pass a guard."""

    rebuild: bool = False
    """True if known files, or recorded outputs, were removed on purpose."""
    take_over: bool = False
    """True if this pipeline takes over the state and output folders of another."""


NOTHING_CONFIRMED = Confirmations()


@dataclass(frozen=True)
class _OutputFolder:
    """A folder of outputs, by its path on disk, in the ledger and in the YAML."""

    path: Path
    as_bytes: bytes
    written: str
    """The path as written in pipeline.yaml, which is the key of the recorded facts about it."""
    key: bytes
    """The prefix of the ledger's targets in it."""
    as_in_yaml: str
    """The path as pipeline.yaml has it, with its links."""

    @classmethod
    def of(cls, template: Template) -> _OutputFolder:
        path, written = Path(os.fsdecode(template.folder)), template.written_folder
        as_in_yaml = os.path.dirname(template.text.partition("{")[0])
        return cls(path, template.folder, os.fsdecode(written), written.rstrip(b"/") + b"/", as_in_yaml)

    def path_of(self, target: bytes) -> bytes:
        """Return the path of the output that is a target in the ledger."""
        return os.path.join(self.as_bytes, target[len(self.key) :])


class Guards:
    """The guards of one pipeline, which check its ledger and the disk."""

    def __init__(self, config: Config, ledger: Ledger, owner: Owner, confirmed: Confirmations) -> None:
        self._config = config
        self._ledger = ledger
        self._owner = owner
        self._confirmed = confirmed
        self._known_folders: dict[str, dict[str, Any]] = ledger.facts.get("outputs") or {}
        """For each output folder, by its path as written: its device, the host from which it was claimed, and the mount
        point on which it lies.
        """
        self._root = _identity_of(config.inputs.root)
        self._folders = [_OutputFolder.of(template) for template in config.output_folders.values()]
        self._disks: dict[Path, int | None] = {}
        """The disks in output folders that are mounted when the run begins, by their places."""
        self._input_disks: dict[Path, int | None] = {}
        """The disks of inputs that are mounted when the run begins."""
        self._has_begun = False
        """True once the output folders are claimed for this run's work."""
        self.notes: list[str] = []
        """Notes about oddities that do not stop a run."""

    # -- before the plan -----------------------------------------------------------------------------------------------

    def check_places(self) -> None:
        """Check that state and output folders exist and are ours. Raises UsageError, EnvironmentFailure."""
        respell(self._config, self._ledger)
        self._known_folders = self._ledger.facts.get("outputs") or {}
        self.check_owners()
        for folder in self._folders:
            if folder.path.exists() and folder.path.samefile(self._config.inputs.root):
                text = f"the output folder {folder.as_in_yaml!r} is the input root by another name, as of a bind mount"
                raise UsageError(f"{text}: outputs would take the place of inputs")
        if not self._confirmed.rebuild:
            claimed = [is_claimed(folder.path, self._owner) for folder in self._folders]
            for folder, is_ours in zip(self._folders, claimed, strict=True):
                self._check_outputs(folder, is_ours)

    def check_owners(self) -> None:
        """Check that state and output folders are this pipeline's. Raises UsageError."""
        foreign = self._find_foreign()
        if foreign and not self._confirmed.take_over:
            raise UsageError(foreign[0])

    def take_over(self) -> None:
        """Claim the state and output folders of other pipelines, if that is confirmed, and record it."""
        foreign = self._find_foreign() if self._confirmed.take_over else []
        if not foreign:
            return
        self._claim([folder for folder in self._folders if folder.path.is_dir()])
        self._ledger.has_news = True
        self._ledger.begin()
        self._ledger.overrides.add("take-over", {"of": foreign})
        self._ledger.facts.set("pipeline", self._identity())
        self._ledger.commit()

    def _find_foreign(self) -> list[str]:
        """Return a sentence for the state and each output folder that belongs to another pipeline."""
        known = [self._known_folders.get(folder.written, {}).get("host") for folder in self._folders]
        runs = self._ledger.runs.names()
        others = [
            other_owner(each.path, self._owner, host, runs) for each, host in zip(self._folders, known, strict=True)
        ]
        found = [self._another_pipelines_state()]
        found += [
            self._describe_owner(folder, owner)
            for folder, owner in zip(self._folders, others, strict=True)
            if owner is not None
        ]
        return [each for each in found if each]

    def _claim(
        self,
        folders: Sequence[_OutputFolder],
        run: int | None = None,
        links: Mapping[bytes, dict[str, str]] = _NO_LINKS,
    ) -> None:
        for folder in folders:
            place = folder.as_bytes
            store_of(place).claim(place, self._owner, run, self._ledger.run, links.get(place))

    def _find_links(self, to_write: Iterable[bytes]) -> dict[bytes, dict[str, str]]:
        """Return the links through which the run may write, by the output folder: those met now or in runs before."""
        roots = [folder.as_bytes for folder in self._folders]
        before = (os.path.join(root, os.fsencode(link), b"") for root in roots for link in listed_links(root))
        paths = chain(before, to_write)
        return find_links(roots, paths, os.fsencode(self._config.inputs.root))

    def _identity(self) -> dict[str, str]:
        config = self._config
        return {
            "yaml": config.file.name,
            "root": config.written_root,
            "folder": str(config.folder),
            "state": str(config.state),
        }

    def describe_state(self) -> str:
        """Return a sentence where the state is another pipeline's, for verbs that only read; empty where it is ours."""
        whose, _ = self._another_pipeline()
        return whose and f"{whose}: what is said here is of that"

    def _another_pipelines_state(self) -> str:
        whose, we = self._another_pipeline()
        return whose and f"{whose}; {we} needs a state or a name of its own, or takes this one over: {self._command()}"

    def _another_pipeline(self) -> tuple[str, str]:
        """Return the owner of the state, and how this pipeline differs from it; both empty where the state is ours."""
        then, now = self._ledger.facts.get("pipeline"), self._identity()
        if then is None:
            return "", ""
        state = os.path.relpath(self._config.state, self._config.folder)
        if (then["yaml"], then["root"]) != (now["yaml"], now["root"]):
            whose, over = (f"{_shown(each['yaml'])} over {_shown(each['root'])}" for each in (then, now))
            return f"the state {_shown(state)} is that of {whose}", over
        if then["state"] == now["state"] and _is_another_file(Path(then["folder"], then["yaml"]), self._config.file):
            return f"the state {_shown(state)} is that of {_shown(then['folder'])}/{_shown(then['yaml'])}", "its copy"
        return "", ""

    def _describe_owner(self, folder: _OutputFolder, owner: Owner) -> str:
        whose = f"pipeline {owner.pipeline!r} (state {_shown(owner.state_folder)} on {_shown(owner.host)})"
        ways = f"write elsewhere, or take it over: {self._command()}"
        return f"the output folder {shown(folder.as_bytes)} belongs to {whose}; {ways}"

    def _command(self) -> str:
        return f"{program()} run {_shown(shlex.quote(str(self._config.file)))} --take-over"

    def _check_outputs(self, folder: _OutputFolder, claimed: bool) -> None:
        """Check that the recorded outputs of a folder exist. Raises EnvironmentFailure if a disk seems missing."""
        known = self._known_folders.get(folder.written, {})
        if disks := known.get("disks"):
            self._check_disks(folder, disks)
        then, device = known.get("device"), _device(folder.path)
        moved = then is not None and device not in (None, then)
        if claimed and not moved:
            return
        recorded = self._ledger.outputs.done_below(folder.key)
        if not recorded:
            return
        if device is None:
            what = "is gone"
            if self._was_removed(folder, known.get("mount")):
                self.notes.append(f"the output folder {shown(folder.as_bytes)} was removed: its outputs are made again")
                return
        elif _is_empty(folder.path):
            what = "is empty"
        elif moved and not (claimed and any(os.path.lexists(folder.path_of(target)) for target in recorded)):
            what = "is on another disk than it was, without what was made in it"
        else:
            if moved:  # the number of a device is another after a reboot, or when a network's disk is mounted anew
                self.notes.append(f"the output folder {shown(folder.as_bytes)} is on another device than it was")
            return
        count = self._ledger.outputs.count_done_below(folder.key)
        outputs = f"{count:,} outputs" if count != 1 else "1 output"
        raise EnvironmentFailure(
            f"the output folder {shown(folder.as_bytes)} {what}, and the ledger knows of {outputs} there; "
            "is its disk mounted? if this is meant, 'run --rebuild' makes them anew"
        )

    def _check_disks(self, folder: _OutputFolder, disks: dict[str, str]) -> None:
        """Check that the disks are mounted on which some of a folder's outputs lie. Raises EnvironmentFailure."""
        mounts = MountPoints()
        for place, mount in disks.items():
            real = os.path.realpath(os.path.join(folder.as_bytes, os.fsencode(place)))
            key = os.path.join(folder.key, os.fsencode(place), b"")
            if mounts.lacks(os.fsencode(mount), real) and self._ledger.outputs.done_below(key):
                where = f"outputs in {shown(os.path.join(folder.as_bytes, os.fsencode(place)))} lie on a disk"
                raise EnvironmentFailure(
                    f"{where} that was mounted at {_shown(mount)}, where none is now; if this is meant, 'run --rebuild'"
                    " makes them anew"
                )

    def _was_removed(self, folder: _OutputFolder, mount: str | None) -> bool:
        """Return whether a folder that is gone was removed on purpose: the mount point that it was on is one still.

        A link that leads nowhere was not: where it led to may be on a disk that is away.
        """
        path = os.path.join(self._config.folder, folder.as_in_yaml)
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        is_away = mount is None or MountPoints().lacks(os.fsencode(mount), os.path.realpath(folder.as_bytes))
        return os.path.exists(path) and not is_away

    # -- after the plan ------------------------------------------------------------------------------------------------

    def check_plan(self, plan: Plan, selection: Selection) -> None:
        """Check that known files were found and the ledger was not lost. Raises EnvironmentFailure, UsageError."""
        if not self._confirmed.rebuild:
            self._check_sources(plan, selection)
        self._check_record(plan)

    def _check_sources(self, plan: Plan, selection: Selection) -> None:
        if plan.meets_known or selection.only or selection.names is not None:
            return
        if selection.limit is not None and plan.jobs >= selection.limit:  # the walk was not to its end
            return
        root = self._ledger.folders.get(ROOT)
        if root and not root.files:  # it was so before, and meant
            return
        why = dict(plan.walk.unlisted).get(b"")
        unknown = [folder for folder, _ in plan.walk.unlisted if folder]
        # What was taken for sources before another pipeline claimed its outputs is left out, not gone.
        known = self._ledger.outputs.count_sources((*unknown, *plan.walk.owned))
        if not known:
            return
        place = shown(os.fsencode(self._config.inputs.root))
        those = f"none of the {known:,} known files is" if known != 1 else "the one known file is not"
        what = (
            f"{those} in the input root {place}" if why is None else f"the input root {place} cannot be listed: {why}"
        )
        raise EnvironmentFailure(f"{what}; is its disk mounted? if this is meant, 'run --rebuild' goes on without them")

    def _check_record(self, plan: Plan) -> None:
        """Check that existing outputs are not those of a lost ledger. Raises UsageError."""
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
        """Claim the output folders once all guards have passed, and record the facts for the next run.

        The ledger's row of the run, and its number in every owner file, are on the disk before any output is made, so
        that the next run detects the loss of either.
        """
        if plan.has_work and not self._has_begun:
            self.begin_work(plan.store.paths_to_write())
        elif not plan.has_work:
            self._claim(self._folders)
        mounts = MountPoints()
        for folder in self._folders:
            self._known_folders[folder.written] = {
                "device": _device(folder.path),
                "host": self._owner.host,
                "mount": os.fsdecode(mounts.above(os.path.realpath(folder.as_bytes))),
                "disks": _disks_in(folder.as_bytes, mounts, listed_links(folder.as_bytes)),
            }
        facts = {"pipeline": self._identity(), "outputs": self._known_folders}
        self._ledger.begin()
        self._note_input_folders(plan, selection)
        inputs = [Path(os.fsdecode(each)) for each in self._ledger.folders.mounts() if each in mounts]
        self._input_disks = {place: _device(place) for place in inputs}
        outputs = [each.path / place for each in self._folders for place in self._known_folders[each.written]["disks"]]
        self._disks = {place: _device(place) for place in outputs}
        for name, value in facts.items():
            self._ledger.facts.set(name, value)
        self._ledger.commit()

    def begin_work(self, paths: Iterable[bytes] = ()) -> None:
        """Claim the output folders for this run, which is about to write to paths, and have the disk know of it."""
        self._has_begun = True
        run = self._ledger.runs.number
        claims = {str(folder.path): run for folder in self._folders}
        self._ledger.begin()
        self._ledger.facts.set(CLAIMS, (self._ledger.facts.get(CLAIMS) or {}) | claims)
        self._ledger.make_durable()
        self._claim(self._folders, run, self._find_links(paths))

    def _note_input_folders(self, plan: Plan, selection: Selection) -> None:
        """Record where files were seen, and which folders are lost; what an empty folder tells is recorded nowhere."""
        folders, is_all = self._ledger.folders, not selection.is_partial and not plan.walk.unlisted
        for each in plan.lost:
            before = folders.get(each.folder) or InputFolder(each.folder, b"", each.files, 0)
            # A disk that is mounted again tells by itself what was deleted on it.
            folders.set(before._replace(is_lost=int(each.cause != "unmounted")))
        if is_all and self._confirmed.rebuild:
            folders.set_empty()
            folders.set(InputFolder(ROOT, b"", 0, 0))
        folders.note_seen((each.folder for each in plan.kept), is_all=is_all)

    # -- during the run ------------------------------------------------------------------------------------------------

    def check_folders(self, *, has_vanished: bool) -> None:
        """Check that the output folders still exist, and the input root too if files of it `has_vanished`.

        Raises EnvironmentFailure where a folder, and so probably its disk, is missing.
        """
        root = self._config.inputs.root
        if has_vanished and _identity_of(root) != self._root:
            raise EnvironmentFailure(f"the input root {root} is not the folder any more that it was at the start")
        for folder in self._config.output_folders:
            refuse_lost(folder)
        for place, device in (self._disks | self._input_disks if has_vanished else self._disks).items():
            if _device(place) != device:
                raise EnvironmentFailure(f"the disk at {_shown(str(place))} was unmounted during the run")


def guards_of(config: Config, ledger: Ledger, confirmed: Confirmations = NOTHING_CONFIRMED) -> Guards:
    """Return the guards of a pipeline, whose state may not exist yet."""
    return Guards(config, ledger, owner_here(config.state, known_identity(config.state), config.name), confirmed)


def _disks_in(folder: bytes, mounts: MountPoints, links: Mapping[str, str]) -> dict[str, str]:
    """Return the places in an output folder that lie on other disks, by a mount or a link, and their mount points."""
    real = os.path.realpath(folder)
    found = {os.fsdecode(place): os.fsdecode(os.path.join(real, place)) for place in mounts.below(real)}
    for link, leads in links.items():
        if (mount := mounts.above(os.fsencode(leads))) != mounts.above(real):
            found[link] = os.fsdecode(mount)
    return found


def _shown(text: str) -> str:
    return shown(os.fsencode(text))


def _identity_of(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _device(place: Path) -> int | None:
    """Return the device on which a folder is; None where there is none."""
    try:
        return os.stat(place).st_dev
    except OSError:
        return None


def _is_empty(place: Path) -> bool:
    try:
        with os.scandir(place) as entries:
            return all(entry.name == _LOST_AND_FOUND for entry in entries)
    except OSError:  # whoever is to write there says what is wrong with it
        return False


def _is_another_file(file: Path, ours: Path) -> bool:
    """Return whether a file exists and is not ours by another path."""
    try:
        return not os.path.samefile(file, ours)
    except OSError:
        return False
