"""The report of a run as one HTML page: for now a bare list of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(report: Mapping[str, Any]) -> str:
    """Return the page of a report; raises ImportError without jinja2."""
    from jinja2 import Environment

    page = Environment(autoescape=True).from_string(
        "<!doctype html><title>{{ report.pipeline }}</title><p>{{ report.verdict.text }}</p>"
        "{% for each in report.gallery %}"
        "<img src='{{ each.before.data }}'><img src='{{ each.after.data }}'>"
        "{% endfor %}"
    )
    return page.render(report=report)
