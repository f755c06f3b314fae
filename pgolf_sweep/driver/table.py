"""The table of a study's trials: which this driver holds, which run, which ended; no I/O.

A trial moves through it by verbs: `queue`, `start`, `vacate`, `requeue`, `finish`, `release`.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import FailureKind, schedule_fraction
from pgolf_sweep.driver.snapshot import RunningTrial, Snapshot, SweepState
from pgolf_sweep.driver.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, StepReport, TrialSpec
    from pgolf_sweep.driver.snapshot import BudgetRow


CLEAR_SHARE = 0.1
"""Share of a schedule from which its pace says more than what other trials took."""

LEAST_CURVE = 3
"""Validations from which they make a curve; before, the training losses do."""

MOST_POINTS = 32
"""Points of a running trial's curve."""


@dataclass(slots=True)
class CurveSample:
    """Numbers of a long row at even distances, never more than `MOST_POINTS`."""

    values: list[float] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def add(self, value: float) -> None:
        """Take the next number, or pass it over."""
        if self._seen % self._every == 0:
            self.values.append(value)
        self._seen += 1
        if len(self.values) > MOST_POINTS:
            del self.values[1::2]
            self._every *= 2


@dataclass(slots=True)
class OpenTrial:
    """A trial that this driver holds, from its proposal to its end."""

    record: TrialRecord
    spec: TrialSpec
    near_cap: bool = False
    fit_probability: float = 1.0
    """That a trial near the cap is within it."""

    @property
    def run_knobs(self) -> Mapping[str, KnobValue]:
        """Its knobs, with the limit on the wallclock that it has on its rung."""
        limit = self.spec.env.get("MAX_WALLCLOCK_SECONDS")
        if self.record.rung is None or limit is None:
            return self.record.knobs
        return {**self.record.knobs, "MAX_WALLCLOCK_SECONDS": float(limit)}


@dataclass(slots=True)
class Attempt:
    """One run of a trial, which holds a slot."""

    trial: OpenTrial
    started_at: float
    held_from: float
    """When its slot was taken, by the driver's clock that never jumps."""
    scores: list[float] = field(default_factory=list)
    """Validations reported in this attempt, those before the first step left out."""
    step: int | None = None
    total_steps: int | None = None
    val_bpb: float | None = None
    fraction: float | None = None
    """Share of its schedule that is trained, as last reported."""
    fraction_at: float = 0.0
    """When that was, in seconds since 1970."""
    losses: CurveSample = field(default_factory=CurveSample)
    behind_at: float | None = None
    """Fraction of its schedule at which the pruner found it behind."""
    cancelling: bool = False
    given_up: bool = False
    """Another driver took the trial over: its run here ends and is never told."""

    def reported(self, report: StepReport, now: float) -> None:
        """Keep what a line says of the attempt's progress; validations are the driver's."""
        self.step = report.step
        self.total_steps = report.total_steps or self.total_steps
        fraction = schedule_fraction(report, self.trial.run_knobs)
        if fraction:
            self.fraction, self.fraction_at = fraction, now
        if report.train_loss_nats is not None:
            self.losses.add(report.train_loss_nats)

    def seconds_left(self, now: float, typical: float | None) -> float | None:
        """Until it ends; None where nothing says it.

        Args:
            now: Seconds since 1970.
            typical: What a trial takes, if one has completed.
        """
        elapsed = max(0.0, now - self.started_at)
        if self.fraction and (self.fraction >= CLEAR_SHARE or typical is None):
            then = max(0.0, self.fraction_at - self.started_at)
            return max(0.0, then / self.fraction - elapsed)
        return None if typical is None else max(0.0, typical - elapsed)

    def row(self, now: float, typical: float | None) -> RunningTrial:
        """The attempt as observers see it."""
        record = self.trial.record
        curve = self.scores if len(self.scores) >= LEAST_CURVE else self.losses.values
        return RunningTrial(
            number=record.number,
            knobs=record.knobs,
            node=record.node,
            step=self.step,
            total_steps=self.total_steps,
            val_bpb=self.val_bpb,
            started_at=self.started_at,
            curve=tuple(curve[-MOST_POINTS:]),
            seconds_left=self.seconds_left(now, typical),
            rung=record.rung,
        )


@dataclass(slots=True)
class TrialTable:
    """Rows of all trials, and where the open ones are that this driver holds.

    Attributes:
        records: The row of each trial, by number.
        idle_seconds: Slot-seconds in which slots of this driver were free.
        elsewhere: Rows of the open trials of a shared study that this driver does not hold.
        probing: Those that this driver holds and judges once the probe of their script is done.
        gpu_shares: Share of a trial's GPUs that one on a cheaper rung has, by the rung's number.
    """

    records: dict[int, TrialRecord] = field(default_factory=dict)
    idle_seconds: float = 0.0
    elsewhere: dict[int, TrialRecord] = field(default_factory=dict)
    probing: dict[int, TrialRecord] = field(default_factory=dict)
    gpu_shares: Mapping[int, float] = field(default_factory=dict)
    _queued: deque[OpenTrial] = field(default_factory=deque)
    _running: dict[int, Attempt] = field(default_factory=dict)
    _duplicates: dict[int, list[OpenTrial]] = field(default_factory=dict)
    """Those that wait for the result of a trial of the same configuration, by its number."""
    _ended: set[int] = field(default_factory=set)
    _counted: set[int] = field(default_factory=set)
    """Trials that count against `run_cap`; those that only infrastructure ended, and those that
    wait for another attempt, do not."""
    _first: dict[str, int] = field(default_factory=dict)
    _totals: Totals = field(default_factory=Totals)
    _last: TrialRecord | None = None

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that is not over the cap; None while there is none."""
        return self._totals.best

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials by state, as `record.counts` gives them."""
        return self._totals.counts

    # -- verbs ----------------------------------------------------------------------------------

    def note(self, record: TrialRecord) -> None:
        """Keep the newest row of a trial."""
        before = self.records.get(record.number)
        self.records[record.number] = record
        if before is not None:
            self._totals.remove(before, self.records.values())
        self._totals.add(record)

    def queue(self, trial: OpenTrial) -> None:
        """Let a trial wait for a slot: those that fit before those near the cap, by likelihood."""

        def place(one: OpenTrial) -> tuple[bool, float]:
            return one.near_cap, -one.fit_probability

        behind = (i for i, other in enumerate(self._queued) if place(other) > place(trial))
        self._queued.insert(next(behind, len(self._queued)), trial)

    def append(self, trial: OpenTrial) -> None:
        """Let a trial wait behind all others, in the order of an earlier driver."""
        self._queued.append(trial)

    def wait_for(self, number: int, trial: OpenTrial) -> None:
        """Let a duplicate wait for the result of an open trial."""
        self._duplicates.setdefault(number, []).append(trial)

    def start(self, trial: OpenTrial, *, started_at: float, held_from: float) -> None:
        """A queued trial took a slot."""
        number = trial.record.number
        self._unqueue(number)
        self._running[number] = Attempt(trial, started_at, held_from)
        if trial.record.rung is None:
            self._counted.add(number)

    def vacate(self, number: int) -> None:
        """A trial's run is over: its slot is free."""
        del self._running[number]

    def requeue(self, trial: OpenTrial, *, first: bool) -> None:
        """Let a trial whose attempt failed wait for another: before all others, or by its fit."""
        self._counted.discard(trial.record.number)
        if first:
            self._queued.appendleft(trial)
        else:
            self.queue(trial)

    def finish(self, record: TrialRecord) -> bool:
        """Keep a final row; True if it is a result of its own that others can learn from."""
        self.note(record)
        self._unqueue(record.number)
        self._ended.add(record.number)
        if record.duplicate_of is not None or record.outcome is State.DISCARDED:
            return False
        if record.failure == FailureKind.INFRASTRUCTURE.value:
            # It says nothing of its configuration, which may be proposed again.
            self._first.pop(record.identity, None)
            self._counted.discard(record.number)
            return False
        self._first.setdefault(record.identity, record.number)
        if (record.ended_at or 0.0) >= (0.0 if self._last is None else self._last.ended_at or 0.0):
            self._last = record
        if record.export_of is None and not record.taken_from and record.rung is None:
            self._counted.add(record.number)
        return True

    def release(self, number: int) -> None:
        """Let a trial wait here no more; what runs of it is left alone."""
        self._unqueue(number)
        self.probing.pop(number, None)
        for duplicates in self._duplicates.values():
            duplicates[:] = [trial for trial in duplicates if trial.record.number != number]
        if number not in self._running:
            self._counted.discard(number)

    def claim(self, number: int) -> None:
        """A trial that another driver held is this driver's from now on."""
        self.elsewhere.pop(number, None)
        self._counted.discard(number)

    def take_duplicates(self, number: int) -> list[OpenTrial]:
        """Those that wait for a trial's result, which is here now."""
        return self._duplicates.pop(number, [])

    def look(self, rows: Iterable[TrialRecord]) -> None:
        """Keep the rows of the open trials that other drivers hold, or none does."""
        self.elsewhere = {record.number: record for record in rows}
        for record in self.elsewhere.values():
            self.note(record)
            if record.outcome is State.RUNNING and record.rung is None:
                self._counted.add(record.number)
            else:
                self._counted.discard(record.number)
            if record.identity and record.duplicate_of is None:
                self._first.setdefault(record.identity, record.number)

    def original(self, identity: str, number: int) -> TrialRecord | None:
        """The earlier trial of a configuration, or None, and then `number` is its first."""
        first = self._first.setdefault(identity, number)
        return None if first == number else self.records[first]

    def _unqueue(self, number: int) -> None:
        for place, trial in enumerate(self._queued):
            if trial.record.number == number:
                del self._queued[place]
                return

    # -- questions ------------------------------------------------------------------------------

    @property
    def queued(self) -> Sequence[OpenTrial]:
        """Trials that wait for a slot, the next one first."""
        return tuple(self._queued)

    @property
    def queued_count(self) -> int:
        """How many wait for a slot."""
        return len(self._queued)

    @property
    def running(self) -> Mapping[int, Attempt]:
        """Attempts that hold a slot of this driver, by number."""
        return self._running

    @property
    def ended(self) -> frozenset[int] | set[int]:
        """Numbers of the trials whose final row is here."""
        return self._ended

    def waiting(self) -> list[OpenTrial]:
        """All that this driver holds and that do not run."""
        return [*self._queued, *itertools.chain(*self._duplicates.values())]

    def near_count(self) -> int:
        """How many near the cap are queued."""
        return sum(trial.near_cap for trial in self._queued)

    def next_to_start(self, may_start: Callable[[int], object]) -> OpenTrial | None:
        """The first queued trial whose number may start now; it stays queued."""
        return next((one for one in self._queued if may_start(one.record.number)), None)

    @property
    def counted(self) -> int:
        """How many trials count against `run_cap`."""
        return len(self._counted)

    @property
    def held(self) -> int:
        """How many that wait here will count against `run_cap`."""
        waiting = [*(trial.record for trial in self._queued), *self.probing.values()]
        return sum(record.rung is None for record in waiting)

    @property
    def reserved(self) -> int:
        """How many trials elsewhere will count against `run_cap` and do not yet."""
        counted = {State.RUNNING, State.DISCARDED}
        rows = self.elsewhere.values()
        open_rows = [r for r in rows if r.outcome not in counted and r.duplicate_of is None]
        return sum(r.rung is None for r in open_rows)

    @property
    def typical_seconds(self) -> float | None:
        """Median of the slot-seconds of completed trials, those that share a training aside."""
        return self._totals.typical_seconds

    def typical_on(self, rung: int) -> float | None:
        """The same of the trials that completed on a cheaper rung."""
        return self._totals.typical_on(rung)

    def slot_seconds(self, *, now: float, epoch: float) -> float:
        """Time for which slots were held, by trials that ended and by those that run.

        Args:
            now: By the clock that never jumps, as `Attempt.held_from`.
            epoch: Seconds of the epoch, which other drivers' rows are in.
        """
        ended = self._totals.slot_seconds
        here = sum(
            (now - attempt.held_from) * self.gpu_share(attempt.trial.record.rung)
            for attempt in self._running.values()
        )
        others = [r for r in self.elsewhere.values() if r.outcome is State.RUNNING]
        begun = [(r.started_at, self.gpu_share(r.rung)) for r in others if r.started_at]
        # Another host's clock may be ahead of this one's.
        return ended + here + sum(share * max(0.0, epoch - at) for at, share in begun)

    def gpu_share(self, rung: int | None) -> float:
        """Share of a trial's GPUs that one on a rung has."""
        return 1.0 if rung is None else self.gpu_shares.get(rung, 1.0)

    def _typical_of(self, attempt: Attempt) -> float | None:
        """Seconds that a trial like one that runs takes; None where none has completed."""
        rung = attempt.trial.record.rung
        held = self._totals.typical_on(rung)
        return None if held is None else held / self.gpu_share(rung)

    def _seconds_left(
        self,
        typical: float | None,
        state: SweepState,
        *,
        slots: int,
        more: int | None,
        now: float,
    ) -> float | None:
        """Until the sweep ends, by the time that a trial takes; None where nothing says it."""
        rests = [one.seconds_left(now, self._typical_of(one)) for one in self._running.values()]
        known = [rest for rest in rests if rest is not None]
        if len(known) < len(rests):
            return None
        longest = max(known, default=0.0)
        if more is None or (more and (typical is None or not slots)):
            return None
        if not rests and state is not SweepState.RUNNING:
            return None  # it is over, or what waits will not start
        return max((more * (typical or 0.0) + sum(known)) / max(1, slots), longest)

    def snapshot(
        self,
        *,
        state: SweepState,
        reason: str,
        slots: int,
        run_cap: int | None,
        now: float,
        budget: BudgetRow | None = None,
    ) -> Snapshot:
        """The sweep as it stands."""
        totals = self._totals
        typical = totals.typical_seconds
        limits = [] if run_cap is None else [max(0, run_cap - self.counted)]
        if budget is not None and budget.trials_left is not None:
            limits.append(budget.trials_left)
        more: int | None = min(limits, default=None)
        if state is not SweepState.RUNNING:
            # Draining starts nothing more; a sweep that has proposed its last still ends its queue.
            more = self.queued_count if state is SweepState.FINISHED else 0
        left = self._seconds_left(typical, state, slots=slots, more=more, now=now)
        return Snapshot(
            state=state,
            counts=dict(totals.counts),
            run_cap=run_cap,
            slots=slots,
            running=tuple(
                one.row(now, self._typical_of(one)) for _, one in sorted(self._running.items())
            ),
            best=totals.best,
            trained_seconds=totals.slot_seconds,
            idle_seconds=self.idle_seconds,
            redrawn=totals.redrawn,
            saved_by_gate_seconds=(totals.counts["discarded"] + totals.redrawn) * (typical or 0.0),
            seconds_left=left,
            now=now,
            reason=reason,
            counted=self.counted,
            waiting=self.queued_count,
            near=self.near_count(),
            last=self._last,
            records=self.records,
            budget=budget,
        )


def counted(records: Iterable[TrialRecord]) -> int:
    """How many of a study's trials count against `run_cap`, whoever drives it."""
    table = TrialTable()
    rest = []
    for record in records:
        if record.outcome.final:
            table.finish(record)
        else:
            rest.append(record)
    table.look(rest)
    return table.counted
