"""Checks values of plain types as pydantic does in strict mode, so that most pipelines are read without it.

To import pydantic takes longer than to read a pipeline. What is not plainly right is left to it: it alone judges what
is wrong, and which types there are.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

Parse = Callable[[Any], Any]
"""Returns what an annotation makes of a value that JSON can hold. Raises NotPlain."""

# Not all integers above it are floats.
_EXACT = 2**53


class NotPlain(Exception):
    """A type or a value that is for pydantic to judge."""


class PlainType:
    """The base of a class that may be an annotation, or of its metadata, with a parser of its own."""

    plain_parser: Callable[[], Parse]
    """Returns the parser of its values, a method of the class or of an object that is metadata."""


def parser_of(annotation: Any) -> Parse:
    """Return the function that checks values of an annotation. Raises NotPlain."""
    if isinstance(annotation, type) and PlainType in annotation.__mro__:
        return annotation.plain_parser()  # type: ignore[attr-defined, no-any-return]
    for kind, parse in _PARSERS:
        if annotation is kind:
            return parse
    make = _MAKERS.get(get_origin(annotation))
    return make(*get_args(annotation)) if make else _refuse()


def plain_text(pattern: str, make: Callable[[str], Any] = str) -> Parse:
    """Return a parser of texts that match a pattern; what a letter is, Python and pydantic may not agree on."""
    is_of_letters = "\\w" in pattern

    def parse(value: Any) -> Any:
        text = _text(value)
        is_right = re.fullmatch(pattern, text) and (text.isascii() or not is_of_letters)
        try:
            return make(text) if is_right else _refuse()
        except (ValueError, OverflowError):  # more than any number
            raise NotPlain from None

    return parse


def plain_number(least: int) -> Parse:
    """Return a parser of whole numbers with a lower bound."""
    return lambda value: value if type(value) is int and value >= least else _refuse()


def plain_mapping(make: Callable[..., Any], fields: dict[str, tuple[str, Any]], needed: set[str]) -> Parse:
    """Return a parser of mappings of which an object is made.

    Args:
        make: The class of the object.
        fields: The name of each field and its annotation, by the word for it.
        needed: The words that must be there.
    """

    def parse(value: Any) -> Any:
        if type(value) is not dict or not needed <= value.keys() <= fields.keys():
            raise NotPlain
        return make(**{fields[word][0]: parser_of(fields[word][1])(each) for word, each in value.items()})

    return parse


def is_plain(annotation: Any, default: Any) -> bool:
    """Return whether a type and the default of an option are plain."""
    try:
        parser_of(annotation)
        _data(list(default) if type(default) is tuple else default)
    except NotPlain:
        return False
    return True


def _refuse() -> Any:
    raise NotPlain


def _only(kind: type) -> Parse:
    return lambda value: value if type(value) is kind else _refuse()


def _text(value: Any) -> str:
    """Return a text that JSON can hold: halves of surrogate pairs it cannot."""
    if type(value) is not str:
        raise NotPlain
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotPlain from None
    return value


def _number(value: Any) -> Any:
    is_exact = math.isfinite(value) if type(value) is float else type(value) is int and abs(value) < _EXACT
    return value if is_exact else _refuse()


def _data(value: Any) -> Any:
    """Check what may be of any type."""
    if type(value) is dict:
        return {_text(key): _data(each) for key, each in value.items()}
    if type(value) is list:
        return [_data(each) for each in value]
    if type(value) is str:
        return _text(value)
    return value if value is None or type(value) is bool else _number(value)


_PARSERS: tuple[tuple[Any, Parse], ...] = (
    (Any, _data), (NoneType, _only(NoneType)), (bool, _only(bool)), (int, _only(int)), (str, _text),
    (float, lambda value: float(_number(value))), (Path, lambda value: Path(_text(value))),
)  # fmt: skip


def _choice(*words: Any) -> Parse:
    if any(type(each) is not str for each in words):
        raise NotPlain
    return lambda value: value if type(value) is str and value in words else _refuse()


def _sequence(kind: Callable[[Any], Any], entry: Any) -> Parse:
    parse = parser_of(entry)

    def parse_all(value: Any) -> Any:
        if type(value) is not list:
            raise NotPlain
        try:
            return kind(map(parse, value))
        except TypeError:  # a set of what cannot be in one
            raise NotPlain from None

    return parse_all


def _tuple(entry: Any = None, *more: Any) -> Parse:
    return _sequence(tuple, entry) if more == (...,) else _refuse()


def _mapping(key: Any, entry: Any) -> Parse:
    parse = parser_of(entry) if key is str else _refuse()
    return lambda value: {_text(key): parse(each) for key, each in value.items()} if type(value) is dict else _refuse()


def _union(*kinds: Any) -> Parse:
    """Return a parser of what one of the types takes; of what several do, pydantic says which.

    A text is a text where it might be a path, too, if that comes after it: the first of both decides.
    """
    texts = [each for each in kinds if each in (str, Path)]
    parsers = [parser_of(each) for each in kinds if not (each is Path and texts[0] is str)]

    def parse(value: Any) -> Any:
        found = []
        for each in parsers:
            try:
                found.append(each(value))
            except NotPlain:
                continue
        return found[0] if len(found) == 1 else _refuse()

    return parse


def _annotated(kind: Any, *metadata: Any) -> Parse:
    if len(metadata) == 1 and PlainType in type(metadata[0]).__mro__:
        return metadata[0].plain_parser()  # type: ignore[no-any-return]
    parse, conditions = parser_of(kind), [_condition(kind, each) for each in metadata]

    def parse_right(value: Any) -> Any:
        parsed = parse(value)
        try:
            return parsed if all(each(parsed) for each in conditions) else _refuse()
        except Exception:  # of a function of whoever
            raise NotPlain from None

    return parse_right


_MAKERS: dict[Any, Callable[..., Parse]] = {
    Annotated: _annotated, Literal: _choice, Union: _union, UnionType: _union, tuple: _tuple, dict: _mapping,
    list: lambda entry: _sequence(list, entry), frozenset: lambda entry: _sequence(frozenset, entry),
}  # fmt: skip


def _condition(kind: Any, given: Any) -> Callable[[Any], bool]:
    """Return what one of annotated_types' conditions asks of values of a type, as a function."""
    types = sys.modules.get("annotated_types")  # else nobody can have given one
    bounds = (("Ge", "ge"), ("Gt", "gt"), ("Le", "le"), ("Lt", "lt")) if kind in (int, float) else ()
    for name, word in bounds:
        if type(given) is getattr(types, name, None) and type(getattr(given, word)) in (int, kind):
            return partial(_compares, getattr(operator, word), getattr(given, word))
    is_least = type(given) is getattr(types, "MinLen", None) and given.min_length >= 0
    if is_least and get_origin(kind) in (list, tuple, frozenset):
        return partial(_has_entries, given.min_length)
    if type(given) is getattr(types, "Predicate", None) and kind is str:
        return lambda value: bool(given.func(value))
    raise NotPlain


def _compares(compare: Callable[[Any, Any], bool], limit: float, value: Any) -> bool:
    return compare(value, limit)


def _has_entries(least: int, value: Any) -> bool:
    return len(value) >= least
