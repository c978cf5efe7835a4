"""Random trees of plain stages: their outputs, results and errors are what the contract of stages says."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support.worker_bench import Bench, worker_bench

STAGES = """
from pathlib import Path
from pipeline import Item, Skip

CALLS = []

def called(function):
    def call(value):
        CALLS.append(function.__name__)
        return function(value)
    call.__annotations__, call.__name__ = function.__annotations__, function.__name__
    call.__wrapped__ = function
    return call

@called
def upper(text: str) -> str:
    return text.upper()

@called
def doubled(data: bytes) -> bytes:
    return data + data

@called
def encoded(text: str) -> bytes:
    return text.encode("utf-16-le")

@called
def decoded(data: bytes) -> str:
    return data.decode("latin-1")

@called
def copied(item: Item[Path]) -> Path:
    made = item.scratch / f"copied-{len(CALLS)}"
    made.write_bytes(item.value.read_bytes())
    return made

@called
def raises(text: str) -> str:
    raise ValueError("no")

@called
def leaves(data: bytes) -> bytes:
    raise SystemExit(3)

@called
def skips(text: str) -> str:
    raise Skip("not this one")

@called
def forgets(text: str) -> str:
    return None

@called
def errs(data: bytes) -> bytes:
    return 7

@called
def yes(text: str) -> bool:
    return True

@called
def no(data: bytes) -> bool:
    return False

@called
def maybe(path: Path) -> bool:
    return 1
"""
FILTERS = ("yes", "no", "maybe")
TAKES_TEXT = ("upper", "encoded", "raises", "skips", "forgets", "yes")
MAKES_TEXT = ("upper", "decoded")
MADE = {
    "upper": lambda data: data.decode().upper().encode(),
    "doubled": lambda data: data + data,
    "encoded": lambda data: data.decode().encode("utf-16-le"),
    "decoded": lambda data: data.decode("latin-1").encode(),
    "copied": lambda data: data,
}
FAILED = {
    "raises": "ValueError: no (in stage {!r})",
    "leaves": "SystemExit: 3 (in stage {!r})",
    "forgets": "stage {!r} returned None; return a value, or raise Skip(reason)",
    "errs": "stage {!r} returned int, not bytes",
    "maybe": "stage {!r} returned int, not True or False",
}
SKIPPED = {"skips": "not this one", "no": "left out by stage {!r}"}
# The last one is too large to be read before a stage asks for it.
SOURCES = (b"text", b"", "stra\u00dfe".encode(), b"\xff\xfe", b"a" * (1 << 20) + b"b")

Tree = list[tuple[str, str | None]]
End = tuple[str, str, bytes]
"""What becomes of a stage: a status, a text, and the contents that it passes on."""


@st.composite
def trees(draw: st.DrawFn) -> tuple[Tree, tuple[str, ...]]:
    """The stages of a tree, each by its name and its parent's, and those whose outputs are wanted."""
    names = [f"{draw(st.sampled_from((*MADE, *FAILED, *SKIPPED, 'yes')))}-{number}" for number in range(draw(SIZES))]
    tree = [(name, draw(st.sampled_from((None, *names[:number])))) for number, name in enumerate(names)]
    return tree, tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))


SIZES = st.integers(1, 6)


def end_of(name: str, given: End) -> End:
    """Return what becomes of a stage that is given what became of its parent."""
    function, data = name.partition("-")[0], given[2]
    if given[0] != "done":
        return given
    if function in TAKES_TEXT:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return "failed", f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}", b""
    if function in FAILED:
        return "failed", FAILED[function].format(name), b""
    if function in SKIPPED:
        return "skipped", SKIPPED[function].format(name), b""
    return "done", "", data if function in FILTERS else MADE[function](data)


def expected(tree: Tree, wanted: tuple[str, ...], source: bytes) -> tuple[dict[str, End], list[str]]:
    """Return what becomes of each wanted stage, and the functions that are called, in their order."""
    parents, ends = dict(tree), dict[str | None, End]({None: ("done", "", source)})
    for name, parent in tree:
        ends[name] = end_of(name, ends[parent])
    needed = {above for name in wanted for above in ancestry(name, parents)}
    called = [
        name.partition("-")[0]
        for name in in_order(tree, None)
        if name in needed and ends[parents[name]][0] == "done" and not ends[name][1].startswith("not UTF-8")
    ]
    return {name: ends[name] for name in wanted}, called


def ancestry(name: str | None, parents: dict[str, str | None]) -> set[str]:
    """Return a stage and all stages above it."""
    return set() if name is None else {name} | ancestry(parents[name], parents)


def in_order(tree: Tree, parent: str | None) -> list[str]:
    """Return the stages below one, each before those below it."""
    return [each for name, above in tree if above == parent for each in (name, *in_order(tree, name))]


def test_plain_trees_do_what_the_contract_says(tmp_path: Path) -> None:
    """Each output has the bytes that its course of stages makes, or the reason of the first that makes none.

    Each stage is called once, whatever it does, and not at all where nothing of it is wanted.
    """
    with worker_bench(tmp_path, STAGES) as bench:

        @given(trees(), st.sampled_from(SOURCES))
        @settings(max_examples=60, deadline=None)
        def check(drawn: tuple[Tree, tuple[str, ...]], source: bytes) -> None:
            tree, wanted = drawn
            run(bench, tree, wanted, source)

        check()


def run(bench: Bench, tree: Tree, wanted: tuple[str, ...], source: bytes) -> None:
    """Run one job over a tree, and compare with what is expected."""
    bench.start(*tree)
    bench.calls.clear()
    (bench.root / "x").write_bytes(source)
    os.utime(bench.root / "x", (1e9, 1e9))
    for file in bench.out.glob("*"):
        file.unlink()
    results = bench.work("x", *wanted)
    ends, calls = expected(tree, wanted, source)
    assert bench.calls == calls
    for name, (status, text, data) in ends.items():
        result, file = results[name], bench.out / f"{name}.txt"
        assert (result.status, result.text[: len(text)]) == (status, text)
        assert (file.read_bytes() if file.exists() else None) == (data if status == "done" else None)
        assert status != "done" or (result.size_bytes, result.mtime_ns) == (len(data), file.stat().st_mtime_ns)
