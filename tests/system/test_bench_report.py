"""The bench rewrites its own section of docs/benchmarks.md, and tells what it found as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.resizing.report import Row, as_markdown, as_svg, publish, with_section

SECTION = "## Resizing\n\nnew\n"
ROW = Row("big-800", "big to fit 800", "filemill", "1", 200, 100.0, 60.0, 200.0, 55.0, machine="this machine")


def several(**changes: object) -> list[Row]:
    """Four contenders at one work, with these changes to each."""
    costs = {"filemill": 100.0, "sharp": 80.0, "naive <Pillow>": 300.0, "floor: djpeg, cjpeg": 90.0}
    return [replace(ROW, name=name, cpu_ms=cost, **changes) for name, cost in costs.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "page, after",
    [
        ("# B\n\n## Pool\r\n\nkept \n", "# B\n\n## Pool\r\n\nkept \n\n## Resizing\n\nnew\n"),
        ("# B\n\nno end of line", "# B\n\nno end of line\n\n## Resizing\n\nnew\n"),
        ("# B\n\n## Resizing\n\nold\n\n### Old\n\nold\n", "# B\n\n## Resizing\n\nnew\n"),
        ("# B\n\n## Resizing", "# B\n\n## Resizing\n\nnew\n"),
        ("# B\n\n## Resizing\nold\n### Old\n## Pool\nkept", "# B\n\n## Resizing\n\nnew\n\n## Pool\nkept"),
        ("# B\n\n## Resizing of tents\n\nkept\n", "# B\n\n## Resizing of tents\n\nkept\n\n## Resizing\n\nnew\n"),
    ],
)
def test_only_the_section_of_that_heading_is_replaced(page: str, after: str) -> None:
    """What others wrote on the page stays byte for byte, and a second time changes nothing."""
    assert with_section(page, SECTION) == after
    assert with_section(after, SECTION) == after


def test_the_page_and_the_picture_are_written_in_one_move(tmp_path: Path) -> None:
    """Nothing half-written is left beside them, and line ends of other sections survive."""
    (tmp_path / "benchmarks.md").write_bytes(b"# B\n\n## Resizing\n\nold\n\n## Pool\r\n\nkept\r\n")
    publish(several(), tmp_path)
    page = (tmp_path / "benchmarks.md").read_bytes()
    assert page.startswith(b"# B\n\n## Resizing\n\nMade by") and page.endswith(b"\n\n## Pool\r\n\nkept\r\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks-resize.svg", "benchmarks.md"]


def test_a_missed_promise_is_said_to_be_missed() -> None:
    """The table of promises compares with the best of the peers it names."""
    lines = as_markdown(several()).splitlines()
    assert "| big-800, CPU time: filemill at most 1.20 of sharp | 1.25 | **missed** |" in lines
    assert "| big-800, CPU time: filemill at most 1.30 of floor: djpeg, cjpeg | 1.11 | kept |" in lines


def test_rounds_and_their_spread_are_told() -> None:
    """A reader sees how often everybody was measured, and how far apart the rounds were, be it nothing."""
    assert "One round" in as_markdown(several()) and "(0%)" not in as_markdown(several())
    section = as_markdown(several(rounds=3, spread=0.0712))
    assert "\n3 rounds" in section and "| filemill | 100.0 (7%) | 1.00 |" in section
    assert "100.0 (0%)" in as_markdown(several(rounds=2))


def test_a_failure_is_a_line_of_the_table_and_keeps_no_promise() -> None:
    """What a contender said when it failed may be of many lines: the table stays a table, and the picture goes on."""
    rows = [*several(), replace(ROW, name="pyvips", cpu_ms=1.0, wrong="exit code 1, 3 of 200 made: no | such\nfile")]
    assert "| pyvips | failed |  |  |  |  | exit code 1, 3 of 200 made |\n" in as_markdown(rows)
    assert "of pyvips" not in as_markdown(rows) and "pyvips" not in as_svg(rows)


def test_the_picture_is_well_formed_and_shows_everybody() -> None:
    """Every contender has its name, its figure and a bar no wider than the picture."""
    root = ElementTree.fromstring(as_svg([*several(), *several(work="web-256", title="web to fit 256")]))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    bars = [float(bar.get("width", "0").rstrip("%")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert texts.count("naive <Pillow>") == texts.count("300.0") == 2
    assert len(bars) == 8 and max(bars) <= 174
