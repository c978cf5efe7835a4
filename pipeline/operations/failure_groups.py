"""Groups the failures on record: by their reason, what their files share, whose fault that is, and what to do next.

What files share is told only where it is telling: nearly all of a group have it, few of all sources of the stage have,
and that is no accident of few files. Whose fault it is can only be likely.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache, partial
from typing import Literal

from pipeline.ledger.failure_traits import Trait, joined_sizes, traits_of
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import is_group
from pipeline.messages import KILLED
from pipeline.records import dataclass
from pipeline.text import in_general

# Groups that are described; of the others only the files are counted.
_DESCRIBED = 10
# Groups that are told apart while failures are counted: texts that all differ must fill no memory.
_MOST_GROUPS = 1000
# With more groups those of one file are one group: nobody reads so many, and what differs there is the text.
_MOST_REASONS = 100
_DIFFERENT = "different reasons"
# How many files are named as examples.
_EXAMPLES = 3
# A trait is told if so large a share of the group has it, at least so many files and so many times as often as among
# all sources, and the odds against it are so high: of a thousand groups that share nothing one would seem to.
_LEAST_SHARE, _LEAST_FILES, _LEAST_LIFT, _LEAST_EVIDENCE = 0.8, 3, 2.0, math.log(1000)
# How many traits of a group are told.
_TOLD = 3
# From so many files on one stage, rather than each file, is the likelier cause.
_MANY_FILES = 3
# The text of an exception of the user's code, as worker/stage_call.py writes it.
_EXCEPTION = re.compile(r"([A-Za-z_]\w*)(?:: (.*))? \(in stage '[^']*'\)", re.DOTALL)
# Exceptions by which Python says that a program, a service or a disk fails.
_OF_MACHINE = re.compile(
    r"OSError|IOError|Connection\w*|Timeout\w*|BrokenPipe\w*|\w*URLError|HTTPError|gaierror|\w*Timeout"
)

Who = Literal["file", "stage", "machine", "pipeline", "nobody", "unknown"]


@dataclass(frozen=True)
class Shared:
    """What all or nearly all files of a group have, and few others."""

    trait: Trait
    files: int
    """How many files of the group have it."""
    share: float
    """The share of all sources of the stage that have it."""


@dataclass(frozen=True)
class LedgerGroup:
    """Failures for one reason; files count once, whatever was to be made of them."""

    kind: str
    reason: str
    """The error, without what differs between the files."""
    place: str
    """Where in the user's code they failed; empty if that is not known."""
    stages: Sequence[str]
    """The stages whose outputs failed, the foremost first."""
    files: int
    new_files: int
    """How many of them failed in the last run for the first time."""
    examples: Sequence[bytes]
    shared: Sequence[Shared]
    who: Who
    """Whose fault it likely is."""
    why: str
    """The reason to think so."""
    is_any_held: bool
    run: str
    """The name of the last run in which one of them failed."""
    holds: Callable[[Failure], bool]
    """Whether a failure is one of this group."""


@dataclass(frozen=True)
class Failing:
    """The failures on record, as a person needs them first; those that were dismissed are only counted.

    A file counts once, whatever was to be made of it, and where one of its outputs is new or held, as that.
    """

    files: int
    new_files: int
    recent_files: int
    """How many files failed for the first time within the last 24 hours."""
    held_files: int
    dismissed_files: int
    groups: Sequence[LedgerGroup]
    """The groups with the most files, those with new ones first."""
    more_groups: int
    more_files: int


class _Files:
    """Counts the files of failures that come in the order of their sources."""

    def __init__(self) -> None:
        self.count = 0
        self._last = b""

    def add(self, failure: Failure, counts: bool = True) -> None:
        """Count the file of a failure, unless it is counted, or does not count."""
        if counts and failure.source != self._last:
            self.count += 1
            self._last = failure.source


@dataclass
class _Tally:
    """What is counted of a group in a first pass over the failures."""

    reason: str
    files: _Files = field(default_factory=_Files)
    new: _Files = field(default_factory=_Files)
    has_one_text: bool = True
    is_tried: bool = False
    is_any_held: bool = False
    most_attempts: int = 0
    run: str = ""


Key = tuple[str, str, str]
"""Kind, reason and place of a group."""


def group_failures(ledger: Ledger, is_held: Callable[[Failure], bool], last_run_ns: int, recent_ns: int) -> Failing:
    """Group the failures of a ledger.

    Args:
        ledger: The ledger.
        is_held: Whether a failure is not tried again.
        last_run_ns: When the last run began: what has failed since then for the first time is new.
        recent_ns: When the last 24 hours began.
    """
    keys, tallies = _Keys(ledger), dict[Key, _Tally]()
    files, new, recent, held, dismissed = (_Files() for _ in range(5))
    for failure in ledger.failures.all():
        if failure.dismissed_at is not None:
            dismissed.add(failure)
            continue
        is_new, is_left_alone = failure.is_new_since(last_run_ns), is_held(failure)
        files.add(failure)
        held.add(failure, is_left_alone)
        new.add(failure, is_new)
        recent.add(failure, failure.is_new_since(recent_ns))
        _count(tallies.setdefault(keys.of(failure), _Tally(failure.error)), failure, is_new, is_left_alone)
    ranked = sorted(tallies, key=lambda key: (not tallies[key].new.count, -tallies[key].files.count))
    described = _described(ledger, keys, {key: tallies[key] for key in ranked[:_DESCRIBED]})
    rest = ranked[_DESCRIBED:]
    return Failing(
        files=files.count,
        new_files=new.count,
        recent_files=recent.count,
        held_files=held.count,
        dismissed_files=dismissed.count,
        groups=described,
        more_groups=len(rest),
        more_files=sum(tallies[key].files.count for key in rest),
    )


def _count(tally: _Tally, failure: Failure, is_new: bool, is_held: bool) -> None:
    tally.files.add(failure)
    tally.new.add(failure, is_new)
    tally.has_one_text = tally.has_one_text and failure.error == tally.reason
    tally.is_tried = tally.is_tried or failure.tried
    tally.is_any_held = tally.is_any_held or is_held
    tally.run = max(tally.run, failure.run)
    tally.most_attempts = max(tally.most_attempts, failure.attempts)


# -- reasons -----------------------------------------------------------------------------------------------------------


class _Keys:
    """Gives the group of each failure: the same for the same failure whenever it is asked."""

    def __init__(self, ledger: Ledger) -> None:
        files, of_source, last = Counter[Key](), set[Key](), b""
        for failure in ledger.failures.all():
            if failure.source != last:
                of_source.clear()
                last = failure.source
            key = _key_of(failure)
            if failure.dismissed_at is None and key not in of_source:
                of_source.add(key)
                files[key] += 1
            if len(files) > 2 * _MOST_GROUPS:
                files = Counter(dict(files.most_common(_MOST_GROUPS)))
        are_few = len(files) <= _MOST_REASONS
        self._known = {key for key, count in files.most_common(_MOST_GROUPS) if are_few or count > 1}

    def of(self, failure: Failure) -> Key:
        """Return kind, reason and place."""
        key = _key_of(failure)
        return key if key in self._known else (failure.kind, _DIFFERENT, "")

    def is_in(self, key: Key, failure: Failure) -> bool:
        """Return whether a failure that nobody has dismissed is in a group."""
        return failure.dismissed_at is None and self.of(failure) == key


def _key_of(failure: Failure) -> Key:
    """Return kind, reason and place of a failure, as a run groups what it tells: of an exception, its class."""
    return failure.kind, _in_general(failure.error), failure.place


_in_general = lru_cache(4096)(in_general)


def _name_of(error: str) -> str:
    """Return the class of an exception of the user's code; empty for any other error."""
    return found[1] if (found := _EXCEPTION.fullmatch(error)) else ""


def without_stage(error: str) -> str:
    """Return an error without the stage that it names at its end."""
    found = _EXCEPTION.fullmatch(error)
    return error if found is None else f"{found[1]}: {found[2]}" if found[2] else found[1]


# -- what they share ---------------------------------------------------------------------------------------------------


def _described(ledger: Ledger, keys: _Keys, tallies: dict[Key, _Tally]) -> list[LedgerGroup]:
    """Return groups with what their files share, by a second pass over the failures."""
    traits = {key: Counter[Trait]() for key in tallies}
    stages = {key: Counter[str]() for key in tallies}
    examples: dict[Key, list[bytes]] = {key: [] for key in tallies}
    last: dict[Key, bytes] = {}
    for failure in ledger.failures.all():
        key = keys.of(failure)
        if failure.dismissed_at is not None or key not in tallies:
            continue
        stages[key][failure.stage] += 1
        if last.get(key) != failure.source:
            last[key] = failure.source
            traits[key].update(each for each in traits_of(failure) if _may_tell(each, failure))
            if len(examples[key]) < _EXAMPLES:
                examples[key].append(failure.source)
    candidates = {key: _candidates(traits[key], tally.files.count) for key, tally in tallies.items()}
    foremost = {key: [stage for stage, _ in stages[key].most_common()] for key in tallies}
    usual = _Usual(ledger, [(foremost[key][0], candidates[key]) for key in tallies])
    found = []
    for key, tally in tallies.items():
        total, having = usual.totals[foremost[key][0]], usual.having[foremost[key][0]]
        shared = list(_telling(candidates[key], having, tally.files.count, total))
        is_whole, holds = tally.files.count >= total, partial(keys.is_in, key)
        found.append(_group(key, tally, foremost[key], examples[key], shared, holds, is_whole=is_whole))
    return found


def _may_tell(trait: Trait, failure: Failure) -> bool:
    """Return whether a trait may explain a failure: that files are in one worker often means that they are neighbours.

    A batch has files that follow each other, so only of what a machine does to a worker its number tells anything.
    """
    return trait.what != "worker" or failure.kind in KILLED or _is_of_machine(failure.error)


def _is_of_machine(error: str) -> bool:
    return _OF_MACHINE.fullmatch(_name_of(error)) is not None


class _Usual:
    """How many of all sources of each stage have the traits that are looked at: one pass over its records for all."""

    def __init__(self, ledger: Ledger, asked: Iterable[tuple[str, Iterable[Trait]]]) -> None:
        of_stages: dict[str, dict[Trait, int]] = {}
        for stage, traits in asked:
            of_stages.setdefault(stage, {}).update(dict.fromkeys(traits, 0))
        self.totals, self.having = dict[str, int](), dict[str, dict[Trait, int]]()
        for stage, of_stage in of_stages.items():
            self.totals[stage], counts = ledger.failures.count_having(stage, list(of_stage))
            self.having[stage] = dict(zip(of_stage, counts, strict=True))


def _candidates(counts: Counter[Trait], files: int) -> dict[Trait, int]:
    """Return the traits that enough files of a group have, each with their number."""
    sizes = {trait: count for trait, count in counts.items() if trait.what == "size"}
    joined = {
        wide: sum(count for each, count in sizes.items() if wide.covers(each)) for wide in joined_sizes(list(sizes))
    }
    least = max(_LEAST_FILES, _LEAST_SHARE * files)
    return {trait: count for trait, count in (counts | Counter(joined)).items() if count >= least}


def _telling(candidates: Mapping[Trait, int], having: Mapping[Trait, int], files: int, total: int) -> Iterator[Shared]:
    """Yield what is telling, the foremost first: one folder, one suffix, and so on."""
    found: dict[str, tuple[float, int, Shared]] = {}
    for trait, count in candidates.items():
        share, usual = count / files, max(having[trait], count) / max(total, files)
        evidence = files * _divergence(share, usual)
        if share < _LEAST_LIFT * usual or evidence < _LEAST_EVIDENCE:
            continue
        # Of a folder and the only one in it the inner one; of a range of sizes and a wider one the narrower.
        narrowness = len(trait.first) if isinstance(trait.first, bytes) else trait.first - trait.after
        if trait.what not in found or (evidence, narrowness) > found[trait.what][:2]:
            found[trait.what] = evidence, narrowness, Shared(trait, count, usual)
    ranked = sorted(found.values(), key=lambda each: each[0], reverse=True)
    return (shared for *_, shared in ranked[:_TOLD])


def _divergence(share: float, usual: float) -> float:
    """Return how much a share tells against the usual one, for each file: the divergence of Kullback and Leibler.

    By the bound of Chernoff, n files that are picked at random have at least that share with odds of exp(-n times it).
    """
    rest = (1 - share) * math.log((1 - share) / (1 - usual)) if share < 1 and usual < 1 else 0.0
    return share * math.log(share / usual) + rest


# -- whose fault it is -------------------------------------------------------------------------------------------------


def _group(
    key: Key, tally: _Tally, stages: list[str], examples: list[bytes], shared: list[Shared],
    holds: Callable[[Failure], bool], *, is_whole: bool,
) -> LedgerGroup:  # fmt: skip
    kind, reason, place = key
    who, why = _blame(kind, tally, examples, shared, place, is_whole=is_whole)
    if reason == _DIFFERENT:
        who, why = "unknown", ""
    return LedgerGroup(
        kind=kind,
        reason=without_stage(tally.reason) if tally.has_one_text else reason,
        place=place,
        stages=stages,
        files=tally.files.count,
        new_files=tally.new.count,
        examples=examples,
        shared=shared,
        who=who,
        why=why,
        is_any_held=tally.is_any_held,
        run=tally.run,
        holds=holds,
    )


def _blame(
    kind: str, tally: _Tally, examples: list[bytes], shared: list[Shared], place: str, *, is_whole: bool
) -> tuple[Who, str]:
    """Return whose fault a group of failures likely is, and the reason to think so."""
    name, is_of_machine = _name_of(tally.reason), _is_of_machine(tally.reason)
    what = {each.trait.what for each in shared}
    if kind == "collision":
        return "pipeline", "the place of the output is taken"
    if kind == "interrupted":
        return "nobody", f"the run was stopped while {'it was' if tally.files.count == 1 else 'they were'} in hand"
    if not tally.is_tried:
        of_members = is_group(examples[0])
        return ("nobody", "members of the group failed") if of_members else ("machine", "it refused the file")
    if "worker" in what and "folder" not in what:
        return "machine", "all in one worker"
    if "night" in what and tally.most_attempts <= 1 and (kind in KILLED or is_of_machine):
        return "machine", "all in one night"
    if is_whole and tally.files.count >= _MANY_FILES:
        return "stage", "all of its files fail alike, so it is the stage or what it needs"
    if is_of_machine and tally.files.count >= _MANY_FILES:
        return "machine", "a program, a service or a disk that the stage needs"
    if what & {"folder", "suffix", "size"}:
        return "file", "by what they share"
    if is_whole:
        return "unknown", ""
    return _blame_by_number(kind, tally, bool(name or place or tally.reason.startswith("stage ")))


def _blame_by_number(kind: str, tally: _Tally, is_of_code: bool) -> tuple[Who, str]:
    """Return whose fault failures are whose files share nothing telling."""
    if tally.files.count < _MANY_FILES:
        return "file", "others are made by the same stage"
    if kind == "memory":
        return "machine", "too little memory for what is done at a time"
    if kind in KILLED or is_of_code:
        return "stage", "different files that share nothing telling"
    return "file", "they are not what their reader needs"
