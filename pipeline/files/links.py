"""Links to files and folders: which ones another user may have planted, and which ones outputs may go through.

People link `out/2024` to another disk, and so a run lists the links that there are below its output folders before it
writes anything, in their owner files. A link that comes later is not one of them, and nothing is written through it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.errors import FileFailure
from pipeline.text import shown

# Write permission for others than the owner.
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# The number of folders that are remembered, so that each is looked at once: outputs come in the order of folders.
_REMEMBERED = 1_000


def is_planted(link: os.stat_result, folder: os.stat_result) -> bool:
    """Return whether another user may have made a link: it is neither root's nor ours, where others can write."""
    trusted = (0, os.geteuid())
    return link.st_uid not in trusted and (bool(folder.st_mode & _BY_OTHERS) or folder.st_uid not in trusted)


def _links_between(root: bytes, folder: bytes) -> Iterator[bytes]:
    """Yield the links on the way from a root to a folder below it, relative to the root."""
    found, at = os.path.join(folder, b""), len(os.path.join(root, b""))
    while at := found.find(b"/", at) + 1:
        if os.path.islink(found[: at - 1]):
            yield found[len(os.path.join(root, b"")) : at - 1]


def _root_of(path: bytes, roots: Iterable[bytes]) -> bytes | None:
    """Return the innermost of some folders around a path; None outside all."""
    around = (root for root in roots if os.path.join(path, b"").startswith(os.path.join(root, b"")))
    return max(around, key=len, default=None)


def find_links(roots: Sequence[bytes], paths: Iterable[bytes], inputs: bytes) -> dict[bytes, dict[str, str]]:
    """Return for each root the links below it by which files lie there, relative to it, and where each leads.

    Links that another user may have planted are left out, and so are those that lead among the inputs.
    """
    inputs = os.path.realpath(inputs)
    found: dict[bytes, dict[str, str]] = {root: {} for root in roots}
    seen = set[bytes]()
    for path in paths:
        folder = path[: path.rfind(b"/")]
        if folder in seen:
            continue
        if len(seen) >= _REMEMBERED:
            seen.clear()
        seen.add(folder)
        if os.path.realpath(folder) == folder or (root := _root_of(folder, roots)) is None:
            continue
        for link in _links_between(root, folder):
            whole = os.path.join(root, link)
            leads = os.path.realpath(whole)
            is_among_inputs = _root_of(leads, [inputs]) is not None and _root_of(leads, roots) is None
            if not (is_among_inputs or is_planted(os.lstat(whole), os.stat(os.path.dirname(whole)))):
                found[root][os.fsdecode(link)] = os.fsdecode(leads)
    return found


def refuse_unlisted(folder: bytes, root: bytes, listed: Mapping[str, str]) -> None:
    """Raise FileFailure where a link that is not listed, or leads elsewhere now, lies between a root and a folder."""
    for link in _links_between(root, folder):
        whole = os.path.join(root, link)
        if listed.get(os.fsdecode(link)) != os.fsdecode(os.path.realpath(whole)):
            where = f"{shown(whole)} is a link to {shown(os.readlink(whole))}"
            why = "it leads among the inputs, came after the run began, or another user may have made it"
            raise FileFailure(f"{where}: {why}, so nothing is written through it; remove it, or make it yourself")
