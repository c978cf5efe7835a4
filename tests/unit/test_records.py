"""`pipeline.records` has `dataclass` and `NamedTuple` as the standard library has them, but quicker to define."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from dataclasses import field
from functools import cached_property
from typing import Any, NamedTuple

import pytest
from support.program import ROOT

from pipeline import records

KINDS = [
    {},
    {"frozen": True},
    {"frozen": True, "eq": False},
    {"frozen": True, "kw_only": True},
    {"kw_only": True},
]


def family(decorate: Any, kind: dict[str, bool]) -> tuple[type, type]:
    """Two classes, the second below the first."""

    @decorate(**kind)
    class Base:
        """A class with a field of every sort."""

        plain: int
        default: str = "x"
        made: list[int] = field(default_factory=list)
        hidden: int = field(default=1, repr=False, compare=False)
        of_its_own: int = field(default=5, init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "after", self.plain)

        @cached_property
        def kept(self) -> int:
            return self.plain + 1

    @decorate(**kind)
    class Below(Base):
        """A class with more fields, of which the last must be named."""

        more: tuple[int, ...] = ()
        named: int = field(default=7, kw_only=True)

    return Base, Below


def what_happens(call: Any) -> Any:
    """What a call returns, or the kind and the text of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error), re.sub(r"\S*<locals>\.", "", str(error))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((), {"plain": 1}), ((), {"plain": 1, "default": "y", "made": [2], "hidden": 3}), ((1, "y"), {}), ((), {}),
        ((), {"plain": 1, "nobody": 2}), ((), {"plain": 1, "of_its_own": 2}), ((1, "y", [3], 4, 5, 6, 7), {}),
        ((), {"plain": 1, "more": (2,), "named": 3}),
    ],
)  # fmt: skip
def test_it_does_what_the_standard_one_does(
    kind: dict[str, bool], which: int, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """For every sort of field: what is made, compared, shown, replaced, copied, and refused."""
    seen = []
    for decorate in (dataclasses.dataclass, records.dataclass):
        made = family(decorate, kind)[which]
        one, other = (
            what_happens(lambda made=made: made(*given, **named)),
            what_happens(lambda m=made: m(*given, **named)),
        )
        if isinstance(one, tuple):
            seen.append([one])
            continue
        changed = dataclasses.replace(one, hidden=9, plain=one.plain)
        further = dataclasses.replace(one, plain=8)
        seen.append(
            [
                vars(one) | {"kept": one.kept}, re.sub(r"\S*<locals>\.", "", repr(one)), one == other, one == changed,
                one == further, one != 1, one == one, dataclasses.asdict(further), vars(copy.copy(one)) == vars(one),
                what_happens(lambda o=one, c=changed: isinstance(hash(o), int) and (hash(o) == hash(c))),
                what_happens(lambda o=one: setattr(o, "plain", 3)), what_happens(lambda o=one: delattr(o, "default")),
                what_happens(lambda o=one: setattr(o, "strange", 3)), one.plain, made.__match_args__,
                [each.name for each in dataclasses.fields(one)],
            ]
        )  # fmt: skip
    assert seen[0] == seen[1]


@records.dataclass(frozen=True)
class Kept:
    """One that can be found by its name."""

    number: int
    parts: tuple[str, ...] = ()


class KeptBelow(Kept):
    """One that is no dataclass itself, and may have more than fields."""


def test_it_can_be_pickled_before_one_was_made() -> None:
    """What another process has sent is unpacked without a call of `__init__`."""
    packed = pickle.dumps(Kept(1, ("a",)))
    assert pickle.loads(packed) == Kept(1, ("a",))
    assert hash(pickle.loads(packed)) == hash(Kept(1, ("a",)))


def test_a_class_below_has_its_own_attributes() -> None:
    """Its fields are frozen, as those of the standard library's are."""
    below = KeptBelow(1)
    below.strange = 2  # type: ignore[attr-defined]
    assert below.strange == 2  # type: ignore[attr-defined]
    assert (below == Kept(1), type(below)) == (False, KeptBelow)
    with pytest.raises(dataclasses.FrozenInstanceError, match="'number'"):
        below.number = 2  # type: ignore[misc]


def test_all_of_ours_are_made_by_it() -> None:
    """But for those that stages see, whose signatures a notebook may show."""
    standard = re.compile(r"^from dataclasses import .*\bdataclass\b", re.M)
    found = {file.name for file in (ROOT / "pipeline").rglob("*.py") if standard.search(file.read_text())}
    assert found - {"records.py"} <= {"types.py"}


class Made(records.NamedTuple):
    """A tuple with a field of every sort, and more than fields."""

    plain: int
    given: str = "x"
    several: tuple[int, ...] = (1,)
    LIMIT = 5

    @property
    def twice(self) -> int:
        """Twice the first."""
        return 2 * self.plain

    @classmethod
    def of(cls, plain: int) -> Made:
        """Make one."""
        return cls(plain)


class Standard(NamedTuple):
    """A tuple with a field of every sort, and more than fields."""

    plain: int
    given: str = "x"
    several: tuple[int, ...] = (1,)


def test_a_named_tuple_is_as_that_of_typing() -> None:
    """It is told, compared, replaced, pickled and documented alike."""
    made, standard = Made.of(3), Standard(3)
    assert made == standard == (3, "x", (1,)) and repr(made) == repr(standard).replace("Standard", "Made")
    assert (Made._fields, Made._field_defaults) == (Standard._fields, Standard._field_defaults)
    assert (Made.__doc__, Made.__module__, Made.__mro__[1:]) == (Standard.__doc__, __name__, Standard.__mro__[1:])
    assert (made.twice, Made.LIMIT, made._replace(plain=4).twice, made._asdict()) == (6, 5, 8, standard._asdict())
    assert pickle.loads(pickle.dumps(made)) == made and type(copy.copy(made)) is Made
    for wrong in ((), (1, "x", (1,), 2)):
        with pytest.raises(TypeError):
            Made(*wrong)
