"""What was measured, as plain text, as Markdown with the promises beside it, and as a picture."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby

OURS, SIMD = "filemill", "filemill, pillow-simd"
FLOOR = "floor: djpeg, cjpeg"


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
    spread: float = 0.0


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
    Promise("big-800", 1.08, ("sharp", "pyvips")),
    Promise("big-800", 0.40, ("naive Pillow",)),
    Promise("big-800", 1.00, (FLOOR,), name=SIMD),
    Promise("web-256", 1.00),
    Promise("alpha-400", 1.35, ("pyvips",)),
    Promise("alpha-400", 1.10, ("pyvips",), of="made_kb"),
    Promise("three", 0.50, ("vipsthumbnail",)),
    Promise("three", 1.15, ("pyvips, cascade",)),
)
# Megabytes: what two workers may take together, on pictures of 24 MP.
PEAK_LIMIT_MB, PEAK_WORK = 400, "huge-800"


def _by_work(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for title, group in groupby(rows, key=lambda row: row.title):
        yield title, sorted(group, key=lambda row: row.cpu_ms)


def _ours(rows: list[Row]) -> Row | None:
    return next((row for row in rows if row.name == OURS), None)


# -- tables ------------------------------------------------------------------------------------------------------------

_HEAD = ("", "CPU ms", "against filemill", "wall ms", "peak MB", "KB made", "version")


def _cells(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    ours = _ours(rows)
    for row in rows:
        ratio = f"{row.cpu_ms / ours.cpu_ms:.2f}" if ours else ""
        spread = f" ({row.spread:.0%})" if row.spread else ""
        figures = (f"{row.cpu_ms:.1f}{spread}", ratio, f"{row.wall_ms:.1f}", f"{row.peak_mb:.0f}", f"{row.made_kb:.1f}")
        yield (row.name, *figures, row.version) if not row.wrong else (row.name, "failed", "", "", "", "", row.wrong)


def as_text(rows: list[Row]) -> str:
    """For a terminal: a table for each work, and what became of the promises."""
    lines = []
    for title, group in _by_work(rows):
        lines.append(f"\n{title}, {group[0].pictures} pictures")
        for name, cpu, ratio, wall, peak, made, version in [_HEAD, *_cells(group)]:
            lines.append(f"  {name:36}{cpu:>14}{ratio:>18}{wall:>9}{peak:>9}{made:>9}  {version}")
    lines += ["", *(f"{'kept  ' if kept else 'MISSED'} {text}: {found}" for text, found, kept in _promises(rows))]
    return "\n".join(lines)


def as_markdown(rows: list[Row]) -> str:
    """The page docs/benchmarks-resize.md."""
    lines = [
        "# Benchmarks", "",
        "Made by `python bench/resize.py`; what is measured, and how, stands there. CPU time is that of the whole",
        "process tree, per picture, with everything a run does: two workers each, in turns on one machine. Peak",
        "memory is the tree's. The floors decode at the scale that is just enough and encode what they get, without",
        "resizing. They, vipsthumbnail, mogrify and the naive script drop a colour profile without converting.",
        "After a figure, in brackets: by how much the highest round was above the lowest. To start, filemill takes",
        "0.5 to 0.8 CPU seconds, and sharp 0.2: with a few small pictures that decides.", "",
        f"{platform.system()} on {_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}.", "",
        "![CPU time per picture](benchmarks-resize.svg)", "",
    ]  # fmt: skip
    for title, group in _by_work(rows):
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        lines += [_line(_HEAD), "|---|--:|--:|--:|--:|--:|---|", *map(_line, _cells(group)), ""]
    lines += ["## What is promised", "", _line(("", "measured", "")), "|---|--:|---|"]
    lines += [_line((text, found, "kept" if kept else "**missed**")) for text, found, kept in _promises(rows)]
    return "\n".join([*lines, ""])


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    with open("/proc/cpuinfo") as info:
        return next((line.partition(": ")[2].strip() for line in info if line.startswith("model name")), "?")


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
            what = " in bytes" if promise.of == "made_kb" else ""
            text = f"{promise.work}{what}: {own.name} at most {promise.limit:.2f} of {best.name}"
            yield text, f"{ratio:.2f}", ratio <= promise.limit
    for row in rows:
        if row.work == PEAK_WORK and row.name == OURS:
            yield f"{PEAK_WORK}: at most {PEAK_LIMIT_MB} MB", f"{row.peak_mb:.0f} MB", row.peak_mb <= PEAK_LIMIT_MB


# -- the picture -------------------------------------------------------------------------------------------------------

_WIDTH, _LEFT, _BAR, _TITLE, _GAP = 780, 250, 20, 34, 12
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.n{text-anchor:end}"
    ".peer{fill:#9fb3c8}.ours{fill:#d9412f}.floor{fill:#d9dee3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.peer{fill:#54708c}.floor{fill:#3d444d}}"
)


def as_svg(rows: list[Row]) -> str:
    """Bars of CPU time, a group for each work, each on its own scale."""
    parts, top = [], 0
    for title, group in _by_work([row for row in rows if not row.wrong]):
        parts.append(f'<text class="t" x="0" y="{top + 20}">{escape(title)}, CPU ms per picture</text>')
        top += _TITLE
        longest = max(row.cpu_ms for row in group)
        for row in group:
            parts.append(_bar(row, top, (_WIDTH - _LEFT - 60) * row.cpu_ms / longest))
            top += _BAR
        top += _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _bar(row: Row, top: int, width: float) -> str:
    kind = "ours" if row.name.startswith(OURS) else "floor" if row.name.startswith("floor") else "peer"
    return (
        f'<text class="n" x="{_LEFT - 8}" y="{top + 14}">{escape(row.name)}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{top + 3}" width="{width:.1f}" height="{_BAR - 6}"/>'
        f'<text x="{_LEFT + width + 6:.1f}" y="{top + 14}">{row.cpu_ms:.1f}</text>'
    )
