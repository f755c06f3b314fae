"""Jobs outside a sweep, run to their end; what infrastructure takes runs again, up to a limit."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pgolf_sweep.core.classify import infrastructure_failure
from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.trial import EndCause
from pgolf_sweep.launch.base import Ended, Started
from pgolf_sweep.nodes.wait import NodeWait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import NoHealthyNode
    from pgolf_sweep.core.trial import RunEnd
    from pgolf_sweep.launch.base import Job, Launcher

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
GIVE_UP_SECONDS = 3600.0
"""Without a node that runs anything; `pgolf.nodes.give_up_seconds` of a sweep file overrules it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One job that has to come to an end.

    Attributes:
        key: Its name, unique among those that run together.
        prepare: Makes the job of an attempt, counted from zero, and its folder empty.
    """

    key: str
    prepare: Callable[[int], Job]


class Listener(Protocol):
    """Hears of each attempt; of a lost one before the next."""

    def started(self, key: str, node: str) -> None:
        """An attempt runs."""
        ...

    def ended(self, key: str, end: RunEnd, *, again: bool) -> None:
        """An attempt ended; whether another one follows."""
        ...


class _Nobody:
    def started(self, key: str, node: str) -> None:
        pass

    def ended(self, key: str, end: RunEnd, *, again: bool) -> None:
        pass


def run_jobs(
    works: Sequence[Work],
    launcher: Launcher,
    *,
    clock: Clock,
    max_retries: int = 2,
    give_up_seconds: float = GIVE_UP_SECONDS,
    listener: Listener | None = None,
    notify: Callable[[NoHealthyNode], None] = lambda _: None,
) -> dict[str, RunEnd]:
    """Run jobs, as many at once as there are free slots; how each ended, by key.

    Args:
        works: They start in this order.
        launcher: With the slots.
        clock: Tells how long no node has been there.
        max_retries: How often one that infrastructure took is run again; what a drained node took
            does not count.
        give_up_seconds: The longest time without anything that runs.
        listener: Hears of each attempt.
        notify: Takes the event that no node is fit.

    Raises:
        InfraError: A job was lost for good, the others have ended; or no node came to run the rest.
    """
    hears = listener or _Nobody()
    prepare = {work.key: work.prepare for work in works}
    waiting = deque((work.key, 0) for work in works)
    live: dict[str, Job] = {}
    taken: Counter[str] = Counter()
    ends: dict[str, RunEnd] = {}
    lost: dict[str, str] = {}
    wait = NodeWait(clock, give_up_seconds, notify, "run")
    while waiting or live:
        _start(waiting, live, prepare, launcher)
        wait.look(waits=not live, troubles=partial(_troubles, launcher))
        if late := wait.too_long():
            raise InfraError(
                late,
                got=_troubles(launcher),
                expected="a node that runs it; what finished is kept",
                next_step="fix or replace the nodes, then run the same command again",
            )
        for event in launcher.poll(POLL_SECONDS):
            key, attempt = event.key, event.attempt
            if key not in live or live[key].attempt != attempt:
                continue  # a late word of a lost attempt
            if isinstance(event, Started):
                hears.started(key, event.node)
            elif isinstance(event, Ended):
                job, end = live.pop(key), event.end
                taken[key] += end.cause is EndCause.PREEMPTED
                failure = infrastructure_failure(end)
                counted = attempt + 1 - taken[key]
                again = (
                    failure is not None
                    and end.cause is not EndCause.CANCELLED
                    and counted <= max_retries
                )
                hears.ended(key, end, again=again)
                if again:
                    waiting.append((key, attempt + 1))
                elif failure is not None:
                    how = f"{failure.code} on {end.node}, attempt {attempt + 1}: {failure.reason}"
                    lost[str(job.folder)] = f"{key}: {how}"
                else:
                    ends[key] = end
    if lost:
        raise InfraError(
            "; ".join(lost.values()),
            where=", ".join(lost),
            next_step="run the same command again: what finished is kept",
        )
    return ends


def _start(
    waiting: deque[tuple[str, int]],
    live: dict[str, Job],
    prepare: Mapping[str, Callable[[int], Job]],
    launcher: Launcher,
) -> None:
    """Start what waits, as far as there are free slots."""
    while waiting and launcher.free() > 0:
        key, attempt = waiting[0]
        job = prepare[key](attempt)
        try:
            launcher.start(job)
        except InfraError as error:
            # The free slot's node went away in between; another turn finds another slot.
            logger.warning("%s did not start: %s", key, error)
            return
        waiting.popleft()
        live[key] = job


def _troubles(launcher: Launcher) -> str:
    """What is wrong with each node."""
    found = [
        f"{info.name}: {'; '.join(refusal.what for refusal in info.refusals) or info.state}"
        for info in launcher.nodes()
    ]
    return "; ".join(found) or "the cluster has none"
