"""The trials that a driver holds: queued, running, or waiting for an equal one; no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.driver.snapshot import Live


@dataclass(slots=True)
class Roster:
    """Trials between their proposal and their end.

    Attributes:
        queue: Those that wait for a slot, the next one first.
        live: Those that run, by number.
        twins: Those that wait for the result of an equal trial that is queued or running, by the
            number of that trial.
    """

    queue: deque[Live] = field(default_factory=deque)
    live: dict[int, Live] = field(default_factory=dict)
    twins: dict[int, list[Live]] = field(default_factory=dict)

    def waiting(self) -> list[Live]:
        """All that do not run."""
        return [*self.queue, *(twin for twins in self.twins.values() for twin in twins)]

    def near(self) -> int:
        """How many near the cap are queued."""
        return sum(live.near_cap for live in self.queue)

    def enqueue(self, live: Live) -> None:
        """Those near the cap go behind those that fit, the likeliest to fit before the others."""

        def place(one: Live) -> tuple[bool, float]:
            return one.near_cap, -one.fit_probability

        behind = (i for i, other in enumerate(self.queue) if place(other) > place(live))
        self.queue.insert(next(behind, len(self.queue)), live)

    def take(self, may_start: Callable[[int], object]) -> Live | None:
        """Take the first queued trial whose number may start now."""
        for place, live in enumerate(self.queue):
            if may_start(live.record.number):
                del self.queue[place]
                return live
        return None

    def drop(self, number: int) -> None:
        """Let a trial wait no more; what runs of it is left alone."""
        self.queue = deque(live for live in self.queue if live.record.number != number)
        for twins in self.twins.values():
            twins[:] = [twin for twin in twins if twin.record.number != number]
