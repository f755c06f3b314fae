"""A launcher that runs no process: ten thousand trials simulate in seconds.

Time is a `SimulatedClock` that jumps from event to event. What a trial does is a plain function
of its job.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pgolf_sweep.core.paths import write_bytes
from pgolf_sweep.core.trial import TRAIN, EndCause, LogSummary, RunEnd, StepReport
from pgolf_sweep.launch.base import Ended, Reported, SlotInfo, Started, refuse_start
from pgolf_sweep.nodes.info import NodeInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pgolf_sweep.launch.base import Event, Job


class SimulatedClock:
    """A clock that moves only when somebody waits on it."""

    def __init__(self, epoch_seconds: float = 1_700_000_000.0) -> None:
        self._epoch = epoch_seconds
        self._elapsed = 0.0

    def now(self) -> float:
        """Simulated seconds since the epoch."""
        return self._epoch + self._elapsed

    def monotonic(self) -> float:
        """Simulated seconds since the clock was made."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self._elapsed += max(0.0, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a simulated run ends.

    Attributes:
        files: What it leaves in the job's folder, by relative path.
        start_at: The part that it started at.
        checkpoint_bytes: Size of the checkpoint that it leaves.
    """

    cause: EndCause = EndCause.EXITED
    exit_code: int | None = 0
    detail: str = ""
    summary: LogSummary = field(default_factory=LogSummary)
    model_file_bytes: int | None = None
    log_tail: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    start_at: str = TRAIN
    checkpoint_bytes: int | None = None


Step: TypeAlias = "tuple[float, StepReport | Finish]"
"""Seconds after the step before, and what happens then."""


class InlineLauncher:
    """Simulates slots; see `pgolf_sweep.launch.base.Launcher` for the promises.

    Args:
        slots: How many.
        simulate: What a job does, in order. A run that does not say how it ends exits with 0.
        clock: Moved on by `poll`.
        cancel_seconds: From `cancel` to the run's end.
        slots_per_node: How many slots share a node.
        instead: What a job does on nodes where it does not do what `simulate` says, by node.
    """

    def __init__(
        self,
        slots: int,
        simulate: Callable[[Job], Iterable[Step]],
        clock: SimulatedClock,
        *,
        cancel_seconds: float = 0.5,
        slots_per_node: int = 8,
        instead: Mapping[str, Callable[[Job], Iterable[Step]]] | None = None,
    ) -> None:
        self._simulate = simulate
        self._instead = instead or {}
        self._clock = clock
        self._cancel_seconds = cancel_seconds
        self._nodes = [f"sim-{index // slots_per_node}" for index in range(slots)]
        self._infos = [NodeInfo(name=name) for name in dict.fromkeys(self._nodes)]
        self._idle = list(range(slots - 1, -1, -1))
        self._runs: dict[str, _Run] = {}
        self._order = itertools.count()
        # The counter keeps events of one moment in the order in which they were planned.
        self._planned: list[tuple[float, int, _Run, StepReport | Finish]] = []
        self._events: list[Event] = []

    def slots(self) -> list[SlotInfo]:
        """Every slot; they neither come nor go."""
        busy = {slot: run.job.key for run in self._runs.values() for slot in run.slots}
        return [
            SlotInfo(node=node, gpus=0, busy_with=busy.get(index))
            for index, node in enumerate(self._nodes)
        ]

    def nodes(self) -> list[NodeInfo]:
        """Every node; none is ever refused or drained."""
        return list(self._infos)

    def free(self, avoid: Collection[str] = frozenset(), slots: int = 1) -> int:
        """How many jobs of so many slots that avoid these nodes `start` takes now."""
        if slots == 1:
            if not avoid:
                return len(self._idle)
            return sum(self._nodes[slot] not in avoid for slot in self._idle)
        idle = Counter(self._nodes[slot] for slot in self._idle)
        return sum(count // slots for node, count in idle.items() if node not in avoid)

    def start(self, job: Job) -> str:
        """Start a job on free slots of one node and return the name of the node.

        Raises:
            InfraError: There are no such slots that the job may use, or the key is in use.
        """
        refuse_start(job, self.free(job.avoid, job.slots), job.key in self._runs)
        idle = Counter(self._nodes[slot] for slot in self._idle)
        node = next(
            self._nodes[slot]
            for slot in reversed(self._idle)
            if self._nodes[slot] not in job.avoid and idle[self._nodes[slot]] >= job.slots
        )
        slots = [slot for slot in reversed(self._idle) if self._nodes[slot] == node][: job.slots]
        for slot in slots:
            self._idle.remove(slot)
        steps = iter(self._instead.get(node, self._simulate)(job))
        run = _Run(job, slots, self._clock.now(), steps)
        self._runs[job.key] = run
        self._events.append(Started(key=job.key, attempt=job.attempt, node=node, at=run.started_at))
        self._plan_next(run)
        return node

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Events since the last call; the clock moves to the next one, or by the timeout."""
        if not self._events:
            self._move_on(timeout_seconds)
        events, self._events = self._events, []
        return events

    def _move_on(self, timeout_seconds: float) -> None:
        now = self._clock.monotonic()
        until = now + timeout_seconds
        while self._planned and self._planned[0][0] <= until:
            at = self._planned[0][0]
            self._clock.sleep(at - self._clock.monotonic())
            while self._planned and self._planned[0][0] <= at:
                _, _, run, what = heapq.heappop(self._planned)
                if not run.over:
                    self._happen(run, what)
            if self._events:
                return
        self._clock.sleep(until - self._clock.monotonic())

    def _happen(self, run: _Run, what: StepReport | Finish) -> None:
        key, attempt = run.job.key, run.job.attempt
        if isinstance(what, Finish):
            self._end(run, what)
        elif not run.cancelled:
            self._events.append(Reported(key=key, attempt=attempt, report=what))
            self._plan_next(run)

    def _plan_next(self, run: _Run) -> None:
        delay, what = next(run.steps, (0.0, Finish()))
        self._plan(run, delay, what)

    def _plan(self, run: _Run, delay: float, what: StepReport | Finish) -> None:
        at = self._clock.monotonic() + delay
        heapq.heappush(self._planned, (at, next(self._order), run, what))

    def _end(self, run: _Run, finish: Finish) -> None:
        run.over = True
        del self._runs[run.job.key]
        self._idle.extend(reversed(run.slots))
        for name, content in finish.files.items():
            write_bytes(run.job.folder / name, content)
        end = RunEnd(
            cause=finish.cause,
            exit_code=finish.exit_code,
            detail=finish.detail,
            summary=finish.summary,
            node=self._nodes[run.slots[0]],
            started_at=run.started_at,
            ended_at=self._clock.now(),
            log_tail=finish.log_tail,
            model_file_bytes=finish.model_file_bytes,
            start_at=finish.start_at,
            checkpoint_bytes=finish.checkpoint_bytes,
        )
        self._events.append(Ended(key=run.job.key, attempt=run.job.attempt, end=end))

    def cancel(self, key: str, reason: str, *, cause: EndCause = EndCause.CANCELLED) -> None:
        """End a job soon; an unknown key is ignored."""
        run = self._runs.get(key)
        if run is None or run.cancelled:
            return
        run.cancelled = True
        finish = Finish(cause=cause, exit_code=-15, detail=reason)
        self._plan(run, self._cancel_seconds, finish)

    def close(self) -> None:
        """Forget everything."""
        for run in self._runs.values():
            run.over = True
        self._idle.extend(slot for run in self._runs.values() for slot in run.slots)
        self._runs.clear()
        self._planned.clear()


def without_slots() -> InlineLauncher:
    """A launcher for a study that has nothing left to run: no cluster needs to start."""
    return InlineLauncher(0, lambda _job: (), SimulatedClock())


class _Run:
    """A run that is going on; compared by nothing, since the heap's counter decides before."""

    __slots__ = ("cancelled", "job", "over", "slots", "started_at", "steps")

    def __init__(
        self, job: Job, slots: list[int], started_at: float, steps: Iterator[Step]
    ) -> None:
        self.job = job
        self.slots = slots
        self.started_at = started_at
        self.steps = steps
        self.cancelled = False
        self.over = False
