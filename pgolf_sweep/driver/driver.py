"""The loop: ask, gate, launch, poll, report, tell.

One thread, and the only writer of its trials. Everything that it does to a trial is in this order,
so that a driver killed between any two steps can be resumed:

1. ask (the study knows the number), write ``spec.json`` and the program into the trial's folder,
   note the row: the trial is queued;
2. note the attempt, start;
3. on the end, write ``result.json``, then tell.

A resumed driver tells what has a ``result.json`` and starts anew what has none.

Where several drivers share the study, each does this to the trials that it holds, and takes turns
with the others to propose, to take over and to tell (docs/adr/0006).

Others do the rest: `supply` proposes, holds and admits trials, `runs` starts them and takes in
their ends, `budget` says how much more there is room for, `writer` writes the rows, `takeover`
knows what the other drivers did.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.errors import (
    InfraError,
    InterruptedSweepError,
    PgolfError,
    StorageAwayError,
)
from pgolf_sweep.core.events import (
    Cancelling,
    Draining,
    StartingEnded,
    SweepEnded,
    TrialEnded,
    TrialProposed,
)
from pgolf_sweep.core.kept import whole_result
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.spending import Spending
from pgolf_sweep.driver.admission import Admission
from pgolf_sweep.driver.budget import Quota, expected_seconds
from pgolf_sweep.driver.control import Request
from pgolf_sweep.driver.intake import Intake
from pgolf_sweep.driver.phase import Phase
from pgolf_sweep.driver.proposals import PROPOSED
from pgolf_sweep.driver.reuse import Trainings
from pgolf_sweep.driver.runs import Runs
from pgolf_sweep.driver.sharing.leases import strongest
from pgolf_sweep.driver.sharing.storage_retry import StorageRetry
from pgolf_sweep.driver.sharing.takeover import TakeOver, notify_resumed
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.driver.supply import Supply
from pgolf_sweep.driver.table import TrialTable
from pgolf_sweep.driver.tracked import metrics, study_files
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.driver.writer import TrialWriter
from pgolf_sweep.nodes.quarantine import NodeBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.snapshot import Observer, Snapshot
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.search.study import Proposal, Study
    from pgolf_sweep.track.base import RunTracking, StudyTracker

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Longest wait for an event: how late a request to stop or a resized cluster is noticed."""

SHOW_SECONDS = 0.5
"""Shortest time between two snapshots for people and W&B, who read no faster."""

CANCELLED = "cancelled by the user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a driver behaves.

    Attributes:
        run_cap: Trials that may take a slot, over the whole life of the study; None: no limit.
        spending: GPU-hours, dollars and time over the whole life of the study.
        max_retries: Further attempts for a trial whose infrastructure failed.
        nodes: When a node is not trusted any more.
        request: Asked once a turn for what the user wants.
        tracking: W&B settings of a trial's run, or None for no W&B.
        provenance: Written into each ``spec.json``: the sampler's settings, hashes, versions.
    """

    run_cap: int | None
    spending: Spending = field(default_factory=Spending)
    max_retries: int = 2
    nodes: NodesBlock = field(default_factory=NodesBlock)
    request: Callable[[], Request] = lambda: Request.CONTINUE
    tracking: Callable[[TrialRecord], RunTracking | None] = lambda _record: None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Driver:
    """Runs one study to its end; see the module's docstring for what survives a kill.

    Attributes:
        lease: This driver's place among those that share the study; None where it is alone.
        trainings: Which trainings trials share; its sampler may know it, too.
    """

    session: Session
    study: Study
    launcher: Launcher
    tracker: StudyTracker
    paths: StudyPaths
    clock: Clock
    observer: Observer
    options: Options
    lease: DriverLease | None = None
    trainings: Trainings | None = None

    _table: TrialTable = field(default_factory=TrialTable)
    _phase: Phase = field(default_factory=Phase)
    _proposals: set[int] = field(default_factory=set)
    """Trials that people asked for, as far as they are known to wait."""
    _began_at: float = field(init=False)
    _slots_each: int = field(init=False)
    _sessions: Sessions = field(init=False)
    _intake: Intake = field(init=False)
    _shown_at: float = -math.inf
    _nodes: NodeBook = field(init=False)
    _nodes_seen_at: float = -math.inf
    _storage_retry: StorageRetry = field(init=False)
    _quota: Quota = field(init=False)
    _writer: TrialWriter = field(init=False)
    _supply: Supply = field(init=False)
    _runs: Runs = field(init=False)
    _take_over: TakeOver | None = None

    def __post_init__(self) -> None:
        self._began_at = self.clock.now()
        fidelity = self.session.spec.pgolf.fidelity
        self._slots_each = self.session.slots_each
        if fidelity is not None:
            rungs = range(1, len(fidelity.rungs) + 1)
            self._table.gpu_shares = {rung: fidelity.gpu_share(rung) for rung in rungs}
        trainings = self.trainings or Trainings(self.session, self.paths)
        self._sessions = Sessions(self.session, self.paths, self.study)
        self._intake = Intake(
            session=self.session,
            study=self.study,
            paths=self.paths,
            table=self._table,
            clock=self.clock,
            notify=self._notify,
        )
        self._storage_retry = StorageRetry(
            study=self.study,
            launcher=self.launcher,
            clock=self.clock,
            request=self.options.request,
            notify=self._notify,
            lease=self.lease,
        )
        self._nodes = NodeBook(self.options.nodes, self.clock, self._notify)
        self._quota = Quota(
            run_cap=self.options.run_cap,
            spending=self.options.spending,
            estimate=expected_seconds(self.session),
            learns=self.session.spec.method not in {"grid", "random", "qmc"},
            table=self._table,
            trainings=trainings,
            launcher=self.launcher,
            nodes=self._nodes,
            clock=self.clock,
            lease=self.lease,
            fidelity=fidelity,
        )
        self._writer = TrialWriter(
            sessions=self._sessions,
            study=self.study,
            paths=self.paths,
            storage_retry=self._storage_retry,
            table=self._table,
            trainings=trainings,
            notify=self._notify,
            me="" if self.lease is None else self.lease.me,
            on_end=lambda record: self._intake.ended([record]),
        )
        admission = Admission(
            writer=self._writer, tracker=self.tracker, provenance=self.options.provenance
        )
        self._supply = Supply(
            session=self.session,
            sessions=self._sessions,
            study=self.study,
            clock=self.clock,
            phase=self._phase,
            table=self._table,
            writer=self._writer,
            quota=self._quota,
            admission=admission,
            intake=self._intake,
            notify=self._notify,
            run_cap=self.options.run_cap,
        )
        self._runs = Runs(
            session=self.session,
            sessions=self._sessions,
            study=self.study,
            launcher=self.launcher,
            paths=self.paths,
            clock=self.clock,
            phase=self._phase,
            table=self._table,
            trainings=trainings,
            writer=self._writer,
            nodes=self._nodes,
            quota=self._quota,
            admission=admission,
            intake=self._intake,
            storage_retry=self._storage_retry,
            notify=self._notify,
            max_retries=self.options.max_retries,
            tracking=self.options.tracking,
        )
        if self.lease is not None:
            self._take_over = TakeOver(
                lease=self.lease,
                writer=self._writer,
                launcher=self.launcher,
                max_retries=self.options.max_retries,
                resume=self._resume,
                has_room=lambda: (
                    self._phase.starting and self._quota.in_time() and self._quota.wanted() > 0
                ),
            )
            self._supply.take_over = self._take_over

    def run(self) -> Snapshot:
        """Run until the cap, the budget, the space's end or the user's word.

        Raises:
            InfraError: Disk or storage failed; what runs was ended, the study can be resumed.
            InterruptedSweepError: The user cancelled while the storage did not answer.
        """
        try:
            for _ in self.turns():
                pass
        except PgolfError as error:
            self._say_ended("interrupted", error.what)
            raise
        finally:
            final = self.snapshot()
            files = study_files(self.session.spec, self.paths, final.best)
            self.tracker.finish({**metrics(final), "state": final.state.value}, files)
        self.observer.turn(final)
        self._say_ended(final.state.value, final.reason)
        return final

    def _say_ended(self, state: str, reason: str) -> None:
        completed = self._table.counts["completed"]
        self._notify(
            SweepEnded(study=self.study.name, state=state, reason=reason, completed=completed)
        )

    def turns(self) -> Iterator[None]:
        """`run`, one turn of the loop at a time."""
        self._storage_retry.call(self._adopt)
        try:
            while not self._over():
                try:
                    self._turn()
                except StorageAwayError as error:
                    self._storage_retry.wait(error)
                yield
            if self._phase.state is SweepState.DRAINING:
                self._phase.state = SweepState.STOPPED
            if self._take_over is not None:
                self._take_over.leave()
        except (InfraError, InterruptedSweepError):
            if self._storage_retry.abandoned:
                # What ended meanwhile keeps its result, which the next launch tells.
                while self._storage_retry.events:
                    self._runs.handle(self._storage_retry.events.popleft())
            raise

    def _turn(self) -> None:
        turn_began = self.clock.monotonic()
        self._keep_in_touch()
        self._handle_request()
        self._handle_nodes()
        self._writer.catch_up()
        self._supply.judge_held()
        self._runs.start_queued()
        self._supply.propose()
        self._runs.start_queued()
        self._storage_retry.events.extend(self.launcher.poll(POLL_SECONDS))
        self._keep_in_touch()  # a driver that was frozen has missed things
        while self._storage_retry.events:
            self._runs.handle(self._storage_retry.events.popleft())
        seconds = self.clock.monotonic() - turn_began
        self._table.idle_seconds += self.launcher.free() * seconds / self._slots_each
        self._show()

    def _keep_in_touch(self) -> None:
        if self._take_over is not None:
            self._take_over.keep_in_touch()

    # -- resuming -------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over what an earlier driver left: tell what ended, queue what did not."""
        half_told = {row.number for row in self.study.open_rows() if row.outcome.final}
        for record in self.study.records():
            self._table.note(record)
            if record.outcome is State.QUEUED and record.proposer.startswith(PROPOSED):
                self._proposals.add(record.number)
            if record.outcome.final and self.lease is None and record.number not in half_told:
                self._writer.learn(record)
                if record.outcome is not State.DISCARDED and record.duplicate_of is None:
                    self.tracker.ended(record, again=True)
            if record.outcome is State.DISCARDED and not record.variant:
                self.tracker.discarded(record.number, record.knobs, self.session.recorded(record))
        self._intake.catch_up()
        if self._take_over is not None:
            self._take_over.keep_in_touch()
            return
        for proposal, noted in self.study.unfinished():
            self._resume(proposal, noted)
        notify_resumed(self._notify, self._table.queued)

    def _resume(self, proposal: Proposal, noted: TrialRecord | None) -> None:
        """Tell a trial that has a result here; queue one that has none."""
        document = whole_result(self.paths.trial(proposal.number), self._writer.file_kept)
        if document is not None and (
            noted is None or document["record"]["identity"] == noted.identity
        ):
            self._writer.tell_result(document)
            return
        if noted is not None and noted.outcome.final:  # its driver died in the middle of telling
            self._writer.tell(noted)
            return
        self._supply.resume(proposal, noted)

    # -- stopping -------------------------------------------------------------------------------

    def _handle_request(self) -> None:
        everybody = Request.CONTINUE if self.lease is None else self.lease.request
        request = strongest(self.options.request(), everybody)
        if request is Request.DRAIN and self._phase.starting:
            self._phase.enter(SweepState.DRAINING, "stopped by the user")
            self._notify(Draining(study=self.study.name, running=len(self._table.running)))
        if request is Request.CANCEL and self._phase.state is not SweepState.CANCELLED:
            self._phase.enter(SweepState.CANCELLED, CANCELLED)
            self._notify(Cancelling(running=len(self._table.running)))
            for number in self._table.running:
                self.launcher.cancel(str(number), CANCELLED)

    def _handle_nodes(self) -> None:
        """See what became of the nodes; end where none of them, or no trial, can do anything."""
        now = self.clock.monotonic()
        if now - self._nodes_seen_at < POLL_SECONDS:
            return
        self._nodes_seen_at = now
        nodes = self.launcher.nodes()
        self._nodes.see(nodes)
        if lacking := frozenset(name for node in nodes for name in node.lacks):
            self.session.gate.set_lacking(lacking)
        if not self._phase.starting:
            return
        same_error, no_healthy_nodes = self._nodes.same_error(), self._nodes.no_healthy_nodes()
        # What a living driver of a shared study holds is waited for all the same.
        unheld = any(not row.driver for row in self._table.elsewhere.values())
        waits = self._phase.state is SweepState.RUNNING or self._table.queued_count or unheld
        if same_error is not None:
            self._phase.enter(SweepState.ABORTED_SAME_ERROR, same_error)
        elif no_healthy_nodes is not None and waits:
            self._phase.enter(SweepState.NO_HEALTHY_NODES, no_healthy_nodes)
        else:
            return
        self._notify(StartingEnded(reason=self._phase.reason))

    def _over(self) -> bool:
        if self._phase.state is SweepState.RUNNING or self._table.running:
            return False
        if self._phase.state is SweepState.FINISHED:
            return not self._supply.has_open()
        return True

    # -- accounts -------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The sweep as it stands."""
        snapshot = self._table.snapshot(
            state=self._phase.state,
            reason=self._phase.reason,
            slots=len(self.launcher.slots()) // self._slots_each,
            run_cap=self.options.run_cap,
            now=self.clock.now(),
            budget=self._quota.row(),
        )
        metric = self.session.spec.metric
        return dataclasses.replace(
            snapshot,
            nodes=self._nodes.rows(),
            proposals=self._waiting_proposals(),
            began_at=self._began_at,
            held_seconds=self._table.slot_seconds(
                now=self.clock.monotonic(), epoch=self.clock.now()
            ),
            gpus=self.session.resources.gpus,
            usd_per_gpu_hour=self.session.spec.pgolf.budget.usd_per_gpu_hour,
            metric="" if metric.contest else metric.name,
        )

    def _notify(self, event: SweepEvent) -> None:
        """Tell those who watch of an event."""
        if isinstance(event, TrialProposed):
            self._proposals.add(event.number)
        if isinstance(event, TrialEnded):
            self.tracker.ended(event.record)
        self.observer.event(event)

    def _waiting_proposals(self) -> int:
        """How many trials that people asked for have had no slot yet."""
        rows = self._table.records
        self._proposals = {
            n for n in self._proposals if n not in rows or rows[n].outcome is State.QUEUED
        }
        return len(self._proposals)

    def _show(self) -> None:
        """Let people see, not more often than they can read."""
        now = self.clock.monotonic()
        if now - self._shown_at < SHOW_SECONDS:
            return
        self._shown_at = now
        snapshot = self.snapshot()
        self.observer.turn(snapshot)
        self.tracker.progress(metrics(snapshot))
