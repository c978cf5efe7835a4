"""What makes an output stale beside its source, and what does not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from project import Project

from pipeline.recipe import Recipe, contents_of, digest_of_code

# Written so that every known difference between the versions of Python is in it.
GOLDEN_CODE = '''
"""A docstring."""
from __future__ import annotations
import os.path, sys as s
from . import x
class A(B, metaclass=M):
    """doc"""
    y: int = -1
    z: str
    async def f(self, a, /, b=1, *c, d: int=2, **e) -> None:
        """doc"""
        async with a as b, c: pass
        async for i in x: await i
        return [i async for i in y if i]
def g(*, k=u"uni", e="é\U0001fae8\U0001fadf", b=b"x\\xff", n=None, el=..., big=0xffffffffffffffffff, f=1e-3, c=2j):
    match k:
        case {"a": 1, **r} | [1, *_] | P(q=None): return f"a{k!r:>{n}}b" "c" f"{n}" "" f"{k}d" f'{n:}' f'{n=}' f"{{{n:%Y}}}"
        case None | True: yield
    lambda q, *w: (q := 1)
    del k; assert n, "m"; global h; raise E from None
    try: pass
    except* ValueError as v: pass
    else: 1
    finally: 2
    x[1:2, ::3] = {**a, 1: 2}; t = {1, *u}
    with (a as b, c as d): pass
    return rf"\\d{n}\\n" f"\\N{EN DASH}" f"{k:{n}.{e}}"
'''  # noqa: E501
GOLDEN_DIGEST = "81d9d0b4667a191b4306863963b1ef0f"

_PRINT_DIGEST = """
import ast, sys
sys.path[0:0] = sys.argv[1].split(":")
from pipeline.recipe import digest_of_code
print(digest_of_code(ast.parse(sys.stdin.buffer.read())))
"""


def digest(code: str) -> str:
    return digest_of_code(ast.parse(textwrap.dedent(code)))


@pytest.mark.parametrize("version", ["3.11.7", "3.12.1", "3.13.0", "own"])
def test_code_has_one_digest_on_every_python(version: str) -> None:
    """An upgrade of Python redoes nothing: the digest of a piece of code is for ever the same."""
    python = sys.executable if version == "own" else f"/root/.pyenv/versions/{version}/bin/python"
    if not os.access(python, os.X_OK):
        pytest.skip(f"no Python {version} here")
    ran = subprocess.run(
        [python, "-c", _PRINT_DIGEST, str(ROOT)], input=GOLDEN_CODE.encode(), capture_output=True, check=False
    )
    assert ran.stdout.decode().strip() == GOLDEN_DIGEST, ran.stderr.decode()


PLAIN = """
def f(a, b=1):
    return a + b
"""


@pytest.mark.parametrize(
    "code",
    [
        "# a comment\ndef f( a, b = 1 ) :\n\n    return (a + b)",
        '"""Said."""\ndef f(a, b=1):\n    """What it does."""\n    return a + b',
        "def f(a, b=0x1): return a+b",
    ],
)
def test_layout_comments_and_docstrings_are_no_code(code: str) -> None:
    """Formatting a stage anew, or explaining it, redoes nothing."""
    assert digest(code) == digest(PLAIN)


@pytest.mark.parametrize(
    "code",
    [
        "def f(a, b=2): return a + b",
        "def f(a, b=1): return b + a",
        "def f(a, b=1): return a - b",
        "def f(a, b='1'): return a + b",
        "def f(a, b=b'1'): return a + b",
        "def f(a, b=1.0): return a + b",
        "def f(a, b=True): return a + b",
        "def f(a, *, b=1): return a + b",
        "async def f(a, b=1): return a + b",
        "def f(a, b=1): return a + b\nf",
        "@x\ndef f(a, b=1): return a + b",
    ],
)
def test_whatever_does_something_else_is_other_code(code: str) -> None:
    """No two programs that differ have one digest."""
    assert digest(code) != digest(PLAIN)


@pytest.mark.parametrize(("one", "other"), [("[1, [2]]", "[[1], 2]"), ("f(')')", "f(')', '')"), ("'a'", "'str a'")])
def test_the_digest_keeps_the_shape(one: str, other: str) -> None:
    """The list of tokens cannot be read in two ways."""
    assert digest(f"x = {one}") != digest(f"x = {other}")


def test_deeply_nested_code_has_a_digest() -> None:
    """A sum of a thousand terms is a tree a thousand levels deep."""
    assert digest("x = " + " + ".join(["a"] * 1500)) != digest("x = " + " + ".join(["a"] * 1499))


def test_a_text_that_only_newer_pythons_can_print_has_one_digest() -> None:
    """repr() escapes what its version of Unicode does not know; the digest does not."""
    assert digest("x = '\U0001fadf'") == digest(r"x = '\U0001fadf'")


# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_digest_does_not_depend_on_the_order_of_options() -> None:
    """Sorting the options in pipeline.yaml redoes nothing."""
    assert Recipe({"a": 1, "b": 2}).digest == Recipe({"b": 2, "a": 1}).digest


def test_contents_are_what_counts_of_a_file(tmp_path: Path) -> None:
    """Other contents, other digest; a file that is not there says so the same way each time."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    (tmp_path / "c").write_text("2")
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "b") != contents_of(tmp_path / "c")
    assert contents_of(tmp_path / "nowhere") == "No such file or directory"


# -- code on the way to an output --------------------------------------------------------------------------------------

HELPED = """
from {imported} import mark
def upper(text: str) -> str:
    return text.upper() + mark()
"""


def is_stale(project: Project) -> bool:
    return any(action == "make" for action, _ in project.plan().values())


@pytest.mark.parametrize(
    ("imported", "file"),
    [("stages.help", "stages/help.py"), (".help", "stages/help.py"), ("mine", "mine.py"), ("lib.help", "lib/help.py")],
)
def test_helpers_beside_the_yaml_are_code_of_the_stage(tmp_path: Path, imported: str, file: str) -> None:
    """What a stage imports from the YAML's folder counts as its own code, wherever it lies there."""
    project = Project(tmp_path)
    project.write(file, "def mark() -> str:\n    return '1'\n")
    project.write("stages/upper.py", HELPED.format(imported=imported))
    project.write("in/a", "x")
    project.run()
    project.write(file, "def mark() -> str:\n    'Said.'\n    return '1'\n")
    assert not is_stale(project)
    project.write(file, "def mark() -> str:\n    return '2'\n")
    assert project.plan()["up a"] == (
        "make",
        "up: code changed (" + os.path.relpath(tmp_path / "stages/upper.py") + ")",
    )


def test_a_helper_imported_only_when_called_is_code_too(tmp_path: Path) -> None:
    """A line that imports inside a function has not run when the plan is made; its file counts all the same."""
    project = Project(tmp_path)
    project.write("late.py", "import later\nMARK = later.MARK\n")
    project.write("later.py", "MARK = '1'\n")
    project.write("stages/upper.py", "def upper(text: str) -> str:\n    import late\n    return text + late.MARK\n")
    project.write("in/a", "x")
    project.run()
    assert not is_stale(project)
    project.write("later.py", "MARK = '2'\n")
    assert is_stale(project)


def test_imports_that_lead_nowhere_do_no_harm(tmp_path: Path) -> None:
    """Lines that never run may import what is not there."""
    project = Project(tmp_path)
    project.write("broken.py", "def :\n")
    code = "def upper(text: str) -> str:\n    return text\n    from .... import x\n    import nowhere.at.all, broken\n"
    project.write("stages/upper.py", code)
    project.write("in/a", "x")
    project.run()
    assert not is_stale(project)
    project.write("broken.py", "def ::\n")
    assert is_stale(project)


def test_a_modules_own_word_is_taken(tmp_path: Path) -> None:
    """`RECIPE = 3` says that the outputs are the same whatever the code; another number that they are not."""
    project = Project(tmp_path)
    project.write("stages/upper.py", "RECIPE = 3\ndef upper(text: str) -> str:\n    return text.upper()\n")
    project.write("in/a", "x")
    project.run()
    project.edit("stages/upper.py", "text.upper()", "str.upper(text)")
    assert not is_stale(project)
    project.edit("stages/upper.py", "RECIPE = 3", "RECIPE = 4")
    assert is_stale(project)
