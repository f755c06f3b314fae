"""Runs trials on a Ray cluster: one kept actor for each slot, a lease on each run.

A slot is an actor with the trial's GPUs of one node. It is made once, ahead of the first trial,
and reused: a fresh actor for each trial leaves a slot empty for seconds, a kept one for
milliseconds. Ray's own retries are off; a second attempt is the driver's decision.

Each worker has a call under way, and each run a poll. Ray does not always report a lost node, so
what has not come back within the lease is taken for lost, whatever Ray says. The other way round, a
worker that hears nothing ends its run and itself.

Without the cluster's head nothing starts, but what runs goes on: Ray's calls go from here straight
to the workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pgolf_sweep.errors import InfraError
from pgolf_sweep.launch import cluster
from pgolf_sweep.launch.base import (
    Ended,
    NodeInfo,
    NodeState,
    Reported,
    SlotInfo,
    Started,
    refuse_start,
)
from pgolf_sweep.launch.fitness import no_answer, unfit
from pgolf_sweep.launch.run import BEGINNING, Cursor, RunOrder
from pgolf_sweep.launch.worker import Worker
from pgolf_sweep.trial import EndCause, LogSummary, RunEnd
from pgolf_sweep.trialdir import TrialPaths, write_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.launch.base import Event, Job, Refusal
    from pgolf_sweep.launch.fitness import Fitness
    from pgolf_sweep.launch.nodecheck import NodeReport
    from pgolf_sweep.launch.run import Progress
    from pgolf_sweep.trial import Resources

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
CANCEL_SECONDS = 4.0
HARVEST_SECONDS = 60.0
FETCH_SECONDS = 20.0
LONGEST_BACKOFF_SECONDS = 60.0
CHECK_SECONDS = 180.0
CHECK_WAIT_SECONDS = 15.0
LONGEST_CHECK_WAIT = 300.0
"""Until a node that was refused is looked at again: doubles from the shorter to the longer."""
DRAIN_MARGIN_SECONDS = 8.0
"""Before a drained node goes: for what runs there to be ended, and its log and files to come."""
KILL_SECONDS = 5.0
HEADLESS_SECONDS = 5.0
"""A head that has not answered for so long is away."""
TAIL_BYTES = 8192
WORKER_THREADS = 16
"""Of an actor: `hold` and a poll always, `start`, `cancel` and late harvests besides."""


class RayLauncher:
    """Slots on a Ray cluster; see `pgolf_sweep.launch.base.Launcher` for the promises.

    Args:
        address: ``HOST:PORT`` of an existing cluster, ``auto``, or None to start one here.
        resources: What one trial occupies.
        slots: At most so many slots, or None for as many as the cluster has room for.
        scratch: Folder on the nodes for running trials, or None for a temporary one.
        lease_seconds: A worker that has not answered for so long is lost, and its run with it.
        driver_lease_seconds: A worker that was not asked for so long ends its run and itself.
        ready_seconds: How long to wait for the first slots.
        fitness: What nodes are checked for before their first trial; None: nothing.

    Raises:
        InfraError: No cluster, or no node of it can hold a trial, or none is fit to.
    """

    def __init__(
        self,
        address: str | None,
        resources: Resources,
        slots: int | None = None,
        *,
        scratch: Path | None = None,
        lease_seconds: float = 30.0,
        driver_lease_seconds: float = 120.0,
        ready_seconds: float = 60.0,
        fitness: Fitness | None = None,
    ) -> None:
        self._address = address
        self._resources = resources
        self._limit = slots
        self._scratch = scratch
        self._fitness = fitness
        self._lease_seconds = lease_seconds
        self._poll_seconds = min(5.0, lease_seconds / 3)
        self._hold_seconds = self._poll_seconds
        self._driver_lease_seconds = driver_lease_seconds
        self._slots: list[_Slot] = []
        self._live: dict[str, _Slot] = {}
        self._events: list[Event] = []
        self._harvests: dict[Any, Path] = {}
        self._losses: Counter[str] = Counter()  # of a node, since its last run that ended well
        self._not_before: dict[str, float] = {}
        self._synced_at = float("-inf")
        self._expired_at = time.monotonic()
        self._run_ids = itertools.count()
        self._closed = False
        self._owns = cluster.join(address, resources, slots)
        self._local = self._owns and address is None
        try:
            self._watch = cluster.NodeWatch()
            self._require_room()
            self._wait_for_slots(ready_seconds)
        except BaseException:
            self._let_go()
            raise

    # ---- the protocol ------------------------------------------------------------------------

    def slots(self) -> list[SlotInfo]:
        """Every slot that is up now."""
        gpus = self._resources.gpus
        return [
            SlotInfo(node=s.node.name, gpus=gpus, busy_with=s.live.job.key if s.live else None)
            for s in self._slots
            if s.up and not s.refusals
        ]

    def nodes(self) -> list[NodeInfo]:
        """Every node that has slots, or would if it were not taken away."""
        drained = [n for n in self._watch.nodes if n.draining and n.capacity(self._resources)]
        infos = {node.name: _draining_info(node) for node in drained}
        by_node: dict[str, list[_Slot]] = {}
        for slot in self._slots:
            by_node.setdefault(slot.node.name, []).append(slot)
        for name, slots in by_node.items():
            if name not in infos:
                infos[name] = _node_info(name, slots)
        return list(infos.values())

    def free(self, avoid: Collection[str] = frozenset()) -> int:
        """How many jobs that avoid these nodes `start` takes now."""
        if self._watch.silent_seconds > HEADLESS_SECONDS:
            return 0
        return sum(slot.takes_jobs and slot.node.name not in avoid for slot in self._slots)

    def start(self, job: Job) -> str:
        """Start a job on a free slot and return at once the name of the slot's node.

        A folder of the job that cannot be written is told by its `Ended` (cause ``lost``).

        Raises:
            InfraError: There is no free slot that the job may use, or the key is in use.
        """
        refuse_start(job, self.free(job.avoid), job.key in self._live)
        slot = next(s for s in self._slots if s.takes_jobs and s.node.name not in job.avoid)
        paths = TrialPaths(job.folder)
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            log = paths.live_log.open("wb")
        except OSError as error:
            end = self._lost_end(slot, f"the job's folder cannot be written: {error}")
            self._events.append(Ended(key=job.key, attempt=job.attempt, end=end))
            return slot.node.name
        run = f"{job.key}.{job.attempt}.{next(self._run_ids)}"
        slot.live = live = _Live(job, run, log)
        self._live[job.key] = slot
        order = RunOrder(
            run=run,
            node=slot.node.name,
            spec=job.spec,
            files=dict(job.files),
            tracking=job.tracking,
        )
        slot.actor.start.remote(order)
        self._ask(slot, live)
        return slot.node.name

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Events since the last call; waits for one at most so long.

        Raises:
            InfraError: Ray is gone, and nothing runs any more.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._sync()
            left = max(0.0, deadline - time.monotonic())
            self._answer(0.0 if self._events else min(left, SYNC_SECONDS))
            self._expire()
            self._require_head()
            if self._events or time.monotonic() >= deadline:
                events, self._events = self._events, []
                return events

    def cancel(self, key: str, reason: str) -> None:
        """End a job's process tree; an unknown key is ignored."""
        slot = self._live.get(key)
        # The first reason stays, and only it is sent: an actor with threads keeps no order.
        if slot is not None and slot.live is not None and not slot.live.cancelled:
            slot.live.cancelled = True
            slot.actor.cancel.remote(slot.live.run, reason)

    def close(self) -> None:
        """End whatever still runs, then everything that this launcher started itself."""
        if self._closed:
            return
        self._closed = True
        try:
            for key in list(self._live):
                self.cancel(key, "the launcher was closed")
            deadline = time.monotonic() + CANCEL_SECONDS
            while self._live and time.monotonic() < deadline:
                self._answer(0.1)
            deadline = time.monotonic() + HARVEST_SECONDS
            while self._harvests and time.monotonic() < deadline:
                self._answer(0.5)
        except InfraError as error:
            logger.warning("what still ran was left to its leases: %s", error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if hasattr(self, "_watch"):
            self._watch.close()
        for slot in self._slots:
            if slot.live is not None:
                self._finish_log(slot.live)
        self._kill(*self._slots).join(KILL_SECONDS)
        self._slots.clear()
        self._live.clear()
        if self._owns:
            cluster.leave()

    def _kill(self, *slots: _Slot) -> threading.Thread:
        """End workers; their guards see the pipes close and kill what is left of a run.

        In a thread, since Ray waits for its head; by a call to the worker, too, since Ray goes by
        way of a daemon that may be frozen.
        """

        def kill() -> None:
            for slot in slots:
                with contextlib.suppress(RayError):
                    slot.actor.close.remote()
                    ray.kill(slot.actor, no_restart=True)

        thread = threading.Thread(target=kill, name="kill", daemon=True)
        thread.start()
        return thread

    # ---- slots -------------------------------------------------------------------------------

    def _require_room(self) -> None:
        nodes = self._watch.nodes
        if any(node.capacity(self._resources) for node in nodes):
            return
        wanted = self._resources
        raise InfraError(
            "no node of the cluster can hold a trial",
            got="; ".join(f"{n.name}: {n.gpus:g} GPUs, {n.cpus:g} CPUs" for n in nodes) or "none",
            expected=f"a node with {wanted.gpus} GPUs and {wanted.cpus:g} CPUs",
            next_step="lower pgolf.resources in the sweep file, or give --address of a cluster",
        )

    def _wait_for_slots(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._sync()
            self._answer(0.2)
            if self._slots and all(slot.up or slot.refusals for slot in self._slots):
                break
            if any(slot.asked and not slot.refusals for slot in self._slots):
                deadline = max(deadline, time.monotonic() + 1.0)  # a check ends by itself
        refusals = [refusal for slot in self._slots for refusal in slot.refusals]
        if not self.free() and refusals:
            raise unfit(refusals)
        if not self.free():
            raise InfraError(
                "no slot came up",
                where=", ".join(sorted({node.name for node in self._watch.nodes})),
                got=f"no worker after {seconds:g} s",
                next_step="`ray status` tells whether others hold the GPUs or CPUs",
            )

    def _require_head(self) -> None:
        silence = self._watch.silent_seconds
        if silence < cluster.HEAD_SECONDS or self._live or self._events:
            return
        what = f"the head of the Ray cluster has not answered for {silence:.0f} s"
        if self._watch.replaced:
            what = "the head of the Ray cluster was restarted and knows nothing of this sweep"
        raise InfraError(
            what,
            where=self._address or socket.gethostname(),
            expected="the head that the sweep began with",
            next_step="start the head and its nodes anew, then run the same command again: what "
            "ended is kept",
        )

    def _sync(self) -> None:
        """Drop the slots of dead nodes, make those that are missing on live ones."""
        now = time.monotonic()
        if now - self._synced_at < SYNC_SECONDS or self._watch.silent_seconds > HEADLESS_SECONDS:
            return
        self._synced_at = now
        nodes = {node.id: node for node in self._watch.nodes}
        if self._local and not nodes:
            # A cluster may get nodes again; a machine's own Ray never comes back.
            raise InfraError(
                "the Ray of this machine has died",
                where=socket.gethostname(),
                next_step="free memory if the kernel killed it, then run the same command again",
            )
        for slot in [slot for slot in self._slots if slot.node.id not in nodes]:
            self._lose(slot, f"node {slot.node.name} is gone")
        self._drain(nodes)
        self._check_again()
        have = Counter(slot.node.id for slot in self._slots)
        for node in nodes.values():
            if node.draining or now < self._not_before.get(node.id, now):
                continue
            for _ in range(node.capacity(self._resources) - have[node.id]):
                if self._limit is None or len(self._slots) < self._limit:
                    self._slots.append(self._make_slot(node))

    def _drain(self, nodes: Mapping[str, cluster.Node]) -> None:
        """Leave nodes that are taken away: what runs may go on for as long as it is useful."""
        for slot in list(self._slots):
            slot.node = node = dataclasses.replace(nodes[slot.node.id], name=slot.node.name)
            live = slot.live
            if not node.draining:
                continue
            if live is None:
                if slot.harvest not in self._harvests:
                    self._slots.remove(slot)
                    with contextlib.suppress(RayError):
                        ray.kill(slot.actor, no_restart=True)  # Ray lets an idle node go
            elif not live.cancelled and node.seconds_left() <= DRAIN_MARGIN_SECONDS:
                live.preempted = True
                self.cancel(live.job.key, "its node is taken away")

    def _check(self, slot: _Slot, fitness: Fitness) -> None:
        """Ask a worker what its node is like; `_judge` hears the answer."""
        order = dataclasses.replace(fitness.order, node=slot.node.name)
        slot.asked = (slot.actor.check.remote(order), time.monotonic(), time.time())

    def _check_again(self) -> None:
        """Ask free workers that were refused once more, and give up on those that do not answer."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.asked is not None:
                if now - slot.asked[1] > CHECK_SECONDS and not slot.refusals:
                    slot.refusals = (no_answer(slot.node.name, CHECK_SECONDS),)
            elif self._fitness and slot.refusals and now >= slot.check_at and slot.live is None:
                self._check(slot, self._fitness)

    def _judge(
        self, answered: _Slot, report: NodeReport, fitness: Fitness, *, sent_at: float
    ) -> None:
        """Each answer may change what is made of every worker: they are held against each other."""
        fitness.take(answered, report, sent_at=sent_at, received_at=time.time())
        answered.asked, answered.up = None, True
        for slot in self._slots:
            if slot.up:
                slot.refusals, slot.speed = fitness.refusals(slot), fitness.speed(slot)
        answered.checks = answered.checks + 1 if answered.refusals else 0
        wait = min(LONGEST_CHECK_WAIT, CHECK_WAIT_SECONDS * 2**answered.checks)
        answered.check_at = time.monotonic() + wait

    def _make_slot(self, node: cluster.Node) -> _Slot:
        options = {
            "num_gpus": self._resources.gpus,
            "num_cpus": self._resources.cpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": WORKER_THREADS,
            # Ray's head would keep a record of each of the polls, up to 100,000 of them.
            "enable_task_events": False,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node.id, soft=False),
        }
        actor = (
            ray.remote(Worker)
            .options(**options)
            .remote(
                scratch=self._scratch,
                lease_seconds=self._driver_lease_seconds,
                heartbeat_seconds=self._lease_seconds,
                exit_when_alone=True,
            )
        )
        hold = actor.hold.remote(self._hold_seconds)
        return _Slot(node, actor, ready=actor.ready.remote(), hold=hold)

    def _lose(self, slot: _Slot, why: str) -> None:
        """A worker is gone, or is to be: end its run, let the next `_sync` replace it."""
        self._slots.remove(slot)
        if self._fitness is not None:
            self._fitness.forget(slot)
        self._kill(slot)
        losses = self._losses[slot.node.id]
        self._losses[slot.node.id] += 1
        backoff = min(LONGEST_BACKOFF_SECONDS, 2.0**losses) if losses else 0.0
        self._not_before[slot.node.id] = time.monotonic() + backoff
        self._synced_at = float("-inf")
        logger.warning("lost a worker on %s: %s", slot.node.name, why)
        if slot.live is not None:
            self._end(slot, slot.live, self._lost_end(slot, why, slot.live))

    # ---- what comes back ---------------------------------------------------------------------

    def _ask(self, slot: _Slot, live: _Live) -> None:
        live.asked_at = time.monotonic()
        live.ref = slot.actor.poll.remote(live.run, live.cursor, self._poll_seconds)

    def _answer(self, timeout_seconds: float) -> None:
        """Wait for the first answer of any worker, then take all that are there."""
        waiting: dict[Any, _Slot | None] = dict.fromkeys(self._harvests)
        for slot in self._slots:
            waiting |= dict.fromkeys(slot.unanswered(), slot)
        refs = list(waiting)
        if not refs:
            time.sleep(timeout_seconds)
            return
        try:
            ready, rest = ray.wait(refs, num_returns=1, timeout=timeout_seconds)
            if ready and rest:
                ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        except (RayError, OSError) as error:
            raise InfraError(
                "the Ray daemon of this machine is gone",
                where=socket.gethostname(),
                got=_first_line(error),
                next_step="`ray status` shows which nodes are up; then run the same command again",
            ) from error
        for ref in ready:
            slot_of_ref = waiting[ref]
            if slot_of_ref is None:
                self._take_harvest(ref)
            elif slot_of_ref in self._slots:  # else another answer of its has just ended it
                self._take(slot_of_ref, ref)

    def _take(self, slot: _Slot, ref: Any) -> None:
        try:
            answer = ray.get(ref, timeout=FETCH_SECONDS)
        except RayError as error:
            self._lose(slot, f"worker died: {_first_line(error)}")
            return
        live = slot.live
        if ref == slot.ready:
            slot.answered = True
            slot.held_at = time.monotonic()
            if self._fitness is None:
                slot.up = True
            else:
                self._check(slot, self._fitness)
        elif slot.asked is not None and ref == slot.asked[0] and self._fitness is not None:
            self._judge(slot, answer, self._fitness, sent_at=slot.asked[2])
        elif ref == slot.hold:
            slot.hold = slot.actor.hold.remote(self._hold_seconds)
            slot.held_at = time.monotonic()
        elif live is not None and ref == live.ref:
            self._absorb(slot, live, answer)

    def _absorb(self, slot: _Slot, live: _Live, progress: Progress) -> None:
        key, attempt = live.job.key, live.job.attempt
        if progress.started_at is not None and not live.started:
            live.started = True
            live.held_from = time.monotonic()
            at = progress.started_at
            self._events.append(Started(key=key, attempt=attempt, node=slot.node.name, at=at))
        self._append_log(slot, live, progress.log)
        self._events.extend(
            Reported(key=key, attempt=attempt, report=report) for report in progress.reports
        )
        if progress.end is None:
            live.cursor = progress.cursor
            self._ask(slot, live)
            return
        self._losses[slot.node.id] = 0
        try:
            for name, content in progress.files.items():
                write_bytes(live.job.folder / name, content)
        except InfraError as error:
            live.trouble = live.trouble or str(error)
        if live.job.tracking is not None and live.job.wandb_folder is not None:
            slot.harvest = ref = slot.actor.harvest.remote(live.run, HARVEST_SECONDS)
            self._harvests[ref] = live.job.wandb_folder
        self._end(slot, live, progress.end)

    def _append_log(self, slot: _Slot, live: _Live, data: bytes) -> None:
        if not data or live.trouble is not None:
            return
        try:
            live.log.write(data)
            live.log.flush()
        except OSError as error:
            # A result that cannot be kept is not worth the GPU time.
            live.trouble = f"the driver's disk refused the log: {error}"
            slot.actor.cancel.remote(live.run, live.trouble)

    def _end(self, slot: _Slot, live: _Live, end: RunEnd) -> None:
        self._finish_log(live)
        if live.trouble is not None:
            end = dataclasses.replace(end, cause=EndCause.LOST, detail=live.trouble)
        elif slot.node.draining and end.cause in (
            {EndCause.LOST, EndCause.CANCELLED} if live.preempted else {EndCause.LOST}
        ):
            end = dataclasses.replace(end, cause=EndCause.PREEMPTED)
        slot.live = None
        del self._live[live.job.key]
        self._events.append(Ended(key=live.job.key, attempt=live.job.attempt, end=end))

    def _finish_log(self, live: _Live) -> None:
        paths = TrialPaths(live.job.folder)
        try:
            live.log.close()
            paths.live_log.replace(paths.log)
        except OSError as error:
            live.trouble = live.trouble or f"the driver's disk refused the log: {error}"

    def _expire(self) -> None:
        now = time.monotonic()
        away = now - self._expired_at
        self._expired_at = now
        if away > self._lease_seconds / 2:
            # It was this process that slept: the answers may lie in the sockets still.
            for slot in self._slots:
                slot.held_at += away
                if slot.live is not None:
                    slot.live.asked_at += away
        for slot in list(self._slots):
            asked_at = slot.held_at if slot.up else now  # one that starts may take its time
            if slot.live is not None:
                asked_at = min(asked_at, slot.live.asked_at)
            if now - asked_at > self._lease_seconds:
                self._lose(slot, f"worker has not answered for {self._lease_seconds:g} s")

    def _take_harvest(self, ref: Any) -> None:
        """Land a W&B offline run; one that is lost is a view lost, never a trial."""
        folder = self._harvests.pop(ref)
        try:
            for name, content in ray.get(ref, timeout=FETCH_SECONDS).items():
                write_bytes(folder / name, content)
        except (RayError, InfraError) as error:
            logger.warning("a W&B offline run did not arrive: %s", _first_line(error))

    def _lost_end(self, slot: _Slot, why: str, live: _Live | None = None) -> RunEnd:
        tail: tuple[str, ...] = ()
        ended_at = time.time()
        held_seconds = 0.0 if live is None else time.monotonic() - live.held_from
        if live is not None:
            with contextlib.suppress(OSError), TrialPaths(live.job.folder).live_log.open("rb") as f:
                f.seek(max(0, f.seek(0, os.SEEK_END) - TAIL_BYTES))
                tail = tuple(f.read().decode(errors="replace").splitlines())
        return RunEnd(
            cause=EndCause.LOST,
            exit_code=None,
            detail=why,
            summary=LogSummary(),
            node=slot.node.name,
            started_at=ended_at - held_seconds,
            ended_at=ended_at,
            log_tail=tail,
        )


class _Slot:
    """An actor and what it does.

    Attributes:
        answered: Whether the actor exists.
        up: Whether it has been looked at, too.
        asked: The question what its node is like, and when it was put (monotonic, epoch).
        refusals: Why it takes no jobs.
        checks: How often in a row it was refused.
        check_at: When it is asked again, monotonic seconds.
        held_at: When its worker last answered, monotonic seconds.
        speed: Its share of the others' tokens per second, where measured.
    """

    __slots__ = (
        "actor",
        "answered",
        "asked",
        "check_at",
        "checks",
        "harvest",
        "held_at",
        "hold",
        "live",
        "node",
        "ready",
        "refusals",
        "speed",
        "up",
    )

    def __init__(self, node: cluster.Node, actor: Any, *, ready: Any, hold: Any) -> None:
        self.node = node
        self.actor = actor
        self.ready = ready
        self.hold = hold  # breaks off when the actor dies, busy or not
        self.harvest: Any = None  # the last one; it may be over
        self.answered = False
        self.held_at = time.monotonic()
        self.up = False
        self.asked: tuple[Any, float, float] | None = None
        self.refusals: tuple[Refusal, ...] = ()
        self.checks = 0
        self.check_at = 0.0
        self.speed: float | None = None
        self.live: _Live | None = None

    def unanswered(self) -> Iterator[Any]:
        """What its worker was asked and has not answered yet."""
        yield self.hold
        if not self.answered:
            yield self.ready
        if self.asked is not None:
            yield self.asked[0]
        if self.live is not None:
            yield self.live.ref

    @property
    def takes_jobs(self) -> bool:
        """Whether a job may start here now."""
        return self.up and self.live is None and not self.node.draining and not self.refusals


class _Live:
    """A run that is going on."""

    __slots__ = (
        "asked_at",
        "cancelled",
        "cursor",
        "held_from",
        "job",
        "log",
        "preempted",
        "ref",
        "run",
        "started",
        "trouble",
    )

    def __init__(self, job: Job, run: str, log: BinaryIO) -> None:
        self.job = job
        self.run = run
        self.log = log
        self.cursor: Cursor = BEGINNING
        self.cancelled = False
        self.preempted = False
        self.ref: Any = None
        self.asked_at = time.monotonic()
        self.started = False
        self.held_from = time.monotonic()
        self.trouble: str | None = None


def _draining_info(node: cluster.Node) -> NodeInfo:
    return NodeInfo(name=node.name, state=NodeState.DRAINING, drains_at=node.drains_at)


def _node_info(name: str, slots: Sequence[_Slot]) -> NodeInfo:
    """A node as its slots show it: ready if one is."""
    if slots[0].node.draining:
        return _draining_info(slots[0].node)
    refused = [slot for slot in slots if slot.refusals]
    state = NodeState.REFUSED if refused else NodeState.CHECKING
    if any(slot.up and not slot.refusals for slot in slots):
        state = NodeState.READY
    again = min((slot.check_at for slot in refused), default=0.0)
    return NodeInfo(
        name=name,
        state=state,
        refusals=tuple(dict.fromkeys(refusal for slot in refused for refusal in slot.refusals)),
        retry_at=time.time() + max(0.0, again - time.monotonic()) if refused else None,
        speed=min((slot.speed for slot in slots if slot.speed is not None), default=None),
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.partition("\n")[0] if text else type(error).__name__
