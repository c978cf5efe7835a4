"""The groups of files that are gathered: what stands for one in the ledger in place of a source, and how it is shown.

/sheet            all files, of a stage `sheet` without `group`
/sheet/2024/05    those of the group `2024/05`; no source's path begins with a slash, and so these are none's
"""

from __future__ import annotations

from typing import Any

from pipeline.names import as_json, shown

GROUPS = b"/", b"0"
"""Between these lie the groups in the order of sources, and nothing else: "0" is what comes after "/"."""
OF_GROUPS = "(source >= X'2F' AND source < X'30')"
"""The same, as a condition on what the ledger and the plan hold."""
OF_FILES = "(source < X'2F' OR source >= X'30')"
_ALL = "all files"


def source_of(stage: str, group: bytes | None) -> bytes:
    """What stands for a group; None for the one of a stage that has no others."""
    return b"/" + stage.encode() + (b"" if group is None else b"/" + group)


def is_group(source: bytes) -> bool:
    """Whether this stands for a group."""
    return source.startswith(b"/")


def group_in(source: bytes) -> bytes | None:
    """The name of a group; None for the one of a stage that has no others."""
    _, slash, group = source[1:].partition(b"/")
    return group if slash else None


def shown_source(source: bytes) -> str:
    """What an output was made of, for a person: the path of a file, or the name of a group."""
    if not is_group(source):
        return shown(source)
    group = group_in(source)
    return _ALL if group is None else f"group {shown(group) or repr('')}"


def source_as_json(source: bytes) -> dict[str, Any]:
    """The same for programs: the key `source`, and for a group that without a value, and the key `group`."""
    if not is_group(source):
        return dict(as_json(source))
    group = group_in(source)
    return {"source": None, **({"group": None} if group is None else as_json(group, "group"))}
