"""pipeline/config/assembly.py: what of the checked pipeline depends on all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import ONE_STAGE, Project

from pipeline.config.load import load_config
from pipeline.errors import ConfigError


def project_with(folder: Path, trace: str) -> Path:
    """Return the file of a pipeline with this trace."""
    Project(folder, f"{ONE_STAGE}name: texts\ntrace: {trace!r}\n")
    return folder / "pipeline.yaml"


def test_the_path_of_a_trace_is_absolute(tmp_path: Path) -> None:
    """Relative to the YAML's folder; the run is left to be filled in."""
    config = load_config(project_with(tmp_path, "runs/{name}/{run}.ndjson"))
    assert config.trace == f"{tmp_path}/runs/texts/{{run}}.ndjson"
    assert (config.trace_folder, config.other_folders) == (tmp_path / "runs/texts", ())
    assert load_config(project_with(tmp_path, "/var/tmp/t/{run}/trace")).trace_folder == Path("/var/tmp/t")


def test_the_folder_of_traces_below_the_inputs_is_left_out_of_the_walk(tmp_path: Path) -> None:
    config = load_config(project_with(tmp_path, "in/runs/{run}.ndjson"))
    assert config.other_folders == (bytes(tmp_path / "in/runs"),)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        ("runs.ndjson", "trace: each run writes a file of its own; use {run} in the path, such as runs/{run}.ndjson"),
        ("{stem}/{run}", "trace: there is no field '{stem}'; the fields are {run} and {name}, such as"),
        ("{run}}.ndjson", "trace: there is no field '}'"),
        ("in/{run}.ndjson", "trace: it would lie among the inputs and be read as one"),
        (".pipeline/texts/traces/{run}", "trace: it would lie in the state folder, where only filemill writes"),
        ("out/traces/{run}.ndjson", "trace: it would lie where an output 'out/{dir}/{name}' may come to lie"),
        ("", "trace: text is needed"),
    ],
)
def test_what_a_trace_cannot_be(tmp_path: Path, trace: str, said: str) -> None:
    """Each is refused with its line and column."""
    with pytest.raises(ConfigError) as raised:
        load_config(project_with(tmp_path, trace))
    assert f"pipeline.yaml:9:8: {said}" in str(raised.value)


def test_a_trace_may_lie_hidden_among_the_outputs(tmp_path: Path) -> None:
    """Where no output can come to lie."""
    assert load_config(project_with(tmp_path, "out/.traces/{run}.ndjson")).trace
