"""A worker in this process, over a folder of its own, for the tests that give it jobs directly."""

from __future__ import annotations

import os
import pickle
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.messages import Job, Outcome, Result, Source, Target
from pipeline.worker import main as worker
from pipeline.worker.tree import StageSetup, WorkerSetup


class Bench:
    """A worker in this process, over a folder of its own."""

    def __init__(self, folder: Path, stages: str) -> None:
        self.folder, self.root, self.out, self.scratch = (folder, *(folder / n for n in ("in", "out", "scratch")))
        (folder / "stages").mkdir()
        (folder / "stages" / "mine.py").write_text(textwrap.dedent(stages))
        self.root.mkdir()
        self.outcome: Outcome | None = None

    def start(self, *stages: tuple[Any, ...], unclean_runs: tuple[str, ...] = ()) -> None:
        """Build the stages, given as (name, parent's name or None, options); the name up to a '-' is the function's."""
        names = [stage[0] for stage in stages]
        setups = tuple(
            StageSetup(name, f"./stages/mine.py:{name.partition('-')[0]}", pickle.dumps(options[0] if options else {}),
                 names.index(parent) if parent else None, {})
            for name, parent, *options in stages
        )  # fmt: skip
        root = os.fsencode(self.root)
        self.setup = WorkerSetup(
            self.folder, root, self.scratch, "run1", unclean_runs, setups, set_aside=self.folder / "aside"
        )
        worker.start(self.setup.pack())

    def work(self, source: str | bytes, *wanted: str, suffix: str = ".txt") -> dict[str, Result]:
        """Run a job and return the result of each wanted stage; the outputs are out/STAGE + suffix."""
        path = os.fsencode(source)
        try:
            found = os.stat(os.path.join(os.fsencode(self.root), path))
            source_seen = Source(path, found.st_size, found.st_mtime_ns)
        except FileNotFoundError:
            source_seen = Source(path, 1, 1)
        targets = tuple(Target(name, os.fsencode(self.out / (name + suffix))) for name in wanted)
        self.outcome = worker.work(Job(source_seen, targets))
        assert [(each.stage, each.path) for each in self.outcome.results] == [(t.stage, t.path) for t in targets]
        assert not self.scratch.exists() or not list(self.scratch.iterdir()), "the scratch folder is left behind"
        assert not list(self.folder.rglob(".filemill-*")), "a temporary is left behind"
        return {each.stage: each for each in self.outcome.results}

    def text(self, name: str, content: str = "hello") -> None:
        """Write a text source."""
        (self.root / name).write_text(content)

    def picture(self, name: str, color: str = "red", size: tuple[int, int] = (40, 20)) -> None:
        """Write a picture as a source."""
        Image.new("RGB", size, color).save(self.root / name)

    def made(self, name: str, suffix: str = ".txt") -> str:
        """Return the text of an output."""
        return (self.out / (name + suffix)).read_text()

    def pixel(self, name: str) -> Any:
        """Return the first pixel of an output."""
        with Image.open(self.out / f"{name}.png") as image:
            return image.convert("RGB").getpixel((0, 0))

    @property
    def module(self) -> Any:
        """Return the module of the stages."""
        return next(each for name, each in sys.modules.items() if name.endswith(".mine"))

    @property
    def calls(self) -> list[str]:
        """Return the list `calls` of the module, to which its stages append."""
        return self.module.CALLS


@contextmanager
def worker_bench(folder: Path, stages: str) -> Iterator[Bench]:
    """Return a worker for stages of this source text; the modules and paths that it adds are removed afterwards."""
    path, modules, tree = list(sys.path), dict(sys.modules), worker._tree
    yield Bench(folder, stages)
    sys.path[:], worker._tree = path, tree
    for name in [name for name in sys.modules if name.startswith(("stages", "filemill_folder_"))]:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in modules.items() if name.startswith("stages")})
