"""What else counts as part of the recipes: the files that `depends` names, and the versions of `libraries`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.config.document import Document
from pipeline.config.model import StageConfig
from pipeline.config.schema import Declared
from pipeline.stage.options import Place
from pipeline.text import did_you_mean, shown

_WILD = re.compile(r"[*?[]")


class Depends:
    """Finds the files whose contents count; complaints and warnings go to the document."""

    def __init__(
        self, document: Document, folder: Path, root: Path, state: Path, stages: Sequence[StageConfig]
    ) -> None:
        self._document = document
        self._folder = folder
        self._root = root
        outputs = ((Path(os.fsdecode(each.output.template.folder)), each.name) for each in stages if each.output)
        written = {place: f"the output folder of stage {name!r}" for place, name in outputs} | {
            state: "the state folder"
        }
        # Outputs may lie beside the YAML, where everything else does too.
        self._written = {place: whose for place, whose in written.items() if not _is_in(folder, place)}
        """The folders in which every run writes, and whose they are."""

    def of_pipeline(self, declared: Declared) -> tuple[str, ...]:
        """The files that count for every output, relative to the YAML's folder."""
        return self._files((), "", declared.depends)

    def of_stages(self, declared: Declared) -> list[tuple[str, ...]]:
        """For each stage the files that count for it and all below."""
        stages = enumerate(declared.stages)
        return [self._files(("stages", index), f"stage {each.name!r}: ", each.depends) for index, each in stages]

    def _files(self, place: Place, who: str, patterns: Sequence[str]) -> tuple[str, ...]:
        found: set[str] = set()
        for index, pattern in enumerate(patterns):
            at = (*place, "depends", index)
            # A name that is there is meant, whatever is in it.
            named = not _WILD.search(pattern) or os.path.lexists(self._path(pattern))
            found.update(self._named(at, who, pattern) if named else self._matching(at, who, pattern))
        return tuple(sorted(found))

    def _path(self, name: str) -> Path:
        return Path(os.path.normpath(self._folder / os.path.expanduser(name)))

    def _named(self, at: Place, who: str, name: str) -> Iterator[str]:
        """The file of a name, if it is one that can count."""
        path, problem = self._path(name), ""
        if path.is_dir():
            problem = f"{name!r} is a folder; say '{name.rstrip('/')}/**' for all that is in it"
        elif not path.exists():
            beside = os.listdir(path.parent) if path.parent.is_dir() else []
            meant = [os.path.join(os.path.dirname(name), each) for each in beside if not _is_undecodable(each)]
            problem = f"no file {name!r}{did_you_mean(name, meant)}"
        elif not path.is_file():
            problem = f"{name!r} is no regular file"
        elif whose := self._whose(path):
            problem = f"{name!r} lies in {whose}, where every run writes"
        if problem:
            self._document.complain(at, f"{who}depends: {problem}")
        else:
            yield os.path.normpath(os.path.expanduser(name))

    def _matching(self, at: Place, who: str, pattern: str) -> list[str]:
        """The files that match a pattern; none of those that the runs write."""
        found = glob.glob(os.path.expanduser(pattern), root_dir=self._folder, recursive=True)
        paths = {os.path.normpath(each): self._path(each) for each in found}
        files = [each for each, path in paths.items() if path.is_file() and not self._whose(path)]
        if not files:
            self._document.warn(at, f"{who}depends: no file matches {pattern!r}")
        elif inputs := sum(_is_in(paths[each], self._root) for each in files):
            text = f"{pattern!r} matches {inputs:,} of the files under the input root; each that changes redoes all"
            self._document.warn(at, f"{who}depends: {text}")
        return files

    def _whose(self, path: Path) -> str:
        return next((whose for place, whose in self._written.items() if _is_in(path, place)), "")


def _is_in(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _is_undecodable(name: str) -> bool:
    return shown(os.fsencode(name)) != name


def versions_of(document: Document, names: Sequence[str]) -> dict[str, str]:
    """The versions of the distributions of these names; complaints about those that are not installed."""
    if not names:
        return {}
    from importlib import metadata

    versions = {}
    for index, name in enumerate(names):
        try:
            versions[_normal(name)] = metadata.version(name) or "unknown"
        except metadata.PackageNotFoundError:
            # An import's name is a likely mistake: that of pillow is PIL.
            meant = metadata.packages_distributions().get(name)
            installed = {_normal(each.name) for each in metadata.distributions() if each.name}
            asks = f"; did you mean {meant[0]!r}?" if meant else did_you_mean(_normal(name), installed)
            document.complain(("libraries", index), f"libraries: no distribution {name!r} is installed{asks}")
    return versions


def _normal(name: str) -> str:
    """A distribution's name as the index of packages compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
