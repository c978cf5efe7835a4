"""A stage that makes many of one: its parts are named, committed and forgotten together."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.project import Project, temporaries

from pipeline.config.load import load_config
from pipeline.errors import ConfigError

LINES = '''
import os, time
from collections.abc import Iterator
from pipeline import Item, Part, Skip

def lines(text: str, *, pause_s: float = 0.0) -> Iterator[str]:
    """A part for each line; what a line says may be done."""
    for line in text.splitlines():
        time.sleep(pause_s)
        word, _, rest = line.partition(" ")
        if word == "skip":
            raise Skip(rest)
        if word == "fail":
            raise ValueError(rest)
        yield Part(rest, name=rest) if word == "named" else line

def shout(item: Item[str]) -> str:
    """The text of a part in capitals, and which part it is."""
    if item.value == "drop":
        raise Skip("dropped")
    if item.value == "bad":
        raise ValueError("bad line")
    return f"{item.value.upper()} {item.part}"
'''
YAML = """
inputs: in
stages:
  - {name: lines, uses: lines, output: 'out/lines/{dir}/{stem}/{part}.txt'}
  - {name: shout, from: lines, uses: 'stages.lines:shout', output: 'out/shout/{dir}/{stem}-{part}.txt'}
engine: serial
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Stages that make a part of every line, and that shout each; nothing in it yet."""
    project = Project(tmp_path, YAML)
    project.write("stages/lines.py", LINES)
    return project


def test_parts_are_named_by_index_and_passed_on_one_by_one(project: Project) -> None:
    """Each part has a name that sorts as they came, and goes through the stages below by itself."""
    project.write("in/d/a.txt", "one\ntwo\nthree\n")
    summary = project.run()
    assert (summary.done, summary.sources) == (6, 1)
    assert project.outputs() == {
        "lines/d/a/000001.txt": b"one", "lines/d/a/000002.txt": b"two", "lines/d/a/000003.txt": b"three",
        "shout/d/a-000001.txt": b"ONE 000001", "shout/d/a-000002.txt": b"TWO 000002",
        "shout/d/a-000003.txt": b"THREE 000003",
    }  # fmt: skip
    again = project.run()
    assert (again.done, again.up_to_date) == (0, 6)


def test_parts_have_names_of_their_own(project: Project) -> None:
    """A stage names its parts, and the names are part of the outputs'."""
    project.write("in/a.txt", "named x-1\nnamed _y.2\n")
    assert project.run().done == 4
    assert sorted(project.outputs()) == [
        "lines/a/_y.2.txt", "lines/a/x-1.txt", "shout/a-_y.2.txt", "shout/a-x-1.txt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("named x\nnamed x", "stage 'lines' yielded two parts named 'x'"),
        ("named a/b", "stage 'lines' yielded a part named 'a/b'; letters, digits, '_', '.' and '-' may be in it"),
        (f"named {'x' * 252}", "output name of 256 bytes, limit 255"),
        ("named ", "a part named ''"),
        ("", "stage 'lines' yielded nothing; raise Skip(reason) instead"),
        ("one\nfail here", "ValueError: here (in stage 'lines')"),
    ],
)
def test_what_goes_wrong_in_the_fan_out_leaves_nothing(project: Project, text: str, said: str) -> None:
    """An error drops all parts, also those that were made before it."""
    project.write("in/a.txt", text)
    summary = project.run()
    assert (summary.failed, summary.done) == (2, 0)
    assert said in summary.failures[0][1].text
    assert project.outputs() == {} and not temporaries(project.folder)


def test_no_part_leaves_the_folder(project: Project) -> None:
    """A part's name may not lead out of the output's folder where it is a folder's."""
    project.edit("pipeline.yaml", "{stem}/{part}.txt", "{stem}/{part}/x.txt")
    project.write("in/a.txt", "named ..")
    summary = project.run()
    assert (summary.done, summary.failed) == (1, 1)
    assert "would leave its folder" in summary.failures[0][1].text


def test_an_error_below_drops_what_is_below_it(project: Project) -> None:
    """A stage that fails over one part costs all parts of its output, and none of its sibling's or parent's."""
    project.write("in/a.txt", "one\nbad\ntwo")
    summary = project.run()
    assert (summary.done, summary.failed) == (3, 1)
    assert sorted(project.outputs()) == ["lines/a/000001.txt", "lines/a/000002.txt", "lines/a/000003.txt"]
    assert not temporaries(project.folder)


def test_what_is_made_of_a_part_in_the_scratch_folder_goes_with_it(tmp_path: Path) -> None:
    """A file of a hundred parts that go through programs needs room for one of them."""
    project = Project(tmp_path, """
inputs: in
stages:
  - {name: lines, uses: lines}
  - {name: copy, uses: command, with: {argv: [cp, "{source}", "{target}"], suffix: .txt}}
  - {name: count, uses: "stages.lines:count", output: "out/{stem}-{part}.txt"}
engine: serial
""")  # fmt: skip
    project.write("stages/lines.py", f"{LINES}\n\ndef count(item: Item[str]) -> str:\n"
                  "    return ' '.join(sorted(path.suffix for path in item.scratch.iterdir()))\n")  # fmt: skip
    project.write("in/a.txt", "one\ntwo\nthree")
    assert project.run().done == 3
    assert set(project.outputs().values()) == {b".txt .txt"}  # what the program read, and what it made


def test_a_skip_drops_one_part(project: Project) -> None:
    """The others are made; and a file of which all are dropped is left out, and stays so."""
    project.write("in/a.txt", "one\ndrop\ntwo")
    project.write("in/b.txt", "drop")
    summary = project.run()
    assert (summary.done, summary.skipped) == (6, 1)
    assert "shout/a-000002.txt" not in project.outputs()
    assert project.plan()["shout b.txt"] == ("up-to-date", "skipped: 1 part left out: dropped")
    assert project.run().up_to_date == 7


def test_a_skip_in_the_fan_out_leaves_the_file_out(project: Project) -> None:
    """Also after some parts; and what had been made of the file before becomes an orphan."""
    project.write("in/a.txt", "one\ntwo")
    assert project.run().done == 4
    project.write("in/a.txt", "one\nskip not today")
    summary = project.run()
    assert (summary.skipped, summary.done) == (2, 0)
    assert sorted(project.orphans()) == [
        "out/lines/a/000001.txt", "out/lines/a/000002.txt", "out/shout/a-000001.txt", "out/shout/a-000002.txt",
    ]  # fmt: skip
    project.write("in/a.txt", "one\ntwo and more")
    assert project.run().done == 4
    assert project.orphans() == []


def test_parts_that_are_no_longer_made_are_removed(project: Project) -> None:
    """Fewer parts than before: the others go, but for one that somebody has edited."""
    project.write("in/a.txt", "one\ntwo\nthree\nfour")
    project.run()
    project.write("out/lines/a/000003.txt", "mine now")
    project.write("in/a.txt", "uno\ndue")
    assert project.run().done == 4
    assert sorted(project.outputs()) == [
        "lines/a/000001.txt", "lines/a/000002.txt", "lines/a/000003.txt", "shout/a-000001.txt", "shout/a-000002.txt",
    ]  # fmt: skip
    assert project.outputs()["lines/a/000003.txt"] == b"mine now"
    assert project.orphans() == ["out/lines/a/000003.txt"]
    assert project.run().up_to_date == 4


def test_a_lost_part_is_made_with_all_the_others(project: Project) -> None:
    """The plan names the part; one that was edited is kept."""
    project.write("in/a.txt", "one\ntwo")
    project.run()
    (project.folder / "out/lines/a/000002.txt").unlink()
    project.write("out/shout/a-000001.txt", "edited, and longer")
    plan = project.plan()
    assert plan["lines a.txt"] == ("make", "part 000002: output missing")
    assert project.run().done == 2
    assert project.outputs()["lines/a/000002.txt"] == b"two"
    assert project.outputs()["shout/a-000001.txt"] == b"edited, and longer"


def test_what_is_not_ours_is_left_alone(project: Project) -> None:
    """A part whose path somebody else's file has fails its output as a whole, until --force says otherwise."""
    project.write("in/a.txt", "one\ntwo")
    project.write("out/lines/a/000002.txt", "not yours")
    summary = project.run()
    assert (summary.done, summary.failed) == (2, 1)
    assert "exists, not ours" in summary.failures[0][1].text
    assert sorted(project.outputs()) == ["lines/a/000002.txt", "shout/a-000001.txt", "shout/a-000002.txt"]
    assert not temporaries(project.folder)
    assert project.run(force=True).done == 4
    assert project.outputs()["lines/a/000002.txt"] == b"two"


def test_parts_of_two_files_may_not_be_one(project: Project) -> None:
    """Where two sources make a part of one path, one of them has it, and the other fails."""
    project.write("in/a.txt", "named 1-x")
    project.write("in/a-1.txt", "named x")
    summary = project.run()
    assert (summary.done, summary.failed) == (3, 1)
    assert summary.failures[0][1].stage == "shout"
    assert project.outputs()["shout/a-1-x.txt"] in (b"X 1-x", b"X x")


def test_sources_of_one_name_collide_in_the_plan(tmp_path: Path) -> None:
    """A template that leaves the folder out is refused for both, before anything is made."""
    project = Project(tmp_path, YAML.replace("{dir}/{stem}/{part}", "{stem}-{part}"))
    project.write("stages/lines.py", LINES)
    for folder in ("d", "e"):
        project.write(f"in/{folder}/a.txt", folder)
    assert project.plan()["lines d/a.txt"][1].startswith("collision with e/a.txt")


def test_source_gone_and_template_changed(project: Project) -> None:
    """What nothing produces any more is an orphan, part by part."""
    project.write("in/a.txt", "one\ntwo")
    project.write("in/b.txt", "three")
    project.run()
    (project.folder / "in/b.txt").unlink()
    project.edit("pipeline.yaml", "out/shout/{dir}", "out/loud/{dir}")
    assert project.plan()["shout a.txt"] == ("make", "new")
    summary = project.run()
    assert (summary.done, summary.renamed) == (2, 0)
    orphans = ["out/lines/b/000001.txt", "out/shout/a-000001.txt", "out/shout/a-000002.txt", "out/shout/b-000001.txt"]
    assert sorted(project.orphans()) == orphans
    assert {"loud/a-000001.txt", "loud/a-000002.txt"} < set(project.outputs())
    again = project.run()
    assert (again.done, again.renamed, again.up_to_date) == (0, 0, 4)
    project.edit("pipeline.yaml", "out/loud/{dir}", "out/shout/{dir}")
    assert project.run().done == 2
    assert project.run().up_to_date == 4


def test_parts_stay_where_a_source_gets_another_suffix(project: Project) -> None:
    """Its parts lie where those of its old name were: they take their places, and lose no edit; fewer are pruned."""
    project.edit("pipeline.yaml", "engine: serial", "engine: serial\nprune: {max: 90%}")
    project.write("in/a.txt", "one\ntwo\nthree")
    project.write("in/b.txt", "skip it")
    assert project.run().done == 6
    project.write("out/lines/a/000002.txt", "by a person")
    (project.folder / "in/a.txt").rename(project.folder / "in/a.md")
    project.write("in/a.md", "one\ntwo")
    summary = project.run()
    assert (summary.exit, summary.done, summary.pruned, summary.set_aside) == (0, 4, 2, 1)
    assert project.outputs() == {
        "lines/a/000001.txt": b"one", "lines/a/000002.txt": b"two",
        "shout/a-000001.txt": b"ONE 000001", "shout/a-000002.txt": b"TWO 000002",
    }  # fmt: skip
    assert project.run().done == 0


def test_another_path_makes_the_parts_anew(project: Project) -> None:
    """Nobody's file at the new path is taken, and an old part that somebody edited stays; both are named."""
    for name in "abc":
        project.write(f"in/{name}.txt", "one\ntwo")
    project.run()
    project.write("out/shout/a-000002.txt", "edited, and longer")
    project.write("out/loud/b-000001.txt", "in the way")
    project.edit("pipeline.yaml", "out/shout/{dir}", "out/loud/{dir}")
    summary = project.run()
    assert (summary.renamed, summary.done, summary.failed) == (0, 4, 1)
    found = project.outputs()
    assert found["loud/a-000002.txt"] == b"TWO 000002" and found["loud/b-000001.txt"] == b"in the way"
    assert found["shout/a-000002.txt"] == b"edited, and longer"
    (project.folder / "out/loud/b-000001.txt").unlink()
    assert project.run().done == 2
    assert project.run().up_to_date == 12


def test_a_renamed_stage_makes_nothing_anew(project: Project) -> None:
    """What a stage is called counts for nothing, also with parts."""
    project.write("in/a.txt", "one\ntwo")
    project.run()
    project.edit("pipeline.yaml", "name: shout", "name: loud")
    assert project.run().up_to_date == 4
    assert project.orphans() == []


def test_only_one_part_is_in_memory(tmp_path: Path) -> None:
    """A fan-out is walked lazily: a part is written before the next one is made, and then let go."""
    stage = """
        import weakref
        from collections.abc import Iterator
        class Value(str): pass
        def big(path: bytes) -> Iterator[str]:
            last = None
            for number in range(50):
                assert last is None or last() is None, number
                value = Value(number)
                last = weakref.ref(value)
                yield value
                del value
    """
    project = Project(
        tmp_path, YAML.split("  - {name: shout")[0].replace("uses: lines", "uses: big") + "engine: serial"
    )
    project.write("stages/big.py", "\n".join(line[8:] for line in stage.splitlines()))
    project.write("in/a.txt", "x")
    assert project.run().done == 50


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{stem}/{part}.txt", "{stem}.txt", "every part of a file would have the one output; use {part} in its path"),
        ("uses: 'stages.lines:shout'", "uses: lines", "fans out below 'lines'; there may be one"),
        ("from: lines", "from: inputs", "{part} is for stages that fan out"),
    ],
)
def test_what_cannot_be_is_said_at_once(project: Project, old: str, new: str, said: str) -> None:
    """What only the tree can tell of a fan-out is told before anything runs."""
    project.edit("pipeline.yaml", old, new)
    with pytest.raises(ConfigError, match=said.replace("{", "[{]").replace("}", "[}]").replace("(", "[(]")):
        load_config(project.folder / "pipeline.yaml")


@pytest.mark.parametrize("rounds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_any_moment(project: Project, rounds: int) -> None:
    """After a kill the same line makes the same parts and leaves no temporary, also where there are fewer or more."""
    project.edit("pipeline.yaml", "engine: serial", "pool: {processes: 2}")
    for number in range(12):
        project.write(f"in/{number}.txt", "\n".join(f"line {number} {line}" for line in range(number + 1)))
    command = [sys.executable, "-m", "pipeline"]
    began = time.monotonic()
    subprocess.run(command, cwd=project.folder, check=True)
    seconds, expected = time.monotonic() - began, project.outputs()
    assert len(expected) == 2 * 78
    for _ in range(rounds):
        for number in range(12):
            project.write(f"in/{number}.txt", "\n".join(f"other {number} {line}" for line in range(13 - number)))
        process = subprocess.Popen(command, cwd=project.folder, process_group=0)
        time.sleep(random.uniform(seconds / 4, seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for number in range(12):
            project.write(f"in/{number}.txt", "\n".join(f"line {number} {line}" for line in range(number + 1)))
        subprocess.run(command, cwd=project.folder, check=True)
        assert project.outputs() == expected
        assert not temporaries(project.folder)


def test_a_worker_that_dies_over_a_part_costs_its_file_only(project: Project) -> None:
    """And what it had written of it is removed."""
    project.edit("pipeline.yaml", "engine: serial", "pool: {processes: 2}")
    project.edit(
        "stages/lines.py",
        'if word == "skip":',
        'if word == "die":\n            os._exit(3)\n        if word == "skip":',
    )
    project.write("in/a.txt", "one\ntwo\ndie")
    project.write("in/b.txt", "one\ntwo")
    found = subprocess.run([sys.executable, "-m", "pipeline"], cwd=project.folder, capture_output=True, text=True)
    assert found.returncode == 1 and "a.txt (lines, shout): the worker ended by exit code 3" in found.stderr
    assert sorted(project.outputs()) == [
        "lines/b/000001.txt", "lines/b/000002.txt", "shout/b-000001.txt", "shout/b-000002.txt",
    ]  # fmt: skip
    assert not temporaries(project.folder)
