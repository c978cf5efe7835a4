"""Lanczos in floating point, to compare pixels with, and the implementations of it that tests run with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from bench.resizing.lanczos import exact_lanczos, premultiplied, psnr_db
from pipeline.images.resample import fast_lanczos

__all__ = ["backend", "exact_lanczos", "premultiplied", "psnr_db"]


@pytest.fixture(params=["Pillow", "cykooz-resizer"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test without and, where it is installed, with the extra `fast`."""
    if request.param == "Pillow":
        monkeypatch.setitem(sys.modules, "cykooz_resizer", None)  # import raises ImportError
    else:
        pytest.importorskip("cykooz_resizer")
    fast_lanczos.cache_clear()
    yield request.param
    fast_lanczos.cache_clear()
