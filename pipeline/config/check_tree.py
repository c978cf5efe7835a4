"""Checks that need the whole tree: match, fan-outs, gathers, and sizes of pictures along a branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.config.document import Document
from pipeline.config.model import StageConfig
from pipeline.config.schema import Stage as Declared
from pipeline.files.template import Template
from pipeline.files.walk import pattern_problem
from pipeline.stage.values import BYTES, IMAGE, PATH, Kind
from pipeline.types import FitBox

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


# Pixels: a picture larger than any box, to compare boxes by what they make of it.
_HUGE = (1_000_000, 1_000_000)


def with_siblings(stages: Sequence[StageConfig], document: Document) -> tuple[StageConfig, ...]:
    """The same stages, each knowing its picture's finest decoding and colours; complaints go to the document."""
    leads = {stage.parent: _lead(stages, stage.parent) for stage in stages}
    own = [_keeps_colours(stages, index) for index in range(len(stages))]
    for index, stage in enumerate(stages):
        _warn_of_more_than_there_is(stages, index, document)
        if own[index] and (problem := _what_loses_colours(stages, own, index)):
            document.complain(("stages", index, "output", "save", "color"), f"stage {stage.name!r}: {problem}")
    return tuple(
        replace(stage, least=leads[stage.parent] if stage.box else None, own_colors=own[index])
        for index, stage in enumerate(stages)
    )


def _lead(stages: Sequence[StageConfig], parent: int | None) -> FitBox | None:
    """The largest box among the stages that decode the same file; None where none has one."""
    if _kind_below(stages, parent) not in (PATH, BYTES):
        return None
    boxes = [stage.box for stage in stages if stage.parent == parent and stage.box]
    return max(boxes, key=_need, default=None)


def _need(box: FitBox) -> tuple[float | str, ...]:
    """What boxes are compared by: their area, then which needs more of another shape, and at last their words."""
    across, down = box.whole(_HUGE)
    covers, is_free = box.fit not in ("inside", "contain"), not (box.width and box.height)
    return across * down, covers, is_free, box.width or 0, box.height or 0, box.gap, box.fit


def _kind_below(stages: Sequence[StageConfig], index: int | None) -> Kind:
    """What a stage hands on; a filter, what it was handed."""
    above = _maker(stages, index)
    return PATH if above is None else stages[above].stage.makes or PATH


def _maker(stages: Sequence[StageConfig], index: int | None) -> int | None:
    """The stage whose value arrives below this one: itself, or what is above where it is a filter."""
    while index is not None and stages[index].stage.is_filter:
        index = stages[index].parent
    return index


def _keeps_colours(stages: Sequence[StageConfig], index: int) -> bool:
    """Whether a stage's pictures stay in their own colours: its output says so, or without one, any stage below."""
    if output := stages[index].output:
        return output.save.get("color") == "keep"
    return any(_keeps_colours(stages, below) for below, stage in enumerate(stages) if stage.parent == index)


def _what_loses_colours(stages: Sequence[StageConfig], own: Sequence[bool], index: int) -> str:
    """Why a picture that is to keep its own colours has none left."""
    if stages[index].stage.takes is IMAGE and not stages[index].stage.is_filter:
        return "'color: keep' cannot be, since it takes an Image.Image, which is in sRGB; one that takes a Picture can"
    above = _maker(stages, stages[index].parent)
    if above is not None and stages[above].stage.makes is IMAGE and not own[above]:
        return f"'color: keep' finds the picture in sRGB, made by {stages[above].name!r}; say it there too"
    return ""


def _warn_of_more_than_there_is(stages: Sequence[StageConfig], index: int, document: Document) -> None:
    """Warn where a stage fits pictures into a larger box than those from above have come out of."""
    stage, above = stages[index], _maker(stages, stages[index].parent)
    box, given = stage.box, stages[above].box if above is not None else None
    if box is None or above is None or given is None or given.fit == "outside":
        return
    sides = (("width", box.width, given.width), ("height", box.height, given.height))
    for side, asked, there in sides:
        if asked and there and asked > there:
            text = (
                f"stage {stage.name!r} asks for a {side} of {asked}, but {stages[above].name!r} gives {there} at most"
            )
            document.warn(("stages", index, "with", side), text)
