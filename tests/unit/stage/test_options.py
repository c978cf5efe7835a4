"""pipeline/stage/options.py: what a signature accepts, strictly, and how a refusal reads."""

from __future__ import annotations

import datetime
import enum
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import AfterValidator, BaseModel, Field

from pipeline.errors import StageError
from pipeline.stage.options import absolute, check_options


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number is needed")
    return value


class Corner(BaseModel, extra="forbid"):
    at: Path
    radius: int = 1


@dataclass
class Mark:
    logo: Path
    size: Annotated[int, Field(gt=0)] = 5


class Point(NamedTuple):
    x: int
    y: Path


NO_DEFAULT = inspect.Parameter.empty


def check(annotation: Any, value: Any) -> tuple[Any, list[str]]:
    """Give one option `x` of a type a value; gives what came of it and what was said."""
    known = {"x": inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)}
    options, problems = check_options(known, {"x": value})
    return options["x"], [each.text for each in problems]


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (int, 5, 5), (float, 5, 5.0), (float, math.inf, math.inf), (str, "no", "no"), (bool, True, True),
        (int | None, None, None), (int | str, "a", "a"), (Annotated[int, Field(gt=0)], 1, 1),
        (Literal["a", "b", 3], 3, 3), (Path, "a/b.png", Path("a/b.png")), (Path | None, "a", Path("a")),
        (list[int], [1, 2], [1, 2]), (tuple[int, str], [1, "a"], (1, "a")), (set[str], ["a"], {"a"}),
        (dict[str, float], {"a": 1}, {"a": 1.0}), (dict[int, str], {"1": "a"}, {1: "a"}),
        (list[Path], ["a"], [Path("a")]), (Colour, "red", Colour.RED),
        (Corner, {"at": "x"}, Corner(at=Path("x"))), (Mark, {"logo": "x"}, Mark(Path("x"))),
        (Point, [1, "a"], Point(1, Path("a"))), (Any, {"a": [1]}, {"a": [1]}),
        (datetime.date, "2024-02-01", datetime.date(2024, 2, 1)),
    ],
)  # fmt: skip
def test_types_accepted(annotation: Any, given: Any, value: Any) -> None:
    """Every type hint that a YAML value can satisfy is understood, and gives a value of that type."""
    got, said = check(annotation, given)
    assert said == []
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("annotation", "given", "said"),
    [
        (int, "800", 'a whole number is needed, not "800"'),
        (int, True, "a whole number is needed, not true"),
        (int, 1.0, "a whole number is needed, not 1.0"),
        (int, 1.5, "a whole number is needed, not 1.5"),
        (int, None, "a whole number is needed, not null"),
        (float, "1", 'a number is needed, not "1"'),
        (float, True, "a number is needed, not true"),
        (bool, 1, "true or false is needed, not 1"),
        (bool, "no", 'true or false is needed, not "no"'),
        (str, 5, "text is needed, not 5"),
        (Path, 5, "text is needed, not 5"),
        (list[str], [{"source": None}], 'text is needed, not a mapping; in quotes, as in "{source}", it is text'),
        (list[int], 5, "a list is needed, not 5"),
        (list[int], {"a": 1}, "a list is needed"),
        (dict[str, int], [1], "a mapping is needed"),
        (Corner, 5, "a mapping is needed, not 5"),
        (Mark, 5, "a mapping is needed, not 5"),
        (Annotated[int, Field(gt=0)], 0, "should be greater than 0, not 0"),
        (Annotated[int, AfterValidator(even)], 5, "an even number is needed"),
        (Literal["inside", "cover"], "insde", "should be 'inside' or 'cover', not \"insde\"; did you mean 'inside'?"),
        (Colour, "rde", "should be 'red' or 'blue', not \"rde\"; did you mean 'red'?"),
        (int | None, "a", 'a whole number is needed, not "a"'),
        (int | bool, "a", 'a whole number is needed, not "a"; or true or false is needed, not "a"'),
        (list[int | bool], ["a"], 'a whole number is needed, not "a"; or true or false is needed, not "a"'),
        (int | Corner, {}, "a whole number is needed; or key 'at' is missing"),
        (Corner, {"at": "x", "radius": "1"}, 'a whole number is needed, not "1"'),
        (Corner, {"at": "x", "ardius": 1}, "unknown key 'ardius'"),
        (Corner, {}, "key 'at' is missing"),
        (Mark, {}, "key 'logo' is missing"),
        (Mark, {"logo": "x", "sise": 1}, "unknown key 'sise'"),
        (str, ["x" * 200], "text is needed"),
        (tuple[int, int], [1, 2, 3], "should have at most 2 items, not 3"),
        (tuple[int, int], [1], "entry 2 is missing"),
        (Annotated[list[int], Field(min_length=2)], [1], "should have at least 2 items, not 1"),
        (Annotated[str, Field(min_length=2)], "a", 'should have at least 2 characters, not "a"'),
    ],
)
def test_types_refused(annotation: Any, given: Any, said: str) -> None:
    """Values are taken strictly ("800" is no int, true is no 1, nor is 1.0), and refused once, in plain words."""
    _, texts = check(annotation, given)
    assert texts == [f"option 'x': {said}"]


def test_places() -> None:
    """A problem knows where below the options it lies, down to the entry of a list in a mapping."""

    def stage(*, boxes: list[dict[str, int]]) -> None: ...

    _, problems = check_options(inspect.signature(stage, eval_str=True).parameters, {"boxes": [{"a": 1}, {"a": "1"}]})
    assert [each.place for each in problems] == [("boxes", 1, "a")]


def options_of(stage: Callable[..., Any], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    options, problems = check_options(inspect.signature(stage, eval_str=True).parameters, given)
    return options, [each.text for each in problems]


def test_defaults_and_missing() -> None:
    """Defaults are filled in as they are; an option without one must be given."""

    def stage(*, width: int, fit: str = "inside") -> None: ...

    assert options_of(stage, {"width": 1}) == ({"width": 1, "fit": "inside"}, [])
    assert options_of(stage, {})[1] == ["option 'width' is missing"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("widht", "no option 'widht'; did you mean 'width'?"),
        ("zzz", "no option 'zzz'; there are 'width', 'fit'"),
    ],
)
def test_unknown_options(given: str, said: str) -> None:
    """A misspelt option is answered with the one that was meant, or with all there are."""

    def stage(*, width: int = 1, fit: str = "inside") -> None: ...

    assert options_of(stage, {given: 1})[1] == [said]


def test_no_options() -> None:
    """A stage without options says so."""

    def stage() -> None: ...

    assert options_of(stage, {"a": 1})[1] == ["no option 'a'; it has none"]


@pytest.mark.parametrize(
    "annotation",
    [object(), Annotated[str, Field(gt=0)], type("Odd", (), {}), Annotated[str, Field(pattern="[")], "list[Nope]"],
)
def test_types_that_yaml_cannot_give(annotation: Any) -> None:
    """An annotation that no YAML value can satisfy is the stage's fault, and is called so."""
    known = {"x": inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, default=5, annotation=annotation)}
    with pytest.raises(StageError, match="option 'x' has a type that YAML cannot give"):
        check_options(known, {"x": "a"})


@pytest.mark.parametrize("default", [object(), print, open])
def test_a_default_is_plain_data(default: Any) -> None:
    """A default that no file can hold is refused: whether it changed could not be told, and all would be made anew."""
    known = {"x": inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Any)}
    with pytest.raises(StageError, match="the default of option 'x' is no plain data: <"):
        check_options(known, {})


def test_a_function_is_no_option() -> None:
    """Of an option that must be given and cannot be, that is said, and not that it is missing."""
    known = {"x": inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=Callable[[int], int])}
    with pytest.raises(StageError, match=r"option 'x' has a type that YAML cannot give: .*Callable"):
        check_options(known, {})


def test_a_field_is_no_default() -> None:
    """`n: int = Field(5)`, as other libraries have it, is answered with how to say it here."""
    known = {"n": inspect.Parameter("n", inspect.Parameter.KEYWORD_ONLY, default=Field(5), annotation=int)}
    with pytest.raises(StageError, match="the default of option 'n' is a Field\n  hint: say 'n: Annotated"):
        check_options(known, {})


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (Path("a"), Path("/p/a")), (Path("/a"), Path("/a")), (Path("../a"), Path("/p/../a")), ("a", "a"),
        ([Path("a")], [Path("/p/a")]), ((1, Path("a")), (1, Path("/p/a"))), ({Path("a")}, {Path("/p/a")}),
        ({"k": Path("a")}, {"k": Path("/p/a")}), (Corner(at=Path("a")), Corner(at=Path("/p/a"))),
        (Mark(Path("a")), Mark(Path("/p/a"))), (Point(1, Path("a")), Point(1, Path("/p/a"))), (Mark, Mark),
        (Path("~nobody-here/a"), Path("/p/~nobody-here/a")), (Path("~/a"), Path.home() / "a"),
    ],
)  # fmt: skip
def test_paths_become_absolute(value: Any, made: Any) -> None:
    """A Path option is relative to the YAML's folder, however deep in the options it lies; texts are left alone."""
    assert absolute(value, Path("/p")) == made


@dataclass(frozen=True)
class Tool:
    """An option with a part that may be a file."""

    script: str | Path = ""


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (str | Path, "a/b", Path("a/b")),
        (str | Path, "ab", "ab"),
        (list[str | Path] | None, ["a/b", "-q"], [Path("a/b"), "-q"]),
        (dict[str, str | Path], {"x": "a/b", "y": "c/d"}, {"x": Path("a/b"), "y": "c/d"}),
        (tuple[int, str | Path], [1, "a/b"], (1, Path("a/b"))),
        (Tool, {"script": "a/b"}, Tool(Path("a/b"))),
        (str, "a/b", "a/b"),
    ],
)
def test_a_text_that_names_a_file_is_a_path_where_it_may_be(annotation: Any, given: Any, expected: Any) -> None:
    """At any depth; `ab` has neither a dot nor a slash, and `c/d` is no file."""
    known = {"option": inspect.Parameter("option", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)}
    options, problems = check_options(known, {"option": given}, lambda text: text in ("a/b", "ab"))
    assert (options, problems) == ({"option": expected}, [])
