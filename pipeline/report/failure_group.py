"""The failures of a run that have one reason, as a person is told of them."""

from __future__ import annotations

from dataclasses import field

from pipeline.messages import Origin, Result
from pipeline.records import dataclass
from pipeline.text import counted, indented

# How many files of a group are named; no more than these have a line each.
_EXAMPLES = 3


@dataclass
class Example:
    """Outputs of one file that failed with the same text."""

    origin: Origin
    text: str
    detail: str
    stages: list[str]

    def line(self, place: str) -> str:
        """Return what failed, and why and where."""
        return f"  {self.origin} ({', '.join(self.stages)}): {self.text}{place}"


@dataclass
class SummaryGroup:
    """The failures of a run that have the same reason and the same place in the user's code, new ones or others."""

    reason: str
    place: str
    is_new: bool
    files: int = 0
    outputs: int = 0
    stages: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    has_one_text: bool = True
    last: Origin | None = None
    """The file that failed last, since outputs of one file follow each other."""

    def add(self, origin: Origin, result: Result) -> None:
        """Count a failed output."""
        self.files += origin != self.last
        self.outputs += 1
        self.last = origin
        if result.stage not in self.stages:
            self.stages.append(result.stage)
        known = self.examples[-1] if self.examples else None
        self.has_one_text = self.has_one_text and (known is None or known.text == result.text)
        if known and (known.origin, known.text) == (origin, result.text):
            known.stages.append(result.stage)
        elif len(self.examples) < _EXAMPLES:
            self.examples.append(Example(origin, result.text, result.detail, [result.stage]))

    @property
    def is_listed(self) -> bool:
        """True if each of its files has a line."""
        return self.outputs == sum(len(each.stages) for each in self.examples)

    def outputs_by_line(self) -> list[int]:
        """Return the number of outputs that each of the lines tells of."""
        return [len(each.stages) for each in self.examples] if self.is_listed else [self.outputs]

    def lines(self, *, verbose: bool = False, mark: str = "") -> list[str]:
        """Return a line for each of few files, or one for all of many; with `verbose`, with the tracebacks."""
        place, lines = f" at {self.place}" if self.place else "", list[str]()
        if self.is_listed:
            heads = [each.line(place) for each in self.examples]
        else:
            names = ", ".join(str(each.origin) for each in self.examples)
            one = self.examples[0]
            what = f"{one.text}{place}, e.g. {names}" if self.has_one_text else f"{self.reason}{place}, e.g."
            heads = [f"  {counted(self.files, 'file')} ({', '.join(self.stages)}): {what}"]
            if not self.has_one_text:
                heads[0] += f" {one.origin}: {one.text}"
        for number, head in enumerate(heads):
            lines.append(f"  {mark}{head[2:]}")
            if verbose and self.examples[number].detail:
                lines.append(indented(self.examples[number].detail))
        return lines
