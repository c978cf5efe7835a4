"""What differs between two recipes: every part is named, in the user's own words."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.planning.recipe_diff import Difference, differences


def recipe(options: dict[str, Any], code: str = "up.up 1", save: dict[str, Any] | None = None, **more: Any) -> Any:
    """The parts of a recipe of one stage; what ends in `_` is the stage's own."""
    own = {key.removesuffix("_"): value for key, value in more.items() if key.endswith("_")}
    rest = {key: value for key, value in more.items() if not key.endswith("_")}
    return {"route": [{"code": code, "options": options, **own}], "save": save or {}, "values": 1, **rest}


def path(name: str, contents: str) -> dict[str, str]:
    return {"path": name, "contents": contents}


def initializer(code: str = "models.load 1", *initargs: Any) -> dict[str, Any]:
    return {"code": code, "initargs": list(initargs)}


@pytest.mark.parametrize(
    ("old", "new", "part", "says"),
    [
        (recipe({"width": 1}), recipe({"width": 2}), "options", "web: width 1 -> 2"),
        (recipe({"mode": "a"}), recipe({"mode": "b"}), "options", "web: mode a -> b"),
        (recipe({}), recipe({"new": True}), "options", "web: new null -> true"),
        (recipe({"mark": "!"}), recipe({"mark": ""}), "options", 'web: mark ! -> ""'),
        (recipe({"mark": ""}, "up.up 1"), recipe({}, "up.up 2"), "code", "web: code changed (stages/web.py)"),
        (recipe({"mark": ""}, "up.up 1"), recipe({"mark": 1}, "low.Low 2"), "code", "web: uses up -> low.Low"),
        (recipe({"map": {"a": 1}}), recipe({"map": {"a": 2}}), "options", 'web: map {"a": 1} -> {"a": 2}'),
        (
            recipe({"logo": path("l.png", "1")}),
            recipe({"logo": path("l.png", "2")}),
            "options",
            "web: contents of l.png changed",
        ),
        (
            recipe({"logo": path("l.png", "1")}),
            recipe({"logo": path("m.png", "1")}),
            "options",
            "web: logo l.png -> m.png",
        ),
        (
            recipe({"all": [path("l.png", "1"), path("m.png", "1")]}),
            recipe({"all": [path("l.png", "1"), path("m.png", "2")]}),
            "options",
            "web: contents of m.png changed",
        ),
        (recipe({}, "up.up 1"), recipe({}, "up.up 2"), "code", "web: code changed (stages/web.py)"),
        (recipe({}, "up.up 1"), recipe({}, "up.up recipe 2"), "code", "web: code changed (stages/web.py)"),
        (
            recipe({}, "up.up recipe 1"),
            recipe({}, "up.up recipe 2"),
            "code",
            "web: code changed (RECIPE 1 -> 2 in stages/web.py)",
        ),
        (recipe({}, "up.up 1"), recipe({}, "low.Low 2"), "code", "web: uses up -> low.Low"),
        (recipe({}, decoding_={"for": 1}), recipe({}, decoding_={"for": 2}), "decoding", "web: decoded for 1 -> 2"),
        (recipe({}, depends_={"a": "1"}), recipe({}, depends_={"a": "2"}), "depends", "web: contents of a changed"),
        (recipe({}), recipe({}, depends_={"a": "1"}), "depends", "web: depends: a added"),
        (recipe({}, save={"quality": 1}), recipe({}, save={"quality": 2}), "save", "web: save quality 1 -> 2"),
        (recipe({}, depends={"a": "1"}), recipe({}, depends={"a": "2"}), "depends", "depends: contents of a changed"),
        (recipe({}), recipe({}, depends={"a": "1"}), "depends", "depends: a added"),
        (recipe({}, depends={"a": "1"}), recipe({}), "depends", "depends: a removed"),
        (recipe({}), recipe({}, initializer=initializer()), "initializer", "initializer added"),
        (recipe({}, initializer=initializer()), recipe({}), "initializer", "initializer removed"),
        (
            recipe({}, initializer=initializer()),
            recipe({}, initializer=initializer("models.load 2")),
            "initializer",
            "initializer: code changed",
        ),
        (
            recipe({}, initializer=initializer("models.load 1", 1)),
            recipe({}, initializer=initializer("models.load 1", 2)),
            "initargs",
            "initargs [1] -> [2]",
        ),
        (
            recipe({}, initializer=initializer("models.load 1", path("model.bin", "1"))),
            recipe({}, initializer=initializer("models.load 1", path("model.bin", "2"))),
            "initargs",
            "initargs: contents of model.bin changed",
        ),
        (
            recipe({}, libraries={"pillow": "12.0.0"}),
            recipe({}, libraries={"pillow": "13.0.0"}),
            "libraries",
            "pillow 12.0.0 -> 13.0.0",
        ),
        (recipe({}), recipe({}, libraries={"pillow": "13"}), "libraries", "pillow none -> 13"),
        (recipe({}), {**recipe({}), "values": 2}, "values", "filemill makes pictures differently now"),
        (recipe({}), recipe({}, unheard_of=1), "values", "filemill makes pictures differently now"),
        ({}, recipe({}), "stages", "stages were added or removed above it"),
    ],
)
def test_the_part_that_changed_is_named(old: Any, new: Any, part: str, says: str) -> None:
    """Every kind of part has its name, for `accept`, and its words, for `plan`."""
    found = differences(old, new, ["web"], ["stages/web.py"])[0]
    assert (found.part, found.text) == (part, says)
    assert found.stage == ("web" if says.startswith("web: ") or part == "stages" else "")


def test_all_that_differs_is_listed_once() -> None:
    """`explain` says every difference, the nearest to the root first; what is the same in both is not named."""
    old = recipe({"a": 1, "b": 1, "c": 1}, save={"quality": 1}, libraries={"pillow": "12"})
    new = recipe({"a": 2, "b": 1, "c": 3}, code="up.up 2", save={"quality": 2}, libraries={"pillow": "13"})
    assert differences(old, new, ["web"], ["web.py"]) == [
        Difference("web", "options", "web: a 1 -> 2"),
        Difference("web", "options", "web: c 1 -> 3"),
        Difference("web", "code", "web: code changed (web.py)"),
        Difference("web", "save", "web: save quality 1 -> 2"),
        Difference("", "libraries", "pillow 12 -> 13"),
    ]
    assert differences(new, new, ["web"], ["web.py"]) == []
