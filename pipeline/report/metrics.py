"""Writes the figures of a pipeline's last run for Prometheus, into a file for node_exporter's textfile collector."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from pipeline.files.file_system import open_regular
from pipeline.files.sync import replace_file
from pipeline.records import dataclass
from pipeline.text import shown


class NotWritten(Exception):
    """The file could not be written; the text says why."""


@dataclass(frozen=True)
class Figures:
    """The figures of the last run, or of the one that is running; times are in seconds since 1970, 0 for never."""

    last_run: float = 0.0
    last_success: float = 0.0
    seconds: float = 0.0
    exit: int = 0
    sources: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    """The number of output files, by what became of them."""
    bytes_in: int = 0
    bytes_out: int = 0
    oldest_failure: float | None = None
    """When the oldest failure began; None if nothing is failing."""
    in_hand: int = 0
    """The number of files that workers hold now."""

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return dict(vars(self))


def write_metrics(file: Path, pipeline: str, figures: Figures) -> None:
    """Write the figures of a pipeline, so that the file is whole at any moment. Raises NotWritten.

    A file that is of another pipeline, or of somebody else, is left alone.
    """
    try:
        text = as_text(pipeline, figures)
    except ImportError:
        raise NotWritten("prometheus-client is missing: pip install 'filemill[metrics]'") from None
    head = f"# The metrics of filemill's pipeline {pipeline}\n".encode()
    try:
        _refuse_others(file, head)
        # A name that neither the collector nor a walk takes for anything.
        replace_file(file, head + text, file.with_name(f".{file.name}.{os.getpid()}"))
    except OSError as error:
        raise NotWritten(f"{shown(os.fsencode(file))}: {error.strerror or error}") from None


def _refuse_others(file: Path, head: bytes) -> None:
    """Raise NotWritten for a file that has not been written for this pipeline."""
    try:
        with open_regular(file) as opened:
            found = opened.read(len(head))
    except FileNotFoundError:
        return
    if found not in (b"", head):
        ways = "name another, such as by {name} in its path, or remove it"
        raise NotWritten(f"{shown(os.fsencode(file))} is no file of this pipeline's metrics; {ways}")


def as_text(pipeline: str, figures: Figures) -> bytes:
    """Return the figures in Prometheus' text format. Raises ImportError without prometheus-client."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def add(name: str, text: str, values: Mapping[str, float], label: str) -> None:
        gauge = Gauge(f"filemill_{name}", text, ("pipeline", label), registry=registry)
        for each, value in values.items():
            gauge.labels(pipeline, each).set(value)

    def add_one(name: str, text: str, value: float) -> None:
        Gauge(f"filemill_{name}", text, ("pipeline",), registry=registry).labels(pipeline).set(value)

    text = "When a run last ended with 0, 5 or 6; 0 for never."
    add_one("last_success_timestamp_seconds", text, figures.last_success)
    add_one("last_run_timestamp_seconds", "When a run last ended.", figures.last_run)
    add_one("run_duration_seconds", "How long the last run took, or the running one has taken.", figures.seconds)
    add_one("run_exit_code", "The exit code of the last run.", figures.exit)
    add_one("input_files", "The input files that the last run found.", figures.sources)
    add("files", "The output files of the last run, or of the running one, by outcome.", figures.files, "outcome")
    moved = {"in": figures.bytes_in, "out": figures.bytes_out}
    text = "The sizes of the files of which the last run made anything, each once, and of its outputs."
    add("bytes", text, moved, "direction")
    add_one("files_in_hand", "The files that workers hold now.", figures.in_hand)
    if figures.oldest_failure is not None:
        text = "When the oldest failure began that is not mended; its age is time() less this."
        add_one("oldest_failure_timestamp_seconds", text, figures.oldest_failure)
    return generate_latest(registry)
