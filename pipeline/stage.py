"""A name -> a stage: find it, read its signature, build it. Every worker imports this, so it stays light."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import types as python_types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipeline
from pipeline.errors import StageError
from pipeline.types import Item
from pipeline.values import Kind, kind_of

_BUNDLED = Path(pipeline.__file__).resolve().parent.parent / "stages"
# What a stage may take or make, for the messages.
_CHOICES = "Path, bytes, str, Image.Image"


@dataclass(frozen=True)
class Stage:
    """What a function or class says of itself: what it takes, what it makes, and which options it knows."""

    uses: str
    target: Callable[..., Any]
    """The function, or the class whose instances are called."""
    where: str
    """Its file and line, for messages."""
    takes: Kind | None
    """None for a bare Item, which takes what the stage before makes."""
    wants_item: bool
    makes: Kind | None
    """None for a filter, after which the value before it goes on."""
    options: dict[str, inspect.Parameter]
    """Its keyword-only parameters, annotations resolved."""

    @property
    def is_filter(self) -> bool:
        """Whether it says by True or False if a file goes on."""
        return self.makes is None

    def build(self, options: dict[str, Any]) -> Callable[[Any], Any]:
        """Make what is called once per file; a class is constructed here, once per worker.

        Raises StageError where the constructor does.
        """
        if not inspect.isclass(self.target):
            return lambda value: self.target(value, **options)
        try:
            return typing.cast("Callable[[Any], Any]", self.target(**options))
        except Exception as error:
            raise StageError(
                f"{self.where}: the constructor of {self.uses!r} raised {type(error).__name__}: {error}"
            ) from error


# -- finding -----------------------------------------------------------------------------------------------------------


def set_stage_path(folder: Path) -> None:
    """Put the pipeline's own `stages/` and the bundled one on `stages.__path__`, and its folder on `sys.path`.

    Called before anything else in the parent and in every worker. The package is made here rather than imported,
    so that it is the same with or without an `__init__.py` in the user's folder, however we are installed and
    whatever the working directory.
    """
    own = folder / "stages"
    places = [str(place) for place in dict.fromkeys((own.resolve(), _BUNDLED)) if place.is_dir()]
    package = sys.modules.get("stages")
    if package is None or list(getattr(package, "__path__", [])) != places:
        for name in [name for name in sys.modules if name == "stages" or name.startswith("stages.")]:
            del sys.modules[name]
        _make_package("stages", places, own / "__init__.py")
    # At the end, so that no file beside the YAML can take the name of a module that others import.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _make_package(name: str, places: list[str], init: Path) -> None:
    if init.is_file():
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=places)
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        spec.loader.exec_module(package)
        return
    package = python_types.ModuleType(name)
    package.__path__ = places
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = places
    package.__spec__ = spec
    sys.modules[name] = package


def find(uses: str, folder: Path) -> Stage:
    """Find a stage by what the YAML says: `resize`, `package.module:Name` or `./stages/mine.py:Name`.

    Raises StageError where there is none or where it breaks the contract.
    """
    module, name = _find_module(uses, folder)
    return read_signature(uses, _find_in_module(uses, module, name))


def find_function(uses: str) -> Callable[..., Any]:
    """Find the pool's initializer: `module:name`, beside the YAML or installed."""
    module_name, _, name = uses.partition(":")
    module = _import(uses, module_name)
    found = getattr(module, name, None)
    if not name or not callable(found):
        raise StageError(f"{module.__file__ or module_name}: no function {name!r}")
    return typing.cast("Callable[..., Any]", found)


def _find_module(uses: str, folder: Path) -> tuple[python_types.ModuleType, str]:
    place, _, name = uses.partition(":")
    if place.endswith(".py"):
        return _import_file(uses, (folder / place).resolve()), name
    if name or "." in place:
        return _import(uses, place), name
    _refuse_shadow(place)
    if importlib.util.find_spec(f"stages.{place}") is None:
        raise StageError(_no_such_stage(place))
    return _import(uses, f"stages.{place}"), place


def _refuse_shadow(name: str) -> None:
    found = [place for place in _stage_places() if (place / f"{name}.py").is_file()]
    if len(found) > 1 and found[-1] == _BUNDLED:
        raise StageError(
            f"{found[0] / name}.py has the name of a bundled stage",
            hint=f"rename it, or say 'uses: ./stages/{name}.py'",
        )


def _no_such_stage(name: str) -> str:
    import difflib

    names = sorted({path.stem for place in _stage_places() for path in place.glob("[!_]*.py")})
    close = difflib.get_close_matches(name, names, 1)
    looked = ", ".join(f"{place}/" for place in _stage_places())
    return f"no stage {name!r}; did you mean {close[0]!r}?" if close else f"no stage {name!r} in {looked}"


def _stage_places() -> Iterator[Path]:
    return map(Path, sys.modules["stages"].__path__)


def _import_file(uses: str, file: Path) -> python_types.ModuleType:
    """Import a file as a module of a package made for its folder, so that it may import what lies beside it."""
    if not file.is_file():
        raise StageError(f"no file {str(file)!r}")
    package = "stages_in_" + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in str(file.parent))
    if package not in sys.modules:
        _make_package(package, [str(file.parent)], file.parent / "__init__.py")
    return _import(uses, f"{package}.{file.stem}")


def _import(uses: str, module_name: str) -> python_types.ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        raise StageError(f"{_place_of(error, module_name)}: cannot be imported: {_said(error)}") from error


def _said(error: Exception) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}"


def _place_of(error: Exception, module_name: str) -> str:
    """The file and line at fault: of the syntax error, or of the deepest frame that is not the import system's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place, trace = module_name, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "importlib" not in code.co_filename and code.co_filename != __file__:
            place = f"{code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _find_in_module(uses: str, module: python_types.ModuleType, name: str) -> Callable[..., Any]:
    """The function or class of that name; for `resize`, `resize` or `Resize`, as modules and classes are named."""
    stem = module.__name__.rpartition(".")[2]
    wanted = [name] if name and name != stem else [stem, "".join(word.capitalize() for word in stem.split("_"))]
    for each in wanted:
        found = getattr(module, each, None)
        if callable(found):
            return typing.cast("Callable[..., Any]", found)
    raise StageError(f"{module.__file__}: no function or class {' or '.join(map(repr, wanted))} for stage {uses!r}")


# -- reading the signature ---------------------------------------------------------------------------------------------


def read_signature(uses: str, target: Callable[..., Any]) -> Stage:
    """Read what a function or class takes, makes and knows. Raises StageError where it breaks the contract."""
    where = place(target)
    if inspect.isclass(target):
        if "__call__" not in dir(target):
            raise StageError(f"{where}: class {target.__name__!r} has no __call__, which is what runs once per file")
        call, options = target.__call__, _options(where, _parameters(target.__init__)[1:], target.__init__)
        positional = _parameters(call)[1:]
    else:
        call = target
        positional = [p for p in _parameters(target) if p.kind is not p.KEYWORD_ONLY]
        options = keyword_options(where, target)
    hints = _hints(where, call)
    takes, wants_item = _takes(where, positional, hints)
    return Stage(uses, target, where, takes, wants_item, _makes(where, hints), options)


def keyword_options(where: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, annotations resolved. Raises StageError for one without."""
    return _options(where, [p for p in _parameters(function) if p.kind is p.KEYWORD_ONLY], function)


def place(target: Callable[..., Any]) -> str:
    """The file and line where a function or class is written."""
    try:
        file = inspect.getsourcefile(target) or "?"
        return f"{file}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', target)}"


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    if function is object.__init__:
        return [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    return list(inspect.signature(function).parameters.values())


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    if function is object.__init__:
        return {}
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise StageError(
            f"{where}: the annotation {error.name!r} cannot be found when the program runs",
            hint="import it outside 'if TYPE_CHECKING:'",
        ) from None
    except Exception as error:
        raise StageError(f"{where}: an annotation cannot be read: {type(error).__name__}: {error}") from error


def _options(
    where: str, parameters: list[inspect.Parameter], function: Callable[..., Any]
) -> dict[str, inspect.Parameter]:
    hints = _hints(where, function)
    for each in parameters:
        if each.kind is not each.KEYWORD_ONLY:
            raise StageError(
                f"{where}: option {each.name!r} stands before the '*'; what comes from pipeline.yaml stands after it"
            )
        if each.name not in hints:
            raise StageError(f"{where}: option {each.name!r} has no annotation")
    return {each.name: each.replace(annotation=hints[each.name]) for each in parameters}


def _takes(where: str, positional: list[inspect.Parameter], hints: dict[str, Any]) -> tuple[Kind | None, bool]:
    if len(positional) != 1 or positional[0].kind in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    ):
        names = ", ".join(str(each).partition(":")[0] for each in positional) or "none"
        raise StageError(
            f"{where}: a stage has exactly one parameter before the '*', the value; this one has {names}",
            hint="options from pipeline.yaml stand after a '*'",
        )
    name = positional[0].name
    if name not in hints:
        raise StageError(f"{where}: parameter {name!r} has no annotation; it says what the stage takes: {_CHOICES}")
    annotation = hints[name]
    wants_item = annotation is Item or typing.get_origin(annotation) is Item
    if annotation is Item:
        return None, True
    inner = typing.get_args(annotation)[0] if wants_item else annotation
    kind = kind_of(inner)
    if kind is None:
        raise StageError(f"{where}: a stage cannot take {_named(inner)}; it takes {_CHOICES}, Picture or Item")
    return kind, wants_item


def _makes(where: str, hints: dict[str, Any]) -> Kind | None:
    if "return" not in hints:
        raise StageError(f"{where}: no return annotation; it says what the stage makes: {_CHOICES} or bool")
    annotation = hints["return"]
    if annotation is bool:
        return None
    kind = kind_of(annotation)
    if kind is not None and kind.name != "Picture":
        return kind
    if typing.get_origin(annotation) is not None and "Iterator" in _named(annotation):
        raise StageError(f"{where}: fan-out (-> {_named(annotation)}) is not supported yet")
    hint = "leave a file out with 'raise Skip(reason)'" if "None" in _named(annotation) else ""
    raise StageError(f"{where}: a stage cannot make {_named(annotation)}; it makes {_CHOICES} or bool", hint=hint)


def _named(annotation: Any) -> str:
    if annotation is type(None):
        return "None"
    return annotation.__qualname__ if inspect.isclass(annotation) else str(annotation)
