"""The SQLite memory of what was made from what, and its recovery."""
