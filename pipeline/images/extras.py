"""The formats that are read where an extra of filemill's is installed. Needs no Pillow, since planning asks it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from pipeline.images.jpeg_xl import is_jpeg_xl
from pipeline.records import dataclass

# Bytes of a file's beginning in which an extra knows its format.
HEAD_BYTES = 128
# What the brands of a HEIF file with pictures in HEVC begin with, and those that only say that it is a HEIF file.
_HEVC, _ANY_HEIF, _AV1 = (b"hei", b"hev"), (b"mif1", b"msf1"), (b"avif", b"avis")


@dataclass(frozen=True)
class Extra:
    """A format whose reader is installed with an extra of filemill's, and loaded with the first file that needs it."""

    shown: str
    """The name of the format for a person."""
    name: str
    """The name of the extra."""
    module: str
    """The module that reads the format."""
    begins: Callable[[bytes], bool]
    """Returns whether a file begins as the format does."""
    suffixes: frozenset[bytes]
    """The suffixes of such files, in lower case."""
    register: str = ""
    """The function that registers the reader; empty where importing the module does."""

    @property
    def is_installed(self) -> bool:
        """True if the module can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def missing(self) -> str:
        """What is missing to read the format, and the command that installs it."""
        return f"{self.shown} is read by {self.module}, which is not installed: pip install 'filemill[{self.name}]'"


def is_heic(head: bytes) -> bool:
    """Return whether a file begins as HEIF with pictures in HEVC: by its brands (ISO 14496-12, 4.3; 23008-12, 10)."""
    if head[4:8] != b"ftyp":
        return False
    major, others = head[8:12], head[16 : int.from_bytes(head[:4], "big")]
    brands = [others[at : at + 4] for at in range(0, len(others), 4)]
    return major.startswith(_HEVC) or (major in _ANY_HEIF and not any(brand in _AV1 for brand in brands))


EXTRAS = (
    Extra(
        "HEIC",
        "heif",
        "pillow_heif",
        is_heic,
        frozenset(b".heic .heics .heif .heifs .hif".split()),
        "register_heif_opener",
    ),
    Extra("JPEG XL", "jxl", "pillow_jxl", is_jpeg_xl, frozenset([b".jxl"])),
)


def extra_for(head: bytes) -> Extra | None:
    """Return the extra whose format a file begins as, or None."""
    return next((extra for extra in EXTRAS if extra.begins(head)), None)
