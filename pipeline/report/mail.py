"""What a run prints without a terminal, of which cron makes a mail: what is new, and what helps; at most 4 kB."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pipeline.report.summary import Summary, next_commands
from pipeline.text import counted, one_line, shown

# So many bytes in all, and so many characters a line.
_MOST_BYTES, _MOST_CHARACTERS = 4000, 600


def mail_of(summary: Summary) -> list[str]:
    """Return the lines about a run that has news."""
    groups = summary.first_groups(group for group in summary.groups.values() if group.is_new)
    body = [each for group in groups for each in zip(group.lines(), group.outputs_by_line(), strict=True)]
    others = [*summary.recovered_lines(), *(summary.notes if summary.was_stopped else summary.new_notes)]
    others += [summary.reminder] if summary.reminder else []
    others += [*summary.remark_lines(), *(f"  {each}" for each in summary.cut_off)]
    head = [summary.headline(), *([f"stopped: {summary.stopped}"] if summary.stopped else [])]
    more = summary.new_failed - sum(group.outputs for group in groups)
    return _fitted(head, [*body, *((line, 0) for line in others)], _whereabouts(summary), more)


def _fitted(head: list[str], body: list[tuple[str, int]], end: list[str], more: int) -> list[str]:
    """Return the lines of a mail; where they are too long together, the last of its body are left out and counted.

    Each line of the body comes with the number of outputs that it tells of; `more` of them are in none.
    """
    head, body, cut = list(map(_cut, head)), [(_cut(line), outputs) for line, outputs in body], 0
    size = _size([*head, *(line for line, _ in body), *end])
    while (body or end) and size + _size(_left_out(more, cut)) > _MOST_BYTES:
        if body:
            line, outputs = body.pop()
            more += outputs
            cut += not outputs
        else:
            line = end.pop()
        size -= _size([line])
    return [*head, *(line for line, _ in body), *_left_out(more, cut), *end]


def _left_out(more: int, cut: int) -> list[str]:
    """Return the lines on new failures, and other lines, that are not in a mail."""
    counts = (more, "more new failure"), (cut, "more line")
    return [f"  ... and {counted(count, noun)}" for count, noun in counts if count]


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode(errors="replace")) + 1 for line in lines)


def _whereabouts(summary: Summary) -> list[str]:
    """Return the command that helps, and where pipeline.yaml, state, log and report lie."""
    places = (
        ("pipeline", summary.yaml), ("state", summary.state), ("log", summary.log), ("report", summary.report),
    )  # fmt: skip
    return [
        *(f"next: {command}" for command in next_commands(summary)[:1]),
        *(f"{name}: {shown(os.fsencode(path))}" for name, path in places if path),
    ]


def _cut(line: str) -> str:
    """Return a line of a mail, printable and cut to what a line may have."""
    return f"{line[: len(line) - len(line.lstrip())]}{one_line(line, _MOST_CHARACTERS)}"
