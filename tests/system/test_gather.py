"""Stages that gather: called once for a group of files, when those are made, and again when one of them changed."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from support.project import MOODY, Project, ledger_of, temporaries

from pipeline.config.load import load_config
from pipeline.errors import ConfigError

GATHER = '''
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item, Skip

def names(items: Iterator[Item[str]], *, mark: str = "") -> str:
    """A line for each member."""
    text = "".join(f"{item.source} {item.part or '-'} {item.value}{mark}\\n" for item in items)
    if "over" in text.lower():
        raise Skip("not wanted")
    if "break" in text.lower():
        raise ValueError("broken sheet")
    return text
'''
YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: sheet, from: up, uses: names, gather: true, group: '{dir}', output: 'out/{dir}/sheet.txt'}
engine: serial
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two folders with texts, each shouted, and a sheet of each folder; nothing is made yet."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", MOODY)
    project.write("stages/names.py", GATHER)
    for name in ("a/1.txt", "a/2.txt", "b/1.txt"):
        project.write(f"in/{name}", f"text {name}")
    return project


def sheets(project: Project) -> dict[str, str]:
    """What was gathered, by the folder's name."""
    return {
        name.removesuffix("/sheet.txt"): data.decode()
        for name, data in project.outputs().items()
        if name.endswith("sheet.txt")
    }


def test_each_group_is_gathered_once_in_order(project: Project) -> None:
    """A stage gets the committed files of a group in the order of their paths, after all of them are made."""
    summary = project.run()
    assert (summary.done, summary.failed, summary.sources) == (5, 0, 3)
    assert sheets(project) == {
        "a": "a/1.txt - TEXT A/1.TXT\na/2.txt - TEXT A/2.TXT\n",
        "b": "b/1.txt - TEXT B/1.TXT\n",
    }
    again = project.run()
    assert (again.done, again.up_to_date) == (0, 5)


def test_only_the_group_that_changed_is_gathered_anew(project: Project) -> None:
    """A member that changes, comes, goes, or is edited by someone else makes its own group stale, and no other."""
    project.run()
    project.write("in/a/1.txt", "another text")
    assert project.plan()["sheet /sheet/a"] == ("make", "1 member to be made")
    assert project.run().done == 2 and sheets(project)["a"].startswith("a/1.txt - ANOTHER TEXT\n")
    project.write("in/b/0.txt", "new")
    assert project.run().done == 2 and sheets(project)["b"].startswith("b/0.txt - NEW\n")
    (project.folder / "in/a/1.txt").unlink()
    assert project.plan()["sheet /sheet/a"] == ("make", "members changed")
    assert project.run().done == 1 and sheets(project)["a"] == "a/2.txt - TEXT A/2.TXT\n"
    project.write("out/up/a/2.txt", "by hand")
    summary = project.run()
    assert (summary.done, summary.up_to_date, summary.edited) == (1, 3, 1) and sheets(project)[
        "a"
    ] == "a/2.txt - by hand\n"
    os.utime(project.folder / "out/up/a/2.txt", (time.time() + 10,) * 2)
    assert project.run().done == 1
    assert project.run().up_to_date == 4


def test_its_own_recipe_counts_and_no_other(project: Project) -> None:
    """Its options and code redo it and nothing else; code above it only where that makes other members."""
    project.run()
    project.edit("pipeline.yaml", "uses: names,", "uses: names, with: {mark: '!'},")
    assert project.plan()["sheet /sheet/a"] == ("make", 'sheet: mark "" -> !')
    assert project.run().done == 2 and sheets(project)["b"] == "b/1.txt - TEXT B/1.TXT!\n"
    project.edit("pipeline.yaml", "name: sheet", "name: listing")
    project.edit("pipeline.yaml", "name: up", "name: loud")
    project.edit("pipeline.yaml", "from: up", "from: loud")
    assert project.run().up_to_date == 5 and project.orphans() == []


def test_one_group_of_all(project: Project) -> None:
    """Without `group` there is one, and its output needs no field."""
    project.edit("pipeline.yaml", "group: '{dir}', output: 'out/{dir}/sheet.txt'", "output: out/all.txt")
    summary = project.run()
    assert (summary.done, summary.sources) == (4, 3)
    assert project.outputs()["all.txt"].count(b"\n") == 3
    assert project.run().up_to_date == 4


def test_a_gather_may_leave_no_file(project: Project) -> None:
    """With `output: none` it is called again only when a member changed, or when it failed."""
    project.write(
        "stages/names.py",
        """
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item
def names(items: Iterator[Item[Path]]) -> bool:
    with open(Path(__file__).parent.parent / "sent", "a") as file:
        print(*(item.value.name for item in items), file=file)
    return True
""",
    )
    project.edit("pipeline.yaml", "output: 'out/{dir}/sheet.txt'", "output: none")
    sent = project.folder / "sent"
    assert project.run().done == 5 and sent.read_text() == "1.txt 2.txt\n1.txt\n"
    project.edit("pipeline.yaml", "name: sheet", "name: upload")
    assert project.run().up_to_date == 5
    project.write("in/b/2.txt", "more")
    assert project.run().done == 2 and sent.read_text().splitlines()[2:] == ["1.txt 2.txt"]


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_failed_member_fails_its_group(project: Project) -> None:
    """The group is not tried, says so, keeps its old output, and is made when its members are; others are made."""
    project.run()
    before = sheets(project)
    project.write("in/a/1.txt", "bad")
    project.write("in/a/3.txt", "bad too")
    project.write("in/b/2.txt", "fine")
    summary = project.run()
    assert (summary.done, summary.failed, summary.exit) == (2, 3, 1)
    assert "  group a (sheet): 2 members failed" in summary.lines()
    assert sheets(project)["a"] == before["a"] and "FINE" in sheets(project)["b"]
    for _ in range(3):
        summary = project.run()
    assert (summary.failed, summary.held) == (1, 2)
    assert project.plan()["sheet /sheet/a"] == ("refuse", "2 members failed")
    project.write("in/a/1.txt", "good")
    (project.folder / "in/a/3.txt").unlink()
    assert project.run().exit == 0 and "GOOD" in sheets(project)["a"]
    assert verb(project, "failures").stdout == ""


def test_partial_gathers_what_there_is(project: Project) -> None:
    """With `partial: true` failed members are no reason to wait, unless there is no other."""
    project.edit("pipeline.yaml", "gather: true", "gather: true, partial: true")
    project.write("in/a/1.txt", "bad")
    project.write("in/b/1.txt", "bad")
    summary = project.run()
    assert (summary.done, summary.failed) == (2, 3)
    assert sheets(project) == {"a": "a/2.txt - TEXT A/2.TXT\n"}
    assert project.run().failed == 3
    project.write("in/a/1.txt", "good")
    assert project.run().done == 2 and "GOOD" in sheets(project)["a"]


def test_what_is_dismissed_is_not_waited_for(project: Project) -> None:
    """A person said that the file need not be done: the group is made without it, and the exit code is 0."""
    project.write("in/a/1.txt", "bad")
    assert project.run().failed == 2
    assert verb(project, "failures", "--dismiss", "a").stderr == "1 file dismissed\n"
    summary = project.run()
    assert (summary.done, summary.dismissed, summary.exit) == (1, 1, 0)
    assert sheets(project)["a"] == "a/2.txt - TEXT A/2.TXT\n"


def test_a_source_that_changes_meanwhile_is_waited_for(project: Project) -> None:
    """What is to be made of it is made by the next run, and its group then; one that vanishes is not waited for."""
    body = f"""
    from pathlib import Path
    if text == "moving":
        Path("{project.folder}/in/a/1.txt").write_text("moved")
    if text == "fleeting":
        Path("{project.folder}/in/b/2.txt").unlink()
"""
    project.edit("stages/upper.py", "-> str:\n", "-> str:" + body)
    project.write("in/a/1.txt", "moving")
    project.write("in/b/2.txt", "fleeting")
    summary = project.run()
    assert (summary.done, summary.failed, summary.vanished) == (3, 2, 1)
    assert list(sheets(project)) == ["b"] and "  group a (sheet): 1 member failed" in summary.lines()
    assert project.run().done == 2 and sheets(project)["a"].startswith("a/1.txt - MOVED\n")


def test_a_member_that_is_left_out_is_none(project: Project) -> None:
    """Skipped files are not gathered; a group of none but such is gone."""
    project.run()
    project.write("in/a/1.txt", "skip")
    project.write("in/b/1.txt", "skip")
    summary = project.run()
    assert (summary.done, summary.skipped, summary.failed) == (1, 2, 0)
    assert sheets(project)["a"] == "a/2.txt - TEXT A/2.TXT\n"
    assert project.orphans() == ["out/b/sheet.txt", "out/up/a/1.txt", "out/up/b/1.txt"]


def test_it_fails_and_skips_as_any_other(project: Project) -> None:
    """What a gather raises is its own failure, counted in attempts, held, and let go when a member changes."""
    project.write("in/a/1.txt", "break")
    project.write("in/b/1.txt", "over")
    summary = project.run()
    assert (summary.done, summary.failed, summary.skipped) == (3, 1, 1)
    assert "  group a (sheet): ValueError: broken sheet (in stage 'sheet') at stages/names.py:12" in summary.lines()
    project.run()
    project.run()
    assert project.plan()["sheet /sheet/a"] == ("held", "held after 3 failed attempts")
    assert "group a (sheet): error: ValueError: broken sheet (in stage 'sheet'), held after 3 failed attempts" in (
        verb(project, "failures").stdout
    )
    summary = project.run()
    assert (summary.held, summary.up_to_date, summary.exit) == (1, 4, 6)
    assert project.plan(retry_failed=True)["sheet /sheet/a"][0] == "make"
    project.write("in/a/1.txt", "whole again")
    assert project.run().done == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "stage 'sheet' returned None"),
        ("return 5", "stage 'sheet' returned int, not str"),
        ("next(items); raise KeyError('x')", "KeyError: 'x' (in stage 'sheet')"),
        ("next(items); raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_it_returns_is_held_to_its_signature(project: Project, body: str, said: str) -> None:
    """Bad use is said as of any other stage, and leaves nothing."""
    project.edit("stages/names.py", 'text = "".join', f'{body}\n    text = "".join')
    summary = project.run()
    assert (summary.done, summary.failed) == (3, 2) and said in summary.failures[0][1].text
    assert sheets(project) == {} and not temporaries(project.folder)


def test_a_member_that_cannot_be_read_is_named(project: Project) -> None:
    """Also where the stage does not let the error through: half a group is never gathered for the whole."""
    project.edit("stages/upper.py", "def upper(text: str) -> str:", "def upper(text: bytes) -> bytes:")
    project.edit("stages/upper.py", 'startswith("skip")', 'startswith(b"skip")')
    project.edit("stages/upper.py", 'startswith("bad")', 'startswith(b"bad")')
    project.edit(
        "stages/names.py",
        'text = "".join(f"{item.source} {item.part or \'-\'} {item.value}{mark}\\n" for item in items)',
        "text = ''\n    try:\n        for item in items:\n            text += item.value\n"
        "    except Exception:\n        pass",
    )
    project.write("in/a/2.txt", b"\xff")
    summary = project.run()
    assert (summary.done, summary.failed) == (4, 1)
    assert summary.failures[0][1].text.endswith("out/up/a/2.txt: not UTF-8: byte 0xff at offset 0")


def test_a_member_that_changes_meanwhile(project: Project) -> None:
    """What was gathered while someone wrote to a member is thrown away; it counts as no attempt."""
    project.edit(
        "stages/names.py",
        'if "over"',
        "for file in Path('out/up/a').glob('2.txt') if 'a/2' in text and not mark else ():\n"
        "        file.write_text('written meanwhile')\n"
        '    if "over"',
    )
    project.edit("stages/names.py", "out/up/a", f"{project.folder}/out/up/a")
    summary = project.run()
    assert (summary.done, summary.failed) == (4, 1)
    assert summary.failures[0][1].kind == "changed" and list(sheets(project)) == ["b"]
    project.edit("pipeline.yaml", "uses: names,", "uses: names, with: {mark: '.'},")
    assert project.run().exit == 0
    assert sheets(project)["a"] == "a/1.txt - TEXT A/1.TXT.\na/2.txt - written meanwhile.\n"


# -- members -----------------------------------------------------------------------------------------------------------


def test_one_member_is_in_memory(project: Project) -> None:
    """Each is read when it is asked for, and let go before the next one is read."""
    project.write(
        "stages/names.py",
        """
import weakref
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item
from pipeline import values
class Text(str): pass
values.register(Text, lambda path: Text(path.read_text()), lambda text, file: file.write(text.encode()), [".txt"])
def names(items: Iterator[Item[Text]]) -> str:
    last, count = None, 0
    for item in items:
        assert last is None or last() is None, count
        last, count = weakref.ref(item.value), count + 1
        del item
    return str(count)
""",
    )
    for number in range(20):
        project.write(f"in/a/{number:02}.txt", f"{number}")
    project.run()
    assert sheets(project) == {"a": "22", "b": "1"}


def test_a_bare_item_comes_as_it_was_made(project: Project) -> None:
    """What stood in the program as text is read as text; a Path is that of the committed file."""
    project.edit("stages/names.py", "Iterator[Item[str]]", "Iterator[Item]")
    project.run()
    assert sheets(project)["b"] == "b/1.txt - TEXT B/1.TXT\n"
    project.edit("stages/names.py", "Iterator[Item]", "Iterator[Item[Path]]")
    project.run()
    assert sheets(project)["b"] == f"b/1.txt - {project.folder}/out/up/b/1.txt\n"


def test_parts_are_gathered_each(project: Project) -> None:
    """The parts of a fan-out are members, with their names; those of one file may be a group, or all of one name."""
    project.write(
        "stages/upper.py",
        "from collections.abc import Iterator\n"
        "def upper(text: str) -> Iterator[str]:\n"
        "    assert 'bad' not in text\n    yield from text.split()\n",
    )
    project.edit("pipeline.yaml", "{dir}/{name}'", "{dir}/{stem}-{part}.txt'")
    project.edit("pipeline.yaml", "'{dir}', output: 'out/{dir}/", "'{dir}/{name}', output: 'out/{dir}-{name}/")
    assert project.run().done == 9
    assert sheets(project)["a-2.txt"] == "a/2.txt 000001 text\na/2.txt 000002 a/2.txt\n"
    project.edit("pipeline.yaml", "'{dir}/{name}', output: 'out/{dir}-{name}/", "'{part}', output: 'out/{part}/")
    project.write("in/b/1.txt", "three words now")
    assert project.run().done == 6
    assert sheets(project)["000003"] == "b/1.txt 000003 now\n"
    project.write("in/b/1.txt", "bad")
    summary = project.run()
    assert (summary.done, summary.failed) == (0, 4)  # nobody knows which parts there would have been


# -- the plan, and who asks --------------------------------------------------------------------------------------------


def verb(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One line of the program, in the project's folder."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=project.folder, capture_output=True, text=True)


def test_a_part_of_the_files_gathers_nothing(project: Project) -> None:
    """A selection says nothing of groups: they are neither made nor counted, nor gone."""
    for part in ({"only": "/b"}, {"limit": 1}, {"names": [b"a/1.txt"]}):
        summary = project.run(**part)
        assert sheets(project) == {} and summary.failed == 0
    assert project.run().done == 3
    assert project.run(only="/b").up_to_date == 1
    assert project.orphans(only="/b") == []


def test_the_verbs_tell_of_groups(project: Project) -> None:
    """A group is shown as one, and never as a path that is not there."""
    plan = verb(project, "plan").stdout
    assert "5 outputs of 3 files" in plan and "2  make: members to be made" in plan
    project.run()
    lines = verb(project, "plan", "-v").stdout.splitlines()
    assert "sheet: up (its files, by {dir}) -> many str -> names -> str -> out/{dir}/sheet.txt" in lines
    assert "up-to-date  sheet        group a -> out/a/sheet.txt: up to date" in lines
    explained = verb(project, "explain", "out/a/sheet.txt").stdout.splitlines()
    assert explained[0] == "group a: a group of 2 members"
    assert explained[2:4] == ["out/a/sheet.txt (sheet)", "  up-to-date"]
    assert explained[4].endswith("; of 2 members")
    (project.folder / "in/b/1.txt").unlink()
    project.write("out/a/sheet.txt", "x")
    found = json.loads(verb(project, "verify", "--json").stdout)
    assert (found["source"], found["group"], found["finding"]) == (None, "a", "edited")
    orphans = [json.loads(line) for line in verb(project, "prune", "--json").stdout.splitlines()]
    assert [(each["output"], each["why"]) for each in orphans] == [
        ("out/b/sheet.txt", "group gone"), ("out/up/b/1.txt", "source gone"),
    ]  # fmt: skip
    assert verb(project, "explain", "out/b/sheet.txt").stdout.splitlines()[0] == "group b: a group that is gone"
    assert "2 orphans removed" in verb(project, "prune", "--yes").stderr
    assert sorted(project.outputs()) == ["a/sheet.txt", "up/a/1.txt", "up/a/2.txt"]


def test_where_it_went_and_is_no_more_is_an_orphan(project: Project) -> None:
    """A new path makes the group's output anew; without the stage nothing makes it."""
    project.run()
    project.edit("pipeline.yaml", "out/{dir}/sheet.txt", "out/sheets/{dir}.txt")
    assert project.run().done == 2
    assert project.orphans() == ["out/a/sheet.txt", "out/b/sheet.txt"]
    yaml = (project.folder / "pipeline.yaml").read_text()
    project.write("pipeline.yaml", yaml.replace("  - {name: sheet", "#"))
    assert project.orphans() == ["out/a/sheet.txt", "out/b/sheet.txt", "out/sheets/a.txt", "out/sheets/b.txt"]


def test_what_is_not_ours_is_left_alone(project: Project) -> None:
    """A file in the place of a gather's output is refused, adopted, or made anew by --force."""
    project.write("out/a/sheet.txt", "mine")
    summary = project.run()
    assert (summary.done, summary.failed) == (4, 1)
    assert "exists, not ours" in summary.failures[0][1].text and sheets(project)["a"] == "mine"
    assert "1 output adopted" in verb(project, "adopt", "--yes").stderr
    assert project.run().up_to_date == 5
    assert project.run(force=True).done == 5 and sheets(project)["a"] != "mine"


def test_groups_and_files_may_not_share_an_output(project: Project) -> None:
    """Two groups, or a group and a file, that want one path are both refused, each naming the other."""
    project.edit("pipeline.yaml", "out/{dir}/sheet.txt", "out/sheet.txt")
    project.edit("pipeline.yaml", "'{dir}', ", "'{dir}', ")
    summary = project.run()
    assert (summary.done, summary.failed) == (3, 2)
    assert summary.failures[0][1].text == "collision with group b: both want out/sheet.txt"
    project.edit("pipeline.yaml", "out/sheet.txt", "out/up/{dir}/1.txt")
    summary = project.run()
    assert (summary.failed, summary.up_to_date) == (2, 3)
    assert summary.failures[0][1].text == "collision with a/1.txt: both want out/up/a/1.txt"


def test_accept_and_force(project: Project) -> None:
    """An edit of the stage that changes nothing can be accepted; --force redoes groups too."""
    project.run()
    project.edit("stages/names.py", "def names(", "UNUSED = 1\ndef names(")
    assert "2 outputs accepted" in verb(project, "accept", "--stage", "sheet", "--because", "code", "--yes").stderr
    assert project.run().up_to_date == 5
    assert project.plan(force=True)["sheet /sheet/a"][0] == "make"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gather: true, ", "", "stage 'sheet': 'group' is for a stage that says 'gather: true'"),
        ("gather: true, group: '{dir}', ", "", "stage 'sheet' takes an iterator of many files; say 'gather: true'"),
        ("uses: names", "uses: upper", "'gather' is for a stage that takes an Iterator[Item[...]]"),
        ("from: up", "from: inputs", "stage 'sheet' gathers what another stage has written; name that with 'from'"),
        ("from: up, ", "", "stage 'sheet' stands after 'up', which has an output"),
        ("output: 'out/up/{dir}/{name}'", "output: none", "gathers the output files of 'up', which has none"),
        ("group: '{dir}'", "group: '{stem}'", "{dir} differs within a group; in the path may be"),
        ("group: '{dir}', ", "", "{dir} differs within a group"),
        ("group: '{dir}'", "group: '{dir}{part}'", "group: {part} is for what is made by stages that fan out"),
        ("group: '{dir}'", "group: '{folder}'", "stage 'sheet': group: no field {folder}; there are"),
        ("out/{dir}/sheet.txt", "out/{dir}/", "'out/{dir}/' names a folder"),
        ("uses: names", "uses: 'stages.names:parts'", "gathers and fans out; what it makes of a group is one output"),
        ("uses: names", "uses: 'stages.names:is_whole'", "makes nothing that could be written; say 'output: none'"),
        ("uses: names", "uses: 'stages.names:pictures'", "takes Image.Image, but 'up' makes str"),
        ("engine", "  - {name: x, from: sheet, uses: upper, output: 'o/{name}'}\nengine", "which gathers; nothing can"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_at_once(project: Project, old: str, new: str, said: str) -> None:
    """What only the tree can tell of a gather is told before anything runs."""
    with open(project.folder / "stages/names.py", "a") as file:
        file.write("from PIL import Image\n")
        file.write("def parts(items: Iterator[Item[str]]) -> Iterator[str]: ...\n")
        file.write("def is_whole(items: Iterator[Item[str]]) -> bool: ...\n")
        file.write("def pictures(items: Iterator[Item[Image.Image]]) -> str: ...\n")
    project.edit("pipeline.yaml", old, new)
    with pytest.raises(ConfigError) as raised:
        load_config(project.folder / "pipeline.yaml")
    assert said in str(raised.value)


# -- processes, and many -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_at_any_moment(project: Project, rounds: int) -> None:
    """After a kill the same line makes the same outputs of the same groups, and leaves no temporary."""
    project.edit("pipeline.yaml", "engine: serial", "pool: {processes: 2}")
    for number in range(40):
        project.write(f"in/{number % 8}/{number}.txt", f"text {number}")
    command = [sys.executable, "-m", "pipeline"]
    began = time.monotonic()
    subprocess.run(command, cwd=project.folder, check=True)
    seconds, expected = time.monotonic() - began, project.outputs()
    for _ in range(rounds):
        for number in range(40):
            project.write(f"in/{number % 8}/{number}.txt", f"other {number}")
        process = subprocess.Popen(command, cwd=project.folder, process_group=0)
        time.sleep(random.uniform(seconds / 4, seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for number in range(40):
            project.write(f"in/{number % 8}/{number}.txt", f"text {number}")
        subprocess.run(command, cwd=project.folder, check=True)
        assert project.outputs() == expected
        assert not temporaries(project.folder)


def test_a_worker_that_dies_over_a_group_costs_that_group_only(project: Project) -> None:
    """In a pool of the stage's own as well as in the shared one; its name is said."""
    project.edit(
        "stages/names.py", 'if "break"', "if 'DIE' in text:\n        __import__('os')._exit(3)\n    if \"break\""
    )
    project.edit("pipeline.yaml", "engine: serial", "pool: {processes: 2}")
    project.edit("pipeline.yaml", "gather: true", "gather: true, pool: {processes: 1}")
    project.write("in/a/1.txt", "die")
    found = verb(project)
    assert found.returncode == 1 and "group a (sheet): the worker ended by exit code 3 in stage 'sheet'" in found.stderr
    assert list(sheets(project)) == ["b"] and not temporaries(project.folder)


def test_ten_thousand_members_cost_no_memory(project: Project) -> None:
    """What a group holds in the plan and in the worker does not grow with the number of its members."""
    project.edit("pipeline.yaml", "group: '{dir}', output: 'out/{dir}/sheet.txt'", "output: out/all.txt")
    # By contents nothing is compared by ranges of files, of which each is in memory whole, and some are larger.
    project.edit("pipeline.yaml", "engine: serial", "changed_by: hash\nengine: serial")
    project.edit("pipeline.yaml", "uses: names", "uses: 'stages.names:count'")
    with open(project.folder / "stages/names.py", "a") as file:
        file.write("def count(items: Iterator[Item[bytes]]) -> str:\n    return str(sum(1 for item in items))\n")
    project.run()
    peak_of_making(project, "out/all.txt")  # the first run imports, which takes memory too
    peaks = []
    for first, after in ((0, 1_000), (1_000, 10_000)):
        multiply(project, range(first, after))
        peaks.append(peak_of_making(project, "out/all.txt"))
        assert (project.folder / "out/all.txt").read_text() == str(after + 3)
    assert peaks[1] < peaks[0] + 1_000_000


def peak_of_making(project: Project, output: str) -> int:
    """Return the peak of traced memory, in bytes, in a run that makes one output."""
    (project.folder / output).unlink(missing_ok=True)
    gc.collect()
    tracemalloc.start()
    assert project.run().done == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def multiply(project: Project, numbers: range) -> None:
    """Have as many more files as if they were made of `b/1.txt`, with what was made of them and its records."""
    columns = "stage, status, source_size, source_mtime_ns, recipe, reason, size, mtime_ns, at_work, digest"
    copy = f"INSERT INTO outputs (source, target, {columns}) SELECT ?, ?, {columns} FROM outputs WHERE source = ?"
    names = [f"{number % 100}/{number:05}-{'x' * 100}.txt" for number in numbers]
    for name in names:
        for folder in ("in", "out/up"):
            os.makedirs(f"{project.folder}/{folder}/{os.path.dirname(name)}", exist_ok=True)
            os.link(f"{project.folder}/{folder}/b/1.txt", f"{project.folder}/{folder}/{name}")
    with ledger_of(project.folder) as ledger:
        rows = ((os.fsencode(name), os.fsencode(f"out/up/{name}"), b"b/1.txt") for name in names)
        ledger.begin()
        ledger._connection.executemany(copy, rows)
        ledger.commit()
