"""The walk: which files are sources, in which order, and what is said of the others."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from support.examples import examples
from support.program import ROOT
from support.trees import NAMES, PATHS, make

from pipeline.files.walk import Walk, matcher


def paths(root: Path | bytes, **options: object) -> list[bytes]:
    return [source.path for source in Walk(os.fsencode(root), **options)]  # type: ignore[arg-type]


@settings(max_examples=examples(60), deadline=None)
@given(PATHS)
def test_order_is_that_of_the_whole_path_in_bytes(tree: list[bytes]) -> None:
    """However names begin with each other, the walk comes in byte order of whole paths, as git lists them."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.fsencode(folder)
        for path in tree:
            make(root, path)
        there = [
            os.path.relpath(os.path.join(place, name), root) for place, _, names in os.walk(root) for name in names
        ]
        assert paths(root) == sorted(there)


def test_order_is_gits(tmp_path: Path) -> None:
    """A folder sorts as its name plus "/": after `a-` and `a.txt`, before `a0`, as `git ls-files` has it."""
    for name in (b"a/b", b"a-", b"a.txt", b"a0", b"a/-", b"a-/z", b"B", "\u00e9/x".encode(), b"\xff", b"a b"):
        make(os.fsencode(tmp_path), name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=tmp_path, check=True, capture_output=True).stdout
    assert paths(tmp_path) == listed.split(b"\0")[:-1]


def test_identity_is_what_stat_says(tmp_path: Path) -> None:
    """A source carries its size and its time to the nanosecond; an empty file is one too."""
    (tmp_path / "a").write_bytes(b"12345")
    os.utime(tmp_path / "a", ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "empty").touch()
    found = list(Walk(os.fsencode(tmp_path)))
    assert (found[0].size_bytes, found[0].mtime_ns) == (5, 1_234_567_890_123_456_789)
    assert found[1].size_bytes == 0


def test_links_to_files_are_read_and_linked_folders_are_not_entered(tmp_path: Path) -> None:
    """A link to a file counts as the file; a linked folder could lead anywhere, or round in a circle."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_text("12")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").symlink_to("../elsewhere/x")
    (tmp_path / "in" / "folder").symlink_to("../elsewhere")
    (tmp_path / "in" / "round").symlink_to(".")
    walk = Walk(os.fsencode(tmp_path / "in"))
    assert [(source.path, source.size_bytes) for source in walk] == [(b"file", 2)]
    assert walk.left_out == {"a linked folder": 2}


def test_what_is_no_file_is_left_out_with_a_reason_and_never_opened(tmp_path: Path) -> None:
    """A FIFO would block for ever when opened, a device could do anything: each is named with its kind instead."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_fifo").symlink_to("fifo")
    (tmp_path / "good").touch()
    if os.geteuid() == 0:
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    began = time.monotonic()
    walk = Walk(os.fsencode(tmp_path))
    assert [source.path for source in walk] == [b"good"]
    assert time.monotonic() - began < 5
    expected = {
        b"fifo": "a FIFO", b"to_fifo": "a FIFO", b"socket": "a socket",
        b"dangling": "a dangling link", b"loop": "a symlink loop",
    }  # fmt: skip
    assert dict(walk.left_out_names) == expected | ({b"device": "a device"} if os.geteuid() == 0 else {})


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    """What begins with a dot is somebody's own: ours among them."""
    for name in (b".hidden", b".folder/x", b"a/.b", b"a/c", b".filemill", b".filemill-0123-run"):
        make(os.fsencode(tmp_path), name)
    assert paths(tmp_path) == [b"a/c"]


def test_what_systems_put_beside_files_is_left_out(tmp_path: Path) -> None:
    """Thumbnails, recycle bins and views of folders, at any depth, by whichever way a file is named."""
    system = [b"a/@eaDir/c/thumb.jpg", b"#recycle/x", b"lost+found/1", b"a/Thumbs.db", b"desktop.ini"]
    for name in (*system, b"a/c", b"a/Thumbs.db.txt"):
        make(os.fsencode(tmp_path), name)
    assert paths(tmp_path) == [b"a/Thumbs.db.txt", b"a/c"]
    walk = Walk(os.fsencode(tmp_path))
    assert [walk.look_up(name) for name in system] == [None] * len(system) and not walk.is_misled


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (["*.jpg"], [], [b"A.JPG", b"drafts/b.jpg", b"new\nline/c.jpg", b"sub/a.jpg"]),
        (["*.JPG", "*.txt"], ["Drafts/"], [b"A.JPG", b"new\nline/c.jpg", b"note.txt", b"sub/a.jpg"]),
        (["/*.jpg"], [], [b"A.JPG"]),
        (["sub/"], [], [b"sub/a.jpg", b"sub/b\xff.png"]),
        ([], ["*", "!note.txt"], [b"note.txt"]),
        (["**/*.png"], [], [b"sub/b\xff.png"]),
        (["*.jpg", "!sub/*"], ["**/c.*"], [b"A.JPG", b"drafts/b.jpg"]),
    ],
)
def test_patterns_are_gitignores_and_ignore_case(
    tmp_path: Path, include: list[str], exclude: list[str], left: list[bytes]
) -> None:
    """`include` and `exclude` mean what they mean in .gitignore, whatever bytes or line ends a name has."""
    for name in (b"A.JPG", b"sub/a.jpg", b"sub/b\xff.png", b"drafts/b.jpg", b"note.txt", b"new\nline/c.jpg"):
        make(os.fsencode(tmp_path), name)
    assert paths(tmp_path, include=include, exclude=exclude) == left


def test_an_excluded_folder_is_not_listed(tmp_path: Path) -> None:
    """What is excluded costs nothing, and says nothing of what is wrong in it."""
    make(os.fsencode(tmp_path), b"big/x")
    os.mkfifo(tmp_path / "big" / "fifo")
    walk = Walk(os.fsencode(tmp_path), exclude=["big/"])
    assert list(walk) == [] and not walk.left_out


def test_what_we_write_ourselves_is_never_an_input(tmp_path: Path) -> None:
    """Output folders and the state folder are left out, under whatever name either of them is reached."""
    for name in (b"a", b"web/a", b"x/web/a", b"state/ledger", b"website/a"):
        make(os.fsencode(tmp_path / "in"), name)
    (tmp_path / "link").symlink_to("in")
    own = [os.fsencode(tmp_path / "in" / name) for name in ("web", "x/web", "state")]
    for root in (tmp_path / "in", tmp_path / "link"):
        assert paths(root, without=own) == [b"a", b"website/a"]


def test_a_folder_that_cannot_be_listed_is_noted(tmp_path: Path) -> None:
    """What lies in it is unknown, not gone: its name and the reason are kept, and the walk goes on."""
    for name in (b"a/x", b"closed/y", b"z"):
        make(os.fsencode(tmp_path), name)
    (tmp_path / "closed").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):  # pytest keeps its folders to itself
        if folder == tmp_path or folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    # Root may list anything. All is imported before it becomes nobody, who may not even find Python.
    code = (
        "import os; from pipeline.files.walk import Walk; os.geteuid() or os.setuid(65534);"
        f"walk = Walk({os.fsencode(tmp_path)!r}); print([source.path for source in walk], walk.unlisted)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    (tmp_path / "closed").chmod(0o755)
    assert ran.stdout.strip() == "[b'a/x', b'z'] [(b'closed/', 'Permission denied')]", ran.stderr


def test_a_root_that_is_gone_is_noted(tmp_path: Path) -> None:
    """An unmounted disk is no empty folder."""
    walk = Walk(os.fsencode(tmp_path / "nowhere"))
    assert list(walk) == [] and walk.unlisted == [(b"", "No such file or directory")]


def test_names_left_out_are_bounded(tmp_path: Path) -> None:
    """All that is left out is counted; only some of it is kept in memory by name."""
    for number in range(50):
        (tmp_path / f"{number:02}").symlink_to("nowhere")
    walk = Walk(os.fsencode(tmp_path))
    assert list(walk) == [] and walk.left_out == {"a dangling link": 50} and len(walk.left_out_names) == 20


@given(NAMES)
def test_any_name_can_be_matched(name: bytes) -> None:
    """No name is too odd for a pattern."""
    assert matcher(["*"])(name) and matcher(["*.TXT"])(name + b".txt")


@pytest.mark.parametrize("include", [(), ("*",)])
def test_walks_over_parts_of_the_root_are_one_walk(tmp_path: Path, include: tuple[str, ...]) -> None:
    """Wherever it is divided, also within a folder, at one, at a link, and where nothing lies."""
    for name in ("!", "a.b/c", "a/b.c/d", "a/b/c", "a/b0", "a0", "b/a", "b/z", "c", "zz/y/x/w", "é/ü"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "b/link").symlink_to("a")
    root = os.fsencode(tmp_path)
    whole = list(Walk(root, include))
    paths = [each.path for each in whole]
    assert b"b/link" in paths and len(paths) > 8
    for at in [*paths, *(path + b"0" for path in paths), *(path[:-1] for path in paths), b"a/", b"b", b"zz/y/"]:
        if at:
            walk = Walk(root, include)
            before, after = list(walk.within(b"", at)), list(walk.within(at, None))
            assert [*before, *after] == whole
            assert all(each.path < at for each in before) and all(each.path >= at for each in after)
