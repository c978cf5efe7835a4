"""What `match`, fan-outs and gathers ask of the tree, beyond what each stage says by itself."""

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
        if config is None or config.stage.gathers:
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


def check_gathers(document: Document, declared: Sequence[Declared], stages: Sequence[StageConfig | None]) -> None:
    """A stage that gathers is said to, reads the output files of another, and is at the end of its way."""
    for index, (said, config) in enumerate(zip(declared, stages, strict=True)):
        if config is None:
            continue
        _check_said(document, index, said, config)
        place, who = ("stages", index), f"stage {config.name!r}"
        parent = stages[config.parent] if config.parent is not None else None
        if parent is not None and parent.stage.gathers:
            document.complain(place, f"{who} reads from {parent.name!r}, which gathers; nothing can")
        if config.stage.gathers and (config.parent is None or parent is not None):
            if problem := _why_nothing_to_gather(parent):
                document.complain((*place, "from") if said.from_ else place, f"{who} {problem}")
            _check_gathered(document, index, config, in_parts=fan_out_above(stages, config.parent) is not None)


def _check_said(document: Document, index: int, said: Declared, config: StageConfig) -> None:
    """What is said of a stage goes with what its signature says."""
    place, who, gathers = ("stages", index), f"stage {config.name!r}", config.stage.gathers
    for key in ("group", "partial"):
        if getattr(said, key) and not said.gather:
            document.complain((*place, key), f"{who}: {key!r} is for a stage that says 'gather: true'", key=True)
    if said.gather and not gathers:
        text = f"{who}: 'gather' is for a stage that takes an Iterator[Item[...]], which this one does not"
        document.complain((*place, "gather"), f"{text} ({config.stage.where})", key=True)
    elif gathers and not said.gather:
        text = f"{who} takes an iterator of many files; say 'gather: true'"
        document.complain((*place, "uses"), f"{text} ({config.stage.where})")


def _why_nothing_to_gather(parent: StageConfig | None) -> str:
    """Why no files can be gathered from there; empty if they can."""
    if parent is None:
        return "gathers what another stage has written; name that with 'from'"
    if parent.output is None and not parent.stage.gathers:
        return f"gathers the output files of {parent.name!r}, which has none"
    return ""


def _check_gathered(document: Document, index: int, config: StageConfig, *, in_parts: bool) -> None:
    """What it makes of a group is one thing, and where it goes depends on the group alone."""
    place, who = ("stages", index), f"stage {config.name!r}"
    if config.stage.fans_out:
        text = f"{who} gathers and fans out; what it makes of a group is one output"
        document.complain((*place, "uses"), f"{text} ({config.stage.where})")
    fields = config.group.fields if config.group else frozenset()
    if _PART in fields and not in_parts:
        text = f"{who}: group: {{part}} is for what is made by stages that fan out"
        document.complain((*place, "group"), text)
    if config.output is None:
        return
    if config.stage.is_filter:
        document.complain((*place, "output"), f"{who} makes nothing that could be written; say 'output: none'")
    for field in sorted(config.output.template.fields - fields):
        text = f"{who}: {{{field}}} differs within a group; in the path may be what 'group' has in it"
        document.complain((*place, "output", "path"), text)
    if config.output.save.get("metadata", "strip") != "strip":
        text = f"{who}: a group has no one source of which metadata could be kept"
        document.complain((*place, "output", "save", "metadata"), text)
