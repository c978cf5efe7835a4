"""What `match`, fan-outs and `output: none` ask of the tree, beyond what each stage says by itself."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import StageConfig
from pipeline.discover import pattern_problem
from pipeline.document import Document
from pipeline.outputs import Template
from pipeline.vocabulary import Stage as Declared

_PART = "part"


def fan_out_above(stages: Sequence[StageConfig | None], index: int | None) -> int | None:
    """The stage that fans out at or above this one; None where there is none, or where that cannot be told."""
    while index is not None and (stage := stages[index]) is not None:
        if stage.stage.fans_out:
            return index
        index = stage.parent
    return None


def check_match(document: Document, index: int, declared: Declared, parent: int | None) -> None:
    """Only what reads the sources themselves can choose among them."""
    if declared.match and parent is not None:
        text = f"stage {declared.name!r}: 'match' is for a stage that reads the inputs"
        document.complain(("stages", index, "match"), f"{text}; this one reads from {declared.from_!r}", key=True)
    for number, pattern in enumerate(declared.match):
        if problem := pattern_problem(pattern):
            document.complain(("stages", index, "match", number), f"stage {declared.name!r}: match: {problem}")


def check_fan_outs(document: Document, stages: Sequence[StageConfig | None]) -> None:
    """One fan-out on a way, and a name of its own for each part."""
    for index, config in enumerate(stages):
        if config is None:
            continue
        above = fan_out_above(stages, config.parent)
        fan_out = stages[above] if above is not None else None
        if config.stage.fans_out and fan_out is not None:
            text = f"stage {config.name!r} fans out below {fan_out.name!r}; there may be one on a way"
            document.complain(("stages", index, "uses"), f"{text} ({config.stage.where})")
        if config.pool and fan_out is not None:
            text = f"stage {config.name!r} cannot have a pool of its own below {fan_out.name!r}, which fans out"
            document.complain(("stages", index, "pool"), f"{text}; say 'pool' there", key=True)
        if config.output is not None:
            in_parts = config.stage.fans_out or fan_out is not None
            _check_part(document, index, config, config.output.template, in_parts)


def _check_part(document: Document, index: int, config: StageConfig, template: Template, in_parts: bool) -> None:
    place, who = ("stages", index, "output", "path"), f"stage {config.name!r}"
    if in_parts and _PART not in template.fields:
        document.complain(place, f"{who}: every part of a file would have the one output; use {{part}} in its path")
    if not in_parts and _PART in template.fields:
        document.complain(place, f"{who}: {{part}} is for stages that fan out")
