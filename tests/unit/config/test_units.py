"""pipeline/config/units.py: amounts are read and written with their units."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from pipeline.config.units import DURATION, PIXELS, SIZE, Amount, Share


@pytest.mark.parametrize(
    ("unit", "text", "amount"),
    [
        (DURATION, "500ms", 0.5), (DURATION, "60s", 60), (DURATION, "1.5 m", 90), (DURATION, "2h", 7200),
        (DURATION, "1d", 86400), (SIZE, "5B", 5), (SIZE, "1kB", 1000), (SIZE, "1.5MiB", 3 << 19),
        (SIZE, "2 GiB", 2 << 30), (PIXELS, "200MP", 200_000_000), (PIXELS, "0.5 GP", 500_000_000),
    ],
)  # fmt: skip
def test_an_amount_carries_its_unit(unit: Amount, text: str, amount: float) -> None:
    """The value is counted in the base unit, and whole where that cannot be divided."""
    parsed = unit.parse(text)
    assert parsed == amount
    assert isinstance(parsed, float if unit is DURATION else int)


@pytest.mark.parametrize(
    ("unit", "amount", "text"),
    [(DURATION, 600.0, "10m"), (DURATION, 90.0, "90s"), (PIXELS, 100_000_000, "100MP"), (SIZE, 2 << 30, "2GiB")],
)
def test_an_amount_is_written_in_its_largest_unit(unit: Amount, amount: float, text: str) -> None:
    """What is written can be read again."""
    assert unit.write(amount) == text
    assert unit.parse(text) == amount


def test_a_share_is_exact() -> None:
    """29 % of 100 are 29, although 0.29 * 100 is less in floats; a share is shown as it was written."""
    share = Share("29%")
    assert (share.of(100), str(share)) == (29, "29%")


def test_a_checked_pipeline_needs_no_pydantic() -> None:
    """Whoever is handed a Config, such as a process that unpickles one, imports neither pydantic nor yaml for it."""
    from pipeline.config.model import Errors, Pool

    data = pickle.dumps((Pool(), Errors(max=Share("5%"))))
    code = f"import pickle, sys; pickle.loads({data!r}); print({{'pydantic', 'yaml'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
