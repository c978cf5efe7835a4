"""Answers a run from one small file, the note, where nothing has changed since a run that left nothing to be done.

    a run that left nothing to be done  --> note: all that this rests on, and the counts that the next run will have
    the next run, before it imports     --> is all of that as it was? "unchanged", with those counts, or "do not know"

It never answers "changed": whatever is odd leaves the answer to an ordinary run. The answer rests on

    the question    the file and its text, the working folder, `sys.path`, and the modules of Python and filemill
    the reading     what the pipeline was read from (`Evidence`), and all else whose contents count as code
    the memory      the files in the state folder, and the owner files in the output folders, by their stamps
    the places      the inodes of the folders, what is mounted there, the host, and that it was not restarted since
    the files       the digest of every range of sources, with their outputs, in the walk of the ordinary run

A note is left only by a run over everything after which every range of sources is on record as unchanged, and which had
nothing to say that the next would not say again. Every writer of the ledger removes it before it opens that. Damage to
a ledger that keeps its stamps is found by the next run that opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.evidence import MAX_BYTES, Evidence, guess_state, is_young, question
from pipeline.files.clocks import boot_id
from pipeline.files.digest import contents_of
from pipeline.files.file_system import MountPoints, open_regular, read_regular
from pipeline.files.quiet_runs import QuietRun, add_quiet_run
from pipeline.files.state_dir import NOTE_FILE, QUIET_RUNS_FILE, State, reopen_state
from pipeline.files.store import store_of
from pipeline.files.template import OWNER_FILE, Template
from pipeline.planning.ranges import DiskDigests, RangeOutput, ranges_of
from pipeline.records import dataclass
from pipeline.stage.counted import Stamp, stamp_of

if TYPE_CHECKING:
    from pipeline.files.walk import Walk
    from pipeline.ledger.ledger import UnchangedRange
    from pipeline.operations.run_context import RunContext
    from pipeline.report.summary import Summary

_DIGEST_BYTES = 16
# What comes and goes in a state folder without a writer of the ledger.
_VOLATILE = {NOTE_FILE, f"{NOTE_FILE}.new", QUIET_RUNS_FILE, "scratch", "slots", "progress.new"}
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
    outputs: list[Any]
    """The stage, the parts of the template, and the number of the recipe of each output."""
    ranges: list[Any]
    """The digest of each range, in order."""
    left_out: list[str]
    """What the run said of the files that the walk leaves out."""
    said: dict[str, Any]
    """The fields of the run's summary that the next one has too."""
    memory: dict[str, Any] | None = None
    """The stamps of the files in the state folder, once the ledger is closed."""


# -- leaving a note ----------------------------------------------------------------------------------------------------


def note_of(context: RunContext) -> UnchangedNote | None:
    """Return the note of a run whose ledger is about to be closed; None unless it has left nothing to be done."""
    from pipeline.planning.recipe import contents_read  # which a run has imported, and who asks the note need not

    config, evidence = context.config, context.config.evidence
    if evidence is None or not _is_whole(context) or not _left_nothing(context):
        return None
    plan, walk, ranges = context.plan, context.plan.walk, _ranges_on_record(context)
    if not ranges:
        return None
    left_out = walk.describe_left_out()
    code = context.code.state.stamps
    paths = sorted({*code, *(os.path.join(path[:-3], "__init__.py") for path in code if path.endswith(".py"))})
    contents = {path: code.get(path, stamp_of(path)) for path in paths if path not in evidence.stamps}
    summary, began_ns = context.summary, time.time_ns() - round(context.summary.seconds * 1e9)
    young = [path for path, stamp in contents.items() if stamp and is_young(stamp, began_ns)]
    if not set(young) <= set(contents_read(config)):
        return None
    folders = list(config.output_folders)
    try:
        places = _places(str(config.inputs.root), list(map(os.fsdecode, folders)))
    except OSError:  # a folder has gone since
        return None
    own = {*folders, os.fsencode(config.state), *config.other_folders}
    return UnchangedNote(
        run=context.state.run,
        yaml=config.file.name,
        evidence=evidence.as_json(),
        contents=contents,
        digests={path: context.ledger.file_digests.digest(Path(path)) for path in young},
        state=str(config.state),
        places=places,
        walk={
            "root": str(config.inputs.root),
            "include": config.inputs.include,
            "exclude": config.inputs.exclude,
            "without": sorted(map(os.fsdecode, own)),
        },
        outputs=[_output_as_json(each.stage, each.template, each.number) for each in plan.specs],
        ranges=[(walked.digest or known.digest).hex() for walked, known in zip(plan.ranges, ranges, strict=True)],
        left_out=left_out,
        said={
            "pipeline": summary.pipeline,
            "up_to_date": sum(outputs for known in ranges for outputs, _ in known.counts.values()),
            "sources": summary.sources,
            "kinds_unmatched": dict(summary.kinds_unmatched),
            "notes": summary.notes,
        },
    )


def _ranges_on_record(context: RunContext) -> list[UnchangedRange]:
    """Return what is recorded of every range of the walk; nothing where one is not known to be unchanged."""
    plan, unchanged = context.plan, context.ledger.unchanged
    if not all(each.first and each.digest != b"" for each in plan.ranges):
        return []
    found = [known for each in plan.ranges if (known := unchanged.get(each.first))]
    sources = sum(known.sources for known in found) + plan.unmatched.total()
    return found if (len(found), sources) == (len(plan.ranges), plan.sources) else []


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
        and plan.groups is None
        and not plan.lost
        and not any(each.has_parts or each.gathers or not isinstance(each.template, Template) for each in plan.specs)
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


def answer_unchanged(file: Path) -> Summary | None:
    """Return the summary of a run without options, if nothing has changed since one left a note; else None."""
    began_ns, began = time.time_ns(), time.monotonic()
    try:
        note = _read_note(file)
        state = reopen_state(Path(note.state)) if note else None
        if note is None or state is None:
            return None
        with closing(state):
            return _record(note, state, began_ns, began) if _holds(note) else None
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
    """Return whether all that a note rests on is as it was; what takes longest comes last."""
    return (
        _as_json(_memory(note.state)) == note.memory
        and _as_json(_places(note.walk["root"], note.places["outputs"])) == note.places
        and _as_json({path: stamp_of(path) for path in note.contents}) == note.contents
        and all(contents_of(Path(path)) == digest for path, digest in note.digests.items())
        and Evidence.from_json(note.evidence).holds()
        and _files_are_same(note)
    )


def _files_are_same(note: UnchangedNote) -> bool:
    """Return whether the walk meets the same ranges of sources, with the same outputs."""
    walk = _walk(note.walk)
    digests = DiskDigests([_output_from_json(*each) for each in note.outputs])
    known: Iterator[str] = iter(note.ranges)
    for sources, _ in ranges_of(walk):
        if digests.found(sources).hex() != next(known, ""):
            return False
    is_whole = next(known, None) is None and not (walk.unlisted or walk.owned or walk.is_misled)
    return is_whole and walk.describe_left_out() == note.left_out


def _record(note: UnchangedNote, state: State, began_ns: int, began: float) -> Summary:
    """Record a run that found nothing to do, and return its summary. Raises OSError."""
    from collections import Counter

    from pipeline.report.live import LiveProgress
    from pipeline.report.summary import Summary

    summary = Summary(run=state.run, **note.said | {"kinds_unmatched": Counter(note.said["kinds_unmatched"])})
    summary.seconds = time.monotonic() - began
    run = QuietRun(state.run, note.run, began_ns, time.time_ns(), summary.sources, summary.up_to_date)
    add_quiet_run(state.folder, run)
    LiveProgress(state, summary, note.yaml).on_end()
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


def _walk(arguments: dict[str, Any]) -> Walk:
    root = os.fsencode(arguments["root"])
    without = {os.fsencode(each) for each in arguments["without"]}
    return store_of(root).walk(root, arguments["include"], arguments["exclude"], without)


def _output_as_json(stage: str, template: Any, recipe: int | None) -> list[Any]:
    folders = os.fsdecode(template.folder), os.fsdecode(template.written_folder)
    return [stage, template.text, *folders, template.pieces, recipe]


def _output_from_json(stage: str, text: str, folder: str, written: str, pieces: Any, recipe: int) -> RangeOutput:
    kept = tuple(each if isinstance(each, str) else tuple(each) for each in pieces)
    return RangeOutput(stage, Template(text, os.fsencode(folder), os.fsencode(written), kept), recipe)


def _as_json(value: Any) -> Any:
    """Return a value as it is after it was kept as JSON."""
    return json.loads(json.dumps(value))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
