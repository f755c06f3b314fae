"""Budget of a driver: trials under the cap, free slots, GPU-hours, dollars, time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.config.deadline import deadline_at
from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.core.record import State
from pgolf_sweep.core.spending import Spending
from pgolf_sweep.driver.snapshot import BudgetRow
from pgolf_sweep.gate.plan import Draw, trial_seconds

if TYPE_CHECKING:
    from pgolf_sweep.config.fidelity import Fidelity
    from pgolf_sweep.config.types import Budget
    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.driver.reuse import Trainings
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.table import TrialTable
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.nodes.quarantine import NodeBook

MOST_NEAR_WAITING = 64
"""Trials near the cap that wait for those that fit, where the sampler does not learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one driver may propose, hold and spend, as its trials and slots stand.

    Attributes:
        run_cap: Trials that may take a slot, over the whole life of the study; None: no limit.
        spending: GPU-hours, dollars and time over the whole life of the study.
        estimate: Seconds that a trial is expected to hold its slot, until one has completed; None
            where nothing says it.
        learns: Whether the sampler learns from the trials before.
        table: What is known of all trials.
        trainings: What of them is shared.
        launcher: Its slots.
        nodes: Which of their nodes are trusted.
        clock: What held slots cost until now.
        lease: The other drivers' slots; None where there are no others.
        fidelity: Cheaper rungs, whose trials cost less; None where there are none.
    """

    run_cap: int | None
    spending: Spending
    estimate: float | None
    learns: bool
    table: TrialTable
    trainings: Trainings
    launcher: Launcher
    nodes: NodeBook
    clock: Clock
    lease: DriverLease | None
    fidelity: Fidelity | None = None

    def room(self) -> float:
        """How many trials this driver should propose now, those of several slots counted so."""
        return min(self.wanted(), self.rest())

    def rest(self) -> float:
        """The same as far as `run_cap` and budget go."""
        return self.slots_of(None) * min(self.left(), self.affordable())

    def left(self) -> float:
        """How many trials may be proposed before `run_cap` is reached."""
        if self.run_cap is None:
            return math.inf
        return self.run_cap - (self.table.counted + self.table.held + self.table.reserved)

    def wanted(self) -> float:
        """How many more trials this driver should hold: one ahead of its free slots.

        One of several slots counts as so many, and as one while it waits.

        The last trials of a shared study are left to those that have free slots for them.
        """
        near = self.table.near_count()
        emptied = self.emptied()
        blocked = min(self._blocked(), MOST_NEAR_WAITING)
        ahead = self.lease is None or self.slots_of(None) * self.left() > self.lease.other_slots
        waiting = min(near, self._may_wait()) if near else 0
        free = self.launcher.free(self.nodes.closed() | emptied)
        held = self.table.queued_count + len(self.table.probing) - len(emptied)
        return free + ahead - (held - max(waiting, blocked))

    def slots_of(self, rung: int | None) -> int:
        """Slots of the launcher that a trial on a rung takes."""
        return 1 if self.fidelity is None else self.fidelity.slots(rung)

    def emptied(self) -> frozenset[str]:
        """The node on which no narrow trial starts, since a wide one waits; empty: none does."""
        wide = self.slots_of(None)
        waits = [one.record for one in self.table.queued if self.slots_of(one.record.rung) == wide]
        if wide == 1 or not waits:
            return frozenset()
        closed = self.nodes.closed(waits[0].number)
        if self.launcher.free(closed, wide):
            return frozenset()
        slots = [slot for slot in self.launcher.slots() if slot.node not in closed]
        all_of = Counter(slot.node for slot in slots)
        idle = Counter(slot.node for slot in slots if slot.busy_with is None)
        large = sorted(node for node, count in all_of.items() if count >= wide)
        return frozenset({max(large, key=lambda node: idle[node])} if large else ())

    def _whole_slots(self) -> int:
        """Trials on the sweep's own rung that the slots hold."""
        return len(self.launcher.slots()) // self.slots_of(None)

    def _blocked(self) -> int:
        """How many queued trials wait for a training that runs."""
        if not self.trainings.active:
            return 0
        running = [attempt.trial.record for attempt in self.table.running.values()]
        return sum(self.trainings.waits(one.record, running) for one in self.table.queued)

    def _may_wait(self) -> int:
        """How many trials near the cap may wait beside the queue for those that fit.

        A sampler that learns proposes each without what the trials before it will teach, so it is
        not asked for more of them than there are slots.
        """
        return self._whole_slots() if self.learns else MOST_NEAR_WAITING

    def affordable(self) -> float:
        """How many more trials the budget pays for beyond those that wait or run.

        One that runs counts with the time that a trial takes, so that the budget holds whenever
        the trials are alike. The first trial of all runs on any budget: what it will take is only
        expected, and a sweep needs one.
        """
        if not self.in_time():
            return 0.0
        limit, each = self.spending.slot_seconds, self.seconds_each
        if limit is None:
            return math.inf
        spent = self._slot_seconds()
        if not each:
            # Nothing says what a trial takes: one for each slot will.
            begun = len(self.table.running) + self._waiting()
            return max(0.0, self._whole_slots() - begun) if spent < limit else 0.0
        first = not self.table.counted and not self._waiting() and spent < limit
        held = spent + self._rest_of_running(each) + self._waiting_cost() * each
        return max(self.spending.affordable(each, spent=held), float(first))

    def last_trials(self) -> float:
        """How many more trials may be proposed: infinite where the end is not in sight.

        Where a trial that starts now is its slot's last before the deadline, each counts as the
        last one.
        """
        more = min(self.left(), self.affordable())
        each = self.seconds_each
        if self.spending.deadline_at is None or not each:
            return more
        slots = self._whole_slots()
        left = self.spending.seconds_to_start(each, slots=slots, now=self.clock.now())
        return more if left >= each else min(more, 1.0)

    def ending(self) -> bool:
        """Whether what is left of the budget is one more trial for each slot, or less.

        Where nothing says what a trial takes, no end is in sight.
        """
        each, slots = self.seconds_each, self._whole_slots()
        if not each:
            return False
        if self.affordable() <= slots:
            return True
        if self.spending.deadline_at is None:
            return False
        now = self.clock.now()
        return self.spending.seconds_to_start(each, slots=slots, now=now) < each

    def awaits_rungs(self) -> bool:
        """Whether the last trials wait for those that run on cheaper rungs: their scores choose.

        Where a deadline nears nothing waits.
        """
        if self.fidelity is None or not self.ending() or self.spending.deadline_at is not None:
            return False
        here = [attempt.trial.record for attempt in self.table.running.values()]
        here += [trial.record for trial in self.table.queued]
        return any(row.rung is not None for row in [*here, *self.table.probing.values()])

    def in_time(self) -> bool:
        """Whether a trial that starts now is expected to end by the deadline."""
        if self.spending.deadline_at is None:
            return True
        now = self.clock.now()
        if not self.table.counted:
            return now < self.spending.deadline_at
        each = self.seconds_each or 0.0
        slots = self._whole_slots()
        return self.spending.seconds_to_start(each, slots=slots, now=now) >= 0

    def ended_by(self, *, is_open: bool) -> str | None:
        """What of the budget ends the sweep, in a sentence; None: nothing does.

        Args:
            is_open: Whether trials wait or run: one that is stopped early gives money back.
        """
        kept = self.spending.reserved_runs
        runs = f"; {kept} runs of a promotion are kept back" if kept else ""
        if not self.in_time() and not is_open:
            return f"no further trial would end by the deadline{runs}"
        if self._is_spent() or (self.affordable() <= 0 and not is_open):
            return f"budget of {self.spending.limit} reached{runs}"
        return None

    def _is_spent(self) -> bool:
        limit, reserved = self.spending.slot_seconds, 0.0
        if self.table.counted:
            reserved = self.spending.reserved_runs * (self.seconds_each or 0.0)
        return limit is not None and self._slot_seconds() + reserved >= limit

    @property
    def seconds_each(self) -> float | None:
        """What a trial holds its slot for: the median of those that trained, or the estimate.

        Where there is neither, as the trials of a cheaper rung and its share of the training say.
        """
        return self.table.typical_seconds or self.estimate or self._seconds_by_rungs()

    def _seconds_by_rungs(self) -> float | None:
        if self.fidelity is None:
            return None
        for number, rung in reversed(list(enumerate(self.fidelity.rungs, 1))):
            if own := self.table.typical_on(number):
                return own / rung.share
        return None

    def row(self) -> BudgetRow | None:
        """The budget as observers see it; None without one."""
        if self.spending.slot_seconds is None and self.spending.deadline_at is None:
            return None
        each, spent = self.seconds_each, self._slot_seconds()
        more = self.affordable()
        return BudgetRow(
            limit=self.spending.limit,
            deadline_at=self.spending.deadline_at,
            spent_gpu_hours=self.spending.gpu_hours_of(spent),
            spent_usd=self.spending.usd_of(spent),
            reserved_runs=self.spending.reserved_runs,
            trials_left=None
            if each is None or math.isinf(more)
            else int(more + self.table.held + self.table.reserved),
        )

    def _slot_seconds(self) -> float:
        return self.table.slot_seconds(now=self.clock.monotonic(), epoch=self.clock.now())

    def _waiting(self) -> int:
        return self.table.queued_count + len(self.table.probing) + self.table.reserved

    def _waiting_cost(self) -> float:
        """What the trials that wait will cost, in trials of the sweep's own rung."""
        if self.fidelity is None:
            return self._waiting()
        here = [trial.record for trial in self.table.queued]
        rows = [*here, *self.table.probing.values()]
        return sum(self._cost(row.rung) for row in rows) + self.table.reserved

    def _cost(self, rung: int | None) -> float:
        """What a trial on a rung costs, as a share of one on the sweep's own."""
        if rung is None or self.fidelity is None:
            return 1.0
        whole, own = self.table.typical_seconds, self.table.typical_on(rung)
        return own / whole if own and whole else self.fidelity.rungs[rung - 1].share

    def _rest_of_running(self, each: float) -> float:
        """Slot-seconds until all that run have ended, if each takes as long as the others did."""
        now, epoch = self.clock.monotonic(), self.clock.now()
        share = self.table.gpu_share
        ran = [
            (now - attempt.held_from, attempt.trial.record.rung)
            for attempt in self.table.running.values()
        ]
        ran += [
            (epoch - row.started_at, row.rung)
            for row in self.table.elsewhere.values()
            if row.outcome is State.RUNNING and row.started_at
        ]
        return sum(
            max(0.0, self._cost(rung) * each - share(rung) * max(0.0, seconds))
            for seconds, rung in ran
        )


def spending_of(session: Session, *, begun: float) -> Spending:
    """What a sweep may spend.

    Args:
        session: The sweep.
        begun: When its study began, in seconds of the epoch.
    """
    budget, block = session.spec.pgolf.budget, session.spec.pgolf
    promotes = budget.reserve and block.rules != NO_RULES
    deadline = budget.deadline
    return Spending(
        gpus=session.resources.gpus,
        gpu_hours=budget.gpu_hours,
        usd=budget.usd,
        usd_per_gpu_hour=budget.usd_per_gpu_hour,
        deadline_at=None if deadline is None else deadline_at(deadline, begun=begun),
        reserved_runs=(block.promote_seeds or session.rules.min_seeds) if promotes else 0,
    )


def budget_text(budget: Budget) -> str:
    """A sweep file's budget in words; empty where there is none."""
    parts = [] if budget.trials is None else [f"{budget.trials} trials"]
    parts += [] if budget.gpu_hours is None else [f"{budget.gpu_hours:g} GPU-hours"]
    parts += [] if budget.usd is None else [f"${budget.usd:,g}"]
    parts += [] if budget.deadline is None else [f"a deadline of {budget.deadline}"]
    return ", ".join(parts)


def expected_seconds(session: Session) -> float | None:
    """What a trial is expected to hold its slot for, by the program's own configuration.

    None where no budget asks, or nothing says it. Never waits for a probe of the program.
    """
    budget = session.spec.pgolf.budget
    if (budget.gpu_hours, budget.usd, budget.deadline) == (None, None, None):
        return None
    knobs = session.resolve(session.spec.space.nearest(session.defaults))
    draw = Draw(knobs=knobs, verdict=session.verdict_of(knobs))
    return trial_seconds(draw, session.gate, session.resources.gpus, session.train_seconds)
