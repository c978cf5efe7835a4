"""The world in which cron starts a run: next to no environment, any folder, the C locale, streams that are closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import ROOT
from support.project import MOODY, Project

from pipeline.text import quoted

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
pool: {processes: 1}
"""
RUN = sys.executable, "-m", "pipeline"
NAMES = "bäd ñ.txt", os.fsdecode(b"b\xe9d.txt")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of which folder and files have names that are not ASCII, one of them not UTF-8; two files fail."""
    folder = tmp_path / "Büro nights"
    folder.mkdir()
    project = Project(folder, YAML)
    project.write("stages/upper.py", MOODY)
    project.write("in/gut.txt", "fine")
    for name in NAMES:
        project.write(f"in/{name}", "bad")
    return project


def cron(folder: Path, file: str, *arguments: str, closed: str = "", **environment: str) -> tuple[int, str]:
    """Run the program as cron does, in a folder; return its exit code and the text of the mail."""
    # No HOME either; the path of the modules stands for an installation.
    least = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)} | environment
    ran = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *RUN, file, *arguments], cwd=folder, env=least, timeout=100,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return ran.returncode, ran.stdout.decode()  # a mail that is not UTF-8 cannot be read


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LANG": "no_SUCH.locale"}], ids=str)
@pytest.mark.parametrize("is_relative", [False, True])
def test_nights_under_cron(project: Project, locale: dict[str, str], is_relative: bool) -> None:
    """Failures are told readably and once, then nothing is, then what has recovered, then nothing."""
    whole = f"{project.folder}/pipeline.yaml"
    folder, file = (project.folder.parent, "Büro nights/pipeline.yaml") if is_relative else (Path("/"), whole)
    code, mail = cron(folder, file, **locale)
    lines = mail.splitlines()
    assert code == 1 and lines[0].startswith("pipeline: 1 done, 2 failed (3 files, ")
    place = "ValueError: bad text (in stage 'up') at stages/upper.py:7"
    assert sorted(lines[1:3]) == [f"  b\\xe9d.txt (up): {place}", f"  bäd ñ.txt (up): {place}"]
    state, python = f"{project.folder}/.pipeline/pipeline", quoted(sys.executable)
    assert lines[3:6] == [
        f"next: {python} -m pipeline failures '{whole}'",
        f"pipeline: {whole}",
        f"state: {state}",
    ]
    assert cron(folder, file, **locale) == (1, "")
    for name in NAMES:
        project.write(f"in/{name}", "mended")
    code, mail = cron(folder, file, **locale)
    said, _, names = mail.splitlines()[1].partition(": ")
    assert (code, said, sorted(names.split(", "))) == (0, "recovered", ["b\\xe9d.txt (up)", "bäd ñ.txt (up)"])
    for _ in range(2):
        assert cron(folder, file, **locale) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(project: Project, closed: str) -> None:
    """Nor what is made; what cannot be said is on record."""
    file = str(project.folder / "pipeline.yaml")
    code, mail = cron(Path("/"), file, closed=closed)
    assert code == 1 and ("2 failed" in mail) == ("2>" not in closed)
    assert project.outputs() == {"gut.txt": b"FINE"}
    for name in NAMES:
        project.write(f"in/{name}", "mended")
    assert cron(Path("/"), file, closed=closed)[0] == 0
    assert cron(Path("/"), file, closed=closed) == (0, "")
    assert len(project.outputs()) == 3


def test_what_is_wrong_with_the_line_is_said(project: Project) -> None:
    """A file that is not there, a pipeline that is wrong, an input folder that is gone."""
    assert cron(Path("/"), f"{project.folder}/other.yaml")[0] == 2
    code, mail = cron(Path("/"), f"{project.folder}/pipeline.yaml", "--set", "stages.up.uses=none")
    assert code == 2 and "none" in mail
    cron(Path("/"), f"{project.folder}/pipeline.yaml")
    (project.folder / "in").rename(project.folder / "away")
    for _ in range(2):
        code, mail = cron(Path("/"), f"{project.folder}/pipeline.yaml")
        assert code in (2, 3) and f"{project.folder}/in" in mail
