"""Describes the route of a file through the tree of stages, with the kinds of value between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from pipeline.config.model import Config, StageConfig
from pipeline.files.walk import Match, matcher
from pipeline.stage.values import PATH, Kind


def maker(stages: Sequence[StageConfig | None], index: int | None) -> int | None:
    """Return the stage that made the value a stage hands on: itself, or for a filter the nearest other stage above.

    None stands for the source, and in `stages` for a stage that was not found, at which the search ends.
    """
    while index is not None and (stage := stages[index]) is not None and stage.stage.makes is None:
        index = stage.parent
    return index


def kind_made(stages: Sequence[StageConfig | None], index: int | None) -> Kind | None:
    """Return the kind of value that a stage hands on; None where a stage on the way was not found."""
    above = maker(stages, index)
    if above is None:
        return PATH
    stage = stages[above]
    return stage.stage.makes if stage is not None else None


def fan_out_above(stages: Sequence[StageConfig | None], index: int | None) -> int | None:
    """Return the stage that fans out at or above this one; None where there is none, or a stage was not found."""
    while index is not None and (stage := stages[index]) is not None:
        if stage.stage.fans_out:
            return index
        index = stage.parent
    return None


def branch_patterns(stages: Sequence[StageConfig | None], index: int | None) -> tuple[str, ...]:
    """Return the `match` patterns of the stage at the top of a stage's branch; none for all files."""
    while index is not None and (stage := stages[index]) is not None:
        if stage.parent is None:
            return stage.match
        index = stage.parent
    return ()


def route_of(config: Config, stage: StageConfig) -> tuple[StageConfig, ...]:
    """Return a stage and all stages above it, the one that reads the source first."""
    above = route_of(config, config.stages[stage.parent]) if stage.parent is not None else ()
    return (*above, stage)


def handed_to(config: Config, stage: StageConfig) -> Kind:
    """Return the kind of value that a stage is handed, which a filter above it passes on unchanged."""
    return kind_made(config.stages, stage.parent) or PATH


def reads(config: Config, stage: StageConfig, source: bytes) -> bool:
    """Return whether a stage reads this source, by the `match` of its branch."""
    patterns = stage.match if stage.parent is None else branch_patterns(config.stages, stage.parent)
    return not patterns or _matcher(patterns)(source)


@cache
def _matcher(patterns: tuple[str, ...]) -> Match:
    return matcher(patterns)


def describe_stage(config: Config, stage: StageConfig) -> str:
    """Describe one stage in a line: `inputs (Path) -> Picture -> resize -> Image.Image -> out/{stem}.webp`.

    A kind between two arrows is a conversion that nobody wrote down.
    """
    if stage.stage.gathers:
        return _describe_gather(config, stage)
    have, wants, makes = handed_to(config, stage), stage.stage.takes, stage.stage.makes
    steps = [f"{config.stages[stage.parent].name if stage.parent is not None else 'inputs'} ({have.name})"]
    if wants is not None and wants is not have:
        in_scratch = wants is PATH
        steps.append(f"Path (a {have.scratch_suffix} file in the scratch folder)" if in_scratch else wants.name)
    steps.append(f"{stage.stage.uses} (in a pool of its own)" if stage.pool else stage.stage.uses)
    many = "parts, each " if stage.stage.fans_out else ""
    steps.append(many + makes.name if makes is not None else "the same, or left out")
    if stage.output is not None or stage.leaves_no_file:
        steps.append(stage.output.template.text if stage.output else "no file")
    return " -> ".join(steps)


def _describe_gather(config: Config, stage: StageConfig) -> str:
    """Describe a stage that gathers: `up (its files, by {dir}) -> many str -> names -> str -> out/{dir}.txt`."""
    assert stage.parent is not None
    takes, makes = stage.stage.takes or handed_to(config, stage), stage.stage.makes
    which = f"its files, by {stage.group.text}" if stage.group else "all its files"
    steps = [f"{config.stages[stage.parent].name} ({which})", f"many {takes.name}", stage.stage.uses]
    steps += [makes.name] if makes else []
    return " -> ".join([*steps, stage.output.template.text if stage.output else "no file"])


def describe_route(config: Config) -> list[str]:
    """Describe the whole tree, a line for each stage."""
    return [f"{stage.name}: {describe_stage(config, stage)}" for stage in config.stages]
