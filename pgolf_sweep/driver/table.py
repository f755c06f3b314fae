"""The table of a study's trials, and what they have cost; no input or output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import FailureKind
from pgolf_sweep.driver.snapshot import Live, Snapshot, SweepState
from pgolf_sweep.driver.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgolf_sweep.core.record import TrialRecord


@dataclass(slots=True)
class TrialTable:
    """Rows of all trials, which configurations are known, which trials count.

    Attributes:
        records: The row of each trial, by number.
        took_slot: Trials that count against `run_cap`; those that only infrastructure ended, and
            those that wait for another attempt, do not.
        idle_seconds: Slot-seconds in which slots of this driver were free.
        ended: Trials whose final row is here.
        elsewhere: Rows of the open trials of a shared study that this driver does not hold.
    """

    records: dict[int, TrialRecord] = field(default_factory=dict)
    took_slot: set[int] = field(default_factory=set)
    idle_seconds: float = 0.0
    ended: set[int] = field(default_factory=set)
    elsewhere: dict[int, TrialRecord] = field(default_factory=dict)
    _first: dict[str, int] = field(default_factory=dict)
    _totals: Totals = field(default_factory=Totals)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that is not over the cap; None while there is none."""
        return self._totals.best

    def note(self, record: TrialRecord) -> None:
        """Keep the newest row of a trial."""
        before = self.records.get(record.number)
        self.records[record.number] = record
        if before is not None:
            self._totals.remove(before, self.records.values())
        self._totals.add(record)

    def close(self, record: TrialRecord) -> bool:
        """Keep a final row; True if it is a result of its own that others can learn from."""
        self.note(record)
        self.ended.add(record.number)
        if record.duplicate_of is not None or record.outcome is State.DISCARDED:
            return False
        if record.failure == FailureKind.INFRASTRUCTURE.value:
            # It says nothing of its configuration, which may be proposed again.
            self._first.pop(record.identity, None)
            self.took_slot.discard(record.number)
            return False
        self._first.setdefault(record.identity, record.number)
        if record.export_of is None:
            self.took_slot.add(record.number)
        return True

    def look(self, rows: Iterable[TrialRecord]) -> None:
        """Keep the rows of the open trials that other drivers hold, or none does."""
        self.elsewhere = {record.number: record for record in rows}
        for record in self.elsewhere.values():
            self.note(record)
            if record.outcome is State.RUNNING:
                self.took_slot.add(record.number)
            else:
                self.took_slot.discard(record.number)
            if record.identity and record.duplicate_of is None:
                self._first.setdefault(record.identity, record.number)

    @property
    def reserved(self) -> int:
        """How many trials elsewhere will count against `run_cap` and do not yet."""
        counted = {State.RUNNING, State.DISCARDED}
        rows = self.elsewhere.values()
        return sum(r.outcome not in counted and r.duplicate_of is None for r in rows)

    def original(self, identity: str, number: int) -> TrialRecord | None:
        """The earlier trial of a configuration, or None, and then `number` is its first."""
        first = self._first.setdefault(identity, number)
        return None if first == number else self.records[first]

    def slot_seconds(self, live: Iterable[Live], *, now: float, epoch: float) -> float:
        """Time for which slots were held, by trials that ended and by those that run.

        Args:
            live: Those that run.
            now: By the clock that never jumps, as `Live.held_from`.
            epoch: Seconds of the epoch, which other drivers' rows are in.
        """
        ended = self._totals.slot_seconds
        here = sum(now - run.held_from for run in live if run.held_from is not None)
        others = self.elsewhere.values()
        begun = [r.started_at for r in others if r.outcome is State.RUNNING and r.started_at]
        # Another host's clock may be ahead of this one's.
        return ended + here + sum(max(0.0, epoch - at) for at in begun)

    def _seconds_left(
        self,
        typical: float,
        state: SweepState,
        live: Sequence[Live],
        *,
        slots: int,
        run_cap: int | None,
        now: float,
    ) -> float | None:
        """Until the sweep ends, by the time that a trial takes; None where nothing says it."""
        begun = [now if run.started_at is None else run.started_at for run in live]
        rests = [max(0.0, typical - (now - at)) for at in begun]
        if state is SweepState.DRAINING:
            return max(rests, default=0.0)  # nothing more starts
        if state is not SweepState.RUNNING or run_cap is None:
            return None
        more = max(0, run_cap - len(self.took_slot))
        return max((more * typical + sum(rests)) / slots, max(rests, default=0.0))

    def snapshot(
        self,
        *,
        state: SweepState,
        reason: str,
        live: Sequence[Live],
        slots: int,
        run_cap: int | None,
        now: float,
    ) -> Snapshot:
        """The sweep as it stands."""
        totals = self._totals
        typical = totals.typical_seconds
        left = None
        if typical is not None and slots:
            left = self._seconds_left(typical, state, live, slots=slots, run_cap=run_cap, now=now)
        return Snapshot(
            state=state,
            counts=dict(totals.counts),
            run_cap=run_cap,
            slots=slots,
            running=sorted(live, key=lambda run: run.record.number),
            best=totals.best,
            trained_seconds=totals.slot_seconds,
            idle_seconds=self.idle_seconds,
            redrawn=totals.redrawn,
            saved_by_gate_seconds=(totals.counts["discarded"] + totals.redrawn) * (typical or 0.0),
            seconds_left=left,
            now=now,
            reason=reason,
        )
