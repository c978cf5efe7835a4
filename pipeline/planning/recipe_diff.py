"""Lists the differences between two recipes, part by part, in the words of pipeline.yaml."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pipeline.records import dataclass
from pipeline.text import shown

if TYPE_CHECKING:
    from pipeline.planning.recipe import OutputSpec

Part = Literal[
    "code", "options", "decoding", "depends", "save", "initializer", "initargs", "env", "libraries", "values", "stages"
]
"""The named parts of a recipe; `stages` is the length of the route."""

# Files of a stage's code that are named where they changed.
_MAX_NAMED = 3
_OTHERWISE = "filemill makes pictures differently now"


@dataclass(frozen=True)
class Difference:
    """One part that differs between two recipes."""

    stage: str
    """The stage's name; empty for a part that applies to the whole pipeline."""
    part: Part
    text: str
    """The difference as `plan` shows it, with the stage's name."""


def differences(
    old: dict[str, Any], new: dict[str, Any], names: Sequence[str], where: Sequence[str]
) -> list[Difference]:
    """Return all differences, the nearest to the root first; `names` and `where` are the route's stages and files.

    A part that only one of the recipes has is a difference. Two recipes that are not equal have at least one.
    """
    found = list(_differences(old, new, names, where))
    return found if found or old == new else [Difference("", "values", _OTHERWISE)]


def _differences(
    old: dict[str, Any], new: dict[str, Any], names: Sequence[str], where: Sequence[str]
) -> Iterator[Difference]:
    last = names[-1]
    routes = old.get("route", []), new["route"]
    if len(routes[0]) != len(routes[1]):
        yield Difference(last, "stages", "stages were added or removed above it")
    else:
        for before, after, name, file in zip(*routes, names, where, strict=True):
            yield from _of_stage(before, after, name, file)
    for change in _changes(old.get("save", {}), new["save"]):
        yield Difference(last, "save", f"{last}: save {change}")
    for change in _changed_files(old.get("depends", {}), new.get("depends", {})):
        yield Difference("", "depends", f"depends: {change}")
    yield from _of_initializer(old.get("initializer"), new.get("initializer"))
    for change in _changes(old.get("env", {}), new.get("env", {}), absent="none"):
        yield Difference("", "env", f"env: {change}")
    for change in _changes(old.get("libraries", {}), new.get("libraries", {}), absent="none"):
        yield Difference("", "libraries", change)
    if old.get("values") != new["values"]:
        yield Difference("", "values", _OTHERWISE)


def _of_stage(before: dict[str, Any], after: dict[str, Any], name: str, file: str) -> Iterator[Difference]:
    options = [Difference(name, "options", f"{name}: {each}") for each in _changes(before["options"], after["options"])]
    change = _change_of_code(before["code"], after["code"], file)
    code = [Difference(name, "code", f"{name}: {change}")] if change else []
    # Other code may have other options: then nobody changed those.
    is_other = (
        set(before["options"]) != set(after["options"]) or before["code"].split()[:1] != after["code"].split()[:1]
    )
    yield from code + options if is_other else options + code
    was, late = before.get("late", {}), after.get("late", {})
    if changed := [shown(os.fsencode(path)) for path in sorted({**was, **late}) if was.get(path) != late.get(path)]:
        yield Difference(name, "code", f"{name}: code changed ({', '.join(changed)})")
    for change in _changed_files(before.get("depends", {}), after.get("depends", {})):
        contents = change.startswith("contents of ")
        yield Difference(name, "depends", f"{name}: {change}" if contents else f"{name}: depends: {change}")
    for change in _changes(before.get("decoding", {}), after.get("decoding", {})):
        yield Difference(name, "decoding", f"{name}: decoded {change}")
    yield from _of_initializer(before.get("initializer"), after.get("initializer"), name)
    for change in _changes(before.get("env", {}), after.get("env", {}), absent="none"):
        yield Difference(name, "env", f"{name}: env: {change}")


def _of_initializer(
    before: dict[str, Any] | None, after: dict[str, Any] | None, stage: str = ""
) -> Iterator[Difference]:
    who = f"{stage}: " if stage else ""
    if before is None or after is None:
        if before != after:
            yield Difference(stage, "initializer", f"{who}initializer {'added' if before is None else 'removed'}")
        return
    if change := _change_of_code(before["code"], after["code"], ""):
        yield Difference(stage, "initializer", f"{who}initializer: {change}")
    for change in _changes({"initargs": before["initargs"]}, {"initargs": after["initargs"]}):
        text = change if change.startswith("initargs") else f"initargs: {change}"
        yield Difference(stage, "initargs", f"{who}{text}")


def _change_of_code(before: str, after: str, file: str) -> str:
    """Describe a change of code, given as a name and a digest or RECIPE; empty where there is none."""
    if before == after:
        return ""
    (old_name, _, old), (new_name, _, new) = before.partition(" "), after.partition(" ")
    if old_name != new_name and old_name and new_name:
        return f"uses {_short(old_name)} -> {_short(new_name)}"
    place = file
    if old.startswith("recipe ") and new.startswith("recipe "):
        place = f"RECIPE {old.removeprefix('recipe ')} -> {new.removeprefix('recipe ')}{f' in {file}' if file else ''}"
    return f"code changed ({place})" if place else "code changed"


def _short(name: str) -> str:
    module, _, target = name.partition(".")
    return module if target == module else name


def _changed_files(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for path in [*after, *(path for path in before if path not in after)]:
        name = shown(os.fsencode(path))
        if path not in before:
            yield f"{name} added"
        elif path not in after:
            yield f"{name} removed"
        elif before[path] != after[path]:
            yield f"contents of {name} changed"


def _changes(before: dict[str, Any], after: dict[str, Any], absent: str = "null") -> Iterator[str]:
    """Yield a description of each option that differs."""
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        shown = [_shown(value) if key in options else absent for value, options in ((old, before), (new, after))]
        if shown[0] != shown[1]:
            yield f"{key} {shown[0]} -> {shown[1]}"
        else:
            contents = dict(contents_within(old))
            yield from (
                f"contents of {path} changed" for path, now in contents_within(new) if contents.get(path) != now
            )


def _shown(value: Any) -> str:
    value = as_written(value)
    is_plain = isinstance(value, str) and value and value == value.strip()
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _is_path(value: Any) -> bool:
    """Return whether a value is a Path option with the digest of its file."""
    return isinstance(value, dict) and set(value) == {"path", "contents"}


def as_written(value: Any) -> Any:
    """Return an option as it was written, with Paths without the digests of their files."""
    if isinstance(value, dict):
        return value["path"] if _is_path(value) else {key: as_written(each) for key, each in value.items()}
    return [as_written(each) for each in value] if isinstance(value, list) else value


def contents_within(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the Paths within an option, each with the digest of its file."""
    if _is_path(value):
        yield value["path"], value["contents"]
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from contents_within(each)


def differences_from(old: dict[str, Any], leaf: OutputSpec) -> list[Difference]:
    """Return the differences between an output's recorded recipe and its present one, in their order of display."""
    names = [each.name for each in leaf.route]
    before = old.get("files", [])
    was = before if len(before) == len(names) else [{}] * len(names)
    files = [
        ", ".join(_changed_code(leaf.recipe.folder, *each)) or os.path.relpath(stage.stage.where.rpartition(":")[0])
        for stage, *each in zip(leaf.route, was, leaf.recipe.files, strict=True)
    ]
    parts = {name: part for name, part in old.items() if name != "files"}
    if parts.get("order") != leaf.recipe.parts.get("order"):
        swapped = [each for each in zip(names, files, was, leaf.recipe.files, strict=True) if each[2] != each[3]]
        found = [Difference(name, "code", f"{name}: code changed ({file})") for name, file, *_ in swapped]
        old, new = (
            {name: part for name, part in each.items() if name != "order"} for each in (parts, leaf.recipe.parts)
        )
        return found + (differences(old, new, names, files) if old != new else [])
    return differences(parts, leaf.recipe.parts, names, files)


def _changed_code(folder: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the first few changed files of a stage's code; none where the changes are not known."""
    changed = [path for path in sorted({**before, **after}) if before.get(path) != after.get(path)] if before else []
    first = [os.path.relpath(os.path.join(folder, path)) for path in changed[:_MAX_NAMED]]
    return first + (["..."] if len(changed) > _MAX_NAMED else [])
