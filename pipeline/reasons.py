"""Why something is so, less the particulars of one file: to be counted by, since those may be as many as the files."""

from __future__ import annotations

import re
from functools import lru_cache

# What particulars come after; and what is one wherever it stands: a quoted word that is no stage's name, or a number.
_BEFORE = re.compile(r"[:;,(]")
_PARTICULAR = re.compile(r"""(?<!stage\ )(?<!\w)(?:'[^']*'|"[^"]*")|\d[\w.]*""", re.VERBOSE)

# How many of a group are in a state: the state is the reason.
_MEMBERS = re.compile(r"[\d,]+ members? (?=failed$|to be made$)")

PATH_CHANGED = "path changed"
NOT_OURS = "exists, not ours"
NO_FILE = "something that is no file stands in its place"
# What a plan says with particulars, by how it begins.
_SAID = {
    "source changed (": "source changed",
    "output torn (": "output torn",
    "collision with ": "collision",
    "moved from ": PATH_CHANGED,
}


def reason_of(text: str) -> str:
    """What an error, or a stage that leaves a file out, has said."""
    if counted := _MEMBERS.match(text):
        return f"members {text[counted.end() :]}"
    head = _BEFORE.split(text, maxsplit=1)[0].strip()
    return _PARTICULAR.sub("...", head or text)


@lru_cache(maxsize=256)
def planned_reason(action: str, why: str) -> str:
    """Why a plan does with an output what it does."""
    if why.startswith("skipped: "):
        return f"skipped: {reason_of(why.removeprefix('skipped: '))}"
    for begin, said in _SAID.items():
        if why.startswith(begin):
            return said
    if (action == "refuse" and why != NOT_OURS) or _MEMBERS.match(why):
        return reason_of(why)
    return why
