"""`dataclass` and `NamedTuple`, as the standard library has them, but quicker where a class is defined.

The standard library compiles six functions for each frozen dataclass as it is defined; here that is done when the class
is first used. It takes half a millisecond, which for all classes of a run is more than reading the ledger, and a run in
which most of them are not used pays it too. Of a NamedTuple it compiles the annotation of each field, to see that it is
one, which takes twice as long as all the rest.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any


def _dataclass(given: type | None = None, /, *, frozen: bool = False, eq: bool = True, kw_only: bool = False) -> Any:
    """Make a class a dataclass; the arguments are three of those of `dataclasses.dataclass`."""

    def decorate(cls: Any) -> Any:
        own = set(vars(cls))
        cls = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
        methods: dict[str, Any] = {"__init__": _first_init(cls, frozen), "__repr__": _repr}
        if eq:
            methods |= {"__eq__": _eq_of(cls), "__hash__": _hash_of(cls) if frozen else None}
        if frozen:
            methods |= {"__setattr__": _refusal_of(cls, "assign to"), "__delattr__": _refusal_of(cls, "delete")}
        for name, method in methods.items():
            if name not in own:
                setattr(cls, name, method)
        return cls

    return decorate if given is None else decorate(given)


def _first_init(cls: Any, frozen: bool) -> Callable[..., None]:
    """Return an `__init__` that puts the real one in its place when it is called."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            cls.__init__ = _compile_init(cls, frozen)
        except MemoryError:  # as after the import of a module that has used up what this process may have
            _set_fields(cls, self, args, kwargs)
        else:
            cls.__init__(self, *args, **kwargs)

    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    return __init__


def _set_fields(cls: Any, made: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
    """Set the fields of a new object one by one, which takes next to no memory."""
    fields = dataclasses.fields(cls)
    given |= dict(zip([each.name for each in fields if each.init and not each.kw_only], args, strict=False))
    for field in fields:
        if field.name in given:
            object.__setattr__(made, field.name, given[field.name])
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(made, field.name, field.default_factory())
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(made, field.name, field.default)
    if hasattr(cls, "__post_init__"):
        made.__post_init__()


def _compile_init(cls: Any, frozen: bool) -> Any:
    """Compile the `__init__` that the standard library would have compiled."""
    missing = dataclasses.MISSING
    known: dict[str, Any] = {"set_": object.__setattr__, "missing_": missing}
    ordinary: list[str] = []
    keywords: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(cls):
        name, value = field.name, field.name
        said = name
        if field.default_factory is not missing:
            known[f"make_{name}_"] = field.default_factory
            said, value = f"{name}=missing_", f"make_{name}_() if {name} is missing_ else {name}"
        elif field.default is not missing:
            known[f"default_{name}_"] = field.default
            said = f"{name}=default_{name}_"
        if field.init:
            (keywords if field.kw_only else ordinary).append(said)
        elif field.default_factory is not missing:
            value = f"make_{name}_()"
        else:
            continue
        body.append(f"set_(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *ordinary, *(["*", *keywords] if keywords else [])])
    exec(f"def __init__({parameters}):\n  " + "\n  ".join(body or ["pass"]), known)
    made = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _repr(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in dataclasses.fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


@cache
def _values_of(cls: Any) -> Callable[[Any], Any]:
    """Return the function that gives all by which two objects of a class are compared."""
    names = [each.name for each in dataclasses.fields(cls) if each.compare]
    return attrgetter(*names) if names else lambda self: ()


def _eq_of(cls: Any) -> Callable[[Any, object], bool]:
    def __eq__(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        values = _values_of(cls)
        return bool(values(self) == values(other))

    return __eq__


def _hash_of(cls: Any) -> Callable[[Any], int]:
    return lambda self: hash(_values_of(cls)(self))


def _refusal_of(cls: Any, what: str) -> Callable[..., None]:
    """Return the method that refuses to change a field, or anything else of an object of this very class."""
    go_on = "__setattr__" if what == "assign to" else "__delattr__"

    def refuse(self: Any, name: str, *value: Any) -> None:
        if type(self) is cls or name in cls.__dataclass_fields__:
            raise dataclasses.FrozenInstanceError(f"cannot {what} field {name!r}")
        getattr(super(cls, self), go_on)(name, *value)

    return refuse


class _TupleMaker(type):
    """Makes a named tuple of the body of a class."""

    def __new__(cls, name: str, bases: tuple[Any, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        fields, more = body["__annotations__"], dict(body)
        defaults = [more.pop(each) for each in fields if each in more]
        made: Any = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # type: ignore[misc]
        for key, value in more.items():
            setattr(made, key, value)
        return made


class _NamedTuple(metaclass=_TupleMaker):
    """The base in the body of such a class; no base of what is made of it."""


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from typing import NamedTuple as NamedTuple
else:
    dataclass = _dataclass
    NamedTuple = _NamedTuple
