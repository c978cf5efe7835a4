"""Shared code of the tests: projects, pictures, pools, and the program run as a user runs it."""
