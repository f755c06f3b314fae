"""What each proposer may have running and spend; the driver's word, whoever leaves the request.

``pgolf.proposers`` of the sweep file gives the budgets. A request beyond `concurrent` waits in its
file; one beyond `gpu_hours`, or of a proposer that only fails, is refused with the reason. Who has
fewest trials open is served first, so that no proposer shuts out another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import FailureKind
from pgolf_sweep.driver.proposals import PROPOSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.config.pgolf_model import ProposerBlock
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.proposals import ProposalRequest

ANYONE = "*"
"""The budget of each proposer that the sweep file does not name."""

PAUSE_SECONDS = 600.0
"""How long a proposer that only fails is refused; then it may have one trial at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How a proposer stands.

    Attributes:
        name: Its name.
        budget: What the sweep file gives it; None where the file bounds nobody.
        known: Whether the file names it, or anyone.
        open: Trials that wait or run.
        slot_seconds: Spent, what runs included.
        gpu_hours: The same on the slots' GPUs; a slot without GPUs counts as one.
        failures: Trials at the end of its list that failed by their own fault.
        reason: Why the last of them did.
        failed_at: When it ended.
    """

    name: str
    budget: ProposerBlock | None
    known: bool
    open: int
    slot_seconds: float
    gpu_hours: float
    failures: int
    reason: str
    failed_at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a request may be enqueued now; else why it waits, or why it is refused."""

    waits: str = ""
    refused: str = ""

    @property
    def yes(self) -> bool:
        """Whether it may."""
        return not self.waits and not self.refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposers:
    """The budgets of a sweep file and what came of them.

    Attributes:
        budgets: By name; empty: nobody is bounded.
        gpus: Of one slot.
        expected_seconds: What one more trial is expected to hold its slot for.
        now: Seconds of the epoch.
    """

    budgets: Mapping[str, ProposerBlock]
    gpus: int
    expected_seconds: float
    now: float

    def account(
        self, name: str, records: Iterable[TrialRecord], requests: Iterable[ProposalRequest] = ()
    ) -> Account:
        """How a proposer stands.

        Args:
            name: Its name.
            records: Rows of the study's trials.
            requests: Answered requests: those whose trial has no row yet are open, too.
        """
        own = [r for r in records if r.proposer == f"{PROPOSED}{name}"]
        known = {record.number for record in own}
        asked = {r.number for r in requests if r.by == name and r.number is not None}
        failed: list[TrialRecord] = []
        ended = (r for r in own if r.outcome.final and r.duplicate_of is None)
        for record in sorted(ended, key=lambda r: (r.ended_at or 0.0, r.number), reverse=True):
            if record.outcome is not State.FAILED:
                break
            if record.failure == FailureKind.DETERMINISTIC.value:
                failed.append(record)
        seconds = sum(self._seconds(record) for record in own)
        return Account(
            name=name,
            budget=self.budgets.get(name, self.budgets.get(ANYONE)),
            known=not self.budgets or name in self.budgets or ANYONE in self.budgets,
            open=sum(not r.outcome.final for r in own) + len(asked - known),
            slot_seconds=seconds,
            gpu_hours=seconds * max(1, self.gpus) / 3600,
            failures=len(failed),
            reason=failed[0].reason if failed else "",
            failed_at=(failed[0].ended_at or 0.0) if failed else 0.0,
        )

    def answer(self, account: Account) -> Answer:
        """Whether a proposer may have one more trial now."""
        if not account.known:
            return Answer(
                refused=f"pgolf.proposers of the sweep file gives {account.name} no budget"
            )
        budget = account.budget
        if budget is None:
            return Answer()
        if budget.failures and account.failures >= budget.failures:
            left = PAUSE_SECONDS - (self.now - account.failed_at)
            why = f"its last {account.failures} trials failed, the last one: {account.reason}"
            if left > 0:
                return Answer(refused=f"{account.name} is paused for {left:.0f} s: {why}")
            if account.open:
                return Answer(waits=f"one trial at a time: {why}")
        if budget.gpu_hours is not None:
            each = self.expected_seconds * max(1, self.gpus) / 3600
            if account.gpu_hours + (account.open + 1) * each > budget.gpu_hours:
                spent = f"{account.gpu_hours:.2f} of {budget.gpu_hours:g} GPU-hours are spent"
                if account.open:
                    return Answer(waits=f"{spent}, {account.open} trials are open")
                return Answer(refused=f"{spent}, one more trial takes {each:.2f}")
        if budget.concurrent is not None and account.open >= budget.concurrent:
            return Answer(waits=f"{account.open} of {budget.concurrent} trials at a time are open")
        return Answer()

    def seconds_left(self, account: Account) -> float | None:
        """Most slot-seconds that a trial of a proposer may take; None: nothing bounds it."""
        if account.budget is None or account.budget.gpu_hours is None:
            return None
        whole = account.budget.gpu_hours * 3600 / max(1, self.gpus)
        return max(1.0, (whole - account.slot_seconds) / max(1, account.open))

    def _seconds(self, record: TrialRecord) -> float:
        runs = record.outcome is State.RUNNING and record.started_at is not None
        return record.slot_seconds + (max(0.0, self.now - (record.started_at or 0.0)) * runs)


def in_turn(
    requests: Sequence[ProposalRequest], open_trials: Mapping[str, int]
) -> list[ProposalRequest]:
    """Requests in the order in which they are served: of who has fewest open trials first."""
    counts = dict(open_trials)
    left, order = list(requests), []
    while left:
        first = min(left, key=lambda one: counts.get(one.by, 0))  # the oldest among equals
        counts[first.by] = counts.get(first.by, 0) + 1
        order.append(first)
        left.remove(first)
    return order
