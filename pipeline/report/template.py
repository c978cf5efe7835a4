"""Loads a template of jinja2, compiled once and kept as Python keeps modules; imported only where a page is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2.compiler
from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined, Template
from jinja2.bccache import Bucket

from pipeline.files.sync import replace_file


class _KeptBeside(BytecodeCache):
    """Keeps a compiled template in `__pycache__` beside it: to compile one takes six times as long as to fill it in.

    It is trusted as the compiled modules of Python are. Where the folder may not be written, each run compiles its own.
    """

    def __init__(self, folder: Path, name: str) -> None:
        # What one release of jinja2 compiled need not run with another: the time of its compiler tells them apart.
        release = os.stat(jinja2.compiler.__file__).st_mtime_ns
        self._file = folder / "__pycache__" / f"{name}.{sys.implementation.cache_tag}-{release:x}"

    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            bucket.bytecode_from_string(self._file.read_bytes())
        except Exception:  # none is there, or what a power cut left of it: then it is compiled again
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        if not sys.dont_write_bytecode:
            with suppress(OSError):
                self._file.parent.mkdir(exist_ok=True)
                replace_file(self._file, bucket.bytecode_to_string(), self._file.with_suffix(f".{os.getpid()}"))


def load(folder: Path, name: str, words: Mapping[str, Callable[..., Any]]) -> Template:
    """Return a template in which all that is filled in is escaped, and `words` are filters and functions."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FileSystemLoader(folder), bytecode_cache=_KeptBeside(folder, name),
    )  # fmt: skip
    environment.filters |= words
    environment.globals |= words
    return environment.get_template(name)
