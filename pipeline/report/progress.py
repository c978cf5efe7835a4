"""The progress of a run as short texts, of which those are shown that there is room for."""

from __future__ import annotations

from pipeline.records import dataclass
from pipeline.text import format_duration, format_pace


@dataclass
class Progress:
    """What is known of a run that is running; files and groups are counted, held ones by their outputs."""

    done: int = 0
    total: int | None = None
    """The number of files that the run has work for; None until that is known."""
    failed: int = 0
    held: int = 0
    left_s: float | None = None
    """The seconds that are left; None until something tells."""

    @property
    def share(self) -> float | None:
        """The share that is done, from 0 to 1; None until the total is known."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def failed_text(self) -> str:
        """The number of files that failed."""
        return f"{self.failed:,} failed"

    def parts(self, rate: float | None, room: int | None = None) -> list[str]:
        """Return the texts that together, with ", " between them, take at most `room` columns.

        Args:
            rate: Files a second.
            room: A number of columns; None if all are wanted.
        """
        of_all = f"/{self.total:,}" if self.total else " files"
        share = "" if self.share is None else f"{int(100 * self.share)}%"
        left = "" if self.left_s is None else f"{format_duration(self.left_s)} left"
        held = f"{self.held:,} held" if self.held else ""
        failed = self.failed_text if self.failed else ""
        counts = f"{self.done:,}{of_all}"
        pace = format_pace(rate) if rate else ""
        shown = [share, counts, pace, left, failed, held]
        taken: set[str] = set()
        for each in (share, failed, counts, left, pace, held):  # the most important ones first
            if each and (room is None or len(", ".join([*taken, each])) <= room):
                taken.add(each)
        return [each for each in shown if each in taken]
