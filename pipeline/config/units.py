"""Annotations by which the keys, texts, amounts and percentages of pipeline.yaml are parsed.

Each says how it is parsed where it is plainly right, by `plain_parser`, and how pydantic does it, which is not imported
here: it calls `__get_pydantic_core_schema__`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, ClassVar, get_type_hints

from pipeline.records import dataclass
from pipeline.stage.plain_values import Parse, PlainType, plain_mapping, plain_number, plain_text
from pipeline.text import DURATION_NEEDED, DURATION_UNITS, PING_TO, VARIABLE

_NUMBER = r"[0-9]+(\.[0-9]+)?"
# At least one pixel.
_PIXELS = r"(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]{0,5}[1-9][0-9]*)"


# The fields that are not called as in the YAML, beside those that end in their unit.
_WORDS = {"options": "with", "from_": "from", "template": "path"}


def yaml_word(name: str) -> str:
    """Return the word of the YAML for a field."""
    return _WORDS.get(name, name.removesuffix("_s").removesuffix("_bytes"))


class YamlMapping(PlainType):
    """A dataclass that is parsed from a mapping of the YAML, strictly, by the YAML's words for its fields."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True, "alias_generator": yaml_word}

    @classmethod
    def plain_parser(cls) -> Parse:
        hints, known = get_type_hints(cls, include_extras=True), fields(cls)  # type: ignore[arg-type]
        needed = {yaml_word(each.name) for each in known if each.default is each.default_factory is MISSING}
        return plain_mapping(cls, {yaml_word(each.name): (each.name, hints[each.name]) for each in known}, needed)


@dataclass(frozen=True, eq=False)
class Form(PlainType):
    """A text that must match a pattern."""

    pattern: str
    needed: str
    """The phrase by which a message describes a valid text."""
    make: Callable[[str], Any] = str
    """Function that returns the value of the text."""

    def plain_parser(self) -> Parse:
        return plain_text(self.pattern, self.make)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Return pydantic's schema of the text."""
        from pydantic_core import core_schema

        text = core_schema.str_schema(pattern=self.pattern)
        return text if self.make is str else core_schema.no_info_after_validator_function(self.make, text)


@dataclass(frozen=True, eq=False)
class Amount(PlainType):
    """A number with its unit, such as 60s; the value is counted in the base unit."""

    units: Mapping[str, float]
    """The size of each unit in the base unit, ascending."""
    needed: str
    make: Callable[[float], float] = float
    number: str = _NUMBER
    """The pattern of the number before the unit."""

    @property
    def pattern(self) -> str:
        """The pattern of the whole text."""
        return rf"^{self.number} ?({'|'.join(self.units)})$"

    def parse(self, text: str) -> float:
        """Return the amount of a text that matches the pattern."""
        number, unit = re.fullmatch(r"([0-9.]+) ?(\w+)", text).groups()  # type: ignore[union-attr]
        return self.make(float(number) * self.units[unit])

    def write(self, amount: float) -> str:
        """Write an amount in the largest unit of which it is a whole number."""
        whole = [(unit, size) for unit, size in self.units.items() if amount % size == 0]
        unit, size = whole[-1]
        return f"{amount / size:g}{unit}"

    def plain_parser(self) -> Parse:
        return plain_text(self.pattern, self.parse)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Return pydantic's schema, whose error message describes a valid text."""
        from pydantic_core import core_schema

        text = core_schema.str_schema(pattern=self.pattern)
        amount = core_schema.no_info_after_validator_function(self.parse, text)
        return core_schema.custom_error_schema(amount, "amount", custom_error_message=self.needed)


@dataclass(frozen=True)
class Share(PlainType):
    """A percentage of a number of files, as the YAML has it, such as 0.5%."""

    text: str

    def of(self, number: int) -> int:
        """Return the share of a number, rounded down; exactly, since 0.29 * 100 is less than 29 in floats."""
        from fractions import Fraction

        return int(Fraction(self.text.removesuffix("%")) * number / 100)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def plain_parser(cls) -> Parse:
        return plain_text(rf"^{_NUMBER}%$", cls)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Return pydantic's schema, whose error message describes a valid text."""
        from pydantic_core import core_schema

        share = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(pattern=rf"^{_NUMBER}%$"))
        needed = "a percentage is needed, such as 5%"
        return core_schema.custom_error_schema(share, "amount", custom_error_message=needed)


@dataclass(frozen=True, eq=False)
class _Whole(PlainType):
    """A whole number with a lower bound."""

    least: int

    def plain_parser(self) -> Parse:
        return plain_number(self.least)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.int_schema(ge=self.least)


class _Never(PlainType):
    """The word `never`, whose value is None."""

    @staticmethod
    def plain_parser() -> Parse:
        return plain_text("never", lambda word: None)

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        never = core_schema.literal_schema(["never"])
        return core_schema.no_info_after_validator_function(lambda word: None, never)


class _Octal(PlainType):
    """The permissions of a file, in octal; who owns it may read it."""

    _PATTERN = r"^0?[4-7][0-7]{2}$"

    @classmethod
    def plain_parser(cls) -> Parse:
        return plain_text(cls._PATTERN, cls._parse)

    @staticmethod
    def _parse(text: str) -> int:
        return int(text, 8)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        text = core_schema.str_schema(pattern=cls._PATTERN)
        mode = core_schema.no_info_after_validator_function(cls._parse, text)
        needed = "an octal mode in quotes is needed, by which the owner may read, such as '0640'"
        return core_schema.custom_error_schema(mode, "amount", custom_error_message=needed)


TEXT = Form(r"^[^\x00]+$", "text is needed, not empty and without NUL")
NAME = Form(
    r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$",
    "at most 64 letters, digits, '_' and '-' are needed, the first not '-'",
)
PING = Form(
    rf"^({PING_TO}|{VARIABLE}\S*)$",
    "a URL is needed that begins with https://, with http:// to this machine itself, or with ${NAME}",
)
FUNCTION = Form(r"^\w+(\.\w+)*:\w+$", "module:function is needed")
DURATION = Amount(DURATION_UNITS, DURATION_NEEDED)
SIZE = Amount(
    {
        "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    },
    "a size with its unit is needed, such as 500MB or 2GiB",
    make=round,
)  # fmt: skip
PIXELS = Amount(
    {"MP": 10**6, "GP": 10**9}, "a number of pixels with its unit is needed, such as 200MP", make=round, number=_PIXELS
)

Text = Annotated[str, TEXT]
Name = Annotated[str, NAME]
Function = Annotated[str, FUNCTION]
Ping = Annotated[str, PING]
Mode = Annotated[int, _Octal()]
Seconds = Annotated[float, DURATION]
Bytes = Annotated[int, SIZE]
Count = Annotated[int, _Whole(1)]
CountOrZero = Annotated[int, _Whole(0)]
Pixels = Count | Annotated[int, PIXELS]
Never = Annotated[None, _Never()]
