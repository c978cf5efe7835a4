"""What may happen to the project of the drill of many nights between two runs, each event by its name."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from support.nights_oracle import Expectation, Recipe, Source, expect, is_read
from support.nights_project import Project

TOPS = ("a", "b", "c c", "dé", "disk", "f")
_SUBFOLDERS = ("", "s1", "s1/deep", "s2", "drafts")
_SECOND_NS = 10**9
_DAY_NS = 86_400 * _SECOND_NS


@dataclass
class Owned:
    """A file of a person's in the output folders: an edited output, or one that is nothing of the program's."""

    data: bytes
    key: tuple[object, ...]
    """What the output was made of when it was edited; empty of a file that was no output."""
    was_orphan: bool = False

    @property
    def is_in_the_way(self) -> bool:
        """Whether an output that belongs there is refused, or may be."""
        return not self.key or self.was_orphan


@dataclass
class World:
    """The project, and what a person has done in it."""

    project: Project
    files: int
    """How many sources there were at first."""
    chance: random.Random
    owned: dict[str, Owned] = field(default_factory=dict)
    owed: set[bytes] = field(default_factory=set)
    """Contents of a person's that must lie in the outputs or be set aside, for as long as the drill runs."""
    counter: int = 0
    is_restored: bool = False
    """Whether an older copy of something was put in place tonight: what lies in the outputs may be of neither day."""
    unknown: dict[str, bytes] = field(default_factory=dict)
    """What lay in the outputs when a copy was put in place last: until it is made anew the ledger may not know it."""
    former: set[str] = field(default_factory=set)
    """The folders in which web texts were once; those of files that fail stay there."""
    saved: tuple[Recipe, dict[str, Owned]] | None = None
    """What belongs to the copy of yesterday."""

    @property
    def backup(self) -> Path:
        return self.project.base / "backup"

    def number(self) -> int:
        self.counter += 1
        return self.counter

    def some(self, share: float = 0.005) -> int:
        """Return how many files an event concerns."""
        return max(1, round(self.files * share * self.chance.uniform(0.5, 2)))

    def pick(self, count: int, wanted: Callable[[Source], bool] = lambda source: True) -> list[Source]:
        """Return some sources that are read, at random."""
        found = [each for each in self.project.sources() if is_read(each.path, self.project.recipe) and wanted(each)]
        return self.chance.sample(found, min(count, len(found)))

    def file(self, source: Source) -> Path:
        return self.project.inputs / source.path

    def text(self, kind: str = "ok") -> str:
        """Return a new text: its first line says what becomes of it, the others are parts."""
        number = self.number()
        keys = self.chance.sample(range(5), self.chance.randrange(1, 4))
        odd = " odd" if self.chance.random() < 0.3 else ""
        words = " ".join(str(self.chance.randrange(10**6)) for _ in range(self.chance.randrange(1, 20)))
        return f"{kind}{odd} {number}\n{words}\n" + "".join(f"k{key} {number}\n" for key in sorted(keys))

    def new_name(self, folder: str) -> str:
        """Return the path of a new file in a folder of the inputs."""
        letter = self.chance.choice(["n", "N", "ü", "x y"])
        name = f"{letter}{self.number():05}{self.chance.choice(['.txt', '.txt', '.md'])}"
        return f"{folder}/{name}" if folder else name

    def new_folder(self) -> str:
        """Return a folder of the inputs, which need not exist."""
        if self.chance.random() < 0.04:
            return ""
        top, below = self.chance.choice(TOPS), self.chance.choice(_SUBFOLDERS)
        return f"{top}/{below}" if below else top

    def write(self, path: str, text: str) -> Path:
        file = self.project.inputs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def plant(self) -> None:
        """Make the first sources."""
        for number in range(self.files):
            kind = "BAD" if number % 97 == 5 else "SKIP" if number % 31 == 7 else "ok"
            self.write(self.new_name(self.new_folder()), self.text(kind))
        for name in ("a/Thumbs.db", "b/.hidden", "b/@eaDir/meta.txt"):
            self.write(name, "ok of the system\n")

    def expectation(self, before: dict[str, bytes] | None = None) -> Expectation:
        """Return what a run must leave of what is there now."""
        project = self.project
        found = project.made() if before is None else before
        return expect(project.sources(), project.recipe, found, project.unlisted())

    def key_of(self, path: str, truth: Expectation) -> tuple[object, ...]:
        """Return what an output is made of."""
        sources = truth.sources_of(path)
        if path in truth.lists:
            names = {place for place, _ in truth.lists[path]}
            sources = [each for place in sorted(names) for each in truth.sources[place]]
        facts = tuple((each.mtime_ns, zlib.crc32(each.data)) for each in sources)
        return (self.project.recipe.contents(path), facts)

    def look_again(self) -> None:
        """Owe a person only what is still there, once somebody else has replaced files."""
        made = self.project.made()
        self.owned = {path: each for path, each in self.owned.items() if made.get(path) == each.data}
        self.owed &= set(made.values()) | self.project.set_aside()


Event = Callable[[World], str]
CHANGES: dict[str, Event] = {}
PERSONS: dict[str, Event] = {}
RECIPES: dict[str, Event] = {}
RESTORES: dict[str, Event] = {}


def of(kind: dict[str, Event]) -> Callable[[Event], Event]:
    def add_to(event: Event) -> Event:
        kind[event.__name__] = event
        return event

    return add_to


def is_ok(source: Source) -> bool:
    return source.kind == "ok" and source.is_readable


# -- of the sources ----------------------------------------------------------------------------------------------------


@of(CHANGES)
def add(world: World) -> str:
    paths = [world.new_name(world.new_folder()) for _ in range(world.some())]
    for path in paths:
        world.write(path, world.text())
    return ", ".join(paths)


@of(CHANGES)
def add_folder(world: World) -> str:
    folder = f"{world.new_folder()}/new{world.number()}".lstrip("/")
    for _ in range(world.some()):
        world.write(world.new_name(folder), world.text())
    return folder


@of(CHANGES)
def edit(world: World) -> str:
    return _rewrite(world, is_ok, "ok")


@of(CHANGES)
def corrupt(world: World) -> str:
    return _rewrite(world, is_ok, "BAD")


@of(CHANGES)
def heal(world: World) -> str:
    return _rewrite(world, lambda source: source.kind == "BAD", "ok")


@of(CHANGES)
def skip(world: World) -> str:
    return _rewrite(world, is_ok, "SKIP")


@of(CHANGES)
def skip_no_more(world: World) -> str:
    return _rewrite(world, lambda source: source.kind == "SKIP", "ok")


def _rewrite(world: World, wanted: Callable[[Source], bool], kind: str) -> str:
    chosen = world.pick(world.some(), wanted)
    for source in chosen:
        world.file(source).write_text(world.text(kind))
    return _named(chosen)


def _named(sources: list[Source]) -> str:
    return ", ".join(each.path for each in sources)


@of(CHANGES)
def tear(world: World) -> str:
    """The fan-out of some texts fails after its first parts."""
    chosen = world.pick(world.some(0.002), is_ok)
    for source in chosen:
        world.file(source).write_text(world.text() + "TORN\n")
    return _named(chosen)


@of(CHANGES)
def delete(world: World) -> str:
    chosen = world.pick(world.some())
    for source in chosen:
        world.file(source).unlink()
    return _named(chosen)


@of(CHANGES)
def touch(world: World) -> str:
    chosen = world.pick(world.some())
    for source in chosen:
        os.utime(world.file(source))
    return _named(chosen)


@of(CHANGES)
def older(world: World) -> str:
    """Texts are replaced by others with times of long ago."""
    chosen = world.pick(world.some(), is_ok)
    for source in chosen:
        _replace_at(world, source, world.text(), source.mtime_ns - 400 * _DAY_NS - world.number())
    return _named(chosen)


@of(CHANGES)
def future(world: World) -> str:
    """Texts are replaced by others with a time of next week, the same for all."""
    chosen = world.pick(world.some(), is_ok)
    for source in chosen:
        _replace_at(world, source, world.text(), source.mtime_ns + 7 * _DAY_NS)
    return _named(chosen)


@of(CHANGES)
def clock(world: World) -> str:
    """The times of all files of a folder are an hour later or earlier, as after a change of the clock."""
    folder = world.new_folder()
    shift = world.chance.choice([-1, 1]) * 3600 * _SECOND_NS
    for source in world.project.sources():
        if source.folder == folder:
            os.utime(world.file(source), ns=(source.mtime_ns + shift,) * 2)
    return folder


def _replace_at(world: World, source: Source, text: str, mtime_ns: int) -> None:
    file = world.file(source)
    file.write_text(text)
    os.utime(file, ns=(mtime_ns, mtime_ns))


def _alike(world: World, source: Source) -> str:
    """Return other text of the same size."""
    old = source.text
    for digit in world.chance.sample("0123456789", 10):
        line, newline, rest = old.partition("\n")
        changed = f"{line[:-1]}{digit}{newline}{rest}"
        if changed != old:
            return changed
    raise AssertionError(old)


@of(CHANGES)
def same_second(world: World) -> str:
    """Texts are replaced by others of the same size within the same second."""
    chosen = world.pick(world.some(), is_ok)
    for source in chosen:
        second, ns = divmod(source.mtime_ns, _SECOND_NS)
        later = (ns + _SECOND_NS // 2) % _SECOND_NS
        _replace_at(world, source, _alike(world, source), second * _SECOND_NS + later)
    return _named(chosen)


@of(CHANGES)
def whole_second(world: World) -> str:
    """Texts are replaced by others of the same size, with the time of the old one cut to its second."""
    chosen = world.pick(world.some(), lambda source: is_ok(source) and source.mtime_ns % _SECOND_NS > 2 * 10**7)
    for source in chosen:
        _replace_at(world, source, _alike(world, source), source.mtime_ns // _SECOND_NS * _SECOND_NS)
    return _named(chosen)


@of(CHANGES)
def quiet_edit(world: World) -> str:
    """Texts are replaced by others of the same size and time; only `hash` promises to see that."""
    if world.project.changed_by != "hash":
        return ""
    chosen = world.pick(world.some(), is_ok)
    for source in chosen:
        _replace_at(world, source, _alike(world, source), source.mtime_ns)
    return _named(chosen)


@of(CHANGES)
def rename(world: World) -> str:
    moved = []
    for source in world.pick(world.some()):
        new = world.new_name(source.folder if world.chance.random() < 0.5 else world.new_folder())
        (world.project.inputs / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(world.file(source), world.project.inputs / new)
        moved.append(f"{source.path} -> {new}")
    return ", ".join(moved)


@of(CHANGES)
def rename_suffix(world: World) -> str:
    """The suffix changes, which is in the names of some of the outputs only."""
    moved = []
    for source in world.pick(world.some()):
        new = world.file(source).with_suffix(".md" if source.path.endswith(".txt") else ".txt")
        if not new.exists():
            world.file(source).rename(new)
            moved.append(source.path)
    return ", ".join(moved)


@of(CHANGES)
def swap(world: World) -> str:
    """Two files trade names; another two move up a place in a row."""
    chosen = world.pick(2, is_ok)
    if len(chosen) < 2:
        return ""
    one, two = map(world.file, chosen)
    between = one.with_name("between")
    shutil.move(one, between)
    shutil.move(two, one)
    shutil.move(between, two)
    return _named(chosen)


@of(CHANGES)
def chain(world: World) -> str:
    """A file takes the name of another, which takes the name of a third, which gets a new one."""
    chosen = world.pick(3, is_ok)
    if len(chosen) < 3:
        return ""
    files = [world.file(each) for each in chosen]
    new = world.project.inputs / world.new_name(chosen[2].folder)
    for old, name in zip(reversed(files), [new, files[2], files[1]], strict=True):
        shutil.move(old, name)
    return _named(chosen)


@of(CHANGES)
def rename_folder(world: World) -> str:
    """A folder below a top folder gets another name."""
    chosen = world.pick(1, lambda source: source.path.count("/") > 1)
    if not chosen:
        return ""
    folder = world.project.inputs / chosen[0].folder
    if any(file.suffix == ".text" for file in folder.rglob("*")):  # two new files that want one place have none yet
        return ""
    new = folder.with_name(f"moved{world.number()}")
    folder.rename(new)
    return f"{chosen[0].folder} -> {new.name}"


@of(CHANGES)
def copy(world: World) -> str:
    """Texts are copied with their times, so that two have the same contents, size and time."""
    chosen = world.pick(world.some(0.002))
    for source in chosen:
        new = world.project.inputs / world.new_name(source.folder)
        shutil.copy2(world.file(source), new)
    return _named(chosen)


@of(CHANGES)
def close_file(world: World) -> str:
    """Texts may not be read, and some of these have changed."""
    chosen = world.pick(world.some(0.002), is_ok)
    for source in chosen:
        if world.chance.random() < 0.5:
            world.file(source).write_text(world.text())
        world.file(source).chmod(0)
    return _named(chosen)


@of(CHANGES)
def close_folder(world: World) -> str:
    """A folder may not be listed."""
    folders = {each.folder for each in world.pick(50) if "/" in each.folder}
    if not folders:
        return ""
    folder = world.chance.choice(sorted(folders))
    (world.project.inputs / folder).chmod(0)
    return folder


@of(CHANGES)
def open_all(world: World) -> str:
    """All that was closed may be read again."""
    for above, names, files in os.walk(world.project.inputs):
        for name in names:
            os.chmod(os.path.join(above, name), 0o755)
        for name in files:
            os.chmod(os.path.join(above, name), 0o644)
    return "all"


@of(CHANGES)
def collide(world: World) -> str:
    """A second file wants the web text of a first one, since only its suffix differs; tomorrow it may be gone."""
    made = []
    for source in world.pick(1, is_ok):
        new = world.file(source).with_suffix(".text")
        new.write_text(world.text())
        made.append(new.name)
    return ", ".join(made)


@of(CHANGES)
def collide_no_more(world: World) -> str:
    chosen = [each for each in world.project.sources() if each.path.endswith(".text")]
    for source in chosen:
        world.file(source).unlink()
    return _named(chosen)


# -- of the recipe -----------------------------------------------------------------------------------------------------


def _recipe(world: World, **changes: object) -> str:
    world.project.write_recipe(replace(world.project.recipe, **changes))  # type: ignore[arg-type]
    return str(changes)


@of(RECIPES)
def option(world: World) -> str:
    return _recipe(world, mark=f"m{world.number()}", times=world.chance.randrange(1, 4))


@of(RECIPES)
def stage_code(world: World) -> str:
    return _recipe(world, version=f"v{world.number()}")


@of(RECIPES)
def helper(world: World) -> str:
    return _recipe(world, word=f"w{world.number()}")


@of(RECIPES)
def helper_same_second(world: World) -> str:
    """The helper is edited to the same size within the second of its last edit."""
    file = world.project.folder / "stages/shared.py"
    second, ns = divmod(file.stat().st_mtime_ns, _SECOND_NS)
    word = world.project.recipe.word
    said = _recipe(world, word=word[:-1] + ("1" if word[-1] != "1" else "2"))
    os.utime(file, ns=(second * _SECOND_NS + (ns + _SECOND_NS // 2) % _SECOND_NS,) * 2)
    return said


@of(RECIPES)
def table(world: World) -> str:
    return _recipe(world, table=f"t{world.number()}")


@of(RECIPES)
def template(world: World) -> str:
    world.former.add(world.project.recipe.web)
    return _recipe(world, web=f"web{world.number()}")


@of(RECIPES)
def stage_name(world: World) -> str:
    return _recipe(world, stage=f"web{world.number()}")


@of(RECIPES)
def remark(world: World) -> str:
    return _recipe(world, remark=world.number())


@of(RECIPES)
def drafts(world: World) -> str:
    return _recipe(world, has_drafts=not world.project.recipe.has_drafts)


# -- of a person in the outputs ----------------------------------------------------------------------------------------


def _some_outputs(world: World, count: int) -> list[str]:
    """Return outputs that are there and as they should be."""
    made = world.project.made()
    truth = world.expectation(made)
    good = [path for path, data in truth.right.items() if made.get(path) == data and path not in world.owned]
    good += [path for path in truth.lists if path in made and path not in truth.kept | truth.unsure | set(world.owned)]
    return world.chance.sample(sorted(good), min(count, len(good)))


@of(PERSONS)
def edit_outputs(world: World) -> str:
    paths = _some_outputs(world, world.some(0.003))
    truth = world.expectation()
    for path in paths:
        data = f"by a person {world.number()}\n".encode()
        world.owned[path] = Owned(data, world.key_of(path, truth))
        world.owed.add(data)
        (world.project.outputs / path).write_bytes(data)
    return ", ".join(paths)


@of(PERSONS)
def write_beside(world: World) -> str:
    """A person writes files of their own into the output folders."""
    paths = [f"{PurePosixPath(path).parent}/note {world.number()}.text" for path in _some_outputs(world, 2)]
    for path in paths:
        _own(world, path)
    return ", ".join(paths)


def _own(world: World, path: str) -> None:
    data = f"a person's own {world.number()}\n".encode()
    file = world.project.outputs / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    world.owned[path] = Owned(data, ())
    world.owed.add(data)


@of(PERSONS)
def squat(world: World) -> str:
    """A person's file lies where the output of a new source belongs."""
    if not (world.project.outputs / "sum").is_dir():
        return ""
    source = world.new_name(world.new_folder())
    _own(
        world,
        world.chance.choice([f"sum/{source}.sum", f"{world.project.recipe.web}/{Path(source).with_suffix('.txt')}"]),
    )
    world.write(source, world.text())
    return source


@of(PERSONS)
def tidy(world: World) -> str:
    """A person removes all files of their own."""
    for path in world.owned:
        (world.project.outputs / path).unlink(missing_ok=True)
    paths, world.owned = list(world.owned), {}
    world.look_again()
    return ", ".join(paths)


@of(PERSONS)
def delete_outputs(world: World) -> str:
    paths = _some_outputs(world, world.some())
    for path in paths:
        (world.project.outputs / path).unlink()
    return ", ".join(paths)


@of(PERSONS)
def empty_outputs(world: World) -> str:
    paths = _some_outputs(world, world.some())
    for path in paths:
        (world.project.outputs / path).write_bytes(b"")
    return ", ".join(paths)


# -- backups -----------------------------------------------------------------------------------------------------------


def back_up(world: World) -> None:
    """Copy the whole project, with all times."""
    shutil.rmtree(world.backup, ignore_errors=True)
    subprocess.run(["cp", "-a", world.project.folder, world.backup], check=True)
    world.saved = (world.project.recipe, {path: replace(each) for path, each in world.owned.items()})


def _put_back(world: World, name: str) -> None:
    """Replace the contents of a folder of the project by those of yesterday; mounted folders stay mounted."""
    place, mounts = world.project.folder / name, {disk.place for disk in world.project.disks.values()}
    _empty(place, mounts)
    subprocess.run(["cp", "-a", f"{world.backup / name}/.", place], check=True)


def _empty(place: Path, mounts: set[Path]) -> None:
    for each in place.iterdir():
        if each in mounts:
            _empty(each, mounts)
        elif each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _is_saved(world: World) -> bool:
    """Whether there is a copy with outputs in the same places."""
    return world.saved is not None and world.saved[0].web == world.project.recipe.web


@of(RESTORES)
def restore_outputs(world: World) -> str:
    if not _is_saved(world):
        return ""
    _put_back(world, "out")
    return _restored(world)


@of(RESTORES)
def restore_state(world: World) -> str:
    if not _is_saved(world):
        return ""
    _put_back(world, "state")
    return _restored(world)


@of(RESTORES)
def restore_project(world: World) -> str:
    if not world.saved:
        return ""
    for name in ("in", "stages", "words", "out", "state"):
        _put_back(world, name)
    shutil.copy2(world.backup / "pipeline.yaml", world.project.folder)
    world.project.recipe = world.saved[0]
    return _restored(world)


@of(RESTORES)
def restore_inputs(world: World) -> str:
    """The sources are those of yesterday, with their old times."""
    if not world.saved:
        return ""
    _put_back(world, "in")
    return "yesterday's"


def _restored(world: World) -> str:
    assert world.saved
    world.is_restored = True
    world.unknown |= world.project.made()
    world.owned = {path: replace(each) for path, each in (world.saved[1] | world.owned).items()}
    world.look_again()
    return "yesterday's"
