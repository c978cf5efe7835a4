"""pipeline/report/metrics.py: the file for Prometheus, whole and readable, and what cannot be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.permissions import permissions_hold

from pipeline.report.metrics import Figures, NotWritten, write_metrics

FIGURES = Figures(
    last_run=1_796_060_384.25, last_success=1_796_000_000.5, seconds=12.5, exit=1, sources=7,
    files={"done": 5, "failed": 2}, bytes_in=10**12, bytes_out=3, oldest_failure=1_795_000_000.0, in_hand=4,
)  # fmt: skip


def read(file: Path) -> dict[str, float]:
    """The samples of a file, by name and labels but for that of the pipeline."""
    found = {}
    for family in text_string_to_metric_families(file.read_text()):
        assert family.type == "gauge" and family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert sample.labels.pop("pipeline") == "photos"
            found[" ".join([sample.name, *sample.labels.values()])] = sample.value
    return found


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """Every figure is there, exactly; without a failure none is the oldest."""
    file = tmp_path / "photos.prom"
    write_metrics(file, "photos", FIGURES)
    assert read(file) == {
        "filemill_last_success_timestamp_seconds": 1_796_000_000.5,
        "filemill_last_run_timestamp_seconds": 1_796_060_384.25,
        "filemill_run_duration_seconds": 12.5,
        "filemill_run_exit_code": 1,
        "filemill_input_files": 7,
        "filemill_files done": 5,
        "filemill_files failed": 2,
        "filemill_bytes in": 10**12,
        "filemill_bytes out": 3,
        "filemill_files_in_hand": 4,
        "filemill_oldest_failure_timestamp_seconds": 1_795_000_000,
    }
    write_metrics(file, "photos", Figures())
    assert "filemill_oldest_failure_timestamp_seconds" not in read(file)
    assert [each.name for each in tmp_path.iterdir()] == ["photos.prom"]


def test_the_umask_decides_who_may_read_it(tmp_path: Path) -> None:
    """The collector is another user."""
    before = os.umask(0o022)
    try:
        write_metrics(tmp_path / "photos.prom", "photos", FIGURES)
    finally:
        os.umask(before)
    assert (tmp_path / "photos.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("whose", ["another pipeline", "a person"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, whose: str) -> None:
    """Two pipelines that take turns in one file would look like two that hang."""
    file = tmp_path / "photos.prom"
    if whose == "a person":
        file.write_text("a letter")
    else:
        write_metrics(file, "photo", FIGURES)
    before = file.read_bytes()
    with pytest.raises(NotWritten, match="is no file of this pipeline's metrics; name another"):
        write_metrics(file, "photos", FIGURES)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no/photos.prom", "No such file or directory"),
        ("file/photos.prom", "Not a directory"),
        ("folder", "folder"),
        ("fifo", "fifo"),
        (f"{'x' * 255}", "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written(tmp_path: Path, place: str, said: str) -> None:
    """It is said which and why, and nobody waits for the reader of a FIFO."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotWritten, match=said):
        write_metrics(tmp_path / place, "photos", FIGURES)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fifo", "file", "folder"]


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with permissions_hold(), pytest.raises(NotWritten, match="Permission denied"):
            write_metrics(tmp_path / "photos.prom", "photos", FIGURES)
    finally:
        tmp_path.chmod(0o755)


def test_without_the_library_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(NotWritten, match=r"pip install 'filemill\[metrics\]'"):
        write_metrics(tmp_path / "photos.prom", "photos", FIGURES)
