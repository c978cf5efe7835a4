"""The documents for developers name files and functions that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pipeline.images

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """A path such as `planning/recipe.py` is one of the package or of the repository."""
    named = re.findall(r"`([\w./-]+/[\w.-]+\.py)`", (ROOT / page).read_text())
    examples = ("commands/VERB.py", "operations/VERB.py")
    missing = [
        each for each in named
        if each not in examples and not (ROOT / "pipeline" / each).is_file() and not (ROOT / each).is_file()
    ]  # fmt: skip
    assert named and not missing


def test_the_page_of_the_api_lists_the_functions_for_pictures() -> None:
    """Every public name of `pipeline.images` is documented."""
    page = (ROOT / "docs/python-api.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: pipeline\.images\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(pipeline.images.__all__)
