"""Where outputs go: name templates, and that what is filled in stays in its folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FileFailure
from pipeline.files.template import TemplateError, always_same, parse_template

BASE = Path("/project")
NAMES = (
    st.binary(min_size=1, max_size=40)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: not name.startswith(b"."))
)


def fill(template: str, source: bytes | str) -> str:
    path = parse_template(template, BASE).fill(source.encode() if isinstance(source, str) else source)
    return os.fsdecode(path)


# -- templates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "source", "path"),
    [
        ("out/{dir}/{stem}.webp", "a/b/c.tar.gz", "/project/out/a/b/c.tar.webp"),
        ("out/{dir}/{stem}.webp", "c.gz", "/project/out/c.webp"),
        ("out/{name}", "a/x", "/project/out/x"),
        ("out/", "a/x.txt", "/project/out/a/x.txt"),
        ("out/{dir}/", "a/x.txt", "/project/out/a/x.txt"),
        ("out/{stem}{suffix}", "x.", "/project/out/x."),
        ("out/{{{stem}}}", "x.y", "/project/out/{x}"),
        ("100%/{stem}%s%(name)b", "x%d.y", "/project/100%/x%d%s%(name)b"),
        ("../up/{name}", "x", "/up/x"),
        ("./a/../b/{name}", "x", "/project/b/x"),
        ("/abs/{name}", "x", "/abs/x"),
        ("/{name}", "x", "/x"),
        ("pre{stem}.{dir}.txt", "d/x.y", "/project/prex.d.txt"),
        ("{dir}/{stem}/{stem}{suffix}", "d/x.y", "/project/d/x/x.y"),
    ],
)
def test_templates(template: str, source: str, path: str) -> None:
    """Each field is filled in as DESIGN says; everything else stands as it is written, the percent sign too."""
    assert fill(template, source) == path


@given(NAMES)
def test_stem_and_suffix_are_pathlibs(name: bytes) -> None:
    """Whatever bytes a name has, its stem and suffix are what pathlib says, and together they are the name."""
    pure = PurePosixPath(os.fsdecode(name))
    assert fill("/x/{stem}|{suffix}", name) == f"/x/{pure.stem}|{pure.suffix}"
    assert fill("/x/{stem}{suffix}", name) == fill("/x/{name}", name)


@given(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join), st.sampled_from(["{dir}/{name}", "{dir}/{stem}.x"]))
def test_nothing_filled_in_leaves_the_folder(source: bytes, fields: str) -> None:
    """A path is under the literal part, or the file fails."""
    try:
        path = os.fsencode(fill(f"out/{fields}", source))
    except FileFailure:
        return
    assert path.startswith(b"/project/out/") and os.path.normpath(path) == path


@pytest.mark.parametrize(
    ("template", "source", "says"),
    [
        ("out/{dir}/.{suffix}", "a/x", "would leave its folder"),
        ("out/{dir}/{suffix}", "a/README", "would have no name"),
        ("out/{suffix}", "README", "would have no name"),
        ("out/.{name}", "filemill", "the program's own"),
        ("out/.{name}", "filemill-0123", "the program's own"),
        ("out/{stem}.webp", "x" * 253 + ".y", "output name of 258 bytes, limit 255"),
    ],
)
def test_what_cannot_be_an_output_fails_that_file(template: str, source: str, says: str) -> None:
    """A name that would be none, too long, ours or outside is refused for its file alone, with the reason."""
    with pytest.raises(FileFailure, match=says):
        fill(template, source)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "an output path is needed"),
        ("out/x.webp", "every file would have the one output"),
        ("out/{steam}.x", r"no field \{steam\}; there are \{dir\}"),
        ("out/{stem", r"a single '\{'"),
        ("out/stem}", r"a single '\}'"),
        ("out/{stem}/../x", "after the first field"),
        ("out/{dir}/./{name}", "after the first field"),
        ("out/{dir}//../{name}", "after the first field"),
    ],
)
def test_templates_that_cannot_be_read(template: str, says: str) -> None:
    """What is wrong with a template is said before anything runs."""
    with pytest.raises(TemplateError, match=says):
        parse_template(template, BASE)


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("out/{name}", b"out/x"),
        ("/project/out/{name}", b"out/x"),
        ("../up/{name}", b"../up/x"),
        ("/abs/{name}", b"/abs/x"),
        ("/{name}", b"/x"),
    ],
)
def test_keys_move_with_the_project(template: str, key: bytes) -> None:
    """The ledger keeps paths relative to the YAML's folder wherever they are written so or lie below it."""
    parsed = parse_template(template, BASE)
    assert parsed.key(parsed.fill(b"x")) == key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("out/{name}", "./out/{name}", True),
        ("out/{name}", "out/{stem}{suffix}", True),
        ("out/", "out/{dir}/{name}", True),
        ("out/{dir}//{name}", "out/{dir}/{name}", True),
        ("out/{stem}.a", "out/{stem}.b", False),
        ("out/{name}", "out/{dir}/{name}", False),
        ("out/a/{name}", "out/b/{name}", False),
    ],
)
def test_templates_that_never_differ_are_known(one: str, other: str, same: bool) -> None:
    """Two stages over one path are found however the path is spelt."""
    assert always_same(parse_template(one, BASE), parse_template(other, BASE)) is same
