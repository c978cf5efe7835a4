"""pipeline/stage/plain_values.py: what is checked without pydantic is what pydantic would have made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from support.examples import examples

from pipeline.config.model import PipelineEntry
from pipeline.config.schema import vocabulary
from pipeline.stage.options import check_options
from pipeline.stage.plain_values import NotPlain, is_plain, parser_of
from pipeline.stage.signature import keyword_options
from pipeline.stage.validation import adapter_of

Color = Annotated[str, Predicate(lambda name: name.index("e") >= 0)]
ANNOTATIONS: list[Any] = [
    bool, int, str, float, Path, Any, list[int], list[str], dict[str, float], dict[str, Any], tuple[float, ...],
    Literal["a", "five"], int | None, str | None, Literal["a"] | None, list[str | None], Color, Color | None,
    Annotated[int, Gt(0), Le(5)], Annotated[float, Ge(0), Lt(1)] | None, Annotated[tuple[str, ...], MinLen(2)],
    frozenset[Literal["a", "five"]], Literal["strip"] | Annotated[frozenset[Literal["a", "five"]], MinLen(1)],
    str | Path, tuple[str | Path, ...], int | float, Path | str, Path | str | None, list[Path | str], Path | None,
    int | Path | str, None | str | Path,
]  # fmt: skip
NOT_PLAIN: list[Any] = [
    list, tuple[int, str], bytes, complex, Literal[1], dict[int, int], "int", None, Annotated[int, Gt(0.5)],
    Annotated[list[int], MinLen(-1)],
]  # fmt: skip
WORDS = ["", "a", "five", "strip", "5", "5s", "5%", "true", "é", "a\n", "a\0b", "\udc80", "in/{dir}/{name}"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(),
    st.sampled_from([0, 1, 5, 6, -1, 2**53, 2**63, 2**64, 10**400, 0.5, 1.0, -0.0, 1e16, 5e-324]),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(WORDS), each))


def made_by_pydantic(adapter: TypeAdapter[Any], value: Any) -> Any:
    return adapter.validate_json(json.dumps(value), strict=True, extra="forbid")


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types at any depth: 1 is not true, nor 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and repr(left) == repr(right)


@pytest.mark.parametrize("annotation", ANNOTATIONS)
@settings(max_examples=examples(150), deadline=None)
@given(value=VALUES)
def test_what_is_plain_is_as_pydantic_has_it(annotation: Any, value: Any) -> None:
    """A value is taken only where pydantic takes it, and is then the very same."""
    try:
        plain = parser_of(annotation)(value)
    except NotPlain:
        return
    assert same(plain, made_by_pydantic(adapter_of(annotation), value))


@pytest.mark.parametrize("annotation", NOT_PLAIN)
def test_other_types_are_left_to_pydantic(annotation: Any) -> None:
    """Those of which it may be asked what they take."""
    assert not is_plain(annotation, None)


RIGHT: dict[str, Any] = {
    "name": "photos", "timeout": "1.5m", "changed_by": "hash", "depends": ["a", "é"], "libraries": ["x"],
    "engine": "serial", "state": ".pipeline/x", "defaults": "../site.yaml",
    "retry": {"max": 0, "backoff": "100 ms"}, "prune": {"max": "10%"},
    "inputs": {"root": "in", "include": ["*.jpg"], "exclude": [], "settle": "5s", "max_pixels": "200MP", "max_side": 9},
    "errors": {"max": "0.5%", "hold_after": "never"},
    "pool": {
        "processes": 4, "maxtasksperchild": 500, "context": "fork", "initializer": "a.b:c", "initargs": [1, {"a": 0.5}],
        "env": {"A": 1, "B": "2"}, "max_memory": "2GiB", "start_timeout": "1h",
    },
    "stages": [
        {
            "name": "web", "uses": "resize", "with": {"width": 5, "c": [1.5, None]}, "from": "inputs", "timeout": "5s",
            "output": {"path": "o/{name}", "save": {"quality": 5}, "mode": "0640"}, "depends": ["x"], "match": ["*"],
            "gather": True, "group": "{dir}", "partial": False, "pool": {"processes": 1},
        },
        {"name": "next", "uses": "x.y:Z"},
    ],
}  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A pipeline of which parts are left out, and a few are replaced by anything."""
    changes = draw(st.integers(0, 2))

    def vary(value: Any) -> Any:
        nonlocal changes
        if changes and draw(st.integers(0, 9)) == 0:
            changes -= 1
            return draw(VALUES)
        if isinstance(value, dict):
            needed = {"inputs", "stages", "root", "path", "uses"}
            return {key: vary(each) for key, each in value.items() if key in needed or draw(st.integers(0, 4))}
        return [vary(each) for each in value] if isinstance(value, list) else value

    return vary(RIGHT)


@settings(max_examples=examples(500), deadline=None)
@given(documents())
def test_a_pipeline_is_as_pydantic_has_it(data: Any) -> None:
    """The whole vocabulary, with words left out and wrong values between."""
    try:
        plain = parser_of(PipelineEntry)(data)
    except NotPlain:
        return
    assert plain == vocabulary().validate_json(json.dumps(data))


def test_a_pipeline_of_all_words_is_plain() -> None:
    """Nothing of the vocabulary needs pydantic."""
    assert parser_of(PipelineEntry)(RIGHT).stages[0].output.mode == 0o640
    assert parser_of(PipelineEntry)(RIGHT | {"errors": {"max": 7, "hold_after": 2}}).errors.max == 7


def function(
    *, width: Annotated[int, Gt(0)] | None = None, words: tuple[Literal["a"], ...] = ("a",), ratio: float = 1.0
) -> None: ...


@pytest.mark.parametrize(
    ("options", "is_right"),
    [({}, True), ({"width": 5}, True), ({"ratio": 5}, True), ({"width": 0}, False), ({"widht": 1}, False)],
)
def test_options_that_are_right_take_no_pydantic(options: dict[str, Any], is_right: bool) -> None:
    """It is imported to say what is wrong, which is worth the wait."""
    found, problems = check_options(keyword_options("function", function), options)
    assert bool(problems) is not is_right
    if is_right:
        assert found == {"width": None, "words": ("a",), "ratio": 1.0} | options


IMPORTS_NOTHING = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from pipeline.config.read import read_pipeline
text = b"inputs: .\\nstages: [{{name: a, {stage}}}]\\npool: {{processes: 2}}\\n"
reading = read_pipeline(Path({folder!r}) / "pipeline.yaml", text, (), {{}})
assert reading.config and not reading.complaints, reading.complaints
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"pydantic", "pydantic_core"}}))
"""


@pytest.mark.parametrize(
    "stage",
    [
        "uses: 'text:Text', output: 'out/{dir}/{name}'",
        "uses: checksum, with: {algorithm: md5}, output: 'out/{dir}/{name}.md5'",
        "uses: resize, with: {width: 800, gap: 2}, output: {path: 'out/{dir}/{stem}.jpg', save: {quality: 80}}",
    ],
)
def test_a_plain_pipeline_is_read_without_pydantic(tmp_path: Path, stage: str, run: Callable[..., str]) -> None:
    """Its import would take longer than all the rest."""
    (tmp_path / "text.py").write_text("class Text:\n    def __call__(self, text: str) -> str: ...\n")
    assert run(IMPORTS_NOTHING.format(path=sys.path, stage=stage, folder=str(tmp_path))) == "[]\n"


@pytest.fixture
def run() -> Callable[..., str]:
    return lambda code: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_pydantic_refuses_what_is_not_taken() -> None:
    """A sample, lest nothing at all be taken: these are right, and these are not."""
    for annotation, value in [(float, 1), (Path, "a"), (Any, [1, {"a": None}]), (Color, "red"), (str | Path, "a")]:
        parser_of(annotation)(value)
    for annotation, value in [(int, True), (int, 1.0), (str, 5), (Color, "blau"), (Annotated[int, Gt(0)], 0)]:
        with pytest.raises(NotPlain):
            parser_of(annotation)(value)
        with pytest.raises(ValidationError):
            made_by_pydantic(adapter_of(annotation), value)
