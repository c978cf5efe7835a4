"""Reads the signature of a function or class as a stage: the types it takes and makes, and its options."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any

from pipeline.errors import StageError
from pipeline.records import dataclass
from pipeline.stage.values import PICTURE, Kind, kind_of
from pipeline.types import FitBox, Item, Part

# How an author says that there are many.
_ITERATORS = (Iterator, Iterable, Generator)
# What a stage may take or make, for the messages.
_CHOICES = "Path, bytes, str, Image.Image"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The types that a stage takes and makes, as plain data without the stage's code."""

    uses: str
    where: str
    """The file and line of the stage, for messages."""
    module: str
    """The module in which the stage was found."""
    takes: Kind | None
    """The kind of the input; None for a bare Item, which takes the kind that the stage before makes."""
    wants_item: bool
    makes: Kind | None
    """The kind of the result, or of each part of a fan-out; None for a filter, which passes its input on."""
    gathers: bool = False
    """True if the stage is called once for a group of files, with an iterator of Items."""
    fans_out: bool = False
    """True if the stage makes an iterator of parts."""

    @property
    def is_filter(self) -> bool:
        """True if the stage returns a bool that decides whether a file goes on."""
        return self.makes is None


@dataclass(frozen=True, kw_only=True)
class Stage(Contract):
    """An imported function or class, with its signature as a stage."""

    target: Callable[..., Any]
    """The function, or the class whose instances are called."""
    options: dict[str, inspect.Parameter]
    """The keyword-only parameters, annotations resolved."""

    @property
    def contract(self) -> Contract:
        """The contract of the stage, without its code."""
        return Contract(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Contract)})

    def check(self, options: dict[str, Any]) -> None:
        """Check that options fit together, by the `check` of the stage if it has one.

        Raises ValueError with what is wrong, and StageError where it raises anything else.
        """
        self._ask("check", options)

    def check_output(self, suffix: str, options: dict[str, Any]) -> dict[str, Any]:
        """Check the suffix of an output, by the `check_output` of the stage if it has one; return the options.

        They include those that follow from the suffix, which is empty where it is the source's own. Raises the errors
        of `check`, and StageError if what is returned are no options of the stage.
        """
        more = self._ask("check_output", options, suffix) or {}
        if not isinstance(more, dict) or not more.keys() <= self.options.keys():
            raise StageError(
                f"{self.where}: the check_output of {self.uses!r} gave {more!r}, not a dict of its options"
            )
        return {**options, **more}

    def _ask(self, name: str, options: dict[str, Any], *given: str) -> Any:
        asked = getattr(self.target, name, None)
        try:
            return asked(*given, **options) if asked else None
        except ValueError:
            raise
        except Exception as error:
            raise StageError(f"{self.where}: the {name} of {self.uses!r} raised {said(error)}") from error

    def fit_box(self, options: dict[str, Any]) -> FitBox | None:
        """Return the box into which the stage fits pictures, by its `fit_box`; None if it has none or fits none.

        Raises StageError where `fit_box` raises, or returns anything else.
        """
        fit_box = getattr(self.target, "fit_box", None)
        if not fit_box or self.takes is not PICTURE:
            return None
        try:
            box = fit_box(**options)
        except Exception as error:
            raise StageError(f"{self.where}: the fit_box of {self.uses!r} raised {said(error)}") from error
        if box is not None and not (isinstance(box, FitBox) and (box.width or box.height)):
            raise StageError(f"{self.where}: the fit_box of {self.uses!r} gave {box!r}, not a FitBox with a side")
        return box

    def build(self, options: dict[str, Any]) -> Callable[[Any], Any]:
        """Return the callable that is called once per file; a class is constructed here, once per worker.

        Raises StageError where the constructor does.
        """
        if not inspect.isclass(self.target):
            return partial(self.target, **options) if options else self.target
        try:
            return typing.cast("Callable[[Any], Any]", self.target(**options))
        except (Exception, SystemExit) as error:
            raise StageError(f"{self.where}: the constructor of {self.uses!r} raised {said(error)}") from error


def said(error: BaseException) -> str:
    """Return an exception's class and text in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}"


def read_signature(uses: str, target: Callable[..., Any], module: str) -> Stage:
    """Read a function or class as a stage. Raises StageError where it breaks the contract."""
    where = where_defined(target)
    if inspect.isclass(target):
        if "__call__" not in dir(target):
            raise StageError(f"{where}: class {target.__name__!r} has no __call__, which is what runs once per file")
        call, options = target.__call__, _class_options(where, target)
        positional = _parameters(call)[1:]
    elif inspect.isfunction(inspect.unwrap(target)):
        call, options = target, keyword_options(where, target)
        positional = [each for each in _parameters(target) if each.kind is not each.KEYWORD_ONLY]
    else:
        raise StageError(f"{where}: a stage is a function or a class, not {_a(type(target).__name__)}")
    hints = _hints(where, call)
    takes, wants_item, gathers = _takes(where, positional, hints)
    makes, fans_out = _makes(where, hints)
    _refuse_async(where, call, fans_out)
    return Stage(
        uses=uses,
        where=where,
        module=module,
        takes=takes,
        wants_item=wants_item,
        makes=makes,
        gathers=gathers,
        fans_out=fans_out,
        target=target,
        options=options,
    )


def _a(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"


def _refuse_async(where: str, call: Callable[..., Any], fans_out: bool) -> None:
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise StageError(f"{where}: a stage cannot be async; say 'def' and return the value")
    if inspect.isgeneratorfunction(call) and not fans_out:
        raise StageError(f"{where}: it yields, but does not say '-> Iterator[...]'")


def _class_options(where: str, target: type) -> dict[str, inspect.Parameter]:
    """Return the constructor's options, with the defaults that a dataclass would make for each instance."""
    constructor = target.__init__  # type: ignore[misc]
    fields = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
    hint = "say '@dataclass(kw_only=True)'" if fields else ""
    options = _options(where, _parameters(constructor)[1:], constructor, hint)
    for field in fields:
        if field.name in options and field.default_factory is not dataclasses.MISSING:
            options[field.name] = options[field.name].replace(default=field.default_factory())
    return options


def keyword_options(where: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a function, annotations resolved. Raises StageError for one without."""
    return _options(where, [p for p in _parameters(function) if p.kind is p.KEYWORD_ONLY], function)


def where_defined(target: Callable[..., Any]) -> str:
    """Return the file and line where a function or class is written."""
    try:
        file = inspect.getsourcefile(target) or "?"
        # Each worker asks, and a function knows its line, while that of a class is sought in its source.
        code = getattr(inspect.unwrap(target), "__code__", None)
        return f"{file}:{code.co_firstlineno if code else inspect.getsourcelines(target)[1]}"
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
    where: str, parameters: list[inspect.Parameter], function: Callable[..., Any], hint: str = ""
) -> dict[str, inspect.Parameter]:
    hints = _hints(where, function)
    for each in parameters:
        if each.kind is not each.KEYWORD_ONLY:
            raise StageError(
                f"{where}: option {each.name!r} stands before the '*'; what comes from pipeline.yaml stands after it",
                hint=hint,
            )
        if each.name not in hints:
            raise StageError(f"{where}: option {each.name!r} has no annotation")
    return {each.name: each.replace(annotation=hints[each.name]) for each in parameters}


def _takes(where: str, positional: list[inspect.Parameter], hints: dict[str, Any]) -> tuple[Kind | None, bool, bool]:
    """Return the kind that a stage takes, whether it comes in an Item, and whether the stage takes many."""
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
    if each := _element(annotation):
        annotation = each[0]
        if annotation is not Item and typing.get_origin(annotation) is not Item:
            named = _named(annotation)
            raise StageError(f"{where}: a stage that gathers takes an Iterator[Item[...]], not an Iterator[{named}]")
    wants_item = annotation is Item or typing.get_origin(annotation) is Item
    if annotation is Item:
        return None, True, bool(each)
    inner = typing.get_args(annotation)[0] if wants_item else annotation
    kind = kind_of(inner)
    if kind is None:
        raise StageError(f"{where}: a stage cannot take {_named(inner)}; it takes {_CHOICES}, Picture or Item")
    return kind, wants_item, bool(each)


def _element(annotation: Any) -> tuple[Any, ...]:
    """Return a tuple that begins with the element type of an iterator's annotation; empty for any other annotation."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in _ITERATORS else ()


def _makes(where: str, hints: dict[str, Any]) -> tuple[Kind | None, bool]:
    """Return the kind that a stage makes, and whether in parts."""
    if "return" not in hints:
        raise StageError(f"{where}: no return annotation; it says what the stage makes: {_CHOICES} or bool")
    annotation = hints["return"]
    if annotation is bool:
        return None, False
    parts = _element(annotation)
    if parts:
        annotation = typing.get_args(parts[0])[0] if typing.get_origin(parts[0]) is Part else parts[0]
    kind = kind_of(annotation)
    if kind is not None and kind.name != "Picture":
        return kind, bool(parts)
    or_none = annotation is type(None) or type(None) in typing.get_args(annotation)
    hint = "leave a file out with 'raise Skip(reason)'" if or_none else ""
    raise StageError(f"{where}: a stage cannot make {_named(annotation)}; it makes {_CHOICES} or bool", hint=hint)


def _named(annotation: Any) -> str:
    if annotation is type(None):
        return "None"
    return annotation.__qualname__ if inspect.isclass(annotation) else str(annotation)
