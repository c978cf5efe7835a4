"""`stages.__path__`: the pipeline's own stages and the bundled ones are found however and wherever the program runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from PIL import Image
from support.program import ROOT

Install = Callable[[str], Path]


def can_build_here() -> bool:
    """Whether this environment's own setuptools can build a wheel, so that nothing need be downloaded for it."""
    probe = "import setuptools.command.bdist_wheel"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Installs filemill into a fresh environment, once for each way; gives the environment's python."""
    made: dict[str, Path] = {}

    def make(way: str) -> Path:
        if way not in made:
            made[way] = install_into(tmp_path_factory.mktemp(way), way)
        return made[way]

    return make


def install_into(folder: Path, way: str) -> Path:
    """Copy the project, so that nothing is built in it, and install the copy beside links to our libraries."""
    source, python = folder / "filemill", folder / "venv" / "bin" / "python"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "pipeline", "stages"):
        if (ROOT / name).exists():
            subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    paths = dict.fromkeys(sysconfig.get_path(each) for each in ("purelib", "platlib"))
    site = folder / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "libraries.pth").write_text("".join(f"{each}\n" for each in paths))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    # The libraries' environment may have an older filemill of its own, which is to stay.
    command += ["--ignore-installed", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-build-isolation"] if can_build_here() else []
    command += ["-e", str(source)] if way == "editable" else [str(source)]
    subprocess.run(command, check=True)
    found = subprocess.check_output([python, "-Ic", "import pipeline; print(pipeline.__file__)"], text=True)
    assert Path(found).is_relative_to(source if way == "editable" else site)
    return python


MINE = """
import enum
import stages
from . import beside
import beside_too
import at_yaml

class Colour(enum.Enum):
    RED = "red"

def mine(data: bytes, *, colour: Colour) -> bytes:
    init = getattr(stages, "MARK", "no init")
    return f"{colour.value} {beside.VALUE} {beside_too.VALUE} {at_yaml.VALUE} {init}".encode()
"""

YAML = """
inputs: in
stages:
  - {name: mine, uses: mine, with: {colour: red}, output: 'out/{stem}.txt'}
  - {name: web, from: inputs, uses: resize, with: {width: 4}, output: 'out/{stem}.png'}
  - {name: file, from: inputs, uses: './stages/plain.py:Plain', output: 'out/{stem}.bin'}
pool: {processes: 1, initializer: 'at_yaml:load', initargs: [5]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A pipeline with stages of its own, and helpers beside them and beside the YAML."""
    files = {
        "p.yaml": YAML,
        "stages/mine.py": MINE,
        "stages/beside.py": "VALUE = 1\n",
        "stages/beside_too.py": "VALUE = 2\n",
        "stages/plain.py": "class Plain:\n    def __call__(self, data: bytes) -> bytes: return b'plain'\n",
        "at_yaml.py": "VALUE = 0\ndef load(value):\n    global VALUE\n    VALUE = value\n",
        # Where the program is started from another folder, what lies there is nobody's stage.
        "../elsewhere/stages/__init__.py": "1 / 0\n",
        "../elsewhere/stages/mine.py": "1 / 0\n",
    }
    folder = tmp_path / "project"
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "in").mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "in" / "x.png")
    return folder


def run(python: Path | str, project: Path, context: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the pipeline in the pool, with nothing in the environment that says where to import from."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [python, "-m", "pipeline", project / "p.yaml", "--set", f"pool.context={context}", "--json"]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


# Each value of each with some of the others; all with all take minutes.
QUICK = [
    ("regular", True, "fork", "elsewhere"),
    ("regular", False, "forkserver", "project"),
    ("editable", False, "spawn", "elsewhere"),
    ("editable", True, "forkserver", "elsewhere"),
]
WAYS = product(("regular", "editable"), (True, False), ("fork", "forkserver", "spawn"), ("project", "elsewhere"))


@pytest.mark.parametrize(
    ("way", "init", "context", "where"),
    [pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow) for each in WAYS],
)
def test_stages_are_found(install: Install, project: Path, way: str, init: bool, context: str, where: str) -> None:
    """The same line makes the same outputs in a regular and an editable install, with and without an `__init__.py` in
    the user's stages/, by every start method, from any working directory.
    """
    if init:
        (project / "stages" / "__init__.py").write_text("MARK = 'init'\n")
    python = install(way)
    ended = run(python, project, context, project.parent / where)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (project / "out" / "x.txt").read_text() == f"red 1 2 5 {'init' if init else 'no init'}"
    assert (project / "out" / "x.bin").read_bytes() == b"plain"
    with Image.open(project / "out" / "x.png") as image:
        assert image.size == (4, 4)


@pytest.mark.parametrize(
    ("uses", "context"),
    [
        *(("mine", "forkserver"), ("./stages/mine.py", "spawn"), ("stages.mine:mine", "fork")),
        *(pytest.param("mine", each, marks=pytest.mark.slow) for each in ("fork", "spawn")),
        *(pytest.param("./stages/mine.py", each, marks=pytest.mark.slow) for each in ("fork", "forkserver")),
        *(pytest.param("stages.mine:mine", each, marks=pytest.mark.slow) for each in ("forkserver", "spawn")),
    ],
)
def test_options_of_a_stages_own_types(project: Path, uses: str, context: str) -> None:
    """An option may be of a class of the stage's own module, however the stage is named."""
    (project / "p.yaml").write_text(YAML.replace("uses: mine", f"uses: '{uses}'"))
    ended = run(sys.executable, project, context, project)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (project / "out" / "x.txt").read_text() == "red 1 2 5 no init"
