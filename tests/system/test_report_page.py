"""The page of a report in a real browser: quiet, self-contained, readable by everyone, at every width and on paper."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from support import reports
from support.browser import axe, chromium, visit

from pipeline.report.html import MOST_BYTES, render
from pipeline.text import format_bytes, format_duration, local_time, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KINDS = {"everyday": reports.everyday, "empty": reports.empty, "huge": reports.huge, "hostile": reports.hostile}
# Members that are no figures of the run: of the format itself, of charts with a text beside them, of examples.
NO_FIGURES = ("format", "timeline.start", ".histogram", ".examples.", "new.failures.")
# The elements of the template: one more would be of somebody's text.
ELEMENTS = (
    "html head meta link title style body header main footer nav section h1 h2 h3 p a ul li dl div dt dd pre code bdi"
    " data span strong small details summary figure figcaption img ins del table thead tbody tr th td svg rect path"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of all kinds of reports, by kind."""
    folder = tmp_path_factory.mktemp("pages")
    files = {kind: folder / f"{kind}.html" for kind in KINDS}
    for kind, file in files.items():
        file.write_text(render(KINDS[kind]()), "utf-8")
    return files


@pytest.mark.parametrize("width", [360, 800, 1440])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_says_asks_and_runs_nothing(browser: Browser, pages: dict[str, Path], kind: str, width: int) -> None:
    """No message of the console, no request, no dialog; and nothing is wider than the window, folded or not."""
    with visit(browser, pages[kind], width=width) as opened:
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("typeof window.ran") == "undefined"
        assert opened.said == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_one_small_file_of_our_own_elements(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    """It loads nothing, has neither scripts nor handlers nor inline styles, and hostile text adds no element."""
    assert pages[kind].stat().st_size < MOST_BYTES
    with visit(browser, pages[kind]) as opened:
        page = opened.page
        policy = page.get_attribute("meta[http-equiv]", "content") or ""
        assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
        assert page.evaluate("document.styleSheets[0].cssRules.length") > 50  # the policy lets our own style pass
        tags = page.evaluate("[...document.querySelectorAll('*')].map(each => each.localName)")
        assert set(tags) <= set(ELEMENTS.split()) and tags.count("h1") == 1
        names = page.evaluate("[...document.querySelectorAll('*')].flatMap(each => each.getAttributeNames())")
        assert not [name for name in names if name == "style" or name.startswith("on")]
        links = page.evaluate(
            "[...document.querySelectorAll('[href], [src]')].map(e => e.getAttribute('href') ?? e.src)"
        )
        assert all(link.startswith(("#", "data:,", "data:image/jpeg;base64,")) for link in links)


def test_hostile_names_are_read_as_they_are(browser: Browser, pages: dict[str, Path]) -> None:
    """What a file is called is what a person reads; what cannot be seen is escaped."""
    with visit(browser, pages["hostile"]) as opened:
        notes = opened.page.evaluate("[...document.querySelectorAll('.notes li')].map(each => each.textContent)")
    expected = [shown(each.encode("utf-8", "backslashreplace")) for each in reports.attacks()]
    assert [note for note in notes if len(note) < 250] == [each for each in expected if len(each) < 250]
    assert r"\u202egnp.exe" in notes and r"lone \udcff surrogate \ud800" in notes and "{{7*7}}" in notes


@pytest.mark.parametrize("kind", ["everyday", "empty"])
def test_figures_are_those_of_the_report(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    """Every number of report.json is on the page, exact for programs and as elsewhere for people."""
    with visit(browser, pages[kind]) as opened:
        found: list[list[str]] = opened.page.evaluate(
            "[...document.querySelectorAll('[data-of]')].map(e => "
            "[e.dataset.of, e.value ?? e.dataset.value, e.localName == 'data' ? e.textContent : ''])"
        )
    numbers = dict(leaves(KINDS[kind](), ""))
    for of, value, text in found:
        number = numbers[of]
        assert value == "" if number is None else float(value) == number, of
        assert not text or text == said(of, number), of
    figures = {of for of in numbers if not any(each in of for each in NO_FIGURES)}
    missing = figures - {of for of, *_ in found}
    # Of a run that has nothing, only the rarer counts, which are 0, and the step of no timeline are not said.
    assert [of for of in missing if kind != "empty" or (numbers[of] and of != "timeline.step_s")] == []


def leaves(value: Any, of: str) -> Iterator[tuple[str, float | None]]:
    """Yield the path and the value of each number in a report."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{of}.{key}".lstrip("."))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from leaves(each, f"{of}.{place}")
    elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        yield of, value


def said(of: str, number: float | None) -> str:
    """How a person reads a number, by its unit."""
    if number is None:
        return "–"
    if of.endswith(("bytes", "bytes_in", "bytes_out")) or of.startswith("bytes."):
        return format_bytes(number)
    if of.endswith(("_s", "seconds")):
        small = f"{number * 1000:.0f} ms" if number >= 0.01 else f"{number * 1000:.1f} ms"
        return format_duration(number) if number >= 1 else small
    return local_time(number) if of.endswith(("started", "ended")) else f"{number:,}"


def test_all_is_reached_by_the_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    """Tab goes to every link, fold and scrolled table, visibly; Enter unfolds."""
    with visit(browser, pages["everyday"], width=360) as opened:
        page = opened.page
        page.evaluate("document.querySelectorAll('a, summary, .scroll').forEach((each, n) => each.dataset.n = n)")
        reached = []
        while True:
            page.keyboard.press("Tab")
            at = page.evaluate(
                "(e => e == document.body ? null : ({n: e.dataset.n, outline: getComputedStyle(e).outlineStyle,"
                " folded: e.localName == 'summary' && !e.parentElement.open,"
                " seen: e.getBoundingClientRect().bottom > 0 && e.getBoundingClientRect().top < innerHeight}))"
                "(document.activeElement)"
            )
            if at is None:
                break
            assert at["outline"] == "solid" and at["seen"], at
            reached.append(int(at["n"]))
            if at["folded"]:
                page.keyboard.press("Enter")
        assert reached == list(range(page.evaluate("document.querySelectorAll('a, summary, .scroll').length")))
        assert page.evaluate("[...document.querySelectorAll('details')].every(each => each.open)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["everyday", "empty", "hostile"])
def test_axe_finds_nothing(browser: Browser, pages: dict[str, Path], kind: str, scheme: str) -> None:
    """Contrast, names, roles, headings and landmarks are as the rules for accessible pages want them."""
    source = axe()
    with visit(browser, pages[kind], scheme=scheme) as opened:
        page = opened.page
        open_all(page)
        page.evaluate(source)
        result = page.evaluate("axe.run({resultTypes: ['violations']})")
        found = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in result["violations"]]
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_prints_whole(browser: Browser, pages: dict[str, Path], scheme: str, tmp_path: Path) -> None:
    """On paper all is unfolded and dark on light, and no row of a table is cut in two by the end of a page."""
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext here: apt-get install poppler-utils")
    with visit(browser, pages["everyday"], scheme=scheme) as opened:
        page = opened.page
        page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
        open_all(page)
        rows: list[str] = page.evaluate("[...document.querySelectorAll('tr')].map(each => each.innerText)")
        folded: list[str] = page.evaluate("[...document.querySelectorAll('details pre')].map(each => each.innerText)")
    subprocess.run(["pdftotext", "-raw", "page.pdf"], cwd=tmp_path, check=True)
    sheets = [squeezed(each) for each in (tmp_path / "page.txt").read_text("utf-8").split("\f")]
    assert len(rows) > 80 and [row for row in rows if not any(squeezed(row) in sheet for sheet in sheets)] == []
    assert [text for text in folded if squeezed(text) not in "".join(sheets)] == []
    subprocess.run(["pdftoppm", "-r", "20", "-gray", "page.pdf", "sheet"], cwd=tmp_path, check=True)
    for file in tmp_path.glob("sheet*"):
        with Image.open(file) as sheet:
            assert sheet.getpixel((1, 1)) == 255  # the margin


def squeezed(text: str) -> str:
    """A text without spaces and line ends, which differ on paper."""
    return "".join(text.split())


def open_all(page: Page) -> None:
    """Unfold all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
