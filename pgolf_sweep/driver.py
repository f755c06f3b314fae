"""The loop: ask, gate, launch, poll, report, tell.

One thread, and the only writer of the study. Everything that it does to a trial is in this order,
so that a driver killed between any two steps can be resumed:

1. ask (the study knows the number), write ``spec.json`` and the program into the trial's folder,
   note the row: the trial is queued;
2. note the attempt, start;
3. on the end, write ``result.json``, then tell.

A resumed driver tells what has a ``result.json`` and starts anew what has none.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.control import Request
from pgolf_sweep.errors import InfraError, InputError
from pgolf_sweep.launch.base import Ended, Job, Reported, Started
from pgolf_sweep.ledger import Ledger
from pgolf_sweep.outcome import PRUNE_REASON, classify
from pgolf_sweep.proposals import answer, pending
from pgolf_sweep.record import State, TrialRecord
from pgolf_sweep.snapshot import Live, SweepState, line, metrics
from pgolf_sweep.trial import Discarded, Failed, FailureKind, VerdictKind
from pgolf_sweep.trialdir import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgolf_sweep.clock import Clock
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.search.study import Proposal, Study
    from pgolf_sweep.session import Session
    from pgolf_sweep.snapshot import Observer, Snapshot
    from pgolf_sweep.track.base import RunTracking, StudyTracker
    from pgolf_sweep.trial import RunEnd, Verdict
    from pgolf_sweep.trialdir import StudyPaths

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Longest wait for an event: how late a request to stop or a resized cluster is noticed."""

SHOW_SECONDS = 0.5
"""Shortest time between two snapshots for people and W&B: each costs a pass over all trials."""

MOST_NEAR_WAITING = 64
"""Trials near the cap that wait for those that fit, where the sampler does not learn."""

MAX_IDLE_PROPOSALS = 2000
"""Proposals running that took no slot (discards, duplicates) before the sweep gives up."""

CANCELLED = "cancelled by the user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a driver behaves.

    Attributes:
        run_cap: Trials that may take a slot, over the whole life of the study; None: no limit.
        gpu_hours: Budget over the whole life of the study, or None.
        max_retries: Further attempts for a trial whose infrastructure failed.
        request: Asked once a turn for what the user wants.
        tracking: W&B settings of a trial's run, or None for no W&B.
        provenance: Written into each ``spec.json``: the sampler's settings, hashes, versions.
    """

    run_cap: int | None
    gpu_hours: float | None = None
    max_retries: int = 2
    request: Callable[[], Request] = lambda: Request.CONTINUE
    tracking: Callable[[TrialRecord], RunTracking | None] = lambda _record: None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Driver:
    """Runs one study to its end; see the module's docstring for what survives a kill."""

    session: Session
    study: Study
    launcher: Launcher
    tracker: StudyTracker
    paths: StudyPaths
    clock: Clock
    observer: Observer
    options: Options

    _ledger: Ledger = field(default_factory=Ledger)
    _queue: deque[Live] = field(default_factory=deque)
    _live: dict[int, Live] = field(default_factory=dict)
    _twins: dict[int, list[Live]] = field(default_factory=dict)
    """Proposals that wait for the result of an equal trial that is queued or running."""
    _state: SweepState = SweepState.RUNNING
    _end_reason: str = ""
    _idle_proposals: int = 0
    _shown_at: float = -math.inf

    def run(self) -> Snapshot:
        """Run until the cap, the budget, the space's end or the user's word.

        Raises:
            InfraError: Disk or storage failed; what runs was ended, the study can be resumed.
        """
        self._adopt()
        try:
            while not self._over():
                turn_began = self.clock.monotonic()
                self._heed_request()
                self._start_queued()
                self._propose()
                self._start_queued()
                for event in self.launcher.poll(POLL_SECONDS):
                    self._handle(event)
                idle = max(0, len(self.launcher.slots()) - len(self._live))
                self._ledger.idle_seconds += idle * (self.clock.monotonic() - turn_began)
                self._show()
        finally:
            final = self.snapshot()
            self.tracker.finish({**metrics(final), "state": final.state.value})
        self.observer.turn(final)
        return final

    # -- resuming -------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over what an earlier driver left: tell what ended, queue what did not."""
        for record in self.study.records():
            self._ledger.note(record)
            if record.outcome.final:
                self._learn(record)
            if record.outcome is State.DISCARDED:
                verdict = self.session.verdict(record.knobs)
                self.tracker.discarded(record.number, record.knobs, verdict)
        for proposal, noted in self.study.unfinished():
            result = self.paths.trial(proposal.number).result
            if result.is_file():
                self._tell(TrialRecord.from_json(read_json(result)["record"]))
                continue
            live = self._admit(proposal, noted=noted)
            if live is not None:
                self._queue.append(live)
        if self._queue:
            numbers = ", ".join(str(live.record.number) for live in self._queue)
            self.observer.message(f"resuming trials {numbers}, which an earlier driver left")

    # -- proposing ------------------------------------------------------------------------------

    def _propose(self) -> None:
        """Keep one gated proposal ahead of the free slots, so that no slot waits for a discard."""
        if self._state is not SweepState.RUNNING:
            return
        self._take_wishes()
        near = sum(live.near_cap for live in self._queue)
        room = self.launcher.free() + 1 - (len(self._queue) - min(near, self._may_wait()))
        cap = self.options.run_cap
        if cap is not None:
            room = min(room, cap - len(self._ledger.took_slot) - len(self._queue))
        if room <= 0:
            if not self._live and not self._queue:
                self._finish(f"run_cap of {cap} trials reached")
            return
        if self._over_budget():
            self._finish(f"budget of {self.options.gpu_hours} GPU-hours reached")
            return
        deadline = self.clock.monotonic() + POLL_SECONDS
        while room > 0 and self.clock.monotonic() < deadline:
            proposal = self.study.ask()
            if proposal is None:
                self._finish("every point of the grid was proposed")
                return
            live = self._admit(proposal)
            if live is not None:
                self._idle_proposals = 0
                self._enqueue(live)
                room -= 1
                continue
            self._idle_proposals += 1
            if self._idle_proposals >= MAX_IDLE_PROPOSALS:
                self._finish(
                    f"the last {MAX_IDLE_PROPOSALS} proposals were discarded or had run already: "
                    "the space holds nothing new that fits"
                )
                return

    def _may_wait(self) -> int:
        """How many trials near the cap may wait beside the queue for those that fit.

        A sampler that learns proposes each without what the trials before it will teach, so it is
        not asked for more of them than there are slots.
        """
        blind = self.session.spec.method in {"grid", "random", "qmc"}
        return MOST_NEAR_WAITING if blind else len(self.launcher.slots())

    def _take_wishes(self) -> None:
        """Enqueue what `propose` asked for; the asker finds the trial's number in the file."""
        for wish in pending(self.paths):
            try:
                number = self.study.enqueue_once(wish.knobs, by=wish.proposer, key=wish.id)
            except InputError as error:
                answer(self.paths, wish, refused=error.what)
                continue
            answer(self.paths, wish, number=number)
            self.observer.message(f"trial {number} is proposed by {wish.by}")

    def _enqueue(self, live: Live) -> None:
        """Those near the cap go behind those that fit."""
        if live.near_cap:
            self._queue.append(live)
            return
        behind = next((i for i, other in enumerate(self._queue) if other.near_cap), None)
        self._queue.insert(len(self._queue) if behind is None else behind, live)

    def _admit(self, proposal: Proposal, *, noted: TrialRecord | None = None) -> Live | None:
        """Gate a proposal; None if it took its end at once or waits for its twin.

        Args:
            proposal: What to try.
            noted: The row that an earlier driver left of it: what it has cost so far counts.
        """
        knobs = self.session.resolve(proposal.knobs)
        run_id = f"{self.study.name}-{proposal.number}"
        spec = self.session.trial_spec(proposal.number, knobs, proposal.proposer, run_id=run_id)
        verdict = self.session.verdict(knobs)
        record = TrialRecord(
            number=proposal.number,
            outcome=State.QUEUED,
            knobs=knobs,
            predicted_bytes=verdict.artifact_bytes,
            model_params=verdict.model_params,
            code_bytes=verdict.code_bytes,
            proposer=proposal.proposer,
            attempts=noted.attempts if noted is not None else 0,
            slot_seconds=noted.slot_seconds if noted is not None else 0.0,
            identity=spec.identity,
        )
        live = Live(record, spec, near_cap=verdict.kind is VerdictKind.NEAR)
        cap_bytes = self.session.rules.artifact_cap_bytes
        if verdict.kind in {VerdictKind.NEAR, VerdictKind.TOO_BIG}:
            verdict = self._repaired(proposal, verdict)
        if verdict.discards:
            self.tracker.discarded(proposal.number, knobs, verdict)
            self._tell(record.ended(Discarded(verdict=verdict), None, cap_bytes=cap_bytes))
            return None
        original = self._ledger.original(spec.identity, proposal.number)
        if original is not None:
            self._follow(live, original)
            return None
        self._prepare(live)
        self._note(live, record)
        return live

    def _repaired(self, proposal: Proposal, verdict: Verdict) -> Verdict:
        """Enqueue what surely fits, by the knobs that may give; the proposal itself ends."""
        changed = self.session.repaired(proposal.knobs)
        if changed is None:
            return verdict
        by = f"repair of {proposal.number}"
        number = self.study.enqueue_once(changed, by=by, key=by)
        reason = f"{verdict.reason}; repaired as trial {number}"
        return dataclasses.replace(verdict, kind=VerdictKind.TOO_BIG, reason=reason)

    def _note(self, live: Live, record: TrialRecord) -> None:
        """A trial that has not ended changed."""
        live.record = record
        self._ledger.note(record)
        self.study.note(record)

    def _follow(self, twin: Live, original: TrialRecord) -> None:
        """Give a proposal the result of the trial that ran the same; wait for it if it must."""
        if original.outcome.final:
            self._tell(_as_duplicate(twin.record, original))
            return
        self._note(twin, dataclasses.replace(twin.record, duplicate_of=original.number))
        self._twins.setdefault(original.number, []).append(twin)

    # -- running --------------------------------------------------------------------------------

    def _prepare(self, live: Live) -> None:
        """Write a queued trial's folder ahead of its slot, which then need not wait for it."""
        folder = self.paths.trial(live.record.number)
        folder.result.unlink(missing_ok=True)
        more = {"provenance": dict(self.options.provenance)}
        write_json(folder.spec, dataclasses.asdict(live.spec) | more)
        for name, content in self.session.program.files.items():
            write_bytes(folder.root / name, content)

    def _start_queued(self) -> None:
        starting = self._state in {SweepState.RUNNING, SweepState.FINISHED}
        while starting and self._queue and self.launcher.free() > 0:
            live = self._queue.popleft()
            if live.near_cap and self._no_longer_fits(live):
                continue
            record = dataclasses.replace(
                live.record, outcome=State.RUNNING, attempts=live.record.attempts + 1
            )
            live.ordinal, live.val_bpb, live.step, live.cancelling = 0, None, None, False
            live.started_at = self.clock.now()
            self._note(live, record)
            job = Job(
                key=str(record.number),
                attempt=record.attempts,
                spec=live.spec,
                files=self.session.program.files,
                folder=self.paths.trial(record.number).root,
                tracking=self.options.tracking(record),
                wandb_folder=self.paths.wandb,
            )
            try:
                self.launcher.start(job)
            except InfraError as error:
                # The free slot's node went away in between; another turn finds another slot.
                logger.warning("trial %d did not start: %s", record.number, error)
                refused = dataclasses.replace(
                    record, outcome=State.QUEUED, attempts=record.attempts - 1
                )
                self._note(live, refused)
                self._queue.appendleft(live)
                return
            self._live[record.number] = live
            self._ledger.took_slot.add(record.number)

    def _no_longer_fits(self, live: Live) -> bool:
        """Judge one near the cap again: it has waited while finished trials taught the gate."""
        verdict = self.session.verdict(live.record.knobs)
        if not verdict.discards:
            return False
        self.tracker.discarded(live.record.number, live.record.knobs, verdict)
        cap_bytes = self.session.rules.artifact_cap_bytes
        record = dataclasses.replace(live.record, predicted_bytes=verdict.artifact_bytes)
        self._tell(record.ended(Discarded(verdict=verdict), None, cap_bytes=cap_bytes))
        return True

    def _handle(self, event: Started | Reported | Ended) -> None:
        live = self._live.get(int(event.key))
        if live is None or live.record.attempts != event.attempt:
            return  # A late word of an attempt that was given up.
        match event:
            case Started(node=node, at=at):
                live.record = dataclasses.replace(live.record, node=node, started_at=at)
                live.started_at = at
            case Reported(report=report):
                live.step = report.step
                live.total_steps = report.total_steps or live.total_steps
                if report.val_bpb is not None:
                    self._validated(live, report.val_bpb)
            case Ended(end=end):
                del self._live[live.record.number]
                self._ended(live, end)
                self._start_queued()

    def _validated(self, live: Live, val_bpb: float) -> None:
        if not live.step:
            return  # Before the first step every model scores alike: no ground to prune on.
        live.ordinal += 1
        live.val_bpb = val_bpb
        number = live.record.number
        if self.study.report(number, live.ordinal, val_bpb) and not live.cancelling:
            live.cancelling = True
            reason = f"{PRUNE_REASON} at validation {live.ordinal} with val_bpb {val_bpb:.4f}"
            self.launcher.cancel(str(number), reason)

    def _ended(self, live: Live, end: RunEnd) -> None:
        number = live.record.number
        outcome = classify(end, last_val_bpb=live.val_bpb, last_step=live.step)
        cap_bytes = self.session.rules.artifact_cap_bytes
        record = live.record.ended(outcome, end, cap_bytes=cap_bytes)
        infrastructure = isinstance(outcome, Failed) and outcome.kind is FailureKind.INFRASTRUCTURE
        if infrastructure and self._state is SweepState.CANCELLED:
            self._put_back(live, record)
            return
        if infrastructure:
            if record.attempts <= self.options.max_retries:
                self._retry(live, record)
                return
            reason = f"{record.reason} (infrastructure; {record.attempts} attempts)"
            record = dataclasses.replace(record, reason=reason)
        write_json(
            self.paths.trial(number).result,
            {"record": record.to_json(), "end": dataclasses.asdict(end)},
        )
        self._tell(record)

    def _put_back(self, live: Live, record: TrialRecord) -> None:
        """A trial that the user cancelled has no result: it waits for the next launch."""
        reason = f"{record.reason}: runs again when the study is resumed"
        self._note(
            live, dataclasses.replace(record, outcome=State.QUEUED, failure=None, reason=reason)
        )
        self._ledger.took_slot.discard(record.number)

    def _retry(self, live: Live, record: TrialRecord) -> None:
        """Try again what was not the trial's fault; the log of the failed attempt stays."""
        number = record.number
        self.observer.message(
            f"trial {number}: {record.reason}; attempt {record.attempts + 1} follows"
        )
        log = self.paths.trial(number).log
        if log.is_file():
            log.replace(log.with_name(f"train.attempt{record.attempts}.log"))
        self._note(live, dataclasses.replace(record, outcome=State.QUEUED, failure=None))
        self._ledger.took_slot.discard(number)
        self._queue.appendleft(live)

    def _tell(self, record: TrialRecord) -> None:
        """End a trial in the study, and with it those that waited for its result."""
        self.study.tell(record)
        self._learn(record)
        if record.outcome is not State.DISCARDED and record.duplicate_of is None:
            self.observer.message(line(record))
        for twin in self._twins.pop(record.number, []):
            self._tell(_as_duplicate(twin.record, record))

    def _learn(self, record: TrialRecord) -> None:
        """What a finished trial teaches: its configuration is known, its bytes calibrate."""
        own_result = self._ledger.close(record)
        measured = record.model_bytes
        if own_result and record.outcome is State.COMPLETED and measured is not None:
            self.session.gate.learn(record.knobs, measured)
            self.session.gate.learn_time(
                record.knobs,
                steps=record.steps,
                train_seconds=record.train_seconds,
                eval_seconds=record.eval_seconds,
            )

    # -- stopping -------------------------------------------------------------------------------

    def _heed_request(self) -> None:
        request = self.options.request()
        if request is Request.DRAIN and self._state in {SweepState.RUNNING, SweepState.FINISHED}:
            self._state, self._end_reason = SweepState.DRAINING, "stopped by the user"
            self.observer.message(
                f"draining: {len(self._live)} running trials may finish, nothing more starts; "
                f"Ctrl-C again, or `pgolf-sweep cancel {self.study.name}`, ends them now"
            )
        if request is Request.CANCEL and self._state is not SweepState.CANCELLED:
            self._state, self._end_reason = SweepState.CANCELLED, CANCELLED
            self.observer.message(f"ending {len(self._live)} running trials")
            for number in self._live:
                self.launcher.cancel(str(number), CANCELLED)

    def _finish(self, reason: str) -> None:
        """Nothing more will be proposed; what is queued and running still ends."""
        self._state, self._end_reason = SweepState.FINISHED, reason

    def _over(self) -> bool:
        if self._state is SweepState.RUNNING or self._live:
            return False
        if self._state is SweepState.FINISHED:
            return not self._queue
        if self._state is SweepState.DRAINING:
            self._state = SweepState.STOPPED
        return True

    # -- accounts -------------------------------------------------------------------------------

    def _over_budget(self) -> bool:
        hours = self.options.gpu_hours
        if hours is None:
            return False
        seconds = self._ledger.slot_seconds(self._live.values(), self.clock.now())
        return seconds * max(1, self.session.resources.gpus) / 3600 >= hours

    def snapshot(self) -> Snapshot:
        """The sweep as it stands."""
        return self._ledger.snapshot(
            state=self._state,
            reason=self._end_reason,
            live=list(self._live.values()),
            slots=len(self.launcher.slots()),
            run_cap=self.options.run_cap,
            now=self.clock.now(),
        )

    def _show(self) -> None:
        """Let people see, not more often than they can read."""
        now = self.clock.monotonic()
        if now - self._shown_at < SHOW_SECONDS:
            return
        self._shown_at = now
        snapshot = self.snapshot()
        self.observer.turn(snapshot)
        self.tracker.progress(metrics(snapshot))


def _as_duplicate(record: TrialRecord, original: TrialRecord) -> TrialRecord:
    """The row of a proposal whose configuration ran as another trial."""
    return dataclasses.replace(
        original,
        number=record.number,
        proposer=record.proposer,
        duplicate_of=original.number,
        reason=f"same configuration as trial {original.number}",
        slot_seconds=0.0,
        attempts=0,
    )
