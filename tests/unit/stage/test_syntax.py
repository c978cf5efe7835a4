"""The digest of code: the same for the same code on every Python, another for any other."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.program import ROOT

from pipeline.stage.syntax import digest_of_code

# Every kind of node that Python 3.11 knows, and every known difference between it and later ones.
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
def h(z, *, t: "T" = ()):
    nonlocal_ = [a.b ** 2 // 3 % 4 @ c, ~a & b | c ^ d << 1 >> 2, +a - b * c / d, not a, "" "x", b"" b"y", f""]
    def inner():
        nonlocal t
        t += 1; z.y -= yield from (i for i in t if i if not i)
    for i, (j, *k) in t:
        if i < 1 <= j > 2 >= 3 == 4 != 5 and i in t or j not in t: break
        elif i is None or j is not None: continue
    else: pass
    while True: raise
    try: pass
    except (A, B): pass
    except: pass
    match z, t:
        case [A.B, -1, 2 + 3j, "s", b"s", [_, *rest]] as whole if whole: ...
        case {**all_} | (1 | 2): import a.b as c, d
    return {i: j for i, j in t}, {i for i in t}, (i if j else k), x[:], x[...], x[1,], x[*t], lambda: 0, -0.0, 1e400, 1_0
@a.b(c, *d, e=1, **f)
class C: x: int; (y): int = 1; z.w: "int" = 2; "no docstring"
class D: """Only a docstring."""
'''  # noqa: E501
GOLDEN_DIGEST = "4894cfea5c5fcfc4e98baccd36baa9d9"

_PRINT_DIGEST = """
import ast, sys
sys.path[0:0] = sys.argv[1].split(":")
from pipeline.stage.syntax import digest_of_code
print(digest_of_code(ast.parse(sys.stdin.buffer.read())))
"""


def digest(code: str) -> str:
    return digest_of_code(ast.parse(textwrap.dedent(code)))


def pythons() -> list[str]:
    """Every Python at hand that we run on, each once, and the one that runs this."""
    installed = (Path.home() / ".pyenv/versions").glob("3.*/bin/python3.*")
    versions = [f"python3.{minor}" for minor in range(11, 30)]
    # The names in between are no Pythons but choose one.
    on_path = [shutil.which(name, path=os.defpath + ":/usr/local/bin") for name in versions]
    found = [each for each in installed if each.name in versions] + [Path(each) for each in on_path if each]
    return [sys.executable, *sorted({str(each.resolve()) for each in found})]


@pytest.mark.parametrize("python", pythons())
def test_code_has_one_digest_on_every_python(python: str) -> None:
    """An upgrade of Python redoes nothing: the digest of a piece of code is for ever the same."""
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


def test_the_golden_code_has_every_kind_of_node() -> None:
    """What is not in the golden code could differ between versions unseen; those of later versions are not in it."""
    present = {type(node) for node in ast.walk(ast.parse(GOLDEN_CODE))}
    kinds = [each for each in vars(ast).values() if isinstance(each, type) and issubclass(each, ast.AST)]
    absent = {each.__name__ for each in kinds if each not in present and not each.__subclasses__()}
    never_parsed = {
        "AugLoad", "AugStore", "Bytes", "Ellipsis", "ExtSlice", "Expression", "FunctionType", "Index", "Interactive",
        "NameConstant", "Num", "Param", "Str", "Suite", "TypeIgnore",
    }  # fmt: skip
    later = {"Interpolation", "ParamSpec", "TemplateStr", "TypeAlias", "TypeVar", "TypeVarTuple"}
    assert absent <= never_parsed | later
