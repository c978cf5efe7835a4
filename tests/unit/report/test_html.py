"""The page of a report as text: bounded, escaped, and made of a template that is compiled once."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import reports

from pipeline.report import html
from pipeline.report.html import MOST_BYTES, render


def test_each_kind_of_report_has_its_sections() -> None:
    """What a run did not have is left out, and what it had is there, in order."""
    whole = re.findall(r'<section id="(\w+)"', render(reports.everyday()))
    assert whole == (
        [
            "verdict",
            "new",
            "counts",
            "timeline",
            "workers",
            "stages",
            "sizes",
            "failures",
            "slowest",
            "gallery",
            "diffs",
            "plan",
            "runs",
        ]
    )
    assert re.findall(r'<section id="(\w+)"', render(reports.empty())) == ["verdict", "new", "counts"]


def test_numbers_that_are_not_known_are_said_to_be_so() -> None:
    """No worker told its memory, no output its bytes: the page is there all the same."""
    page = render(without_numbers(reports.everyday()))
    assert '<data value="" data-of="workers.0.peak_bytes">–</data>' in page


def test_workers_are_shown_with_their_pools() -> None:
    """Each pool by the share of its own workers' time; a page without pools of stages says nothing of them."""
    ordinary = reports.everyday()
    heavy = {"seat": 10, "pool": "hea<vy", "busy_s": 47.861, "files": 5, "restarts": 0, "peak_bytes": None}
    pools = [{"name": "", "processes": 4, "busy_s": 957.22}, {"name": "hea<vy", "processes": 1, "busy_s": 47.861}]
    page = render(ordinary | {"workers": [*ordinary["workers"], heavy], "pools": pools})
    text = re.sub(r"<[^>]*>", "", page)
    assert "Shared: 4 workers, busy for 50 % of their time." in text
    assert "hea&lt;vy: 1 worker, busy for 10 % of their time." in text and "10 hea&lt;vy" in text
    assert "Shared" not in render(ordinary | {"pools": pools[:1]})


def without_numbers(report: dict[str, Any]) -> dict[str, Any]:
    """A report whose measures are None where a run may not know them."""
    kept = (
        "seat",
        "number",
        "files",
        "failed",
        "started",
        "start",
        "step_s",
        "seconds",
        "histogram",
        "from_bytes",
        "to_bytes",
    )
    return {key: _without(each, key, kept) for key, each in report.items()}


def _without(value: Any, key: str, kept: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(each, name, kept) for name, each in value.items()}
    if isinstance(value, list) and key not in kept:
        return [_without(each, key, kept) for each in value]
    return None if (isinstance(value, float) and key not in kept) or key == "peak_bytes" else value


def test_a_page_is_small_whatever_happened() -> None:
    """A thousand reasons, pictures beyond measure, and every text of 4,000 characters that take five each."""
    report = reports.with_texts(reports.huge(), itertools.repeat("'" * 4_000))
    report["failures"] *= 4
    for pair in report["gallery"]:
        pair["before"]["data"] = "data:image/png;base64," + "A" * 400_000
    page = render(report)
    assert len(page.encode()) < MOST_BYTES
    assert "1,190 more: <code>report.json</code> has all of them" in page


def test_a_large_report_is_shown_whole_but_for_long_texts() -> None:
    """Fifty stages, 64 workers and all pictures have room; of long texts the first have."""
    page = render(reports.huge())
    assert len(page.encode()) < MOST_BYTES
    assert [page.count(f'data-of="{each}.') for each in ("workers", "stages", "gallery")] == [64 * 5, 50 * 5, 12 * 6]
    assert page.count("x = frobnicate(y)\n" * 222) > 20


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["KeyError: 'a'"] * 2, "KeyError: &#39;a&#39;"),
        (["KeyError: 'a'", "KeyError: 'b'"], "KeyError: &#39;a&#39;, and others"),
        (["no key", "KeyError: 'b'"], "KeyError, such as no key"),
        ([], "KeyError"),
    ],
)
def test_a_group_of_failures_says_what_is_wrong(messages: list[str], said: str) -> None:
    """Before it is opened: what its files say, or the first of them, and not only the kind of exception."""
    report = reports.everyday()
    group = report["failures"][0]
    group["reason"] = "KeyError"
    group["examples"] = [{**group["examples"][0], "text": message} for message in messages]
    assert f": <bdi>{said}</bdi></summary>" in render(report)


def test_a_command_is_whole() -> None:
    """What is copied into a shell has its middle, however long its paths are and whatever else there was to say."""
    command = f"filemill failures {'/deep' * 800}/pipeline.yaml"
    report = reports.huge()
    report["verdict"] = report.pop("verdict") | {"next": [command]}
    assert f"<code>{command}</code>" in render(report)


def test_a_picture_is_data_or_left_out() -> None:
    """Nothing else gets to be the address of a picture, and the other pictures stay."""
    report = reports.everyday()
    for pair, data in zip(
        report["gallery"], ("javascript:alert(1)", "https://example.org/a.png", "data:text/html,x", ""), strict=False
    ):
        pair["before"]["data"] = data
    page = render(report)
    assert page.count("<img ") == 2 * (len(report["gallery"]) - 4) and "example.org" not in page


def test_a_report_is_not_changed() -> None:
    """What is shown of it is shortened and escaped; the JSON beside the page is whole."""
    report = reports.hostile()
    before = repr(report)
    render(report)
    assert repr(report) == before


def test_numbers_from_the_page_are_rounded_as_everywhere() -> None:
    """Below a second in smaller units; nothing is called 1,000 of the smaller one."""
    assert [html._seconds(each) for each in (0, 0.0000042, 0.0042, 0.42, 0.9994, 0.9999, 42, None)] == [
        "0 s", "4 µs", "4.2 ms", "420 ms", "999 ms", "1.0 s", "42 s", "–",
    ]  # fmt: skip
    assert html._size(-1_500_000) == "−1.5 MB"
    assert [html._count(each) for each in (1_234_567, 2.0, 21.54, 1234.5, None)] == [
        "1,234,567",
        "2",
        "21.5",
        "1,234",
        "–",
    ]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package in another folder, with no compiled template."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(html.__file__).parents[1], tmp_path / "pipeline", ignore=ignored)
    return tmp_path


def compile_count(folder: Path, *options: str) -> int:
    """How often a process that makes a page compiles its template."""
    code = (
        "import jinja2, sys; times = []; compile_ = jinja2.Environment.compile\n"
        "jinja2.Environment.compile = lambda *args, **more: (times.append(1), compile_(*args, **more))[1]\n"
        "from pipeline.report.html import load_template; load_template(); print(len(times))"
    )
    command = [sys.executable, *options, "-c", code]
    environment = {"PYTHONPATH": str(folder), "PATH": ""}
    return int(subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True).stdout)


def test_a_template_is_compiled_once(copied: Path) -> None:
    """Later runs take the compiled one; a ruined one is replaced, and an edited template compiled again."""
    assert [compile_count(copied), compile_count(copied)] == [1, 0]
    (kept,) = (copied / "pipeline/report/templates/__pycache__").iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    assert [compile_count(copied), compile_count(copied)] == [1, 0]
    with open(copied / "pipeline/report/templates/report.html", "a") as template:
        template.write("<!-- edited -->")
    assert [compile_count(copied), compile_count(copied)] == [1, 0]


def test_no_compiled_template_is_left_where_none_is_wanted(copied: Path) -> None:
    """Python's own option holds for templates too; so does a folder that takes no file."""
    assert compile_count(copied, "-B") == 1
    assert not (copied / "pipeline/report/templates/__pycache__").exists()
    (copied / "pipeline/report/templates/__pycache__").write_text("no folder")
    assert compile_count(copied) == 1
