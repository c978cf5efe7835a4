"""Checks `notify` and `metrics`, and finds the files that they name: who is told how runs end, and what is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.document import Document
from pipeline.config.model import Notify
from pipeline.config.paths import check_fields, place_of
from pipeline.stage.options import Place
from pipeline.text import VARIABLE

# What looks like a variable of the environment, and is none.
_NO_VARIABLE = re.compile(rf"(?!{VARIABLE})\$\{{")


def check_telling(document: Document) -> None:
    """Complain about entries of `notify` whose words do not go together, and about the fields of `metrics`.

    The document may be wrong otherwise, so that all complaints are made at once.
    """
    entries, metrics = document.data.get("notify"), document.data.get("metrics")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            for key, text in _problems_of(entry):
                document.complain(("notify", index, *key), text, key=bool(key) and key[0] in entry)
    if isinstance(metrics, str) and (problem := check_fields(metrics, ("{name}",))):
        document.complain(("metrics",), f"metrics: {problem}, the pipeline's name")


def _problems_of(entry: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with an entry, each with the key that it is about."""
    if "argv" in entry and "ping" in entry:
        yield ("ping",), "'argv' and 'ping' are two ways of telling; make two entries of them"
    elif "ping" in entry and "on" in entry:
        yield ("on",), "'on' is for 'argv': a ping is sent at the start and at the end of every run"
    elif "argv" not in entry and "ping" not in entry:
        yield (), "an entry of notify needs 'argv', a program and its arguments, or 'ping', a URL"
    elif entry.get("on") == []:
        yield ("on",), "on: at least one event is needed: failure, recovery, success or stuck"
    elif "argv" in entry and "on" not in entry:
        yield (), "'argv' needs 'on', a list of failure, recovery, success and stuck"
    if entry.get("argv") == []:
        yield ("argv",), "argv: a program is needed"
    for text in _texts_of(entry):
        if _NO_VARIABLE.search(text):
            key = "ping" if text == entry.get("ping") else "argv"
            yield (key,), f"{key}: '${{' begins the name of a variable of the environment, as in ${{NAME}}"


def _texts_of(entry: dict[str, Any]) -> list[str]:
    argv = entry.get("argv")
    return [each for each in (entry.get("ping"), *(argv if isinstance(argv, list) else ())) if isinstance(each, str)]


def check_metrics(document: Document, metrics: Path | None, state: Path) -> None:
    """Complain about a file of metrics in the state folder, where nothing else may change between two runs."""
    if metrics is not None and state in metrics.parents:
        document.complain(("metrics",), "metrics: it lies in the state folder; put it elsewhere")


def placed(entry: Notify, folder: Path) -> Notify:
    """Return an entry of `notify` with the place of its program, if that is named by a path."""
    if not entry.argv or "/" not in entry.argv[0]:
        return entry
    return replace(entry, argv=(place_of(entry.argv[0], folder), *entry.argv[1:]))


def metrics_file(written: Path, folder: Path, name: str) -> Path:
    """Return the path of the metrics of a pipeline of this name."""
    return Path(place_of(str(written).replace("{name}", name), folder))
