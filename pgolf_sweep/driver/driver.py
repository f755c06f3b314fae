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

The loop asks others for the rest: `quota` how much more there is room for, `admission` what becomes
of a proposal, `queue` which trial is next, `telling` to write the rows, `take_over` what the other
drivers did.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.classify import classify
from pgolf_sweep.core.errors import (
    InfraError,
    InputError,
    InterruptedSweepError,
    PgolfError,
    StorageAwayError,
)
from pgolf_sweep.core.events import (
    AnchorLaunched,
    BudgetSpent,
    Cancelling,
    Draining,
    PruningIdle,
    Spared,
    StartingEnded,
    SweepEnded,
    TrialEnded,
    TrialProposed,
)
from pgolf_sweep.core.kept import whole_result
from pgolf_sweep.core.paths import write_json
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.spending import Spending
from pgolf_sweep.core.trial import EndCause, Failed, FailureKind, schedule_fraction
from pgolf_sweep.driver.admission import Admission
from pgolf_sweep.driver.anchors import DISCARDS_UNTIL_ANCHOR, Anchors
from pgolf_sweep.driver.anchors import PROPOSER as ANCHOR
from pgolf_sweep.driver.budget import Quota, expected_seconds
from pgolf_sweep.driver.control import Request
from pgolf_sweep.driver.exports import exported, split_export
from pgolf_sweep.driver.intake import Intake
from pgolf_sweep.driver.proposals import PROPOSED
from pgolf_sweep.driver.second_seeds import SecondSeeds
from pgolf_sweep.driver.sharing.leases import strongest
from pgolf_sweep.driver.sharing.storage_retry import StorageRetry
from pgolf_sweep.driver.sharing.takeover import TakeOver, notify_resumed
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.driver.table import TrialTable
from pgolf_sweep.driver.tracked import metrics, study_files
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.driver.writer import TrialWriter
from pgolf_sweep.launch.base import Ended, Job, Reported, Started
from pgolf_sweep.nodes.quarantine import NodeBook
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.trial import RunEnd, StepReport
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.snapshot import Observer, Snapshot
    from pgolf_sweep.driver.table import Attempt, OpenTrial
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.search.study import Proposal, Study
    from pgolf_sweep.track.base import RunTracking, StudyTracker

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Longest wait for an event: how late a request to stop or a resized cluster is noticed."""

SHOW_SECONDS = 0.5
"""Shortest time between two snapshots for people and W&B, who read no faster."""

MAX_IDLE_PROPOSALS = 2000
"""Proposals running that took no slot (discards, duplicates) before the sweep gives up."""

RANDOM = "random"
"""Proposer of a configuration that was drawn because the sampler found none that fits."""

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

    _table: TrialTable = field(default_factory=TrialTable)
    _state: SweepState = SweepState.RUNNING
    _end_reason: str = ""
    _idle_proposals: int = 0
    _held: deque[tuple[Proposal, TrialRecord | None]] = field(default_factory=deque)
    """Trials that wait for the probe of their program, with the rows of those that are resumed."""
    _proposals: set[int] = field(default_factory=set)
    """Trials that people asked for, as far as they are known to wait."""
    _began_at: float = field(init=False)
    _sessions: Sessions = field(init=False)
    _intake: Intake = field(init=False)
    _anchors: Anchors = field(init=False)
    _shown_at: float = -math.inf
    _pruning_checked: bool = False
    _nodes: NodeBook = field(init=False)
    _nodes_seen_at: float = -math.inf
    _storage_retry: StorageRetry = field(init=False)
    _quota: Quota = field(init=False)
    _writer: TrialWriter = field(init=False)
    _admission: Admission = field(init=False)
    _second_seeds: SecondSeeds = field(init=False)
    _take_over: TakeOver | None = None

    def __post_init__(self) -> None:
        self._began_at = self.clock.now()
        self._anchors = Anchors(self.session)
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
            launcher=self.launcher,
            nodes=self._nodes,
            clock=self.clock,
            lease=self.lease,
        )
        self._second_seeds = SecondSeeds(session=self.session, study=self.study, table=self._table)
        self._writer = TrialWriter(
            sessions=self._sessions,
            study=self.study,
            paths=self.paths,
            storage_retry=self._storage_retry,
            table=self._table,
            notify=self._notify,
            me="" if self.lease is None else self.lease.me,
            on_end=lambda record: self._intake.ended([record]),
        )
        self._admission = Admission(
            writer=self._writer, tracker=self.tracker, provenance=self.options.provenance
        )
        if self.lease is not None:
            self._take_over = TakeOver(
                lease=self.lease,
                writer=self._writer,
                launcher=self.launcher,
                max_retries=self.options.max_retries,
                resume=self._resume,
                has_room=lambda: (
                    self._starting() and self._quota.in_time() and self._quota.wanted() > 0
                ),
            )

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
            if self._state is SweepState.DRAINING:
                self._state = SweepState.STOPPED
            if self._take_over is not None:
                self._take_over.leave()
        except (InfraError, InterruptedSweepError):
            if self._storage_retry.abandoned:
                # What ended meanwhile keeps its result, which the next launch tells.
                while self._storage_retry.events:
                    self._handle(self._storage_retry.events.popleft())
            raise

    def _turn(self) -> None:
        turn_began = self.clock.monotonic()
        self._keep_in_touch()
        self._handle_request()
        self._handle_nodes()
        self._writer.catch_up()
        self._judge_held()
        self._start_queued()
        self._propose()
        self._start_queued()
        self._storage_retry.events.extend(self.launcher.poll(POLL_SECONDS))
        self._keep_in_touch()  # a driver that was frozen has missed things
        while self._storage_retry.events:
            self._handle(self._storage_retry.events.popleft())
        seconds = self.clock.monotonic() - turn_began
        self._table.idle_seconds += self.launcher.free() * seconds
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
        if self._is_judged(proposal, noted):
            self._take(proposal, noted)
        else:
            self._held.append((proposal, noted))

    # -- probing --------------------------------------------------------------------------------

    def _is_judged(self, proposal: Proposal, noted: TrialRecord | None = None) -> bool:
        """Whether the gate answers at once on a trial; if not, this driver holds it until then.

        A script that is not ours is run to know its artifact, in a thread: the loop goes on.
        """
        number, probing = proposal.number, self._table.probing
        try:
            session = self._sessions.of(proposal.change.variant)
        except InputError:
            return True  # its admission says what is wrong
        if session.ready(proposal.knobs):
            probing.pop(number, None)
            return True
        if number not in probing:
            row = noted or TrialRecord(
                number=number,
                outcome=State.QUEUED,
                knobs=session.resolve(proposal.knobs),
                proposer=proposal.proposer,
                repair_of=proposal.repair_of,
                driver=self._writer.me,
                **dataclasses.asdict(proposal.change),
            )
            probing[number] = row
            if self._take_over is not None and noted is None:
                self._writer.note_row(row)  # else another driver would take it
        return False

    def _judge_held(self) -> None:
        """Admit the trials whose script was probed in the meantime."""
        held = self._held
        if not held or not self._starting():
            return
        with self.study.exclusive():
            for _ in range(len(held)):
                proposal, noted = held.popleft()
                if proposal.number not in self._table.probing:
                    continue  # another driver has it by now
                if not self._is_judged(proposal, noted):
                    held.append((proposal, noted))
                elif not self._take(proposal, noted):
                    self._discarded(proposal)

    def _take(self, proposal: Proposal, noted: TrialRecord | None = None) -> bool:
        """Admit a trial; False if it took its end at once."""
        trial = self._admission.admit(proposal, noted=noted)
        if trial is None:
            return False
        if noted is not None:
            self._table.append(trial)
            return True
        self._idle_proposals = 0
        self._anchors.launched(proposal)
        self._table.queue(trial)
        return True

    def _discarded(self, proposal: Proposal) -> bool:
        """Whether a proposal that took no slot ends the sweep."""
        self._idle_proposals += 1
        if self._anchor_instead(proposal):
            return True
        if self._idle_proposals >= MAX_IDLE_PROPOSALS:
            self._finish(
                f"the last {MAX_IDLE_PROPOSALS} proposals were discarded or had run already: "
                "the space holds nothing new that fits"
            )
        return self._idle_proposals >= MAX_IDLE_PROPOSALS

    # -- proposing ------------------------------------------------------------------------------

    def _propose(self) -> None:
        """Keep one gated proposal ahead of the free slots, so that no slot waits for a discard."""
        if self._state is not SweepState.RUNNING:
            return
        self._intake.take_up()
        is_open = self._has_open()
        if self._quota.room() <= 0 and self._quota.left() <= 0:
            if not is_open:
                self._finish(f"run_cap of {self.options.run_cap} trials reached")
            return
        if (spent := self._quota.ended_by(is_open=is_open)) is not None:
            self._notify(BudgetSpent(reason=spent))
            self._finish(spent)
            return
        if self._quota.room() <= 0:
            return
        if (reached := self._target_reached()) is not None:
            self._finish(reached)
            return
        with self.study.exclusive():
            if self._take_over is not None:
                self._take_over.sync()
            self._ask_for(self._quota.room())

    def _target_reached(self) -> str | None:
        """Which trial reached the metric's target, in a sentence; None while none has."""
        metric, best = self.session.spec.metric, self._table.best
        if metric.target is None or best is None or best.val_bpb is None:
            return None
        if metric.sign * best.val_bpb > metric.sign * metric.target:
            return None
        return f"trial {best.number} reached the target: {metric.name} {best.val_bpb:g}"

    def _ask_for(self, room: float) -> None:
        """Propose and admit as many trials as there is room for, or for as long as a turn takes."""
        deadline = self.clock.monotonic() + POLL_SECONDS
        while room > 0 and self.clock.monotonic() < deadline:
            if self._anchors.waits(self._unfinished()):
                return
            self._second_seeds.enqueue(self._quota.last_trials() - len(self._held))
            proposal = self.study.ask()
            if proposal is None:
                self._finish("every point of the grid was proposed")
                return
            if not self._is_judged(proposal):
                self._held.append((proposal, None))
                room -= 1
            elif self._take(proposal):
                room -= 1
            else:
                # It may have had its result already.
                room = min(room, self._quota.left(), self._quota.affordable())
                if self._discarded(proposal):
                    return

    def _unfinished(self) -> set[int]:
        queued = (trial.record.number for trial in self._table.queued)
        return {*self._table.running, *self._table.probing, *queued}

    def _anchor_instead(self, proposal: Proposal) -> bool:
        """Whether a discard ends the sweep; one in a row may bring an anchor."""
        if proposal.change.variant:
            return False
        self._anchors.discarded(proposal)
        due = self._anchors.due(self._unfinished())
        if due is not None:
            knobs, key, size = due
            number = self.study.enqueue_once(knobs, Origin(proposer=ANCHOR, request=key))
            self._notify(
                AnchorLaunched(number=number, discards=DISCARDS_UNTIL_ANCHOR, predicted_bytes=size)
            )
        rescue = self._anchors.rescue()
        if rescue is not None:
            self.study.enqueue_once(rescue[0], Origin(proposer=RANDOM, request=rescue[1]))
        reason = self._anchors.infeasible()
        if reason:
            self._finish(reason)
        return bool(reason)

    # -- running --------------------------------------------------------------------------------

    def _start_queued(self) -> None:
        starting = self._starting() and not self._storage_retry.abandoned
        starting = starting and self._quota.in_time()
        while starting and (trial := self._next_to_start()) is not None:
            if trial.near_cap and self._admission.no_longer_fits(trial):
                self._table.release(trial.record.number)
                continue
            started_at, held_from = self.clock.now(), self.clock.monotonic()
            record = dataclasses.replace(
                trial.record,
                outcome=State.RUNNING,
                attempts=trial.record.attempts + 1,
                started_at=started_at,
            )
            if not self._writer.note(trial, record):
                self._table.release(record.number)
                continue
            job = Job(
                key=str(record.number),
                attempt=record.attempts,
                spec=self._intake.bounded(record, trial.spec),
                files=self._sessions.of(record.variant).program.files,
                folder=self.paths.trial(record.number).root,
                tracking=self.options.tracking(record),
                wandb_folder=self.paths.wandb,
                avoid=self._nodes.closed(record.number),
            )
            try:
                node = self.launcher.start(job)
            except InfraError as error:
                # The free slot's node went away in between; another turn finds another slot.
                logger.warning("trial %d did not start: %s", record.number, error)
                refused = dataclasses.replace(
                    record, outcome=State.QUEUED, attempts=record.attempts - 1
                )
                self._writer.note(trial, refused)
                return
            self._table.start(trial, started_at=started_at, held_from=held_from)
            self._nodes.started(record.number, node)

    def _next_to_start(self) -> OpenTrial | None:
        """The first queued trial that a free slot of a node open to it can hold."""
        if not self._table.queued_count or not self.launcher.free(self._nodes.closed()):
            return None
        return self._table.next_to_start(
            lambda number: self.launcher.free(self._nodes.closed(number))
        )

    def _handle(self, event: Started | Reported | Ended) -> None:
        number = int(event.key)
        attempt = self._table.running.get(number)
        if attempt is None or attempt.trial.record.attempts != event.attempt:
            return  # A late word of an attempt that was given up.
        if attempt.given_up:
            if isinstance(event, Ended):
                self._table.vacate(number)
                self._nodes.forget(number)
            return
        match event:
            case Started(node=node, at=at):
                trial = attempt.trial
                trial.record = dataclasses.replace(trial.record, node=node, started_at=at)
                attempt.started_at = at
            case Reported(report=report):
                attempt.reported(report, self.clock.now())
                if report.step:
                    self._nodes.progressed(number)
                if report.val_bpb is not None:
                    self._validated(attempt, report, report.val_bpb)
            case Ended(end=end):
                self._table.vacate(number)
                if end.cause is EndCause.EXITED:
                    # What waits goes first: the slot need not stand empty while the end is written.
                    # What infrastructure ended may be tried again, and then before all others.
                    self._start_queued()
                self._ended(attempt, end)
                self._start_queued()

    def _validated(self, attempt: Attempt, report: StepReport, val_bpb: float) -> None:
        if not attempt.step:
            return  # Before the first step every model scores alike: no ground to prune on.
        attempt.scores.append(val_bpb)
        attempt.val_bpb = val_bpb
        number, ordinal = attempt.trial.record.number, len(attempt.scores)
        knobs = attempt.trial.record.knobs
        fraction = schedule_fraction(report, knobs)
        judgement = self._storage_retry.call(
            lambda: self.study.report(number, ordinal, val_bpb, fraction=fraction, knobs=knobs)
        )
        if judgement is None or attempt.cancelling:
            return
        if attempt.trial.record.seed is not None:
            return  # it measures a configuration that has run: the score is what is asked for
        attempt.behind_at = fraction
        if judgement.spared:
            self._notify(Spared(number=number, validation=ordinal))
            return
        attempt.cancelling = True
        name = self.session.spec.metric.name
        reason = f"pruned at validation {ordinal} with {name} {val_bpb:.4f}"
        self.launcher.cancel(str(number), reason, cause=EndCause.PRUNED)

    def _ended(self, attempt: Attempt, end: RunEnd) -> None:
        trial = attempt.trial
        number = trial.record.number
        end, smaller = split_export(end)
        outcome = classify(
            end,
            last_val_bpb=attempt.val_bpb,
            last_step=attempt.step,
            bytes_per_token=self.session.bytes_per_token,
            contest=self.session.spec.metric.contest,
        )
        cap_bytes = self.session.rules.artifact_cap_bytes
        record = trial.record.ended(outcome, end, cap_bytes=cap_bytes)
        marks = "; ".join(filter(None, (record.reason, self._nodes.slowness(end.node))))
        speed = self._nodes.speed(end.node)
        record = dataclasses.replace(
            record, reason=marks, node_speed=speed, behind_at=attempt.behind_at
        )
        retry_reason = self._nodes.ended(number, outcome=outcome, end=end, step=attempt.step)
        infrastructure = isinstance(outcome, Failed) and outcome.kind is FailureKind.INFRASTRUCTURE
        if infrastructure and self._state is SweepState.CANCELLED:
            self._writer.put_back(trial, record)
            return
        if retry_reason is not None:
            record = dataclasses.replace(record, uncounted_attempts=record.uncounted_attempts + 1)
            self._writer.retry(trial, record, why=retry_reason)
            return
        if infrastructure:
            if record.attempts - record.uncounted_attempts <= self.options.max_retries:
                self._writer.retry(trial, record)
                return
            reason = f"{record.reason} (infrastructure; {record.attempts} attempts)"
            record = dataclasses.replace(record, reason=reason)
        result: dict[str, Any] = {
            "record": record.to_json(),
            "end": dataclasses.asdict(end),
            "scores": attempt.scores,
        }
        if smaller is not None:
            defaults = self._sessions.of(record.variant).defaults
            row = exported(record, smaller, defaults, cap_bytes=cap_bytes)
            result["export"] = None if row is None else row.to_json()
        write_json(self.paths.trial(number).result, result)
        self._writer.tell_result(result)
        if record.outcome is State.COMPLETED and not (self._pruning_checked or record.variant):
            self._pruning_checked = True
            never = self.study.never_prunes(number)
            if never is not None:
                self._notify(PruningIdle(reason=never))

    # -- stopping -------------------------------------------------------------------------------

    def _handle_request(self) -> None:
        everybody = Request.CONTINUE if self.lease is None else self.lease.request
        request = strongest(self.options.request(), everybody)
        if request is Request.DRAIN and self._starting():
            self._state, self._end_reason = SweepState.DRAINING, "stopped by the user"
            self._notify(Draining(study=self.study.name, running=len(self._table.running)))
        if request is Request.CANCEL and self._state is not SweepState.CANCELLED:
            self._state, self._end_reason = SweepState.CANCELLED, CANCELLED
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
        if not self._starting():
            return
        same_error, no_healthy_nodes = self._nodes.same_error(), self._nodes.no_healthy_nodes()
        # What a living driver of a shared study holds is waited for all the same.
        unheld = any(not row.driver for row in self._table.elsewhere.values())
        waits = self._state is SweepState.RUNNING or self._table.queued_count or unheld
        if same_error is not None:
            self._state, self._end_reason = SweepState.ABORTED_SAME_ERROR, same_error
        elif no_healthy_nodes is not None and waits:
            self._state, self._end_reason = SweepState.NO_HEALTHY_NODES, no_healthy_nodes
        else:
            return
        self._notify(StartingEnded(reason=self._end_reason))

    def _finish(self, reason: str) -> None:
        """Nothing more will be proposed; what is queued and running still ends."""
        self._state, self._end_reason = SweepState.FINISHED, reason

    def _starting(self) -> bool:
        """Whether what is queued may start, if there is time for it."""
        return self._state in {SweepState.RUNNING, SweepState.FINISHED}

    def _has_open(self) -> bool:
        """Whether something runs, or waits and will run: after the deadline nothing starts."""
        if self._table.running:
            return True
        if self._quota.in_time():
            table = self._table
            return bool(table.queued_count or table.probing or table.elsewhere)
        return any(row.outcome is State.RUNNING for row in self._table.elsewhere.values())

    def _over(self) -> bool:
        if self._state is SweepState.RUNNING or self._table.running:
            return False
        if self._state is SweepState.FINISHED:
            return not self._has_open()
        return True

    # -- accounts -------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The sweep as it stands."""
        snapshot = self._table.snapshot(
            state=self._state,
            reason=self._end_reason,
            slots=len(self.launcher.slots()),
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
