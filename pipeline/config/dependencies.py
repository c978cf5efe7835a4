"""Resolves `depends` and `libraries`: the files and the versions that count as part of the recipes.

Imported only for a pipeline that has one of these keys.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config.document import Document
from pipeline.config.model import Config, PipelineEntry
from pipeline.stage.options import Place
from pipeline.text import did_you_mean, shown

_WILD = re.compile(r"[*?[]")


def with_dependencies(config: Config, entry: PipelineEntry, document: Document) -> Config:
    """Return the pipeline with the files that its patterns match, and the versions of the libraries it names."""
    finder = _FileFinder(config, document)
    files = [
        finder.files(("stages", index), f"stage {each.name!r}: ", each.depends)
        for index, each in enumerate(entry.stages)
    ]
    return replace(
        config,
        depends=finder.files((), "", entry.depends),
        # Where a stage was not found, the document has a complaint about it, and this Config is not used.
        stages=tuple(replace(stage, depends=its) for stage, its in zip(config.stages, files, strict=False)),
        versions=_versions_of(document, entry.libraries),
    )


class _FileFinder:
    """Finds the files that `depends` names; adds complaints and warnings to the document."""

    def __init__(self, config: Config, document: Document) -> None:
        self._document = document
        self._folder = config.folder
        self._root = config.inputs.root
        outputs = [(each.output.template.folder, each.name) for each in config.leaves if each.output]
        written = {Path(os.fsdecode(place)): f"the output folder of stage {name!r}" for place, name in outputs}
        written[config.state] = "the state folder"
        if config.trace_folder:
            written[config.trace_folder] = "the folder of traces"
        # Outputs may lie beside the YAML, where everything else does too.
        self._written = {place: whose for place, whose in written.items() if not _is_in(config.folder, place)}
        """The folders to which every run writes, by path, each with its description."""

    def files(self, place: Place, who: str, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the files that these patterns match, relative to the YAML's folder."""
        found: set[str] = set()
        for index, pattern in enumerate(patterns):
            at = (*place, "depends", index)
            # A file that exists under this very name is meant, even if the name has wildcards in it.
            named = not _WILD.search(pattern) or os.path.lexists(self._path(pattern))
            found.update(self._named(at, who, pattern) if named else self._matching(at, who, pattern))
        return tuple(sorted(found))

    def _path(self, name: str) -> Path:
        return Path(os.path.normpath(self._folder / os.path.expanduser(name)))

    def _named(self, at: Place, who: str, name: str) -> Iterator[str]:
        """Yield the normalised path of a named file; complain instead if it is no regular file or the runs write it."""
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
        """Return the files that match a pattern, without those that the runs write."""
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


def _versions_of(document: Document, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of the distributions of these names; complain about those that are not installed."""
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
    """Return a distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
