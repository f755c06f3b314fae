"""Runs that are no evidence of a seed: proofs and repetitions, each in a folder of its own."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from typing import TYPE_CHECKING

from pgolf_sweep.errors import InfraError
from pgolf_sweep.launch.base import Ended
from pgolf_sweep.trial import EndCause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.launch.base import Job, Launcher
    from pgolf_sweep.trial import RunEnd

POLL_SECONDS = 0.5
_LOST = frozenset({EndCause.LOST, EndCause.UNKEPT, EndCause.SETUP, EndCause.PREEMPTED})


def run_jobs(jobs: Sequence[Job], launcher: Launcher, *, max_retries: int = 2) -> dict[str, RunEnd]:
    """Run jobs, as many at once as there are free slots; how each ended, by key.

    Raises:
        InfraError: A job was lost more than `max_retries` times.
    """
    waiting = deque(jobs)
    live: dict[str, Job] = {}
    preempted: Counter[str] = Counter()
    ends: dict[str, RunEnd] = {}
    while waiting or live:
        while waiting and launcher.free() > 0:
            job = waiting.popleft()
            launcher.start(job)
            live[job.key] = job
        for event in launcher.poll(POLL_SECONDS):
            job_or_none = live.get(event.key)
            if not isinstance(event, Ended) or job_or_none is None:
                continue
            if job_or_none.attempt != event.attempt:
                continue  # a late word of a lost attempt
            job = live.pop(event.key)
            preempted[job.key] += event.end.cause is EndCause.PREEMPTED
            if event.end.cause in _LOST and job.attempt - preempted[job.key] < max_retries:
                waiting.append(dataclasses.replace(job, attempt=job.attempt + 1))
            elif event.end.cause in _LOST:
                raise InfraError(
                    f"{job.key}: {event.end.cause} on {event.end.node}: {event.end.detail}",
                    where=str(job.folder),
                    next_step="run the same command again",
                )
            else:
                ends[job.key] = event.end
    return ends
