"""Which files count as code of a stage."""

from __future__ import annotations

from pipeline.stage.counted import counts
from pipeline.stage.resolve import BUNDLED


def test_in_a_checkout_all_but_the_bundled_stages_count() -> None:
    """Whoever keeps stages and helpers of his own beside them has them seen."""
    assert [path.name for path in sorted(BUNDLED.glob("*.py")) if counts(str(path))] == []
    assert counts(str(BUNDLED / "mine.py")) and counts(str(BUNDLED / "helpers" / "resize.py"))
