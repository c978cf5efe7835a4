"""Names the extras without which pictures among the inputs cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.config.model import Config
from pipeline.config.routes import reads, route_of
from pipeline.files.walk import Walk
from pipeline.images.extras import EXTRAS
from pipeline.stage.recognition import reading_kind, suffix_of
from pipeline.stage.values import IMAGE, PICTURE
from pipeline.text import counted


def describe_missing(suffixes: Iterable[bytes]) -> Iterator[str]:
    """Yield a line for each missing extra whose format some files have, given the suffix of each file."""
    missing = {suffix: extra for extra in EXTRAS if not extra.is_installed for suffix in extra.suffixes}
    found = Counter(missing[suffix] for suffix in suffixes if suffix in missing) if missing else {}
    for extra, count in found.items():
        yield f"{counted(count, 'file')} cannot be read: {extra.missing}"


def describe_missing_for(config: Config, walk: Walk) -> Iterator[str]:
    """Yield a line for each missing extra without which a stage cannot read some of its pictures."""
    routes = ((leaf, reading_kind([each.stage for each in route_of(config, leaf)])) for leaf in config.leaves)
    leaves = [leaf for leaf, kind in routes if kind in (IMAGE, PICTURE)]
    if leaves and not all(extra.is_installed for extra in EXTRAS):
        paths = (source.path for source in walk)
        yield from describe_missing(
            suffix_of(path) for path in paths if any(reads(config, leaf, path) for leaf in leaves)
        )
