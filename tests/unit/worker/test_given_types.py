"""What a stage is given has the type that it asked for, whatever filters stand between it and what made the value."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from support.worker_bench import Bench, worker_bench

from pipeline.config.load import load_config
from pipeline.operations.run import run
from pipeline.planning.selection import Selection
from pipeline.stage.values import BYTES, IMAGE, PATH, PICTURE, TEXT, Kind, can_convert

STAGES = '''
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from PIL import Image
from pipeline import Item, Picture
from pipeline.stage import values

class Box:
    """A type of the author's own."""
    def __init__(self, data: bytes) -> None:
        self.data = data

values.register(Box, lambda path: Box(path.read_bytes()), lambda box, file: file.write(box.data), [".box"])

KINDS = {Path: "path", bytes: "bytes", str: "str", Image.Image: "image", Picture: "picture", Box: "box"}

def named(value: Any) -> str:
    """What it is, and only if it can be used as that."""
    name = next(name for type_, name in KINDS.items() if isinstance(value, type_))
    if name == "path":
        value.read_bytes()
    elif name == "image":
        value.getpixel((0, 0))
    elif name == "picture":
        value.load().getpixel((0, 0))
    return name

def file_of(item: Item[Path]) -> Path:
    made = item.scratch / "made.ppm"
    made.write_bytes(item.value.read_bytes())
    return made

def data_of(path: Path) -> bytes:
    return path.read_bytes()

def text_of(path: Path) -> str:
    return path.read_text()

def image_of(image: Image.Image) -> Image.Image:
    return image

def box_of(path: Path) -> Box:
    return Box(path.read_bytes())

def parts_of(path: Path) -> Iterator[str]:
    yield path.read_text()
    yield path.read_text()
'''
KINDS = {"path": "Path", "bytes": "bytes", "str": "str", "image": "Image.Image", "picture": "Picture", "box": "Box"}
for kind, annotation in KINDS.items():
    STAGES += f"""
def take_{kind}(value: {annotation}) -> str:
    return named(value)

def take_item_{kind}(item: Item[{annotation}]) -> str:
    return "item of " + named(item.value)

def if_{kind}(value: {annotation}) -> bool:
    return named(value) == "{kind}"

def fan_{kind}(value: {annotation}) -> Iterator[str]:
    yield named(value)

def gather_{kind}(items: Iterator[Item[{annotation}]]) -> str:
    return " ".join(named(item.value) for item in items)
"""
# Text, a picture and the bytes of a Box, all in one.
SOURCE = "P3\n2 1\n255\n1 2 3 4 5 6\n"

BOX = Kind("stages.mine.Box", lambda path: path, lambda value, file: None, ".box", suffixes=(".box",))
OF_NAME = {"path": PATH, "bytes": BYTES, "str": TEXT, "image": IMAGE, "picture": PICTURE, "box": BOX}
MADE_BY = {"": PATH, "file_of": PATH, "data_of": BYTES, "text_of": TEXT, "image_of": IMAGE, "box_of": BOX}
"""What is passed on by the source itself and by each of the stages that make something."""

# The filters between: one of each kind, and two, of which one is of each kind and the other on a Picture, or the same.
ONE = [(each,) for each in KINDS]
TWO = [*product(KINDS, ["picture"]), *product(["picture"], KINDS), *((each, each) for each in KINDS)]
BETWEEN = list(dict.fromkeys([(), *ONE, *TWO]))
# What can be made, and passed through filters: no Picture is made of a Box.
FILTERED = [
    (made_by, between)
    for made_by, between in product(MADE_BY, BETWEEN)
    if between and all(can_convert(MADE_BY[made_by], OF_NAME[each]) for each in between)
]
# Each maker with one of the stages in a pool of its own, in turn; all other pairs are slow.
POOLS = [
    pytest.param(made_by, pool_at, marks=() if number % 3 == place % 3 else pytest.mark.slow)
    for number, made_by in enumerate(MADE_BY)
    for place, pool_at in enumerate(("maker", "filter", "taker"), 1)
    if made_by or pool_at != "maker"  # the inputs have no pool
]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker that knows these stages."""
    with worker_bench(tmp_path, STAGES) as bench:
        bench.text("a.ppm", SOURCE)
        yield bench


def chains(made_by: str, takers: str = "take_{} take_item_{}") -> Iterator[tuple[list[str], str]]:
    """Yield each way from a maker through filters to a stage, by the names of its stages, with what that is given."""
    can = [kind for kind in KINDS if can_convert(MADE_BY[made_by], OF_NAME[kind])]
    for between, wanted, taker in product(BETWEEN, can, takers.split()):
        if set(between) <= set(can):
            maker = [made_by] if made_by else []
            given = f"item of {wanted}" if "item" in taker else wanted
            yield [*maker, *(f"if_{each}" for each in between), taker.format(wanted)], given


def tree_of(ways: list[list[str]]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Return the stages of a tree of these ways, those that begin alike with one trunk, and the names of their ends."""
    stages: dict[tuple[str, ...], tuple[str, str | None]] = {}
    for way in ways:
        for length in range(1, len(way) + 1):
            above = stages.get(tuple(way[: length - 1]))
            stages.setdefault(tuple(way[:length]), (f"{way[length - 1]}-{len(stages)}", above[0] if above else None))
    return list(stages.values()), [stages[tuple(way)][0] for way in ways]


@pytest.mark.parametrize("made_by", MADE_BY)
def test_every_stage_is_given_what_it_asked_for(bench: Bench, made_by: str) -> None:
    """All kinds behind all filters, all of them in one tree, and each with nothing beside it."""
    ways = list(chains(made_by))
    stages, ends = tree_of([way for way, _ in ways])
    bench.start(*stages)
    together = bench.work("a.ppm", *ends)
    given = {end: together[end].text or bench.made(end) for end in ends}
    for end in ends:
        alone = bench.work("a.ppm", end)[end]
        given[f"{end} alone"] = alone.text or bench.made(end)

    wanted = dict(zip(ends, (each for _, each in ways), strict=True))
    assert given == wanted | {f"{end} alone": each for end, each in wanted.items()}


@pytest.mark.parametrize("made_by", MADE_BY)
def test_so_is_a_stage_that_takes_what_comes(bench: Bench, made_by: str) -> None:
    """A bare Item holds what was made, as it was made."""
    (bench.folder / "stages/mine.py").write_text(
        STAGES + "\ndef take_any(item: Item) -> str:\n    return named(item.value)\n"
    )
    ways = [[*way[:-1], "take_any"] for way, _ in chains(made_by, "take_{}") if way[-1] == "take_path"]
    stages, ends = tree_of(ways)
    bench.start(*stages)
    made = {MADE_BY[""]: "path", **{kind: name for name, kind in OF_NAME.items()}}[MADE_BY[made_by]]
    for end in ends:
        result = bench.work("a.ppm", end)[end]
        assert result.text or bench.made(end) == made


@pytest.mark.parametrize(("made_by", "between"), FILTERED, ids=str)
def test_what_is_written_after_a_filter_is_what_was_made(bench: Bench, made_by: str, between: tuple[str, ...]) -> None:
    """An output of a filter is the value from before it, in the bytes that this has without one."""
    stages, (end, *_) = tree_of([[*([made_by] if made_by else []), *(f"if_{each}" for each in between)]])
    bench.start(*stages)
    suffix = ".png" if made_by == "image_of" else ".box"
    result = bench.work("a.ppm", end, suffix=suffix)[end]

    assert result.status == "done", result.text
    written = (bench.out / f"{end}{suffix}").read_bytes()
    assert written.startswith(b"\x89PNG") if made_by == "image_of" else written.decode() == SOURCE


# -- where values pass through files, or come in numbers ---------------------------------------------------------------


def run_pipeline(bench: Bench, stages: list[str], **more: str) -> dict[str, str]:
    """Run a pipeline of these stages over the one source, and return the outputs by their names."""
    lines = "\n".join(f"  - {{{each}}}" for each in stages)
    settings = "".join(f"{key}: {value}\n" for key, value in more.items())
    file = bench.folder / "pipeline.yaml"
    file.write_text(f"inputs: in\n{settings}stages:\n{lines}\n")
    summary = run(load_config(file), Selection())
    assert not summary.failures, summary.failures
    return {each.name: each.read_text() for each in bench.out.rglob("*.txt")}


def lines_of(
    stages: list[tuple[str, str | None]], ends: list[str], output: str, pools: tuple[str, ...] = ()
) -> list[str]:
    """Return the YAML of the stages of a tree; those at the ends have an output, those of `pools` one of their own."""
    return [
        f"name: {name}, from: {above or 'inputs'}, uses: './stages/mine.py:{name.partition('-')[0]}'"
        + (f", output: 'out/{name}{output}'" if name in ends else "")
        + (", pool: {processes: 1}" if name in pools else "")
        for name, above in stages
    ]


def test_so_is_a_fan_out_and_what_stands_below_one(bench: Bench) -> None:
    """A stage that fans out behind filters, and stages of each kind behind filters of each kind below a fan-out."""
    can = [kind for kind in KINDS if can_convert(TEXT, OF_NAME[kind])]
    ways = [[f"if_{each}", f"fan_{wanted}"] for each, wanted in product(KINDS, KINDS)]
    ways += [["parts_of", f"if_{each}", f"take_{wanted}"] for each, wanted in product(can, can)]
    stages, ends = tree_of(ways)
    made = run_pipeline(bench, lines_of(stages, ends, "-{part}.txt"), engine="serial")

    given = {end: end.partition("_")[2].partition("-")[0] for end in ends}
    first = {f"{end}-000001.txt": kind for end, kind in given.items()}
    assert made == first | {f"{end}-000002.txt": kind for end, kind in given.items() if end.startswith("take")}


def test_so_is_a_stage_that_gathers(bench: Bench) -> None:
    """What was written after a filter is gathered as the kind that the gathering stage asks for."""
    lines = []
    for number, (between, wanted) in enumerate(product(KINDS, KINDS)):
        lines += [
            f"name: f{number}, from: inputs, uses: './stages/mine.py:if_{between}', output: 'out/{number}/{{name}}'",
            f"name: g{number}, from: f{number}, uses: './stages/mine.py:gather_{wanted}', gather: true, "
            f"output: out/gathered/{number}.txt",
        ]
    made = run_pipeline(bench, lines, engine="serial")

    assert made == {f"{number}.txt": wanted for number, (_, wanted) in enumerate(product(KINDS, KINDS))}


@pytest.mark.processes
@pytest.mark.parametrize(("made_by", "pool_at"), POOLS)
def test_so_are_stages_with_pools_of_their_own(bench: Bench, made_by: str, pool_at: str) -> None:
    """Values that pass from one pool to another in files come out as they went in, also through a filter there."""
    can = [kind for kind in KINDS if can_convert(MADE_BY[made_by], OF_NAME[kind])]
    maker = [made_by] if made_by else []
    stages, ends = tree_of([[*maker, f"if_{each}", f"take_{wanted}"] for each, wanted in product(can, can)])
    those = {"maker": stages[:1], "filter": [each for each in stages if each[0].startswith("if_")]}
    pools = [name for name, _ in those.get(pool_at, [(end, None) for end in ends])]
    made = run_pipeline(bench, lines_of(stages, ends, "-{stem}.txt", (pools[0], pools[-1])), pool="{processes: 1}")

    assert made == {f"{end}-a.txt": end.partition("_")[2].partition("-")[0] for end in ends}
