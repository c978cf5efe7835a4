"""The first run of a pipeline, which may hand out jobs while the walk goes on.

    walk --> FirstJobs: a job for each source --> JobTaker, as long as it has room --> the engine
                                     |
                                     +--> the plan's store: what several sources contend for, or there was no room for

Where nothing is recorded yet and the output folders are empty, a job depends on its source alone, unless another source
may want the same path. Such sources differ only in what follows the stem of their names, and lie close to each other in
the walk, so that a job waits for the next few files at most.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Protocol

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.ownership import is_empty_but_for_owner
from pipeline.files.template import Template, may_meet
from pipeline.ledger.ledger import Ledger
from pipeline.messages import Job, Source, Target
from pipeline.planning.file_state import OutputFolders
from pipeline.planning.freshness import Freshness
from pipeline.planning.recipe import OutputSpec
from pipeline.planning.selection import Selection
from pipeline.planning.unchanged import ComparedRange
from pipeline.records import dataclass
from pipeline.stage.recognition import suffix_of

# Does what `_make` of a named tuple does, in a third of its time.
_made: Any = tuple.__new__
# Suffixes that are kept in mind; some files have a date there, or a number.
_MOST_SUFFIXES = 256
# What a target has after `is_new`, and a job after its targets.
_NO_MORE = tuple(Target("", b""))[3:]
_PLAIN_JOB = tuple(Job(Source(b"", 0, 0), ()))[2:]


class JobTaker(Protocol):
    """Receives jobs of a plan that is not whole yet, and has them done."""

    def take(self, job: Job) -> bool:
        """Take a job that no other source contends with; return False where there is no room for it now."""
        ...

    def expect(self, compared: ComparedRange, sources: Sequence[Source]) -> None:
        """Called after a range of sources, of which some jobs may have been taken."""
        ...

    def go_on(self) -> None:
        """Called between two sources of which the first had no job to take."""
        ...


def why_whole_plan(config: Config, specs: Sequence[OutputSpec]) -> str:
    """Return why even the first run of a pipeline hands out no job before the plan is whole; empty where it does."""
    if config.engine != "pool":
        return f"engine: {config.engine} runs one job after the other"
    root = os.path.join(os.path.realpath(os.fsencode(config.inputs.root)), b"")
    writing = [(spec, spec.template) for spec in specs if isinstance(spec.template, Template)]
    for spec, template in writing:
        if root.startswith(os.path.join(os.path.realpath(template.folder), b"")):
            return f"the outputs of stage {spec.stage!r} may lie among the inputs"
        if template.rivals == "any" and not spec.gathers:
            return f"files of different folders may have the same output of stage {spec.stage!r}, {template.text}"
    for (one, first), (other, second) in combinations(writing, 2):
        if may_meet(first, second):
            return f"outputs of the stages {one.stage!r} and {other.stage!r} may have the same path"
    return ""


def describe_streaming(config: Config, specs: Sequence[OutputSpec]) -> str:
    """Return a sentence that says whether the pipeline streams, and why if it does not."""
    if why := why_whole_plan(config, specs):
        return f"does not stream, but makes a whole plan first: {why}"
    return "a first run streams: it makes outputs while its files are still being listed"


def is_first_run(config: Config, ledger: Ledger, selection: Selection) -> bool:
    """Return whether all files are selected, nothing was ever made or tried, and the output folders are empty."""
    return (
        not selection.is_partial
        and ledger.window is None
        and ledger.outputs.is_blank()
        and not ledger.failures.has_any
        and all(is_empty_but_for_owner(folder) for folder in config.output_folders)
    )


@dataclass
class _Waiting:
    """The jobs of sources with one stem, which wait for others that may come."""

    stem: bytes
    """The path of the sources without what follows their stem."""
    jobs: list[Job]
    is_contested: bool = False
    """True if several sources have this stem."""


class FirstJobs:
    """Makes the jobs of a first run, source by source, and finds those that several sources contend for."""

    def __init__(self, specs: Sequence[OutputSpec], freshness: Freshness) -> None:
        self._specs = specs
        self._freshness = freshness
        self._folders = OutputFolders()
        self._folder: bytes | None = None
        """The folder of the source in hand, which ends in a slash."""
        self._enough = [set[bytes]() for _ in specs]
        """For each output suffixes of which every file is taken."""
        self._places: list[tuple[OutputSpec, set[bytes], bytes, bool]] = []
        """Each output with those suffixes, and what `_place_in` finds of the sources in that folder."""
        self.have_rivals = any(each.template.rivals != "none" for each in specs if isinstance(each.template, Template))
        """True if the outputs of several sources may have one path."""
        self._waiting: list[_Waiting] = []
        """Those that the walk may still bring rivals of; each of them begins as the one before it does."""

    def job_of(self, source: Source) -> Job | None:
        """Return the job of a source, without targets where no stage takes it.

        None where there is more to be said: the source is settling, has no valid path, or there is a file already.
        """
        if self._freshness.is_settling(source):
            return None
        path, targets = source.path, []
        at = path.rfind(b"/") + 1
        folder, name = path[:at], path[at:]
        if folder != self._folder:
            self._folder = folder
            of_specs = zip(self._specs, self._enough, strict=True)
            self._places = [(spec, enough, *_place_in(spec, path, name)) for spec, enough in of_specs]
        suffix = name[name.rfind(b".") :]  # without a dot the last byte, which is as good
        for spec, enough, place, is_there in self._places:
            if suffix not in enough and not self._is_taken(source, spec, suffix, enough):
                continue
            if spec.matches and not spec.matches(path):
                continue
            if place:
                filled = place + name
            else:
                try:
                    filled = spec.fill(path)
                except FileFailure:
                    return None
                is_there = spec.template.has_file
            if is_there and self._folders.has(filled):
                return None
            targets.append(_made(Target, (spec.stage, filled, True, *_NO_MORE)))
        job: Job = _made(Job, (source, tuple(targets), *_PLAIN_JOB))
        return job

    def _is_taken(self, source: Source, spec: OutputSpec, suffix: bytes, enough: set[bytes]) -> bool:
        """Return whether a stage can take a source, and add its suffix to those that are enough to tell, if it is."""
        if self._freshness.is_enough(suffix_of(source.path), spec):
            if len(enough) < _MOST_SUFFIXES:
                enough.add(suffix)
            return True
        return self._freshness.is_taken(source, spec)

    def in_turn(self, source: Source, job: Job | None) -> Iterator[tuple[Job, bool]]:
        """Yield the jobs that wait for no other source any more, each with whether none contends with it.

        `job` is None for a source that is decided about elsewhere, and may contend with others.
        """
        yield from self._passed(source.path)
        stem = _stem_of(source.path)
        there = next((each for each in self._waiting if each.stem == stem), None)
        if there is None:
            self._waiting.append(_Waiting(stem, [job] if job else [], is_contested=job is None))
        else:
            there.is_contested = True
            there.jobs += [job] if job else []

    def rest(self) -> Iterator[tuple[Job, bool]]:
        """Yield the jobs that wait at the end of the walk."""
        yield from self._passed(None)

    def _passed(self, path: bytes | None) -> Iterator[tuple[Job, bool]]:
        """Yield the jobs of which the walk brings no rival after a path.

        It goes in byte order, and `/` is the byte after `.`, so that every STEM.* lies before STEM/.
        """
        while self._waiting and (path is None or self._waiting[-1].stem + b"/" <= path):
            last = self._waiting.pop()
            for job in last.jobs:
                yield job, not last.is_contested


def _place_in(spec: OutputSpec, path: bytes, name: bytes) -> tuple[bytes, bool]:
    """Return what comes before the name in the path of an output, which is that of its source, and whether it exists.

    The first is empty where the template has to be filled in for each source.
    """
    template = spec.template
    if not (spec.is_plain and isinstance(template, Template) and template.folder_and_name):
        return b"", True
    try:
        filled = spec.fill(path)
    except FileFailure:
        return b"", True
    if not template.folder_and_name.keeps_name or not filled.endswith(b"/" + name):
        return b"", True
    place = filled[: -len(name)]
    return place, os.path.lexists(place)


def _stem_of(path: bytes) -> bytes:
    """Return a path without the suffix of its name, as `{stem}` has it."""
    at, dot = path.rfind(b"/") + 1, path.rfind(b".")
    return path[:dot] if at < dot < len(path) - 1 else path
