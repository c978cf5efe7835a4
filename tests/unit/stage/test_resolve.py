"""pipeline/stage/resolve.py: finding a stage by its name, and reading the contract off its signature."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageError
from pipeline.stage.resolve import check_call, find, find_function, set_stage_path
from pipeline.stage.signature import Stage
from pipeline.stage.values import BYTES, IMAGE, PATH, PICTURE, TEXT

Find = Callable[..., Stage]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder for a pipeline; what is imported from it is forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    (tmp_path / "stages").mkdir()
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is None or str(tmp_path) in file:
            del sys.modules[name]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


@pytest.fixture
def stage(project: Path) -> Find:
    """Writes stages/s.py and finds its stage."""

    def make(text: str, uses: str = "s") -> Stage:
        write(project / "stages" / "s.py", text)
        set_stage_path(project)
        return find(uses, project)

    return make


# -- finding -----------------------------------------------------------------------------------------------------------

PLAIN = "def {name}(data: bytes) -> bytes: return data\n"
CLASS = "class {name}:\n    def __call__(self, data: bytes) -> bytes: return data\n"


@pytest.mark.parametrize(
    ("uses", "file", "text"),
    [
        ("make_grey", "stages/make_grey.py", PLAIN.format(name="make_grey")),
        ("make_grey", "stages/make_grey.py", CLASS.format(name="MakeGrey")),
        ("grey", "stages/grey.py", CLASS.format(name="Grey")),
        ("many", "stages/many/__init__.py", PLAIN.format(name="many")),
        ("./stages/mine.py:Name", "stages/mine.py", CLASS.format(name="Name")),
        ("./stages/mine.py", "stages/mine.py", PLAIN.format(name="mine")),
        ("stages/mine.py:mine", "stages/mine.py", PLAIN.format(name="mine")),
        ("./other/my-own.py:f", "other/my-own.py", PLAIN.format(name="f")),
        ("../{folder}/x.py", "x.py", PLAIN.format(name="x")),
        ("beside_yaml:f", "beside_yaml.py", PLAIN.format(name="f")),
        ("package_of_mine.module:Name", "package_of_mine/module.py", CLASS.format(name="Name")),
        ("package_of_mine.module", "package_of_mine/module.py", PLAIN.format(name="module")),
        ("stages.mine:mine", "stages/mine.py", PLAIN.format(name="mine")),
        ("./stages/resize.py", "stages/resize.py", PLAIN.format(name="resize")),
    ],
)
def test_found(project: Path, uses: str, file: str, text: str) -> None:
    """A name is a file under stages/ and the function or class of its name in it; dotted names and paths work too."""
    write(project / file, text)
    set_stage_path(project)
    found = find(uses.format(folder=project.name), project)
    assert found.where.startswith(f"{project / file}:1")
    assert (found.takes, found.makes) == (BYTES, BYTES)
    assert found.build({})(b"x") == b"x"


def test_bundled_stages_are_found_without_a_folder(tmp_path: Path) -> None:
    """A pipeline without a stages/ folder of its own has the bundled ones."""
    set_stage_path(tmp_path)
    assert find("resize", tmp_path).takes is PICTURE


@pytest.mark.parametrize(
    ("uses", "said"),
    [
        ("resizze", "no stage 'resizze'; did you mean 'resize'?"),
        ("Resize", "no stage 'Resize'; did you mean 'resize'?"),
        ("xyz", "no stage 'xyz' in {project}/stages/, "),
        ("_hidden", "no stage '_hidden'"), ("__init__", "no stage '__init__'"), ("a b", "no stage 'a b'"),
        ("sub/inner", "no stage 'sub/inner'"), ("a\0b", "no stage"), ("empty", "no stage 'empty'"),
        ("../x", "'../x' names no stage; say resize, package.module:Name or ./folder/file.py:Name"),
        (":x", "':x' names no stage"), ("a:b:c", "names no stage"), ("..", "names no stage"), (".a", "names no stage"),
        ("./gone.py", "no file '{project}/gone.py'"), ("./stages.py:x", "no file"), ("./a.b.py:f", "a dot too many"),
        ("nosuchpackage.x:Y", "nosuchpackage.x: cannot be imported: ModuleNotFoundError"),
        ("sys:nothing", "sys: no function or class 'nothing'"),
        ("sub.inner:iner", "no function or class 'iner' for stage 'sub.inner:iner'; did you mean 'inner'?"),
        ("math:hypot", "a stage is a function or a class, not a builtin_function_or_method"),
        ("builtins:print", "a stage is a function or a class"), ("builtins:dict", "has no __call__"),
        ("functools:partial", "a stage has exactly one parameter"), ("builtins:type", "stands before the '*'"),
    ],
)  # fmt: skip
def test_not_found(project: Path, uses: str, said: str) -> None:
    """What names no stage is answered with the one that was meant, or with where it was looked for."""
    write(project / "stages" / "_hidden.py", PLAIN.format(name="_hidden"))
    write(project / "stages" / "sub" / "inner.py", PLAIN.format(name="inner"))
    write(project / "sub" / "inner.py", PLAIN.format(name="inner"))
    write(project / "a.b.py", PLAIN.format(name="f"))
    (project / "stages" / "empty").mkdir()
    set_stage_path(project)
    with pytest.raises(StageError) as caught:
        find(uses, project)
    assert said.format(project=project) in str(caught.value)


@pytest.mark.parametrize("file", ["resize.py", "resize/__init__.py"])
def test_a_shadow_is_refused_only_when_used(project: Path, file: str) -> None:
    """A user's file with the name of a bundled stage is in nobody's way until the pipeline uses that name."""
    write(project / "stages" / file, PLAIN.format(name="resize"))
    write(project / "stages" / "s.py", PLAIN.format(name="s"))
    set_stage_path(project)
    assert find("s", project)
    with pytest.raises(StageError, match=r"has the name of a bundled stage\n  hint: rename it, or say"):
        find("resize", project)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (:\n", "{file}:1: cannot be imported: SyntaxError: invalid syntax"),
        ("x = 1\n  y = 2\n", "{file}:2: cannot be imported: IndentationError: unexpected indent"),
        ("\n\nimport nosuchlib\n", "{file}:3: cannot be imported: ModuleNotFoundError: No module named 'nosuchlib'"),
        ("def f():\n    1 / 0\nf()\n", "{file}:2: cannot be imported: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "{file}:2: cannot be imported: SystemExit: 0"),
        ("raise BaseException('x')\n", "{file}:1: cannot be imported: BaseException: x"),
        ("\0", "cannot be imported: SyntaxError: source code string cannot contain null bytes"),
        ("", "{file}: no function or class 's' or 'S' for stage 's'"),
        ("s = None\n", "{file}: no function or class"),
    ],
)
def test_modules_that_break(project: Path, stage: Find, text: str, said: str) -> None:
    """A module that cannot be imported is refused with the file and line at fault, even if it calls sys.exit."""
    with pytest.raises(StageError) as caught:
        stage(text)
    assert said.format(file=project / "stages" / "s.py") in str(caught.value)


def test_an_init_that_breaks(project: Path) -> None:
    """A stages/__init__.py that raises is refused with its file and line."""
    write(project / "stages" / "__init__.py", "\n1 / 0\n")
    with pytest.raises(StageError, match=r"__init__\.py:2: cannot be imported: ZeroDivisionError"):
        set_stage_path(project)


@pytest.mark.parametrize(
    "line", ["from . import beside", "import beside", "from .beside import value", "import at_yaml"]
)
@pytest.mark.parametrize("uses", ["s", "./stages/s.py"])
def test_helper_modules(project: Path, stage: Find, line: str, uses: str) -> None:
    """A stage imports modules that lie beside it or beside the YAML, relatively or by their names."""
    write(project / "stages" / "beside.py", "value = 1\n")
    write(project / "at_yaml.py", "value = 1\n")
    assert stage(f"{line}\ndef s(data: bytes) -> bytes: return data\n", uses)


def test_helpers_take_no_other_modules_name(project: Path, stage: Find) -> None:
    """A file beside a stage never takes the name of a module of the standard library."""
    write(project / "stages" / "colorsys.py", "1 / 0\n")
    write(project / "wave.py", "1 / 0\n")
    assert stage("import colorsys, wave\ndef s(data: bytes) -> bytes: return data\n")


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("takes", "makes", "kinds"),
    [
        ("Path", "bytes", (PATH, BYTES)), ("bytes", "str", (BYTES, TEXT)), ("str", "Path", (TEXT, PATH)),
        ("Image.Image", "Image.Image", (IMAGE, IMAGE)), ("Picture", "Image.Image", (PICTURE, IMAGE)),
        ("Item", "bytes", (None, BYTES)), ("Item[bytes]", "bytes", (BYTES, BYTES)),
        ("Item[Image.Image]", "bool", (IMAGE, None)), ("'Path'", "'bytes'", (PATH, BYTES)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("postponed", ["", "from __future__ import annotations\n"])
def test_what_it_takes_and_makes(stage: Find, takes: str, makes: str, kinds: tuple[Any, Any], postponed: str) -> None:
    """The annotations say what a stage takes and makes, written as names or as texts."""
    imports = "from pathlib import Path\nfrom PIL import Image\nfrom pipeline import Item, Picture\n"
    found = stage(f"{postponed}{imports}def s(value: {takes}, *, n: int = 1) -> {makes}: ...\n")
    assert (found.takes, found.makes) == kinds
    assert found.wants_item == takes.startswith("Item")
    assert found.is_filter == (makes == "bool")
    assert found.options["n"].annotation is int


def test_a_class_is_built_once(stage: Find) -> None:
    """A class is constructed with the options and called once per file."""
    found = stage("""
        class S:
            def __init__(self, *, by: int = 2): self.by = by
            def __call__(self, data: bytes) -> bytes: return data * self.by
    """)
    assert found.build({"by": 3})(b"x") == b"xxx"


def test_a_dataclass_is_a_stage(stage: Find) -> None:
    """A dataclass with keyword fields is a class like any other, with its factories' defaults made."""
    found = stage("""
        from __future__ import annotations
        from dataclasses import dataclass, field
        @dataclass(kw_only=True)
        class S:
            by: int = 2
            tags: list[str] = field(default_factory=list)
            def __call__(self, data: bytes) -> bytes: return data * self.by
    """)
    assert {name: each.default for name, each in found.options.items()} == {"by": 2, "tags": []}


def test_a_decorated_function_is_a_stage(stage: Find) -> None:
    """A decorator that keeps the signature keeps the stage."""
    found = stage("""
        import functools
        def loud(f):
            @functools.wraps(f)
            def inner(*args, **kwargs): return f(*args, **kwargs).upper()
            return inner
        @loud
        def s(text: str, *, n: int = 1) -> str: return text * n
    """)
    assert (found.takes, list(found.options)) == (TEXT, ["n"])
    assert found.build({"n": 2})("a") == "AA"


def test_an_inherited_call(stage: Find) -> None:
    """What runs once per file may be inherited."""
    assert (
        stage("""
        class Base:
            def __call__(self, data: bytes) -> bytes: return data
        class S(Base): ...
    """).makes
        is BYTES
    )


HEAD = """
from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
import functools
if TYPE_CHECKING:
    from decimal import Decimal
"""
LINE = HEAD.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def s(data) -> bytes: ...", "parameter 'data' has no annotation; it says what the stage takes: Path, bytes"),
        ("def s(data: bytes): ...", "no return annotation; it says what the stage makes"),
        ("s = lambda data: data", "parameter 'data' has no annotation"),
        ("def s(data: bytes) -> None: ...", "a stage cannot make None; it makes Path, bytes, str, Image.Image or bool\n"
         "  hint: leave a file out with 'raise Skip(reason)'"),
        ("def s(data: bytes) -> Optional[bytes]: ...", "hint: leave a file out with 'raise Skip(reason)'"),
        ("def s(data: bytes) -> bytes | None: ...", "hint: leave a file out with 'raise Skip(reason)'"),
        ("def s(data: bytes) -> int: ...", "a stage cannot make int"),
        ("def s(data: bytes) -> Any: ...", "a stage cannot make"),
        ("def s(data: bytes) -> Iterator[int]: ...", "a stage cannot make int"),
        ("def s(data: Iterator[bytes]) -> bytes: ...", "takes an Iterator[Item[...]], not an Iterator[bytes]"),
        ("def s(data: bytes) -> bytes:\n    yield data", "it yields, but does not say '-> Iterator[...]'"),
        ("async def s(data: bytes) -> bytes: ...", "a stage cannot be async"),
        ("def s(data: dict) -> bytes: ...", "a stage cannot take dict; it takes Path, bytes, str, Image.Image"),
        ("def s(data: Optional[bytes]) -> bytes: ...", "a stage cannot take"),
        ("def s(data: Decimal) -> bytes: ...", "the annotation 'Decimal' cannot be found when the program runs\n"
         "  hint: import it outside 'if TYPE_CHECKING:'"),
        ("def s(data: bytes, *, n: Decimal) -> bytes: ...", "the annotation 'Decimal' cannot be found"),
        ("def s(data: bytes, *, n: Path.nope) -> bytes: ...", "an annotation cannot be read: AttributeError"),
        ("def s(data: bytes, *, n=1) -> bytes: ...", "option 'n' has no annotation"),
        ("def s(data: bytes, n: int) -> bytes: ...", "exactly one parameter before the '*', the value; this one has "
         "data, n\n  hint: options from pipeline.yaml stand after a '*'"),
        ("def s() -> bytes: ...", "exactly one parameter before the '*', the value; this one has none"),
        ("def s(*data: bytes) -> bytes: ...", "this one has *data"),
        ("def s(data: bytes, *more: bytes) -> bytes: ...", "this one has data, *more"),
        ("def s(data: bytes, **options: int) -> bytes: ...", "this one has data, **options"),
        ("def s(*, data: bytes) -> bytes: ...", "this one has none"),
        ("class S: ...", "class 'S' has no __call__, which is what runs once per file"),
        ("class S:\n    def __call__(self) -> bytes: ...", "this one has none"),
        ("class S:\n    def __call__(self, a: bytes, *, b: int = 1) -> bytes: ...", "this one has a, b"),
        ("class S:\n    def __init__(self, n: int): ...\n    def __call__(self, a: bytes) -> bytes: ...",
         "option 'n' stands before the '*'; what comes from pipeline.yaml stands after it"),
        ("class S:\n    def __init__(self, *, n): ...\n    def __call__(self, a: bytes) -> bytes: ...",
         "option 'n' has no annotation"),
        ("@dataclass\nclass S:\n    n: int\n    def __call__(self, a: bytes) -> bytes: ...",
         "option 'n' stands before the '*'; what comes from pipeline.yaml stands after it\n"
         "  hint: say '@dataclass(kw_only=True)'"),
        ("class S(dict):\n    def __call__(self, a: bytes) -> bytes: ...", "stands before the '*'"),
    ],
)  # fmt: skip
def test_broken_contracts(project: Path, stage: Find, text: str, said: str) -> None:
    """Each way to break the contract is its own sentence, with the stage's file and line."""
    with pytest.raises(StageError) as caught:
        stage(HEAD + text + "\n")
    # A method has a line of its own, and so has a class below its decorator.
    places = [f"{project}/stages/s.py:{LINE + number}: " for number in range(2)]
    assert str(caught.value).startswith(tuple(places))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("s = functools.partial(print, 1)", "a partial"),
        ("class C:\n    def __call__(self, a: bytes) -> bytes: ...\ns = C()", "a C"),
    ],
)
def test_only_functions_and_classes(stage: Find, text: str, kind: str) -> None:
    """What is called but is neither a function nor a class has no name that a worker could find it by."""
    with pytest.raises(StageError, match=f"a stage is a function or a class, not {kind}"):
        stage(HEAD + text + "\n")


@pytest.mark.parametrize("raises", ["raise ValueError('too small')", "raise SystemExit('too small')"])
def test_a_constructor_that_raises(project: Path, stage: Find, raises: str) -> None:
    """A constructor that raises, were it SystemExit, is a StageError with the class's file and line."""
    found = stage(f"""
        class S:
            def __init__(self, *, n: int = 1): {raises}
            def __call__(self, data: bytes) -> bytes: ...
    """)
    with pytest.raises(StageError, match=r"s\.py:2: the constructor of 's' raised \w+: too small"):
        found.build({})


# -- the initializer ---------------------------------------------------------------------------------------------------


def test_initializer(project: Path) -> None:
    """The initializer is a function beside the YAML, or anything importable."""
    write(project / "models_here.py", "def load(path): return path\n")
    set_stage_path(project)
    assert find_function("models_here:load")("x") == "x"
    assert find_function("os.path:basename")("a/b") == "b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("models_there:lood", "models_there.py: no function 'lood'; did you mean 'load'?"),
        ("models_there:value", "models_there.py: no function 'value'"),
        ("sys:nothing", "sys: no function 'nothing'"),
        ("nosuchmodule:load", "nosuchmodule: cannot be imported: ModuleNotFoundError"),
        ("broken_models:load", "broken_models.py:1: cannot be imported: ZeroDivisionError"),
    ],
)
def test_initializer_missing(project: Path, name: str, said: str) -> None:
    """An initializer that is not there, or whose module breaks, is refused by its file."""
    write(project / "models_there.py", "value = 1\ndef load(): ...\n")
    write(project / "broken_models.py", "1 / 0\n")
    set_stage_path(project)
    with pytest.raises(StageError) as caught:
        find_function(name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "missing a required argument: 'path'"), ((1, 2), "too many positional arguments")],
)
def test_initargs_are_checked(arguments: tuple[Any, ...], said: str) -> None:
    """Arguments that the initializer does not take are refused before any worker starts."""

    def load(path: str) -> None: ...

    check_call(load, ("x",))
    check_call(dict, (1, 2, 3))
    with pytest.raises(StageError, match=f"does not take these 'initargs': {said}"):
        check_call(load, arguments)
