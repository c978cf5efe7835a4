"""Times that a file system or a copy has cut are no change, and a real edit at such a time is one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from support.damage import Trial
from support.mounts import mounted
from support.program import Pipeline
from support.project import Project, every_kind

from pipeline.planning.same_time import GRANULARITIES_NS

SOURCES = ("in/a/1.txt", "in/a/2.txt", "in/b/1.txt", "in/b/skipped.txt")
# Of four sources, two outputs each, but for one of which one is left out; two parts each; and two groups.
OUTPUTS = 3 + 2 * 4 + 2 + 1
# An odd second with nine digits after it: each granularity cuts something off.
FINE_NS = 1_700_000_001_723_456_789
QUICK = (100, 1_000_000, 1_000_000_000, 2_000_000_000)
EVERY = [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in GRANULARITIES_NS]
FINE = [each for each in EVERY if each.values[0] <= 10_000_000]
COARSE = [each for each in EVERY if each.values[0] > 10_000_000]


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests write counts as settled at once."""
    monkeypatch.setattr("pipeline.files.digest._AT_REST_NS", 0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Plain outputs, parts and groups of some files; nothing is made yet."""
    (tmp_path / "p").mkdir()
    project = every_kind(tmp_path / "p")
    for number, name in enumerate(SOURCES):
        text = f"skip {name}\nit" if "skipped" in name else f"text {name}\nsecond"
        os.utime(project.write(name, text), ns=(0, FINE_NS + number * 10**10))
    return project


def enlarge(project: Project) -> None:
    """Make every source so large that the ledger keeps no digest of it, with the time that it had."""
    for name in SOURCES:
        file = project.folder / name
        then_ns = file.stat().st_mtime_ns
        file.write_text(file.read_text() + " " * (1 << 20))
        os.utime(file, ns=(0, then_ns))


def are_digested(project: Project) -> bool:
    """Whether the ledger knows the contents of every source."""
    return all(row["source_digest"] for row in rows(project) if not row["part"] and row["source"][:1] != b"/")


def files(project: Project) -> list[Path]:
    """Every source and every output."""
    found = (file for folder in ("in", "out") for file in (project.folder / folder).rglob("*") if file.is_file())
    return [file for file in found if file.name != ".filemill"]


def cut(file: Path, granularity_ns: int) -> None:
    """Set the time of a file as a coarser file system keeps it."""
    now_ns = file.stat().st_mtime_ns
    os.utime(file, ns=(0, now_ns - now_ns % granularity_ns))


def rows(project: Project) -> list[dict[str, Any]]:
    """The outputs as the ledger has them."""
    with closing(sqlite3.connect(project.folder / ".pipeline/pipeline/ledger.sqlite")) as ledger:
        ledger.row_factory = sqlite3.Row
        return [dict(row) for row in ledger.execute("SELECT * FROM outputs ORDER BY target")]


def doubts_left(project: Project) -> list[bytes]:
    """The outputs of which the ledger has another time than the file, or than its source."""
    left = []
    for row in rows(project):
        output, source = project.folder / os.fsdecode(row["target"]), project.folder / "in" / os.fsdecode(row["source"])
        if output.is_file() and output.stat().st_mtime_ns != row["mtime_ns"]:
            left.append(row["target"])
        # Of parts only the row that stands for all of them tells of the source.
        if not row["part"] and source.is_file() and source.stat().st_mtime_ns != row["source_mtime_ns"]:
            left.append(row["source"])
    return left


def check_nothing_is_done(project: Project) -> None:
    """Nothing is made or edited, no orphan and no file is gone, and the ledger has the times as they are now."""
    before = project.outputs()
    for _ in range(2):
        summary = project.run()
        assert (summary.done, summary.edited, summary.set_aside, summary.failed) == (0, 0, 0, 0)
        assert summary.up_to_date == OUTPUTS
        assert doubts_left(project) == []
    assert project.outputs() == before and project.orphans() == []


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity_ns", EVERY)
def test_cut_times_of_known_contents_are_no_change(project: Project, granularity_ns: int) -> None:
    """Of sources, outputs, parts, members and what was left out: each is noted, so that a doubt costs once."""
    project.run()
    for file in files(project):
        cut(file, granularity_ns)
    assert {action for action, _ in project.plan().values()} == {"up-to-date"}
    check_nothing_is_done(project)


@pytest.mark.parametrize("granularity_ns", FINE)
def test_a_cut_finer_than_an_edit_is_no_change(project: Project, granularity_ns: int) -> None:
    """Nothing is known of the sources but size and time, and that is enough."""
    enlarge(project)
    project.run()
    for file in files(project):
        cut(file, granularity_ns)
    check_nothing_is_done(project)
    assert not any(row["source_digest"] for row in rows(project))


@pytest.mark.parametrize("granularity_ns", COARSE)
def test_a_coarse_cut_of_unknown_contents_costs_once(project: Project, granularity_ns: int) -> None:
    """It is made once more, with the reason; from then on its contents are known, and a cut costs nothing."""
    enlarge(project)
    project.run()
    before = project.outputs()
    for file in files(project):
        cut(file, granularity_ns)
    why = "source changed (its time, which may only be cut; its contents were not recorded)"
    assert project.plan()["up a/1.txt"] == ("make", why)
    summary = project.run()
    assert (summary.edited, summary.set_aside, summary.failed) == (0, 0, 0)
    assert project.outputs() == before and doubts_left(project) == []
    with_fraction = [project.folder / name for name in SOURCES]
    for number, file in enumerate(with_fraction):  # the way back
        os.utime(file, ns=(0, FINE_NS + number * 10**10))
    assert are_digested(project)
    check_nothing_is_done(project)


def test_times_that_are_cut_again_and_again(project: Project) -> None:
    """From one file system to a coarser one to a coarser one: known contents are no change at any of them."""
    project.run()
    for granularity_ns in GRANULARITIES_NS:
        for file in files(project):
            cut(file, granularity_ns)
        check_nothing_is_done(project)


# -- real edits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knows", [False, True], ids=["unknown", "known"])
@pytest.mark.parametrize("granularity_ns", COARSE)
def test_an_edit_of_the_same_size_in_the_same_second(project: Project, granularity_ns: int, knows: bool) -> None:
    """At 10:00:00.0 after 10:00:00.7: a source is redone, with its parts and its group."""
    if not knows:
        enlarge(project)
    project.run()
    source = project.folder / "in/a/1.txt"
    project.write("in/a/1.txt", source.read_text().replace("text ", "TEXT_"))
    os.utime(source, ns=(0, FINE_NS))
    cut(source, granularity_ns)
    assert project.plan()["up a/1.txt"][0] == "make"
    summary = project.run()
    assert (summary.done, summary.edited) == (4, 0)
    assert project.outputs()["up/a/1.txt"].rstrip() == b"TEXT_IN/A/1.TXT\nSECOND"
    assert project.outputs()["lines/a/1/000001.txt"] == b"TEXT_in/a/1.txt"
    assert project.outputs()["a/sheet.txt"].startswith(b"a/1.txt TEXT_IN")
    check_nothing_is_done(project)


@pytest.mark.parametrize("granularity_ns", EVERY)
@pytest.mark.parametrize("output", ["up/a/1.txt", "lines/a/1/000001.txt", "a/sheet.txt"])
def test_an_output_that_is_edited_in_the_same_second(project: Project, granularity_ns: int, output: str) -> None:
    """Of the same size, at its own time as a coarser file system keeps it: it is edited, kept and counted."""
    project.run()
    file = project.folder / "out" / output
    made_ns = file.stat().st_mtime_ns
    made_ns += made_ns % granularity_ns == 0  # or the time is the very one, which nobody can tell
    with_time(project, output, made_ns)
    edited = b"x" * file.stat().st_size
    file.write_bytes(edited)
    os.utime(file, ns=(0, made_ns))
    cut(file, granularity_ns)
    summary = project.run()
    assert summary.edited == 1 and file.read_bytes() == edited
    assert project.run().edited == 1 and file.read_bytes() == edited


def with_time(project: Project, output: str, made_ns: int) -> None:
    """Have an output another time, and the ledger know it."""
    os.utime(project.folder / "out" / output, ns=(0, made_ns))
    project.run()
    assert doubts_left(project) == []


@pytest.mark.parametrize("output", ["up/a/1.txt", "lines/a/1/000001.txt", "a/sheet.txt"])
@pytest.mark.parametrize("granularity_ns", COARSE)
def test_a_torn_output_of_a_cut_time_is_made_anew(project: Project, granularity_ns: int, output: str) -> None:
    """It may be an edit of that second, and so it is set aside first."""
    project.run()
    before, file = project.outputs(), project.folder / "out" / output
    made_ns = file.stat().st_mtime_ns
    file.write_bytes(before[output][:3])
    os.utime(file, ns=(0, made_ns - made_ns % granularity_ns))
    summary = project.run()
    assert (summary.edited, summary.set_aside) == (0, 1) and project.outputs() == before
    check_nothing_is_done(project)


# -- orphans, renames, verify ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_edit", [False, True], ids=["cut", "edit"])
@pytest.mark.parametrize("granularity_ns", EVERY)
def test_prune_goes_by_contents(project: Project, pipeline: Pipeline, granularity_ns: int, is_edit: bool) -> None:
    """An orphan whose time was cut is removed; one that was edited at such a time stays."""
    project.run()
    file = project.folder / "out/up/a/1.txt"
    os.utime(file, ns=(0, FINE_NS))
    project.run()
    if is_edit:
        file.write_bytes(b"x" * file.stat().st_size)
    os.utime(file, ns=(0, FINE_NS - FINE_NS % granularity_ns))
    (project.folder / "in/a/1.txt").unlink()
    pipeline("prune", "--yes", cwd=project.folder)
    assert file.exists() is is_edit
    assert not (project.folder / "out/lines/a/1/000001.txt").exists()


@pytest.mark.parametrize("is_edit", [False, True], ids=["cut", "edit"])
@pytest.mark.parametrize("granularity_ns", EVERY)
def test_renames_go_by_contents(project: Project, granularity_ns: int, is_edit: bool) -> None:
    """An output whose time was cut is moved to its new path; in place of an edited one another is made."""
    project.run()
    file = project.folder / "out/up/a/1.txt"
    os.utime(file, ns=(0, FINE_NS))
    project.run()
    before = project.outputs()["up/a/1.txt"]
    if is_edit:
        file.write_bytes(b"x" * len(before))
    os.utime(file, ns=(0, FINE_NS - FINE_NS % granularity_ns))
    project.edit("pipeline.yaml", "out/up/{dir}", "out/loud/{dir}")
    summary = project.run()
    assert summary.renamed == (2 if is_edit else 3) + 1  # and what was left out
    assert project.outputs()["loud/a/1.txt"] == before
    assert file.exists() is is_edit
    assert project.run().done == 0


@pytest.mark.parametrize("granularity_ns", EVERY)
def test_fewer_parts_of_cut_times(project: Project, granularity_ns: int) -> None:
    """A part that is not made any more goes, if its contents are ours; an edited one stays."""
    project.run()
    ours, edited = (project.folder / f"out/lines/a/{number}/000002.txt" for number in (1, 2))
    for file in (ours, edited):
        os.utime(file, ns=(0, FINE_NS))
    project.run()
    edited.write_bytes(b"x" * edited.stat().st_size)
    for number, file in enumerate((ours, edited), 1):
        os.utime(file, ns=(0, FINE_NS - FINE_NS % granularity_ns))
        project.write(f"in/a/{number}.txt", "one line")
    project.run()
    assert (ours.exists(), edited.exists()) == (False, True)


@pytest.mark.parametrize("granularity_ns", EVERY)
def test_verify_and_explain_go_by_contents(project: Project, pipeline: Pipeline, granularity_ns: int) -> None:
    """What was cut is as recorded; what was edited at such a time is named."""
    project.run()
    file = project.folder / "out/up/a/1.txt"
    os.utime(file, ns=(0, FINE_NS))
    project.run()
    os.utime(file, ns=(0, FINE_NS - FINE_NS % granularity_ns))
    assert pipeline("verify", cwd=project.folder).returncode == 0
    assert "as it was left" in pipeline("explain", "out/up/a/1.txt", cwd=project.folder).stdout
    file.write_bytes(b"x" * file.stat().st_size)
    os.utime(file, ns=(0, FINE_NS - FINE_NS % granularity_ns))
    ran = pipeline("verify", cwd=project.folder)
    assert (ran.returncode, ran.stdout) == (1, "out/up/a/1.txt: edited by someone else\n")
    assert "as it was left" not in pipeline("explain", "out/up/a/1.txt", cwd=project.folder).stdout


# -- file systems ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["whole seconds", "100 ns"])
def test_a_project_that_is_copied_to_another_file_system(project: Project, tmp_path: Path, kind: str) -> None:
    """And back: nothing is made there that is as it was, and an edit is seen."""
    project.run()
    before = project.outputs()
    with mounted(kind, tmp_path) as disk:
        shutil.copytree(project.folder, disk / "p")
        there = copy(project)
        there.folder = disk / "p"
        assert any(file.stat().st_mtime_ns % 100 for file in files(project))
        assert not any(file.stat().st_mtime_ns % 100 for file in files(there))
        check_nothing_is_done(there)
        source = there.folder / "in/a/1.txt"
        then_ns = source.stat().st_mtime_ns
        source.write_text("TEXT_in/a/1.txt\nsecond")
        os.utime(source, ns=(0, then_ns + 2 * 10**9))
        assert there.run().done == 4
        assert there.outputs()["up/a/1.txt"] == b"TEXT_IN/A/1.TXT\nSECOND"
        shutil.copytree(there.folder / "in", project.folder / "in", dirs_exist_ok=True)
    assert project.run().done == 4
    assert {name for name, data in project.outputs().items() if data != before[name]} == {
        "up/a/1.txt", "lines/a/1/000001.txt", "a/sheet.txt"
    }  # fmt: skip
    check_nothing_is_done(project)


def through_tar(folder: Path, archive: Path, to: Path) -> None:
    """Copy a folder by an archive that keeps whole seconds, as tar's older formats do."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(folder, ".")
    with tarfile.open(archive) as tar:
        tar.extractall(to, filter="fully_trusted")


def through_zip(folder: Path, archive: Path, to: Path) -> None:
    """Copy a folder by an archive that keeps every other second, and have its times set as unzip does."""
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    with zipfile.ZipFile(archive) as opened:
        for each in opened.infolist():
            extracted = opened.extract(each, to)
            then = time.mktime((*each.date_time, 0, 0, -1))
            os.utime(extracted, (then, then))


@pytest.mark.parametrize(
    ("name", "copy_through", "granularity_ns"),
    [("p.tar", through_tar, 1_000_000_000), ("p.zip", through_zip, 2_000_000_000)],
    ids=["tar", "zip"],
)
@pytest.mark.parametrize("knows", [False, True], ids=["unknown", "known"])
def test_a_project_that_was_in_an_archive(
    project: Project,
    tmp_path: Path,
    name: str,
    copy_through: Callable[[Path, Path, Path], None],
    granularity_ns: int,
    knows: bool,
) -> None:
    """With known contents nothing is made again; without, each source once, and no output counts as edited."""
    if not knows:
        enlarge(project)
    project.run()
    before, there = project.outputs(), copy(project)
    there.folder = tmp_path / "there"
    copy_through(project.folder, tmp_path / name, there.folder)
    assert not any(file.stat().st_mtime_ns % granularity_ns for file in files(there))
    summary = there.run()
    # Of the groups nothing is made again, since their members are the same; nor is there a file of what was left out.
    assert summary.done == (0 if knows else 3 + 2 * 4) and summary.skipped == (0 if knows else 1)
    assert (summary.edited, summary.set_aside, summary.failed) == (0, 0, 0)
    assert there.outputs() == before
    check_nothing_is_done(there)


@pytest.mark.parametrize("kind", ["plain", "fan-out"])
@pytest.mark.parametrize("loses_log", [False, True])
def test_a_run_that_was_killed_where_files_have_whole_seconds(tmp_path: Path, kind: str, loses_log: bool) -> None:
    """What it made in the second in which it began shows a time before that, and is known as ours all the same."""
    with mounted("whole seconds", tmp_path) as disk:
        (disk / "p").mkdir()
        trial = Trial(disk / "p", kind)
        trial.add("new", 3)
        for file in (disk / "p/in").glob("new*"):  # a worker would wait for the tick of young ones
            os.utime(file, (7, 7))
        time.sleep(1 - time.time() % 1)
        trial.kill_run(after=1)
        if loses_log:
            (trial.state / "ledger.sqlite-wal").unlink()
        summary = trial.check()
        assert (summary.failed, summary.set_aside) == (0, 0)
