"""Shards: which files are in which, and what a batch system says of its tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.files.shard import Places, Shard, parse_shard
from pipeline.files.template import parse_template


def places(*templates: str) -> Places:
    return Places([parse_template(each, Path("/p")) for each in templates])


def shard_of(found: Places, source: str, count: int) -> int:
    place = found.place_of(source.encode())
    (number,) = [each for each in range(1, count + 1) if Shard(each, count).holds(place)]
    return number


@pytest.mark.parametrize(
    ("templates", "fields"),
    [
        (["out/{dir}/{name}"], ("dir", "stem", "suffix")),
        (["out/{stem}.txt"], ("stem",)),
        (["out/{dir}/{stem}.jpg", "out/{name}"], ("stem",)),
        (["out/{dir}/{stem}.jpg", "out/{dir}/{stem}{suffix}"], ("dir", "stem")),
        (["out/{stem}/{part}.png"], ("stem",)),
        ([], ("dir", "stem", "suffix")),
    ],
)
def test_the_fields_in_common(templates: list[str], fields: tuple[str, ...]) -> None:
    assert places(*templates).fields == fields


def test_sources_that_want_one_path_are_in_one_shard() -> None:
    found = places("out/{stem}.txt")
    for stem in map(str, range(200)):
        alike = {found.place_of(each.encode()) for each in (f"{stem}a.txt", f"{stem}a.md", f"d/e/{stem}A.TXT")}
        assert len(alike) == 1
    composed, apart = "\u00e9.txt", "e\u0301.md"
    assert found.place_of(composed.encode()) == found.place_of(apart.encode())


def test_shards_are_even_and_nest() -> None:
    """Every file is in just one shard; shard K of 16 lies in one of 8."""
    found, sizes = places("out/{dir}/{name}"), Counter[int]()
    for number in range(8000):
        source = f"d{number % 7}/f{number:05}.jpg"
        sizes[of_8 := shard_of(found, source, 8)] += 1
        assert (shard_of(found, source, 16) + 1) // 2 == of_8
        assert shard_of(found, source, 1) == 1
    assert min(sizes.values()) > 850 and max(sizes.values()) < 1150


def test_odd_names_have_a_place() -> None:
    found = places("out/{dir}/{name}")
    assert len({found.place_of(each) for each in (b"\xff\xfe", b"\xff", b"a\n", b"%(x)s", b"a/\x01")}) == 5


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'out/\{dir\}/x' and 'out/\{stem\}.txt' have no field in common"):
        places("out/{dir}/x", "out/{stem}.txt", "out/{dir}/{stem}")
    with pytest.raises(UsageError, match=r"'out/\{part\}.png'"):
        places("out/{part}.png")


SLURM = {f"SLURM_ARRAY_TASK_{name}": number for name, number in
         (("ID", "7"), ("MIN", "5"), ("MAX", "8"), ("COUNT", "4"))}  # fmt: skip


@pytest.mark.parametrize(
    ("shard", "shards", "environment", "expected"),
    [
        (None, None, {}, None),
        ("3/64", None, {}, Shard(3, 64)),
        ("3/64", 64, {}, Shard(3, 64)),
        ("3", 64, {}, Shard(3, 64)),
        ("auto", None, SLURM, Shard(3, 4)),
        ("auto", 4, SLURM, Shard(3, 4)),
        ("auto", 8, {"JOB_COMPLETION_INDEX": "0"}, Shard(1, 8)),
        ("auto", 8, {"AWS_BATCH_JOB_ARRAY_INDEX": "7"}, Shard(8, 8)),
    ],
)
def test_a_shard_is_parsed(
    shard: str | None, shards: int | None, environment: dict[str, str], expected: Shard | None
) -> None:
    assert parse_shard(shard, shards, environment) == expected


@pytest.mark.parametrize(
    ("shard", "shards", "environment", "said"),
    [
        ("0/8", None, {}, "counted from 1"),
        ("9/8", None, {}, "counted from 1"),
        ("3/0", None, {}, "counted from 1"),
        ("-1/8", None, {}, "K/N such as 3/64"),
        ("3", None, {}, "K/N such as 3/64"),
        ("3/", None, {}, "K/N such as 3/64"),
        ("a/b", None, {}, "K/N such as 3/64"),
        ("3/64", 8, {}, "contradict"),
        (None, 8, {}, "--shards is for --shard"),
        ("auto", None, {}, "no task of an array"),
        ("auto", None, {"JOB_COMPLETION_INDEX": "0"}, "add --shards N"),
        ("auto", 8, {"JOB_COMPLETION_INDEX": "8"}, "counted from 1"),
        ("auto", 8, {"JOB_COMPLETION_INDEX": "x"}, "no number"),
        ("auto", None, {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN"),
        ("auto", None, {**SLURM, "SLURM_ARRAY_TASK_MAX": "11"}, "without steps"),
        ("auto", 9, SLURM, "has 4 tasks"),
    ],
)
def test_a_wrong_shard_is_refused(
    shard: str | None, shards: int | None, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        parse_shard(shard, shards, environment)
