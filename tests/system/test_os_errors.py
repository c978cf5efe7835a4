"""When the machine refuses: no file is blamed, a sentence says what is full, and after the cure the line completes."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.kill_drill import FOLLOWING, Gallery, calls_below, injecting, strace
from support.program import Pipeline, wait_until
from support.project import UPPER, Project, contents_below, temporaries

from pipeline.files.file_system import describe_room

__all__ = ["strace"]  # a fixture

BOTH = pytest.mark.parametrize("engine", ["serial", "pool"])

Disk = Callable[..., Path]


def mount(*arguments: str) -> None:
    """Mount, or skip the test where that is not allowed."""
    if subprocess.run(["mount", *arguments], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Twenty texts whose outputs go to `disk/`."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "out/{dir}", "disk/{dir}")
    for number in range(20):
        project.write(f"in/{number:02}", "x" * 50_000)
    return project


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a small file system at `disk/`."""
    place = tmp_path / "disk"

    def make(options: str) -> Path:
        place.mkdir()
        mount("-t", "tmpfs", "-o", options, "tmpfs", str(place))
        return place

    yield make
    while subprocess.run(["umount", "-l", str(place)], capture_output=True).returncode == 0:
        pass


def refused(ran: subprocess.CompletedProcess[str], says: str) -> None:
    """The run ended with 3 and this sentence; nothing in it is a bug's."""
    assert ran.returncode == 3 and "Traceback" not in ran.stderr and "bug" not in ran.stderr, ran.stderr
    assert re.search(says, ran.stderr), ran.stderr


def completes(project: Project, pipeline: Pipeline, engine: str, count: int = 20) -> None:
    """The same line does what is left, and no file was blamed before."""
    assert pipeline("failures").stdout == ""
    ran = pipeline("--engine", engine)
    assert ran.returncode == 0, ran.stderr
    found = contents_below(project.folder / "disk")
    assert len(found) == count and all(set(data) == {ord("X")} for data in found.values())
    assert not temporaries(project.folder)


# -- the outputs' disk -------------------------------------------------------------------------------------------------


@BOTH
def test_a_full_disk(project: Project, pipeline: Pipeline, disk: Disk, engine: str) -> None:
    """What is done stays, nothing half is left, and the sentence names the file system."""
    place = disk("size=1m")
    (place / "ballast").write_bytes(b"x" * 800_000)
    says = (
        rf"{place}/\d\d: no space left on device \(tmpfs at {place}: 0.0 of 1.0 MB free, [\d,]+ of [\d,]+ inodes free\)"
    )
    refused(pipeline("--engine", engine), says)
    (place / "ballast").unlink()
    assert 0 < len(contents_below(place)) < 20 and not temporaries(place)
    mount("-o", "remount,size=8m", str(place))
    completes(project, pipeline, engine)


def test_no_inode_is_left(project: Project, pipeline: Pipeline, disk: Disk, engine: str = "serial") -> None:
    """A disk can have room and take no file."""
    place = disk("size=8m,nr_inodes=12")
    refused(
        pipeline("--engine", engine), rf"no space left on device \(tmpfs at {place}: [67].\d of 8.4 MB free, 0 of 12 "
    )
    mount("-o", "remount,nr_inodes=100", str(place))
    completes(project, pipeline, engine)


def test_a_disk_that_became_read_only(project: Project, pipeline: Pipeline, disk: Disk, engine: str = "pool") -> None:
    """As a kernel does to one with errors."""
    place = disk("size=8m")
    assert pipeline("--limit", "3").returncode == 0
    mount("-o", "remount,ro", str(place))
    refused(pipeline("--engine", engine), rf"{place}/.filemill-owner: read-only file system \(tmpfs at {place}: ")
    mount("-o", "remount,rw", str(place))
    completes(project, pipeline, engine)


SLOW = "import time\ndef upper(text: str) -> str:\n    time.sleep(0.1)\n    return text.upper()\n"


def lose_outputs(project: Project, engine: str, lose: Callable[[], object]) -> str:
    """Do something to the outputs in the middle of a run; gives what it says at its end, with 3."""
    project.write("stages/upper.py", SLOW)
    command = [sys.executable, "-m", "pipeline", "--engine", engine]
    process = subprocess.Popen(command, cwd=project.folder, stderr=subprocess.PIPE, text=True)
    wait_until((project.folder / "disk" / "02").exists)
    lose()
    _, said = process.communicate(timeout=100)
    assert process.returncode == 3 and "Traceback" not in said, said
    return said


LOST = r"stopped: the output folder \S+/disk was removed or unmounted during the run"


@BOTH
def test_the_output_folder_is_taken_away(project: Project, pipeline: Pipeline, engine: str) -> None:
    """It is not made again behind the back of whoever moved it; once it is back, what is there is not redone."""
    place, away = project.folder / "disk", project.folder / "away"
    assert re.search(LOST, lose_outputs(project, engine, lambda: place.rename(away)))
    assert not place.exists()
    done = {path.name: path.stat().st_ino for path in away.iterdir()}
    away.rename(place)
    completes(project, pipeline, engine)
    assert sum(path.stat().st_ino == done.get(path.name) for path in place.iterdir()) >= 3


def test_the_outputs_disk_is_unmounted(project: Project, pipeline: Pipeline, disk: Disk, engine: str = "pool") -> None:
    """What would go under the mount point is stopped within a moment."""
    there = project.folder / "there"
    there.mkdir()
    place = project.folder / "disk"
    place.mkdir()
    mount("--bind", str(there), str(place))
    said = lose_outputs(project, engine, lambda: subprocess.run(["umount", "-l", str(place)], check=True))
    assert re.search(LOST, said) and len(list(place.iterdir())) < 8
    mount("--bind", str(there), str(place))
    completes(project, pipeline, engine)


# -- our own disk ------------------------------------------------------------------------------------------------------

ON_DISK = ("--set", "state=disk/state", "--set", "stages.up.output.path=out/{name}")


def test_no_room_for_a_state_folder(project: Project, pipeline: Pipeline, disk: Disk) -> None:
    """The ledger and the lock live on a disk too."""
    place = disk("size=1m")
    (place / "ballast").write_bytes(b"x" * (1 << 20))
    says = rf"no space left on device \(tmpfs at {place}: 0.0 of 1.0 MB free, "
    refused(pipeline(*ON_DISK), rf"the state folder {place}/state cannot be used: \S+: {says}")
    (place / "ballast").unlink()
    assert pipeline(*ON_DISK).returncode == 0 and len(project.outputs()) == 20


@pytest.mark.parametrize("left", [40_000, 340_000])
def test_the_disk_fills_under_the_ledger(project: Project, pipeline: Pipeline, disk: Disk, left: int) -> None:
    """Whichever write of ours is refused, it is the machine's fault and no bug; the log is one of them."""
    place, arguments = disk("size=1m"), (*ON_DISK, "--engine", "serial")
    assert pipeline(*arguments).returncode == 0
    with open(place / "ballast", "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                break
    os.truncate(place / "ballast", (place / "ballast").stat().st_size - left)
    for number in range(3000):
        project.write(f"in/{number:04}", "x")
    refused(pipeline(*arguments), rf"\(tmpfs at {place}: \d.\d of 1.0 MB free, ")
    (place / "ballast").unlink()
    # The ledger's write-ahead log takes up to four MiB.
    mount("-o", "remount,size=8m", str(place))
    assert pipeline(*arguments).returncode == 0 and len(project.outputs()) == 3020


IN_SCRATCH = """
from pathlib import Path
from pipeline import Item
def upper(item: Item[str]) -> str:
    (item.scratch / "large").write_bytes(bytes(3_000_000 if item.source == "07" else 10))
    return item.value.upper()
"""
BY_PATH = "from pathlib import Path\ndef upper(path: Path) -> str:\n    return path.read_text().upper()\n"
LARGE = 'def large(text: str) -> str:\n    """Make it large."""\n    return text * 100\n'


@pytest.mark.parametrize(("writer", "engine"), [("the stage", "pool"), ("we", "serial")])
def test_no_room_for_scratch(project: Project, pipeline: Pipeline, disk: Disk, engine: str, writer: str) -> None:
    """A full disk is nobody's attempt, neither where a stage meets it nor where we do, who write a file for a stage."""
    place = disk("size=2m")
    if writer == "the stage":
        project.write("stages/upper.py", IN_SCRATCH)
    else:
        project.write("stages/upper.py", BY_PATH)
        project.write("stages/large.py", LARGE)
        project.edit("pipeline.yaml", "  - name: up", "  - {name: large, uses: large}\n  - name: up")
    # The ledger may be written to in the very moment in which the stage has filled the disk.
    says = rf"(no space left on device|database or disk is full) \(tmpfs at {place}: "
    refused(pipeline(*ON_DISK, "--engine", engine), says)
    assert pipeline("failures", *ON_DISK[:2]).stdout == ""
    mount("-o", "remount,size=64m", str(place))
    assert pipeline(*ON_DISK, "--engine", engine).returncode == 0 and len(project.outputs()) == 20


# -- descriptors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [7, 8, 10])
def test_too_few_descriptors(project: Project, tmp_path: Path, pipeline: Pipeline, most: int) -> None:
    """However few there are, it is the machine's fault, and a folder that could not be listed is not empty."""
    command = [sys.executable, "-m", "pipeline", "--engine", "serial"]
    limit = (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
    )  # fmt: skip
    assert ran.returncode in (0, 3) and "Traceback" not in ran.stderr, ran.stderr
    if ran.returncode:
        refused(ran, "[Tt]oo many open files")
    completes(project, pipeline, "serial")


def test_the_room_of_a_file_system() -> None:
    """Type, place, bytes and inodes, also of a path that is not there yet; nothing where nobody knows."""
    says = r" \(\S+ at /\S*: [\d,.]+ of [\d,.]+ [MG]B free(, [\d,]+ of [\d,]+ inodes free)?\)"
    assert re.fullmatch(says, describe_room("/tmp/not/there")) and re.fullmatch(says, describe_room(b"/"))


# -- disks and servers that are gone, and folders that may not be written to -------------------------------------------


def failing(
    project: Project, places: list[str], call: str, error: str, engine: str
) -> subprocess.CompletedProcess[str]:
    """Run while each such call on one of the places fails with an error."""
    paths = [word for place in places for word in ("-P", str(project.folder / place))]
    inject = (*paths, "-e", f"trace={call}", "-e", f"inject={call}:error={error}")
    command = ["strace", *FOLLOWING, "-o", os.devnull, *inject, sys.executable, "-m", "pipeline", "--engine", engine]
    return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("error", ["EACCES", "EPERM"])
def test_no_folder_may_be_made(project: Project, pipeline: Pipeline, strace: None, error: str) -> None:
    """The run ends with 3, the path and the reason; no attempt is counted, and what lies elsewhere is made."""
    for number in range(5):
        project.write(f"in/00new/{number}", "x")
    for _ in range(4):
        ran = failing(project, ["disk/00new"], "mkdir", error, "serial")
        refused(ran, f"disk/00new.*: {os.strerror(getattr(errno, error)).lower()}.*, and 4 more like it")
        assert len(contents_below(project.folder / "disk")) == 20
    listed = pipeline("failures").stdout
    assert listed.count("(up)") == 5 and "attempt" not in listed and "held" not in listed
    assert pipeline("--engine", "serial").returncode == 0
    completes(project, pipeline, "serial", 25)


UNREADABLE = pytest.mark.parametrize(
    ("call", "error", "stage", "engine"),
    [
        ("openat", "ETIMEDOUT", UPPER, "serial"), ("openat", "EHOSTDOWN", BY_PATH, "serial"),
        ("read", "EIO", UPPER, "serial"), ("read", "EIO", BY_PATH, "pool"),
    ],
)  # fmt: skip


@UNREADABLE
def test_a_source_that_the_machine_cannot_read_costs_itself(
    project: Project, pipeline: Pipeline, strace: None, call: str, error: str, stage: str, engine: str
) -> None:
    """A bad sector: all others are made, 3 in the end, and however often that happens, it is not held."""
    project.write("stages/upper.py", stage)
    for _ in range(4):
        ran = failing(project, ["in/05"], call, error, engine)
        refused(ran, f"in/05: {os.strerror(getattr(errno, error)).lower()}")
        assert len(contents_below(project.folder / "disk")) == 19
    listed = pipeline("failures").stdout
    assert (
        "\n\n05 (up): " in listed
        and "likely the fault of the machine: it refused the file" in listed
        and "attempt" not in listed
        and "held" not in listed
    )
    assert pipeline("--engine", engine).returncode == 0
    completes(project, pipeline, engine)


@UNREADABLE
def test_a_disk_that_is_gone_stops_the_run(
    project: Project, pipeline: Pipeline, strace: None, call: str, error: str, stage: str, engine: str
) -> None:
    """Nobody waits for a thousand timeouts."""
    project.write("stages/upper.py", stage)
    ran = failing(project, [f"in/{number:02}" for number in range(20)], call, error, engine)
    refused(ran, f"stopped: 3 files in a row cannot be read: .*: {os.strerror(getattr(errno, error)).lower()}")
    failed = pipeline("failures").stdout.count("(up)")
    assert failed == 3 if engine == "serial" else failed >= 3  # what is in hand is finished
    assert pipeline("--engine", engine).returncode == 0
    completes(project, pipeline, engine)


def test_a_limit_on_the_size_of_files(project: Project, pipeline: Pipeline) -> None:
    """It is the machine's, or whoever has set it with ulimit."""
    project.write("in/05", "x" * 3_000_000)
    command = [sys.executable, "-m", "pipeline", "--engine", "serial"]
    limit = (2_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    ran = subprocess.run(
        command, cwd=project.folder, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    refused(ran, "disk/05: file too large")
    completes(project, pipeline, "serial")


# -- every call --------------------------------------------------------------------------------------------------------

ERRORS = {
    "openat": ("ENOSPC", "EMFILE", "EIO"), "write": ("ENOSPC", "EIO"), "pwrite64": ("ENOSPC", "EIO"),
    "rename": ("ENOSPC", "EIO"), "mkdir": ("ENOSPC", "EROFS"), "ftruncate": ("EIO",), "fdatasync": ("EIO",),
    "unlink": ("EIO",), "fchmod": ("EIO",),
}  # fmt: skip


def refuse_calls(gallery: Gallery, engine: str, calls: list[tuple[str, str, int]]) -> Counter[int]:
    """Have each of these calls fail in a run from nothing, which is then run again; counts the exit codes."""
    codes: Counter[int] = Counter()
    gallery.forget()
    assert gallery.finish("--engine", engine) == 0
    expected = gallery.outputs()
    for call, error, number in calls:
        gallery.forget()
        process = gallery.start("--engine", engine, before=injecting(call, f"error={error}", number))
        _, said = process.communicate(timeout=100)
        where = f"{call} {error} {number}: exit {process.returncode}: {said}"
        # What may be done without, such as the sweeping of a folder, is done without.
        assert process.returncode in (0, 3) and "Traceback" not in said and "bug" not in said, where
        assert bool(process.returncode) == ("stopped" in said or "cannot be" in said), where
        assert gallery.failures() == "", where
        gallery.check_whole(expected)
        gallery.check_ended_well(expected, "--engine", engine)
        codes[process.returncode] += 1
    return codes


def test_a_call_is_refused(tmp_path: Path, strace: None) -> None:
    """Of the calls that make an output and the ledger some, in the middle of the run."""
    gallery = Gallery(tmp_path, 3)
    found = list(calls_below(gallery, "--engine", "serial"))
    chosen = []
    for call, error in (("rename", "ENOSPC"), ("write", "EIO"), ("pwrite64", "ENOSPC")):
        numbers = [number for name, number in found if name == call]
        chosen.append((call, error, numbers[len(numbers) // 2]))
    assert refuse_calls(gallery, "serial", chosen)[3]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", ERRORS)
@BOTH
def test_every_call_is_refused(tmp_path: Path, strace: None, engine: str, call: str) -> None:
    """At each system call by which anything on disk is changed, whoever makes it: 3 or 0, and the rerun completes."""
    if engine == "pool" and call == "write":
        pytest.skip("pipes are written to as well, and never refuse like this")
    gallery = Gallery(tmp_path, 3)
    found = [number for name, number in calls_below(gallery, "--engine", engine) if name == call]
    codes = refuse_calls(gallery, engine, [(call, error, number) for error in ERRORS[call] for number in found])
    print(f"{engine}: {call} refused at {len(found)} places: exit codes {dict(codes)}")
