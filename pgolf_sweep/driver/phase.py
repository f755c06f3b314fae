"""What a sweep is doing at present, and why: shared by the parts of its driver."""

from __future__ import annotations

from dataclasses import dataclass

from pgolf_sweep.driver.snapshot import SweepState


@dataclass(slots=True)
class Phase:
    """A sweep's state.

    Attributes:
        state: Where it stands.
        reason: Why it is not running any more; empty while it is.
    """

    state: SweepState = SweepState.RUNNING
    reason: str = ""

    def enter(self, state: SweepState, reason: str) -> None:
        """Go on to another state."""
        self.state, self.reason = state, reason

    def finish(self, reason: str) -> None:
        """Nothing more will be proposed; what is queued and running still ends."""
        self.enter(SweepState.FINISHED, reason)

    @property
    def starting(self) -> bool:
        """Whether what is queued may start, if there is time for it."""
        return self.state in {SweepState.RUNNING, SweepState.FINISHED}
