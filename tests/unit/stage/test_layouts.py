"""What counts as a stage's code is what its import really loaded: every layout of a project that people have."""

# ruff: noqa: E501, the text of a file stands in one line

from __future__ import annotations

import os
import py_compile
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import PIL
import pytest

from pipeline.config.load import load_config
from pipeline.config.model import Config
from pipeline.errors import ConfigError

STAGE = "def s(text: str) -> str:\n    return text\n"
YAML = "inputs: {inputs}\nstages:\n"


@dataclass(frozen=True)
class Layout:
    """A project, one edit of it, and which of its stages are other code after that."""

    files: dict[str, str]
    edit: dict[str, str]
    changes: tuple[bool, ...] = (True,)
    uses: tuple[str, ...] = ("s",)
    yaml: str = "pipeline.yaml"
    links: dict[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    """Folders that are on `sys.path`."""
    unseen: str = ""
    """What is said to be unseen."""


def helped(line: str) -> str:
    """The text of a stage whose module begins with a line."""
    return f"{line}\n{STAGE}"


STAGE_BY_DEFAULT = "from helper import X\ndef s(text: str, *, n: int = X) -> str:\n    return text\n"
A, B = "X = 1\n", "X = 2\n"
PLUGINS = "import pkgutil, importlib\nfor each in pkgutil.iter_modules(__path__):\n    importlib.import_module(f'{__name__}.{each.name}')\n"
FINDERS = "import pkgutil\nfor each in pkgutil.iter_modules(__path__):\n    each.module_finder.find_spec(each.name, None).loader.load_module(each.name)\n"
BY_SPEC = "import importlib.util as u, os\nspec = u.spec_from_file_location('odd', os.path.join(os.path.dirname(__file__), 'odd.py'))\nm = u.module_from_spec(spec)\nspec.loader.exec_module(m)\n"
BESIDE = "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\n"

LAYOUTS = {
    "1 __init__ of a package, by import a.b": Layout(
        {"stages/s.py": helped("import h.sub"), "h/__init__.py": A, "h/sub.py": A}, {"h/__init__.py": B}
    ),
    "2 __init__ that patches its module": Layout(
        {"stages/s.py": helped("from h.sub import X"), "h/__init__.py": "from h import sub\nsub.X = 1\n", "h/sub.py": A},
        {"h/__init__.py": "from h import sub\nsub.X = 2\n"},
    ),
    "3 package of the root, YAML in pipelines/": Layout(
        {"pipelines/stages/s.py": helped("import lib"), "lib.py": A}, {"lib.py": B},
        yaml="pipelines/pipeline.yaml", path=(".",),
    ),
    "4 uses ../shared": Layout(
        {"shared/s.py": helped("import beside"), "shared/beside.py": A, "p/x": ""}, {"shared/beside.py": B},
        uses=("../shared/s.py",), yaml="p/pipeline.yaml",
    ),
    "5 stages/ is a link": Layout(
        {"elsewhere/s.py": helped("from . import beside"), "elsewhere/beside.py": A}, {"elsewhere/beside.py": B},
        links={"p/stages": "elsewhere"}, yaml="p/pipeline.yaml",
    ),
    "6 a helper is a link": Layout(
        {"p/stages/s.py": helped("import helper"), "x/helper.py": A}, {"x/helper.py": B},
        links={"p/helper.py": "x/helper.py"}, yaml="p/pipeline.yaml",
    ),
    "7 the stage is a link": Layout(
        {"x/s.py": STAGE, "p/stages/x": ""}, {"x/s.py": STAGE.replace("text\n", "text + '2'\n")},
        links={"p/stages/s.py": "x/s.py"}, yaml="p/pipeline.yaml",
    ),
    "8 inherited, relative import": Layout(
        {"stages/s.py": "from .above import Above\nclass S(Above):\n    pass\n",
         "stages/above.py": "class Above:\n    def __call__(self, text: str) -> str:\n        return text\n"},
        {"stages/above.py": "class Above:\n    def __call__(self, text: str) -> str:\n        return text + '2'\n"},
    ),
    "9 import_module of a text": Layout(
        {"stages/s.py": helped("import importlib\nm = importlib.import_module('helper')"), "helper.py": A}, {"helper.py": B}
    ),
    "10 a default": Layout(
        {"stages/s.py": STAGE_BY_DEFAULT, "helper.py": A},
        {"helper.py": B},
    ),
    "11 a stage that is a package": Layout(
        {"stages/s/__init__.py": helped("from . import part"), "stages/s/part.py": A}, {"stages/s/part.py": B}
    ),
    "12 a docstring": Layout(
        {"stages/s.py": helped("import helper"), "helper.py": A}, {"helper.py": '"""Said."""\n' + A}, (False,)
    ),
    "13 * with submodules in __all__": Layout(
        {"stages/s.py": helped("from pkg import *"), "pkg/__init__.py": "__all__ = ['sub']\n", "pkg/sub.py": A},
        {"pkg/sub.py": B},
    ),
    "14 a namespace package": Layout(
        {"stages/s.py": helped("import bare.sub"), "bare/sub.py": A}, {"bare/sub.py": B}
    ),
    "15 a relative sub-package": Layout(
        {"stages/s.py": helped("from .sub.deep import X"), "stages/sub/__init__.py": "", "stages/sub/deep.py": A},
        {"stages/sub/deep.py": B},
    ),
    "16 a conditional import": Layout(
        {"stages/s.py": helped("import sys\nif sys.platform:\n    import helper"), "helper.py": A}, {"helper.py": B}
    ),
    "16b an absent module appears": Layout(
        {"stages/s.py": helped("try:\n    import maybe\nexcept ImportError:\n    maybe = None")}, {"maybe.py": A}
    ),
    "17 import_module of a text in a function": Layout(
        {"stages/s.py": "import importlib\ndef s(text: str) -> str:\n    return importlib.import_module('late').X\n",
         "late.py": A},
        {"late.py": B},
    ),
    "17b a lazy package's __init__": Layout(
        {"stages/s.py": "def s(text: str) -> str:\n    import pkg.sub\n    return text\n", "pkg/__init__.py": A,
         "pkg/sub.py": A},
        {"pkg/__init__.py": B},
    ),
    "17c a computed name in a function": Layout(
        {"stages/s.py": "import importlib\ndef s(text: str) -> str:\n    return importlib.import_module('la' + 'te').X\n",
         "late.py": A},
        {"late.py": B}, (False,), unseen="stages/s.py:3: import_module() of what only the call knows",
    ),
    "18 plug-ins by pkgutil": Layout(
        {"stages/s.py": helped("import plugs"), "plugs/__init__.py": PLUGINS, "plugs/one.py": A}, {"plugs/one.py": B}
    ),
    "18b a new plug-in": Layout(
        {"stages/s.py": helped("import plugs"), "plugs/__init__.py": PLUGINS, "plugs/one.py": A}, {"plugs/two.py": A}
    ),
    "18c plug-ins by their finders": Layout(
        {"stages/s.py": helped("import plugs"), "plugs/__init__.py": FINDERS, "plugs/one.py": A}, {"plugs/one.py": B}
    ),
    "18d spec_from_file_location": Layout(
        {"stages/s.py": helped("import beside"), "beside.py": BY_SPEC, "odd.py": A}, {"odd.py": B}
    ),
    "18e runpy": Layout(
        {"stages/s.py": helped("import runpy, os\nX = runpy.run_path(os.path.join(os.path.dirname(__file__), '../odd.py'))"),
         "odd.py": A},
        {"odd.py": B},
    ),
    "18e exec of a text that was read": Layout(
        {"stages/s.py": helped(BESIDE + "exec(open(os.path.join(HERE, '../odd.py')).read())"), "odd.py": A}, {"odd.py": B}
    ),
    "18f a table that is read at import": Layout(
        {"stages/s.py": helped(BESIDE + "T = open(os.path.join(HERE, '../table.csv')).read()"), "table.csv": "1"},
        {"table.csv": "2"},
    ),
    "18g a log that is written at import": Layout(
        {"stages/s.py": helped(BESIDE + "open(os.path.join(HERE, 'log'), 'a').write('x')\nopen(os.path.join(HERE, 'log')).read()")},
        {}, (False,),
    ),
    "19 a circle": Layout(
        {"stages/s.py": helped("import one"), "one.py": "import two\n", "two.py": "import one\nX = 1\n"},
        {"two.py": "import one\nX = 2\n"},
    ),
    "21 a helper that the stage before had loaded": Layout(
        {"stages/a.py": helped("import helper").replace("def s", "def a"), "stages/s.py": helped("import helper"), "helper.py": A},
        {"helper.py": B}, (True, True), ("a", "s"),
    ),
    "21b the other's own helper": Layout(
        {"stages/a.py": helped("import helper").replace("def s", "def a"), "stages/s.py": STAGE, "helper.py": A},
        {"helper.py": B}, (True, False), ("a", "s"),
    ),
    "22 a helper that patches another": Layout(
        {"stages/s.py": helped("import table, patcher"), "table.py": A, "patcher.py": "import table\ntable.X = 3\n"},
        {"patcher.py": "import table\ntable.X = 4\n"},
    ),
    "22b patched by another stage's helper": Layout(
        {"stages/s.py": helped("import table"), "stages/z.py": helped("import patcher").replace("def s", "def z"),
         "table.py": A, "patcher.py": "import table\ntable.X = 3.5\n"},
        {"patcher.py": "import table\ntable.X = 4.5\n"}, (True, True), ("s", "z"),
    ),
    "22c a table to which the other adds": Layout(
        {"stages/s.py": helped("import table"), "stages/z.py": helped("import adder").replace("def s", "def z"),
         "table.py": "T = {}\n", "adder.py": "import table\ntable.T[1] = 1\n"},
        {"adder.py": "import table\ntable.T[1] = 2\n"}, (True, True), ("s", "z"),
    ),
    "22d a sibling": Layout(
        {"stages/s.py": STAGE, "stages/z.py": STAGE.replace("def s", "def z")},
        {"stages/z.py": STAGE.replace("def s", "def z").replace("text\n", "text * 2\n")}, (False, True), ("s", "z"),
    ),
    "22e a library that loads our plug-in": Layout(
        {"stages/s.py": helped("import framework\nframework.load('ours')"), "ours.py": A,
         "lib/site-packages/framework.py": "import importlib\ndef load(name):\n    return importlib.import_module(name)\n"},
        {"ours.py": B}, path=("lib/site-packages",),
    ),
    "22f an installed library": Layout(
        {"stages/s.py": helped("import framework"), "lib/site-packages/framework.py": A},
        {"lib/site-packages/framework.py": B}, (False,), path=("lib/site-packages",),
    ),
    "23 an editable install": Layout(
        {"stages/s.py": helped("import mypkg.part"), "repo/src/mypkg/__init__.py": "", "repo/src/mypkg/part.py": A},
        {"repo/src/mypkg/part.py": B}, path=("repo/src",),
    ),
    "23b a stage in src/mypkg, its own helper": Layout(
        {"src/mypkg/__init__.py": "", "src/mypkg/st.py": helped("from .own import X"), "src/mypkg/own.py": A, "p/x": ""},
        {"src/mypkg/own.py": B}, uses=("mypkg.st:s",), yaml="p/pipeline.yaml", path=("src",),
    ),
    "26 __main__": Layout(
        {"stages/s.py": helped("import __main__, helper"), "helper.py": A}, {"helper.py": B}
    ),
    "27 prints": Layout(
        {"stages/s.py": helped("import os, helper\nprint('said')\nos.write(1, b'raw')"), "helper.py": A}, {"helper.py": B}
    ),
    "31 a comment": Layout(
        {"stages/s.py": helped("import helper"), "helper.py": A}, {"helper.py": "# Said.\n" + A}, (False,)
    ),
    "33 a file that hides another": Layout(
        {"stages/s.py": helped("import helper"), "helper.py": A, "first/x": ""}, {"first/helper.py": B}, path=("first",)
    ),
    "34 a module becomes a package": Layout(
        {"stages/s.py": helped("import helper"), "helper.py": A}, {"helper/__init__.py": B}
    ),
    "35 stages/__init__": Layout({"stages/s.py": STAGE, "stages/__init__.py": A}, {"stages/__init__.py": B}),
    "35b an __init__ without code appears": Layout(
        {"stages/s.py": helped("import h.sub"), "h/sub.py": A}, {"stages/__init__.py": "", "h/__init__.py": '"""H."""\n'}, (False,)
    ),
    "40 a RECIPE that only a * brings": Layout(
        {"stages/s.py": helped("from base import *"), "base.py": "RECIPE = 1\n"},
        {"stages/s.py": helped("from base import *").replace("return text", "return text * 2")},
    ),
    "40b a RECIPE with its type": Layout({"stages/s.py": helped("RECIPE: int = 1")}, {"stages/s.py": helped("RECIPE: int = 2")}),
    "36 a * of a *": Layout(
        {"stages/s.py": helped("from one import *"), "one.py": "from two import *\n", "two.py": A}, {"two.py": B}
    ),
    "37 a decorator": Layout(
        {"stages/s.py": "from deco import twice\n@twice\n" + STAGE,
         "deco.py": "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(text: str) -> str:\n        return f(text) * 2\n    return g\n"},
        {"deco.py": "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(text: str) -> str:\n        return f(text) * 3\n    return g\n"},
    ),
    "38 an error of syntax in what is imported late": Layout(
        {"stages/s.py": "def s(text: str) -> str:\n    import late\n    return text\n", "late.py": "def :\n"},
        {"late.py": "def ::\n"},
    ),
    "39 a module's __getattr__": Layout(
        {"stages/s.py": helped("from lazy import X"), "lazy.py": "def __getattr__(name):\n    import deep\n    return deep.X\n",
         "deep.py": A},
        {"deep.py": B},
    ),
}  # fmt: skip


class Folder:
    """A project in a folder, read as every command reads it."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        (folder / "in").mkdir()
        self.write(layout.files)
        for link, target in layout.links.items():
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to(folder / target)
        lines = [YAML.format(inputs=folder / "in")]
        for number, uses in enumerate(layout.uses):
            lines.append(f"  - {{name: n{number}, from: inputs, uses: '{uses}', output: 'out{number}/{{name}}'}}\n")
        self.write({layout.yaml: "".join(lines)})

    def write(self, files: dict[str, str]) -> None:
        """Write files of the project."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def read(self) -> Config:
        """Read the pipeline."""
        return load_config(self.folder / self.layout.yaml)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, tuple[str, ...]], None]:
    """Puts folders first on `sys.path`, as PYTHONPATH and editable installs do."""

    def put(folder: Path, names: tuple[str, ...]) -> None:
        monkeypatch.setattr(sys, "path", [*(str((folder / name).resolve()) for name in names), *sys.path])

    return put


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_edit_of_what_an_import_loads_is_seen(name: str, tmp_path: Path, on_path: Callable[..., None]) -> None:
    """Other code in any file that counts is another identity of the stages that load it, and of no other stage."""
    layout = LAYOUTS[name]
    on_path(tmp_path, layout.path)
    project = Folder(tmp_path, layout)
    before = project.read()
    assert any(layout.unseen in each for each in before.unseen) if layout.unseen else before.unseen == ()
    project.write(layout.edit)
    after = project.read()
    pairs = zip(before.stages, after.stages, strict=True)
    assert tuple(a.code.identity != b.code.identity for a, b in pairs) == layout.changes
    files = [str(getattr(module, "__file__", "")) for module in sys.modules.values()]
    assert not [file for file in files if file.startswith(str(tmp_path))]


def test_a_library_and_an_extension_are_code(tmp_path: Path) -> None:
    """What is linked by `ctypes` or as an extension counts by its contents."""
    extension = next(Path(PIL.__file__).parent.glob("_imagingmath.*.so"))
    loads = f"import ctypes, pkg._imagingmath\nctypes.CDLL({str(tmp_path / 'own.so')!r})"
    project = Folder(tmp_path, Layout({"stages/s.py": helped(loads), "pkg/__init__.py": ""}, {}))
    copies = [Path(shutil.copy(extension, tmp_path / "pkg")), Path(shutil.copy(extension, tmp_path / "own.so"))]
    identities = {project.read().stages[0].code.identity}
    for copy in copies:
        with open(copy, "ab") as file:
            file.write(b"\0")
        identities.add(project.read().stages[0].code.identity)
    assert len(identities) == 3


def test_what_is_zipped_is_code(tmp_path: Path, on_path: Callable[..., None]) -> None:
    """Modules in an archive count as the archive."""
    project = Folder(tmp_path, Layout({"stages/s.py": helped("import zipped")}, {}))
    on_path(tmp_path, ("lib.zip",))
    identities = set()
    for text in (A, B):
        with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
            archive.writestr("zipped.py", text)
        identities.add(project.read().stages[0].code.identity)
    assert len(identities) == 2


DEATHS = {
    "raise ValueError('no')": "cannot be imported: ValueError: no",
    "import os; os._exit(0)": "the import of 's' ended the process with exit code 0",
    "import os; os._exit(3)": "the import of 's' ended the process with exit code 3",
    "import ctypes; ctypes.string_at(0)": "the import of 's' ended the process by signal 11 (SIGSEGV)",
    "import os; os.abort()": "the import of 's' ended the process by signal 6 (SIGABRT)",
    "import sys; sys.exit(0)": "cannot be imported: SystemExit: 0",
}


@pytest.mark.parametrize("line", DEATHS)
def test_what_dies_at_import_is_named(line: str, tmp_path: Path) -> None:
    """However a stage's module ends the process that imports it, that is a complaint; the others' are there too."""
    project = Folder(
        tmp_path, Layout({"stages/s.py": helped(line), "stages/a.py": "def b(): pass\n"}, {}, uses=("a", "s"))
    )
    with pytest.raises(ConfigError) as raised:
        project.read()
    said = next(line for line in raised.value.text.splitlines() if "stage 'n1'" in line)
    assert "pipeline.yaml:4:" in said and DEATHS[line] in said
    assert "stage 'n0': " in raised.value.text


def test_bytecode_of_the_same_second_is_not_taken(tmp_path: Path) -> None:
    """A helper that is saved twice within a second at one size is loaded from its text, not from its .pyc."""
    project = Folder(tmp_path, Layout({"stages/s.py": STAGE_BY_DEFAULT, "helper.py": A}, {}))
    helper = tmp_path / "helper.py"
    os.utime(helper, ns=(10**18, 10**18))
    py_compile.compile(str(helper))
    helper.write_text(B)
    os.utime(helper, ns=(10**18 + 1000, 10**18 + 1000))
    made = Path(next((tmp_path / "__pycache__").glob("helper.*.pyc")))
    os.utime(made, ns=(10**18, 10**18))
    assert project.read().stages[0].options == {"n": 2}
