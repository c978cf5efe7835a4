"""Many nights of one pipeline: a seeded simulator changes the project each day, runs it, and checks all that is there.

    python tests/drills/nights.py --seed 7 --nights 30 --files 2000

After each run, exit 0 means right: every output that should exist does so with the bytes that an oracle computes, which
shares no code with the program, and nothing else lies in the output folders but a person's own files. Other exit codes
mean what docs/cli.md says of them. Sources are as they were; what a person wrote is in its place or set aside.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

from support.nights_events import (  # noqa: E402  # the path comes first
    CHANGES,
    PERSONS,
    RECIPES,
    RESTORES,
    TOPS,
    Event,
    Owned,
    World,
    back_up,
)
from support.nights_oracle import Expectation, above, list_of, list_path  # noqa: E402
from support.nights_project import Disk, Project, Ran, finish, may_mount  # noqa: E402

# A version that users may have: the last release, or where there is none yet, main before this simulator was written.
_OLDER = "0bf5c53"
_UPGRADED_AFTER = 3
# What it does not notice, so that a later one cannot either.
_NOT_OF_OLD = ("helper_same_second",)
_SHOWN = 10
# Of a folder of at least so many files all of which vanish at once, the outputs are kept.
_MANY = 20

RunOf = Callable[["Nights"], None]
RUNS: dict[str, RunOf] = {}
NEEDS_DISK = {"full_out": "out", "full_state": "state", "unmount": "in", "unmount_out": "out", "unmount_state": "state"}


class Deviation(AssertionError):
    """Something is not as it should be."""


class Nights:
    """One simulation: a project, what will happen in each night, and the checks after each run."""

    def __init__(self, world: World, seed: int, nights: int, without: Collection[str], older: Path | None) -> None:
        self.world, self.project = world, world.project
        self.seed, self.nights = seed, nights
        self.older = older
        self.night = 0
        self.events: list[str] = []
        self.ran: list[str] = []
        self._schedule = schedule(random.Random(seed), nights, without, self.project.disks)
        self._before: dict[str, bytes] = {}
        self._facts: dict[str, tuple[object, ...]] = {}

    def run(self) -> None:
        """Take every night."""
        for night in range(self.nights):
            self.night = night
            began = time.monotonic()
            self._take(*self._schedule[night])
            line = "; ".join(self.ran)
            names = ", ".join(event.split(":")[0] for event in self.events)
            print(f"night {night}: {names}: {line} ({time.monotonic() - began:.0f} s)", flush=True)

    def _take(self, events: list[str], how: str) -> None:
        world = self.world
        world.chance = random.Random(f"{self.seed}/{self.night}")
        world.is_restored = False
        is_old = self.older is not None and self.night < _UPGRADED_AFTER
        self.project.code = self.older if is_old else None
        self.events, self.ran = [], []
        following = self._schedule[self.night + 1][0] if self.night + 1 < self.nights else []
        # The owner files of an older release do not tell how old the outputs are.
        may_save = self.night > (_UPGRADED_AFTER if self.older else 0)
        saving = ("copy of yesterday",) if may_save and any(name in RESTORES for name in following) else ()
        if self.night == 0:
            world.plant()
        for name in [
            *(name for name in events if name in RESTORES),
            *saving,
            *(n for n in events if n not in RESTORES),
        ]:
            if name in saving:
                back_up(world)
            elif (not is_old or name not in _NOT_OF_OLD) and (said := _EVENTS[name](world)):
                self.events.append(f"{name}: {said}")
        if is_old:
            self.events.append("older release")
            self._run_older()
        else:
            self.events.append(how)
            RUNS[how](self)
        if world.is_restored:
            self._remove_strays()

    def _remove_strays(self) -> None:
        """Remove by hand what older outputs or an older state have left over: nobody can know whose that was."""
        truth = self.world.expectation()
        for path in self.project.made():
            known = path in truth.right or path in truth.lists or path in self.world.owned
            if not known and not set(above(path)) & (truth.kept | truth.unsure):
                (self.project.outputs / path).unlink()

    # -- runs and their checks -----------------------------------------------------------------------------------------

    def _run_older(self) -> None:
        """Run an older release, of which only a person's files are expected to be kept."""
        self.look()
        ran = self.project.run()
        self.ran.append(f"{ran.code} in {ran.seconds:.1f} s")
        self.world.look_again()

    def look(self) -> None:
        """Remember what lies there before a run."""
        self._before = self.project.made()
        self._facts = self.project.input_facts()

    def converge(self) -> Ran:
        """Run as every night, and check that all is as it should be."""
        self.look()
        ran = self.project.run()
        if ran.code == 4 and self.world.is_restored:  # an older ledger may know a folder that was removed since
            self.ran.append("4, and once more since all is meant")
            ran = self.project.run("run", "--json", "--rebuild")
        self.check(ran)
        return ran

    def check(
        self,
        ran: Ran,
        also: Collection[int] = (),
        gone: Iterable[str] = (),
        is_clean: bool = True,
        instead: Collection[int] = (),
    ) -> None:
        """Check what a run has left.

        Args:
            ran: The run.
            also: Exit codes that are allowed beside that of a run without trouble. With these, and with any of a run
                that was killed, every output may be as it was, or right.
            gone: Folders of the inputs that are away with their disk; each ends in a slash.
            is_clean: Whether the run had an end of its own, and so leaves nothing that is for itself alone.
            instead: Exit codes that stand for those of a run without trouble.
        """
        project, world = self.project, self.world
        self.ran.append(f"{ran.code} in {ran.seconds:.1f} s")
        gone = list(gone)
        truth = world.expectation(self._before) if not gone else self._expect_without(gone)
        after = project.made()
        follow(world, truth, after)
        wrong = Verdict(world, truth, self._before, after, ran.code, is_whole=ran.code not in also).differences()
        must = truth.must_fail
        may = truth.may_fail or [
            path for path in truth.right if path in world.owned and world.owned[path].is_in_the_way
        ]
        # What failed may have failed too often by now, and is not tried.
        usual = set(instead) or ({1, 6} if must else {0, 1, 6} if may else {0})
        if ran.code not in usual | set(also):
            reasons = ", ".join((must or truth.may_fail)[:3])
            wrong.insert(0, f"exit {ran.code} instead of {sorted(usual | set(also))} ({reasons or 'nothing fails'})")
        if is_clean and ran.code != 3 and (left := project.temporaries()):
            wrong.append(f"left over: {left[:3]}")
        now = project.input_facts()
        wrong += [f"not an output, and changed: {path}" for path in set(now) | set(self._facts)
                  if now.get(path) != self._facts.get(path)]  # fmt: skip
        self._demand(wrong, ran)
        self._settle(truth, after)

    def _expect_without(self, gone: list[str]) -> Expectation:
        from support.nights_oracle import expect

        project = self.project
        return expect(project.sources(), project.recipe, self._before, [*project.unlisted(), *gone])

    def _demand(self, wrong: list[str], ran: Ran) -> None:
        if not wrong:
            return
        more = [f"... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        said = [f"the run said: {ran.stdout.strip()[:600]}", ran.stderr.strip()[:3000]]
        raise Deviation("\n".join([*wrong[:_SHOWN], *more, *said]))

    def _settle(self, truth: Expectation, after: Mapping[str, bytes]) -> None:
        """Forget the files of a person's that were replaced, as they may be, and note which are no outputs any more."""
        world = self.world
        aside = self.project.set_aside()
        for path, owned in list(world.owned.items()):
            if after.get(path) != owned.data:
                del world.owned[path]
                if owned.data not in aside:
                    world.owed.discard(owned.data)
            elif path not in truth.right and path not in truth.lists:
                owned.was_orphan = True

    def check_again(self, first: Ran) -> None:
        """Check that the same line again makes nothing."""
        facts = self.project.made_facts()
        self.look()
        ran = self.project.run()
        self.check(ran)
        if ran.code == first.code == 0 and ran.done:
            self._demand([f"the run after it made {ran.done} outputs"], ran)
        if first.code == 0 and facts != (now := self.project.made_facts()):
            changed = sorted(path for path in set(facts) | set(now) if facts.get(path) != now.get(path))
            self._demand([f"the run after it touched {path}" for path in changed], ran)

    def converge_twice(self) -> None:
        ran = self.converge()
        if self.world.chance.random() < 0.4:
            self.check_again(ran)


def follow(world: World, truth: Expectation, after: Mapping[str, bytes]) -> None:
    """Find the edited outputs that have followed their sources to another name."""
    places = {data: path for path, data in after.items() if path in truth.right or path in truth.lists}
    for path, owned in list(world.owned.items()):
        if owned.key and after.get(path) != owned.data and path not in truth.right and owned.data in places:
            world.owned[places[owned.data]] = world.owned.pop(path)


class Verdict:
    """The comparison of what lies in the output folders with what should."""

    def __init__(
        self,
        world: World,
        truth: Expectation,
        before: Mapping[str, bytes],
        after: Mapping[str, bytes],
        code: int,
        is_whole: bool,
    ) -> None:
        self._world, self._truth = world, truth
        self._before, self._after = before, after
        self._code, self._is_whole = code, is_whole
        self._versions = frozenset(before.values())
        self._aside = world.project.set_aside()
        self._right = dict(truth.right)
        for path, members in truth.lists.items():
            if members:
                self._right[path] = list_of(members, after)
        truth.right.update({path: data for path, data in self._right.items() if path not in truth.right})
        web = f"{world.project.recipe.web}/"
        for path, owned in world.owned.items():
            if path in self._right and path.startswith(web) and owned.is_in_the_way:
                truth.unsure.add(list_path(str(PurePosixPath(path[len(web) :]).parent).removeprefix(".")))

    def differences(self) -> list[str]:
        """Return a line for each output that is not as it should be, and for each loss."""
        wrong = []
        for path in sorted(set(self._after) | set(self._right) | set(self._world.owned)):
            allowed, got = self._allowed(path), self._after.get(path)
            if got not in allowed:
                wrong.append(f"{path}: {_shown(got)} instead of {' or '.join(map(_shown, allowed))}; "
                             f"before: {_shown(self._before.get(path))}")  # fmt: skip
        everywhere = set(self._after.values()) | self._aside
        free = {owned.data for path, owned in self._world.owned.items() if self._may_go(path, owned)}
        wrong += [f"a person's file is lost: {data!r}" for data in self._world.owed - everywhere - free]
        return wrong

    def _allowed(self, path: str) -> list[bytes | None]:
        """Return the contents that an output may have; None stands for no file."""
        usual = self._usual(path)
        before = self._before.get(path)
        if (owned := self._world.owned.get(path)) is not None:
            return self._allowed_of(path, owned, usual)
        is_unknown = self._world.is_restored or before in (b"", self._world.unknown.get(path))
        if path not in self._right and is_unknown:  # nobody can tell whose it is
            usual = [*usual, before, None]
        if self._is_whole:
            return usual
        # An output that has followed its source to another name, and is not made anew yet.
        moved = self._after.get(path)
        return [*usual, before, *([moved] if moved in self._versions else [])]

    def _usual(self, path: str) -> list[bytes | None]:
        before, right = self._before.get(path), self._right.get(path)
        places = set(above(path))
        if places & self._truth.unsure:
            old = [before, *([None] if len(self._truth.sources_of(path)) > 1 else [])]
            return [*(old if self._code or not self._is_whole else []), right, *self._truth.others.get(path, ())]
        if places & self._truth.kept:
            # A list may be made of the members that are kept, without one that failed before or has been edited since.
            return [before, self._after.get(path)] if path.startswith("lists/") else [before]
        if self._code and path.split("/")[0] in self._world.former - {self._world.project.recipe.web}:
            return [before, None]
        return [right]

    def _allowed_of(self, path: str, owned: Owned, usual: list[bytes | None]) -> list[bytes | None]:
        """Return the contents that may lie where a person's file was."""
        right = self._right.get(path)
        if right is not None and owned.is_in_the_way and not self._code and self._is_whole:
            return [right]
        if right is None or not self._is_whole or not owned.key or owned.was_orphan or self._world.is_restored:
            return [owned.data, right] if right is not None else [owned.data]
        if self._key(path) == owned.key:
            return [owned.data, *([right] if owned.data in self._aside else [])]
        return [owned.data, right] if self._may_stay(path, owned) else usual

    def _key(self, path: str) -> tuple[object, ...]:
        return self._world.key_of(path, self._truth)

    def _may_stay(self, path: str, owned: Owned) -> bool:
        """Whether only times differ from what they were when an output was edited, or it is a list."""
        return path in self._truth.lists or _contents(self._key(path)) == _contents(owned.key)

    def _may_go(self, path: str, owned: Owned) -> bool:
        """Whether a person's edit may be replaced, since what the output is made of has changed meanwhile."""
        return bool(owned.key) and path in self._right and self._key(path) != owned.key


def _contents(key: tuple[object, ...]) -> object:
    recipe, facts = key
    assert isinstance(facts, tuple)
    return recipe, [crc for _, crc in facts]


def _shown(data: bytes | None) -> str:
    return "nothing" if data is None else repr(data if len(data) < 60 else data[:57] + b"...")


# -- how a night runs --------------------------------------------------------------------------------------------------


def how(run: RunOf) -> RunOf:
    RUNS[run.__name__] = run
    return run


@how
def plain(nights: Nights) -> None:
    nights.converge_twice()


@how
def kill(nights: Nights) -> None:
    """Runs are killed with all their processes; a person may edit outputs before the next."""
    project, chance = nights.project, nights.world.chance
    for _ in range(chance.randrange(1, 4)):
        nights.look()
        calls = chance.choice([0, 1, chance.randrange(1, 10), chance.randrange(1, nights.world.files)])
        ran = project.kill(project.start(), calls, chance.choice([0.0, chance.random()]))
        code = ran.code if ran.code != -signal.SIGKILL else 0
        nights.check(Ran(code, ran.stdout, ran.stderr, ran.seconds), {0, 1, 4}, is_clean=False)
        nights.ran[-1] = f"killed {ran.code}"
        if chance.random() < 0.4 and nights.night:
            nights.events.append(f"edit_outputs: {PERSONS['edit_outputs'](nights.world)}")
    nights.converge_twice()


@how
def twin(nights: Nights) -> None:
    """Two runs at once: the second is refused while the first is running."""
    project = nights.project
    nights.look()
    began = time.monotonic()
    first = project.start()
    while first.poll() is None and not project.calls_made():
        time.sleep(0.005)
    calls = project.calls
    project.calls = calls.with_name("calls of the second")
    second = project.run()
    project.calls = calls
    is_beside = first.poll() is None
    ran = finish(first, began)
    nights.ran.append(f"second {second.code}")
    allowed = {0, 1, 4} if nights.world.is_restored else {0, 1}
    if second.code != 75 and (is_beside or second.code not in allowed):
        raise Deviation(f"exit {second.code} of a second run at once: {second.stderr}")
    nights.check(ran, {4} if nights.world.is_restored else ())
    nights.converge_twice()


def _full(nights: Nights, disk: Disk) -> None:
    nights.look()
    with disk.filled(nights.world.chance.choice([0, 4096, 40_960, 409_600])):
        ran = nights.project.run()
        nights.check(ran, {3, 4} if nights.world.is_restored else {3})
    nights.converge_twice()


@how
def full_out(nights: Nights) -> None:
    _full(nights, nights.project.disks["out"])


@how
def full_state(nights: Nights) -> None:
    _full(nights, nights.project.disks["state"])


@how
def unmount(nights: Nights) -> None:
    """One disk of the inputs is away for a run or two: its outputs are kept, the rest is done."""
    disk = nights.project.disks["in"]
    disk.unmount()
    for _ in range(nights.world.chance.randrange(1, 3)):
        nights.look()
        nights.check(nights.project.run(), gone=["disk/"], instead={4})
    disk.mount()
    nights.converge_twice()


@how
def unmount_out(nights: Nights) -> None:
    """The disk of the outputs is away: nothing is written in its place."""
    disk = nights.project.disks["out"]
    disk.unmount()
    _refused(nights, {3})
    if left := os.listdir(disk.place):
        raise Deviation(f"written below the place of a disk that is away: {left}")
    disk.mount()
    nights.converge_twice()


@how
def unmount_state(nights: Nights) -> None:
    """The disk of the state is away: what lies in the output folders is not touched."""
    disk = nights.project.disks["state"]
    disk.unmount()
    _refused(nights, {2, 3})
    shutil.rmtree(disk.place, ignore_errors=True)
    disk.place.mkdir(exist_ok=True)
    disk.mount()
    nights.converge_twice()


def _refused(nights: Nights, codes: set[int]) -> None:
    project = nights.project
    before = project.made()
    ran = project.run()
    nights.ran.append(f"{ran.code} in {ran.seconds:.1f} s")
    if ran.code not in codes or project.made() != before:
        raise Deviation(f"exit {ran.code} instead of {codes}: {ran.stderr}")


@how
def remove_top(nights: Nights) -> None:
    """A top folder is removed: its outputs are kept until somebody says that it is meant."""
    project, chance = nights.project, nights.world.chance
    # Who knows which files the ledger knows, or which lists wait for a folder that cannot be listed.
    if nights.world.is_restored or nights.project.unlisted():
        nights.converge_twice()
        return
    nights.converge()  # what was renamed today is one thing, what is removed another
    nights.world.look_again()
    tops = {source.path.split("/")[0] for source in project.sources() if "/" in source.path} - {"disk"}
    top = chance.choice(sorted(tops & set(TOPS)))
    known = [path for path in project.made() if path.startswith(f"sum/{top}/")]
    if len(known) < _MANY:  # it depends on how many others have any output
        return
    shutil.rmtree(project.inputs / top)
    nights.events.append(f"remove {top}")
    nights.look()
    nights.check(project.run(), gone=[f"{top}/"], instead={4})
    nights.look()
    nights.check(project.run("run", "--json", "--rebuild"))
    nights.converge_twice()


@how
def wipe_outputs(nights: Nights) -> None:
    """An output folder is removed on purpose: it is made again."""
    nights.converge()  # a ledger of the older release does not know whether the folder was a disk of its own
    nights.world.look_again()
    folder = nights.world.chance.choice(["sum", "lines", "odd"])
    shutil.rmtree(nights.project.outputs / folder, ignore_errors=True)
    nights.events.append(f"remove out/{folder}")
    nights.world.look_again()
    nights.converge_twice()


# -- what happens when -------------------------------------------------------------------------------------------------

_EVENTS: dict[str, Event] = CHANGES | PERSONS | RECIPES | RESTORES
# What happens is of all kinds in turn; these come more often.
_LONG = ("kill", "twin", "full_out", "full_state")  # how runs are disturbed that should have much to do
_OFTEN = ["add", "edit", "delete", "rename", "corrupt", "heal"]


def schedule(
    chance: random.Random, nights: int, without: Collection[str], disks: Collection[str]
) -> list[tuple[list[str], str]]:
    """Return the events of each night, and how it runs; each kind comes once before any comes twice."""
    runs = [each for each in RUNS if each not in without and NEEDS_DISK.get(each) in (None, *disks)]
    run_deck = _deck(chance, [*runs, "plain", "plain", "kill"])
    decks = {name: _deck(chance, [each for each in kinds if each not in without])
             for name, kinds in {"change": [*CHANGES, *_OFTEN], "person": [*PERSONS, "edit_outputs"],
                                 "recipe": [*RECIPES], "restore": [*RESTORES]}.items()}  # fmt: skip
    chances = {"restore": 0.2, "person": 0.5, "recipe": 0.35}
    taken: list[tuple[list[str], str]] = [([], "plain")]
    for _ in range(nights - 1):
        kinds = [kind for kind, likely in chances.items() if chance.random() < likely]
        kinds += ["change"] * chance.randrange(2, 6)
        run = next(run_deck)
        if run in _LONG and chance.random() < 0.6:
            kinds.append("recipe")
        events = [next(decks[kind]) for kind in kinds]
        taken.append((list(dict.fromkeys(events)), run))
    return taken


def _deck(chance: random.Random, cards: list[str]) -> Iterator[str]:
    """Yield all cards in a random order, again and again."""
    while True:
        yield from chance.sample(cards, len(cards))


def older_release(folder: Path) -> Path | None:
    """Put an older release into a folder; None where the repository does not go back so far."""
    tags = subprocess.run(["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True)
    commit = tags.stdout.strip() or _OLDER
    archive = subprocess.run(["git", "archive", commit, "pipeline", "stages"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        return None
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def simulate(seed: int, nights: int, files: int, without: Collection[str] = (), keep: Path | None = None) -> None:
    """Simulate some nights. Raises Deviation, with all that is needed to repeat it."""
    chance = random.Random(seed)
    changed_by = chance.choice(["mtime", "mtime", "hash"])
    disks = (
        tuple(name for name in ("in", "out", "state") if name == "in" or chance.random() < 0.6) if may_mount() else ()
    )
    with ExitStack() as stack:
        base = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nights-")))
        base.mkdir(parents=True, exist_ok=True)
        project = Project(base, changed_by, disks)
        stack.callback(project.close)
        older = older_release(base / "older") if chance.random() < 0.3 and "upgrade" not in without else None
        print(
            f"seed {seed}: {files} files, changed_by: {changed_by}, disks: {disks}, upgrade: {bool(older)}", flush=True
        )
        taken = Nights(World(project, files, chance), seed, nights, without, older)
        try:
            taken.run()
        except Exception as error:
            lines = [f"seed {seed}, night {taken.night}", *taken.events, f"runs: {'; '.join(taken.ran)}", str(error)]
            options = "".join(f" --without {each}" for each in without)
            again = f"python tests/drills/nights.py --seed {seed} --nights {nights} --files {files}{options}"
            raise Deviation("\n".join([*lines, f"again: {again}"])) from error


def main() -> int:
    """Simulate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="what happens is the same for the same seed")
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--files", type=int, default=2000, help="how many sources there are at first")
    parser.add_argument("--quick", action="store_true", help="300 files and 8 nights")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this folder, and leave the project there")
    parser.add_argument(
        "--without", action="append", default=[], metavar="KINDS", help="events to leave out, with commas"
    )
    given = parser.parse_args()
    nights, files = (8, 300) if given.quick else (given.nights, given.files)
    without = [name for names in given.without for name in names.split(",")]
    if unknown := set(without) - {"upgrade", *_EVENTS, *RUNS}:
        parser.error(f"no such events: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that disks are unmounted
    try:
        simulate(given.seed, nights, files, without, given.keep)
    except Deviation as deviation:
        print(deviation, file=sys.stderr)
        return 1
    print("all nights are right")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
