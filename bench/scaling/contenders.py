"""Who is measured over many small files: this program, what the work itself costs, and what else people use."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pipeline

# What --set-up brings.
PYPI = ("doit", "snakemake")
DEBIAN = ("make", "ninja-build", "parallel", "rsync")

UPPER = """
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item
def upper(text: str) -> str:
    return text.upper()
def parts(text: str) -> Iterator[str]:
    yield from (text, text.upper(), text.lower())
def names(items: Iterator[Item[Path]]) -> str:
    return "".join(f"{item.source}\\n" for item in items)
"""
PIPELINE = "inputs: in\nstages:\n  - {name: up, uses: upper, output: 'out/{dir}/{name}'}\npool: {processes: 2}\n"
# The same text in other shapes of outputs.
_UP = "{{name: {0}, from: inputs, uses: 'stages.upper:upper', output: {1}}}"
_SHEET = "{name: sheet, from: up, uses: 'stages.upper:names', gather: true, group: '{dir}', output: 'sheets/{dir}.txt'}"


def _pipeline(*stages: str, more: str = "") -> str:
    listed = "".join(f"  - {each}\n" for each in stages)
    return f"inputs: in\n{more}stages:\n{listed}pool: {{processes: 2}}\n"


def _up(output: str, name: str = "up") -> str:
    return _UP.format(name, output)


SHAPED = {
    "three outputs": (_pipeline(*(_up(f"'out/{each}/{{dir}}/{{name}}'", each) for each in ("a", "b", "c"))), 3),
    "match": (
        _pipeline(
            *(
                _up(f"'out/{{dir}}/{{name}}', match: ['*[{digits}].txt']", name)
                for name, digits in (("even", "02468"), ("odd", "13579"))
            )
        ),
        1,
    ),
    "three parts": (_pipeline("{name: up, uses: 'stages.upper:parts', output: 'out/{dir}/{stem}-{part}.txt'}"), 3),
    "output: none": (_pipeline(_up("none")), 0),
    "groups": (_pipeline(_up("'out/{dir}/{name}'"), _SHEET), 1),
    "changed_by: hash": (_pipeline(_up("'out/{dir}/{name}'"), more="changed_by: hash\n"), 1),
    "fork": (PIPELINE.replace("processes: 2", "processes: 2, context: fork"), 1),
    "spawn": (PIPELINE.replace("processes: 2", "processes: 2, context: spawn"), 1),
}
"""For each shape its pipeline, and how many files it makes of each source below `out`."""
POOL = """
import multiprocessing, os, sys
def work(path):
    target = "out" + path[2:]
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(path, encoding="utf-8") as file: text = file.read()
    with open(target, "w", encoding="utf-8") as file: file.write(text.upper())
def paths():
    for folder, _, names in os.walk("in"):
        for name in names: yield os.path.join(folder, name)
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        for _ in pool.imap_unordered(work, paths(), chunksize=int(sys.argv[1])): pass
"""
WALK = "import os\nfor d, _, names in os.walk('in'):\n    for n in names: os.stat(os.path.join(d, n))\n"
UP = 'mkdir -p "$(dirname "out${1#in}")" && tr a-z A-Z < "$1" > "out${1#in}"'
MAKE = """
sources := $(shell find in -type f)
all: $(sources:in/%=out/%)
out/%: in/% ; @mkdir -p $(@D) && tr a-z A-Z < $< > $@
"""
DOIT = """
import os
def task_up():
    for folder, _, names in os.walk("in"):
        for name in names:
            source = os.path.join(folder, name)
            target = "out" + source[2:]
            yield {"name": source, "file_dep": [source], "targets": [target],
                   "actions": [(up, [source, target])]}
def up(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(source) as file: text = file.read()
    with open(target, "w") as file: file.write(text.upper())
"""
SNAKEMAKE = """
import os
FILES = [os.path.join(d, n)[3:] for d, _, names in os.walk("in") for n in names]
rule all:
    input: expand("out/{file}", file=FILES)
rule up:
    input: "in/{file}"
    output: "out/{file}"
    shell: "tr a-z A-Z < {input} > {output}"
"""

PYTHON = sys.executable
FILEMILL = [PYTHON, "-m", "pipeline"]


@dataclass(frozen=True)
class Contender:
    """Something to measure; `most` is the number of files that it can be asked to bear."""

    name: str
    needs: str
    """A program, or `py:` and a distribution."""
    command: list[str]
    most: int
    remembers: bool = False
    """Whether a second run of the same command finds nothing to do."""
    prepare: Callable[[Path], None] = lambda home: None
    plan: list[str] | None = None
    """The command that says what a run would do."""
    makes: int = 1
    """The number of files below `out` that it makes of each source."""

    @property
    def version(self) -> str | None:
        """Which one it is; None where it is not installed."""
        if self.needs == "py:filemill":
            return pipeline.__version__
        if self.needs.startswith("py:"):
            name = self.needs[3:]
            return importlib.metadata.version(name) if importlib.util.find_spec(name) else None
        if self.needs == "python":
            return sys.version.split()[0]
        return _version_of(self.needs) if shutil.which(self.needs) else None


def _version_of(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace").stdout
    found = re.search(r"\d+(\.\d+)+|\d{8}", said)
    return found[0] if found else "?"


def _ninja(home: Path) -> None:
    with open(home / "build.ninja", "w") as file:
        file.write("rule up\n  command = mkdir -p $$(dirname $out) && tr a-z A-Z < $in > $out\n")
        for path in sorted((home / "in").rglob("*.txt")):
            name = path.relative_to(home / "in")
            file.write(f"build out/{name}: up in/{name}\n")


def _project(home: Path, text: str = PIPELINE) -> None:
    (home / "stages").mkdir()
    (home / "stages" / "upper.py").write_text(UPPER)
    (home / "pipeline.yaml").write_text(text)


def _shaped(text: str) -> Callable[[Path], None]:
    return lambda home: _project(home, text)


def _write(name: str, text: str) -> Callable[[Path], None]:
    def prepare(home: Path) -> None:
        (home / name).write_text(text)

    return prepare


def _xargs(program: str, *options: str) -> list[str]:
    return ["sh", "-c", f"find in -type f -print0 | {program} {' '.join(options)} sh -c '{UP}' sh"]


CHUNK_1, CHUNK_64 = "bare Pool script, chunk 1", "bare Pool script, chunk 64"
WALKED, RSYNC = "Python walk with stat", "rsync -a --dry-run"
_RUN = [*FILEMILL, "pipeline.yaml"]
_SNAKEMAKE = [PYTHON, "-m", "snakemake", "-q", "all", "-j2"]

MAKERS = (
    Contender("filemill", "py:filemill", _RUN, 10**7, True, _project, [*FILEMILL, "plan"]),
    Contender(CHUNK_1, "python", [PYTHON, "pool.py", "1"], 10**7, False, _write("pool.py", POOL)),
    Contender(CHUNK_64, "python", [PYTHON, "pool.py", "64"], 10**7, False, _write("pool.py", POOL)),
    Contender("doit -n2", "py:doit", [PYTHON, "-m", "doit", "-v0", "-n2"], 10_000, True, _write("dodo.py", DOIT)),
    Contender("make -j2", "make", ["make", "-s", "-j2"], 10_000, True, _write("Makefile", MAKE)),
    Contender("ninja -j2", "ninja", ["ninja", "--quiet", "-j2"], 10_000, True, _ninja),
    Contender("xargs -P2", "xargs", _xargs("xargs", "-0", "-n1", "-P2"), 10_000),
    Contender("GNU parallel -j2", "parallel", _xargs("parallel", "-0", "-q", "-j2"), 1000),
    Contender("snakemake -j2", "py:snakemake", _SNAKEMAKE, 1000, True, _write("Snakefile", SNAKEMAKE)),
)
SHAPES = tuple(
    Contender(f"filemill, {name}", "py:filemill", _RUN, 10**7, True, _shaped(text), makes=makes)
    for name, (text, makes) in SHAPED.items()
)
WALKS = (
    Contender("find -printf", "find", ["find", "in", "-printf", r"%p %s %T@\n"], 10**7),
    Contender(WALKED, "python", [PYTHON, "-c", WALK], 10**7),
    Contender(RSYNC, "rsync", ["rsync", "-a", "--dry-run", "in/", "out/"], 10**7),
)
# Those of the quick form: they need nothing that is not here.
QUICK = ("filemill", CHUNK_1, WALKED)
