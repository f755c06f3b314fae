"""The trials that a driver holds: queued, running, or waiting for a duplicate; no I/O."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.driver.snapshot import Live


@dataclass(slots=True)
class TrialQueue:
    """Trials between their proposal and their end.

    Attributes:
        queued: Those that wait for a slot, the next one first.
        live: Those that run, by number.
        duplicates: Those that wait for the result of a trial of the same configuration, by its
            number.
    """

    queued: deque[Live] = field(default_factory=deque)
    live: dict[int, Live] = field(default_factory=dict)
    duplicates: dict[int, list[Live]] = field(default_factory=dict)

    def waiting(self) -> list[Live]:
        """All that do not run."""
        return [*self.queued, *itertools.chain(*self.duplicates.values())]

    def near(self) -> int:
        """How many near the cap are queued."""
        return sum(live.near_cap for live in self.queued)

    def enqueue(self, live: Live) -> None:
        """Those near the cap go behind those that fit, the likeliest to fit before the others."""

        def place(one: Live) -> tuple[bool, float]:
            return one.near_cap, -one.fit_probability

        behind = (i for i, other in enumerate(self.queued) if place(other) > place(live))
        self.queued.insert(next(behind, len(self.queued)), live)

    def take(self, may_start: Callable[[int], object]) -> Live | None:
        """Take the first queued trial whose number may start now."""
        for place, live in enumerate(self.queued):
            if may_start(live.record.number):
                del self.queued[place]
                return live
        return None

    def drop(self, number: int) -> None:
        """Let a trial wait no more; what runs of it is left alone."""
        self.queued = deque(live for live in self.queued if live.record.number != number)
        for duplicates in self.duplicates.values():
            duplicates[:] = [live for live in duplicates if live.record.number != number]
