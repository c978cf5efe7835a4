"""Sphinx: the documentation site, from the same Markdown that a code host shows."""

from __future__ import annotations

import re
from pathlib import Path

from pygments.lexers.data import YamlLexer
from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

ROOT = Path(__file__).resolve().parent.parent

project = "filemill"
author = "The filemill authors"
copyright = "2026, The filemill authors"
release = re.findall(r'^__version__ = "(.+)"$', (ROOT / "pipeline" / "__init__.py").read_text(), re.M)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build"]
# Links to files beside the pages, such as ../stages, are for readers on a code host.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"filemill {release}"

lexers["crontab"] = TextLexer()
lexers["yml"] = YamlLexer()  # YAML that is no pipeline
