"""What was measured, as plain text, as a section of a Markdown page with the promises beside it, and as a picture."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

OURS, FAST, SIMD = "filemill", "filemill, fast", "filemill, pillow-simd"
FLOOR = "floor: djpeg, cjpeg"


def machine() -> str:
    """What figures are of: the system, the processor and its cores, and this Python."""
    with open("/proc/cpuinfo") as info:
        names = (line.partition(": ")[2].strip() for line in info if line.startswith("model name"))
        processor = next(names, platform.machine())
    return f"{platform.system()} on {processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


@dataclass(frozen=True)
class Row:
    """One contender at one work; the figures are per picture, but for the peak, which is the tree's."""

    work: str
    title: str
    name: str
    version: str
    pictures: int
    cpu_ms: float
    wall_ms: float
    peak_mb: float
    made_kb: float
    wrong: str = ""
    rounds: int = 1
    spread: float = 0.0
    """By how much the highest of the rounds was above the lowest."""
    machine: str = field(default_factory=machine)


@dataclass(frozen=True)
class Promise:
    """At most `limit` times the best of some others; of all peers where none is named."""

    work: str
    limit: float
    others: tuple[str, ...] = ()
    of: str = "cpu_ms"
    name: str = OURS


PROMISES = (
    Promise("big-800", 1.30, (FLOOR,)),
    Promise("big-800", 1.20, ("sharp",)),
    Promise("big-800", 0.95, ("sharp",), name=FAST),
    Promise("big-800", 0.40, ("naive Pillow",)),
    Promise("big-800", 1.00, (FLOOR,), name=SIMD),
    Promise("big-256", 0.80, ("sharp",)),
    Promise("web-256", 0.85, ("sharp",)),
    Promise("alpha-400", 1.40, ("sharp",)),
    Promise("alpha-400", 1.00, ("sharp",), name=FAST),
    Promise("alpha-400", 1.10, ("pyvips",), of="made_kb"),
    Promise("three", 0.50, ("vipsthumbnail",)),
    Promise("three", 1.10, ("pyvips, cascade",)),
    Promise("three", 0.95, ("pyvips, cascade",), name=FAST),
)
# Megabytes: what two workers may take together, on pictures of 24 MP.
PEAK_LIMIT_MB, PEAK_WORK = 400, "huge-800"


def _by_work(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for title, group in groupby(rows, key=lambda row: row.title):
        yield title, sorted(group, key=lambda row: row.cpu_ms)


def _pictures(rows: list[Row]) -> int:
    return max(row.pictures for row in rows)  # the slow ones get a fifth


def _ours(rows: list[Row]) -> Row | None:
    return next((row for row in rows if row.name == OURS), None)


# -- tables ------------------------------------------------------------------------------------------------------------

_HEAD = ("", "CPU ms", "against filemill", "wall ms", "peak MB", "KB made", "version")


def _cells(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    ours = _ours(rows)
    for row in rows:
        ratio = f"{row.cpu_ms / ours.cpu_ms:.2f}" if ours else ""
        spread = f" ({row.spread:.0%})" if row.rounds > 1 else ""
        figures = (f"{row.cpu_ms:.1f}{spread}", ratio, f"{row.wall_ms:.1f}", f"{row.peak_mb:.0f}", f"{row.made_kb:.1f}")
        # What it said itself may be long, and names files of this machine: that is in the rows.
        failure = row.wrong.partition(":")[0]
        yield (row.name, *figures, row.version) if not failure else (row.name, "failed", "", "", "", "", failure)


def as_text(rows: list[Row]) -> str:
    """For a terminal: a table for each work, and what became of the promises."""
    lines = []
    for title, group in _by_work(rows):
        lines.append(f"\n{title}; {_pictures(group)} pictures")
        for name, cpu, ratio, wall, peak, made, version in [_HEAD, *_cells(group)]:
            lines.append(f"  {name:36}{cpu:>14}{ratio:>18}{wall:>9}{peak:>9}{made:>9}  {version}")
    lines += ["", *(f"{'kept  ' if kept else 'MISSED'} {text}: {found}" for text, found, kept in _promises(rows))]
    return "\n".join(lines)


# The section's heading in docs/benchmarks.md, and its picture beside that page.
_HEADING, _PICTURE = "## Resizing", "benchmarks-resize.svg"


def publish(rows: list[Row], docs: Path) -> None:
    """Put the section into benchmarks.md, whose other sections stay as they are, and the picture beside it."""
    _replace(docs / _PICTURE, as_svg(rows))
    write_section(as_markdown(rows), docs)


def write_section(section: str, docs: Path) -> None:
    """Put a section into benchmarks.md, in the place of the one with its heading."""
    page = docs / "benchmarks.md"
    before = page.read_bytes().decode() if page.exists() else "# Benchmarks\n"
    _replace(page, with_section(before, section))


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(text.encode())
    beside.replace(path)


def with_section(page: str, section: str) -> str:
    """A page with this section in the place of the one with its heading, or else behind all others."""
    heading = section.partition("\n")[0]
    found = re.search(rf"^{heading}(\n.*?)?(?=^## |\Z)", page, re.M | re.S)
    if found:
        before, after = page[: found.start()], page[found.end() :]
        return before + section + ("\n" if after else "") + after
    apart = "" if page.endswith("\n\n") else "\n" if page.endswith("\n") else "\n\n"
    return page + apart + section


_ABOUT = """\
Made by `python bench/resize.py`. The pictures are photographs from Debian's wallpaper packages, saved like a camera
roll: some are progressive, 4:4:4, sideways by EXIF, or in Adobe RGB. Everybody gets the same ones and two workers, but
mogrify only every fifth picture; how each is called stands in `bench/resizing/contenders.py`. The floors decode at the
scale that is just enough and encode what they get, without resizing. They, vipsthumbnail, mogrify and the naive script
drop a colour profile without converting. CPU time is that of the whole process tree, per picture, with everything a run
does, its start as well: with a few small pictures that decides, and filemill's takes several times as long as sharp's.
Peak memory is that of the whole tree. Read the ratios."""


def as_markdown(rows: list[Row]) -> str:
    """The section of docs/benchmarks.md."""
    machines = "; ".join(sorted({row.machine for row in rows}))
    lines = [_HEADING, "", _ABOUT, "", f"{machines}; the versions are in the last columns.", _rounds(rows), ""]
    lines += [f"![CPU time per picture, filemill and its peers]({_PICTURE})", ""]
    for title, group in _by_work(rows):
        lines += [f"### `{group[0].work}`: {title}; {_pictures(group)} pictures", ""]
        lines += [_line(_HEAD), "|---|--:|--:|--:|--:|--:|---|", *map(_line, _cells(group)), ""]
    lines += ["### What is promised", "", _line(("promise", "measured", "")), "|---|--:|---|"]
    lines += [_line((text, found, "kept" if kept else "**missed**")) for text, found, kept in _promises(rows)]
    return "\n".join([*lines, ""])


def _rounds(rows: list[Row]) -> str:
    counts = sorted({row.rounds for row in rows})
    if counts == [1]:
        return "One round, so nothing is known of the spread."
    return (
        f"{' or '.join(map(str, counts))} rounds, in turns: times are medians, peaks the highest; the brackets say\n"
        "by how much the slowest round was above the fastest."
    )


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _promises(rows: list[Row]) -> Iterator[tuple[str, str, bool]]:
    """Each promise that was put to the test: its text, what was found, and whether it is kept."""
    for promise in PROMISES:
        group = {row.name: row for row in rows if row.work == promise.work and not row.wrong}
        own = group.pop(promise.name, None)
        peers = promise.others or tuple(name for name in group if not name.startswith(("floor", "filemill")))
        others = [row for row in group.values() if row.name in peers]
        if own and others:
            best = min(others, key=lambda row: float(getattr(row, promise.of)))
            ratio = getattr(own, promise.of) / getattr(best, promise.of)
            what = "bytes made" if promise.of == "made_kb" else "CPU time"
            text = f"{promise.work}, {what}: {own.name} at most {promise.limit:.2f} of {best.name}"
            yield text, f"{ratio:.2f}", ratio <= promise.limit
    own = next((row for row in rows if row.work == PEAK_WORK and row.name == OURS and not row.wrong), None)
    if own:
        text = f"{PEAK_WORK}, peak memory: {OURS} at most {PEAK_LIMIT_MB} MB"
        yield text, f"{own.peak_mb:.0f} MB", own.peak_mb <= PEAK_LIMIT_MB


# -- the picture -------------------------------------------------------------------------------------------------------

# Pixels: the margin, and a group's width; in it, where the figures end and the bars begin; the height of what it has.
_MARGIN, _GROUP, _FIGURE, _BAR_FROM, _LINE, _TITLE, _GAP = 24, 460, 276, 286, 19, 26, 26
# How far beyond our own bar the longest goes: what costs ten times as much would leave the others no room.
_CUT_AT = 2.5
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#24292f}"
    ".t{font-weight:600;font-size:13px}.n{text-anchor:end;font-variant-numeric:tabular-nums}.o{font-weight:600}"
    ".page{fill:#fff}.peer{fill:#8fa8c2}.ours{fill:#d9412f}.floor{fill:#cfd6dd}.cut{stroke:#fff;stroke-width:3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.peer{fill:#54708c}.ours{fill:#e5533d}"
    ".floor{fill:#3d444d}.cut{stroke:#0d1117}}"
)


def as_svg(rows: list[Row]) -> str:
    """Bars of CPU time, a group for each work, each on its own scale; two groups side by side."""
    groups = list(_by_work([row for row in rows if not row.wrong]))
    width = 2 * _GROUP + 3 * _MARGIN
    parts, top = [], _MARGIN
    for pair in (groups[at : at + 2] for at in range(0, len(groups), 2)):
        for column, (title, group) in enumerate(pair):
            parts += [f'<g transform="translate({_MARGIN + column * (_GROUP + _MARGIN)} {top})">', *_bars(title, group)]
            parts.append("</g>")
        top += _TITLE + _LINE * max(len(group) for _, group in pair) + _GAP
    says = f"CPU ms per picture, less is better; a bar with a gap is cut off at {_CUT_AT} times filemill&#8217;s"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + _MARGIN}" role="img">',
        f'<title>{says}</title><style>{_STYLE}</style><rect class="page" width="100%" height="100%" rx="6"/>',
        *parts, f'<text x="{_MARGIN}" y="{top}">{says}</text>', "</svg>", "",
    ])  # fmt: skip


def _bars(title: str, rows: list[Row]) -> Iterator[str]:
    yield f'<text class="t" y="12">{escape(title[0].upper() + title[1:])}</text>'
    ours, longest = _ours(rows), max(row.cpu_ms for row in rows)
    shown = min(longest, _CUT_AT * ours.cpu_ms) if ours else longest
    for number, row in enumerate(rows):
        yield _bar(row, _TITLE + number * _LINE, row.cpu_ms / shown)


def _bar(row: Row, top: int, share: float) -> str:
    kind = "ours" if row.name.startswith(OURS) else "floor" if row.name.startswith("floor") else "peer"
    mark = " o" if kind == "ours" else ""
    end = _BAR_FROM + (_GROUP - _BAR_FROM) * min(share, 1)
    gap = f'<path class="cut" d="M{end - 20:.0f} {top + 15}l6 -16"/>' if share > 1 else ""
    return (
        f'<text class="l{mark}" y="{top + 11}">{escape(row.name)}</text>'
        f'<text class="n{mark}" x="{_FIGURE}" y="{top + 11}">{row.cpu_ms:.1f}</text>'
        f'<rect class="{kind}" x="{_BAR_FROM}" y="{top}" width="{end - _BAR_FROM:.1f}" height="14" rx="1.5"/>{gap}'
    )
