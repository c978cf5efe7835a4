"""Answers a run from one small file, the note, where nothing has changed since a run that left nothing to be done.

    a run that left nothing to be done  --> note: all that this rests on, and the counts that the next run will have
    the next run, before it imports     --> is all of that as it was? "unchanged", with those counts, or "do not know"

It never answers "changed": whatever is odd leaves the answer to an ordinary run. The answer rests on

    the question    the file and its text, the working folder, `sys.path`, and the modules of Python and filemill
    the reading     what the pipeline was read from (`Evidence`), and all else whose contents count as code
    the memory      the files in the state folder, by their stamps
    the places      the inodes of the folders, what is mounted there, their owner files, the host, and that it was not
                    restarted since
    the files       the digest of every range of sources, with their outputs, in the walk of the ordinary run, and
                    that of the outputs of groups

A note is left only by a run over everything after which every range of sources is on record as unchanged, and which had
nothing to say that the next would not say again. Every writer of the ledger removes it before it opens that. Damage to
a ledger that keeps its stamps is found by the next run that opens it.

Where nothing but files has changed, the ranges that are as they were are told to the ordinary run, whose plan looks at
the others alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.evidence import MAX_BYTES, Evidence, guess_state, is_young, question
from pipeline.files import hashlib
from pipeline.files.clocks import boot_id
from pipeline.files.digest import contents_of
from pipeline.files.file_system import MountPoints, open_regular, read_regular
from pipeline.files.quiet_runs import QuietRun, add_quiet_run, has_many_quiet_runs
from pipeline.files.state_dir import NOTE_FILE, QUIET_RUNS_FILE, TOLD_FILE, State, reopen_state
from pipeline.files.template import OWNER_FILE, Template
from pipeline.ledger.origins import GROUPS
from pipeline.operations.side_process import beside, can_help
from pipeline.planning.ranges import DiskDigests, HeldRange, Looked, ranges_of, walk_by
from pipeline.records import dataclass
from pipeline.stage.counted import Stamp, stamp_of

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.ledger.ledger import UnchangedRange
    from pipeline.operations.run_context import RunContext
    from pipeline.report.summary import Summary

_DIGEST_BYTES = 16
# From so many ranges on, of about a thousand files each, a second process saves more than it costs.
_MANY_RANGES = 8
# What comes and goes in a state folder without a writer of the ledger.
_VOLATILE = {NOTE_FILE, f"{NOTE_FILE}.new", QUIET_RUNS_FILE, "scratch", "slots", "reports", "progress.new",
             TOLD_FILE, f"{TOLD_FILE}.new"}  # fmt: skip
# Those that every run writes to; the lock tells nothing, and the progress is a report.
_NOT_STAMPED = {"lock", "progress.json"}


@dataclass(frozen=True)
class UnchangedNote:
    """All that the answer "nothing to do" rests on, as JSON can hold it."""

    run: str
    """The run that left the note, which is the last one in the ledger."""
    yaml: str
    """The name of the pipeline's file."""
    evidence: dict[str, Any]
    contents: dict[str, Any]
    """The stamps of what counts as code and is not in the evidence: tables, options' files, code that calls load."""
    digests: dict[str, str]
    """The digest of each of these files that was written to shortly before: its stamp alone is not enough."""
    state: str
    places: dict[str, Any]
    """What tells which folders those are, as `_places` has it."""
    walk: dict[str, Any]
    """The arguments of the walk."""
    outputs: Outputs
    """Those of files."""
    groups: Outputs | None
    """Those of groups; None without any."""
    group_digest: list[str]
    """The digest of the outputs of groups and its layout, in hex."""
    members: str
    """The digest of all ranges, in hex."""
    ranges: list[Any]
    """The first source, the digest and the layout of each range in hex, and its sources by folder below the root."""
    left_out: list[str]
    """What the run said of the files that the walk leaves out."""
    said: dict[str, Any]
    """The fields of the run's summary that the next one has too."""
    telling: dict[str, Any] | None = None
    """Who is told of the runs, as telling.py has it; None for nobody."""
    memory: dict[str, Any] | None = None
    """The stamps of the files in the state folder, once the ledger is closed."""


# -- leaving a note ----------------------------------------------------------------------------------------------------


def note_of(context: RunContext) -> UnchangedNote | None:
    """Return the note of a run whose ledger is about to be closed; None unless it has left nothing to be done."""
    # The run has these loaded; whoever only asks the note must not load them.
    from pipeline.planning.plan import walk_arguments
    from pipeline.planning.unchanged import GroupDigests, RangeDigests, digest_of_ranges

    config, evidence = context.config, context.config.evidence
    if evidence is None or not _is_whole(context) or not _left_nothing(context):
        return None
    plan, walk, ranges = context.plan, context.plan.walk, _ranges_on_record(context)
    groups = context.ledger.unchanged.get(GROUPS[0])
    if not ranges or (groups is None and any(spec.gathers for spec in plan.specs)):
        return None
    code = context.code.state.stamps
    paths = sorted({*code, *(os.path.join(path[:-3], "__init__.py") for path in code if path.endswith(".py"))})
    contents = {path: code.get(path, stamp_of(path)) for path in paths if path not in evidence.stamps}
    summary, digests = context.summary, _young_digests(context, contents)
    if digests is None:
        return None
    folders = list(config.output_folders)
    try:
        places = _places(str(config.inputs.root), list(map(os.fsdecode, folders)))
    except OSError:  # a folder has gone since
        return None
    return UnchangedNote(
        run=context.state.run,
        yaml=config.file.name,
        evidence=evidence.as_json(),
        contents=contents,
        digests=digests,
        state=str(config.state),
        places=places,
        walk=walk_arguments(config),
        outputs=_outputs_as_json(RangeDigests(config, [spec for spec in plan.specs if not spec.gathers])),
        groups=_outputs_as_json(GroupDigests(config, plan.specs)) if groups else None,
        group_digest=[groups.digest.hex(), groups.layout.hex()] if groups else [],
        members=digest_of_ranges(known.digest for known in ranges).hex(),
        ranges=[
            [
                os.fsdecode(known.first),
                known.digest.hex(),
                known.layout.hex(),
                [(os.fsdecode(top), files) for top, files in each.tops],
            ]
            for each, known in zip(plan.ranges, ranges, strict=True)
        ],
        left_out=walk.describe_left_out(),
        said=_said(summary, [*ranges, *([groups] if groups else [])]),
        telling=_telling(config),
    )


def _young_digests(context: RunContext, contents: dict[str, Any]) -> dict[str, str] | None:
    """Return the digest of each file whose stamp is too young to be enough; None if one was not read by this run."""
    from pipeline.planning.recipe import contents_read

    began_ns = time.time_ns() - round(context.summary.seconds * 1e9)
    young = [path for path, stamp in contents.items() if stamp and is_young(stamp, began_ns)]
    if not set(young) <= set(contents_read(context.config)):
        return None
    return {path: context.ledger.file_digests.digest(Path(path)) for path in young}


def _said(summary: Summary, ranges: Sequence[UnchangedRange]) -> dict[str, Any]:
    """Return the fields of a summary that the next one has too, which finds every output of these ranges up to date."""
    return {
        "pipeline": summary.pipeline,
        "up_to_date": sum(outputs for known in ranges for outputs, _ in known.counts.values()),
        "sources": summary.sources,
        "kinds_unmatched": dict(summary.kinds_unmatched),
        "notes": list(summary.notes),
    }


def _telling(config: Config) -> dict[str, Any] | None:
    if not config.is_told:
        return None
    from pipeline.operations.telling import Settings

    return vars(Settings.of(config))


def _ranges_on_record(context: RunContext) -> list[UnchangedRange]:
    """Return what is recorded of every range of the walk; nothing where one is not known to be unchanged."""
    plan, unchanged = context.plan, context.ledger.unchanged
    found = [known for each in plan.ranges if (known := unchanged.get(each.first))]
    is_whole = len(found) == len(plan.ranges) and sum(known.sources for known in found) == plan.sources
    follow_each_other = all(known.after == after.first for known, after in pairwise(found))
    return found if is_whole and follow_each_other and found and found[-1].after is None else []


def _left_nothing(context: RunContext) -> bool:
    """Return whether all is made that a plan knows of, and there is nothing else to keep or to wait for.

    What the summary notes must be what the next one would: warnings, and what the walk leaves out.
    """
    if not context.is_planned:
        return False
    plan, summary, walk = context.plan, context.summary, context.plan.walk
    counts = summary.as_json()
    return (
        summary.exit == 0
        and not summary.stopped
        and plan.compared is not None
        and not plan.lost
        and not any(counts.get(key) for key in _SIGNS_OF_MORE)
        and next(plan.store.orphans(), None) is None
        and next(context.ledger.failures.all(), None) is None
        and not (walk.unlisted or walk.owned or walk.is_misled)
        and summary.notes == [*context.config.warnings, *walk.describe_left_out()]
    )


# The counts of a summary of which any tells that the next run may find something to do, or say something else.
_SIGNS_OF_MORE = (
    "failed", "held", "pruned", "edited", "set_aside", "dismissed", "settling", "vanished",
)  # fmt: skip


def _is_whole(context: RunContext) -> bool:
    """Return whether the run was about all files, without an option that matters, and the ledger was certain."""
    selection, confirmed, ledger = context.selection, context.request.confirmations, context.ledger
    return not (
        selection.is_partial
        or selection.force
        or selection.retry_failed
        or confirmed.rebuild
        or confirmed.take_over
        or context.config.edits
        or context.config.changed_by == "hash"
        or context.unclean_runs
        or ledger.window
        or ledger.notes
        or ledger.is_suspect
    )


def keep_note(note: UnchangedNote, state: State) -> None:
    """Keep a note in a state that is still locked, and whose ledger is closed; without it the next run looks itself."""
    with suppress(OSError):
        data = json.dumps(vars(note) | {"memory": _memory(note.state)}).encode()
        state.keep_note(_digest(data) + data)


# -- asking the note ---------------------------------------------------------------------------------------------------


def answer_unchanged(file: Path) -> Summary | Looked | None:
    """Answer a run without options from the note of the run before.

    Returns:
        The summary, if nothing has changed; which files are as they were, if nothing else has; None where that is not
        known.
    """
    began_ns, began = time.time_ns(), time.monotonic()
    try:
        note = _read_note(file)
        state = reopen_state(Path(note.state)) if note else None
        if note is None or state is None:
            return None
        with closing(state):
            if has_many_quiet_runs(state.folder) or not _holds(note):
                return None
            held = _held_ranges(note, state.lock_fd)
            if held and all(held) and (note.groups is None or _groups_are_same(note)):
                return _record(note, state, began_ns, began)
            return _looked(note, held) if held else None
    except Exception:  # whatever it is, the ordinary run meets it too, and says what it is
        return None


def _read_note(file: Path) -> UnchangedNote | None:
    """Return the note of the pipeline in a file, if it answers what is asked now. Raises OSError, ValueError."""
    with open_regular(file) as opened:
        text = opened.read(MAX_BYTES)
    asked = question(file, (), text)
    folder = guess_state(asked, text)
    packed = read_regular(folder / NOTE_FILE)
    data = packed[_DIGEST_BYTES:]
    if _digest(data) != packed[:_DIGEST_BYTES]:
        return None
    note = UnchangedNote(**json.loads(data))
    return note if note.state == str(folder) and note.evidence["asked"] == _as_json(vars(asked)) else None


def _holds(note: UnchangedNote) -> bool:
    """Return whether all that a note rests on is as it was, but for the files."""
    return (
        _as_json(_memory(note.state)) == note.memory
        and _as_json(_places(note.walk["root"], note.places["outputs"])) == note.places
        and _as_json({path: stamp_of(path) for path in note.contents}) == note.contents
        and all(contents_of(Path(path)) == digest for path, digest in note.digests.items())
        and Evidence.from_json(note.evidence).holds()
    )


# -- looking at the files ----------------------------------------------------------------------------------------------


def _held_ranges(note: UnchangedNote, lock_fd: int) -> list[bool]:
    """Return for each range whether the walk meets it as it was; nothing if the walk meets anything else.

    Two processes look at one half each. What is left out is said in its order, and so one walk must meet all of it.
    """
    ranges, middle = range(len(note.ranges)), len(note.ranges) // 2
    if len(note.ranges) < _MANY_RANGES or note.left_out or not can_help():
        return _held_within(note, ranges)
    with beside(lambda: bytes(_held_within(note, ranges[middle:])), (lock_fd,)) as others:
        mine = _held_within(note, ranges[:middle])
        theirs = others()
    if not (mine and theirs):
        return []
    # The last of the first half ends where the second begins only if that has its first source still.
    mine[-1] = mine[-1] and bool(theirs[0])
    return [*mine, *map(bool, theirs)]


def _held_within(note: UnchangedNote, within: range) -> list[bool]:
    """Return for each of these ranges, which follow each other, whether the walk meets it as it was, as above."""
    digests, walk = _digests(note.outputs), walk_by(note.walk)
    firsts = [os.fsencode(first) for first, *_ in note.ranges]
    begin = firsts[within.start] if within.start else b""
    end = firsts[within.stop] if within.stop < len(firsts) else None
    numbers = {firsts[number]: number for number in within}
    held = dict.fromkeys(within, False)
    for sources, after in ranges_of(walk.within(begin, end)):
        number = numbers.get(sources[0].path)
        # A new range shows in the one before it, which ends earlier; but for one before all others.
        if number is None and sources[0].path < firsts[0]:
            return []
        if number is not None:
            _, digest, layout, _ = note.ranges[number]
            is_next = (after or end) == (firsts[number + 1] if number + 1 < len(firsts) else None)
            held[number] = is_next and digests.found(sources, bytes.fromhex(layout)).hex() == digest
    is_same = not (walk.unlisted or walk.owned or walk.is_misled) and walk.describe_left_out() == note.left_out
    return list(held.values()) if is_same else []


def _groups_are_same(note: UnchangedNote) -> bool:
    """Return whether the outputs of groups are as they were, if all their members are."""
    assert note.groups is not None
    digest, layout = note.group_digest
    return _digests(note.groups).found([], bytes.fromhex(layout), bytes.fromhex(note.members)).hex() == digest


def _looked(note: UnchangedNote, held: Sequence[bool]) -> Looked | None:
    """Return which ranges of files a plan need not look at; None if it must look at all, to say what is left out."""
    if note.left_out:
        return None
    afters = [*(os.fsencode(first) for first, *_ in note.ranges[1:]), None]
    found = tuple(
        HeldRange(os.fsencode(first), after, bytes.fromhex(digest), [(os.fsencode(top), files) for top, files in tops])
        for (first, digest, _, tops), after, is_held in zip(note.ranges, afters, held, strict=True)
        if is_held
    )
    return Looked(_digests(note.outputs).tree, json.dumps(note.walk), found)


def _record(note: UnchangedNote, state: State, began_ns: int, began: float) -> Summary:
    """Record a run that found nothing to do, and return its summary. Raises OSError."""
    from collections import Counter

    from pipeline.report.live import LiveProgress
    from pipeline.report.summary import Summary

    summary = Summary(run=state.run, **note.said | {"kinds_unmatched": Counter(note.said["kinds_unmatched"])})
    summary.seconds = time.monotonic() - began
    run = QuietRun(state.run, note.run, began_ns, time.time_ns(), summary.sources, summary.up_to_date)
    add_quiet_run(state.folder, run)
    LiveProgress(state, summary, note.yaml, yaml_digest=note.evidence["asked"]["text"]).on_end()
    if note.telling:
        from pipeline.operations.telling import tell_unchanged

        tell_unchanged(note.telling, summary)
    return summary


# -- what a note rests on ----------------------------------------------------------------------------------------------


def _memory(state: str) -> dict[str, Stamp | None]:
    """Return the stamps of the files in a state folder that tell whether anything has written to it."""
    return {
        name: None if name in _NOT_STAMPED else stamp_of(os.path.join(state, name))
        for name in sorted(os.listdir(state))
        if name not in _VOLATILE
    }


def _places(root: str, outputs: Sequence[str]) -> dict[str, Any]:
    """Return what tells that the folders are those that they were, on the same machine, and are ours."""
    mounts, around = MountPoints(), {}
    for folder in (root, *outputs):
        found, real = os.stat(folder), os.fsencode(os.path.realpath(folder))
        mounted = [mounts.above(real), *sorted(mounts.below(real))]
        around[folder] = [found.st_dev, found.st_ino, os.fsdecode(real), *map(os.fsdecode, mounted)]
    return {
        "outputs": list(outputs),
        "folders": around,
        "owners": [stamp_of(os.path.join(folder, OWNER_FILE)) for folder in outputs],
        "host": os.uname().nodename,
        "boot": boot_id(),
    }


Outputs = list[Any]
"""The tree of outputs, and the parts of their templates; None for an output without a file."""


def _outputs_as_json(digests: DiskDigests) -> Outputs:
    return [digests.tree.decode(), [each and _template_as_json(each) for each in digests.templates]]


def _template_as_json(template: Template) -> list[Any]:
    return [template.text, os.fsdecode(template.folder), os.fsdecode(template.written_folder), template.pieces]


def _digests(outputs: Outputs) -> DiskDigests:
    tree, templates = outputs
    return DiskDigests(tree.encode(), [each and _template_from_json(*each) for each in templates])


def _template_from_json(text: str, folder: str, written: str, pieces: Any) -> Template:
    kept = tuple(each if isinstance(each, str) else tuple(each) for each in pieces)
    return Template(text, os.fsencode(folder), os.fsencode(written), kept)


def _as_json(value: Any) -> Any:
    """Return a value as it is after it was kept as JSON."""
    return json.loads(json.dumps(value))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
