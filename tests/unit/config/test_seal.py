"""A pipeline is read once, and again as soon as anything changes that the reading depends on."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from support.docs import blocks
from support.program import ROOT, Pipeline

from pipeline.config.load import Loading, load_config
from pipeline.files.state_dir import SEAL_FILE

YAML = """
inputs: in
stages:
  - name: up
    uses: upper
    with: {mark: "!", tool: tools/fix.sh}
    output: out/{dir}/{name}
depends: [tables/*.txt]
pool: {processes: 1}
"""
STAGE = """
import os
from pathlib import Path
import helper
try:
    import extra
except ImportError:
    extra = None
with open("imports.log", "a") as log:
    log.write("imported\\n")
for name in os.listdir("plugs"):
    pass

def upper(text: str, *, mark: str = "", tool: str | Path = "tools/fix.sh") -> str:
    import later.slow
    return helper.shout(text) + mark + (extra.MORE if extra else "")
"""


class Folder:
    """A project whose stage says in a log whenever it is imported; its one input has its output already."""

    def __init__(self, path: Path, pipeline: Pipeline) -> None:
        self.path = path
        self._pipeline = pipeline
        self.write("pipeline.yaml", YAML)
        self.write("stages/upper.py", STAGE)
        self.write("helper.py", "def shout(text): return text.upper()\n")
        self.write("tables/a.txt", "a")
        self.write("later/__init__.py", "")
        self.write("later/slow.py", "")
        self.write("plugs/a.py", "")
        self.write("in/a", "a")

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def run(self, *arguments: str, **environment: str) -> None:
        ended = self._pipeline("run", "pipeline.yaml", *arguments, cwd=self.path, **environment)
        assert ended.returncode == 0, ended.stderr

    def imports(self, *arguments: str, **environment: str) -> int:
        """Run, and return how often the stage was imported meanwhile."""
        log = self.path / "imports.log"
        log.unlink(missing_ok=True)
        self.run(*arguments, **environment)
        return len(log.read_text().splitlines()) if log.exists() else 0

    def output(self) -> str:
        return (self.path / "out/a").read_text()


@pytest.fixture
def folder(tmp_path: Path, pipeline: Pipeline) -> Folder:
    made = Folder(tmp_path, pipeline)
    made.run()
    made.run()  # what is young at the first run is compared by its contents; the outputs' folder is there by now
    return made


def test_nothing_is_imported_while_nothing_changes(folder: Folder) -> None:
    assert [folder.imports() for _ in range(3)] == [0, 0, 0]


def test_a_new_input_is_made_by_workers_alone(folder: Folder) -> None:
    """The worker imports what it runs; nobody else does."""
    folder.write("in/b", "b")
    assert folder.imports() == 1


CHANGES: dict[str, Callable[[Folder], object]] = {
    "the YAML": lambda at: at.edit("pipeline.yaml", '"!"', '"?"'),
    "the stage": lambda at: at.edit("stages/upper.py", "+ mark", "+ mark + mark"),
    "a helper": lambda at: at.edit("helper.py", "upper()", "lower()"),
    "a module that was not there": lambda at: at.write("extra.py", "MORE = '+'\n"),
    "a package that hides a module": lambda at: at.write("helper/__init__.py", "def shout(text): return text * 2\n"),
    "another file of depends": lambda at: at.write("tables/b.txt", "b"),
    "a file of depends that is gone": lambda at: (at.write("tables/c.txt", ""), (at.path / "tables/a.txt").unlink()),
    "a file beside code": lambda at: at.write("stages/table.csv", "1,2"),
    "a module of a package that only a call imports": lambda at: at.write("later/fast.py", "MORE = '+'\n"),
    "a package that hides a module that only a call imports": lambda at: at.write("later/slow/__init__.py", ""),
    "a plug-in in a folder that was listed": lambda at: at.write("plugs/b.py", ""),
    "a link to the stages": lambda at: (
        shutil.copytree(at.path / "stages", at.path / "others"),
        os.rename(at.path / "stages", at.path / "before"),
        os.symlink("others", at.path / "stages"),
    ),
    "the file that a text of an option names": lambda at: at.write("tools/fix.sh", ""),
    "a link for the output folder": lambda at: (
        os.rename(at.path / "out", at.path / "other"),
        os.symlink("other", at.path / "out"),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_it_was_read_from_is_watched(folder: Folder, change: Callable[[Folder], object]) -> None:
    change(folder)
    assert folder.imports() >= 1
    folder.run()
    assert folder.imports() == 0


def test_same_size_and_time_of_a_file_that_was_just_written(tmp_path: Path, pipeline: Pipeline) -> None:
    """A file system may know the times of two versions as one; what was young at the reading is compared whole."""
    folder = Folder(tmp_path, pipeline)
    helper = tmp_path / "helper.py"
    folder.run()
    found = helper.stat()
    with open(helper, "r+") as file:  # the very inode
        file.write("def shout(text): return text.lower()\n")
    os.utime(helper, ns=(found.st_atime_ns, found.st_mtime_ns))
    folder.run()
    assert folder.output() == "a!"


def test_arguments_are_part_of_the_question(folder: Folder) -> None:
    assert folder.imports("--set", "stages.up.with.mark=?") >= 1
    assert folder.output() == "A?"
    assert folder.imports() >= 1
    assert folder.output() == "A!"


def test_another_path_of_modules_is_another_question(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("modules")
    (place / "extra.py").write_text("MORE = '+'\n")
    assert folder.imports(PYTHONPATH=str(place)) >= 1
    assert folder.output() == "A!+"


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "gone"])
def test_a_damaged_seal_costs_a_reading(folder: Folder, damage: str) -> None:
    seal = next((folder.path / ".pipeline").glob("*/reading.seal"))
    data = seal.read_bytes()
    if damage == "gone":
        seal.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        seal.write_bytes({"empty": b"", "cut": data[:middle], "flipped": flipped}[damage])
    assert folder.imports() == 1
    assert folder.imports() == 0


def test_a_pipeline_that_has_moved_is_read_again(folder: Folder) -> None:
    """It has other paths, and nothing of it is made anew."""
    moved = folder.path / "moved"
    moved.mkdir()
    for each in ("pipeline.yaml", "stages", "helper.py", "later", "plugs", "tables", "in", "out", ".pipeline"):
        shutil.move(folder.path / each, moved / each)
    before = os.stat(moved / "out/a").st_mtime_ns
    folder.path = moved
    assert folder.imports() == 1
    assert os.stat(moved / "out/a").st_mtime_ns == before


def test_without_its_input_folder_it_says_so(folder: Folder, pipeline: Pipeline) -> None:
    (folder.path / "in").rename(folder.path / "elsewhere")
    ended = pipeline("run", "pipeline.yaml", cwd=folder.path)
    assert (ended.returncode, "does not exist, and this pipeline has run before" in ended.stderr) == (3, True)


@pytest.mark.parametrize("words", ["state: elsewhere", "state: 'else where' # quoted", "name: other"])
def test_wherever_the_state_is(tmp_path: Path, pipeline: Pipeline, words: str) -> None:
    """What can be told from the text is found; else the pipeline is read, and right all the same."""
    folder = Folder(tmp_path, pipeline)
    folder.edit("pipeline.yaml", "inputs: in", f"{words}\ninputs: in")
    folder.run()
    folder.run()
    assert folder.imports() == ("'" in words)


PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ("tutorial.md", "stages.md")]
PIPELINES = [
    (ROOT / "pipeline.yaml").read_text(),
    *dict.fromkeys(chain.from_iterable(blocks("yaml", page.read_text()) for page in PAGES)),
]


@pytest.mark.parametrize("yaml", PIPELINES, ids=lambda yaml: hashlib.sha256(yaml.encode()).hexdigest()[:6])
def test_what_the_seal_keeps_is_what_was_read(example: Path, yaml: str) -> None:
    """To the last field, for every pipeline that the documentation shows."""
    file = example / "pipeline.yaml"
    file.write_text(yaml)
    read = load_config(file)
    assert read.seal
    read.state.mkdir(parents=True)
    (read.state / SEAL_FILE).write_bytes(read.seal)
    again = Loading(file)
    assert again.is_sealed
    kept = again.config()
    # 1 and True are equal and no text of one is that of the other; the items of a set have no order.
    assert kept == read and sorted(repr(kept)) == sorted(repr(read))
    assert kept.evidence and read.evidence and kept.evidence.holds() and kept.evidence.asked == read.evidence.asked
    assert [stage.packed_options for stage in kept.stages] == [stage.packed_options for stage in read.stages]


def call_of(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls something with a text when it is unpacked."""
    texts = [b"\x8c%c%s" % (len(each), each.encode()) for each in (module, name, argument)]
    return b"\x80\x04%s%s\x93%s\x85R." % tuple(texts)


@pytest.mark.parametrize("kind", ["another class", "a function", "what ours imports", "another version", "no pickle"])
def test_a_seal_of_somebody_else_costs_a_reading(folder: Folder, kind: str) -> None:
    """What is in it is unpacked only into filemill's own classes, and nothing of it is run."""
    file = folder.path / ".pipeline/pipeline/reading.seal"
    made = folder.path / "was-run"
    packed = {
        "another class": call_of("os", "mkdir", str(made)),
        "a function": call_of("pipeline.files.atomic", "_make_folder", str(made)),
        "what ours imports": call_of("pipeline.config.seal", "os.mkdir", str(made)),
        "another version": pickle.dumps({"config": None}),
        "no pickle": b"\x80\x05nothing of the kind",
    }[kind]
    file.write_bytes(hashlib.blake2b(packed, digest_size=16).digest() + packed)
    assert folder.imports() == 1
    assert not made.exists()
    assert folder.imports() == 0
