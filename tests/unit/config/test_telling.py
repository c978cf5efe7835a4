"""pipeline/config/telling.py: what `notify` and `metrics` may say, and which files they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.model import Config
from pipeline.errors import ConfigError

STAGE = "def up(text: str) -> str:\n    return text.upper()\n"
HEAD = "inputs: in\nstages:\n  - {name: up, uses: ./up.py, output: 'out/{name}'}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "up.py").write_text(STAGE)
    return tmp_path


def load(folder: Path, rest: str) -> Config:
    (folder / "photos.yaml").write_text(HEAD + rest)
    return load_config(folder / "photos.yaml")


def refused(folder: Path, rest: str) -> list[str]:
    """The complaints without their source lines, as `4:14: text`."""
    with pytest.raises(ConfigError) as caught:
        load(folder, rest)
    lines = str(caught.value).splitlines()
    return [re.sub(r"^.*photos\.yaml:(?=\d)", "", each) for each in lines if not each.startswith("    ")]


def test_what_is_right(folder: Path) -> None:
    """Paths are relative to the YAML's folder; what is named otherwise is found by PATH; variables stay as written."""
    found = load(
        folder,
        "notify:\n"
        "  - {on: [failure, recovery], argv: [./tell, 'a b', '${WHO}']}\n"
        "  - {on: [success], argv: [mail], always: true}\n"
        "  - {on: [stuck], argv: ['${BIN}/tell']}\n"
        "  - ping: https://hc.example/uuid?create=1\n"
        "  - ping: ${PING_URL}/photos\n"
        "  - {ping: 'http://localhost:8000', always: true}\n"
        "metrics: 'metrics/{name}.prom'\n",
    )
    assert [each.argv for each in found.notify[:3]] == [
        (f"{folder}/tell", "a b", "${WHO}"), ("mail",), ("${BIN}/tell",),
    ]  # fmt: skip
    assert [each.ping for each in found.notify[3:]] == [
        "https://hc.example/uuid?create=1", "${PING_URL}/photos", "http://localhost:8000",
    ]  # fmt: skip
    assert found.notify[0].on == ("failure", "recovery") and [each.always for each in found.notify[:2]] == [False, True]
    assert found.metrics == folder / "metrics/photos.prom" and found.is_told
    assert not load(folder, "").is_told


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{on: [failure], argv: [a], ping: 'https://b.c'}",
         "5:32: 'argv' and 'ping' are two ways of telling; make two entries of them"),
        ("{always: true}", "5:5: an entry of notify needs 'argv', a program and its arguments, or 'ping', a URL"),
        ("{on: [failure]}", "5:5: an entry of notify needs 'argv', a program and its arguments, or 'ping', a URL"),
        ("{argv: [a]}", "5:5: 'argv' needs 'on', a list of failure, recovery, success and stuck"),
        ("{on: [], argv: [a]}", "5:6: on: at least one event is needed: failure, recovery, success or stuck"),
        ("{on: [failure], argv: []}", "5:21: argv: a program is needed"),
        ("{on: [failure], ping: 'https://b.c'}",
         "5:6: 'on' is for 'argv': a ping is sent at the start and at the end of every run"),
        ("{on: [failure], argv: [a, '${1}']}",
         "5:21: argv: '${' begins the name of a variable of the environment, as in ${NAME}"),
        ("{on: [failure], argv: [a], alway: true}", "5:32: unknown key 'alway'; did you mean 'always'?"),
        ("{on: failure, argv: [a]}", '5:10: on: a list is needed, not "failure"'),
        ("{on: [failed], argv: [a]}",
         "5:11: on: should be 'failure', 'recovery', 'success' or 'stuck', not \"failed\"; did you mean 'failure'?"),
        ("{on: [failure], argv: a}", '5:27: argv: a list is needed, not "a"'),
        *(
            (f"{{ping: '{url}'}}", f"5:12: ping: a URL is needed that begins with https://, with http:// to this "
             f"machine itself, or with ${{NAME}}, not {url!r}")
            for url in ("hc.example", "http://hc.example/", "http://localhost@hc.example/", "ftp://a", "https://",
                        "https://a b", "http://127.0.0.1.example/")
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_entry(folder: Path, entry: str, said: str) -> None:
    """Each complaint has its line and column."""
    assert refused(folder, f"notify:\n  - {entry}\n") == [said]


def test_all_at_once(folder: Path) -> None:
    """What is wrong with one entry hides nothing that is wrong with another, or elsewhere."""
    found = refused(folder, "notify:\n  - {argv: [a]}\n  - {ping: no}\n  - 5\nmetrics: 'a/{dir}/{name}'\nengin: pool\n")
    assert [each.split(":")[0] for each in found] == ["5", "6", "7", "8", "9"]
    assert found[3] == "8:10: metrics: there is no field '{dir}'; the only field is {name}, the pipeline's name"


def test_a_brace_that_belongs_to_no_field(folder: Path) -> None:
    """Is a slip, as it is in a trace."""
    said = "4:10: metrics: there is no field '}'; the only field is {name}, the pipeline's name"
    assert refused(folder, "metrics: '{name}}.prom'\n") == [said]


def test_metrics_may_not_lie_in_the_state_folder(folder: Path) -> None:
    """Whatever changes there makes the next night look at everything."""
    said = "4:10: metrics: it lies in the state folder; put it elsewhere"
    assert refused(folder, "metrics: .pipeline/photos/a.prom\n") == [said]
