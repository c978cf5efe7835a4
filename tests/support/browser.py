"""A headless Chromium without a network, and axe-core; a test is skipped with the reason where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_AXE = "axe-core@4.11.0"
# Where npm's package is kept between runs; `.ci/run` fills it before the tests, which else do so themselves.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "filemill-tests"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium; the test is skipped without one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page of our own in the browser, with all that it said, asked for or ran."""

    def __init__(self, browser: Browser, file: Path, *, width: int = 800, scheme: Any = "light") -> None:
        self.said: list[str] = []
        """The messages of the console, errors, dialogs and requests: a good page has none."""
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self._context.route(lambda url: url != file.as_uri() and not url.startswith("data:"), self._refuse)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda message: self.said.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self._note_request(request.url, file))
        self.page.on("dialog", self._dismiss)
        self.page.goto(file.as_uri())

    def _refuse(self, route: Any) -> None:
        self.said.append(f"request: {route.request.url}")
        route.abort()

    def _note_request(self, url: str, file: Path) -> None:
        if url != file.as_uri() and not url.startswith("data:"):
            self.said.append(f"request: {url}")

    def _dismiss(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        """Close the page and all that belongs to it."""
        self._context.close()


@contextmanager
def visit(browser: Browser, file: Path, **options: Any) -> Iterator[Visit]:
    """Open a file in a browser of its own."""
    opened = Visit(browser, file, **options)
    try:
        yield opened
    finally:
        opened.close()


def axe() -> str:
    """Return the source of axe-core, from the cache or npm; the test is skipped where neither has it."""
    kept = _CACHE / f"{_AXE}.js"
    if not kept.exists():
        _fetch(kept)
    return kept.read_text("utf-8")


def _fetch(kept: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm here to fetch axe-core: apt-get install npm")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = ["npm", "pack", "--silent", _AXE]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            pytest.skip(f"npm could not fetch {_AXE}: {done.stderr.strip()[-200:]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            source = package.extractfile("package/axe.min.js")
            assert source is not None
            made = Path(folder) / "axe.js"
            made.write_bytes(source.read())
        made.replace(kept)  # two at once may fetch it, and neither reads half of it
