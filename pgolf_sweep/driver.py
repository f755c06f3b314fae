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
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.control import Request
from pgolf_sweep.errors import InfraError, InputError, StorageAwayError
from pgolf_sweep.exports import exported, keep, parted
from pgolf_sweep.launch.base import Ended, Job, Reported, Started
from pgolf_sweep.ledger import Ledger
from pgolf_sweep.nodes import NodeBook
from pgolf_sweep.outage import Patience
from pgolf_sweep.outcome import PRUNE_REASON, classify
from pgolf_sweep.proposals import answer, pending
from pgolf_sweep.record import State, TrialRecord
from pgolf_sweep.sharing import short, strongest
from pgolf_sweep.snapshot import Live, SweepState, line, metrics
from pgolf_sweep.spectypes import NodesBlock
from pgolf_sweep.trial import Discarded, EndCause, Failed, FailureKind, VerdictKind
from pgolf_sweep.trialdir import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgolf_sweep.clock import Clock
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.search.study import Proposal, Study
    from pgolf_sweep.session import Session
    from pgolf_sweep.sharing import Crew
    from pgolf_sweep.snapshot import Observer, Snapshot
    from pgolf_sweep.track.base import RunTracking, StudyTracker
    from pgolf_sweep.trial import RunEnd, Verdict
    from pgolf_sweep.trialdir import StudyPaths

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Longest wait for an event: how late a request to stop or a resized cluster is noticed."""

SHOW_SECONDS = 0.5
"""Shortest time between two snapshots for people and W&B, who read no faster."""

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
        nodes: When a node is not trusted any more.
        request: Asked once a turn for what the user wants.
        tracking: W&B settings of a trial's run, or None for no W&B.
        provenance: Written into each ``spec.json``: the sampler's settings, hashes, versions.
    """

    run_cap: int | None
    gpu_hours: float | None = None
    max_retries: int = 2
    nodes: NodesBlock = field(default_factory=NodesBlock)
    request: Callable[[], Request] = lambda: Request.CONTINUE
    tracking: Callable[[TrialRecord], RunTracking | None] = lambda _record: None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Driver:
    """Runs one study to its end; see the module's docstring for what survives a kill.

    Attributes:
        crew: This driver's place among those that share the study; None where it is alone.
    """

    session: Session
    study: Study
    launcher: Launcher
    tracker: StudyTracker
    paths: StudyPaths
    clock: Clock
    observer: Observer
    options: Options
    crew: Crew | None = None

    _ledger: Ledger = field(default_factory=Ledger)
    _queue: deque[Live] = field(default_factory=deque)
    _live: dict[int, Live] = field(default_factory=dict)
    _twins: dict[int, list[Live]] = field(default_factory=dict)
    """Proposals that wait for the result of an equal trial that is queued or running."""
    _state: SweepState = SweepState.RUNNING
    _end_reason: str = ""
    _idle_proposals: int = 0
    _shown_at: float = -math.inf
    _nodes: NodeBook = field(init=False)
    _nodes_seen_at: float = -math.inf
    _patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(
            study=self.study,
            launcher=self.launcher,
            clock=self.clock,
            request=self.options.request,
            message=self.observer.message,
            crew=self.crew,
        )
        self._nodes = NodeBook(self.options.nodes, self.clock, self._say_of_nodes)

    def run(self) -> Snapshot:
        """Run until the cap, the budget, the space's end or the user's word.

        Raises:
            InfraError: Disk or storage failed; what runs was ended, the study can be resumed.
        """
        try:
            for _ in self.turns():
                pass
        finally:
            final = self.snapshot()
            self.tracker.finish({**metrics(final), "state": final.state.value})
        self.observer.turn(final)
        return final

    def turns(self) -> Iterator[None]:
        """`run`, one turn of the loop at a time."""
        self._patience.insist(self._adopt)
        try:
            while not self._over():
                try:
                    self._turn()
                except StorageAwayError as error:
                    self._patience.sit_out(error)
                yield
            self._leave()
        except InfraError:
            if self._patience.abandoned:
                # What ended meanwhile keeps its result, which the next launch tells.
                while self._patience.events:
                    self._handle(self._patience.events.popleft())
            raise

    def _turn(self) -> None:
        turn_began = self.clock.monotonic()
        self._keep_in_touch()
        self._heed_request()
        self._heed_nodes()
        self._start_queued()
        self._propose()
        self._start_queued()
        self._patience.events.extend(self.launcher.poll(POLL_SECONDS))
        self._keep_in_touch()  # a driver that was frozen has missed things
        while self._patience.events:
            self._handle(self._patience.events.popleft())
        seconds = self.clock.monotonic() - turn_began
        self._ledger.idle_seconds += self.launcher.free() * seconds
        self._show()

    # -- resuming -------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over what an earlier driver left: tell what ended, queue what did not."""
        for record in self.study.records():
            self._ledger.note(record)
            if record.outcome.final and self.crew is None:
                self._learn(record)
            if record.outcome is State.DISCARDED:
                verdict = self.session.verdict(record.knobs)
                self.tracker.discarded(record.number, record.knobs, verdict)
        if self.crew is not None:
            self._keep_in_touch()
            return
        for proposal, noted in self.study.unfinished():
            self._resume(proposal, noted)
        self._say_resumed(list(self._queue))

    def _resume(self, proposal: Proposal, noted: TrialRecord | None) -> None:
        """Tell a trial that has a result here; queue one that has none."""
        result = self.paths.trial(proposal.number).result
        if result.is_file():
            document = read_json(result)
            if noted is None or document["record"]["identity"] == noted.identity:
                self._tell_result(document)
                return
        live = self._admit(proposal, noted=noted)
        if live is not None:
            self._queue.append(live)

    def _say_resumed(self, queued: list[Live]) -> None:
        if queued:
            numbers = ", ".join(str(live.record.number) for live in queued)
            self.observer.message(f"resuming trials {numbers}, which an earlier driver left")

    # -- sharing the study ----------------------------------------------------------------------

    @property
    def _me(self) -> str:
        return "" if self.crew is None else self.crew.me

    def _keep_in_touch(self) -> None:
        """Every few seconds: keep the lease, look at what the other drivers did."""
        if self.crew is not None and self.crew.is_due():
            self.crew.beat(len(self.launcher.slots()))
            with self.study.together():
                self._meet(self.crew)
            self._patience.is_back()

    def _meet(self, crew: Crew) -> None:
        """Learn what others told, give up what they took, take what nobody holds; in turn only."""
        for record in self.study.ended_besides(self._ledger.ended):
            self._give_up(record.number)
            self._learn(record)
            self._end_twins(record)
        rows = {row.number: row for row in self.study.open_rows()}
        held = {live.record.number for live in self._waiting()} | self._live.keys()
        for number in held:
            if number in rows and rows[number].driver != crew.me:
                self._give_up(number)
        gone = crew.gone({row.driver for row in rows.values() if row.driver})
        own = {crew.me, crew.before} - {""}
        lost = [row for row in rows.values() if row.driver in gone - own]
        for row in lost:
            rows[row.number] = self._release(row)
        if lost:
            who = ", ".join(sorted({short(row.driver) for row in lost}))
            numbers = ", ".join(str(row.number) for row in lost)
            self.observer.message(f"driver {who} is gone: trials {numbers} wait for another")
        is_open = [row for row in rows.values() if row.number not in self._ledger.ended]
        self._ledger.look(row for row in is_open if row.driver not in own)
        queued = len(self._queue)
        for row in is_open:
            again = row.number not in held and row.driver in own
            free = row.driver == "" and row.number not in self._live and self._wanted() > 0
            if again or (free and self._state in {SweepState.RUNNING, SweepState.FINISHED}):
                self._take(row)
        self._say_resumed(list(self._queue)[queued:])

    def _waiting(self) -> list[Live]:
        """Trials that this driver holds and that do not run."""
        return [*self._queue, *(twin for twins in self._twins.values() for twin in twins)]

    def _give_up(self, number: int) -> None:
        """Another driver holds a trial or has told it: whatever this one has of it ends."""
        live = self._live.get(number)
        if live is not None and not live.given_up:
            live.given_up = True
            self.observer.message(f"trial {number} was taken over by another driver: it ends here")
            self.launcher.cancel(str(number), "taken over by another driver")
        self._queue = deque(live for live in self._queue if live.record.number != number)
        for twins in self._twins.values():
            twins[:] = [twin for twin in twins if twin.record.number != number]

    def _release(self, row: TrialRecord) -> TrialRecord:
        """Leave a dead driver's trial to whoever has room, unless it has lost too many."""
        if row.outcome.final:  # it died in the middle of telling
            self._tell(row)
            return row
        reason = f"its driver {short(row.driver)} is gone"
        if row.outcome is State.RUNNING and row.attempts > self.options.max_retries:
            reason = f"{reason} (infrastructure; {row.attempts} attempts)"
            kind = FailureKind.INFRASTRUCTURE.value
            row = dataclasses.replace(row, outcome=State.FAILED, failure=kind, reason=reason)
            self._tell(row)
            return row
        free = dataclasses.replace(row, outcome=State.QUEUED, driver="", reason=reason)
        self.study.note(free, of=row.driver)
        return free

    def _take(self, row: TrialRecord) -> None:
        """Hold a trial from now on, and go on with it as a resumed driver does."""
        if row.outcome.final:
            self._tell(row)
            return
        mine = dataclasses.replace(row, outcome=State.QUEUED, driver=self._me)
        if self.study.note(mine, of=row.driver):
            self._ledger.elsewhere.pop(row.number, None)
            self._ledger.took_slot.discard(row.number)
            self._resume(self.study.proposal(row.number), row)

    def _leave(self) -> None:
        """What this driver leaves undone may be done by the others."""
        if self.crew is None:
            return
        for live in self._waiting():
            self._note(live, dataclasses.replace(live.record, driver=""))
        self._patience.insist(self.crew.leave)

    # -- proposing ------------------------------------------------------------------------------

    def _propose(self) -> None:
        """Keep one gated proposal ahead of the free slots, so that no slot waits for a discard."""
        if self._state is not SweepState.RUNNING:
            return
        self._take_wishes()
        if self._room() <= 0:
            if self._left() <= 0 and not (self._live or self._queue or self._ledger.elsewhere):
                self._finish(f"run_cap of {self.options.run_cap} trials reached")
            return
        if self._over_budget():
            self._finish(f"budget of {self.options.gpu_hours} GPU-hours reached")
            return
        with self.study.together():
            if self.crew is not None:
                self._meet(self.crew)
            self._ask_for(self._room())

    def _wanted(self) -> float:
        """How many more trials this driver should hold: one ahead of its free slots.

        The last trials of a shared study are left to those that have free slots for them.
        """
        near = sum(live.near_cap for live in self._queue)
        ahead = self.crew is None or self._left() > self.crew.other_slots
        waiting = min(near, self._may_wait()) if near else 0
        free = self.launcher.free(self._nodes.closed())
        return free + ahead - (len(self._queue) - waiting)

    def _left(self) -> float:
        """How many trials may be proposed before `run_cap` is reached."""
        if self.options.run_cap is None:
            return math.inf
        spoken_for = len(self._ledger.took_slot) + len(self._queue) + self._ledger.reserved
        return self.options.run_cap - spoken_for

    def _room(self) -> float:
        return min(self._wanted(), self._left())

    def _ask_for(self, room: float) -> None:
        """Propose and admit as many trials as there is room for, or for as long as a turn takes."""
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
                with self.study.together():
                    number = self.study.enqueue_once(wish.knobs, by=wish.proposer, key=wish.id)
            except InputError as error:
                answer(self.paths, wish, refused=error.what)
                continue
            answer(self.paths, wish, number=number)
            self.observer.message(f"trial {number} is proposed by {wish.by}")

    def _enqueue(self, live: Live) -> None:
        """Those near the cap go behind those that fit, the likeliest to fit before the others."""

        def place(one: Live) -> tuple[bool, float]:
            return one.near_cap, -one.fit_probability

        behind = (i for i, other in enumerate(self._queue) if place(other) > place(live))
        self._queue.insert(next(behind, len(self._queue)), live)

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
        env = {**spec.env, **self.session.export_env(knobs, verdict)}
        spec = dataclasses.replace(spec, env=env)
        record = TrialRecord(
            number=proposal.number,
            outcome=State.QUEUED,
            knobs=knobs,
            predicted_bytes=verdict.artifact_bytes,
            model_params=verdict.model_params,
            code_bytes=verdict.code_bytes,
            proposer=proposal.proposer,
            attempts=noted.attempts if noted is not None else 0,
            excused=noted.excused if noted is not None else 0,
            slot_seconds=noted.slot_seconds if noted is not None else 0.0,
            identity=spec.identity,
            driver=self._me,
        )
        live = Live(record, spec, near_cap=verdict.kind is VerdictKind.NEAR)
        if live.near_cap and verdict.fit_probability is not None:
            live.fit_probability = verdict.fit_probability
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

    def _note(self, live: Live, record: TrialRecord) -> bool:
        """A trial that has not ended changed; False if another driver has it by now."""
        live.record = record
        self._ledger.note(record)
        return self._patience.insist(lambda: self.study.note(record, of=self._me))

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
        open_ = {SweepState.RUNNING, SweepState.FINISHED}
        starting = self._state in open_ and not self._patience.abandoned
        while starting and (live := self._next_to_start()) is not None:
            if live.near_cap and self._no_longer_fits(live):
                continue
            live.ordinal, live.val_bpb, live.step, live.cancelling = 0, None, None, False
            live.started_at, live.held_from = self.clock.now(), self.clock.monotonic()
            record = dataclasses.replace(
                live.record,
                outcome=State.RUNNING,
                attempts=live.record.attempts + 1,
                started_at=live.started_at,
            )
            if not self._note(live, record):
                continue
            job = Job(
                key=str(record.number),
                attempt=record.attempts,
                spec=live.spec,
                files=self.session.program.files,
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
                self._note(live, refused)
                self._queue.appendleft(live)
                return
            self._live[record.number] = live
            self._nodes.started(record.number, node)
            self._ledger.took_slot.add(record.number)

    def _next_to_start(self) -> Live | None:
        """Take the first queued trial that a free slot of a node open to it can hold."""
        if not self._queue or not self.launcher.free(self._nodes.closed()):
            return None
        for place, live in enumerate(self._queue):
            if self.launcher.free(self._nodes.closed(live.record.number)):
                del self._queue[place]
                return live
        return None

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
        if live.given_up:
            if isinstance(event, Ended):
                del self._live[live.record.number]
            return
        match event:
            case Started(node=node, at=at):
                live.record = dataclasses.replace(live.record, node=node, started_at=at)
                live.started_at = at
            case Reported(report=report):
                live.step = report.step
                if report.step:
                    self._nodes.progressed(live.record.number)
                live.total_steps = report.total_steps or live.total_steps
                if report.val_bpb is not None:
                    self._validated(live, report.val_bpb)
            case Ended(end=end):
                del self._live[live.record.number]
                if end.cause is EndCause.EXITED:
                    # What waits goes first: the slot need not stand empty while the end is written.
                    # What infrastructure ended may be tried again, and then before all others.
                    self._start_queued()
                self._ended(live, end)
                self._start_queued()

    def _validated(self, live: Live, val_bpb: float) -> None:
        if not live.step:
            return  # Before the first step every model scores alike: no ground to prune on.
        live.ordinal += 1
        live.val_bpb = val_bpb
        number = live.record.number
        stop = self._patience.insist(lambda: self.study.report(number, live.ordinal, val_bpb))
        if stop and not live.cancelling:
            live.cancelling = True
            reason = f"{PRUNE_REASON} at validation {live.ordinal} with val_bpb {val_bpb:.4f}"
            self.launcher.cancel(str(number), reason)

    def _ended(self, live: Live, end: RunEnd) -> None:
        number = live.record.number
        end, smaller = parted(end)
        outcome = classify(end, last_val_bpb=live.val_bpb, last_step=live.step)
        cap_bytes = self.session.rules.artifact_cap_bytes
        record = live.record.ended(outcome, end, cap_bytes=cap_bytes)
        marks = "; ".join(filter(None, (record.reason, self._nodes.slowness(end.node))))
        speed = self._nodes.speed(end.node)
        record = dataclasses.replace(record, reason=marks, node_speed=speed)
        excuse = self._nodes.ended(number, outcome=outcome, end=end, step=live.step)
        infrastructure = isinstance(outcome, Failed) and outcome.kind is FailureKind.INFRASTRUCTURE
        if infrastructure and self._state is SweepState.CANCELLED:
            self._put_back(live, record)
            return
        if excuse is not None:
            self._retry(live, dataclasses.replace(record, excused=record.excused + 1), why=excuse)
            return
        if infrastructure:
            if record.attempts - record.excused <= self.options.max_retries:
                self._retry(live, record)
                return
            reason = f"{record.reason} (infrastructure; {record.attempts} attempts)"
            record = dataclasses.replace(record, reason=reason)
        result: dict[str, Any] = {"record": record.to_json(), "end": dataclasses.asdict(end)}
        if smaller is not None:
            row = exported(record, smaller, self.session.defaults, cap_bytes=cap_bytes)
            result["export"] = None if row is None else row.to_json()
        write_json(self.paths.trial(number).result, result)
        self._tell_result(result)

    def _tell_result(self, result: Mapping[str, Any]) -> None:
        """End a trial as its ``result.json`` says, and what was exported of it besides."""
        record = dataclasses.replace(TrialRecord.from_json(result["record"]), driver=self._me)
        known = self._ledger.records.get(record.number)
        if known is None or not known.outcome.final:  # else an export, told with its trial
            self._patience.insist(lambda: self._tell_with_export(record, result.get("export")))

    def _tell_with_export(self, record: TrialRecord, export: Mapping[str, Any] | None) -> None:
        """In turn: until it is told, the export's trial is one that anybody might take."""
        with self.study.together():
            rows = [record]
            if export is not None:
                row = dataclasses.replace(TrialRecord.from_json(export), driver=self._me)
                rows.append(keep(row, record, self.study, self.session, self.paths))
            for row in rows:
                self._tell(self._counted_once(row))

    def _counted_once(self, row: TrialRecord) -> TrialRecord:
        """An export whose configuration was trained before is no evidence of its own."""
        if row.export_of is None:
            return row
        original = self._ledger.original(row.identity, row.number)
        if original is None or not original.outcome.final:
            return row
        return dataclasses.replace(row, duplicate_of=original.number)

    def _put_back(self, live: Live, record: TrialRecord) -> None:
        """A trial that the user cancelled has no result: it waits for the next launch."""
        reason = f"{record.reason}: runs again when the study is resumed"
        free = dataclasses.replace(
            record, outcome=State.QUEUED, failure=None, reason=reason, driver=""
        )
        self._note(live, free)
        self._ledger.took_slot.discard(record.number)

    def _retry(self, live: Live, record: TrialRecord, *, why: str = "") -> None:
        """Try again what was not the trial's fault; the log of the failed attempt stays.

        Args:
            live: The trial.
            record: Its row with how the attempt ended.
            why: The attempt does not count, for this reason; the trial then waits behind others,
                so that one that brings down its node is not the next one's probe, too.
        """
        number = record.number
        follows = why or f"attempt {record.attempts + 1} follows"
        self.observer.message(f"trial {number}: {record.reason}; {follows}")
        log = self.paths.trial(number).log
        if log.is_file():
            log.replace(log.with_name(f"train.attempt{record.attempts}.log"))
        if not self._note(live, dataclasses.replace(record, outcome=State.QUEUED, failure=None)):
            return
        self._ledger.took_slot.discard(number)
        if why:
            self._enqueue(live)
        else:
            self._queue.appendleft(live)

    def _tell(self, record: TrialRecord) -> None:
        """End a trial in the study, and with it those that waited for its result."""
        if not self._patience.insist(lambda: self.study.tell(record)):
            return  # another driver took the trial over, or the storage does not answer
        self._learn(record)
        if record.outcome is not State.DISCARDED and record.duplicate_of is None:
            self.observer.message(line(record))
        self._end_twins(record)

    def _end_twins(self, record: TrialRecord) -> None:
        for twin in self._twins.pop(record.number, []):
            self._tell(_as_duplicate(twin.record, record))

    def _learn(self, record: TrialRecord) -> None:
        """What a finished trial teaches: its configuration is known, its bytes calibrate."""
        own_result = self._ledger.close(record)
        measured = record.model_bytes
        if own_result and record.outcome is State.COMPLETED and measured is not None:
            self.session.gate.learn(record.knobs, measured)
            trained = record.export_of is None  # else its training was taken in before
            self.session.gate.learn_time(
                record.knobs,
                steps=record.steps if trained else None,
                train_seconds=record.train_seconds if trained else None,
                eval_seconds=record.eval_seconds,
            )

    # -- stopping -------------------------------------------------------------------------------

    def _heed_request(self) -> None:
        everybody = Request.CONTINUE if self.crew is None else self.crew.request
        request = strongest(self.options.request(), everybody)
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

    def _heed_nodes(self) -> None:
        """See what became of the nodes; end where none of them, or no trial, can do anything."""
        now = self.clock.monotonic()
        if now - self._nodes_seen_at < POLL_SECONDS:
            return
        self._nodes_seen_at = now
        self._nodes.see(self.launcher.nodes())
        if self._state not in {SweepState.RUNNING, SweepState.FINISHED}:
            return
        hopeless, stranded = self._nodes.hopeless(), self._nodes.stranded()
        if hopeless is not None:
            self._state, self._end_reason = SweepState.HOPELESS, hopeless
        elif stranded is not None and (self._queue or self._state is SweepState.RUNNING):
            self._state, self._end_reason = SweepState.STRANDED, stranded
        else:
            return
        self._say_of_nodes(f"nothing more starts: {self._end_reason}")

    def _say_of_nodes(self, text: str) -> None:
        logger.warning("%s", text)
        self.observer.message(text)

    def _finish(self, reason: str) -> None:
        """Nothing more will be proposed; what is queued and running still ends."""
        self._state, self._end_reason = SweepState.FINISHED, reason

    def _over(self) -> bool:
        if self._state is SweepState.RUNNING or self._live:
            return False
        if self._state is SweepState.FINISHED:
            return not self._queue and not self._ledger.elsewhere
        if self._state is SweepState.DRAINING:
            self._state = SweepState.STOPPED
        return True

    # -- accounts -------------------------------------------------------------------------------

    def _over_budget(self) -> bool:
        hours = self.options.gpu_hours
        if hours is None:
            return False
        now, epoch = self.clock.monotonic(), self.clock.now()
        seconds = self._ledger.slot_seconds(self._live.values(), now=now, epoch=epoch)
        return seconds * max(1, self.session.resources.gpus) / 3600 >= hours

    def snapshot(self) -> Snapshot:
        """The sweep as it stands."""
        snapshot = self._ledger.snapshot(
            state=self._state,
            reason=self._end_reason,
            live=list(self._live.values()),
            slots=len(self.launcher.slots()),
            run_cap=self.options.run_cap,
            now=self.clock.now(),
        )
        return dataclasses.replace(snapshot, nodes=self._nodes.rows())

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
        driver=record.driver,
    )
