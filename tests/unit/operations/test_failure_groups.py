"""The groups of failures: one for a reason, what is telling of their files and nothing else, and whose fault it is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.ledger.failure_traits import Trait
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.operations.failure_groups import Failing, LedgerGroup, group_failures

DAY_NS = 86_400 * 10**9
# Noon, so that an hour more or less is the same day in the zone of the tests.
LAST_NIGHT_NS = int(time.mktime((2026, 11, 29, 12, 0, 0, 0, 0, -1))) * 10**9
BAD = "ValueError: bad text (in stage 'up')"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        yield ledger


def fail(
    ledger: Ledger, *sources: str, error: str = BAD, kind: str = "error", stage: str = "up", size: int | None = 1000,
    seat: int | None = None, place: str = "", began_ns: int | None = None, attempts: int = 2, tried: bool = True,
    dismissed: float | None = None,
) -> None:  # fmt: skip
    """Record failures; those that do not say when they began did so in many nights."""
    columns = (
        "source, first_failed_at, stage, kind, error, attempts, run, tried, source_size, dismissed_at, seat, place"
    )
    values = (stage, kind, error, attempts, "one", tried, size, dismissed, seat, place)
    ledger._connection.executemany(
        f"INSERT INTO failures ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (source.encode("utf-8", "surrogateescape"), began_ns or LAST_NIGHT_NS - (2 + number % 50) * DAY_NS, *values)
            for number, source in enumerate(sources)
        ),
    )


def make(ledger: Ledger, *sources: str, stage: str = "up", size: int = 1000, at_ns: int = LAST_NIGHT_NS) -> None:
    """Record outputs, made by four workers in turn, on as many nights before a time."""
    ledger._connection.executemany(
        "INSERT INTO outputs (target, source, stage, status, at_work, source_size, seat, recorded)"
        " VALUES (?, ?, ?, 'done', 0, ?, ?, ?)",
        (
            (f"{stage}/{source}".encode(), source.encode(), stage, size, number % 4, at_ns - number % 50 * DAY_NS)
            for number, source in enumerate(sources)
        ),
    )


def names(count: int, form: str = "all/{:04}.jpg", first: int = 0) -> list[str]:
    return [form.format(number) for number in range(first, first + count)]


def groups(ledger: Ledger) -> list[LedgerGroup]:
    return list(grouped(ledger).groups)


def grouped(ledger: Ledger, last_run_ns: int = LAST_NIGHT_NS) -> Failing:
    return group_failures(ledger, lambda failure: failure.attempts > 2, last_run_ns, last_run_ns - DAY_NS)


def told(group: LedgerGroup) -> list[tuple[str, object]]:
    return [(each.trait.what, each.trait.first) for each in group.shared]


# -- groups ------------------------------------------------------------------------------------------------------------


def test_a_group_is_one_reason(ledger: Ledger) -> None:
    """Whatever numbers, names and stages the texts have; a file that failed in several stages counts once."""
    fail(ledger, "a", "b", error="truncated picture: 3 bytes left")
    fail(ledger, "b", "c", error="truncated picture: 4 bytes left", stage="thumb")
    fail(ledger, "d", "e", error="KeyError: 'x' (in stage 'up')")
    fail(ledger, "f", error="KeyError: 'y' (in stage 'up')", stage="web")
    fail(ledger, "g", error="killed", kind="crashed")
    found = grouped(ledger)
    assert [(each.reason, each.kind, each.files, sorted(each.stages)) for each in found.groups] == [
        ("truncated picture", "error", 3, ["thumb", "up"]),
        ("KeyError", "error", 3, ["up", "web"]),
        ("killed", "crashed", 1, ["up"]),
    ]  # fmt: skip
    assert (found.files, found.more_groups, found.more_files) == (7, 0, 0)
    assert found.groups[0].examples == [b"a", b"b", b"c"]


def test_one_text_is_told_in_full(ledger: Ledger) -> None:
    """Without the stage, which is told beside it."""
    fail(ledger, "a", "b", error="ValueError: no 'title': in (x) (in stage 'up')")
    assert [each.reason for each in groups(ledger)] == ["ValueError: no 'title': in (x)"]


def test_another_place_in_the_code_is_another_group(ledger: Ledger) -> None:
    """And at one place an exception is one problem, whatever it says."""
    fail(ledger, "a", error="ValueError: red (in stage 'up')", place="stages/up.py:3")
    fail(ledger, "b", error="ValueError: green (in stage 'up')", place="stages/up.py:3")
    fail(ledger, "c", error="ValueError: red (in stage 'up')", place="stages/up.py:9")
    assert [(each.reason, each.place, each.files) for each in groups(ledger)] == [
        ("ValueError", "stages/up.py:3", 2), ("ValueError: red", "stages/up.py:9", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["", "stages/up.py:3"])
def test_a_class_of_exceptions_is_one_group_as_in_what_a_run_tells(ledger: Ledger, place: str) -> None:
    """Whatever the texts, and also where the name of the class has a number."""
    for number in range(30):
        fail(ledger, f"{number:02}", error=f"E{number}: {chr(97 + number)} (in stage 'up')", place=place)
        fail(ledger, f"{number:02}.b", error=f"ValueError: {chr(97 + number)} (in stage 'up')", place=place)
    assert [(each.reason, each.files) for each in groups(ledger)] == [("E...", 30), ("ValueError", 30)]


def letters(number: int) -> str:
    return "".join(chr(97 + int(each)) for each in f"{number:05}")


def test_texts_that_all_differ_are_one_group(ledger: Ledger) -> None:
    """A text that names its file must not make a group of each, nor hide those of many, nor fill the memory."""
    for number in range(500):
        fail(ledger, f"{number:04}", error=f"odd {letters(number)}")
        fail(ledger, f"{number:04}", error=f"odd {letters(number)}", stage="web")
    fail(ledger, *names(20, "z{}"), error="truncated picture")
    found = grouped(ledger)
    assert [(each.reason, each.files, each.who) for each in found.groups] == [
        ("different reasons", 500, "unknown"), ("truncated picture", 20, "file"),
    ]  # fmt: skip
    for number in range(500, 6000):
        fail(ledger, f"{number:04}", error=f"odd {letters(number)}")
    assert [each.files for each in grouped(ledger).groups] == [6000, 20]


def test_a_hundred_reasons_are_told_apart(ledger: Ledger) -> None:
    for number in range(100):
        fail(ledger, f"{number:04}", error=f"odd {letters(number)}")
    found = grouped(ledger)
    assert (len(found.groups), found.more_groups) == (10, 90)


def test_new_ones_come_first_and_dismissed_ones_are_only_counted(ledger: Ledger) -> None:
    """What is new since the last run, since yesterday, held, dismissed."""
    fail(ledger, *names(5), error="old", attempts=3)
    fail(ledger, "n1", error="new", began_ns=LAST_NIGHT_NS + 1)
    fail(ledger, "y1", error="of yesterday", began_ns=LAST_NIGHT_NS - DAY_NS + 1)
    fail(ledger, "d1", "d2", error="well known", dismissed=1.0)
    found = grouped(ledger)
    assert [(each.reason, each.new_files, each.is_any_held) for each in found.groups] == [
        ("new", 1, False), ("old", 0, True), ("of yesterday", 0, False),
    ]  # fmt: skip
    assert (found.files, found.new_files, found.recent_files, found.held_files, found.dismissed_files) == (
        7,
        1,
        2,
        5,
        2,
    )


def test_files_are_counted_whatever_was_to_be_made_of_them(ledger: Ledger) -> None:
    """In all figures of the headline: held, dismissed, and new where one of its outputs is."""
    for stage in ("up", "web", "thumb"):
        fail(ledger, "h1", "h2", stage=stage, attempts=3)
        fail(ledger, "d1", "d2", stage=stage, dismissed=1.0)
    fail(ledger, "h2", stage="zip", began_ns=LAST_NIGHT_NS + 1)
    found = grouped(ledger)
    assert (found.files, found.new_files, found.recent_files, found.held_files, found.dismissed_files) == (
        2,
        1,
        1,
        2,
        2,
    )
    assert [(each.files, each.new_files) for each in found.groups] == [(2, 1)]


# -- what they share ---------------------------------------------------------------------------------------------------


def test_the_folder_that_all_lie_in_is_told(ledger: Ledger) -> None:
    """The innermost, and how many of all files lie there."""
    make(ledger, *names(1940))
    fail(ledger, *names(60, "drafts/2024/{:02}.jpg"))
    (group,) = groups(ledger)
    (shared,) = group.shared
    assert (shared.trait, shared.files, shared.share) == (Trait("folder", b"drafts/2024/"), 60, 0.03)
    assert group.who == "file"


def test_nearly_all_are_told_as_such(ledger: Ledger) -> None:
    make(ledger, *names(940))
    fail(ledger, *names(54, "drafts/{:02}.jpg"), *names(6, "more/{:02}.jpg"))
    (group,) = groups(ledger)
    assert [(each.trait.first, each.files) for each in group.shared] == [(b"drafts/", 54)]


@pytest.mark.parametrize(
    ("failing", "made"),
    [
        (names(60, "drafts/{:02}.jpg"), names(60, "drafts/{:02}.jpg", 100)),  # all files lie there
        (names(2, "drafts/{:02}.jpg"), names(500)),  # two are no pattern
        (names(3, "drafts/{:02}.jpg"), names(10)),  # nor are three among few
        (names(30, "drafts/{:02}.jpg"), [*names(40), *names(20, "drafts/{:02}.jpg", 50)]),  # nor half of all
        (names(20, "all/{:04}.jpg", 5000), names(500)),  # the suffix and the folder of all others
        ([f"{number:02}/x.jpg" for number in range(60)], names(500, "{:04}/x.jpg", 100)),  # each in its own
    ],
)
def test_what_is_no_pattern_is_not_told(ledger: Ledger, failing: list[str], made: list[str]) -> None:
    make(ledger, *made)
    fail(ledger, *failing)
    (group,) = groups(ledger)
    assert told(group) == []


def test_random_files_share_nothing(ledger: Ledger) -> None:
    """Neither folder nor suffix nor size nor worker nor night, in a hundred groups picked by chance."""
    dice = random.Random(16)
    for number in range(3000):
        folder, suffix = f"d{dice.randrange(7)}/e{dice.randrange(11)}", dice.choice(("jpg", "png", "gif"))
        source, at_ns = f"{folder}/{number}.{suffix}", LAST_NIGHT_NS - dice.randrange(13) * DAY_NS
        size, seat = 10 ** dice.randrange(5), dice.randrange(4)
        if dice.random() < 0.2:
            error = f"odd {dice.choice('abcdefghij')}{dice.choice('klmnopqrst')}"
            fail(ledger, source, error=error, kind="crashed", size=size, seat=seat, began_ns=at_ns)
        else:
            make(ledger, source, size=size, at_ns=at_ns)
    found = grouped(ledger)
    assert found.more_groups > 50 and [told(each) for each in found.groups] == [[]] * 10


@pytest.mark.parametrize(
    ("sizes", "trait"),
    [([0], Trait("size", 0, 1)), ([2000, 9000], Trait("size", 1000, 10_000)),
     ([10**8, 10**9], Trait("size", 10**8, 2**62)), ([1, 12, 130], Trait("size", 0, 1000))],
)  # fmt: skip
def test_the_sizes_of_all_are_told(ledger: Ledger, sizes: list[int], trait: Trait) -> None:
    """One class of sizes, or all from one on, or all below one."""
    for number, size in enumerate(sizes):
        fail(ledger, *names(20 // len(sizes), "f{:02}", 20 * number), size=size)
    for each, power in enumerate((10, 10**4, 10**5, 10**6)):
        make(ledger, *names(50, "m{:04}", 50 * each), size=power + (sizes == [1, 12, 130]) * 10**6)
    (group,) = groups(ledger)
    assert [shared.trait for shared in group.shared] == [trait]


def test_suffixes_are_told_in_any_case_and_any_bytes(ledger: Ledger) -> None:
    make(ledger, *names(500))
    fail(ledger, *names(5, "all/{:02}.PSD"), *names(5, "all/{:02}.psd", 10))
    fail(ledger, *names(9, "all/{:02}.\udcff\n"), error="other")
    assert [told(each) for each in groups(ledger)] == [[("suffix", b".psd")], [("suffix", b".\xff\n")]]


def test_parts_and_outputs_of_failing_files_count_once(ledger: Ledger) -> None:
    """Of a source with many parts there is one row for all of them; one that failed and has an old output is one."""
    make(ledger, *names(90), *names(10, "drafts/{:02}.jpg"))
    ledger._connection.execute(
        "INSERT INTO outputs (target, source, stage, status, at_work, part)"
        " SELECT target || '/' || value, source, stage, status, 0, 'p' || value FROM outputs, json_each('[1, 2, 3]')"
    )
    fail(ledger, *names(10, "drafts/{:02}.jpg"))
    assert ledger.failures.count_having("up", [Trait("folder", b"drafts/")]) == (100, [10])
    (group,) = groups(ledger)
    assert [shared.share for shared in group.shared] == [0.1]


def test_a_folder_is_told_by_its_bytes(ledger: Ledger) -> None:
    """Neither one whose name begins alike nor a pattern in it counts."""
    make(ledger, *names(500), "a%/x", "a%b/x", "a%0/x")
    fail(ledger, *names(8, "a%/{:02}.jpg"))
    assert ledger.failures.count_having("up", [Trait("folder", b"a%/")]) == (511, [9])
    (group,) = groups(ledger)
    assert told(group) == [("folder", b"a%/")]


# -- whose fault it is -------------------------------------------------------------------------------------------------


def blame(ledger: Ledger) -> str:
    (group,) = groups(ledger)
    return group.who


def test_one_unreadable_file_is_the_files_fault(ledger: Ledger) -> None:
    make(ledger, *names(20))
    fail(ledger, "all/cut.jpg", error="truncated picture: 4 bytes left")
    assert blame(ledger) == "file"


def test_many_unreadable_files_are_too(ledger: Ledger) -> None:
    make(ledger, *names(200))
    fail(ledger, *names(20, "all/{:02}-cut.jpg"), error="truncated picture: 4 bytes left")
    assert blame(ledger) == "file"


@pytest.mark.parametrize("error", [BAD, "stage 'up' returned None; return a value (stages/up.py:1)"])
def test_an_exception_of_the_code_in_many_files_is_the_stages(ledger: Ledger, error: str) -> None:
    make(ledger, *names(200))
    fail(ledger, *names(20, "all/{:02}-odd.jpg"), error=error)
    assert blame(ledger) == "stage"


def test_where_all_files_fail_it_is_the_stage_or_what_it_needs(ledger: Ledger) -> None:
    make(ledger, *names(20), stage="other")
    fail(ledger, *names(20), error="truncated picture: 4 bytes left")
    (group,) = groups(ledger)
    assert group.who == "stage"


@pytest.mark.parametrize(
    ("kind", "error"),
    [("crashed", "killed by signal 9"), ("memory", "more than 2 GB"), ("timeout", "took longer than 60 s"),
     ("error", "OSError: [Errno 5] Input/output error (in stage 'up')")],
)  # fmt: skip
def test_one_worker_is_the_machines(ledger: Ledger, kind: str, error: str) -> None:
    """Where others make the same kind of files."""
    make(ledger, *names(400))
    fail(ledger, *names(12, "all/{:02}-odd.jpg"), kind=kind, error=error, seat=3)
    (group,) = groups(ledger)
    assert told(group) == [("worker", 3)] and group.who == "machine"


@pytest.mark.parametrize(("error", "who"), [(BAD, "stage"), ("truncated picture: 4 bytes left", "file")])
def test_neighbours_are_in_one_worker_by_chance(ledger: Ledger, error: str, who: str) -> None:
    """A batch has files that follow each other: of what code and readers say the worker is neither told nor blamed."""
    make(ledger, *names(400))
    fail(ledger, *names(12, "all/{:04}-odd.jpg", 100), error=error, seat=3)
    (group,) = groups(ledger)
    assert told(group) == [] and group.who == who


def test_a_folder_that_crashes_one_worker_is_no_fault_of_the_machine(ledger: Ledger) -> None:
    """The folder explains the worker."""
    make(ledger, *names(400))
    fail(ledger, *names(12, "drafts/{:02}.jpg"), kind="crashed", error="killed by signal 11", seat=3)
    (group,) = groups(ledger)
    assert {what for what, _ in told(group)} == {"folder", "worker"} and group.who == "file"


@pytest.mark.parametrize(
    ("kind", "error", "attempts", "who"),
    [
        ("crashed", "killed by signal 9", 1, "machine"), ("timeout", "took longer than 60 s", 1, "machine"),
        ("error", "ConnectionError: refused (in stage 'up')", 1, "machine"),
        ("crashed", "killed by signal 11", 2, "stage"), ("error", BAD, 1, "stage"),
    ],
)  # fmt: skip
def test_one_night_is_the_machines_unless_it_lasts(
    ledger: Ledger, kind: str, error: str, attempts: int, who: str
) -> None:
    make(ledger, *names(400))
    fail(ledger, *names(12, "all/{:02}-odd.jpg"), kind=kind, error=error, attempts=attempts, began_ns=LAST_NIGHT_NS + 1)
    (group,) = groups(ledger)
    assert [what for what, _ in told(group)] == ["night"] and group.who == who


@pytest.mark.parametrize(
    ("kind", "error", "tried", "who"),
    [
        ("collision", "exists, not ours", False, "pipeline"),
        ("interrupted", "cut off after 2.0 s", True, "nobody"),
        ("error", "Input/output error", False, "machine"),
        ("memory", "more than 2 GB", True, "machine"),
    ],
)
def test_other_kinds(ledger: Ledger, kind: str, error: str, tried: bool, who: str) -> None:
    make(ledger, *names(200))
    fail(ledger, *names(5, "all/{:02}-odd.jpg"), kind=kind, error=error, tried=tried)
    assert blame(ledger) == who


def test_of_a_group_whose_members_failed_nobody_is_to_blame(ledger: Ledger) -> None:
    """Its members are told by themselves; a group has no folder, no suffix and no size."""
    make(ledger, *names(200))
    fail(ledger, *names(5, "/sheet/{:02}"), error="3 members failed", tried=False, stage="sheet")
    (group,) = groups(ledger)
    assert (group.who, told(group), group.examples[0]) == ("nobody", [], b"/sheet/00")


def test_many_failures_are_grouped_quickly(ledger: Ledger) -> None:
    """Time of the processor, since the machine may be busy."""
    make(ledger, *names(20_000))
    fail(ledger, *[f"d{number % 97}/e{number % 1013}/{number}.jpg" for number in range(20_000)], seat=1)
    ledger._connection.execute("UPDATE failures SET error = 'truncated: ' || substr(source, 1, 20)")
    began = time.process_time()
    (group,) = groups(ledger)
    assert group.files == 20_000 and time.process_time() - began < 8  # that is 0.4 s where nothing else is at work


def test_failures_of_an_older_release_say_less(ledger: Ledger) -> None:
    """They have neither worker nor place, nor, from before version 5, when they began."""
    fail(ledger, "a", "b", "c")
    ledger._connection.execute("UPDATE failures SET first_failed_at = NULL, source_size = NULL")
    found = grouped(ledger)
    assert (found.new_files, found.recent_files, [each.files for each in found.groups]) == (0, 0, [3])
    first = next(ledger.failures.all())
    assert isinstance(first, Failure) and (first.first_failed_at, first.seat, first.place) == (None, None, "")
