"""Checks the whole tree of stages: their connections, the paths of their outputs, and the decoding of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config.document import Document
from pipeline.config.model import StageConfig, StageEntry, trace_folder
from pipeline.config.routes import branch_patterns, fan_out_above, kind_made, maker
from pipeline.errors import StageError
from pipeline.files.naming import resolve_folder
from pipeline.files.state_dir import is_ours, why_foreign
from pipeline.files.template import Template, always_same
from pipeline.files.walk import pattern_problem
from pipeline.stage.signature import Stage
from pipeline.stage.values import BYTES, IMAGE, PATH, can_convert
from pipeline.text import did_you_mean
from pipeline.types import FitBox

_PART = "part"


# -- whether it goes together ------------------------------------------------------------------------------------------


def find_parents(document: Document, entries: Sequence[StageEntry]) -> dict[int, int | None]:
    """Return the parent of each stage by index, None for the source; a stage whose `from` is wrong is left out."""
    _check_names(document, entries)
    parents: dict[int, int | None] = {}
    for index, entry in enumerate(entries):
        if problem := _problem_of_from(entries, index):
            at = ("stages", index, "from") if entry.from_ else ("stages", index)
            document.complain(at, problem)
        names = [each.name for each in entries[:index]]
        if entry.from_ == "inputs" or (entry.from_ is None and (entry.match or not index)):
            parents[index] = None
        elif entry.from_ is None:
            parents[index] = index - 1
        elif entry.from_ in names:
            parents[index] = names.index(entry.from_)
    if len(parents) == len(entries):  # else nobody knows which stage it was meant to read from
        _check_leaves(document, entries, set(parents.values()))
    return parents


def _check_names(document: Document, entries: Sequence[StageEntry]) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        place = ("stages", index, "name")
        if entry.name in seen:
            document.complain(place, f"stage name {entry.name!r} stands here twice")
        if entry.name == "inputs":
            document.complain(place, "'inputs' is the source itself; name the stage otherwise")
        seen.add(entry.name)


def _problem_of_from(entries: Sequence[StageEntry], index: int) -> str:
    """Return what is wrong with the `from` of a stage, or why it must have one; empty if nothing is wrong."""
    entry, names = entries[index], [each.name for each in entries]
    who = f"stage {entry.name!r}"
    if entry.from_ is None:
        before = entries[index - 1] if index and not entry.match else None
        if before is None or before.output is None:
            return ""
        says = f"say 'from: {before.name}' to read what that stage makes, or 'from: inputs' for the source"
        return f"{who} stands after {before.name!r}, which has an output; {says}"
    if entry.from_ in ("inputs", *names[:index]):
        return ""
    if entry.from_ in names:
        return f"{who} reads from {entry.from_!r}, which must stand before it"
    return f"{who}: no stage {entry.from_!r}{did_you_mean(entry.from_, [*names, 'inputs'])}"


def _check_leaves(document: Document, entries: Sequence[StageEntry], read: set[int | None]) -> None:
    for index, entry in enumerate(entries):
        if entry.output is None and index not in read:
            document.complain(("stages", index), f"stage {entry.name!r} has no 'output' and no stage reads from it")


def check_tree(
    document: Document, entries: Sequence[StageEntry], stages: Sequence[StageConfig | None], root: Path
) -> None:
    """Complain about stages that do not fit together; None stands for a stage that is missing or invalid."""
    for index, config in enumerate(stages):
        if config is not None:
            _check_types(document, index, config, stages)
            _check_match(document, index, config)
    _check_fan_outs(document, stages)
    _check_gathers(document, stages)
    _check_outputs(document, stages, root)


def _check_types(document: Document, index: int, config: StageConfig, stages: Sequence[StageConfig | None]) -> None:
    stage, have = config.stage, kind_made(stages, config.parent)
    if stage.takes is None or have is None or can_convert(have, stage.takes):
        return
    if stage.gathers and (stage.takes is BYTES or stage.takes.suffixes):  # it reads the files as they are
        return
    above = stages[config.parent] if config.parent is not None else None
    text = (
        f"stage {config.name!r} takes {stage.takes.name}, but {above.name if above else 'inputs'!r} makes {have.name}"
    )
    document.complain(("stages", index, "uses"), f"{text}; there is no conversion ({stage.where})")


def _check_match(document: Document, index: int, config: StageConfig) -> None:
    """Complain about a `match` that is not a pattern, or that belongs to a stage that does not read the inputs."""
    place, who = ("stages", index, "match"), f"stage {config.name!r}"
    if config.match and config.parent is not None:
        text = f"{who}: 'match' is for a stage that reads the inputs; this one reads from {config.from_!r}"
        document.complain(place, text, key=True)
    for number, pattern in enumerate(config.match):
        if problem := pattern_problem(pattern):
            document.complain((*place, number), f"{who}: match: {problem}")


def _check_fan_outs(document: Document, stages: Sequence[StageConfig | None]) -> None:
    """Complain about two fan-outs in one branch, and about outputs of parts without `{part}` in their path."""
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


def _check_gathers(document: Document, stages: Sequence[StageConfig | None]) -> None:
    """Complain about stages that gather from a stage without output, or that others read from."""
    for index, config in enumerate(stages):
        if config is None:
            continue
        _check_gather_words(document, index, config)
        place, who = ("stages", index), f"stage {config.name!r}"
        parent = stages[config.parent] if config.parent is not None else None
        if parent is not None and parent.stage.gathers:
            document.complain(place, f"{who} reads from {parent.name!r}, which gathers; nothing can")
        if config.stage.gathers and (config.parent is None or parent is not None):
            if problem := _why_nothing_to_gather(parent):
                document.complain((*place, "from") if config.from_ else place, f"{who} {problem}")
            _check_gathered(document, index, config, in_parts=fan_out_above(stages, config.parent) is not None)


def _check_gather_words(document: Document, index: int, config: StageConfig) -> None:
    """Complain about `gather`, `group` and `partial` where they contradict the stage's signature or each other."""
    place, who, gathers = ("stages", index), f"stage {config.name!r}", config.stage.gathers
    for key in ("group", "partial"):
        if getattr(config, key) and not config.gather:
            document.complain((*place, key), f"{who}: {key!r} is for a stage that says 'gather: true'", key=True)
    if config.gather and not gathers:
        text = f"{who}: 'gather' is for a stage that takes an Iterator[Item[...]], which this one does not"
        document.complain((*place, "gather"), f"{text} ({config.stage.where})", key=True)
    elif gathers and not config.gather:
        text = f"{who} takes an iterator of many files; say 'gather: true'"
        document.complain((*place, "uses"), f"{text} ({config.stage.where})")


def _why_nothing_to_gather(parent: StageConfig | None) -> str:
    """Return why the files of a stage cannot be gathered; empty if they can."""
    if parent is None:
        return "gathers what another stage has written; name that with 'from'"
    if parent.output is None and not parent.stage.gathers:
        return f"gathers the output files of {parent.name!r}, which has none"
    return ""


def _check_gathered(document: Document, index: int, config: StageConfig, *, in_parts: bool) -> None:
    """Complain about a stage that gathers if its output is not one file whose path depends on the group alone."""
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


def _check_outputs(document: Document, stages: Sequence[StageConfig | None], root: Path) -> None:
    """Complain about two stages that always have the same output, and about outputs among the inputs."""
    real = os.path.realpath(root)
    seen: list[tuple[str, Template]] = []
    for index, config in enumerate(stages):
        if config is None or config.output is None:
            continue
        place, template = ("stages", index, "output", "path"), config.output.template
        for other, its in seen:
            # Those that choose among the sources may well leave each other's alone.
            if always_same(its, template) and not branch_patterns(stages, index):
                document.complain(place, f"stages {other!r} and {config.name!r} have the same output")
        seen.append((config.name, template))
        if os.path.realpath(os.fsdecode(template.folder)) == real:
            text = f"stage {config.name!r}: its outputs would lie among the inputs and be read as such"
            document.complain(place, f"{text}; put them under a folder of their own")


def with_options_of_outputs(stages: Sequence[StageConfig | None], document: Document) -> list[StageConfig | None]:
    """Return the stages with the options that follow from the suffixes of their outputs; complain where they refuse."""
    found = list(stages)
    for index, config in enumerate(stages):
        if config is None or config.output is None:
            continue
        assert isinstance(config.stage, Stage)  # it is checked in the process that has imported it
        try:
            options = config.stage.check_output(config.output.template.suffix, config.options)
            found[index] = replace(config, options=options)
        except (ValueError, StageError) as error:
            document.complain(("stages", index, "output", "path"), f"stage {config.name!r}: {error}")
    return found


def check_state(
    document: Document, written: Path, state: Path, folder: Path, root: Path, stages: Sequence[StageConfig | None]
) -> None:
    """Complain about a state folder that is in use, or lies where a person's file and one of ours may meet.

    Args:
        document: The pipeline.
        written: The state folder as it is named there.
        state: The state folder.
        folder: The folder of the pipeline's file.
        root: The input root.
        stages: The stages, None for one that was not found.
    """
    place = resolve_folder(os.fsencode(state))
    outputs = [stage.output.template for stage in stages if stage and stage.output]
    around = {resolve_folder(os.fsencode(folder)): "this file", resolve_folder(os.fsencode(root)): "the input files"}
    around |= {each.folder: f"the outputs {each.text!r}" for each in outputs}
    inside = next((what for each, what in around.items() if _lies_in(each, place)), None)
    among = next((each for each in outputs if _may_lie_in(each, place)), None)
    if inside:
        problem = f"holds {inside}; give it a folder of its own, such as .pipeline/NAME"
    elif among:
        problem = f"lies where an output {among.text!r} may come to lie; put it beside them, or begin its name with '.'"
    else:
        problem = why_foreign(state)
    if problem:
        files = "id, ledger.sqlite, ledger-good.sqlite and runs/"
        hint = f"it is one so far: move {files} to the new one, and nothing is made again" if is_ours(state) else ""
        document.complain(("state",), f"the state folder {str(written)!r} {problem}", hint=hint)


def check_trace(document: Document, trace: str, root: Path, state: Path, stages: Sequence[StageConfig | None]) -> None:
    """Complain about a trace, an absolute path with {run} in it, that would be taken for something else."""
    place = resolve_folder(os.fsencode(trace_folder(trace)))
    outputs = [stage.output.template for stage in stages if stage and stage.output]
    among = next((each for each in outputs if _may_lie_in(each, place)), None)
    problem = ""
    if place == resolve_folder(os.fsencode(root)):
        problem = "among the inputs and be read as one; put it into a folder of its own"
    elif _lies_in(place, resolve_folder(os.fsencode(state))):
        problem = "in the state folder, where only filemill writes; put it beside that"
    elif among:
        problem = f"where an output {among.text!r} may come to lie; put it beside them, or into a hidden folder"
    if problem:
        document.complain(("trace",), f"trace: it would lie {problem}")


def _may_lie_in(template: Template, folder: bytes) -> bool:
    """Return whether outputs of a template may lie in a folder. In hidden ones there are none, as no source is."""
    names = os.path.relpath(folder, template.folder).split(b"/")
    is_flat = template.folder_and_name is not None and not template.folder_and_name.in_dir
    return _lies_in(folder, template.folder) and not is_flat and not any(each.startswith(b".") for each in names)


def _lies_in(path: bytes, folder: bytes) -> bool:
    return os.path.join(path, b"").startswith(os.path.join(folder, b""))


# -- pictures ---------------------------------------------------------------------------------------------------------

# Pixels: a picture larger than any box, to compare boxes by what they make of it.
_HUGE = (1_000_000, 1_000_000)


def with_decoding(stages: Sequence[StageConfig], document: Document) -> tuple[StageConfig, ...]:
    """Return the stages, each with the size and the colors in which its picture is decoded for all its readers."""
    boxes = {stage.parent: _largest_box(stages, stage.parent) for stage in stages}
    own = [_keeps_colors(stages, index) for index in range(len(stages))]
    for index, stage in enumerate(stages):
        _warn_of_enlarging(stages, index, document)
        if own[index] and (problem := _why_in_srgb(stages, own, index)):
            document.complain(("stages", index, "output", "save", "color"), f"stage {stage.name!r}: {problem}")
    return tuple(
        replace(stage, decode_box=boxes[stage.parent] if stage.box else None, own_colors=own[index])
        for index, stage in enumerate(stages)
    )


def _largest_box(stages: Sequence[StageConfig], parent: int | None) -> FitBox | None:
    """Return the largest box of the stages that decode the same file; None where none has one."""
    if kind_made(stages, parent) not in (PATH, BYTES):
        return None
    boxes = [stage.box for stage in stages if stage.parent == parent and stage.box]
    return max(boxes, key=_size_of, default=None)


def _size_of(box: FitBox) -> tuple[float | str, ...]:
    """Return the sort key of a box: the area it decodes to, then every field, so that no two boxes tie."""
    across, down = box.whole(_HUGE)
    covers, is_free = box.fit not in ("inside", "contain"), not (box.width and box.height)
    return across * down, covers, is_free, box.width or 0, box.height or 0, box.gap, box.fit


def _keeps_colors(stages: Sequence[StageConfig], index: int) -> bool:
    """Return whether a stage's pictures keep their own colors: by its output or, if it has none, by any stage below."""
    if output := stages[index].output:
        return output.save.get("color") == "keep"
    return any(_keeps_colors(stages, below) for below, stage in enumerate(stages) if stage.parent == index)


def _why_in_srgb(stages: Sequence[StageConfig], own: Sequence[bool], index: int) -> str:
    """Return why a stage's `color: keep` cannot be met; empty if it can."""
    if stages[index].stage.takes is IMAGE and not stages[index].stage.is_filter:
        return "'color: keep' cannot be, since it takes an Image.Image, which is in sRGB; one that takes a Picture can"
    above = maker(stages, stages[index].parent)
    if above is not None and stages[above].stage.makes is IMAGE and not own[above]:
        return f"'color: keep' finds the picture in sRGB, made by {stages[above].name!r}; say it there too"
    return ""


def _warn_of_enlarging(stages: Sequence[StageConfig], index: int, document: Document) -> None:
    """Warn where a stage fits pictures into a larger box than the stage above it did."""
    stage, above = stages[index], maker(stages, stages[index].parent)
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
