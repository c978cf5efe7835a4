"""pipeline/config/defaults.py: what many pipelines of one machine have in common, and complaints with both places."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from support.docs import blocks
from support.examples import examples
from support.program import ROOT, Pipeline, on_terminal

from pipeline.config.defaults import WORDS, lay_over_defaults
from pipeline.config.document import MAX_NODES, Document, read_document
from pipeline.config.evidence import MAX_BYTES
from pipeline.config.json_schema import defaults_schema
from pipeline.config.load import load_config
from pipeline.config.model import Config, Pool
from pipeline.config.schema import parse_pipeline
from pipeline.errors import ConfigError

PIPELINE = "inputs: in\ndefaults: ../site.yaml\nstages:\n  - {name: up, uses: upper, output: out/}\n"
UPPER = "def upper(text: str) -> str:\n    return text.upper()\n"

Load = Callable[..., Config]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a pipeline, beside which a test writes site.yaml."""
    folder = tmp_path / "photos"
    for name, text in {"in/a": "a", "stages/upper.py": UPPER, "pipeline.yaml": PIPELINE}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def load(project: Path) -> Load:
    """Writes site.yaml, and loads the pipeline with more lines of its own."""

    def run(site: str, more: str = "", *edits: str) -> Config:
        (project / "../site.yaml").write_text(site)
        (project / "pipeline.yaml").write_text(PIPELINE + more)
        return load_config(project / "pipeline.yaml", edits)

    return run


def complaints(run: Callable[[], object]) -> list[str]:
    """What is said, without the folder of the test."""
    with pytest.raises(ConfigError) as caught:
        run()
    return re.sub(r"(?m)^/.*?(?=site\.yaml|pipeline\.yaml)|(?<= of )/\S*/", "", str(caught.value)).splitlines()


# -- which value counts ------------------------------------------------------------------------------------------------


def test_a_pipeline_has_what_the_defaults_say(project: Path, load: Load) -> None:
    """Also where the pipeline is named from elsewhere, or by a link; and it knows the file."""
    site = "timeout: 1m\npool: {processes: 3, context: spawn}\nerrors: {max: 5%, hold_after: never}\n"
    config = load(site)
    assert (config.timeout_s, config.pool) == (60, Pool(processes=3, context="spawn"))
    assert (str(config.errors.max), config.errors.hold_after) == ("5%", None)
    assert config.defaults == project.parent / "site.yaml"
    link = project.parent / "elsewhere.yaml"
    link.symlink_to("photos/pipeline.yaml")
    assert load_config(link).timeout_s == 60


def test_what_the_pipeline_says_wins(load: Load) -> None:
    """Mappings key by key, at any depth; scalars and lists as a whole; `null` takes a default back."""
    site = "timeout: 1m\npool: {processes: 3, context: spawn, env: {A: 1, B: 2}}\nerrors: {max: 5%, hold_after: 9}\n"
    config = load(site, "timeout: null\npool: {processes: 2, env: {B: 5, C: 6}}\nerrors: {max: 7}\n")
    assert config.timeout_s is None
    assert (config.pool.processes, config.pool.context) == (2, "spawn")
    assert config.pool.env == {"A": 1, "B": 5, "C": 6}
    assert (config.errors.max, config.errors.hold_after) == (7, 9)


def test_edits_win_over_both(load: Load) -> None:
    """Also where only the defaults have the mapping, or the edit names other defaults."""
    site, more = "pool: {processes: 3, context: spawn}\ntimeout: 1m\n", "timeout: 2m\n"
    config = load(site, more, "pool.processes=2", "timeout=3m", "pool.env.A=1")
    assert (config.pool.processes, config.pool.context, config.timeout_s) == (2, "spawn", 180)
    assert load(site, more, "defaults=null").pool == Pool()


def test_an_empty_file_says_nothing(load: Load) -> None:
    assert load("").pool == load("# pool: {processes: 3}\n").pool == Pool()


def test_an_initializer_of_its_own_gets_no_arguments_of_the_defaults(project: Path, load: Load) -> None:
    """An initializer lies beside pipeline.yaml wherever it is named; its arguments belong to it."""
    (project / "models_of_defaults.py").write_text("def load(path): ...\ndef none(): ...\n")
    site = "pool: {initializer: 'models_of_defaults:load', initargs: [model.bin], processes: 3}\n"
    assert load(site).pool.initargs == ("model.bin",)
    own = load(site, "pool: {initializer: 'models_of_defaults:none'}\n").pool
    assert (own.initializer, own.initargs, own.processes) == ("models_of_defaults:none", (), 3)


def merged(site: str, own: str, folder: Path) -> Document:
    """The data of both, not yet parsed."""
    (folder / "site.yaml").write_text(site)
    document = read_document("pipeline.yaml", f"defaults: ../site.yaml\n{own}".encode())
    lay_over_defaults(document, folder / "photos")
    return document


@pytest.mark.parametrize(
    ("site", "key", "path"),
    [
        ("metrics: prom/{name}.prom", ("metrics",), "SITE/prom/{name}.prom"),
        ("metrics: /var/lib/a.prom", ("metrics",), "/var/lib/a.prom"),
        ("metrics: ~/a.prom", ("metrics",), "/HOME/a.prom"),
        ("metrics: $odd/a.prom", ("metrics",), "SITE/$odd/a.prom"),
        ("notify: [{on: [failure], argv: [./tell, ./same]}]", ("notify", 0, "argv"), ["SITE/tell", "./same"]),
        ("notify: [{on: [failure], argv: [mail, root]}]", ("notify", 0, "argv"), ["mail", "root"]),
        ("notify: [{on: [failure], argv: [~/tell]}]", ("notify", 0, "argv"), ["/HOME/tell"]),
        ("notify: [{on: [failure], argv: ['$odd/tell']}]", ("notify", 0, "argv"), ["SITE/$odd/tell"]),
        ("notify: [{on: [failure], argv: ['${BIN}/tell']}]", ("notify", 0, "argv"), ["${BIN}/tell"]),
    ],
)  # fmt: skip
def test_paths_of_the_machine_are_relative_to_the_file_that_has_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, site: str, key: tuple[Any, ...], path: Any
) -> None:
    """Of `metrics`, and of a program with a slash; not what is absolute, found by PATH, a home, or an argument.

    They have the place that they would have in a pipeline of that folder.
    """
    monkeypatch.setenv("HOME", "/HOME")
    found = json.dumps(merged(site, "", project.parent).at(key)).replace(str(project.parent), "SITE")
    assert json.loads(found) == path


def test_a_list_is_replaced_whole(project: Path) -> None:
    """A pipeline that tells nobody says so."""
    site = "notify: [{ping: 'https://a'}, {ping: 'https://b'}]\nmetrics: a.prom\n"
    assert merged(site, "notify: []\nmetrics: null\n", project.parent).data == {
        "defaults": "../site.yaml", "notify": [], "metrics": None,
    }  # fmt: skip


ODD: list[Any] = [None, True, 0, -1, 1.5, "", "a", "5s", "2%", "never", "m:f", [], {}, [[]], {"a": 1}, ["a", {"b": 1}]]
_POOL = ["processes", "context", "initializer", "initargs", "env", "max_memory", "odd"]
_MAPPINGS = st.dictionaries(st.sampled_from([*WORDS, "odd"]), st.one_of(
    st.sampled_from(ODD),
    st.dictionaries(st.sampled_from(_POOL), st.sampled_from([*ODD, 4, "fork", "2GiB"])),
))  # fmt: skip


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(site=_MAPPINGS, own=_MAPPINGS)
def test_both_together_are_as_one_file_that_says_all(project: Path, site: Any, own: Any) -> None:
    """The entry is that of a pipeline with the merged words, if the defaults are right by themselves; whatever stands
    in them, they are refused or taken, and what the pipeline says itself is never another.
    """
    rest: dict[str, Any] = {"inputs": "in", "stages": [{"name": "a", "uses": "a"}]}
    (project / "../site.yaml").write_text(json.dumps(site))
    text = json.dumps(rest | own | {"defaults": "../site.yaml"})
    document = read_document("pipeline.yaml", text.encode())
    lay_over_defaults(document, project)
    wrong = list(document.complaints)
    assert all(each.spot.in_defaults for each in wrong)
    for word in own.keys() & set(WORDS):
        assert isinstance(own[word], dict) or document.data[word] == own[word]
    alone = read_document("site.yaml", json.dumps(site).encode())
    for place in [place for place, spot in document.values.items() if spot.in_defaults and place[0] != "metrics"]:
        assert document.at(place) == alone.at(place)
    whole = json.dumps(document.data)
    entry = parse_pipeline(document)
    written_out = read_document("whole.yaml", whole.encode())
    assert parse_pipeline(written_out) == entry
    assert {each.text for each in written_out.complaints} <= {each.text for each in document.complaints}


# -- complaints --------------------------------------------------------------------------------------------------------


def test_complaints_carry_both_places(load: Load) -> None:
    """All at once with the pipeline's own, each once, and with the source line of the place at fault."""
    site = "timeout: 5\npool:\n  procesess: 3\n  context: thread\nstages: []\n"
    said = complaints(lambda: load(site, "engine: dask\n"))
    assert said == [
        "pipeline.yaml:5:9: engine: should be 'serial' or 'pool', not \"dask\"",
        "    engine: dask",
        "            ^",
        "site.yaml:1:10: timeout: a duration with its unit is needed, such as 500ms, 60s or 5m, not 5"
        " (defaults of pipeline.yaml:2:11)",
        "    timeout: 5",
        "             ^",
        "site.yaml:3:3: unknown key 'procesess'; did you mean 'processes'? (defaults of pipeline.yaml:2:11)",
        "      procesess: 3",
        "      ^",
        "site.yaml:4:12: context: should be 'fork', 'forkserver' or 'spawn', not \"thread\""
        " (defaults of pipeline.yaml:2:11)",
        "      context: thread",
        "               ^",
        "site.yaml:5:1: unknown key 'stages' (defaults of pipeline.yaml:2:11)",
        "    stages: []",
        "    ^",
        "  hint: a file of defaults can have 'notify', 'metrics', 'pool', 'errors' and 'timeout'",
    ]


def test_a_value_that_the_pipeline_replaces_is_checked_too(load: Load) -> None:
    """Else the mistake is found by the next pipeline that names the file."""
    said = complaints(lambda: load("timeout: 5\n", "timeout: 5s\n"))
    assert said[0].startswith("site.yaml:1:10: timeout: a duration with its unit is needed")


def test_what_only_the_whole_pipeline_tells_is_said_at_its_place(load: Load) -> None:
    """The initializer is looked for beside the pipeline."""
    said = complaints(lambda: load("pool:\n  initializer: nowhere_at_all:load\n"))
    assert said[0].startswith("site.yaml:2:16: initializer: ") and said[0].endswith(" (defaults of pipeline.yaml:2:11)")


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("pool: [\n", "2:1: while parsing a flow node, "),
        ("timeout: 5s\ntimeout: 6s\n", "2:1: key 'timeout' stands here twice; the first is in line 1"),
        ("defaults: other.yaml\n", "1:1: unknown key 'defaults'"),
        ("- pool\n", "1:1: a mapping is needed here, with 'notify', 'metrics', 'pool', 'errors' and 'timeout'"),
        ("pool\n", "1:1: a mapping is needed here, with 'notify', 'metrics', 'pool', 'errors' and 'timeout'"),
        (b"pool:\n  env: {A: \xff}\n", "2:1: not UTF-8: byte 0xff"),
        (b"#" * (MAX_BYTES + 1), f"1:1: {MAX_BYTES + 1} bytes of YAML, limit {MAX_BYTES}"),
        (f"pool: [{'1,' * MAX_NODES}]\n", f"1:20004: more than {MAX_NODES} nodes"),
        ("a: &a [1,1,1]\nb: &b [*a,*a,*a]\n" + "c: [" + "*b," * 2000 + "]\n", "1:8: aliases make more than"),
        ("timeout: \x1b\n", "1:10: character U+001B is not allowed"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml(project: Path, site: str | bytes, said: str) -> None:
    """At its own line and column, after what is wrong with the pipeline itself."""
    (project / "../site.yaml").write_bytes(site if isinstance(site, bytes) else site.encode())
    (project / "pipeline.yaml").write_text(PIPELINE + "nmae: x\n")
    found = complaints(lambda: load_config(project / "pipeline.yaml"))
    assert found[0] == "pipeline.yaml:5:1: unknown key 'nmae'; did you mean 'name'?"
    at_site = next(line for line in found if line.startswith("site.yaml"))
    assert at_site.startswith(f"site.yaml:{said}") and at_site.endswith(" (defaults of pipeline.yaml:2:11)")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("../nowhere.yaml", "defaults: '../nowhere.yaml': No such file or directory"),
        ("..", "defaults: '..': Is a directory"),
        ("/dev/zero", "defaults: '/dev/zero': no regular file"),
        ("fifo", "defaults: 'fifo': no regular file"),
        ("loop", "defaults: 'loop': Too many levels of symbolic links"),
        (f"{'x' * 300}", f"defaults: '{'x' * 300}': File name too long"),
        ('"a\\eb"', "defaults: 'a\\x1bb': No such file or directory"),
        ("5", "defaults: text is needed, not 5"),
        ("[a]", "defaults: text is needed"),
        ('""', "defaults: text is needed, not empty and without NUL, not ''"),
        ('"a\\0"', "defaults: text is needed, not empty and without NUL"),
    ],
)
def test_a_file_that_cannot_be_read(project: Path, named: str, said: str) -> None:
    """At the line and column of `defaults:`, beside all other complaints."""
    os.mkfifo(project / "fifo")
    (project / "loop").symlink_to("loop")
    (project / "pipeline.yaml").write_text(PIPELINE.replace("../site.yaml", named) + "nmae: x\n")
    found = complaints(lambda: load_config(project / "pipeline.yaml"))
    assert found[0].startswith(f"pipeline.yaml:2:11: {said}")
    assert any("unknown key 'nmae'" in line for line in found)


def test_a_file_that_an_edit_names(load: Load) -> None:
    """The complaint begins with the edit, and those about the file end with it."""
    edit = "defaults=nowhere.yaml"
    assert complaints(lambda: load("", "", edit)) == [
        f"--set {edit}: defaults: 'nowhere.yaml': No such file or directory"
    ]
    said = complaints(lambda: load("timeout: 5\n", "", "defaults=../site.yaml"))
    assert said[0].endswith(" (defaults of --set defaults=../site.yaml)")


def test_the_root_is_missing_in_a_pipeline_with_defaults(project: Path, load: Load) -> None:
    """It is the pipeline's only complaint then, as without defaults."""
    (project / "in").rename(project / "gone")
    assert len([line for line in complaints(lambda: load("timeout: 5s\n")) if "yaml:" in line]) == 1


# -- whether it is noticed ---------------------------------------------------------------------------------------------


LOGGED = f"""
with open(FILE, "a") as log:
    log.write("imported")
{UPPER}"""


def is_read(project: Path, pipeline: Pipeline) -> bool:
    """Run, and return whether the pipeline was read for that, since its reading imports the stage."""
    log = project / "imports.log"
    log.unlink(missing_ok=True)
    ran = pipeline("run", "pipeline.yaml", cwd=project)
    assert ran.returncode == 0, ran.stderr
    return log.exists()


def mtimes(project: Path) -> list[int]:
    return [each.stat().st_mtime_ns for each in sorted((project / "out").iterdir())]


@pytest.fixture
def made(project: Path, pipeline: Pipeline) -> Path:
    """A pipeline whose defaults are a link, after two runs of which the second read nothing."""
    (project / "../first.yaml").write_text("errors: {hold_after: 3}\n")
    (project / "../other.yaml").write_text("errors: {hold_after: 3}\n")
    (project / "../site.yaml").symlink_to("first.yaml")
    (project / "stages/upper.py").write_text(LOGGED.replace("FILE", repr(str(project / "imports.log"))))
    assert [is_read(project, pipeline) for _ in range(2)] == [True, False]
    return project


CHANGES: dict[str, Callable[[Path], object]] = {
    "an edit": lambda at: (at / "first.yaml").write_text("errors: {hold_after: 5}\npool: {processes: 1}\n"),
    "a link that is switched": lambda at: (
        (at / "other.yaml").write_text("errors: {hold_after: 5}\n"),
        (at / "site.yaml").unlink(),
        (at / "site.yaml").symlink_to("other.yaml"),
    ),
    "a file that replaces the link": lambda at: (
        (at / "new.yaml").write_text("errors: {hold_after: 5}\n"),
        (at / "new.yaml").rename(at / "site.yaml"),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed_and_redoes_nothing(made: Path, pipeline: Pipeline, change: Callable[[Path], Any]) -> None:
    """The next run reads the new values, for which no output is made again; the one after that reads nothing."""
    before = mtimes(made)
    change(made.parent)
    assert [is_read(made, pipeline) for _ in range(2)] == [True, False]
    assert load_config(made / "pipeline.yaml").errors.hold_after == 5
    assert mtimes(made) == before
    assert (made / ".pipeline/pipeline/unchanged.note").exists()


def test_a_mistake_in_it_is_no_quiet_night(made: Path, pipeline: Pipeline) -> None:
    """A night without news is answered from a note, which a change of the defaults makes void."""
    (made / "../first.yaml").write_text("timeout: 5\n")
    ran = pipeline("pipeline.yaml", cwd=made)
    assert ran.returncode == 2
    assert ran.stderr.startswith("../site.yaml:1:10: timeout: a duration")
    (made / "../site.yaml").unlink()
    ran = pipeline("pipeline.yaml", cwd=made)
    assert (ran.returncode, "pipeline.yaml:2:11: defaults: '../site.yaml'" in ran.stderr) == (2, True)


def test_same_size_and_time_just_after_it_was_read(made: Path) -> None:
    """What is compared is what was read, and not only the stamp, which may be that of two versions."""
    site = (made / "../first.yaml").resolve()
    site.write_text("errors: {hold_after: 4}\n")
    read = load_config(made / "pipeline.yaml")
    found = site.stat()
    with open(site, "r+") as file:  # the very inode
        file.write("errors: {hold_after: 5}\n")
    os.utime(site, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert read.evidence and not read.evidence.holds()


# -- where else it is told ---------------------------------------------------------------------------------------------


def test_check_names_the_file(project: Path, load: Load) -> None:
    """With its whole path."""
    load("timeout: 5s\n")
    code, screen = on_terminal("python -m pipeline check", project)
    assert (code, f"defaults: {project.parent}/site.yaml" in screen) == (0, True)


def test_the_page_of_the_vocabulary_shows_one(project: Path, load: Load) -> None:
    """The file there is right, and the complaint that is shown below it is what is said."""
    page = (ROOT / "docs/pipeline.md").read_text().partition("## Many pipelines of one machine")[2]
    site, said = blocks("yml", page)[0], blocks("text", page)[0]
    assert load(site).pool.processes == 6
    wrong = complaints(lambda: load(site.replace("processes: 6", "processes: 0")))
    assert f"../{wrong[0]}\n" == said


def test_editors_know_the_file() -> None:
    """Its own schema has its words, those of a pipeline, and no other."""
    validator = Draft7Validator(defaults_schema())
    right = {"timeout": "5s", "pool": {"processes": 3, "env": {"A": 1}}, "errors": {"max": "5%"}}
    assert not list(validator.iter_errors(right)) and not list(validator.iter_errors({}))
    for wrong in ({"inputs": "in"}, {"defaults": "a"}, {"timeout": 5}, {"pool": {"procesess": 3}}):
        assert list(validator.iter_errors(wrong)), wrong
