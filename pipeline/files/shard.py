"""Divides the sources of a pipeline into shards, which machines that know nothing of each other can run.

shard   one of N equal ranges of the 64-bit digest of a source; `3/64` is the third of 64
place   that digest, over the fields which the templates of all outputs have in common

Two sources that want one path have these fields alike, so both are in one shard, which refuses them as a whole run
does. And ranges nest: each shard of 16 lies in one of 8, so that what eight ledgers know serves sixteen shards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import hashlib
from pipeline.files.naming import fold
from pipeline.files.template import Template, values_of
from pipeline.records import dataclass

FOLDER = "shards"
"""The folder of a state in which each shard has a state of its own, as N/K."""
_PLACE_BYTES = 8
# In a path, both say the same of a source: its name.
_PARTS_OF_NAME = frozenset({"stem", "suffix"})
# The parts of an output are no matter of its source.
_NOT_OF_SOURCE = frozenset({"part"})


@dataclass(frozen=True)
class Shard:
    """One of `count` shards; `number` begins with 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, place: int) -> bool:
        """Return whether a place is in this shard's range."""
        return place * self.count >> 8 * _PLACE_BYTES == self.number - 1

    def folder(self, state: Path) -> Path:
        """Return the folder of this shard's own state, within that of the pipeline."""
        return state / FOLDER / str(self.count) / str(self.number)


class Places:
    """Finds the place of each source of a pipeline."""

    def __init__(self, templates: Iterable[Template]) -> None:
        """Find the fields that all templates have in common; without any template, all. Raises UsageError."""
        templates = list(templates)
        fields = frozenset({"dir", *_PARTS_OF_NAME}).intersection(*map(_fields_of, templates))
        if not fields:
            shown = " and ".join(repr(each.text) for each in _without_common(templates))
            raise UsageError(
                f"--shard: the paths {shown} have no field in common, so files that want one path could be in two "
                "shards; use {dir}, {stem} or {name} in all of them"
            )
        self.fields = tuple(sorted(fields))

    def place_of(self, source: bytes) -> int:
        """Return the place of a source, a number of 64 bits, by its path relative to the input root.

        Names that some file systems take for the same, as those which differ in case, have one place.
        """
        values = values_of(source)
        key = os.fsencode(fold(b"\0".join([values[each.encode()] for each in self.fields])))
        return int.from_bytes(hashlib.blake2b(key, digest_size=_PLACE_BYTES).digest(), "big")


def _fields_of(template: Template) -> frozenset[str]:
    fields = template.fields - _NOT_OF_SOURCE
    return fields - {"name"} | _PARTS_OF_NAME if "name" in fields else fields


def _without_common(templates: list[Template]) -> list[Template]:
    """Return the first two templates that have no field in common, or all where only all together have none."""
    for one in templates:
        for other in templates:
            if not _fields_of(one) & _fields_of(other):
                return [one] if one is other else [one, other]
    return templates


def parse_shard(shard: str | None, shards: int | None, environment: Mapping[str, str]) -> Shard | None:
    """Return the shard that the options `--shard` and `--shards` ask for; None without. Raises UsageError.

    Args:
        shard: `K/N`, `K` where `shards` is given, or `auto`: as the batch system that runs this says in `environment`.
        shards: The number of shards, which Kubernetes and AWS Batch do not say.
        environment: The variables of this process.
    """
    if shard is None:
        if shards is not None:
            raise UsageError("--shards is for --shard; say which one: --shard 3, or --shard auto")
        return None
    if shard == "auto":
        return _shard_of_batch_system(shards, environment)
    number, slash, count = shard.partition("/")
    if slash and shards is not None and count != str(shards):
        raise UsageError(f"--shard {shard} and --shards {shards} contradict each other; leave --shards out")
    if not number.isdecimal() or not (count.isdecimal() if slash else shards is not None):
        raise UsageError(f"--shard: K/N such as 3/64, or auto, is needed, not {shard!r}")
    return _checked(int(number), int(count) if slash else shards or 0, f"--shard {shard}")


def _shard_of_batch_system(shards: int | None, environment: Mapping[str, str]) -> Shard:
    """Return the shard of an array's task of Slurm, or of an index of Kubernetes or AWS Batch. Raises UsageError."""
    if (task := environment.get("SLURM_ARRAY_TASK_ID")) is not None:
        number, first = _number("SLURM_ARRAY_TASK_ID", task), _number_of("SLURM_ARRAY_TASK_MIN", environment)
        count = _number_of("SLURM_ARRAY_TASK_COUNT", environment)
        if _number_of("SLURM_ARRAY_TASK_MAX", environment) - first + 1 != count:
            raise UsageError("--shard auto: the array of Slurm leaves numbers out; submit it without steps: 1-64")
        if shards not in (None, count):
            raise UsageError(f"--shards {shards}: the array of Slurm has {count} tasks; leave --shards out")
        return _checked(number - first + 1, count, "--shard auto")
    for name in ("JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX"):
        if (index := environment.get(name)) is not None:
            if shards is None:
                raise UsageError(f"--shard auto: {name} does not say of how many; add --shards N, as the job has it")
            return _checked(_number(name, index) + 1, shards, f"--shard auto ({name}={index})")
    raise UsageError(
        "--shard auto: this is no task of an array: there is no SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or "
        "AWS_BATCH_JOB_ARRAY_INDEX; say which one: --shard 3/64"
    )


def _number_of(name: str, environment: Mapping[str, str]) -> int:
    if name not in environment:
        raise UsageError(f"--shard auto: there is SLURM_ARRAY_TASK_ID and no {name}; say which one: --shard 3/64")
    return _number(name, environment[name])


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--shard auto: {name} is no number: {text!r}")
    return int(text)


def _checked(number: int, count: int, said: str) -> Shard:
    if not 1 <= number <= count:
        raise UsageError(f"{said}: shards are counted from 1 to their number, as in 1/{max(count, 1)}")
    return Shard(number, count)
