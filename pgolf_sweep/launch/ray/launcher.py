"""Runs trials on a Ray cluster: one kept actor for each slot, a lease on each run.

A slot is an actor with the trial's GPUs of one node. It is made once, ahead of the first trial,
and reused: a fresh actor for each trial leaves a slot empty for seconds, a kept one for
milliseconds. Ray's own retries are off; a second attempt is the driver's decision.

Each worker has a call under way, and each run a poll. Ray does not always report a lost node, so
what has not come back within the lease is taken for lost, no matter what Ray reports. The other way
round, a worker that hears nothing ends its run and itself.

Without the cluster's head nothing starts, but what runs goes on: Ray's calls go from here straight
to the workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import re
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pgolf_sweep.core.backoff import backoff
from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.paths import write_bytes
from pgolf_sweep.core.trial import EndCause
from pgolf_sweep.launch.base import Ended, Reported, Started, refuse_start
from pgolf_sweep.launch.node.identity import Identity, other_version, own_identity
from pgolf_sweep.launch.node.run import RunOrder
from pgolf_sweep.launch.node.worker import Worker
from pgolf_sweep.launch.ray import cluster
from pgolf_sweep.launch.ray.node_checks import Checks
from pgolf_sweep.launch.ray.placement import Placement
from pgolf_sweep.launch.ray.slots import Live, Slot, nodes_by_slots
from pgolf_sweep.nodes.compare import check_failed, unfit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pgolf_sweep.core.trial import Resources, RunEnd
    from pgolf_sweep.launch.base import Event, Job, SlotInfo
    from pgolf_sweep.launch.node.run import Progress
    from pgolf_sweep.nodes.compare import NodeComparison
    from pgolf_sweep.nodes.info import NodeInfo

logger = logging.getLogger(__name__)

_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit): ")
"""The last line of a traceback, as Ray passes it on of a worker that could not be made."""
SYNC_SECONDS = 1.0
CANCEL_SECONDS = 4.0
HARVEST_SECONDS = 60.0
FETCH_SECONDS = 20.0
LONGEST_BACKOFF_SECONDS = 60.0
DRAIN_MARGIN_SECONDS = 8.0
"""Before a drained node goes: for what runs there to be ended, and its log and files to come."""
KILL_SECONDS = 5.0
HEADLESS_SECONDS = 5.0
"""A head that has not answered for this long is away."""
WORKER_THREADS = 8
"""Of an actor: `hold` and a poll always, `start` and `cancel` besides."""
SLOW_THREADS = {"check": 4, "harvest": 4}
"""Of calls that may hang where a disk, a GPU or W&B does: they keep no other from its answer."""


class RayLauncher:
    """Slots on a Ray cluster; see `pgolf_sweep.launch.base.Launcher` for the promises.

    Args:
        address: ``HOST:PORT`` of an existing cluster, ``auto``, or None to start one here.
        resources: What one slot has.
        slots: At most that many slots, or None for as many as the cluster has room for.
        scratch: Folder on the nodes for running trials, or None for a temporary one.
        lease_seconds: A worker that has not answered for this long is lost, and its run with it.
        driver_lease_seconds: A worker that was not asked for this long ends its run and itself.
        ready_seconds: How long to wait for the first slots.
        comparison: What nodes are checked for before their first trial; None: nothing.
        largest: What the trials occupy that take most; None: one slot.

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
        comparison: NodeComparison | None = None,
        largest: Resources | None = None,
    ) -> None:
        self._address = address
        self._resources = resources
        self._placement = Placement(resources, slots)
        self._scratch = scratch
        self._checks = Checks(comparison)
        self._lease_seconds = lease_seconds
        self._poll_seconds = min(5.0, lease_seconds / 3)
        self._hold_seconds = self._poll_seconds
        self._driver_lease_seconds = driver_lease_seconds
        self._slots: list[Slot] = []
        self._live: dict[str, Slot] = {}
        self._events: list[Event] = []
        self._harvests: dict[Any, Path] = {}
        self._losses: Counter[str] = Counter()  # of a node, since its last run that ended well
        self._not_before: dict[str, float] = {}
        self._synced_at = float("-inf")
        self._expired_at = time.monotonic()
        self._differing: set[str] = set()  # nodes of which it was said that their code is another
        self._last_loss = ""
        self._run_ids = itertools.count()
        self._closed = False
        self._owns = cluster.join(address, resources, slots)
        self._local = self._owns and address is None
        try:
            self._watch = cluster.NodeWatch()
            cluster.require_room(self._watch.nodes, largest or resources)
            self._wait_for_slots(ready_seconds)
        except BaseException:
            self._let_go()
            raise

    # ---- the protocol ------------------------------------------------------------------------

    def slots(self) -> list[SlotInfo]:
        """Every slot that is up now."""
        gpus = self._resources.gpus
        return [slot.info(gpus) for slot in self._slots if slot.up and not slot.refusals]

    def nodes(self) -> list[NodeInfo]:
        """Every node that has slots, or would if it were not taken away."""
        drained = [n for n in self._watch.nodes if n.draining and n.capacity(self._resources)]
        return nodes_by_slots(self._slots, drained)

    def free(self, avoid: Collection[str] = frozenset(), slots: int = 1) -> int:
        """How many jobs of so many slots that avoid these nodes `start` takes now."""
        if self._watch.silent_seconds > HEADLESS_SECONDS:
            return 0
        return sum(len(own) // slots for own in self._open(avoid).values())

    def _open(self, avoid: Collection[str]) -> dict[str, list[Slot]]:
        """Slots that take jobs, by node, without those of some nodes."""
        found: dict[str, list[Slot]] = {}
        for slot in self._slots:
            if slot.takes_jobs and slot.node.name not in avoid:
                found.setdefault(slot.node.name, []).append(slot)
        return found

    def start(self, job: Job) -> str:
        """Start a job on free slots of one node and return at once the name of the node.

        A folder of the job that cannot be written is reported by its `Ended` (cause
        ``output_write_failed``).

        Raises:
            InfraError: There are no such slots that the job may use, or the key is in use.
        """
        refuse_start(job, self.free(job.avoid, job.slots), job.key in self._live)
        nodes = self._open(job.avoid).values()
        slot, *others = next(own for own in nodes if len(own) >= job.slots)[: job.slots]
        run = f"{job.key}.{job.attempt}.{next(self._run_ids)}"
        try:
            live = Live(job, run)
        except OSError as error:
            end = slot.lost(f"the job's folder cannot be written: {error}")
            end = dataclasses.replace(end, cause=EndCause.OUTPUT_WRITE_FAILED)
            self._events.append(Ended(key=job.key, attempt=job.attempt, end=end))
            return slot.node.name
        slot.live = live
        self._live[job.key] = slot
        for other in others:
            other.lent_to = job.key
        order = RunOrder(
            run=run,
            node=slot.node.name,
            spec=job.spec,
            files=dict(job.files),
            tracking=job.tracking,
            reuse=job.reuse,
            devices=tuple(one.devices for one in (slot, *others) if one.devices and others),
        )
        live.order = slot.actor.start.remote(order)
        self._ask(slot, live)
        return slot.node.name

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Events since the last call; waits for one at most this long.

        Raises:
            InfraError: Ray is gone, and nothing runs any more.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._sync()
            left = max(0.0, deadline - time.monotonic())
            self._answer(0.0 if self._events else min(left, SYNC_SECONDS))
            self._expire()
            if not self._live and not self._events:
                self._watch.require_head(self._address or socket.gethostname())
            if self._events or time.monotonic() >= deadline:
                events, self._events = self._events, []
                return events

    def cancel(self, key: str, reason: str, *, cause: EndCause = EndCause.CANCELLED) -> None:
        """End a job's process tree; an unknown key is ignored."""
        slot = self._live.get(key)
        # The first reason stays, and only it is sent: an actor with threads keeps no order.
        if slot is not None and slot.live is not None and not slot.live.cancelled:
            slot.live.note_cancelled()
            slot.actor.cancel.remote(slot.live.run, reason, cause)

    def close(self) -> None:
        """End what still runs, then everything that this launcher started itself."""
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
                slot.live.finish_log()
        self._kill(*self._slots).join(KILL_SECONDS)
        self._slots.clear()
        self._live.clear()
        if self._owns:
            cluster.leave()

    def _kill(self, *slots: Slot) -> threading.Thread:
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

    def _wait_for_slots(self, seconds: float) -> None:
        if not self._local and self._placement.full(self._watch.nodes):
            # A killed driver's workers may hold it, until they have heard nothing for long.
            seconds += self._driver_lease_seconds
            logger.warning("others hold all slots: waiting %.0f s for one", seconds)
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
            others = [slot.refusals[0] for slot in self._slots if not slot.same]
            raise InfraError(**dataclasses.asdict(others[0])) if others else unfit(refusals)
        if not self.free():
            raise InfraError(
                "no slot came up",
                where=", ".join(sorted({node.name for node in self._watch.nodes})),
                got=self._last_loss or f"no worker after {seconds:g} s",
                expected=f"a worker within {seconds:g} s",
                next_step="see to what it names on that node"
                if self._last_loss
                else "`ray status` tells whether others hold the GPUs or CPUs",
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
        self._checks.again(self._slots)
        usable = {
            node.id: node
            for node in nodes.values()
            if not node.draining and now >= self._not_before.get(node.id, now)
        }
        misplaced = self._placement.misplaced(usable, self._slots)
        if misplaced is not None:
            name = misplaced.node.name
            logger.info("others hold %s: its slot is made where there is room", name)
            self._slots.remove(misplaced)
            self._checks.forget(misplaced)
            self._kill(misplaced)
        for node in self._placement.further(usable.values(), self._slots):
            self._slots.append(self._make_slot(node))

    def _drain(self, nodes: Mapping[str, cluster.Node]) -> None:
        """Leave nodes that are taken away: what runs may go on for as long as it is useful."""
        for slot in list(self._slots):
            slot.node = node = dataclasses.replace(nodes[slot.node.id], name=slot.node.name)
            live = slot.live
            if not node.draining:
                continue
            if live is None:
                if slot.lent_to:
                    continue
                if slot.harvest not in self._harvests:
                    self._slots.remove(slot)
                    self._checks.forget(slot)
                    self._kill(slot)  # Ray lets an idle node go
            elif not live.cancelled and node.seconds_left() <= DRAIN_MARGIN_SECONDS:
                live.preempted = True
                self.cancel(live.job.key, "its node is taken away")

    def _make_slot(self, node: cluster.Node) -> Slot:
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
            ray.remote(concurrency_groups=SLOW_THREADS)(Worker)
            .options(**options)
            .remote(
                scratch=self._scratch,
                lease_seconds=self._driver_lease_seconds,
                heartbeat_seconds=self._lease_seconds,
                exit_when_alone=True,
            )
        )
        hold = actor.hold.remote(self._hold_seconds)
        return Slot(node, actor, ready=actor.ready.remote(), hold=hold)

    def _lose(self, slot: Slot, why: str) -> None:
        """A worker is gone, or is to be: end its run, let the next `_sync` replace it."""
        self._slots.remove(slot)
        self._checks.forget(slot)
        self._kill(slot)
        losses = self._losses[slot.node.id]
        self._losses[slot.node.id] += 1
        wait = backoff(2.0, losses - 1, most=LONGEST_BACKOFF_SECONDS) if losses else 0.0
        self._not_before[slot.node.id] = time.monotonic() + wait
        self._synced_at = float("-inf")
        self._last_loss = why
        logger.warning("lost a worker on %s: %s", slot.node.name, why)
        if slot.live is not None:
            self._end(slot, slot.live, slot.lost(why))
        elif slot.lent_to:
            self.cancel(slot.lent_to, why, cause=EndCause.LOST)  # its GPUs are of this slot, too

    # ---- what comes back ---------------------------------------------------------------------

    def _ask(self, slot: Slot, live: Live) -> None:
        live.asked_at = time.monotonic()
        live.ref = slot.actor.poll.remote(live.run, live.cursor, self._poll_seconds)

    def _answer(self, timeout_seconds: float) -> None:
        """Wait for the first answer of any worker, then take all that are there."""
        waiting: dict[Any, Slot | None] = dict.fromkeys(self._harvests)
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

    def _take(self, slot: Slot, ref: Any) -> None:
        live = slot.live
        try:
            answer = ray.get(ref, timeout=FETCH_SECONDS)
        except RayTaskError as error:
            if self._checks.hears(slot, ref):
                self._checks.refuse(slot, check_failed(slot.node.name, repr(error.cause)))
            else:
                self._lose(slot, f"worker failed: {error.cause!r}")
            return
        except RayError as error:
            self._lose(slot, f"worker died: {_cause(error)}")
            return
        if ref == slot.ready:
            slot.answered = True
            slot.held_at = time.monotonic()
            self._greet(slot, answer)
        elif self._checks.hears(slot, ref):
            self._checks.judge(slot, answer, self._slots)
        elif ref == slot.hold:
            slot.hold = slot.actor.hold.remote(self._hold_seconds)
            slot.held_at = time.monotonic()
        elif live is not None and ref == live.order:
            live.order = None
        elif live is not None and ref == live.ref:
            self._absorb(slot, live, answer)

    def _greet(self, slot: Slot, worker: object) -> None:
        """A worker is up: give it trials only if it runs this version of the program."""
        own = own_identity()
        if isinstance(worker, Identity) and worker.version == own.version:
            if worker.code != own.code and slot.node.id not in self._differing:
                self._differing.add(slot.node.id)
                logger.warning(
                    "the worker on %s runs %s, the driver %s: the same version, other code",
                    slot.node.name,
                    worker.describe(),
                    own.describe(),
                )
            slot.devices = worker.devices
            self._checks.begin(slot)
            return
        slot.same = False
        slot.refusals = (other_version(slot.node.name, worker, own),)
        logger.warning("%s", "; ".join(line.strip() for line in slot.refusals[0].lines()))

    def _absorb(self, slot: Slot, live: Live, progress: Progress) -> None:
        key, attempt = live.job.key, live.job.attempt
        if progress.started_at is not None and not live.started:
            live.note_started()
            at = progress.started_at
            self._events.append(Started(key=key, attempt=attempt, node=slot.node.name, at=at))
        if not live.append_log(progress.log):
            # A result that cannot be kept is not worth the GPU time.
            slot.actor.cancel.remote(live.run, live.trouble)
        self._events.extend(
            Reported(key=key, attempt=attempt, report=report) for report in progress.reports
        )
        if progress.end is None:
            live.cursor = progress.cursor
            self._ask(slot, live)
            return
        self._losses[slot.node.id] = 0
        live.keep(progress.files)
        if live.job.tracking is not None and live.job.wandb_folder is not None:
            harvest = slot.actor.harvest.options(concurrency_group="harvest")
            slot.harvest = ref = harvest.remote(live.run, HARVEST_SECONDS)
            self._harvests[ref] = live.job.wandb_folder
        self._end(slot, live, progress.end)
        if progress.unkillable:
            # It holds the GPUs still: a new worker is looked at before it gets a trial.
            self._lose(slot, progress.unkillable)

    def _end(self, slot: Slot, live: Live, end: RunEnd) -> None:
        del self._live[live.job.key]
        for other in self._slots:
            if other.lent_to == live.job.key:
                other.lent_to = ""
        self._events.append(slot.vacate(live, end))

    def _expire(self) -> None:
        now = time.monotonic()
        away = now - self._expired_at
        self._expired_at = now
        if away > self._lease_seconds / 2:
            # It was this process that slept: the answers may lie in the sockets still.
            for slot in self._slots:
                slot.extend_lease(away)
        for slot in list(self._slots):
            if slot.silent_seconds(now) > self._lease_seconds:
                self._lose(slot, f"worker has not answered for {self._lease_seconds:g} s")
            elif slot.live is not None and (why := slot.live.overdue(now)):
                self._lose(slot, why)

    def _take_harvest(self, ref: Any) -> None:
        """Land a W&B offline run; one that is lost is a view lost, never a trial."""
        folder = self._harvests.pop(ref)
        try:
            for name, content in ray.get(ref, timeout=FETCH_SECONDS).items():
                write_bytes(folder / name, content)
        except (RayError, InfraError) as error:
            logger.warning("a W&B offline run did not arrive: %s", _first_line(error))


def _cause(error: Exception) -> str:
    """What ended a worker: the error that it raised, where Ray tells it, else Ray's words."""
    raised = [line for line in str(error).splitlines() if _RAISED.match(line)]
    return raised[-1] if raised else _first_line(error)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.partition("\n")[0] if text else type(error).__name__
