"""Proposals as a driver takes them up: within budgets, in fair turn, noted in the ledger."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.ledger import Ledger
from pgolf_sweep.driver.ledger import catch_up, proposal_entries, result_entries
from pgolf_sweep.driver.proposals import PROPOSED, answer, answered, enqueue_pending, look, pending
from pgolf_sweep.driver.proposers import Proposers, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import Notify
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import TrialSpec
    from pgolf_sweep.driver.proposals import ProposalRequest
    from pgolf_sweep.driver.proposers import Account
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.table import TrialTable
    from pgolf_sweep.search.study import Study

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Intake:
    """Takes up the proposals of one study.

    Attributes:
        session: Its sweep file gives the budgets.
        study: What requests go into.
        paths: The study's folder.
        table: What is known of all trials.
        clock: What is spent until now.
        notify: Hears of each proposal.
    """

    session: Session
    study: Study
    paths: StudyPaths
    table: TrialTable
    clock: Clock
    notify: Notify
    _ledger: Ledger = field(init=False)
    _ledger_fails: bool = False

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.paths)

    def take_up(self) -> None:
        """Enqueue what may run; refuse what may not, with the reason in its file."""
        waiting = pending(self.paths)
        if not waiting:
            return
        before = answered(self.paths)
        names = dict.fromkeys(request.by for request in waiting)
        accounts = {name: self._account(name, before) for name in names}
        counts = {name: account.open for name, account in accounts.items()}
        taken = []
        for request in in_turn(waiting, counts):
            verdict = self._proposers().answer(accounts[request.by])
            if verdict.refused:
                answer(self.paths, request, refused=verdict.refused)
            elif verdict.yes:
                enqueue_pending(self.paths, self.study, self.notify, requests=[request])
                taken.append(look(self.paths, request.id))
                one_more = accounts[request.by].open + 1
                accounts[request.by] = dataclasses.replace(accounts[request.by], open=one_more)
        self._write(proposal_entries(one for one in taken if one.number is not None))

    def bounded(self, record: TrialRecord, spec: TrialSpec) -> TrialSpec:
        """A trial that is about to start, ended when its proposer's budget is."""
        if not record.proposer.startswith(PROPOSED):
            return spec
        name = record.proposer.removeprefix(PROPOSED)
        proposers = self._proposers()
        left = proposers.seconds_left(self._account(name, ()))
        if left is None or left >= spec.limits.total_seconds:
            return spec
        limits = dataclasses.replace(spec.limits, total_seconds=left)
        return dataclasses.replace(spec, limits=limits)

    def ended(self, records: Iterable[TrialRecord]) -> None:
        """Note results in the ledger."""
        self._write(result_entries(records))

    def catch_up(self) -> None:
        """Answer what an earlier driver enqueued before it died, and note what it left out.

        Else a budget that this very trial has used up would refuse its request.
        """
        waiting = pending(self.paths)
        numbers = self.study.requested() if waiting else {}
        for request in waiting:
            if request.id in numbers:
                answer(self.paths, request, number=numbers[request.id])
        self._guarded(lambda: catch_up(self._ledger, self.table.records.values(), self._now))

    def _write(self, entries: list[tuple[str, str, dict[str, Any]]]) -> None:
        if entries:
            self._guarded(lambda: self._ledger.append(entries, self._now))

    def _guarded(self, write: Callable[[], object]) -> None:
        """A ledger that cannot be written ends no sweep; it is said once, and caught up later."""
        try:
            write()
        except (InfraError, InputError) as error:
            if not self._ledger_fails:
                logger.warning("the ledger is not written: %s", error)
            self._ledger_fails = True

    @property
    def _now(self) -> float:
        return self.clock.now()

    def _account(self, name: str, requests: Iterable[ProposalRequest]) -> Account:
        return self._proposers().account(name, self.table.records.values(), requests)

    def _proposers(self) -> Proposers:
        typical = self.table.typical_seconds or 0.0  # while unknown, `bounded` alone holds
        block = self.session.spec.pgolf
        return Proposers(
            budgets=block.proposers, gpus=block.gpus, expected_seconds=typical, now=self._now
        )
