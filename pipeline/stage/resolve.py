"""Finds a stage by its name: the module, and the function or class in it. Every worker imports this."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import types as python_types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pipeline
from pipeline.errors import EnvironmentFailure, FilemillError, StageError
from pipeline.files.process_limits import describe_refusal, is_start_refused
from pipeline.stage.signature import Stage, read_signature, said, where_defined

BUNDLED = Path(pipeline.__file__).resolve().parent.parent / "stages"
"""The folder of the stages that come with the program."""


# A megabyte in small pieces, which is given back where an import has used up the memory that a process may have: Python
# keeps it for what else is small, such as the complaint about that import.
_SPARE_PIECES, _SPARE_PIECE_BYTES = 2500, 400
_spare: list[bytes] = []


def set_stage_path(folder: Path) -> None:
    """Put the pipeline's own `stages/` and the bundled one on `stages.__path__`, and its folder on `sys.path`.

    Call it before anything else in the parent and in every worker. The package is made here rather than imported, so
    that it does not depend on an `__init__.py` in the user's folder, on the way filemill is installed or on the
    working directory. Raises StageError where that `__init__.py` raises.
    """
    importlib.invalidate_caches()
    own = (folder / "stages").resolve()
    places = [str(place) for place in dict.fromkeys((own, BUNDLED)) if place.is_dir()]
    package = sys.modules.get("stages")
    is_other = package is None or list(getattr(package, "__path__", [])) != places
    if is_other:
        forget_stages()
    if _FolderFinder not in sys.meta_path:
        sys.meta_path.append(_FolderFinder)
    if is_other:
        _make_package("stages", places, own / "__init__.py")
    _add_to_path(folder, own)


def forget_stages() -> None:
    """Remove the modules of stages, and those beside them, from `sys.modules`: another pipeline may use their names."""
    if _FolderFinder not in sys.meta_path and "stages" not in sys.modules:  # none was ever imported here
        return
    for name in [name for name in sys.modules if _is_of_stages(name.partition(".")[0])]:
        del sys.modules[name]
    sys.path[:] = [each for each in sys.path if each not in _added]
    _added.clear()


def _is_of_stages(package: str) -> bool:
    """Return whether a top-level module holds stages, or lies in a folder put on `sys.path` for them."""
    if package == "stages" or package.startswith(_FolderFinder.PREFIX):
        return True
    module = sys.modules.get(package)
    lies = next(iter(getattr(module, "__path__", None) or ()), None) or getattr(module, "__file__", None)
    return lies is not None and os.path.dirname(lies) in _added


_added: list[str] = []
"""The folders put on `sys.path` for the pipeline that was loaded last."""


def _add_to_path(*folders: Path) -> None:
    """Put the folders on `sys.path` from which stages may import: their own, and the YAML's."""
    # At the end, so that no file there can take the name of a module that others import.
    new = [str(each) for each in folders if str(each) not in sys.path]
    sys.path.extend(new)
    _added.extend(new)


def _make_package(name: str, places: list[str], init: Path) -> None:
    spec = _package_spec(name, places, init)
    sys.modules[name] = package = importlib.util.module_from_spec(spec)
    if spec.loader is not None:
        try:
            spec.loader.exec_module(package)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            del sys.modules[name]
            raise _not_imported(error, str(init)) from error


def _package_spec(name: str, places: list[str], init: Path) -> importlib.machinery.ModuleSpec:
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=places)
    if spec is None or not init.is_file():
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = places
    return spec


class _FolderFinder:
    """Makes a package of a folder that `uses: ./folder/file.py` names; its files may import each other.

    The package's name contains the folder's, so that pickle finds the classes of options in a worker.
    """

    PREFIX = "filemill_folder_"

    @classmethod
    def package_of(cls, folder: Path) -> str:
        """Return the name of the package of a folder."""
        return cls.PREFIX + os.fsencode(folder).hex()

    @classmethod
    def find_spec(cls, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a folder's package, in which modules are then found as in any other."""
        if path is not None or not name.startswith(cls.PREFIX):
            return None
        folder = Path(os.fsdecode(bytes.fromhex(name.removeprefix(cls.PREFIX))))
        _add_to_path(folder)
        return _package_spec(name, [str(folder)], folder / "__init__.py")


def find(uses: str, folder: Path) -> Stage:
    """Find a stage by its `uses`: `resize`, `package.module:Name` or `./stages/mine.py:Name`.

    Raises StageError where there is none or where it breaks the contract.
    """
    module, name = _find_module(uses, folder)
    return read_signature(uses, _find_in_module(uses, module, name), module.__name__)


def find_function(uses: str) -> Callable[..., Any]:
    """Find the pool's initializer: `module:name`, beside the YAML or installed."""
    module_name, _, name = uses.partition(":")
    module = _import(module_name)
    found = getattr(module, name, None)
    if not callable(found):
        raise StageError(f"{_file_of(module)}: no function {name!r}{_did_you_mean(name, vars(module))}")
    return typing.cast("Callable[..., Any]", found)


def check_call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Raise StageError where a function cannot be called with these arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of those written in C have none
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise StageError(f"{where_defined(function)}: does not take these 'initargs': {error}") from None


def _find_module(uses: str, folder: Path) -> tuple[python_types.ModuleType, str]:
    place, colon, name = uses.partition(":")
    if place.endswith(".py"):
        return _import_file((folder / os.path.expanduser(place)).resolve()), name
    if colon or "." in place:
        if not all(word.isidentifier() for word in [*place.split("."), name or "_"]):
            raise StageError(f"{uses!r} names no stage; say resize, package.module:Name or ./folder/file.py:Name")
        return _import(place), name
    files = _files_of(place)
    if not files:
        raise StageError(_no_such_stage(place))
    if len(files) > 1:
        raise StageError(
            f"{files[0]} has the name of a bundled stage", hint=f"rename it, or say 'uses: ./stages/{files[0].name}'"
        )
    return _import(f"stages.{place}"), place


def _files_of(name: str) -> list[Path]:
    """Return the existing files in which a stage of this name is looked for, the pipeline's own first."""
    if not name.isidentifier() or name.startswith("_"):
        return []
    places = sys.modules["stages"].__path__
    specs = [importlib.machinery.PathFinder.find_spec(f"stages.{name}", [place]) for place in places]
    return [Path(spec.origin) for spec in specs if spec is not None and spec.has_location and spec.origin]


def _no_such_stage(name: str) -> str:
    if not name.isidentifier():
        return f"no stage {name!r}: a stage is named like a Python module, with letters, digits and '_'"
    places = [Path(place) for place in sys.modules["stages"].__path__]
    names = {path.stem for place in places for path in place.glob("[!_]*.py")}
    looked = ", ".join(f"{place}/" for place in places)
    return f"no stage {name!r}{_did_you_mean(name, names) or f' in {looked}'}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, sorted(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _import_file(file: Path) -> python_types.ModuleType:
    if not file.is_file():
        raise StageError(f"no file {str(file)!r}")
    if "." in file.stem:
        raise StageError(f"the name of {str(file)!r} has a dot too many for a module")
    return _import(f"{_FolderFinder.package_of(file.parent)}.{file.stem}")


def hold_spare_memory() -> None:
    """Hold memory for what is to be said about an import that has used up all; whoever is forked later has it, too.

    It is held to the end of the process: a stage may import more in any call.
    """
    if not _spare:
        _spare.extend([bytes(_SPARE_PIECE_BYTES) for _ in range(_SPARE_PIECES)])


def _import(module_name: str) -> python_types.ModuleType:
    hold_spare_memory()
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even call sys.exit()
        _spare.clear()
        raise _not_imported(error, module_name) from error


def _not_imported(error: BaseException, module: str) -> FilemillError:
    if is_start_refused(error):
        return EnvironmentFailure(f"{_place_of(error, module)}: {describe_refusal()}")
    return StageError(f"{_place_of(error, module)}: cannot be imported: {said(error)}")


# Whatever we put between an import statement and the import system lies here too.
_OURS = os.path.dirname(__file__)


def _place_of(error: BaseException, module: str) -> str:
    """Return the file and line at fault: the syntax error's, or the deepest frame's outside the import system."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}"
    place, trace = module, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "importlib" not in code.co_filename and os.path.dirname(code.co_filename) != _OURS:
            place = f"{code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _file_of(module: python_types.ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _find_in_module(uses: str, module: python_types.ModuleType, name: str) -> Callable[..., Any]:
    """Return the function or class of a name; for `resize`, `resize` or `Resize`, as modules and classes are named."""
    stem = module.__name__.rpartition(".")[2]
    wanted = [name] if name and name != stem else [stem, "".join(word.capitalize() for word in stem.split("_"))]
    for each in wanted:
        found = getattr(module, each, None)
        if callable(found):
            return typing.cast("Callable[..., Any]", found)
    asks = _did_you_mean(wanted[0], [key for key, each in vars(module).items() if callable(each)])
    raise StageError(
        f"{_file_of(module)}: no function or class {' or '.join(map(repr, wanted))} for stage {uses!r}{asks}"
    )
