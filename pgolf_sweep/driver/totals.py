"""Sums over a study's rows, kept up row by row: a pass over all of them grows with the study."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State, counts, ranked, tally_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.record import TrialRecord


@dataclass(slots=True)
class Totals:
    """What is shown of all rows together.

    Attributes:
        counts: As `record.counts` gives them.
        slot_seconds: Time for which slots were held.
        redrawn: Configurations that the sampler passed over because they cannot fit.
        best: The first of `record.ranked`.
    """

    counts: dict[str, int] = field(default_factory=lambda: counts(()))
    slot_seconds: float = 0.0
    redrawn: int = 0
    best: TrialRecord | None = None
    _times: dict[int | None, list[float]] = field(default_factory=dict)
    """Slot-seconds of completed trials that trained, ascending, by their rung."""

    def add(self, record: TrialRecord) -> None:
        """Take a row in."""
        key = tally_key(record)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.slot_seconds += record.slot_seconds
        self.redrawn += record.redrawn
        if _timed(record):
            bisect.insort(self._times.setdefault(record.rung, []), record.slot_seconds)
        self.best = _best(filter(None, (self.best, record)))

    def remove(self, record: TrialRecord, rest: Iterable[TrialRecord]) -> None:
        """Take a row out that another has replaced.

        Args:
            record: The row as it was taken in.
            rest: All rows but this one; looked at only if it was the best.
        """
        key = tally_key(record)
        self.counts[key] -= 1
        if key == State.SCREENED and not self.counts[key]:
            del self.counts[key]  # as `record.counts` has it
        self.slot_seconds -= record.slot_seconds
        self.redrawn -= record.redrawn
        if _timed(record):
            times = self._times[record.rung]
            del times[bisect.bisect_left(times, record.slot_seconds)]
        if self.best is not None and self.best.number == record.number:
            self.best = _best(rest)

    @property
    def typical_seconds(self) -> float | None:
        """Median of the slot-seconds of completed trials that trained."""
        return self.typical_on(None)

    def typical_on(self, rung: int | None) -> float | None:
        """The same on one rung."""
        times = self._times.get(rung)
        if not times:
            return None
        middle = len(times) // 2
        return (times[middle] + times[-1 - middle]) / 2


def _timed(record: TrialRecord) -> bool:
    own = State.COMPLETED if record.rung is None else State.SCREENED
    return record.outcome is own and bool(record.slot_seconds) and not record.stage


def _best(records: Iterable[TrialRecord]) -> TrialRecord | None:
    return next(iter(ranked(records)), None)
