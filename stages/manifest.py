"""Lists what was made, with sizes and checksums: a stage that gathers, and streams what it writes."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from pipeline import Item, Skip, path_as_json

# Bumped when the same options give another list.
RECIPE = 1

Column = Literal["path", "source", "part", "size", "modified", "sha256", "md5"]
_PATHS = ("path", "source")


def manifest(
    items: Iterator[Item[Path]],
    *,
    format: Literal["csv", "jsonl"] = "csv",
    columns: Annotated[tuple[Column, ...], MinLen(1)] = ("path", "source", "size", "sha256"),
) -> Path:
    """Lists files, with sizes and checksums, in the order of their paths.

    `format` is `csv`, with a line of headings, or `jsonl`, one JSON object a line. `columns` are what is said of each
    file: its `path` relative to the folder of pipeline.yaml, the `source` of which it was made relative to the input
    root, its `part` of that, its `size` in bytes, when it was `modified`, in UTC, and its `sha256` or `md5`.

    The list is UTF-8. Bytes of a name that are not are written as `\\xNN`; `jsonl` has the name in base 64 beside it.
    """
    first = next(items, None)
    if first is None:
        raise Skip("nothing to list")
    file, rows = first.scratch / "manifest", (describe(item, columns) for item in chain([first], items))
    with open(file, "w", encoding="utf-8", newline="") as opened:
        if format == "csv":
            writer = csv.DictWriter(opened, list[str](columns), extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        else:
            opened.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return file


def describe(item: Item[Path], columns: Sequence[Column]) -> dict[str, Any]:
    """Return the row of one file, with these columns."""
    said: dict[str, Any] = {}
    for column in columns:
        value = _COLUMNS[column](item)
        said |= path_as_json(value, column) if column in _PATHS else {column: value}
    return said


def _digest(item: Item[Path], algorithm: str) -> str:
    with open(item.value, "rb", buffering=0) as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _modified(item: Item[Path]) -> str:
    return datetime.fromtimestamp(item.value.stat().st_mtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_COLUMNS: dict[Column, Callable[[Item[Path]], Any]] = {
    "path": lambda item: item.output or item.value,
    "source": lambda item: item.source,
    "part": lambda item: item.part,
    "size": lambda item: item.value.stat().st_size,
    "modified": _modified,
    "sha256": lambda item: _digest(item, "sha256"),
    "md5": lambda item: _digest(item, "md5"),
}
