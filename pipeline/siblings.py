"""What only the whole tree can tell of a stage's pictures: how finely to decode them, and in which colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.config import StageConfig
from pipeline.document import Document
from pipeline.types import FitBox
from pipeline.values import BYTES, IMAGE, PATH, Kind

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
        replace(stage, least=leads[stage.parent] if stage.box else None, own_colours=own[index])
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
