"""Stands on PYTHONPATH before the package of this name, so that a run is measured as if that were not installed."""

raise ModuleNotFoundError
