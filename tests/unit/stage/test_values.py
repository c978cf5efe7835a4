"""What travels between stages: every conversion there is, and what cannot be one."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.project import Project

from pipeline.config.load import load_config
from pipeline.errors import ConfigError, FileFailure, Unreadable
from pipeline.stage.values import (
    BYTES,
    IMAGE,
    PATH,
    PICTURE,
    TEXT,
    Kind,
    can_convert,
    convert,
    is_kind,
    kind_of,
    register,
    write,
)
from pipeline.types import Picture

KINDS = [PATH, BYTES, TEXT, IMAGE, PICTURE]
IMPOSSIBLE = {
    (BYTES, IMAGE): False,
    (TEXT, IMAGE): True,
    (TEXT, PICTURE): True,
    (IMAGE, BYTES): True,
    (IMAGE, TEXT): True,
}


@pytest.fixture
def scratch(tmp_path: Path) -> Callable[[str], Path]:
    numbers = itertools.count()
    return lambda suffix: tmp_path / f"scratch-{next(numbers)}{suffix}"


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def content(value: Any) -> Any:
    """A value of any kind as something to compare."""
    if isinstance(value, Path):
        return value.read_bytes()
    if isinstance(value, Picture):
        return content(value.load())
    return (value.mode, value.size, value.tobytes()) if isinstance(value, Image.Image) else value


PICTURE_PIXELS = Image.effect_noise((12, 9), 80).convert("RGB")
TEXT_BYTES = "Zürich\r\nnew line\rold Mac\n\ufefflast".encode()


@pytest.mark.parametrize(
    ("have", "want", "given", "expected"),
    [
        (PATH, BYTES, TEXT_BYTES, TEXT_BYTES),
        (PATH, TEXT, TEXT_BYTES, TEXT_BYTES.decode()),
        (PATH, IMAGE, png(PICTURE_PIXELS), content(PICTURE_PIXELS)),
        (PATH, PICTURE, png(PICTURE_PIXELS), content(PICTURE_PIXELS)),
        (BYTES, PATH, TEXT_BYTES, TEXT_BYTES),
        (BYTES, TEXT, TEXT_BYTES, TEXT_BYTES.decode()),
        (BYTES, IMAGE, png(PICTURE_PIXELS), content(PICTURE_PIXELS)),
        (BYTES, PICTURE, png(PICTURE_PIXELS), content(PICTURE_PIXELS)),
        (TEXT, PATH, TEXT_BYTES.decode(), TEXT_BYTES),
        (TEXT, BYTES, TEXT_BYTES.decode(), TEXT_BYTES),
        (IMAGE, PICTURE, PICTURE_PIXELS, content(PICTURE_PIXELS)),
        *((kind, kind, value, value) for kind, value in ((BYTES, b"x"), (TEXT, "x\r\n"))),
    ],
    ids=lambda each: each.name if isinstance(each, Kind) else "",
)
def test_every_conversion_keeps_the_content(
    have: Kind, want: Kind, given: Any, expected: Any, tmp_path: Path, scratch: Any
) -> None:
    """Bytes stay the bytes they were, line ends and BOM and all; a picture keeps its pixels."""
    if have is PATH:
        (tmp_path / "source").write_bytes(given)
        given = tmp_path / "source"
    made = convert(given, have, want, scratch)

    assert is_kind(made, want)
    assert content(made) == expected


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_an_image_goes_through_a_scratch_file_without_loss(mode: str, scratch: Any) -> None:
    """An external program gets a PNG that holds every bit, the colour behind transparent pixels too."""
    noise = Image.frombytes(mode, (16, 16), bytes(range(256)) * len(mode))
    path = convert(noise, IMAGE, PATH, scratch)

    assert path.suffix == ".png"
    assert content(convert(path, PATH, IMAGE, scratch)) == content(noise)


def test_a_path_stays_the_path_it_is(tmp_path: Path, scratch: Any) -> None:
    """No copy is made, and no file need be there."""
    assert convert(tmp_path / "any", PATH, PATH, scratch) == tmp_path / "any"


def test_what_can_and_what_cannot_be_converted() -> None:
    """A text is no picture, and a picture no bytes; everything goes from a file and into one."""
    for have, want in itertools.product([PATH, BYTES, TEXT, IMAGE], KINDS):
        assert can_convert(have, want) is not IMPOSSIBLE.get((have, want), False)


@pytest.mark.parametrize(
    ("data", "says"), [(b"ab\xffc", "byte 0xff at offset 2"), (b"\xe4\xb8", "byte 0xe4 at offset 0")]
)
@pytest.mark.parametrize("have", [PATH, BYTES])
def test_what_is_not_utf8_is_unreadable_with_its_place(
    have: Kind, data: bytes, says: str, tmp_path: Path, scratch: Any
) -> None:
    """No replacement characters, no guessed encoding: the first bad byte is named."""
    (tmp_path / "source").write_bytes(data)

    with pytest.raises(Unreadable, match=f"not UTF-8: {says}"):
        convert(tmp_path / "source" if have is PATH else data, have, TEXT, scratch)


def test_text_that_utf8_cannot_hold_fails_with_its_place(scratch: Any) -> None:
    """A lone surrogate in what a stage made is the stage's fault, and named."""
    for want in (BYTES, PATH):
        with pytest.raises(FileFailure, match="at character 1"):
            convert("a\udcff", TEXT, want, scratch)


@pytest.mark.parametrize("want", [IMAGE, PICTURE])
@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_what_is_no_picture_is_unreadable(want: Kind, data: bytes, tmp_path: Path, scratch: Any) -> None:
    """From a file as from bytes."""
    (tmp_path / "source").write_bytes(data)
    for value, have in ((data, BYTES), (tmp_path / "source", PATH)):
        with pytest.raises(Unreadable, match="empty file" if not data else "not a picture"):
            convert(value, have, want, scratch)


def test_a_kind_is_known_by_its_annotation() -> None:
    """The five kinds and nothing else, subclasses of theirs included only as values."""
    assert [kind_of(each) for each in (Path, bytes, str, Image.Image, Picture)] == [PATH, BYTES, TEXT, IMAGE, PICTURE]
    assert [kind_of(each) for each in (int, bool, bytearray, list[bytes], "bytes", None, Image)] == [None] * 7


def test_a_value_is_of_a_kind_by_its_class() -> None:
    """Subclasses count: a JPEG just opened is an Image, any Path is a Path; a bytearray is no bytes."""
    opened = Image.open(io.BytesIO(png(PICTURE_PIXELS)))
    assert is_kind(opened, IMAGE) and is_kind(Path("x"), PATH) and is_kind(type("S", (str,), {})("x"), TEXT)
    assert not is_kind(bytearray(b"x"), BYTES) and not is_kind("x", PATH) and not is_kind(None, TEXT)


def test_copies_are_independent() -> None:
    """A copy of an image can be painted over; what cannot be changed is not copied."""
    image = PICTURE_PIXELS.copy()
    IMAGE.copy(image).paste("red", (0, 0, 12, 9))

    assert content(image) == content(PICTURE_PIXELS)
    assert BYTES.copy(data := b"x") is data


def test_outputs_are_written_as_their_suffix_says(tmp_path: Path) -> None:
    """A picture in the format of the suffix, in either case; a text with its line ends; a file byte by byte."""
    (tmp_path / "file").write_bytes(TEXT_BYTES)
    cases: list[tuple[Any, Kind, str]] = [
        (PICTURE_PIXELS, IMAGE, ".JPG"), (PICTURE_PIXELS, IMAGE, ".tif"), ("a\r\nb\n", TEXT, ".txt"),
        (b"\0\1", BYTES, ".jpg"), (tmp_path / "file", PATH, ".webp"),
    ]  # fmt: skip
    written = []
    for value, kind, suffix in cases:
        file = io.BytesIO()
        write(value, kind, file, suffix, {}, tmp_path)
        written.append(file.getvalue())

    assert [Image.open(io.BytesIO(each)).format for each in written[:2]] == ["JPEG", "TIFF"]
    assert written[2:] == [b"a\r\nb\n", b"\0\1", TEXT_BYTES]


@pytest.mark.parametrize("suffix", ["", ".doc", ".pdf", ".eps"])
def test_a_picture_has_no_format_without_a_known_suffix(suffix: str, tmp_path: Path) -> None:
    """The suffix is in the user's own words, and what cannot be written is said so."""
    with pytest.raises(FileFailure, match=f"no picture can be written with the suffix '{suffix}'"):
        write(PICTURE_PIXELS, IMAGE, io.BytesIO(), suffix, {}, tmp_path)


def test_texts_never_load_pillow() -> None:
    """A pipeline over texts does not pay for pictures."""
    import subprocess

    code = (
        "import sys; from pipeline.stage import values as v; from pathlib import Path\n"
        "assert v.kind_of(str) is v.TEXT and v.is_kind('x', v.TEXT)\n"
        "v.convert(b'x', v.BYTES, v.TEXT, None)\n"
        "assert 'PIL' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- types of one's own ------------------------------------------------------------------------------------------------

ARRAYS = """
import numpy as np
import numpy.typing as npt
from collections.abc import Iterator
from PIL import Image
from pipeline.stage import values

values.register(np.ndarray, np.load, lambda array, file: np.save(file, array), [".npy"])

def to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))

def halve(array: npt.NDArray[np.uint8]) -> np.ndarray:
    array //= 2  # in place: a sibling must not see it
    return array

def brighten(array: np.ndarray, *, by: int = 10) -> np.ndarray:
    return np.minimum(array.astype(int) + by, 255).astype(np.uint8)

def to_image(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array)
"""


def test_arrays_travel_after_one_registration(tmp_path: Path) -> None:
    """A type of the user's own module goes from stage to stage and into files; siblings do not see what is done to it
    in place.
    """
    import numpy as np

    yaml = """
inputs: in
stages:
  - {name: array, uses: 'stages.arrays:to_array', output: 'out/array/{stem}.npy'}
  - {name: halved, from: array, uses: 'stages.arrays:halve', output: 'out/halved/{stem}.npy'}
  - {name: bright, from: array, uses: 'stages.arrays:brighten'}
  - {name: shown, from: bright, uses: 'stages.arrays:to_image', output: 'out/shown/{stem}.png'}
engine: serial
"""
    project = Project(tmp_path, yaml)
    project.write("stages/arrays.py", ARRAYS)
    Image.new("L", (4, 3), 100).save(tmp_path / "in/a.png")
    assert project.run().done == 3
    assert (np.load(tmp_path / "out/array/a.npy") == np.full((3, 4), 100)).all()
    assert (np.load(tmp_path / "out/halved/a.npy") == np.full((3, 4), 50)).all()
    assert (np.asarray(Image.open(tmp_path / "out/shown/a.png").convert("L")) == np.full((3, 4), 110)).all()
    project.edit("pipeline.yaml", "{stem}.npy'}\n  - {name: bright", "{stem}.txt'}\n  - {name: bright")
    with pytest.raises(ConfigError, match=r"no numpy\.ndarray can be written as '\.txt'; end with \.npy"):
        load_config(tmp_path / "pipeline.yaml")


def test_what_is_known_is_not_registered() -> None:
    """What the program itself knows, and a suffix that is none, are refused."""
    for known in (str, bytes, Path, Image.Image):
        with pytest.raises(ValueError, match="is known already"):
            register(known, Path.read_bytes, lambda value, file: None, [".x"])
    with pytest.raises(ValueError, match=r"needs suffixes such as '.npy', not \['npy'\]"):
        register(dict, Path.read_bytes, lambda value, file: None, ["npy"])
