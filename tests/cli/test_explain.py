"""`explain`: everything about one file, and never another opinion than the plan's."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.program import Pipeline
from support.project import MOODY, ONE_STAGE, Project, every_kind, ledger_of

from pipeline import cli
from pipeline.config.load import load_config
from pipeline.config.routes import describe_route

TREE = """
inputs: {root: in, exclude: ["drafts/*", "!drafts/keep"], include: ["*.txt", "keep", "x*"]}
depends: [prompt]
libraries: [pillow]
stages:
  - name: first
    uses: marked
    with: {logo: logo}
    output: out/first/{dir}/{stem}.up
  - name: second
    from: first
    uses: upper
    with: {mark: "2"}
    depends: ["more/*"]
    output: out/second/{name}
engine: serial
pool: {initializer: "warm:up", initargs: [weights, 1]}
"""
MARKED = """
import helper
from pathlib import Path
def marked(text: str, *, logo: Path, times: int = 1) -> str:
    return helper.twice(text) * times
"""

Explain = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Two outputs in a row of each file, with all that may count."""
    project = Project(tmp_path, TREE)
    project.write("stages/marked.py", MARKED)
    project.write("helper.py", "def twice(text): return text * 2\n")
    project.write("warm.py", "def up(file, number): pass\n")
    for name in ("weights", "logo", "prompt", "more/a", "more/b"):
        project.write(name, name)
    project.write("in/x.txt", "x")
    project.write("in/deep/y.txt", "y")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield project
    sys.path[:] = path
    project._forget_modules()


@pytest.fixture
def explain(project: Project, capsys: pytest.CaptureFixture[str]) -> Explain:
    """Runs the verb in this process; gives what it prints, complaints too."""

    def run(*arguments: str, code: int = 0) -> str:
        project._forget_modules()
        assert cli.main(["explain", *arguments]) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


def outputs(text: str) -> dict[str, tuple[str, str]]:
    """What --json says of the outputs, as a plan says it; of what is kept of a former path, it must know why."""
    data = json.loads(text)
    kept = [each for each in data["outputs"] if each["action"] == "keep"]
    assert all(each["why"] in ("path changed", "stage gone") for each in kept), kept
    wanted = [each for each in data["outputs"] if each not in kept and not each["why"].startswith("orphan: ")]
    return {f"{each['stage']} {data['source']}": (each["action"], each["why"]) for each in wanted}


# -- what is told ------------------------------------------------------------------------------------------------------


def test_everything_is_told(project: Project, explain: Explain) -> None:
    """The record, what is there, the route with its conversions, options after defaults, every file that counts."""
    project.run()
    said = explain("in/x.txt")
    moment = r"\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d"
    expected = """\
x.txt: an input, 1 byte, modified MOMENT

out/first/x.up (first)
  up-to-date
  recorded: 2 bytes, modified MOMENT; of a source of 1 byte, modified MOMENT
  made by: run 1 (RUN), MOMENT, HOST, filemill VERSION Python VERSION, VERSION s, VERSION MB of memory
  there now: 2 bytes, modified MOMENT, as it was left

out/second/x.txt (second)
  up-to-date
  recorded: 3 bytes, modified MOMENT; of a source of 1 byte, modified MOMENT
  made by: run 1 (RUN), MOMENT, HOST, filemill VERSION Python VERSION, VERSION s, VERSION MB of memory
  there now: 3 bytes, modified MOMENT, as it was left

first: inputs (Path) -> str -> marked -> str -> out/first/{dir}/{stem}.up
  options: logo logo, times 1
  code: helper.py, stages/marked.py
  contents: logo

second: first (str) -> upper -> str -> out/second/{name}
  options: mark 2
  code: stages/upper.py
  contents: more/a, more/b

for every output
  initializer: warm:up (warm.py)
  contents: weights, prompt
  libraries: pillow VERSION
"""
    pattern = re.escape(expected).replace("MOMENT", moment.replace("\\\\", "\\")).replace("VERSION", r"[\d.]+")
    pattern = pattern.replace("RUN", r"\d{8}-\d{6}-[0-9a-f]{4}").replace("HOST", re.escape(os.uname().nodename))
    assert re.fullmatch(pattern, said), said


@pytest.mark.parametrize("path", ["in/x.txt", "x.txt", "./in/deep/../x.txt", "out/second/x.txt", "{here}/in/x.txt"])
def test_a_file_may_be_named_in_any_way(project: Project, explain: Explain, path: str) -> None:
    """Relative to where one is, to the input root, absolute; by an input or an output, made or not yet."""
    path = path.replace("{here}", str(project.folder))
    for made in (False, True):
        if made:
            project.run()
        said = outputs(explain(path, "--json"))
        plan = {key: why for key, why in project.plan().items() if key.endswith(" x.txt")}
        assert said == ({"second x.txt": plan["second x.txt"]} if path.startswith("out") else plan)


def test_it_works_from_another_folder(
    project: Project, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The pipeline may be named first, last or by -f; paths relative to its folder are understood."""
    project.run()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    yaml = str(project.folder / "pipeline.yaml")
    for arguments in ([yaml, "out/first/x.up"], ["out/first/x.up", yaml], ["-f", yaml, "out/first/x.up"]):
        ran = pipeline("explain", *arguments, cwd=elsewhere)
        assert ran.returncode == 0 and "  up-to-date\n" in ran.stdout, ran.stderr


# -- the plan's opinion ------------------------------------------------------------------------------------------------


def edit_output(project: Project) -> None:
    project.write("out/first/x.up", "mine, and longer")


def hold(project: Project) -> None:
    project.write("stages/upper.py", MOODY.replace("(text: str)", "(text: str, *, mark: str = '')"))
    project.write("in/x.txt", "bad")
    project.edit("stages/marked.py", "helper.twice(text) * times", "'bad'")
    for _ in range(3):
        project.run()


def collide(project: Project) -> None:
    project.write("in/x", "another")
    project.edit("pipeline.yaml", "out/second/{name}", "out/second/{stem}.all")


@pytest.mark.parametrize(
    "change",
    [
        lambda project: project.write("in/x.txt", "other"),
        lambda project: project.write("logo", "other"),
        lambda project: project.write("prompt", "other"),
        lambda project: project.write("helper.py", "def twice(text): return text\n"),
        lambda project: (project.folder / "out/first/x.up").unlink(),
        lambda project: project.edit("pipeline.yaml", "root: in", "root: in, settle: 1h"),
        edit_output,
        hold,
        collide,
    ],
    ids=["source", "logo", "depends", "code", "missing", "settling", "edited", "held", "collision"],
)
def test_it_says_what_the_plan_says(project: Project, explain: Explain, change: Callable[[Project], object]) -> None:
    """Word for word, whatever the reason."""
    project.run()
    change(project)
    plan = {key: why for key, why in project.plan().items() if key.endswith(" x.txt")}
    assert outputs(explain("in/x.txt", "--json")) == plan
    assert len(set(plan.values())) > 1 or plan["first x.txt"] != ("up-to-date", "up to date")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda project: None, "up_to_date"),
        (lambda project: project.write("in/x.txt", "other"), "source_changed"),
        (lambda project: project.write("logo", "other"), "recipe_changed"),
        (lambda project: (project.folder / "out/first/x.up").unlink(), "output_missing"),
        (edit_output, "edited"),
        (hold, "held"),
    ],
)
def test_a_program_reads_the_code_of_the_reason(
    project: Project, explain: Explain, change: Callable[[Project], object], code: str
) -> None:
    """What a script may rely on, whatever the words are."""
    project.run()
    change(project)
    assert code in {each["code"] for each in json.loads(explain("in/x.txt", "--json"))["outputs"]}


def test_all_that_differs_is_told(project: Project, explain: Explain) -> None:
    """A plan names the first difference, this all of them."""
    project.run()
    project.edit("pipeline.yaml", '{mark: "2"}', '{mark: "3"}')
    project.write("logo", "other")
    project.write("more/c", "c")
    data = json.loads(explain("out/second/x.txt", "--json"))
    differences = ["first: contents of logo changed", "second: mark 2 -> 3", "second: depends: more/c added"]
    assert data["outputs"][0]["differences"] == differences
    assert "    second: mark 2 -> 3\n" in explain("out/second/x.txt")


def test_contents_are_compared_under_hash(project: Project, explain: Explain) -> None:
    """By the same judge here, too."""
    project.edit("pipeline.yaml", "engine: serial", "engine: serial\nchanged_by: hash")
    project.run()
    os.utime(project.folder / "in/x.txt", (7, 7))
    assert set(outputs(explain("in/x.txt", "--json")).values()) == {("up-to-date", "up to date")}


# -- failures, overrides, orphans --------------------------------------------------------------------------------------


def test_failures_are_told_with_what_was_printed(project: Project, explain: Explain) -> None:
    """How often, what was said, and since when it is dismissed."""
    project.write(
        "stages/marked.py", MARKED.replace("return", "print('so far')\n    raise ValueError('no')\n    return")
    )
    project.edit("pipeline.yaml", "engine: serial", "engine: pool")
    assert project.run().failed == 4
    said = explain("in/x.txt")
    assert "  make: failed before (error, attempt 1 of 3)\n" in said
    place = r"( at stages/marked\.py:\d+)?"
    assert re.search(rf"  failed: error: ValueError: no \(in stage 'first'\){place}; attempts: 1\n    so far\n", said)
    assert "  there now: nothing\n" in said
    assert cli.main(["failures", "--dismiss", "x.txt"]) == 0
    assert "  held: dismissed (error)\n" in (said := explain("in/x.txt")) and "; attempts: 1, dismissed 20" in said
    assert json.loads(explain("in/x.txt", "--json"))["outputs"][0]["failure"]["output"] == "so far\n"


def test_an_override_is_told(project: Project, explain: Explain) -> None:
    """What a person had the ledger take as true is on record, and shown with what says so because of it."""
    project.run()
    project.edit("helper.py", "text * 2", "text + text")
    assert cli.main(["accept", "--stage", "first", "--because", "code", "--yes"]) == 0
    told = r"  decreed: by accept, [-\d]+ [:\d]+: stage first, because code, outputs "
    assert re.search(told, explain("out/first/x.up"))
    assert json.loads(explain("out/first/x.up", "--json"))["outputs"][0]["decree"]["verb"] == "accept"


def test_orphans_are_told(project: Project, explain: Explain) -> None:
    """Outputs of a file that is gone and of a stage that is, and those that are to be renamed."""
    project.run()
    (project.folder / "in/x.txt").unlink()
    assert explain("x.txt").startswith(
        "x.txt: an input that is gone\n\nout/first/x.up (first)\n  prune: orphan: source gone\n"
    )
    assert "  prune: orphan: source gone\n" in explain("out/second/x.txt")
    project.edit("pipeline.yaml", "out/second/{name}", "out/third/{name}")
    said = explain("out/second/y.txt")
    assert said.startswith("deep/y.txt: an input, ")
    assert "\nout/second/y.txt (second)\n  rename: belongs at out/third/y.txt now\n  recorded: 3 bytes" in said
    assert "\nout/third/y.txt (second)\n  rename: moved from out/second/y.txt\n" in explain("out/third/y.txt")
    project.write("pipeline.yaml", TREE[: TREE.index("  - name: second")] + TREE[TREE.index("engine") :])
    assert "\nout/second/y.txt (second)\n  prune: orphan: stage gone\n" in explain("out/second/y.txt")


# -- what is no input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "standing"),
    [
        ("drafts/x.txt", "not an input: excluded by 'drafts/*'"),
        ("drafts/deep/x.txt", "not an input: excluded by 'drafts/*'"),
        ("drafts/keep", "an input"),
        ("x.png", "an input"),
        ("y.png", "not an input: no pattern of include matches it: *.txt, keep, x*"),
        (".hidden/x.txt", "not an input: hidden"),
        ("out/z.txt", "not an input: it lies in the output folder of stage 'second'"),
        ("linked/x.txt", "not an input: in a linked folder"),
        ("fifo.txt", "not an input: a FIFO"),
    ],
)
def test_why_a_file_is_no_input(project: Project, explain: Explain, name: str, standing: str) -> None:
    """With the pattern that decides."""
    project.edit("pipeline.yaml", "out/second", "in/out")
    os.mkfifo(project.folder / "in/fifo.txt")
    os.symlink("deep", project.folder / "in/linked")
    if not name.startswith(("fifo", "linked")):
        project.write(f"in/{name}", "x")
    else:
        project.write("in/deep/x.txt", "x")
    data = json.loads(explain(f"in/{name}", "--json"))
    assert (data["source"], data["standing"]) == (name, standing)
    assert bool(data["outputs"]) is (standing == "an input")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere", "nowhere: is neither an input nor an output of pipeline"),
        (
            "stages/upper.py",
            "stages/upper.py: is neither an input nor an output of pipeline; it lies outside the input root",
        ),
        ("in/deep", "in/deep: a folder; name a file in it"),
        ("in", "in: a folder; name a file in it"),
        ("", "'': an empty path; name a file"),
    ],
)
def test_what_is_unknown_is_said_so(project: Project, explain: Explain, path: str, says: str) -> None:
    """With exit 2."""
    assert explain(path, code=2).startswith(says)


DEADLY = "import os\ndef upper(text: str) -> str:\n    os._exit(9) if text == 'die' else 0\n    return text.upper()\n"


@pytest.mark.processes
def test_what_was_about_to_be_made_says_what_became_of_it(tmp_path: Path, pipeline: Pipeline) -> None:
    """A run that ended in order, one that was stopped, and one that was cut off are told apart."""
    project = Project(tmp_path)
    project.write("stages/upper.py", DEADLY)
    project.write("in/a", "die")
    assert pipeline("--engine", "pool").returncode == 1
    (run,) = [json.loads(line)["run"] for line in pipeline("runs", "--json").stdout.splitlines()]

    def recorded() -> str:
        lines = pipeline("explain", "in/a").stdout.splitlines()
        return next(line for line in lines if line.startswith("  recorded: ")).removeprefix("  recorded: ")

    assert recorded() == f"about to be made when it failed (crashed) in the run {run}"
    with ledger_of(tmp_path) as ledger:
        ledger._connection.execute("UPDATE failures SET kind = 'interrupted'")
    assert recorded() == "about to be made when the run was stopped"
    with ledger_of(tmp_path) as ledger:
        ledger._connection.execute("DELETE FROM failures")
    assert recorded() == "about to be made by a run that is at work, or was cut off"


def test_any_name(tmp_path: Path, pipeline: Pipeline) -> None:
    """Bytes that are no UTF-8, a newline, a leading dash; nothing was ever run, and nothing is written."""
    Project(tmp_path, ONE_STAGE)
    name = b"-\xff\n$(x)"
    with open(os.path.join(os.fsencode(tmp_path), b"in", name), "w"):
        pass
    ran = pipeline("explain", b"in/" + name)
    assert ran.returncode == 0 and ran.stdout.startswith("-\\xff\\n$(x): an input, 0 bytes, ")
    data: dict[str, Any] = json.loads(pipeline("explain", "--json", b"in/" + name).stdout)
    assert data["source_b64"] and data["outputs"][0]["output_b64"] and data["outputs"][0]["why"] == "new"
    assert not (tmp_path / ".pipeline").exists()


def test_conversions_are_told(tmp_path: Path) -> None:
    """Those that nobody wrote down; a filter hands on what it was handed."""
    stages = """
inputs: in
stages:
  - {name: keep, uses: './s.py:keep'}
  - {name: small, uses: resize, with: {width: 9}}
  - {name: tool, uses: './s.py:tool', output: 'out/{stem}.png'}
"""
    project = Project(tmp_path, stages)
    project.write(
        "s.py",
        "from pathlib import Path\ndef keep(path: Path) -> bool: ...\ndef tool(path: Path) -> bytes: ...\n",
    )
    assert describe_route(load_config(tmp_path / "pipeline.yaml")) == [
        "keep: inputs (Path) -> ./s.py:keep -> the same, or left out",
        "small: keep (Path) -> Picture -> resize -> Image.Image",
        "tool: small (Image.Image) -> Path (a .png file in the scratch folder) -> ./s.py:tool -> bytes"
        " -> out/{stem}.png",
    ]


# -- who made it -------------------------------------------------------------------------------------------------------


def test_the_run_that_made_an_output_is_told(project: Project, explain: Explain) -> None:
    """Each output has its own: the one that is made again names the later run."""
    first = project.run().run
    (project.folder / "out/second/x.txt").unlink()
    second = project.run().run
    made = {each["stage"]: each["made"] for each in json.loads(explain("in/x.txt", "--json"))["outputs"]}
    assert [(made[stage]["run"], made[stage]["number"]) for stage in ("first", "second")] == [(first, 1), (second, 2)]
    assert made["first"]["host"] == os.uname().nodename and set(made["first"]["versions"]) == {"filemill", "python"}
    assert made["first"]["seconds"] > 0 and made["first"]["peak_bytes"] > 2**20 and made["first"]["day"] is None
    project.write("in/z.txt", "z")
    assert json.loads(explain("in/z.txt", "--json"))["outputs"][0]["made"] is None


def test_of_a_folded_run_the_day_is_told(project: Project, explain: Explain) -> None:
    """With its machines and versions, since nothing else is known of the run."""
    project.run()
    with ledger_of(project.folder) as ledger:
        old = list(ledger.runs.past())
        ledger._connection.execute("DELETE FROM runs")
        ledger.days.add([old[0]._replace(started_ns=10**18), old[0]._replace(started_ns=10**18, number=2, host="nas")])
        ledger.least_run = 3
        ledger.begin_run("20260101-000000-0000")
        ledger.end_run(0, {}, swept=True)
    said = explain("in/x.txt")
    who = f"{os.uname().nodename}, nas, filemill"
    assert "made by: run 1 (one of 2 runs of 2001-09-0" in said and who in said


def test_a_part_names_the_run_and_the_costs_of_all_parts(tmp_path: Path, explain: Explain) -> None:
    """They are of one job."""
    shutil.rmtree(tmp_path / "in")
    project = every_kind(tmp_path)
    project.write("in/a.txt", "one\ntwo")
    assert project.run().exit == 0
    said = json.loads(explain("in/a.txt", "--json"))
    parts = [each["made"] for each in said["outputs"] if "out/lines" in each["output"]]
    assert len(parts) == 2 and parts[0] == parts[1]
    assert parts[0]["number"] == 1 and parts[0]["seconds"] > 0 and parts[0]["peak_bytes"] > 2**20
    assert "made by: run 1" in explain("out/sheet.txt")
