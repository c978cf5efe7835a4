"""Every rule of "Fresh or stale", one case at a time, over a record and a file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.files.template import NoFile, parse_template
from pipeline.ledger.failures import Failure, RetryPolicy
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.runs import Window
from pipeline.messages import Group, Source
from pipeline.planning.decisions import Reason
from pipeline.planning.file_state import ByTime
from pipeline.planning.freshness import Context, decide_failed, decide_recorded, decide_unrecorded
from pipeline.planning.group_freshness import members_change
from pipeline.planning.recipe import OutputSpec, Recipe

SECOND_NS = 1_000_000_000
MADE_NS = 1_700_000_000 * SECOND_NS + 123_456_789
MINUTE_NS = 60 * SECOND_NS
# To the whole second.
CUT_NS = -123_456_789
DONE = OutputRecord(
    b"a", b"out/a", "up", "done", 10, MADE_NS, 1, "", 4, MADE_NS, 0, b"d" * 16, recorded_ns=MADE_NS - 2 * MINUTE_NS
)
SKIPPED = DONE._replace(status="skipped", reason="too dark", size=None, mtime_ns=None)
PLAIN = Context()
FORCED = Context(is_forced=True)
CHANGE = Reason("source_changed", ("time",))
# Periods that begin a minute before the file was modified. One goes on, so that the file, which is younger, was changed
# in it; one has ended by then.
UNCERTAIN = Context(window=Window(MADE_NS - MINUTE_NS, 2**62, ""), claimed=frozenset({b"/out"}))
PAST = Context(window=Window(MADE_NS - MINUTE_NS, MADE_NS, ""), claimed=frozenset({b"/out"}))


def digest_of_x(size: int) -> bytes:
    """The digest of a file of so many x."""
    return hashlib.blake2b(b"x" * size, digest_size=16).digest()


OURS = DONE._replace(digest=digest_of_x(4))
OLDER = "make", Reason("output_older")
EDITED = "up-to-date", Reason("edited")

UP_TO_DATE = "up-to-date", Reason("up_to_date")
NOT_OURS = "refuse", Reason("not_ours")
INTERRUPTED = "make", Reason("interrupted")
NEW = "make", Reason("new")


class OnDisk(NamedTuple):
    """What lies at the output's path: so many bytes, or a folder, modified so long after it was made."""

    size: int = 4
    later_ns: int = 0
    is_folder: bool = False

    def put(self, path: Path) -> None:
        """Put it there."""
        if self.is_folder:
            path.mkdir()
        else:
            path.write_bytes(b"x" * self.size)
        os.utime(path, ns=(0, MADE_NS + self.later_ns))


AS_MADE = OnDisk()


def spec_of(*, has_file: bool = True) -> OutputSpec:
    """The output of a stage by the recipe that has number 1."""
    template = parse_template("out/{name}", Path("/")) if has_file else NoFile("up")
    return OutputSpec("up", template, Recipe({}), 1, ())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the output belongs."""
    return tmp_path / "a"


@pytest.mark.parametrize(
    ("record", "change", "on_disk", "context", "expected"),
    [
        (DONE, None, AS_MADE, PLAIN, UP_TO_DATE),
        (DONE, None, OnDisk(later_ns=SECOND_NS), PLAIN, EDITED),
        (DONE, None, OnDisk(later_ns=CUT_NS), PLAIN, EDITED),
        (OURS, None, OnDisk(later_ns=CUT_NS), PLAIN, UP_TO_DATE),  # a file system that keeps times coarsely
        (OURS._replace(digest=None), None, OnDisk(later_ns=CUT_NS), PLAIN, INTERRUPTED),  # nobody can tell
        (OURS, None, OnDisk(3, CUT_NS), PLAIN, OLDER),  # torn, or edited in that second: it is set aside
        (DONE, None, OnDisk(later_ns=3 * SECOND_NS), PLAIN, EDITED),
        (DONE, None, OnDisk(5, 3 * SECOND_NS), PLAIN, EDITED),
        (OURS, None, OnDisk(later_ns=3 * SECOND_NS), PLAIN, UP_TO_DATE),  # copied back, with another time
        (DONE, None, OnDisk(5, -3 * SECOND_NS), PLAIN, OLDER),  # nobody edits it before it is made
        (DONE._replace(earlier=b"e" * 16 + digest_of_x(5)), None, OnDisk(5, 3 * SECOND_NS), PLAIN, OLDER),
        (DONE, None, OnDisk(3), PLAIN, ("make", Reason("output_torn", (4, 3)))),
        (DONE, None, OnDisk(0, 3 * SECOND_NS), PLAIN, ("make", Reason("output_torn", (4, 0)))),
        (DONE, None, OnDisk(is_folder=True), PLAIN, ("refuse", Reason("not_a_file"))),
        (DONE, None, None, PLAIN, ("make", Reason("output_missing"))),
        (DONE, None, AS_MADE, FORCED, ("make", Reason("forced"))),
        (DONE, CHANGE, AS_MADE, PLAIN, ("make", CHANGE)),
        (DONE, CHANGE, OnDisk(5, 3 * SECOND_NS), PLAIN, ("make", CHANGE)),  # what changed is redone, edited or not
        (DONE._replace(in_flight=1), None, AS_MADE, PLAIN, INTERRUPTED),
        (DONE._replace(in_flight=1), CHANGE, AS_MADE, PLAIN, INTERRUPTED),
        (DONE._replace(status="intended"), None, AS_MADE, PLAIN, INTERRUPTED),
        (DONE._replace(status="intended"), None, None, PLAIN, NEW),
        (OURS, None, AS_MADE, UNCERTAIN, UP_TO_DATE),
        (DONE, None, AS_MADE, UNCERTAIN, INTERRUPTED),
        (DONE, None, OnDisk(5, 3 * SECOND_NS), UNCERTAIN, INTERRUPTED),
        (DONE, None, AS_MADE, PAST, UP_TO_DATE),
        (DONE, None, OnDisk(5, 90 * SECOND_NS), PAST, EDITED),
        (DONE._replace(recorded_ns=MADE_NS), None, AS_MADE, PAST, INTERRUPTED),
        (OURS._replace(recorded_ns=MADE_NS), None, AS_MADE, PAST, UP_TO_DATE),
        (SKIPPED, None, None, PLAIN, ("up-to-date", Reason("skipped", ("too dark",)))),
        (SKIPPED, None, AS_MADE, PLAIN, ("up-to-date", Reason("skipped", ("too dark",)))),
        (SKIPPED, CHANGE, None, PLAIN, ("make", CHANGE)),
        (SKIPPED, CHANGE, AS_MADE, PLAIN, NOT_OURS),
        (SKIPPED, CHANGE, AS_MADE, UNCERTAIN, ("make", CHANGE)),
        (SKIPPED._replace(size=4, mtime_ns=MADE_NS), CHANGE, AS_MADE, PLAIN, ("make", CHANGE)),
    ],
)
def test_an_output_on_record(
    path: Path,
    record: OutputRecord,
    change: Reason | None,
    on_disk: OnDisk | None,
    context: Context,
    expected: tuple[str, Reason],
) -> None:
    """Up to date only if source, recipe and file are as recorded; and each other answer has its own reason."""
    if on_disk:
        on_disk.put(path)
    assert decide_recorded(spec_of(), record, change, os.fsencode(path), context) == expected


def test_without_a_file_the_record_decides(path: Path) -> None:
    """An upload is done when it is recorded so."""
    file = os.fsencode(path)
    assert decide_recorded(spec_of(has_file=False), DONE, None, file, PLAIN) == UP_TO_DATE


@pytest.mark.parametrize(
    ("owner", "others", "on_disk", "context", "expected"),
    [
        (None, None, None, PLAIN, NEW),
        (None, None, AS_MADE, PLAIN, NOT_OURS),
        (None, None, AS_MADE, FORCED, NEW),
        (None, None, AS_MADE, UNCERTAIN, INTERRUPTED),
        (None, None, AS_MADE, replace(UNCERTAIN, claimed=frozenset()), NOT_OURS),  # nothing of ours lay in that folder
        (None, None, AS_MADE, PAST, NOT_OURS),
        ("intended", None, None, PLAIN, NEW),
        ("intended", None, AS_MADE, PLAIN, INTERRUPTED),
        ("done", None, AS_MADE, PLAIN, NEW),  # who has it is settled when the whole plan is known
        ("skipped", SKIPPED, None, PLAIN, NEW),
        ("skipped", SKIPPED, AS_MADE, PLAIN, NOT_OURS),
        ("skipped", SKIPPED, AS_MADE, FORCED, NEW),
    ],
)
def test_an_output_that_is_not_on_record(
    path: Path,
    owner: str | None,
    others: OutputRecord | None,
    on_disk: OnDisk | None,
    context: Context,
    expected: tuple[str, Reason],
) -> None:
    """It is made, unless a file lies there that is not ours."""
    if on_disk:
        on_disk.put(path)
    assert decide_unrecorded(spec_of(), os.fsencode(path), owner, others, context) == expected


@pytest.mark.parametrize(
    ("attempts", "dismissed_at", "retries", "expected"),
    [
        (1, None, RetryPolicy(3), ("make", Reason("failed_before", ("error", 1, 3)))),
        (3, None, RetryPolicy(3), ("held", Reason("held", (3,)))),
        (3, None, RetryPolicy(None), ("make", Reason("failed_before", ("error", 3, None)))),
        (3, None, RetryPolicy(3, True), ("make", Reason("failed_before", ("error", 3, 3)))),
        (1, 5.0, RetryPolicy(3), ("held", Reason("dismissed", ("error",)))),
    ],
)
def test_an_output_that_failed_before(
    attempts: int, dismissed_at: float | None, retries: RetryPolicy, expected: tuple[str, Reason]
) -> None:
    """It is tried until the policy or a person says that it is enough."""
    failure = Failure(b"a", "up", "error", "why", attempts, True, 10, MADE_NS, 1, dismissed_at)
    assert decide_failed(failure, retries) == expected


@pytest.mark.parametrize(
    ("size", "later_ns", "known", "detail"),
    [
        (10, 0, b"", None),
        (10, -789, b"", None),  # cut to microseconds
        (10, -456_789, b"", None),
        (10, CUT_NS, b"", ("cut",)),
        (10, CUT_NS, digest_of_x(10), None),
        (10, CUT_NS, digest_of_x(9), ("contents",)),
        (10, -123_456_788, digest_of_x(10), ("time",)),
        (10, SECOND_NS, digest_of_x(10), ("time",)),
        (12, 0, digest_of_x(10), ("size", 10, 12)),
    ],
)
def test_a_source_by_its_time(
    tmp_path: Path, size: int, later_ns: int, known: bytes, detail: tuple[str | int, ...] | None
) -> None:
    """Size and time tell whether it changed; where the time may be a cut one, the contents do, if they are known."""
    (tmp_path / "a").write_bytes(b"x" * 10)
    record = DONE._replace(source_digest=known or None)
    change = ByTime(os.fsencode(tmp_path), None).change(Source(b"a", size, MADE_NS + later_ns), record)
    assert change == (Reason("source_changed", detail) if detail else None)


def test_a_doubtful_source_that_cannot_be_read(tmp_path: Path) -> None:
    """The system's reason is told, and the job will fail with it."""
    record = DONE._replace(source_digest=b"d" * 16)
    change = ByTime(os.fsencode(tmp_path), None).change(Source(b"a", 10, MADE_NS + CUT_NS), record)
    assert change == Reason("source_changed", ("unreadable", "No such file or directory"))


@pytest.mark.parametrize(("members", "digest"), [(10, MADE_NS), (9, MADE_NS), (10, MADE_NS + 1)])
def test_a_group_by_its_members(members: int, digest: int) -> None:
    """Another number of members, or other ones, and it is stale."""
    is_same = (members, digest) == (DONE.source_size, DONE.source_mtime_ns)
    assert members_change(Group("sheet", b"b", members, digest), DONE) == (
        None if is_same else Reason("members_changed")
    )
