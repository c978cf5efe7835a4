"""The memory that the job in hand may take beyond what its worker holds anyway, and its claims to more.

Code that knows what it is about to take claims it first. A claim above the allowance ends the call of the stage, and
the engine sends the job again once so much can be had. Outside a pool nothing limits a job, and all is granted.
"""

from __future__ import annotations


class MoreMemoryNeeded(BaseException):
    """A job needs more memory than it may take now. No Exception, so that a stage does not take it for a bad file."""


class Allowance:
    """The allowance of this process's job."""

    allowed_bytes: int | None = None
    """The memory that the job may take; None for any."""
    claimed_bytes = 0
    """The most that was claimed and refused since that was last taken."""

    def claim(self, wanted_bytes: float) -> None:
        """Raise MoreMemoryNeeded if a job may not take so much memory."""
        if self.allowed_bytes is not None and wanted_bytes > self.allowed_bytes:
            self.claimed_bytes = max(self.claimed_bytes, int(wanted_bytes))
            wanted, allowed = (f"{each / 1e6:,.0f} MB" for each in (wanted_bytes, self.allowed_bytes))
            raise MoreMemoryNeeded(f"needs {wanted}, and may take {allowed} now; the file is done again once it may")

    def take_claim(self) -> int:
        """Return what was claimed and refused, and forget it."""
        claimed, self.claimed_bytes = self.claimed_bytes, 0
        return claimed


allowance = Allowance()
