"""What `new STAGE` writes: a stage that works, to be changed, and a test of it that passes."""

from __future__ import annotations

import builtins
import keyword
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.stage.resolve import BUNDLED

TAKES = ("image", "text", "bytes", "path")
"""What a new stage may take, as `--takes` has it."""

_STAGES = {
    "image": '''\
"""{name}: a stage over pictures."""

from PIL import Image, ImageFilter

from pipeline import Skip


def {name}(image: Image.Image, *, strength: float = 1.0) -> Image.Image:
    """Smooths a picture; your own work goes here. `strength` is how much of it there is in the result, 0 to 1."""
    if min(image.size) < 3:
        raise Skip(f"too small: {{image.width}}x{{image.height}}")
    changed = image.filter(ImageFilter.SMOOTH)
    return Image.blend(image, changed, strength)
''',
    "text": '''\
"""{name}: a stage over texts."""

from pipeline import Skip


def {name}(text: str, *, tab: int = 4) -> str:
    """Replaces tabs by spaces; your own work goes here. `tab` is how many of them."""
    if not text.strip():
        raise Skip("nothing in it")
    return text.expandtabs(tab)
''',
    "bytes": '''\
"""{name}: a stage over files of any kind, read as bytes."""

import zlib

from pipeline import Skip


def {name}(data: bytes, *, level: int = 6) -> bytes:
    """Compresses a file; your own work goes here. `level` is from 0, fastest, to 9, smallest."""
    if not data:
        raise Skip("empty")
    return zlib.compress(data, level)
''',
    "path": '''\
"""{name}: a stage that reads a file by its path, and writes another into its scratch folder."""

from itertools import islice
from pathlib import Path

from pipeline import Item, Skip


def {name}(item: Item[Path], *, lines: int = 10) -> Path:
    """Keeps the beginning of a file; your own work goes here. `lines` is how many lines of it."""
    made = item.scratch / "made"
    with open(item.value, "rb") as read, open(made, "wb") as write:
        write.writelines(islice(read, lines))
    if made.stat().st_size == 0:
        raise Skip("empty")
    return made
''',
}
_TESTS = {
    "image": '''\
"""stages/{name}.py: a stage is tested by calling it."""

import pytest
from PIL import Image

from pipeline import Skip
from stages.{name} import {name}


def test_the_size_stays():
    """A picture comes out as large as it went in."""
    assert {name}(Image.new("RGB", (40, 30), "tan")).size == (40, 30)


def test_strength_0_changes_nothing():
    """With no strength the picture is what it was."""
    image = Image.radial_gradient("L")
    assert {name}(image, strength=0).tobytes() == image.tobytes() != {name}(image).tobytes()


def test_a_tiny_picture_is_left_out():
    """What is too small is skipped, with the reason."""
    with pytest.raises(Skip, match="too small: 2x2"):
        {name}(Image.new("RGB", (2, 2)))
''',
    "text": '''\
"""stages/{name}.py: a stage is tested by calling it."""

import pytest

from pipeline import Skip
from stages.{name} import {name}


def test_tabs_become_spaces():
    """A tab is filled up to the next column that `tab` says."""
    assert {name}("a\\tb\\n", tab=4) == "a   b\\n"


def test_an_empty_text_is_left_out():
    """What has nothing in it is skipped, with the reason."""
    with pytest.raises(Skip, match="nothing in it"):
        {name}(" \\n")
''',
    "bytes": '''\
"""stages/{name}.py: a stage is tested by calling it."""

import zlib

import pytest

from pipeline import Skip
from stages.{name} import {name}


def test_nothing_is_lost():
    """What is compressed can be had back."""
    assert zlib.decompress({name}(b"data" * 9)) == b"data" * 9


def test_an_empty_file_is_left_out():
    """What has nothing in it is skipped, with the reason."""
    with pytest.raises(Skip, match="empty"):
        {name}(b"")
''',
    "path": '''\
"""stages/{name}.py: a stage is tested by calling it."""

import pytest

from pipeline import Item, Skip
from stages.{name} import {name}


def test_the_beginning_is_kept(tmp_path):
    """So many lines are kept, and the file that was read is left as it is."""
    read = tmp_path / "read.txt"
    read.write_text("1\\n2\\n3\\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert {name}(Item(read, "read.txt", scratch), lines=2).read_text() == "1\\n2\\n"
    assert read.read_text() == "1\\n2\\n3\\n"


def test_an_empty_file_is_left_out(tmp_path):
    """What has nothing in it is skipped, with the reason."""
    read = tmp_path / "read.txt"
    read.touch()
    with pytest.raises(Skip, match="empty"):
        {name}(Item(read, "read.txt", tmp_path))
''',
}
_CONFTEST = '''\
"""Lets the tests import `stages` as a pipeline does: what is in stages/ here, and what is bundled."""

from pathlib import Path

from pipeline.stage.resolve import set_stage_path

set_stage_path(Path(__file__).resolve().parents[2])
'''


def write_stage(name: str, folder: Path, takes: str) -> list[Path]:
    """Write a stage and its test beside a pipeline; gives their paths. Raises UsageError for what cannot be one."""
    _refuse_name(name, folder)
    stage, test = folder / "stages" / f"{name}.py", folder / "tests" / "stages" / f"test_{name}.py"
    for each in (stage, stage.with_suffix(""), test):
        if each.exists():
            raise UsageError(f"{each} exists; nothing is overwritten")
    written = [(stage, _STAGES[takes].format(name=name)), (test, _TESTS[takes].format(name=name))]
    conftest = test.with_name("conftest.py")
    if not conftest.exists():
        written.append((conftest, _CONFTEST))
    for file, text in written:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as opened:
            opened.write(text)
    return [file for file, _ in written]


def _refuse_name(name: str, folder: Path) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        text = "a stage is named like a Python function, with letters, digits and '_'"
        raise UsageError(f"{name!r} is no name for a stage: {text}")
    imported = any(f"import {name}\n" in each for each in (*_STAGES.values(), *_TESTS.values()))
    if hasattr(builtins, name) or imported:
        raise UsageError(f"{name!r} is a name that the stage itself would need; name it otherwise")
    is_bundled = any((BUNDLED / each).exists() for each in (f"{name}.py", f"{name}/__init__.py"))
    if is_bundled and (folder / "stages").resolve() != BUNDLED:
        raise UsageError(f"{name!r} is the name of a bundled stage; name it otherwise")
