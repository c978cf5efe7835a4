"""A project whose run was killed, a person's edits in it, and what may become of the files of its state."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from pipeline.ledger.ledger import Ledger
from pipeline.messages import Outcome
from pipeline.operations import recorder
from pipeline.report.summary import Summary
from support.project import Project

PLAIN = """
def upper(text: str, *, mark: str = "") -> str:
    return text.upper() + mark
"""
FAN_OUT = """
from collections.abc import Iterator
def upper(text: str, *, mark: str = "") -> Iterator[str]:
    for number in range(3):
        yield f"{text.upper()}{mark} {number}"
"""
YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
engine: serial
"""
STAGES = {"plain": (PLAIN, YAML), "fan-out": (FAN_OUT, YAML.replace("{name}'", "{name}-{part}.txt'"))}
PARTS = 3


class Trial:
    """One project: some files made, one of their outputs edited, and files to come."""

    def __init__(self, folder: Path, kind: str, count: int = 5) -> None:
        stage, yaml = STAGES[kind]
        self.kind = kind
        self.project = Project(folder, yaml)
        self.project.write("stages/upper.py", stage)
        self.folder = folder
        self.state = folder / ".pipeline/pipeline"
        self.edits: dict[str, bytes] = {}
        self.add("old", count)
        assert self.project.run().exit == 0

    def add(self, prefix: str, count: int) -> None:
        """Write new input files."""
        for number in range(count):
            self.project.write(f"in/{prefix}{number}", f"text {prefix}{number}")

    def outputs_of(self, name: str) -> list[str]:
        """The names of the outputs of one input file."""
        return [name] if self.kind == "plain" else [f"{name}-{number + 1:06}.txt" for number in range(PARTS)]

    def edit(self, name: str) -> None:
        """Have a person edit the first output of an input file."""
        output = self.outputs_of(name)[0]
        self.edits[output] = f"by a person, of {output}".encode()
        self.project.write(f"out/{output}", self.edits[output])

    def expected(self) -> dict[str, bytes]:
        """The outputs as they are to be, but for edits."""
        found = {}
        for source in sorted((self.folder / "in").iterdir()):
            text = source.read_text().upper()
            if self.kind == "plain":
                found[source.name] = text.encode()
            else:
                found |= {each: f"{text} {n}".encode() for n, each in enumerate(self.outputs_of(source.name))}
        return found

    def kill_run(self, after: int) -> None:
        """Run and commit every outcome at once, and be killed after some."""
        if (child := os.fork()) == 0:
            try:
                recorder.COMMIT_EVERY_S = -1.0
                record, seen = Ledger.record, 0

                def record_and_die(self: Ledger, outcome: Outcome, *rest: object) -> None:
                    nonlocal seen
                    if seen >= after:
                        os.kill(os.getpid(), signal.SIGKILL)
                    record(self, outcome, *rest)  # type: ignore[arg-type]
                    seen += 1

                Ledger.record = record_and_die  # type: ignore[method-assign, assignment]
                self.project.run()
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def check(self) -> Summary:
        """Run twice: all outputs are right, no edit is lost, each is counted or named, and then nothing is left."""
        summary = self.project.run()
        kept = {file.read_bytes() for file in (self.state / "set-aside").rglob("*") if file.is_file()}
        found = self.project.outputs()
        for name, text in self.expected().items():
            if name in self.edits and found.get(name) == self.edits[name]:
                continue
            assert found.get(name) == text, (name, found.get(name))
            assert name not in self.edits or self.edits[name] in kept, f"the edit of {name} is lost"
        in_place = sum(found.get(name) == text for name, text in self.edits.items())
        assert (summary.exit, summary.edited) == (0, in_place), summary
        for name, text in self.edits.items():
            assert found[name] == text or any(f"out/{name}" in note for note in summary.notes)
        again = self.project.run()
        assert (again.exit, again.done) == (0, 0)
        return summary


# -- damage ------------------------------------------------------------------------------------------------------------


def empty(data: bytes) -> bytes:
    return b""


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    chance, found = random.Random(len(data)), bytearray(data)
    for _ in range(20):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def zero(data: bytes) -> bytes:
    chance, found = random.Random(len(data)), bytearray(data)
    for page in range(0, len(found), 4096):
        if chance.random() < 0.3:
            found[page : page + 4096] = bytes(len(found[page : page + 4096]))
    return bytes(found)


HARMS: dict[str, Callable[[bytes], bytes] | None] = {
    "emptied": empty, "half": half, "flipped": flip, "zeroed": zero, "gone": None, "older": None,
}  # fmt: skip
VICTIMS = ("ledger.sqlite", "ledger.sqlite-wal", "ledger-good.sqlite", "lock", "id", "progress.json", "out/.filemill")


def spoil(trial: Trial, victim: str, harm: str, older: Path) -> bool:
    """Do harm to a file of a state, of which `older` is a copy from before; tells whether anything changed."""
    file = trial.folder / victim if "/" in victim else trial.state / victim
    before = file.read_bytes() if file.exists() else None
    if harm == "older":
        then = older / file.name
        if then.exists():
            shutil.copy2(then, file)
        else:
            file.unlink(missing_ok=True)
    elif harm == "gone":
        file.unlink(missing_ok=True)
    elif before:
        change = HARMS[harm]
        assert change
        file.write_bytes(change(before))
    return before != (file.read_bytes() if file.exists() else None)


def keep_older(trial: Trial, place: Path) -> Path:
    """Copy the files of a state, and the owner file of its outputs."""
    shutil.copytree(trial.state, place)
    shutil.copy2(trial.folder / "out/.filemill", place)
    return place
