"""pipeline/config/document.py: scalars, positions, bounds, and the edits of the command line."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from pipeline.config.document import MAX_NODES, MAX_SHOWN, Document, apply_edit, plain_scalar, read_document
from pipeline.errors import ConfigError


def read(text: str | bytes) -> Document:
    return read_document("p.yaml", text if isinstance(text, bytes) else text.encode())


def refusal(text: str | bytes) -> str:
    """What is said of a text that is wrong."""
    with pytest.raises(ConfigError) as caught:
        read(text).raise_complaints()
    return str(caught.value)


def edited(text: str, *edits: str) -> Document:
    document = read(text)
    for each in edits:
        apply_edit(document, each)
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("off", "off"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("NO", "NO"),
        ("true", True), ("False", False), ("TRUE", True), ("tRue", "tRue"),
        ("~", None), ("null", None), ("Null", None), ("", None), ("nULL", "nULL"), ("none", "none"),
        ("12", 12), ("-7", -7), ("+7", 7), ("012", 12), ("0", 0), ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"),
        ("1_000", "1_000"), ("0o8", "0o8"), ("-0x1", "-0x1"), ("12:30:45", "12:30:45"), ("1:1", "1:1"),
        ("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-1.5e+2", -150.0), ("1.0", 1.0), (".", "."),
        (".inf", math.inf), ("-.INF", -math.inf), ("inf", "inf"), ("nan", "nan"), ("1e", "1e"), ("e3", "e3"),
        ("2001-12-14", "2001-12-14"), ("=", "="), ("0.0.1", "0.0.1"), ("٣", "٣"), ("1\n", "1\n"),
    ],
)  # fmt: skip
def test_core_scalars(text: str, value: Any) -> None:
    """Unquoted words mean what the YAML 1.2 core schema says, with their type: `no` is a word and 012 is twelve."""
    got = plain_scalar(text)
    assert (got, type(got)) == (value, type(value))


def test_not_a_number() -> None:
    """`.nan` is the number that is none."""
    assert math.isnan(plain_scalar(".NaN"))


@pytest.mark.parametrize("text", ["'12'", '"12"', "|-\n  12", ">-\n  12"])
def test_quoted_scalars_are_text(text: str) -> None:
    """Quotes and block styles make text of whatever they hold."""
    assert read(f"a: {text}\n").data == {"a": "12"}


@pytest.mark.parametrize("digits", ["9" * 6000, "0x" + "f" * 6000, "0o" + "7" * 6000])
def test_endless_numbers(digits: str) -> None:
    """A number of thousands of digits becomes no int that JSON cannot write out."""
    assert not isinstance(plain_scalar(digits), int)


def test_json_is_yaml() -> None:
    """A pipeline written by json.dumps is read, with the pairs of escapes it uses beyond U+FFFF."""
    assert read('{"a": "\\ud83d\\ude00", "\\u00e4": [1, null]}').data == {"a": "😀", "ä": [1, None]}


def test_byte_order_mark() -> None:
    """A byte order mark, as Windows editors write it, is no part of the first key."""
    document = read(b"\xef\xbb\xbfa: 1\n")
    assert document.data == {"a": 1}
    assert document.keys[("a",)].column == 0


def test_aliases_are_read() -> None:
    """An alias stands for what it names."""
    assert read("a: &x [1]\nb: *x\n").data == {"a": [1], "b": [1]}


def test_every_value_has_its_spot() -> None:
    """Each key and each value knows its line and column."""
    document = read("a:\n  - b: 1\n    c: [2, 3]\n")
    assert (document.keys[("a", 0, "c")].line, document.keys[("a", 0, "c")].column) == (2, 4)
    assert (document.values[("a", 0, "c", 1)].line, document.values[("a", 0, "c", 1)].column) == (2, 11)


BASE = "inputs: in\n"
BOMB = "a0: &a0 [1, 1, 1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("", "1:1", "the file is empty"),
        ("# nothing\n", "1:1", "the file is empty"),
        ("---\n", "", "a mapping is needed"),
        ("hello", "1:1", "a mapping is needed"),
        ("- a\n", "1:1", "a mapping is needed"),
        (BASE + "---\n" + BASE, "2:1", "another document"),
        ("a:\n\t- b\n", "2:1", "'\\t'"),
        ("a: [1\nb: 2\n", "2:2", "expected"),
        ("a: 'x\n", "2:1", "quoted scalar"),
        ("a: b: c\n", "1:5", "mapping values are not allowed here"),
        ("a: *nope\n", "1:4", "undefined alias 'nope'"),
        ("a: 1\na: 2\n", "2:1", "key 'a' stands here twice; the first is in line 1"),
        ("a: 1\n'a': 2\n", "2:1", "key 'a' stands here twice"),
        ("x: &x {a: 1}\ny: {<<: *x}\n", "2:5", "merge keys"),
        ("? [a]\n: 1\n", "1:3", "a key must be a word"),
        ("a: !!python/object/apply:os.system [ls]\n", "1:4", "tags are not allowed: !!python/object/apply:os.system"),
        ("a: !!binary aGk=\n", "1:4", "tags are not allowed: !!binary"),
        ("a: !mine 1\n", "1:4", "tags are not allowed: !mine"),
        ("!!map {a: 1}\n", "1:1", "tags are not allowed"),
        ("%YAML 9.9\n---\na: 1\n", "1:1", "incompatible"),
        ("a: \x1b[31m\n", "1:4", "character U+001B is not allowed"),
        ("a: 1\r\nb: \x00\r\n", "2:4", "character U+0000 is not allowed"),
        (b"a: 1\nb: \xff\n", "2:1", "not UTF-8: byte 0xff"),
        ("a: 1".encode("utf-16"), "1:1", "not UTF-8"),
        ('a: "\\ud800"\n', "1:4", "half a surrogate pair"),
        ('"\\udc00": 1\n', "1:1", "half a surrogate pair"),
        ('a: "\\UFFFFFFFF"\n', "1:", "an escape that is no character"),
        ('a: "\\q"\n', "1:", "unknown escape character 'q'"),
        ("a: " + "[" * 60, "1:", "more than 50 levels"),
        ("a:\n" + "".join(" " * i + "-\n" for i in range(1, 99)), "", "more than 50 levels"),
        ("a: " + "- " * 1000, "1:4", "sequence entries are not allowed here"),
        ("a: [" + "1," * MAX_NODES + "]", "1:", "more than 10000 nodes"),
        (BOMB, "1:", "more than 10000 nodes"),
        ("a: &x [*x]\n", "1:", "nodes or 50 levels"),
        ("&x\na: 1\nb: *x\n", "2:", "nodes or 50 levels"),
        ("a: #" + "x" * (1 << 20), "1:1", "of YAML, limit 1048576"),
        ("[" * 1_000_000, "1:", "more than 50 levels"),
        ("k" * 1_000_000 + ": 1", "1:", "mapping values are not allowed here"),
        ("".join(f"a: {i}\n" for i in range(4999)), "2:1", "stands here twice"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, (str, bytes)) else None,
)  # fmt: skip
def test_refused_at_once(text: str | bytes, where: str, said: str) -> None:
    """What is no plain YAML mapping within bounds is refused in under a second, at its place, in one sentence."""
    began = time.process_time()
    complaint = refusal(text)
    assert time.process_time() - began < 1
    assert complaint.startswith(f"p.yaml:{where}")
    assert said in complaint


@settings(max_examples=examples(150), deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="ab:-[]{}&*!|>'\"%#? \n\t\\xuU0", max_size=60)))
def test_garbage_never_escapes(raw: bytes | str) -> None:
    """Whatever bytes stand in the file, they are read or refused as a ConfigError, never with another exception."""
    try:
        read(raw).raise_complaints()
    except ConfigError as error:
        assert str(error).startswith("p.yaml:")


def test_a_line_with_caret() -> None:
    """A complaint shows its source line with a caret under the spot, tabs kept so that it lines up."""
    assert refusal("inputs: in\nx: {'\t': 1, '\t': 2}\n") == (
        "p.yaml:2:13: key '\\t' stands here twice; the first is in line 2\n"
        "    x: {'\t': 1, '\t': 2}\n"
        "         \t      ^"
    )


def test_an_endless_line_is_cut() -> None:
    """Of a long line only the part around the spot is shown, and control characters not at all."""
    lines = refusal("a: " + "x" * 5000 + "\x1b" + "y" * 5000).splitlines()
    assert max(map(len, lines)) <= 124
    assert "\x1b" not in "".join(lines)
    assert lines[1][lines[2].index("^")] == "\ufffd"


def test_all_complaints_in_order() -> None:
    """All complaints come at once, in the order of the file, each once."""
    document = read("b: 1\na: 1\nb: 2\n")
    document.complain(("a",), "second")
    document.complain(("a",), "second")
    document.complain(("b",), "first")
    with pytest.raises(ConfigError) as caught:
        document.raise_complaints()
    heads = [line.split(": ")[0] for line in str(caught.value).splitlines() if line.startswith("p.yaml")]
    assert heads == ["p.yaml:1:4", "p.yaml:2:4", "p.yaml:3:1"]


def test_thousands_of_complaints_are_counted() -> None:
    """Nobody's terminal is flooded: after the first hundred the rest are a number."""
    said = refusal("".join(f"a: {i}\n" for i in range(1001)))
    assert said.count("stands here twice") == MAX_SHOWN
    assert said.endswith("p.yaml: 900 more complaints")


def test_what_is_not_there_points_at_its_mapping() -> None:
    """A complaint about a key that is missing points at the mapping it is missing from."""
    document = read("a:\n  b: 1\n")
    document.complain(("a", "c"), "is missing", key=True)
    with pytest.raises(ConfigError, match=r"p\.yaml:2:3: is missing"):
        document.raise_complaints()


# -- edits -------------------------------------------------------------------------------------------------------------

PIPELINE = """\
inputs: in
stages:
  - name: web
    uses: resize
    with: {width: 1}
    output: web/{name}
  - name: 5
    uses: x
"""


@pytest.mark.parametrize(
    ("edit", "place", "value"),
    [
        ("stages.web.with.width=800", ("stages", 0, "with", "width"), 800),
        ("stages.web.with.width='800'", ("stages", 0, "with", "width"), "800"),
        ("stages.web.with.background=#fff", ("stages", 0, "with", "background"), "#fff"),
        ("stages.web.with.a=b #c", ("stages", 0, "with", "a"), "b #c"),
        ("stages.web.with.a=b=c", ("stages", 0, "with", "a"), "b=c"),
        ("stages.web.with.a=x: y", ("stages", 0, "with", "a"), "x: y"),
        ("stages.web.with.a=", ("stages", 0, "with", "a"), None),
        ("stages.web.with.a=1\nb: 2", ("stages", 0, "with", "a"), "1\nb: 2"),
        ("stages.web.output={dir}/{stem}.png", ("stages", 0, "output"), "{dir}/{stem}.png"),
        ("stages.web.output.save.quality=5", ("stages", 0, "output"), {"path": "web/{name}", "save": {"quality": 5}}),
        ("stages.5.with.a=1", ("stages", 1, "with"), {"a": 1}),
        ("pool.processes=2", ("pool",), {"processes": 2}),
        ("a.b.c.d=no", ("a",), {"b": {"c": {"d": "no"}}}),
        ("inputs.include=['*.jpg', b]", ("inputs",), {"root": "in", "include": ["*.jpg", "b"]}),
        ("inputs={root: other}", ("inputs",), {"root": "other"}),
        ("inputs.include=*.jpg", ("inputs", "include"), "*.jpg"),
        ("stages=[]", ("stages",), []),
    ],
)  # fmt: skip
def test_edits(edit: str, place: tuple[Any, ...], value: Any) -> None:
    """`--set` changes one value as if the file said so: nested, in a stage by its name, and below a short form."""
    document = edited(PIPELINE, edit)
    document.raise_complaints()
    assert document.at(place) == value


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("x", "write it as --set key.key=value"),
        ("=1", "write it as --set key.key=value"),
        ("a..b=1", "write it as --set key.key=value"),
        ("stages.wbe.with.width=1", "no stage 'wbe'; did you mean 'web'?"),
        ("stages.9.with=1", "no stage '9'"),
        ("stages.web=1", "'stages' is a list"),
        ("pool={a: 1, a: 2}", "key 'a' stands here twice"),
        ("pool={a: !!int 5}", "tags are not allowed"),
    ],
)
def test_edits_refused(edit: str, said: str) -> None:
    """An edit that cannot be carried out is refused by its own words, not by a line of the file."""
    with pytest.raises(ConfigError) as caught:
        edited(PIPELINE, edit).raise_complaints()
    assert str(caught.value).startswith(f"--set {edit}: ")
    assert said in str(caught.value)


def test_edits_forget_what_they_replace() -> None:
    """What an edit replaces is gone with all its places, and what it leaves keeps its own."""
    document = edited("inputs: {root: in, settle: 5s}\nname: x\n", "inputs=in")
    assert ("inputs", "settle") not in document.values
    document = edited(PIPELINE, "inputs.include=[a]")
    assert (document.values[("inputs", "root")].line, document.values[("inputs", "root")].given_by) == (0, "")


def test_edits_of_any_bytes() -> None:
    """An argument that is no UTF-8 is not the end of the program."""
    apply_edit(read(PIPELINE), os.fsdecode(b"name=\xff"))
    apply_edit(read(PIPELINE), os.fsdecode(b"name=['\xff']"))
