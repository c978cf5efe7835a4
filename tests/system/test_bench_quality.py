"""The table of `bench/resize.py --quality` says what was found."""

from __future__ import annotations

from PIL import Image

from bench.resizing.lanczos import exact_lanczos, psnr_db
from bench.resizing.quality import Score, as_markdown


def test_the_table_has_likeness_cost_and_size_side_by_side() -> None:
    """A line for each contender at each ratio, and the kinds by themselves."""
    scores = [
        Score(name, ratio, {"photo": [50.0, 54.0], "scan": [40.0]}, (12.3, 45.6), (7.8, 90.1))
        for ratio in (2, 9)
        for name in ("filemill", "sharp")
    ]
    lines = as_markdown(scores).splitlines()

    assert "| 9 | sharp | 48.0 | 40.0 | 12.3 | 7.8 | 45.6 | 90.1 |" in lines
    assert "| photo | 52.0 / 50.0 | 52.0 / 50.0 |" in lines


def test_the_exact_filter_keeps_what_is_even_and_tells_what_is_off() -> None:
    """One colour stays that colour, whatever the box; a level off is 48.1 dB."""
    image = Image.new("RGB", (90, 61), (200, 100, 50))
    exact = exact_lanczos(image, (17, 40), (3.5, 0.0, 71.25, 61.0))

    assert psnr_db(Image.new("RGB", (17, 40), (200, 100, 50)), exact) > 100
    assert abs(psnr_db(Image.new("RGB", (17, 40), (201, 101, 51)), exact) - 48.13) < 0.01
