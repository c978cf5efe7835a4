"""The report of a run as one HTML page, which asks for nothing, runs nothing and takes less than a megabyte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records import dataclass
from pipeline.report import charts
from pipeline.text import format_bytes, format_seconds, local_time, printable, shown

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"
# A page that a mail carries and a telephone opens.
MOST_BYTES = 1_000_000
# What is shown for a number that is not known.
_UNKNOWN = "–"
# Long texts, which keep their lines, and all their characters if there is room; every other text is one line.
_TEXTS = frozenset(("text", "detail", "output", "lines"))
# Commands to be copied, which are never shortened.
_COMMANDS = "next"
# What the pictures of our own samples may be, so that no text becomes another address.
_PICTURES = ("data:image/jpeg;base64,", "data:image/png;base64,", "data:image/webp;base64,")


@dataclass(frozen=True)
class Limits:
    """How much of a report the page shows."""

    line_characters: int
    """The characters of a text of one line, and of a long one for which there is no room."""
    rows: int
    """The rows of each list."""
    groups: int
    """The rows of a list of failures, each of which has examples of its own."""
    text_bytes: int
    """The bytes of all long texts together, from the first on."""
    picture_bytes: int


# Tried in turn until the page is small enough. A line holds the longest name that a file can have. Beside long texts
# and pictures, 64 workers, 50 stages and 60 groups of failures take 400 kB, and an ordinary night 110 kB.
_LIMITS = (
    Limits(300, 200, 60, 200_000, 450_000),
    Limits(300, 200, 30, 100_000, 250_000),
    Limits(80, 30, 10, 20_000, 0),
)
# The sections in order, by the member of the report that they show.
_TITLES = {
    "verdict": "Verdict",
    "new": "New since the last run",
    "counts": "Counts",
    "timeline": "Over time",
    "workers": "Workers",
    "stages": "Time per stage",
    "sizes": "Time by file size",
    "failures": "Failures",
    "slowest": "Slowest and biggest",
    "gallery": "Before and after",
    "diffs": "Changed texts",
    "plan": "What was planned, and why",
    "runs": "The last runs",
}
_ALWAYS = ("verdict", "new", "counts")


class Rows(list[Any]):
    """The rows of a list that are shown, and the number of those that are not."""

    left_out = 0


def render(report: Mapping[str, Any]) -> str:
    """Return the page of a report; raises ImportError without jinja2."""
    template = load_template()
    style = _style()
    page = ""
    for limits in _LIMITS:
        within = _limited(report, limits)
        page = template.render(report=within, sections=dict(_sections(within)), **style)
        if len(page.encode()) < MOST_BYTES:
            break
    return page


def load_template() -> Template:
    """Return the page's template; an installer that calls this once saves every run from compiling it."""
    from pipeline.report.template import load

    return load(_TEMPLATES, "report.html", _WORDS)


def _style() -> dict[str, str]:
    """Return our own style sheet, unescaped, and the digest by which the page's policy allows it alone."""
    import base64
    import hashlib  # not that of pipeline.files: a policy knows SHA only, and jinja2 has loaded it

    from markupsafe import Markup

    style = (_TEMPLATES / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"style": Markup(style), "style_digest": digest}


# -- what is shown -----------------------------------------------------------------------------------------------------


def _sections(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the id and the title of each section that has something to show, in order."""
    for section, title in _TITLES.items():
        if section == "slowest":
            has_any = bool(report["slowest"] or report["biggest"])
        elif section == "timeline":
            has_any = any(report["timeline"]["files"]) or any(report["timeline"]["failed"])
        else:
            has_any = section in _ALWAYS or bool(report[section])
        if has_any:
            yield section, title


def _limited(report: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Return a report with texts that can be shown, within limits."""
    pictures = _pictures(report["gallery"], limits.picture_bytes)
    groups = list(map(_with_message, report["failures"]))
    within = _Within(limits)
    return {key: within.cut(value, key) for key, value in {**report, "gallery": pictures, "failures": groups}.items()}


def _with_message(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a group of failures whose reason, by which it was counted, has a message of its files."""
    messages = dict.fromkeys(each["text"] for each in group["examples"])
    if not messages:
        return group
    first, reason = next(iter(messages)), group["reason"]
    if len(messages) == 1:
        return {**group, "reason": first}
    return {**group, "reason": f"{first}, and others" if first.startswith(reason) else f"{reason}, such as {first}"}


def _pictures(pairs: Sequence[Mapping[str, Any]], most_bytes: int) -> list[Mapping[str, Any]]:
    """Return the first pairs of pictures that have room."""
    kept = []
    for pair in pairs:
        both = [pair[side].get("data") or "" for side in ("before", "after")]
        most_bytes -= sum(map(len, both))
        if most_bytes < 0:
            break
        if all(data.startswith(_PICTURES) and data.isascii() for data in both):
            kept.append(pair)
    return kept


class _Within:
    """Cuts the values of one report to what there is room for."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._text_bytes = limits.text_bytes

    def cut(self, value: Any, key: str) -> Any:
        """Return a value with its texts printable and shortened, and its lists as rows."""
        if isinstance(value, str):
            return value if key == "data" else self._shown(value, key)
        if isinstance(value, Mapping):
            return {name: self.cut(each, name) for name, each in value.items()}
        return self._rows(value, key) if isinstance(value, list) else value

    def _shown(self, text: str, key: str) -> str:
        if key == _COMMANDS:
            return printable(text)
        return self._text(text) if key in _TEXTS else self._line(text)

    def _rows(self, values: list[Any], key: str) -> list[Any]:
        """Return the first rows of a list; numbers take little room, and all are shown."""
        if key == "histogram" or (values and isinstance(values[0], (int, float))):
            return values
        rows = Rows(self.cut(each, key) for each in values[: self._most(key)])
        rows.left_out = len(values) - len(rows)
        return rows

    def _most(self, key: str) -> int:
        return self._limits.groups if key == "failures" else self._limits.rows

    def _text(self, text: str) -> str:
        shown_text = printable(text)
        # Each of these takes five.
        self._text_bytes -= len(shown_text.encode()) + 4 * sum(map(shown_text.count, "<>&'\""))
        return shown_text if self._text_bytes >= 0 else _shortened(shown_text, self._limits.line_characters)

    def _line(self, text: str) -> str:
        return _shortened(shown(text.encode("utf-8", "backslashreplace")), self._limits.line_characters)


def _shortened(text: str, most: int) -> str:
    """Return the beginning and the end of a long text: the folder and suffix of a name, the error of a traceback."""
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


# -- numbers, as they are said everywhere else -------------------------------------------------------------------------


def _count(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"


def _size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return _UNKNOWN
    return f"−{format_bytes(-size_bytes)}" if size_bytes < 0 else format_bytes(size_bytes)


def _seconds(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else format_seconds(seconds)


def _time(at: float | None) -> str:
    return _UNKNOWN if at is None else local_time(at)


# What the template calls; no name of its macros, which would hide it.
_WORDS: dict[str, Callable[..., Any]] = {
    "as_count": _count,
    "as_size": _size,
    "as_seconds": _seconds,
    "as_time": _time,
    "chart": charts.chart,
    "histograms": charts.histograms,
    "percent": charts.percent,
}
