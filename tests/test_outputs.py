"""Where outputs go, and how they get there whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FileFailure
from pipeline.outputs import (
    Committer,
    TemplateError,
    always_same,
    parse_template,
    remove_temporaries,
    temporary_for,
)

BASE = Path("/project")
NAMES = (
    st.binary(min_size=1, max_size=40)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: not name.startswith(b"."))
)


def fill(template: str, source: bytes | str) -> str:
    path = parse_template(template, BASE).fill(source.encode() if isinstance(source, str) else source)
    return os.fsdecode(path)


# -- templates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "source", "path"),
    [
        ("out/{dir}/{stem}.webp", "a/b/c.tar.gz", "/project/out/a/b/c.tar.webp"),
        ("out/{dir}/{stem}.webp", "c.gz", "/project/out/c.webp"),
        ("out/{name}", "a/x", "/project/out/x"),
        ("out/", "a/x.txt", "/project/out/a/x.txt"),
        ("out/{dir}/", "a/x.txt", "/project/out/a/x.txt"),
        ("out/{stem}{suffix}", "x.", "/project/out/x."),
        ("out/{{{stem}}}", "x.y", "/project/out/{x}"),
        ("100%/{stem}%s%(name)b", "x%d.y", "/project/100%/x%d%s%(name)b"),
        ("../up/{name}", "x", "/up/x"),
        ("./a/../b/{name}", "x", "/project/b/x"),
        ("/abs/{name}", "x", "/abs/x"),
        ("/{name}", "x", "/x"),
        ("pre{stem}.{dir}.txt", "d/x.y", "/project/prex.d.txt"),
        ("{dir}/{stem}/{stem}{suffix}", "d/x.y", "/project/d/x/x.y"),
    ],
)
def test_templates(template: str, source: str, path: str) -> None:
    """Each field is filled in as DESIGN says; everything else stands as it is written, the percent sign too."""
    assert fill(template, source) == path


@given(NAMES)
def test_stem_and_suffix_are_pathlibs(name: bytes) -> None:
    """Whatever bytes a name has, its stem and suffix are what pathlib says, and together they are the name."""
    pure = PurePosixPath(os.fsdecode(name))
    assert fill("/x/{stem}|{suffix}", name) == f"/x/{pure.stem}|{pure.suffix}"
    assert fill("/x/{stem}{suffix}", name) == fill("/x/{name}", name)


@given(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join), st.sampled_from(["{dir}/{name}", "{dir}/{stem}.x"]))
def test_nothing_filled_in_leaves_the_folder(source: bytes, fields: str) -> None:
    """A path is under the literal part, or the file fails."""
    try:
        path = os.fsencode(fill(f"out/{fields}", source))
    except FileFailure:
        return
    assert path.startswith(b"/project/out/") and os.path.normpath(path) == path


@pytest.mark.parametrize(
    ("template", "source", "says"),
    [
        ("out/{dir}/.{suffix}", "a/x", "would leave its folder"),
        ("out/{dir}/{suffix}", "a/README", "would have no name"),
        ("out/{suffix}", "README", "would have no name"),
        ("out/.{name}", "filemill", "the program's own"),
        ("out/.{name}", "filemill-0123", "the program's own"),
        ("out/{stem}.webp", "x" * 253 + ".y", "output name of 258 bytes, limit 255"),
    ],
)
def test_what_cannot_be_an_output_fails_that_file(template: str, source: str, says: str) -> None:
    """A name that would be none, too long, ours or outside is refused for its file alone, with the reason."""
    with pytest.raises(FileFailure, match=says):
        fill(template, source)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "an output path is needed"),
        ("out/x.webp", "every file would have the one output"),
        ("out/{steam}.x", r"no field \{steam\}; there are \{dir\}"),
        ("out/{stem", r"a single '\{'"),
        ("out/stem}", r"a single '\}'"),
        ("out/{stem}/../x", "after the first field"),
        ("out/{dir}/./{name}", "after the first field"),
        ("out/{dir}//../{name}", "after the first field"),
    ],
)
def test_templates_that_cannot_be_read(template: str, says: str) -> None:
    """What is wrong with a template is said before anything runs."""
    with pytest.raises(TemplateError, match=says):
        parse_template(template, BASE)


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("out/{name}", b"out/x"),
        ("/project/out/{name}", b"out/x"),
        ("../up/{name}", b"../up/x"),
        ("/abs/{name}", b"/abs/x"),
        ("/{name}", b"/x"),
    ],
)
def test_keys_move_with_the_project(template: str, key: bytes) -> None:
    """The ledger keeps paths relative to the YAML's folder wherever they are written so or lie below it."""
    parsed = parse_template(template, BASE)
    assert parsed.key(parsed.fill(b"x")) == key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("out/{name}", "./out/{name}", True),
        ("out/{name}", "out/{stem}{suffix}", True),
        ("out/", "out/{dir}/{name}", True),
        ("out/{dir}//{name}", "out/{dir}/{name}", True),
        ("out/{stem}.a", "out/{stem}.b", False),
        ("out/{name}", "out/{dir}/{name}", False),
        ("out/a/{name}", "out/b/{name}", False),
    ],
)
def test_templates_that_never_differ_are_known(one: str, other: str, same: bool) -> None:
    """Two stages over one path are found however the path is spelt."""
    assert always_same(parse_template(one, BASE), parse_template(other, BASE)) is same


# -- commit ------------------------------------------------------------------------------------------------------------


def writes(data: bytes) -> object:
    def write(file: BinaryIO) -> None:
        file.write(data)

    return write


def test_commit_makes_folders_and_says_what_stat_says(tmp_path: Path) -> None:
    """An output's folders are made, and what is reported of it is what the next plan will see."""
    target = tmp_path / "a" / "b" / "x"
    committed = Committer("run").write(os.fsencode(target), writes(b"12345"))  # type: ignore[arg-type]
    found = target.stat()
    assert (committed.size_bytes, committed.mtime_ns) == (found.st_size, found.st_mtime_ns)
    assert target.read_bytes() == b"12345" and os.listdir(target.parent) == ["x"]


def test_the_target_is_old_or_new_and_the_temporary_beside_it(tmp_path: Path) -> None:
    """While an output is written, the old one is whole under its name, and the new one in the same folder."""
    (tmp_path / "x").write_text("old")
    seen: list[object] = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        seen.extend([(tmp_path / "x").read_text(), sorted(os.listdir(tmp_path))])

    Committer("run").write(os.fsencode(tmp_path / "x"), write)
    assert seen[0] == "old" and (tmp_path / "x").read_text() == "new"
    assert seen[1] == [temporary_for(os.fsencode(tmp_path / "x"), "run").decode().rpartition("/")[2], "x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_nothing_is_left_where_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    """A failure of any kind leaves the old output and no temporary."""
    (tmp_path / "x").write_text("old")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(error):
        Committer("run").write(os.fsencode(tmp_path / "x"), write)
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "old"


def test_a_folder_under_the_targets_name_fails_and_leaves_nothing(tmp_path: Path) -> None:
    """Even where only the rename fails, the temporary goes."""
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        Committer("run").write(os.fsencode(tmp_path / "x"), writes(b"1"))  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
@pytest.mark.parametrize("moved", [False, True])
def test_permissions_are_the_umasks(tmp_path: Path, umask: int, moved: bool) -> None:
    """An output may be read by whoever the umask lets, even when the stage's own file was private."""
    before = os.umask(umask)
    try:
        committer = Committer("run")
        if moved:
            (tmp_path / "scratch").touch(mode=0o600)
            assert committer.move(tmp_path / "scratch", os.fsencode(tmp_path / "x"))
        else:
            committer.write(os.fsencode(tmp_path / "x"), writes(b"1"))  # type: ignore[arg-type]
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_a_moved_file_is_not_copied(tmp_path: Path) -> None:
    """A large file that a stage made in its scratch folder is renamed."""
    (tmp_path / "scratch").write_text("big")
    inode = (tmp_path / "scratch").stat().st_ino
    assert Committer("run").move(tmp_path / "scratch", os.fsencode(tmp_path / "x"))
    assert (tmp_path / "x").stat().st_ino == inode and os.listdir(tmp_path) == ["x"]


def test_a_commit_never_takes_the_source_by_its_second_name(tmp_path: Path) -> None:
    """A hard link to the source is copied, not moved: output and source would be one file, with one mode."""
    (tmp_path / "source").touch(mode=0o600)
    (tmp_path / "scratch").hardlink_to(tmp_path / "source")
    assert Committer("run").move(tmp_path / "scratch", os.fsencode(tmp_path / "x")) is None
    assert stat.S_IMODE((tmp_path / "source").stat().st_mode) == 0o600


def test_a_name_of_255_bytes_works(tmp_path: Path) -> None:
    """The temporary's name is short whatever the target's."""
    target = os.fsencode(tmp_path) + b"/" + b"\xff" * 255
    Committer("run").write(target, writes(b"1"))  # type: ignore[arg-type]
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff" * 255]


def test_temporaries_are_opened_exclusively_and_never_through_a_link(tmp_path: Path) -> None:
    """A link that someone has put under the temporary's name is removed, not followed."""
    target, victim = os.fsencode(tmp_path / "x"), tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, temporary_for(target, "run"))
    Committer("run").write(target, writes(b"new"))  # type: ignore[arg-type]
    assert victim.read_text() == "precious" and (tmp_path / "x").read_bytes() == b"new"
    assert not (tmp_path / "x").is_symlink()


def test_a_folder_removed_in_mid_run_is_made_again(tmp_path: Path) -> None:
    """What a committer has made once it does not take for granted."""
    committer, target = Committer("run"), tmp_path / "out" / "x"
    for _ in range(2):
        committer.write(os.fsencode(target), writes(b"1"))  # type: ignore[arg-type]
        target.unlink()
        target.parent.rmdir()


def test_temporaries_of_killed_runs_are_removed_by_name(tmp_path: Path) -> None:
    """Only those of the named runs and of this target go; a folder that is none does no harm."""
    target = os.fsencode(tmp_path / "x")
    for path in (temporary_for(target, "dead"), temporary_for(target, "alive"), temporary_for(target + b"2", "dead")):
        Path(os.fsdecode(path)).touch()
    remove_temporaries(target, ["dead", "unknown"])
    (tmp_path / "file").touch()
    remove_temporaries(os.fsencode(tmp_path / "file" / "x"), ["dead"])
    assert len(list(tmp_path.glob(".filemill-*"))) == 2


def test_commit_imports_nothing_heavy() -> None:
    """Every spawned worker pays for what this module imports."""
    code = "import sys, pipeline.outputs; print([m for m in ('PIL', 'pydantic', 'sqlite3') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
