"""Writes the tables of formats in docs/pictures.md from the rows that the tests of pictures try.

A module of tests/unit/images may define `ROWS`, a list of named tuples in plain words, each of which a test of its own
tries. Its table has a column for each field; rows that differ in `bits` alone become one. The heading is what the
module's docstring says before its colon. To bring the documentation up to date:

    PYTHONPATH=.:tests python tests/support/formats_table.py
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "pictures.md"
_BEGIN, _END = "<!-- tables of the tests -->\n", "<!-- end of the tables -->\n"


def documented() -> str:
    """Return the document with the tables as they should be."""
    before, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{chr(10).join(_tables())}\n{_END}{after}"


def _tables() -> Iterator[str]:
    for file in sorted((ROOT / "tests" / "unit" / "images").glob("test_*.py")):
        if "\nROWS" in file.read_text():
            module = _load(file)
            heading = (module.__doc__ or "").partition(":")[0]
            yield f"### {heading}\n\n{_table(module.ROWS)}"


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rows_of_{file.stem}", file)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _table(rows: list[Any]) -> str:
    fields = rows[0]._fields
    bits: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        others = tuple("" if field == "bits" else str(getattr(row, field)) for field in fields)
        bits.setdefault(others, []).append(str(getattr(row, "bits", "")))
    lines = [fields, ["---"] * len(fields)]
    for others, several in bits.items():
        together = ", ".join(dict.fromkeys(several))
        lines.append([together if field == "bits" else text for field, text in zip(fields, others, strict=True)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(documented())
