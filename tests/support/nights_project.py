"""The project of the drill of many nights: its pipeline and stages, its disks, and its runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.nights_oracle import Recipe, Source

_YAML = """
inputs:
  root: in
  exclude: {exclude}
stages:
  - {{name: clean, uses: clean, with: {{mark: {mark}, table: words/table.txt}}}}
  - name: {stage}
    uses: stamp
    with: {{times: {times}}}
    output: 'out/{web}/{{dir}}/{{stem}}.txt'
  - {{name: lines, from: clean, uses: lines, output: 'out/lines/{{dir}}/{{stem}}/{{part}}.txt'}}
  - {{name: sum, from: inputs, uses: total, output: 'out/sum/{{dir}}/{{name}}.sum'}}
  - {{name: odd, from: inputs, uses: is_odd}}
  - {{name: back, uses: backwards, output: out/odd/}}
  - name: list
    from: {stage}
    uses: contacts
    gather: true
    group: '{{dir}}'
    output: 'out/lists/{{dir}}/list.txt'
pool: {{processes: 2}}
changed_by: {changed_by}
prune: {{max: 90%}}
state: state/nights
"""
_CLEAN = '''
import os
from pathlib import Path
from pipeline import Skip

VERSION = "{version}"  # {remark}
CALLS = os.environ.get("NIGHTS_CALLS")


def clean(text: str, *, mark: str, table: Path) -> str:
    """Puts a line before a text; refuses some, and leaves out others."""
    if CALLS:
        fd = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b".")
        os.close(fd)
    if text.startswith("BAD"):
        raise ValueError("bad text")
    if text.startswith("SKIP"):
        raise Skip("not wanted")
    return f"{{mark}} {{VERSION}} {{table.read_text()}}\\n{{text}}"
'''
_STAGES = {
    "stamp": '''
import shared


def stamp(text: str, *, times: int) -> str:
    return (shared.WORD + text) * times
''',
    "lines": '''
from collections.abc import Iterator
from pipeline import Part


def lines(text: str) -> Iterator[Part[str]]:
    head, *rest = text.splitlines()
    for line in rest:
        if line.startswith("k"):
            yield Part(f"{head}|{line}", name=line.split()[0])
        elif line.startswith("TORN"):
            raise ValueError("torn text")
''',
    "total": '''
import zlib
from pipeline import Item


def total(item: Item[bytes]) -> str:
    return f"{item.source} {zlib.crc32(item.value)}\\n"
''',
    "is_odd": '''
def is_odd(text: str) -> bool:
    return " odd " in text
''',
    "backwards": '''
def backwards(text: str) -> str:
    return text[::-1]
''',
    "contacts": '''
import zlib
from collections.abc import Iterator
from pipeline import Item


def contacts(items: Iterator[Item[str]]) -> str:
    made = []
    for item in items:
        data = item.value.encode()
        made.append(f"{item.source} {len(data)} {zlib.crc32(data)}\\n")
    return "".join(made)
''',
}  # fmt: skip
# How long a run may take before it counts as one that hangs.
_RUN_S = 600.0
# Root reads and writes whatever the permissions are; the runs shall not.
_SETPRIV = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
MEGABYTE = 1 << 20


def may_mount() -> bool:
    """Whether file systems can be mounted here."""
    if os.geteuid() or not shutil.which("mount"):
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


class Disk:
    """A small disk that lies behind one folder of the project, and can be taken away, put back, and filled."""

    def __init__(self, name: str, store: Path, place: Path, size: int) -> None:
        self.name = name
        self._store = store
        self.place = place
        self.is_there = False
        for folder in (store, place):
            folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", store], check=True)
        (store / "data").mkdir()
        self.mount()

    def mount(self) -> None:
        if not self.is_there:
            subprocess.run(["mount", "--bind", self._store / "data", self.place], check=True)
            self.is_there = True

    def unmount(self) -> None:
        if self.is_there:
            _unmount(self.place)
            self.is_there = False

    @contextmanager
    def filled(self, free: int) -> Iterator[None]:
        """Leave only some bytes free for a while."""
        ballast = self._store / "ballast"
        at = os.statvfs(self._store)
        size = max(0, at.f_bavail * at.f_frsize - free)
        with open(ballast, "wb") as file:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)
        try:
            yield
        finally:
            ballast.unlink()

    def remove(self) -> None:
        """Unmount it for good; what was on it is left in its place."""
        self.unmount()
        shutil.copytree(self._store / "data", self.place, dirs_exist_ok=True)
        _unmount(self._store)


def _unmount(place: Path) -> None:
    until = time.monotonic() + 20
    while (ran := subprocess.run(["umount", place], capture_output=True, text=True)).returncode:
        if time.monotonic() > until:
            subprocess.run(["umount", "-l", place], check=True)
            raise AssertionError(f"{place} is still in use after a run: {ran.stderr}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Ran:
    """A run that has ended: its exit code and what it said."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def done(self) -> int:
        """How many outputs it made."""
        return int(json.loads(self.stdout)["done"])


class Project:
    """A pipeline over a tree of texts, in a folder of its own."""

    def __init__(self, folder: Path, changed_by: str, disks: tuple[str, ...]) -> None:
        self.base = folder
        self.folder = folder / "project"
        self.inputs, self.outputs, self.state = (self.folder / name for name in ("in", "out", "state"))
        self.changed_by = changed_by
        self.recipe = Recipe()
        self.calls = folder / "calls"
        self.code: Path | None = None
        """The folder of an older release that runs instead of this one."""
        for place in (self.inputs, self.outputs, self.state, self.folder / "stages", self.folder / "words"):
            place.mkdir(parents=True)
        places = {"in": self.inputs / "disk", "out": self.outputs, "state": self.state}
        self.disks = {name: Disk(name, folder / "disks" / name, places[name], 256 * MEGABYTE) for name in disks}
        for name, text in _STAGES.items():
            (self.folder / "stages" / f"{name}.py").write_text(text)
        self.write_recipe(self.recipe)

    def close(self) -> None:
        """Unmount all disks."""
        for disk in self.disks.values():
            disk.remove()

    def write_recipe(self, recipe: Recipe) -> list[Path]:
        """Write the files that differ from what they are for this recipe, and return them."""
        self.recipe = recipe
        exclude = '[".x"]' if recipe.has_drafts else '["drafts/"]'
        fields = {"stage": recipe.stage, "web": recipe.web, "mark": recipe.mark, "times": recipe.times}
        wanted = {
            "pipeline.yaml": _YAML.format(exclude=exclude, changed_by=self.changed_by, **fields),
            "stages/clean.py": _CLEAN.format(version=recipe.version, remark=recipe.remark),
            "stages/shared.py": f'WORD = "{recipe.word}"\n',
            "words/table.txt": recipe.table,
        }
        changed = []
        for name, text in wanted.items():
            file = self.folder / name
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
                changed.append(file)
        return changed

    # -- runs ----------------------------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run as the leader of a process group."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONDONT", "PYTEST"))}
        environment["NIGHTS_CALLS"] = str(self.calls)
        if self.code:
            environment["PYTHONPATH"] = str(self.code)
        before = _SETPRIV if os.geteuid() == 0 else []
        self.calls.unlink(missing_ok=True)
        return subprocess.Popen(
            [*before, sys.executable, "-m", "pipeline", *(arguments or ("run", "--json"))],
            cwd=self.folder, env=environment, text=True, process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str) -> Ran:
        """Run to the end."""
        began = time.monotonic()
        return finish(self.start(*arguments), began)

    def kill(self, process: subprocess.Popen[str], calls: int, delay_s: float) -> Ran:
        """Kill a run and all its processes once it has made so many calls, or some seconds later; it may end before."""
        began = time.monotonic()
        while process.poll() is None and self.calls_made() < calls:
            time.sleep(0.005)
        until = time.monotonic() + delay_s
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return finish(process, began)

    def calls_made(self) -> int:
        """How many files the run that was started last has begun."""
        try:
            return self.calls.stat().st_size
        except OSError:
            return 0

    # -- what is there -------------------------------------------------------------------------------------------------

    def sources(self) -> list[Source]:
        """Return all files of the inputs, in the order of their paths."""
        found = []
        for file in files_below(self.inputs):
            at = os.stat(file)
            name = os.path.relpath(file, self.inputs)
            found.append(Source(name, Path(file).read_bytes(), at.st_mtime_ns, bool(at.st_mode & stat.S_IRUSR)))
        return sorted(found, key=lambda each: each.path)

    def unlisted(self) -> list[str]:
        """Return the folders of the inputs that a run cannot list."""
        closed = [
            os.path.join(above, name)
            for above, names, _ in os.walk(self.inputs)
            for name in names if not os.stat(os.path.join(above, name)).st_mode & stat.S_IRUSR
        ]  # fmt: skip
        return [f"{os.path.relpath(each, self.inputs)}/" for each in closed]

    def input_facts(self) -> dict[str, tuple[object, ...]]:
        """Return all that a run must not change: every other file of the project, with its times and its contents."""
        found: dict[str, tuple[object, ...]] = {}
        for top in (self.inputs, self.folder / "stages", self.folder / "words"):
            for file in files_below(top):
                if "__pycache__" not in file:
                    at = os.stat(file)
                    found[file] = (at.st_ino, at.st_mode, at.st_mtime_ns, Path(file).read_bytes())
        for name in sorted(os.listdir(self.folder)):
            found[name] = ()
        found["pipeline.yaml"] = ((self.folder / "pipeline.yaml").read_bytes(),)
        return found

    def made(self) -> dict[str, bytes]:
        """Return the contents of all files below the outputs, but for owner files and temporaries."""
        found = {os.path.relpath(file, self.outputs): Path(file) for file in files_below(self.outputs)}
        return {name: file.read_bytes() for name, file in found.items() if not file.name.startswith(".filemill")}

    def made_facts(self) -> dict[str, tuple[int, int]]:
        """Return inode and time of all files below the outputs, but for owner files."""
        found = {}
        for file in files_below(self.outputs):
            if not os.path.basename(file).startswith(".filemill"):
                at = os.stat(file)
                found[os.path.relpath(file, self.outputs)] = (at.st_ino, at.st_mtime_ns)
        return found

    def temporaries(self) -> list[str]:
        """Return what a run has left for itself alone."""
        found = [file for file in files_below(self.outputs) if os.path.basename(file).startswith(".filemill-")]
        return found + [file for part in ("scratch", "slots") for file in files_below(self.state / "nights" / part)]

    def set_aside(self) -> set[bytes]:
        """Return the contents of all files that a run has set aside."""
        return {Path(file).read_bytes() for file in files_below(self.state / "nights" / "set-aside")}


def files_below(folder: str | Path) -> Iterator[str]:
    """Yield every file below a folder."""
    for above, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(above, name)


def finish(process: subprocess.Popen[str], began: float) -> Ran:
    """Wait for the end of a run; one that hangs is killed, and an error."""
    try:
        stdout, stderr = process.communicate(timeout=_RUN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"the run hangs after {_RUN_S:g} s: {stdout} {stderr}") from None
    return Ran(process.returncode, stdout, stderr, time.monotonic() - began)
