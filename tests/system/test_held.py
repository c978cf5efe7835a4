"""What had a file fail may lie outside it: held files are tried again when it may have been mended."""

from __future__ import annotations

from pathlib import Path

from support.project import Project
from support.warm_start import run_warm

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
  - {name: other, from: inputs, uses: plain, output: 'other/{name}'}
errors: {hold_after: 1}
engine: serial
"""
# Fails as a stage does whose program is not installed, or whose input cannot be read.
STAGE = """
from pathlib import Path
TOOL = Path(__file__).parent.parent / "tool"
def upper(file: Path) -> str:
    if not file.stat().st_mode & 0o004:
        raise PermissionError(f"not readable: {file.name}")
    if not TOOL.exists():
        raise FileNotFoundError(f"no program 'tool' for {file.name}")
    return file.read_text().upper()
"""


def project_of(folder: Path, files: int) -> Project:
    """Return a project of several files that all fail until there is a file `tool`."""
    project = Project(folder, YAML)
    project.write("stages/upper.py", STAGE)
    project.write("stages/plain.py", "def plain(text: str) -> str:\n    return text\n")
    for number in range(files):
        project.write(f"in/{number}.txt", f"text {number}")
    return project


def say(project: Project, *arguments: str) -> tuple[int, str, str]:
    """Run the program; return its exit code, stdout and stderr."""
    done = run_warm(*arguments, cwd=project.folder)
    return done.returncode, done.stdout, done.stderr


def test_a_held_file_is_tried_once_more_after_its_mode_has_changed(tmp_path: Path) -> None:
    """Time and size are as before; without a change it stays held."""
    project = project_of(tmp_path, 3)
    project.write("tool", "")
    file = tmp_path / "in" / "1.txt"
    file.chmod(0o600)
    assert [say(project)[0] for _ in range(3)] == [1, 6, 6]
    assert "1 held" in say(project, "-v")[2]
    file.chmod(0o620)  # in vain
    assert "failed before" in say(project, "explain", "in/1.txt")[1]
    assert "held after" not in say(project, "failures")[1]
    assert ["1 held" in say(project, "-v")[2] for _ in range(3)] == [False, True, True]
    file.chmod(0o644)
    assert say(project)[0] == 0
    assert (tmp_path / "out" / "1.txt").read_text() == "TEXT 1"


def test_where_all_failed_alike_one_is_tried_and_then_all(tmp_path: Path) -> None:
    """Nobody has to know of --retry-failed once the program is installed."""
    project = project_of(tmp_path, 5)
    assert say(project)[0] == 1
    _, listed, said = say(project, "failures")
    assert listed.count("held after") == 5 and "5 held\n" in listed
    assert "likely the fault of the stage: all of its files fail alike, so it is the stage or what it needs" in listed
    assert "stage 'up' failed alike in 5 files and has made none since: FileNotFoundError: no program 'tool'" in said
    for _ in range(3):
        code, _, said = say(project, "-v")
        assert code == 6 and "5 held (" in said and "failed," not in said
    assert "likely the fault" in (listed := say(project, "failures")[1])
    assert listed.count("held after 1 failed attempt") == 5
    assert "tried for all 5 files, which failed alike" in say(project, "explain", "in/0.txt")[1]
    project.write("tool", "")
    code, _, said = say(project)
    assert code == 6 and "1 done" in said and "4 files that had failed alike in stage 'up' are tried again" in said
    assert say(project)[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 6  # and the owner file


def test_new_files_of_an_outage_are_tried_again(tmp_path: Path) -> None:
    """An archive is up to date, new files come, and for some nights a service is away."""
    project = project_of(tmp_path, 3)
    project.write("tool", "")
    assert say(project)[0] == 0
    (tmp_path / "tool").unlink()
    for number in range(3, 7):
        project.write(f"in/{number}.txt", "new")
    assert [say(project)[0] for _ in range(3)] == [1, 6, 6]
    assert "failed alike in 4 files and has made none since" in say(project, "failures")[2]
    project.write("tool", "")
    assert "1 done" in say(project)[2]
    assert say(project)[0] == 0 and len(list((tmp_path / "out").iterdir())) == 8


def test_files_that_failed_otherwise_stay_held(tmp_path: Path) -> None:
    """A stage that has made something, or that failed for different reasons, is not taken for a broken machine."""
    project = project_of(tmp_path, 5)
    (tmp_path / "in" / "3.txt").chmod(0o600)
    assert [say(project)[0] for _ in range(2)] == [1, 6]
    project.write("tool", "")
    assert "5 held" in say(project, "-v")[2]
    assert say(project, "failures")[2] == ""
