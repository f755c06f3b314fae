"""Runs of trials: their start in free slots, what they report, and their end.

Part of the loop of `pgolf_sweep.driver.driver`, whose docstring has the order of what is written.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.classify import classify
from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.events import PruningIdle, Spared
from pgolf_sweep.core.paths import write_json
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import EndCause, Failed, FailureKind, schedule_fraction
from pgolf_sweep.driver.exports import exported, split_export
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.launch.base import Ended, Job, Reported, Started

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import RunEnd, StepReport
    from pgolf_sweep.driver.admission import Admission
    from pgolf_sweep.driver.budget import Quota
    from pgolf_sweep.driver.intake import Intake
    from pgolf_sweep.driver.phase import Phase
    from pgolf_sweep.driver.reuse import Trainings
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.sharing.storage_retry import StorageRetry
    from pgolf_sweep.driver.table import Attempt, OpenTrial, TrialTable
    from pgolf_sweep.driver.variants import Sessions
    from pgolf_sweep.driver.writer import TrialWriter
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.nodes.quarantine import NodeBook
    from pgolf_sweep.search.study import Study
    from pgolf_sweep.track.base import RunTracking

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Runs:
    """Starts what is queued and takes in what becomes of it.

    Attributes:
        max_retries: Further attempts for a trial whose infrastructure failed.
        tracking: W&B settings of a trial's run, or None for no W&B.
    """

    session: Session
    sessions: Sessions
    study: Study
    launcher: Launcher
    paths: StudyPaths
    clock: Clock
    phase: Phase
    table: TrialTable
    trainings: Trainings
    writer: TrialWriter
    nodes: NodeBook
    quota: Quota
    admission: Admission
    intake: Intake
    storage_retry: StorageRetry
    notify: Callable[[SweepEvent], None]
    max_retries: int
    tracking: Callable[[TrialRecord], RunTracking | None]
    _pruning_checked: bool = False
    _ending: TrialRecord | None = None

    def start_queued(self) -> None:
        """Start what is queued, as far as slots, nodes and the deadline allow."""
        starting = self.phase.starting and not self.storage_retry.abandoned
        starting = starting and self.quota.in_time()
        while starting and (trial := self._next_to_start()) is not None:
            if trial.near_cap and self.admission.no_longer_fits(trial):
                self.table.release(trial.record.number)
                continue
            started_at, held_from = self.clock.now(), self.clock.monotonic()
            record = dataclasses.replace(
                trial.record,
                outcome=State.RUNNING,
                attempts=trial.record.attempts + 1,
                started_at=started_at,
            )
            record, reuse = self.trainings.reuse_of(record)
            if not self.writer.note(trial, record):
                self.table.release(record.number)
                continue
            job = Job(
                key=str(record.number),
                attempt=record.attempts,
                spec=self.intake.bounded(record, trial.spec),
                files=self.sessions.of(record.variant).program.files,
                folder=self.paths.trial(record.number).root,
                tracking=self.tracking(record),
                wandb_folder=self.paths.wandb,
                avoid=self._avoided(record),
                reuse=reuse,
                slots=self.quota.slots_of(record.rung),
            )
            try:
                node = self.launcher.start(job)
            except InfraError as error:
                # The free slot's node went away in between; another turn finds another slot.
                logger.warning("trial %d did not start: %s", record.number, error)
                refused = dataclasses.replace(
                    record, outcome=State.QUEUED, attempts=record.attempts - 1
                )
                self.writer.note(trial, refused)
                return
            self.table.start(trial, started_at=started_at, held_from=held_from)
            self.nodes.started(record.number, node)

    def _next_to_start(self) -> OpenTrial | None:
        """The first queued trial that a free slot of a node open to it can hold."""
        if not self.table.queued_count or not self.launcher.free(self.nodes.closed()):
            return None
        running = [attempt.trial.record for attempt in self.table.running.values()]
        running += [] if self._ending is None else [self._ending]

        def may_start(number: int) -> bool:
            record = self.table.records[number]
            slots = self.quota.slots_of(record.rung)
            has_room = self.launcher.free(self._avoided(record), slots)
            return bool(has_room) and not self.trainings.waits(record, running)

        return self.table.next_to_start(may_start)

    def _avoided(self, record: TrialRecord) -> frozenset[str]:
        """Nodes on which a trial does not start: one is emptied for a wide trial that waits."""
        closed = self.nodes.closed(record.number)
        narrow = self.quota.slots_of(record.rung) < self.quota.slots_of(None)
        return closed | self.quota.emptied() if narrow else closed

    def handle(self, event: Started | Reported | Ended) -> None:
        """Take in what a launcher says of an attempt."""
        number = int(event.key)
        attempt = self.table.running.get(number)
        if attempt is None or attempt.trial.record.attempts != event.attempt:
            return  # A late word of an attempt that was given up.
        if attempt.given_up:
            if isinstance(event, Ended):
                self.table.vacate(number)
                self.nodes.forget(number)
            return
        match event:
            case Started(node=node, at=at):
                trial = attempt.trial
                trial.record = dataclasses.replace(trial.record, node=node, started_at=at)
                attempt.started_at = at
            case Reported(report=report):
                attempt.reported(report, self.clock.now())
                if report.step:
                    self.nodes.progressed(number)
                if report.val_bpb is not None:
                    self._validated(attempt, report, report.val_bpb)
            case Ended(end=end):
                self.table.vacate(number)
                if end.cause is EndCause.EXITED:
                    # What waits goes first: the slot need not stand empty while the end is written.
                    # What infrastructure ended may be tried again, and then before all others.
                    self._ending = attempt.trial.record  # its checkpoint is not known yet
                    self.start_queued()
                    self._ending = None
                self._ended(attempt, end)
                self.start_queued()

    def _validated(self, attempt: Attempt, report: StepReport, val_bpb: float) -> None:
        if not attempt.step:
            return  # Before the first step every model scores alike: no ground to prune on.
        attempt.scores.append(val_bpb)
        attempt.val_bpb = val_bpb
        number, ordinal = attempt.trial.record.number, len(attempt.scores)
        if attempt.trial.record.rung is not None:
            return  # its curve compares with none of the sweep's own
        knobs = attempt.trial.record.knobs
        fraction = schedule_fraction(report, knobs)
        judgement = self.storage_retry.call(
            lambda: self.study.report(number, ordinal, val_bpb, fraction=fraction, knobs=knobs)
        )
        if judgement is None or attempt.cancelling:
            return
        if attempt.trial.record.seed is not None:
            return  # it measures a configuration that has run: the score is what is asked for
        attempt.behind_at = fraction
        if judgement.spared:
            self.notify(Spared(number=number, validation=ordinal))
            return
        attempt.cancelling = True
        name = self.session.spec.metric.name
        reason = f"pruned at validation {ordinal} with {name} {val_bpb:.4f}"
        self.launcher.cancel(str(number), reason, cause=EndCause.PRUNED)

    def _ended(self, attempt: Attempt, end: RunEnd) -> None:
        trial = attempt.trial
        number = trial.record.number
        source = trial.record.reused_from
        end = self.trainings.whole(end, None if source is None else self.table.records[source])
        end = dataclasses.replace(end, gpu_share=self.table.gpu_share(trial.record.rung))
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
        shared = f"the training of trial {record.reused_from}" if record.stage else ""
        marks = "; ".join(filter(None, (record.reason, shared, self.nodes.slowness(end.node))))
        speed = self.nodes.speed(end.node)
        record = dataclasses.replace(
            record, reason=marks, node_speed=speed, behind_at=attempt.behind_at
        )
        retry_reason = self.nodes.ended(number, outcome=outcome, end=end, step=attempt.step)
        infrastructure = isinstance(outcome, Failed) and outcome.kind is FailureKind.INFRASTRUCTURE
        if infrastructure and self.phase.state is SweepState.CANCELLED:
            self.writer.put_back(trial, record)
            return
        if retry_reason is not None:
            record = dataclasses.replace(record, uncounted_attempts=record.uncounted_attempts + 1)
            self.writer.retry(trial, record, why=retry_reason)
            return
        if infrastructure:
            if record.attempts - record.uncounted_attempts <= self.max_retries:
                self.writer.retry(trial, record)
                return
            reason = f"{record.reason} (infrastructure; {record.attempts} attempts)"
            record = dataclasses.replace(record, reason=reason)
        result: dict[str, Any] = {
            "record": record.to_json(),
            "end": dataclasses.asdict(end),
            "scores": attempt.scores,
        }
        if smaller is not None:
            defaults = self.sessions.of(record.variant).defaults
            row = exported(record, smaller, defaults, cap_bytes=cap_bytes)
            result["export"] = None if row is None else row.to_json()
        write_json(self.paths.trial(number).result, result)
        self.writer.tell_result(result)
        if record.outcome is State.COMPLETED and not (self._pruning_checked or record.variant):
            self._pruning_checked = True
            never = self.study.never_prunes(number)
            if never is not None:
                self.notify(PruningIdle(reason=never))
