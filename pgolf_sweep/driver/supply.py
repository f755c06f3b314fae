"""Supply of trials: what the study proposes, held for its probe, judged, and queued.

Part of the loop of `pgolf_sweep.driver.driver`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.events import AnchorLaunched, BudgetSpent
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.driver.anchors import DISCARDS_UNTIL_ANCHOR, Anchors
from pgolf_sweep.driver.anchors import PROPOSER as ANCHOR
from pgolf_sweep.driver.second_seeds import SecondSeeds
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.driver.admission import Admission
    from pgolf_sweep.driver.budget import Quota
    from pgolf_sweep.driver.intake import Intake
    from pgolf_sweep.driver.phase import Phase
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.sharing.takeover import TakeOver
    from pgolf_sweep.driver.table import TrialTable
    from pgolf_sweep.driver.variants import Sessions
    from pgolf_sweep.driver.writer import TrialWriter
    from pgolf_sweep.search.study import Proposal, Study

ASKING_SECONDS = 0.5
"""Longest time of a turn that goes into proposals: events wait meanwhile."""

MAX_IDLE_PROPOSALS = 2000
"""Proposals running that took no slot (discards, duplicates) before the sweep gives up."""

RANDOM = "random"
"""Proposer of a configuration that was drawn because the sampler found none that fits."""


@dataclass(slots=True, kw_only=True)
class Supply:
    """Keeps the queue filled, as far as cap and budget go.

    Attributes:
        run_cap: Trials that may take a slot, over the whole life of the study; None: no limit.
        take_over: The other drivers of a shared study; None where this one is alone.
    """

    session: Session
    sessions: Sessions
    study: Study
    clock: Clock
    phase: Phase
    table: TrialTable
    writer: TrialWriter
    quota: Quota
    admission: Admission
    intake: Intake
    notify: Callable[[SweepEvent], None]
    run_cap: int | None
    take_over: TakeOver | None = None
    _anchors: Anchors = field(init=False)
    _second_seeds: SecondSeeds = field(init=False)
    _idle_proposals: int = 0
    _held: deque[tuple[Proposal, TrialRecord | None]] = field(default_factory=deque)
    """Trials that wait for the probe of their program, with the rows of those that are resumed."""

    def __post_init__(self) -> None:
        self._anchors = Anchors(self.session)
        self._second_seeds = SecondSeeds(session=self.session, study=self.study, table=self.table)

    def resume(self, proposal: Proposal, noted: TrialRecord | None) -> None:
        """Queue a trial that an earlier driver left, or hold it for its probe."""
        if self._is_judged(proposal, noted):
            self._take(proposal, noted)
        else:
            self._held.append((proposal, noted))

    def has_open(self) -> bool:
        """Whether something runs, or waits and will run: after the deadline nothing starts."""
        if self.table.running:
            return True
        if self.quota.in_time():
            table = self.table
            return bool(table.queued_count or table.probing or table.elsewhere)
        return any(row.outcome is State.RUNNING for row in self.table.elsewhere.values())

    def _is_judged(self, proposal: Proposal, noted: TrialRecord | None = None) -> bool:
        """Whether the gate answers at once on a trial; if not, this driver holds it until then.

        A script that is not ours is run to know its artifact, in a thread: the loop goes on.
        """
        number, probing = proposal.number, self.table.probing
        try:
            session = self.sessions.of(proposal.change.variant)
        except InputError:
            return True  # its admission says what is wrong
        if session.ready(proposal.knobs):
            probing.pop(number, None)
            return True
        if number not in probing:
            if noted is None:
                row = TrialRecord(
                    number=number,
                    outcome=State.QUEUED,
                    knobs=session.resolve(proposal.knobs),
                    proposer=proposal.proposer,
                    repair_of=proposal.repair_of,
                    rung=proposal.rung,
                    driver=self.writer.me,
                    **dataclasses.asdict(proposal.change),
                )
            else:
                row = dataclasses.replace(noted, outcome=State.QUEUED, driver=self.writer.me)
            probing[number] = row
            # Another driver would take what nobody had noted; what ran ended with its driver.
            if row != noted and (self.take_over is not None or noted is not None):
                self.writer.note_row(row)
        return False

    def judge_held(self) -> None:
        """Admit the trials whose script was probed in the meantime."""
        held = self._held
        if not held or not self.phase.starting:
            return
        with self.study.exclusive():
            for _ in range(len(held)):
                proposal, noted = held.popleft()
                if proposal.number not in self.table.probing:
                    continue  # another driver has it by now
                if not self._is_judged(proposal, noted):
                    held.append((proposal, noted))
                elif not self._take(proposal, noted):
                    self._discarded(proposal)

    def _take(self, proposal: Proposal, noted: TrialRecord | None = None) -> bool:
        """Admit a trial; False if it took its end at once."""
        trial = self.admission.admit(proposal, noted=noted)
        if trial is None:
            return False
        if noted is not None:
            self.table.append(trial)
            return True
        self._idle_proposals = 0
        self._anchors.launched(proposal)
        self.table.queue(trial)
        return True

    def _discarded(self, proposal: Proposal) -> bool:
        """Whether a proposal that took no slot ends the sweep."""
        self._idle_proposals += 1
        if self._anchor_instead(proposal):
            return True
        if self._idle_proposals >= MAX_IDLE_PROPOSALS:
            self.phase.finish(
                f"the last {MAX_IDLE_PROPOSALS} proposals were discarded or had run already: "
                "the space holds nothing new that fits"
            )
        return self._idle_proposals >= MAX_IDLE_PROPOSALS

    def propose(self) -> None:
        """Keep one gated proposal ahead of the free slots, so that no slot waits for a discard."""
        if self.phase.state is not SweepState.RUNNING:
            return
        self.intake.take_up()
        is_open = self.has_open()
        if self.quota.room() <= 0 and self.quota.left() <= 0:
            if not is_open:
                self.phase.finish(f"run_cap of {self.run_cap} trials reached")
            return
        if (spent := self.quota.ended_by(is_open=is_open)) is not None:
            self.notify(BudgetSpent(reason=spent))
            self.phase.finish(spent)
            return
        if self.quota.room() <= 0:
            return
        if (reached := self._target_reached()) is not None:
            self.phase.finish(reached)
            return
        with self.study.exclusive():
            if self.take_over is not None:
                self.take_over.sync()
            self._ask_for(self.quota.room())

    def _target_reached(self) -> str | None:
        """Which trial reached the metric's target, in a sentence; None while none has."""
        metric, best = self.session.spec.metric, self.table.best
        if metric.target is None or best is None or best.val_bpb is None:
            return None
        if metric.sign * best.val_bpb > metric.sign * metric.target:
            return None
        return f"trial {best.number} reached the target: {metric.name} {best.val_bpb:g}"

    def _ask_for(self, room: float) -> None:
        """Propose and admit as many trials as there is room for, or for as long as a turn takes."""
        deadline = self.clock.monotonic() + ASKING_SECONDS
        while room > 0 and self.clock.monotonic() < deadline:
            if self._anchors.waits(self._unfinished()):
                return
            self._second_seeds.enqueue(self.quota.last_trials() - len(self._held))
            if self.quota.awaits_rungs() and not self.study.has_waiting():
                return
            proposal = self.study.ask(ending=self.quota.ending())
            if proposal is None:
                self.phase.finish("every point of the grid was proposed")
                return
            slots = self.quota.slots_of(proposal.rung)
            if not self._is_judged(proposal):
                self._held.append((proposal, None))
                room -= slots
            elif self._take(proposal):
                room -= slots
            else:
                # It may have had its result already.
                room = min(room, self.quota.rest())
                if self._discarded(proposal):
                    return

    def _unfinished(self) -> set[int]:
        queued = (trial.record.number for trial in self.table.queued)
        return {*self.table.running, *self.table.probing, *queued}

    def _anchor_instead(self, proposal: Proposal) -> bool:
        """Whether a discard ends the sweep; one in a row may bring an anchor."""
        if proposal.change.variant:
            return False
        self._anchors.discarded(proposal)
        due = self._anchors.due(self._unfinished())
        if due is not None:
            knobs, key, size = due
            number = self.study.enqueue_once(knobs, Origin(proposer=ANCHOR, request=key))
            self.notify(
                AnchorLaunched(number=number, discards=DISCARDS_UNTIL_ANCHOR, predicted_bytes=size)
            )
        rescue = self._anchors.rescue()
        if rescue is not None:
            rung = None if self.session.spec.pgolf.fidelity is None else 1
            origin = Origin(proposer=RANDOM, request=rescue[1], rung=rung)
            self.study.enqueue_once(rescue[0], origin)
        reason = self._anchors.infeasible()
        if reason:
            self.phase.finish(reason)
        return bool(reason)
