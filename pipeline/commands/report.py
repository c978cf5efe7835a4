"""Print where the report of the last run, or of another, lies; or compare the reports of two runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.text import counted, format_bytes, format_pace, format_seconds, local_time, printable, shown

if TYPE_CHECKING:
    from pipeline.operations.past_runs import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `report`."""
    runs = "its number or name, or 'last', 'last-1' and so on"
    parser.add_argument("run", nargs="?", metavar="RUN", help=f"the run: {runs}; default: the last one with a report")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--json", action="store_true", help="print the report itself, as one JSON object")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="print the figures of two runs side by side")


def execute(arguments: argparse.Namespace) -> int:
    """Print the path of a report, the report itself, or a comparison of two."""
    from pipeline.operations.past_runs import find_reports, last_report
    from pipeline.operations.state_of_pipeline import find_state

    file, word = _file_and_run(arguments)
    if arguments.compare and (word or arguments.open):
        raise UsageError("--compare names both runs itself, and prints a table; leave the other words out")
    of = find_state(file)
    if of.problem:
        print(of.problem, file=sys.stderr)
    if arguments.compare:
        _print_comparison(*find_reports(of, arguments.compare), is_json=arguments.json)
        return 0
    found = find_reports(of, [word])[0] if word else last_report(of)
    if arguments.json:
        print(found.text, end="")
        return 0
    page = found.file.with_suffix(".html")
    shown_file = page if page.is_file() else found.file
    print(shown(os.fsencode(shown_file)))
    if arguments.open:
        _open(shown_file)
    return 0


def _file_and_run(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the pipeline and the run; a word that is no pipeline is a run, if there is no second one."""
    file, first, run = arguments.file, arguments.pipeline, arguments.run
    if first is None or first.endswith((".yaml", ".yml")):
        return file, run
    if run is None:
        return ("pipeline.yaml" if file == first else file), first
    if run.endswith((".yaml", ".yml")):
        return run, first
    raise UsageError(f"{first!r} is no pipeline, and a run is named by one word", hint="-f says which pipeline")


def _open(file: Path) -> None:
    """Open a file in the browser of the user. Raises EnvironmentFailure where there is none."""
    import webbrowser

    if not webbrowser.open(file.absolute().as_uri()):
        raise EnvironmentFailure(f"no browser can be started here; the report is {shown(os.fsencode(file))}")


# -- comparisons -------------------------------------------------------------------------------------------------------


def _print_comparison(before: Report, after: Report, *, is_json: bool) -> None:
    from pipeline.report.comparison import compare

    comparison = compare(before.fields, after.fields)
    if is_json:
        print(json.dumps(comparison))
        return
    for line in _lines(comparison):
        print(printable(line))


def _lines(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table with a column for each run and one for the change, and the failures of only one of them."""
    runs = comparison["runs"]
    table = [("", *(f"run {each['number']}" for each in runs), "change")]
    table.append(("started", *(local_time(each["started"]) for each in runs), ""))
    for row in comparison["rows"]:
        before, after, unit = row["before"], row["after"], row["unit"]
        name = row["name"].replace("_", " ")
        table.append((name, _figure(before, unit), _figure(after, unit), _change(before, after, unit)))
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for name, *figures in table:
        padded = (figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True))
        yield f"{name:<{widths[0]}}  {'  '.join(padded)}".rstrip()
    for word in ("new", "gone"):
        for each in comparison[word]:
            example = f", e.g. {each['example']}" if each["example"] else ""
            what = f"{each['stage']}: {each['kind']}: {each['reason']}" if each["stage"] else each["reason"]
            yield f"{word}: {what} ({counted(each['files'], 'file')}{example})"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "s":
        return format_seconds(value)
    if unit == "bytes":
        return f"{'-' if value < 0 else ''}{format_bytes(abs(value))}"
    return format_pace(value) if unit == "files/s" else f"{value:,}"


def _change(before: float | None, after: float | None, unit: str) -> str:
    """Return by how much a figure has changed: counts as they are, all others in percent."""
    if before is None or after is None or before == after:
        return ""
    if unit in ("files", "outputs"):
        return f"{after - before:+,}"
    return f"{(after - before) / abs(before):+.0%}" if unit and before else ""
