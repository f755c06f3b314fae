"""Slots and what runs on them, as the launcher knows it; nothing here asks Ray anything.

A slot's actor and the references to its answers are Ray's; here they are only kept and called.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.paths import TrialPaths, write_bytes
from pgolf_sweep.core.trial import EndCause, LogSummary, RunEnd
from pgolf_sweep.launch.base import Ended, SlotInfo
from pgolf_sweep.launch.node.run import BEGINNING, Cursor
from pgolf_sweep.nodes.info import NodeInfo, NodeState
from pgolf_sweep.script.logs.tail import log_tail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgolf_sweep.core.errors import Finding
    from pgolf_sweep.launch.base import Job
    from pgolf_sweep.launch.ray.cluster import Node

END_SECONDS = 60.0
"""For a run to end after its time limit, or after it was cancelled; a guard takes half of it at
most, even where SIGKILL does nothing."""


class Slot:
    """An actor and what it does.

    Attributes:
        answered: Whether the actor exists.
        up: Whether it has been looked at, too.
        asked: The question what its node is like, and when it was put (monotonic, epoch).
        refusals: Why it takes no jobs.
        same: Whether its worker runs this program, and not another version of it.
        checks: How often in a row it was refused.
        check_at: When it is asked again, monotonic seconds.
        held_at: When its worker last answered, monotonic seconds.
        speed: Its share of the others' tokens per second, where measured.
        lacks: Packages of codecs that are not installed on its node.
        lent_to: The job that runs on its GPUs beside those of another slot; empty: none does.
        devices: Its GPUs, as its worker's CUDA_VISIBLE_DEVICES names them.
    """

    __slots__ = (
        "actor",
        "answered",
        "asked",
        "check_at",
        "checks",
        "devices",
        "harvest",
        "held_at",
        "hold",
        "lacks",
        "lent_to",
        "live",
        "node",
        "ready",
        "refusals",
        "same",
        "speed",
        "up",
    )

    def __init__(self, node: Node, actor: Any, *, ready: Any, hold: Any) -> None:
        self.node = node
        self.actor = actor
        self.ready = ready
        self.hold = hold  # breaks off when the actor dies, busy or not
        self.harvest: Any = None  # the last one; it may be over
        self.answered = False
        self.held_at = time.monotonic()
        self.up = False
        self.asked: tuple[Any, float, float] | None = None
        self.refusals: tuple[Finding, ...] = ()
        self.same = True
        self.checks = 0
        self.check_at = 0.0
        self.speed: float | None = None
        self.lacks: tuple[str, ...] = ()
        self.live: Live | None = None
        self.lent_to = ""
        self.devices = ""

    def unanswered(self) -> Iterator[Any]:
        """What its worker was asked and has not answered yet."""
        yield self.hold
        if not self.answered:
            yield self.ready
        if self.asked is not None:
            yield self.asked[0]
        if self.live is not None:
            yield self.live.ref
            if self.live.order is not None:
                yield self.live.order

    @property
    def takes_jobs(self) -> bool:
        """Whether a job may start here now."""
        idle = self.live is None and not self.lent_to
        return self.up and idle and not self.node.draining and not self.refusals

    def info(self, gpus: int) -> SlotInfo:
        """The slot as people see it."""
        busy_with = self.live.job.key if self.live else self.lent_to or None
        return SlotInfo(node=self.node.name, gpus=gpus, busy_with=busy_with)

    def silent_seconds(self, now: float) -> float:
        """How long its worker has owed an answer, by the monotonic clock's now."""
        since = self.held_at if self.up else now  # one that starts may take its time
        if self.live is not None:
            since = min(since, self.live.asked_at)
        return now - since

    def extend_lease(self, seconds: float) -> None:
        """Do not hold a time against its worker in which this process heard nobody."""
        self.held_at += seconds
        if self.live is not None:
            self.live.asked_at += seconds
            self.live.due_at += seconds

    def lost(self, why: str) -> RunEnd:
        """The end of what runs here, or was to, where its worker cannot tell it any more."""
        live, ended_at = self.live, time.time()
        held_seconds = 0.0 if live is None else time.monotonic() - live.held_from
        return RunEnd(
            cause=EndCause.LOST,
            exit_code=None,
            detail=why,
            summary=LogSummary(),
            node=self.node.name,
            started_at=ended_at - held_seconds,
            ended_at=ended_at,
            log_tail=() if live is None else live.log_tail(),
        )

    def vacate(self, live: Live, end: RunEnd) -> Ended:
        """Be free again; the run's end, with what disk and node have to do with it."""
        live.finish_log()
        if live.trouble is not None:
            end = dataclasses.replace(end, cause=EndCause.OUTPUT_WRITE_FAILED, detail=live.trouble)
        elif self.node.draining and end.cause in (
            {EndCause.LOST, EndCause.CANCELLED} if live.preempted else {EndCause.LOST}
        ):
            end = dataclasses.replace(end, cause=EndCause.PREEMPTED)
        self.live = None
        return Ended(key=live.job.key, attempt=live.job.attempt, end=end)


class Live:
    """A run that is going on; its folder and its log are made with it.

    Attributes:
        run: Names it to its worker; no other run has the name.
        order: The call that starts it, until it is answered: it may fail.
        due_at: When it must have ended, monotonic seconds, no matter what its worker answers.
        preempted: Whether it is ended because its node is taken away.
        trouble: What the driver's disk refused first, or None.

    Raises:
        OSError: The job's folder cannot be written.
    """

    __slots__ = (
        "asked_at",
        "cancelled",
        "cursor",
        "due_at",
        "held_from",
        "job",
        "log",
        "order",
        "preempted",
        "ref",
        "run",
        "started",
        "trouble",
    )

    def __init__(self, job: Job, run: str) -> None:
        self.job = job
        self.run = run
        job.folder.mkdir(parents=True, exist_ok=True)
        self.log = TrialPaths(job.folder).live_log.open("wb")
        self.cursor: Cursor = BEGINNING
        self.cancelled = False
        self.preempted = False
        self.ref: Any = None
        self.order: Any = None
        self.asked_at = time.monotonic()
        self.started = False
        self.trouble: str | None = None
        self._hold()

    def _hold(self) -> None:
        self.held_from = time.monotonic()
        self.due_at = self.held_from + self.job.spec.limits.total_seconds + END_SECONDS

    def note_started(self) -> None:
        """Its script exists from now on: its time counts from here."""
        self.started = True
        if not self.cancelled:
            self._hold()

    def note_cancelled(self) -> None:
        """Its worker is being told to end it."""
        self.cancelled = True
        self.due_at = min(self.due_at, time.monotonic() + END_SECONDS)

    def overdue(self, now: float) -> str:
        """Why it is given up at a time of the monotonic clock; nothing while it may go on."""
        if now <= self.due_at:
            return ""
        since = "it was cancelled" if self.cancelled else "its time limit"
        return f"the run has not ended {END_SECONDS:g} s after {since}"

    def append_log(self, data: bytes) -> bool:
        """Keep what the script printed; False when the disk refuses, from then on nothing more."""
        if not data or self.trouble is not None:
            return True
        try:
            self.log.write(data)
            self.log.flush()
        except OSError as error:
            self.trouble = f"the driver's disk refused the log: {error}"
            return False
        return True

    def finish_log(self) -> None:
        """Give the log the name that it has from now on."""
        paths = TrialPaths(self.job.folder)
        try:
            self.log.close()
            paths.live_log.replace(paths.log)
        except OSError as error:
            self.trouble = self.trouble or f"the driver's disk refused the log: {error}"

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Land what the run left, by name, in its job's folder."""
        try:
            for name, content in files.items():
                write_bytes(self.job.folder / name, content)
        except InfraError as error:
            self.trouble = self.trouble or str(error)

    def log_tail(self) -> tuple[str, ...]:
        """Its last lines, as far as they can be read."""
        return log_tail(TrialPaths(self.job.folder).live_log)


def nodes_by_slots(slots: Iterable[Slot], drained: Iterable[Node]) -> list[NodeInfo]:
    """Every node as its slots show it.

    Args:
        slots: All that there are.
        drained: Nodes that are taken away; the slots of some may be gone before them.
    """
    infos = {node.name: _draining_info(node) for node in drained}
    by_node: dict[str, list[Slot]] = {}
    for slot in slots:
        by_node.setdefault(slot.node.name, []).append(slot)
    for name, own in by_node.items():
        if name not in infos:
            infos[name] = _node_info(name, own)
    return list(infos.values())


def _draining_info(node: Node) -> NodeInfo:
    return NodeInfo(name=node.name, state=NodeState.DRAINING, drains_at=node.drains_at)


def _node_info(name: str, slots: Sequence[Slot]) -> NodeInfo:
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
        lacks=tuple(sorted({name for slot in slots for name in slot.lacks})),
    )
