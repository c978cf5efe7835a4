"""`python -m pipeline`."""

import os
import sys


def search_working_folder_last() -> None:
    """Let nothing in the working folder, such as a user's random.py, take the place of one of Python's modules.

    Python searches that folder first here; the checkout that this may be run from keeps its place.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and sys.path[0] != ours:
        sys.path.append(sys.path.pop(0))


if __name__ == "__main__":
    search_working_folder_last()

    from pipeline.cli import be_program

    be_program()
