"""Which outputs of a first run may have rivals, compared with the outputs of all sources."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.files.template import Template, may_meet, parse_template
from pipeline.messages import Job, Source, Target
from pipeline.planning.first_run import FirstJobs

# In the order of bytes these lie before, between and after the dot and the slash, which decide what follows a stem.
_LETTERS = "ab.-/0"
RIVALS = {
    "none": [
        "o/{dir}/{name}",
        "o/{dir}/{stem}{suffix}",
        "o/{dir}/x-{name}.txt",
        "o/{dir}/t/{name}",
        "o/{dir}/{name}/all",
    ],
    "same stem": [
        *(
            "o/{dir}/{stem}",
            "o/{dir}/{stem}.webp",
            "o/{dir}/{stem}-b.webp",
            "p/{dir}/{stem}.webp",
            "o/p/{dir}/{stem}.png",
        ),
        *("o/{dir}/{stem}/{suffix}x", "o/{dir}/{stem}.{suffix}", "{dir}/{stem}"),
    ],
    "any": [
        *("o/{stem}", "o/{name}", "o/{dir}-{name}", "o/x{dir}/{name}", "o/{stem}/{dir}/{name}", "o/{dir}/{stem}{stem}"),
        *("o/{dir}/{suffix}{stem}", "o/{stem}{dir}"),
    ],
}
TEMPLATES = [text for texts in RIVALS.values() for text in texts]


def paths(seed: int, count: int = 60) -> list[bytes]:
    """Return paths of files as a walk yields them: none is a folder, and no name is empty or begins with a dot."""
    drawn = random.Random(seed)
    found: set[str] = set()
    while len(found) < count:
        path = "".join(drawn.choice(_LETTERS) for _ in range(drawn.randint(1, 7)))
        folders = {"/".join(path.split("/")[:at]) for at in range(1, path.count("/") + 1)}
        is_name = all(name and not name.startswith(".") for name in path.split("/"))
        if is_name and not folders & found and not any(each.startswith(path + "/") for each in found):
            found.add(path)
    return sorted(path.encode() for path in found)


def template_of(text: str) -> Template:
    return parse_template(text, Path("/project"))


def jobs_alone(paths: list[bytes], template: str) -> dict[bytes, bool]:
    """Return for each job in the order in which it is let go whether none contends with it."""
    specs = [type("Spec", (), {"template": template_of(template)})()]
    first = FirstJobs(specs, freshness=None)  # type: ignore[arg-type]
    found: dict[bytes, bool] = {}
    for path in paths:
        job = Job(Source(path, 0, 0), (Target("up", template_of(template).fill(path), True),))
        found |= {each.source.path: alone for each, alone in first.in_turn(job.source, job)}
        assert len(first._waiting) <= len(path) + 2  # each of them begins as the one before it does
    return found | {each.source.path: alone for each, alone in first.rest()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_may_have_no_rivals_has_none(template: str) -> None:
    rivals, filled = template_of(template).rivals, template_of(template).fill
    for seed in range(60):
        there = paths(seed)
        counts = Counter(map(filled, there))
        if rivals == "none":
            assert max(counts.values()) == 1
        elif rivals == "same stem":
            for one in there:
                alike = [other for other in there if filled(other) == filled(one)]
                assert {stem_of(other) for other in alike} == {stem_of(one)}


def stem_of(path: bytes) -> tuple[str, str]:
    pure = Path(path.decode())
    return str(pure.parent), pure.stem


@pytest.mark.parametrize("rivals", RIVALS)
def test_templates_are_told_apart(rivals: str) -> None:
    assert [text for text in TEMPLATES if template_of(text).rivals == rivals] == RIVALS[rivals]
    specs = [type("Spec", (), {"template": template_of(text)})() for text in RIVALS[rivals]]
    assert FirstJobs(specs, freshness=None).have_rivals == (rivals != "none")  # type: ignore[arg-type]


@pytest.mark.parametrize("template", ["o/{dir}/{stem}.webp", "o/{dir}/{stem}"])
@pytest.mark.parametrize("seed", range(30))
def test_a_job_is_alone_unless_another_source_has_its_stem(template: str, seed: int) -> None:
    there = paths(seed)
    found = jobs_alone(there, template)
    stems = Counter(map(stem_of, there))
    assert found == {path: stems[stem_of(path)] == 1 for path in there}


def test_a_source_that_is_decided_about_elsewhere_contends_too() -> None:
    specs = [type("Spec", (), {"template": template_of("o/{dir}/{stem}.x")})()]
    for elsewhere in range(2):
        first = FirstJobs(specs, freshness=None)  # type: ignore[arg-type]
        sources = [Source(b"a/1.txt", 0, 0), Source(b"a/1.zip", 0, 0)]
        jobs = [None if number == elsewhere else Job(source, ()) for number, source in enumerate(sources)]
        for source, job in zip(sources, jobs, strict=True):
            assert list(first.in_turn(source, job)) == []
        assert list(first.rest()) == [(jobs[1 - elsewhere], False)]


@pytest.mark.parametrize("one", TEMPLATES)
def test_templates_that_never_meet_have_no_path_in_common(one: str) -> None:
    for other in TEMPLATES:
        first, second = template_of(one), template_of(other)
        assert may_meet(first, second) == may_meet(second, first)
        if not may_meet(first, second):
            for seed in range(10):
                there = paths(seed)
                assert not {first.fill(path) for path in there} & {second.fill(path) for path in there}
