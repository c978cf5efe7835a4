"""Who may read what a run writes: outputs no more than may read their source, and the program's own files."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from tests.support.mounts import mounted
from tests.support.program import Pipeline
from tests.support.project import Project

_YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: copy, from: inputs, uses: copy, output: 'out/copy/{dir}/{name}'}
  - {name: lines, from: inputs, uses: lines, output: 'out/lines/{dir}/{stem}-{part}.txt'}
  - {name: sheet, from: up, uses: names, gather: true, group: '{dir}', output: 'out/{dir}/sheet.txt'}
engine: serial
"""
_STAGES = {
    "copy": """
import os, shutil
from pathlib import Path
from pipeline import Item
def copy(item: Item[Path]) -> Path:
    made = item.scratch / "made"
    shutil.copyfile(item.value, made)
    made.chmod(0o777)
    return made
""",
    "lines": """
from collections.abc import Iterator
def lines(text: str) -> Iterator[str]:
    yield from text.splitlines()
""",
    "names": """
from collections.abc import Iterator
from pipeline import Item
def names(items: Iterator[Item[str]]) -> str:
    return "".join(item.value for item in items)
""",
}
_MODES = {"d/open.txt": 0o666, "d/usual.txt": 0o644, "d/group.txt": 0o640, "e/private.txt": 0o600, "f/read.txt": 0o444}
# Tags of the entries of an access control list.
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20


@contextmanager
def _umask(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def _project(folder: Path, modes: dict[str, int] = _MODES) -> Project:
    project = Project(folder, _YAML)
    for name, code in _STAGES.items():
        project.write(f"stages/{name}.py", code)
    for name, mode in modes.items():
        project.write(f"in/{name}", "one\ntwo\n").chmod(mode)
    return project


def _modes(folder: Path) -> dict[str, int]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".filemill")
    return {str(file.relative_to(folder)): stat.S_IMODE(file.stat().st_mode) for file in files}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_output_is_wider_than_its_source(tmp_path: Path, umask: int) -> None:
    """Bytes, a file that a stage made, and parts have what source and umask allow; a sheet what all members have."""
    with _umask(umask):
        project = _project(tmp_path)
        assert project.run().exit == 0
    made = _modes(tmp_path / "out")
    for source, mode in _MODES.items():
        stem, parts = source.removesuffix(".txt"), ("000001", "000002")
        for each in (f"up/{source}", f"copy/{source}", *(f"lines/{stem}-{part}.txt" for part in parts)):
            assert made.pop(each) == mode & ~umask, each
    assert made == {f"{each}/sheet.txt": mode & ~umask for each, mode in (("d", 0o640), ("e", 0o600), ("f", 0o444))}


def test_the_pipeline_may_say_the_mode(tmp_path: Path) -> None:
    """`output.mode` holds whatever umask and source allow, and outputs of another mode are made again."""
    project = _project(tmp_path)
    assert project.run().exit == 0
    project.edit("pipeline.yaml", "'out/copy/{dir}/{name}'", "{path: 'out/copy/{dir}/{name}', mode: '0664'}")
    project.edit("pipeline.yaml", "'out/{dir}/sheet.txt'", "{path: 'out/{dir}/sheet.txt', mode: '604'}")
    assert project.plan()["copy d/open.txt"] == ("make", "copy: save mode null -> 0664")
    with _umask(0o077):
        assert project.run().done == 8
    assert set(_modes(tmp_path / "out/copy").values()) == {0o664}
    assert {mode for name, mode in _modes(tmp_path / "out").items() if name.endswith("sheet.txt")} == {0o604}
    assert project.run().done == 0


@pytest.mark.parametrize("mode", ["640", "'0240'", "'u=rw'", "'01777'", "0640"])
def test_no_other_mode_is_taken(tmp_path: Path, mode: str) -> None:
    """A number is refused, since YAML would read it as decimal, and so is a mode that locks out the owner."""
    project = _project(tmp_path)
    project.edit("pipeline.yaml", "'out/{dir}/sheet.txt'", f"{{path: 'out/{{dir}}/sheet.txt', mode: {mode}}}")
    with pytest.raises(ConfigError, match=r"stage 'sheet': mode: an octal mode in quotes .* such as '0640', not"):
        project.run()


def _list_of(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_the_lists_of_a_folder_hold(tmp_path: Path) -> None:
    """A folder's default access control list decides in place of the umask, within what the source allows."""
    project = _project(tmp_path)
    (tmp_path / "out/copy").mkdir(parents=True)
    nobody = 0xFFFFFFFF
    entries = ((_OWNER, 7, nobody), (_USER, 5, 65534), (_GROUP, 5, nobody), (_MASK, 5, nobody), (_OTHER, 0, nobody))
    try:
        for each in ("out", "out/copy"):
            os.setxattr(tmp_path / each, "system.posix_acl_default", _list_of(*entries))
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error}")
    with _umask(0o077):
        assert project.run().exit == 0
    for stage in ("up", "copy"):
        for name, mode in _MODES.items():
            file = tmp_path / "out" / stage / name
            assert (_USER, 5, 65534) in struct.iter_unpack("<HHI", os.getxattr(file, "system.posix_acl_access")[4:])
            assert stat.S_IMODE(file.stat().st_mode) == mode & 0o640, (stage, name)


def test_the_list_of_a_source_counts(tmp_path: Path) -> None:
    """What a list's mask allows others is not taken for what the source's group may do."""
    project = _project(tmp_path, {"d/x.txt": 0o600})
    nobody = 0xFFFFFFFF
    entries = ((_OWNER, 6, nobody), (_USER, 4, 65534), (_GROUP, 0, nobody), (_MASK, 4, nobody), (_OTHER, 0, nobody))
    try:
        os.setxattr(tmp_path / "in/d/x.txt", "system.posix_acl_access", _list_of(*entries))
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error}")
    assert stat.S_IMODE((tmp_path / "in/d/x.txt").stat().st_mode) == 0o640
    assert project.run().exit == 0
    assert set(_modes(tmp_path / "out").values()) == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_the_group_of_a_folder_holds(tmp_path: Path) -> None:
    """In a folder that gives its group to new files, a file that a stage made has it too."""
    project = _project(tmp_path, {"x.txt": 0o640})
    os.chown(tmp_path / "in/x.txt", -1, 4242)
    for name in ("up", "copy"):
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        os.chown(folder, -1, 4242)
        folder.chmod(0o2775)
    assert project.run().exit == 0
    for name in ("up", "copy"):
        found = (tmp_path / "out" / name / "x.txt").stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (4242, 0o640)


_LOOK = """
import json, os
from pathlib import Path
from pipeline import Item
def upper(item: Item[Path]) -> str:
    print("private")
    (item.scratch / "made").write_text("made")
    item.value.unlink() if item.source == "gone.txt" else None
    state = Path({state!r})
    modes = {{str(each.relative_to(state)): each.lstat().st_mode for each in state.rglob("*")}}
    Path({report!r}).write_text(json.dumps(modes))
    return "made"
"""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_a_run_keeps_of_private_files_is_private(tmp_path: Path, pipeline_process: Pipeline, umask: int) -> None:
    """Log, report, captured text, scratch and what is set aside are for the user alone; all else is as umask gives."""
    state, report = tmp_path / ".pipeline/pipeline", tmp_path / "report"
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", "engine: pool\npool: {processes: 1}")
    project.write("stages/upper.py", _LOOK.format(state=str(state), report=str(report)))
    project.write("in/gone.txt", "1").chmod(0o600)
    with _umask(umask):
        assert " kept in .pipeline/pipeline/set-aside/" in pipeline_process("run").stderr
    found = json.loads(report.read_text()) | {
        str(each.relative_to(state)): each.lstat().st_mode for each in state.rglob("*")
    }
    kept = {name.partition("/")[0]: name for name, mode in found.items() if "/" in name and stat.S_ISREG(mode)}
    assert kept.keys() == {"runs", "reports", "slots", "scratch", "set-aside"}
    for name in kept.values():
        assert any(not found[str(each)] & 0o077 for each in (Path(name), *Path(name).parents[:-1])), name
    assert stat.S_IMODE(found["lock"]) == 0o660 & ~umask
    for name in ("progress.json", ".gitignore"):
        assert stat.S_IMODE(found[name]) == 0o666 & ~umask
    for name in ("ledger.sqlite", "ledger-good.sqlite"):
        assert stat.S_IMODE(found[name]) == 0o644 & ~umask


@pytest.mark.parametrize("kind", ["fat", "ignores case", "tmpfs"])
def test_a_disk_without_permissions_takes_outputs(tmp_path: Path, kind: str) -> None:
    """Where a disk cannot keep what the source has, the output is made with what it has for all."""
    with mounted(kind, tmp_path) as disk:
        project = _project(tmp_path, {"d/x.txt": 0o600})
        (tmp_path / "out").symlink_to(disk)
        assert project.run().exit == 0
        if kind == "tmpfs":
            assert set(_modes(disk).values()) == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to other groups")
def test_the_group_of_a_source_is_not_that_of_its_outputs(tmp_path: Path) -> None:
    """What one group may read is not for another: an output has a group's permissions only in the same group."""
    project = _project(tmp_path, {"d/a.txt": 0o640, "d/b.txt": 0o644, "e/c.txt": 0o640})
    for name in ("d/a.txt", "d/b.txt"):
        os.chown(tmp_path / "in" / name, -1, 4242)
    with _umask(0):
        assert project.run().exit == 0
    modes = {name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in (
        "up/d/a.txt", "up/d/b.txt", "up/e/c.txt", "copy/d/a.txt", "copy/e/c.txt", "d/sheet.txt", "e/sheet.txt"
    )}  # fmt: skip
    assert modes == {
        "up/d/a.txt": 0o600, "up/d/b.txt": 0o644, "up/e/c.txt": 0o640, "copy/d/a.txt": 0o600, "copy/e/c.txt": 0o640,
        "d/sheet.txt": 0o600, "e/sheet.txt": 0o640,
    }  # fmt: skip
    shared = tmp_path / "out" / "up" / "d"
    os.chown(shared, -1, 4242)
    shared.chmod(0o2775)
    project.write("in/d/a.txt", "another text")
    with _umask(0):
        assert project.run().exit == 0
    assert stat.S_IMODE((shared / "a.txt").stat().st_mode) == 0o640 and (shared / "a.txt").stat().st_gid == 4242
