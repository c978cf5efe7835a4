"""The kinds of value that travel between stages, their reading and writing, and their suffixes.

A Path travels as it is and is never opened for writing. Pillow is imported only when a picture is at hand, so that a
pipeline over texts never pays for it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import GenericAlias
from typing import Any, BinaryIO, get_origin

from pipeline.errors import FileFailure, Unreadable
from pipeline.records import dataclass
from pipeline.types import Picture

# Raise this when `pipeline.images` or this module makes other bytes of the same input and options: it is part of every
# recipe, and so every output is made again.
RECIPE = 2

Convert = Callable[[Any], Any]
Scratch = Callable[[str], Path]
"""Function that returns a new path in the job's scratch folder, ending in the suffix."""


@dataclass(frozen=True, eq=False)  # each is itself alone, and so is looked up quickly
class Kind:
    """One kind of value: the annotation that names it, and the functions that read and write it."""

    name: str
    read: Convert
    write: Callable[[Any, BinaryIO], None]
    scratch_suffix: str
    """The suffix, and so the lossless format, of a file that holds such a value between two stages."""
    copy: Convert = lambda value: value
    """Function that copies a value for a consumer; values that cannot be changed are shared."""
    suffixes: tuple[str, ...] = ()
    """The suffixes that an output of this kind may have; empty for any."""
    encode: Callable[[Any], bytes] | None = None
    """Function that returns the bytes of an output; None for a kind that is written to a file directly."""
    decode: Callable[[bytes], Any] | None = None
    """Function that returns the value of a file with these contents; None for a kind that is read from the file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _same_kind, (self.name, self.scratch_suffix, self.suffixes)


def _read_bytes(path: bytes | str | Path) -> bytes:
    """Return the contents of a file, without a file object, which would cost more than reading a small file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may have become a FIFO since it was met
    try:
        size_bytes = os.fstat(fd).st_size
        data = os.read(fd, size_bytes + 1)
        if len(data) == size_bytes and size_bytes:
            return data
        with open(
            fd, "rb", closefd=False
        ) as file:  # a file of /proc says 0, and a read may give less than it was asked
            return data + file.read()
    finally:
        os.close(fd)


def _read_text(path: bytes | str | Path) -> str:
    return _decode(_read_bytes(path))


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}") from None


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FileFailure(f"text that UTF-8 cannot hold: {text[error.start]!r} at character {error.start}") from None


def _open_picture(file: Path | bytes) -> Any:
    from pipeline.images.decode import open_picture

    return open_picture(file)


def _load_image(file: Path | bytes) -> Any:
    picture = _open_picture(file)
    try:
        return picture.load()
    finally:
        picture.close()


def _picture_of_image(image: Any) -> Any:
    from pipeline.images.decode import OpenedPicture, as_plain

    return OpenedPicture(as_plain(image, own_colors=True), upright=True)


def first_frame(image: Any) -> Any:
    """Return the first frame of an animation, with a note, and any other image as it is."""
    from pipeline.images.animation import Animation, still

    return still(image).copy() if isinstance(image, Animation) else image


def _image_in_srgb(image: Any) -> Any:
    from pipeline.images.decode import as_plain

    return as_plain(image)


def _image_in_own_colors(image: Any) -> Any:
    from pipeline.images.decode import as_plain

    return as_plain(image, own_colors=True)


def _write_png(image: Any, file: BinaryIO) -> None:
    from pipeline.images.encode import save_png

    save_png(_image_in_own_colors(image), file, compress_level=1, color="keep")


def _write_bytes(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def _write_text(text: str, file: BinaryIO) -> None:
    file.write(_encode(text))


def _write_path(path: Path, file: BinaryIO) -> None:
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)


def _write_never(value: Any, file: BinaryIO) -> None:
    raise AssertionError("a Picture is never what a stage makes")


PATH = Kind("Path", lambda path: path, _write_path, "")
BYTES = Kind("bytes", _read_bytes, _write_bytes, ".bin", encode=bytes, decode=bytes)
TEXT = Kind("str", _read_text, _write_text, ".txt", encode=_encode, decode=_decode)
IMAGE = Kind("Image.Image", _load_image, _write_png, ".png", copy=lambda image: image.copy())
# What a stage makes whose output is in the picture's own colors: it has their profile in its info.
IMAGE_IN_OWN_COLORS = replace(IMAGE, name="Image.Image in its own colors")
PICTURE = Kind("Picture", _open_picture, _write_never, "")

PICTURES = (PICTURE, IMAGE, IMAGE_IN_OWN_COLORS)

_KINDS: dict[type, Kind] = {Path: PATH, bytes: BYTES, str: TEXT, Picture: PICTURE}
_BUILT_IN = (PATH, BYTES, TEXT, IMAGE, PICTURE)

_IN_MEMORY: dict[tuple[str, str], Convert] = {
    (IMAGE.name, IMAGE.name): _image_in_srgb,
    (IMAGE.name, IMAGE_IN_OWN_COLORS.name): _image_in_own_colors,
    (IMAGE.name, PICTURE.name): _picture_of_image,
    (IMAGE_IN_OWN_COLORS.name, IMAGE.name): _image_in_srgb,
    (IMAGE_IN_OWN_COLORS.name, PICTURE.name): _picture_of_image,
    (BYTES.name, IMAGE.name): _load_image,
    (BYTES.name, PICTURE.name): _open_picture,
    (BYTES.name, TEXT.name): _decode,
    (TEXT.name, BYTES.name): _encode,
}


def register(
    type_: type,
    read: Callable[[Path], Any],
    write: Callable[[Any, BinaryIO], None],
    suffixes: Sequence[str],
    copy: Convert = deepcopy,
) -> None:
    """Let values of a type travel between stages, which name it in their annotations.

    Call it in the module of the stages that use the type, so that it is called in every worker, too.

    Args:
        type_: the class; a stage takes or makes it by its annotation, and a subclass goes where it is wanted.
        read: returns a value from the file at a path.
        write: writes a value to a file that is open for writing in binary mode.
        suffixes: the suffixes that an output of the type may have, each with its dot, such as `.npy`; files between
            two stages have the first.
        copy: returns a copy of a value, for all its consumers but the last; default: `copy.deepcopy`.

    Raises:
        ValueError: if the type is one of the built-in kinds, or a suffix is none.

    Example:
        >>> values.register(np.ndarray, np.load, lambda array, file: np.save(file, array), [".npy"])
    """
    name = f"{type_.__module__}.{type_.__qualname__}"
    if kind_of(type_) in _BUILT_IN:
        raise ValueError(f"{name} is known already, and is not to be read or written otherwise")
    wrong = [each for each in suffixes if not re.fullmatch(r"\.[^./\0]+", each)]
    if wrong or not suffixes:
        raise ValueError(f"{name} needs suffixes such as '.npy', not {wrong or list(suffixes)}")
    _KINDS[type_] = Kind(name, read, write, suffixes[0], copy, tuple(suffixes))


def kind_of(annotation: Any) -> Kind | None:
    """Return the kind that an annotation names; None if it names none."""
    if not isinstance(annotation, type) or isinstance(annotation, GenericAlias):
        annotation = get_origin(annotation)  # of NDArray[float32], for instance
    if not isinstance(annotation, type):
        return None
    # By name, so that nobody imports Pillow to find out that a stage wants none of it.
    if (annotation.__module__, annotation.__qualname__) == ("PIL.Image", "Image"):
        return IMAGE
    return _KINDS.get(annotation)


def kind_named(name: str) -> Kind:
    """Return the kind of a name that is known to exist."""
    return next(kind for kind in (*_BUILT_IN, IMAGE_IN_OWN_COLORS, *_KINDS.values()) if kind.name == name)


_FOREIGN: dict[tuple[str, str, tuple[str, ...]], Kind] = {}
"""The kinds of stages that this process does not import, which are known by name and neither read nor written here.
"""


def _same_kind(name: str, scratch_suffix: str, suffixes: tuple[str, ...]) -> Kind:
    """Return the kind of a name that another process has sent."""
    kind: Kind
    for kind in (*_BUILT_IN, IMAGE_IN_OWN_COLORS, *_KINDS.values()):
        if (kind.name, kind.suffixes) == (name, suffixes):
            return kind
    foreign = Kind(name, _not_here, _not_here, scratch_suffix, suffixes=suffixes)
    return _FOREIGN.setdefault((name, scratch_suffix, suffixes), foreign)


def _not_here(*given: Any) -> Any:
    raise AssertionError("a kind that a stage registers is read and written by workers only")


def can_convert(have: Kind, want: Kind) -> bool:
    """Return whether a value of one kind can be handed to a stage that wants the other."""
    same = have is want
    return same or have is PATH or want is PATH or (have.name, want.name) in _IN_MEMORY


def convert(value: Any, have: Kind, want: Kind, scratch: Scratch) -> Any:
    """Convert a value to the kind `want`; the conversion must be one that `can_convert` allows."""
    if direct := _IN_MEMORY.get((have.name, want.name)):
        return direct(value)
    if have is want:
        return value
    if have is PATH:
        return want.read(value)
    path = scratch(have.scratch_suffix)
    with open(path, "xb") as file:
        have.write(value, file)
    return path


def is_unchanged(have: Kind, want: Kind) -> bool:
    """Return whether `convert` returns every value as it is."""
    return have is want and (have.name, want.name) not in _IN_MEMORY


def is_kind(value: Any, kind: Kind) -> bool:
    """Return whether a value is of a kind."""
    return _KINDS.get(type(value)) is kind or any(kind_of(each) is kind for each in type(value).__mro__)


def saver_for(suffix: str) -> Callable[..., None] | None:
    """Return the function that saves a picture under a suffix, whose keyword arguments are the `save:` options."""
    from pipeline.images.encode import SAVERS

    return SAVERS.get(suffix.lower())


def write(value: Any, kind: Kind, file: BinaryIO, suffix: str, save: dict[str, Any], source: Path) -> None:
    """Write a stage's value to an output file; a picture in the format that the output's suffix names.

    The density, and the metadata that the save options ask for, are read from the source.
    """
    if kind not in (IMAGE, IMAGE_IN_OWN_COLORS):
        kind.write(value, file)
        return
    saver = saver_for(suffix)
    if saver is None:
        raise FileFailure(f"no picture can be written with the suffix {suffix!r}")
    from pipeline.images.metadata import read_metadata

    saver(value, file, read_metadata(source, save.get("metadata", "strip")), **save)
