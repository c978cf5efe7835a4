"""Finds ranges of sources that are unchanged since the last run, by one digest each, to pass over them whole.

    walk   --> ranges of sources, with stat of them and of their outputs --> digest --+
                                                                                      +-- equal: nothing to do
    ledger --> the records of a range, after every run                   --> digest --+

So a run without changes reads one row of the ledger per thousand files. A changed range is compared file by file. The
outputs of all groups together are a range without sources, whose digest depends on those of all others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import chain, islice

import pipeline
from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files import hashlib
from pipeline.files.store import NO_FILE_STAT
from pipeline.files.template import NO_FILE_KEY, NoFile, Template
from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.origins import GROUPS
from pipeline.ledger.outputs import MadeRow, OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import UP_TO_DATE, Reason, without_particulars
from pipeline.planning.ranges import DiskDigests, Layout, digest_of_sources
from pipeline.planning.recipe import OutputSpec
from pipeline.records import dataclass
from pipeline.stage.recognition import can_be

Range = tuple[bytes, bytes | None]
"""The first path of a range of sources, and the first after it; None where the range has no end."""
Expects = Callable[[OutputSpec, bytes], bool]
"""Tells whether an output is made of a source."""

# The format of what a digest covers; a range recorded in another format is compared file by file once.
_FORMAT = 5
# The reasons why an output is up to date, as the ledger keeps them with a range; the last is that of sources that no
# stage takes, with their kind.
_MADE, _SKIPPED, _UNMATCHED = "up to date", "skipped: ", "unmatched: "
# The columns of a record that decide whether its output is up to date.
_SOURCE, _TARGET, _STATUS, _SOURCE_SIZE, _SOURCE_TIME, _RECIPE, _SIZE, _TIME, _IN_FLIGHT = map(
    OutputRecord._fields.index,
    ("source", "target", "status", "source_size", "source_mtime_ns", "recipe", "size", "mtime_ns", "in_flight"),
)
# The records of a range are in memory together; one with more, as of films in frames, is compared each time.
_MOST_RECORDS = 50_000


@dataclass(frozen=True)
class ComparedRange:
    """A range of which a plan has compared every file."""

    within: Range
    """The records to which it belongs."""
    first: bytes = b""
    """The first source; empty where the walk met none in it."""
    sources: int = 0
    others: tuple[int, ...] = ()
    """The positions of the sources that no stage takes."""
    digest_of_others: bytes = b""
    unmatched: Mapping[str, int] = field(default_factory=dict)
    """The number of those sources by their kind."""

    @classmethod
    def of(
        cls, within: Range, sources: Sequence[Source], others: Sequence[Source], kind_of: Callable[[Source], str]
    ) -> ComparedRange:
        """Return the range of these sources, of which no stage takes the `others`."""
        apart = {each.path for each in others}
        positions = tuple(at for at, each in enumerate(sources) if each.path in apart) if apart else ()
        kinds = Counter(map(kind_of, others))
        return cls(within, sources[0].path, len(sources), positions, digest_of_sources(others), kinds)


def settled_ranges(
    config: Config,
    ledger: Ledger,
    specs: Iterable[OutputSpec],
    ranges: Iterable[ComparedRange],
    made: Mapping[bytes, UnchangedRange],
) -> Iterator[UnchangedRange]:
    """Yield the ranges in which a run has left every output up to date; `made` are known to be so."""
    digests = RangeDigests(config, [spec for spec in specs if not spec.gathers])
    root = os.path.join(os.fsencode(config.inputs.root), b"")

    def expects(spec: OutputSpec, source: bytes) -> bool:
        if spec.matches and not spec.matches(source):
            return False
        return spec.reads is None or can_be(spec.reads, root, source, config.picture_suffixes)

    for each in ranges:
        if each.first and next(ledger.failures.all(*each.within, of_files=True), None) is None:
            records = ledger.outputs.all(*each.within, of_files=True)
            if settled := made.get(each.first) or digests.recorded(each, records, expects):
                yield settled


# -- the digests of ranges ---------------------------------------------------------------------------------------------


class RangeDigests(DiskDigests):
    """The digests of ranges, by their files on disk and by their records."""

    def __init__(self, config: Config, specs: Sequence[OutputSpec]) -> None:
        self.specs = specs
        # Without the stages' names: renaming a stage changes no output. Which kind a file is, is told by this version.
        tree = [(*_place_of(spec.template), spec.number, spec.has_parts, _selection_of(spec)) for spec in specs]
        super().__init__(
            f"{_FORMAT} {pipeline.__version__} {tree} {sorted(config.picture_suffixes)}".encode(),
            [spec.template if isinstance(spec.template, Template) else None for spec in specs],
        )

    def recorded(
        self, compared: ComparedRange, records: Iterable[OutputRecord], expects: Expects
    ) -> UnchangedRange | None:
        """Return the range of these records; None where an output of any of them is not up to date."""
        known = list(islice(records, _MOST_RECORDS + 1))
        columns = list(zip(*known, strict=True)) or [()] * len(OutputRecord._fields)
        # Each source once, as all its records must have it; those of a source are together.
        taken = list(dict.fromkeys(zip(columns[_SOURCE], columns[_SOURCE_SIZE], columns[_SOURCE_TIME], strict=True)))
        is_whole = len(taken) + len(compared.others) == compared.sources and len(known) <= _MOST_RECORDS
        if not is_whole or len(taken) > len({source for source, _, _ in taken}):
            return None
        for find in (self._by_name, self._by_target):
            by_output = find(known)
            if by_output is not None and (found := self._range(compared, taken, by_output, expects)):
                return found
        return None

    def made(self, compared: ComparedRange, taken: Sequence[Source], rows: Sequence[MadeRow]) -> UnchangedRange | None:
        """Return the range of sources whose outputs were all made, each as one file where its template leads.

        None if one has no file.
        """
        columns = list(zip(*rows, strict=True))
        if not all(map(all, columns[5::3])):
            return None
        paths, sizes, times = map(list, zip(*taken, strict=True)) if taken else ([], [], [])
        files = chain.from_iterable(zip(columns[3::3], columns[4::3], strict=True))
        numbers = [*sizes, *times, *chain.from_iterable(files)]
        layout = Layout(compared.others, (None,) * len(self.specs)).pack()
        digest = self.of(paths, numbers, layout, compared.digest_of_others)
        counts = {_MADE: (len(taken) * len(self.specs), len(taken))} if taken else {}
        return self._unchanged(compared, digest, counts, layout)

    def _by_name(self, records: Iterable[OutputRecord]) -> list[list[OutputRecord]] | None:
        """Return the records of each output, found by the names of their stages; None if a stage is unknown."""
        by_stage: dict[str, list[OutputRecord]] = {spec.stage: [] for spec in self.specs}
        for record in records:
            if (of_stage := by_stage.get(record.stage)) is None:
                return None
            of_stage.append(record)
        return list(by_stage.values())

    def _by_target(self, records: Iterable[OutputRecord]) -> list[list[OutputRecord]] | None:
        """Return the records of each output, found by their targets, since a stage may have been renamed."""
        by_output: list[list[OutputRecord]] = [[] for _ in self.specs]
        for record in records:
            fitting = (at for at, spec in enumerate(self.specs) if _leads_to(spec, record))
            if (at := next(fitting, None)) is None:
                return None
            by_output[at].append(record)
        return by_output

    def _range(
        self,
        compared: ComparedRange,
        taken: Sequence[tuple[bytes, int, int]],
        by_output: Sequence[Sequence[OutputRecord]],
        expects: Expects,
    ) -> UnchangedRange | None:
        """Return the range of these records; None where an output is not up to date.

        The records are compared column by column, since one by one takes several times as long.
        """
        sources, sizes, times = map(list, zip(*taken, strict=True)) if taken else ([], [], [])
        numbers, listed = sizes + times, list[tuple[bytes, ...] | None]()
        reasons, leaders = Counter[str](), dict[bytes, str]()
        for spec, records in zip(self.specs, by_output, strict=True):
            outputs = _OutputsOfRange.of(spec, sources, records, expects)
            if outputs is None:
                return None
            numbers += outputs.numbers
            listed.append(outputs.listed)
            reasons += outputs.reasons
            if len(leaders) < len(sources):
                leaders = outputs.leaders | leaders
        layout = Layout(compared.others, tuple(listed)).pack()
        digest = self.of(sources, numbers, layout, compared.digest_of_others)
        files = Counter(leaders.values())
        counts = {reason: (count, files[reason]) for reason, count in reasons.items()}
        return self._unchanged(compared, digest, counts, layout)

    @staticmethod
    def _unchanged(
        compared: ComparedRange, digest: bytes, counts: dict[str, tuple[int, int]], layout: bytes
    ) -> UnchangedRange:
        counts |= {_UNMATCHED + kind: (0, files) for kind, files in compared.unmatched.items()}
        return UnchangedRange(compared.first, compared.within[1], compared.sources, digest, counts, layout)


@dataclass(frozen=True)
class _OutputsOfRange:
    """What is recorded of one output of the tree in a range, in which all of it is up to date."""

    listed: tuple[bytes, ...] | None
    """The paths of its files, where they are not derived; as in `Layout`."""
    numbers: list[int]
    """The sizes and then the times of its files."""
    reasons: Mapping[str, int]
    leaders: dict[bytes, str]
    """For each source why its first output is up to date."""

    @classmethod
    def of(
        cls, spec: OutputSpec, sources: Sequence[bytes], records: Sequence[OutputRecord], expects: Expects
    ) -> _OutputsOfRange | None:
        """Return the outputs of these records; None where one is not up to date, or not on record."""
        if not are_settled(spec, records):
            return None
        parts = [each for each in records if each.part] if spec.has_parts else []
        wholes = [each for each in records if not each.part] if spec.has_parts else records
        of_sources = [each.source for each in wholes]
        if of_sources != sources:
            known = set(of_sources)
            missing = [each for each in sources if each not in known]
            if len(known) < len(wholes) or len(known) + len(missing) > len(sources):
                return None
            if any(expects(spec, each) for each in missing):
                return None
        # What was made of a file that no stage takes any more is kept; of one that matches no more it is an orphan.
        if any(not expects(spec, each.source) for each in wholes if spec.matches or each.status == "skipped"):
            return None
        if [each.target for each in wholes] != _targets(spec, wholes) or not _are_parts(spec, wholes, parts):
            return None
        is_derived = spec.template.has_file and not spec.has_parts and of_sources == sources
        if is_derived:
            reasons = [_kept_reason(each) for each in wholes]
            return cls(None, _numbers(wholes), Counter(reasons), dict(zip(of_sources, reasons, strict=True)))
        files = [each for each in (parts if spec.has_parts else wholes) if each.status == "done"]
        if not spec.template.has_file:
            files = []
        folder = spec.template.key(spec.template.folder)
        in_parts = Counter(each.source for each in parts)
        leaders = {each.source: _kept_reason(each) for each in wholes}
        reasons_of_all = Counter[str]()
        for each in wholes:
            reasons_of_all[leaders[each.source]] += in_parts[each.source] or 1
        return cls(tuple(each.target[len(folder) :] for each in files), _numbers(files), reasons_of_all, leaders)


def are_settled(spec: OutputSpec, records: Sequence[OutputRecord]) -> bool:
    """Return whether all records of an output are final and have its recipe."""
    if not records:
        return True
    columns = list(zip(*records, strict=True))
    return (
        not any(columns[_IN_FLIGHT])
        and set(columns[_RECIPE]) == {spec.number}
        and set(columns[_STATUS]) <= {"done", "skipped"}
    )


def _are_parts(spec: OutputSpec, wholes: Sequence[OutputRecord], parts: Sequence[OutputRecord]) -> bool:
    """Return whether these are the parts of what stands for all parts of each source."""
    done = {each.source for each in wholes if each.status == "done"}
    return all(each.source in done and each.status == "done" and _leads_to(spec, each) for each in parts)


def _leads_to(spec: OutputSpec, record: OutputRecord) -> bool:
    """Return whether an output of the tree has the recorded path, or would have it if its stage had its former name."""
    if spec.has_parts < bool(record.part):
        return False
    return _targets(spec, [record]) == [record.target]


def _targets(spec: OutputSpec, records: Sequence[OutputRecord]) -> list[bytes]:
    """Return the targets of an output of the sources of records; none where one of them has no valid path."""
    template = spec.template
    try:
        if isinstance(template, NoFile):  # a stage that was renamed is known by its recipe
            return [
                each.target
                if each.target.startswith(NO_FILE_KEY) and each.recipe == spec.number
                else template.fill(each.source, each.part or "")
                for each in records
            ]
        if spec.has_parts:
            return [
                template.key(template.fill(each.source, each.part) if each.part else spec.fill(each.source))
                for each in records
            ]
        return [template.target_of(each.source) for each in records]
    except FileFailure:
        return []


def _numbers(records: Sequence[OutputRecord]) -> list[int]:
    """Return the sizes of outputs and then their times, as they are on disk while nobody changes them."""
    if not records:
        return []
    columns = list(zip(*records, strict=True))
    are_done = [status == "done" for status in columns[_STATUS]]
    return [
        (number or 0) if done else NO_FILE_STAT
        for numbers in (columns[_SIZE], columns[_TIME])
        for number, done in zip(numbers, are_done, strict=True)
    ]


def _place_of(template: Template | NoFile) -> tuple[object, ...]:
    return (template.key(template.folder), template.pieces) if isinstance(template, Template) else ()


def _selection_of(spec: OutputSpec) -> object:
    """Return what decides of which sources an output is made."""
    return spec.route[0].match if spec.matches else (), spec.reads and spec.reads.name


# -- groups ------------------------------------------------------------------------------------------------------------


class GroupDigests(DiskDigests):
    """The digest of the outputs of all groups, by their files on disk and by their records."""

    def __init__(self, config: Config, specs: Iterable[OutputSpec]) -> None:
        self.specs = [spec for spec in specs if spec.gathers]
        tree = []
        for spec in self.specs:
            stage = spec.route[-1]
            assert stage.parent is not None
            made = config.stages[stage.parent]
            assert made.output is not None
            groups = stage.group and stage.group.text, stage.partial, made.name, _place_of(made.output.template)
            tree.append((_place_of(spec.template), spec.stage, spec.number, groups))
        super().__init__(
            f"{_FORMAT} {pipeline.__version__} {tree}".encode(),
            [spec.template if isinstance(spec.template, Template) else None for spec in self.specs],
        )

    def recorded(self, records: Iterable[OutputRecord], outputs: int, members: bytes) -> UnchangedRange | None:
        """Return the range of these records; None where an output is not up to date, or there are not so many.

        Args:
            records: All records of groups.
            outputs: The number of outputs that the plan has of groups.
            members: The digest of all ranges of files.
        """
        known = list(islice(records, _MOST_RECORDS + 1))
        by_stage: dict[str, list[OutputRecord]] = {spec.stage: [] for spec in self.specs}
        for record in known:
            if record.stage not in by_stage:
                return None
            by_stage[record.stage].append(record)
        numbers, listed = list[int](), list[tuple[bytes, ...]]()
        for spec, of_stage in zip(self.specs, by_stage.values(), strict=True):
            folder = spec.template.key(spec.template.folder)
            files = [each for each in of_stage if each.status == "done"] if spec.template.has_file else []
            if not are_settled(spec, of_stage) or not all(each.target.startswith(folder) for each in files):
                return None
            listed.append(tuple(each.target[len(folder) :] for each in files))
            numbers += _numbers(files)
        if len(known) != outputs or len(known) > _MOST_RECORDS:
            return None
        counts = {reason: (number, 0) for reason, number in Counter(map(_kept_reason, known)).items()}
        layout = Layout((), tuple(listed)).pack()
        return UnchangedRange(GROUPS[0], None, 0, self.of([], numbers, layout, members), counts, layout)


def digest_of_ranges(digests: Iterable[bytes]) -> bytes:
    """Return the digest of the digests of all ranges of files, in their order."""
    return hashlib.blake2b(b"".join(digests), digest_size=16).digest()


# -- reasons -----------------------------------------------------------------------------------------------------------


def _kept_reason(record: OutputRecord) -> str:
    """Return why an output is up to date, as the ledger keeps it with a range."""
    if record.status == "done":
        return _MADE
    return _SKIPPED + str(without_particulars(Reason("skipped", (record.reason,))).detail[0])


def reason_in_range(kept: str) -> Reason:
    """Return the reason that the ledger keeps with a range."""
    return UP_TO_DATE if kept == _MADE else Reason("skipped", (kept.removeprefix(_SKIPPED),))


def unmatched_kind(kept: str) -> str | None:
    """Return the kind of sources that no stage takes which the ledger keeps with a range; None for outputs."""
    return kept.removeprefix(_UNMATCHED) if kept.startswith(_UNMATCHED) else None
