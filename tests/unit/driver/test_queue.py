"""The order in which a driver's trials start."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.driver.queue import TrialQueue
from pgolf_sweep.driver.snapshot import Live


def live(number: int, fit_probability: float | None = None) -> Live:
    """A queued trial; near the cap if it is said how likely it fits."""
    spec = TrialSpec(
        study="s",
        number=number,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=30, silent_seconds=30),
        proposer="test",
    )
    record = TrialRecord(number=number, outcome=State.QUEUED, knobs={})
    if fit_probability is None:
        return Live(record, spec)
    return Live(record, spec, near_cap=True, fit_probability=fit_probability)


def numbers(queue: TrialQueue) -> list[int]:
    return [one.record.number for one in queue.queued]


@pytest.fixture
def queue() -> TrialQueue:
    """Five queued trials, of which 0, 2 and 3 are near the cap, and one that waits for 1."""
    made = TrialQueue()
    for one in (live(0, 0.4), live(1), live(2, 0.9), live(3, 0.4), live(4)):
        made.enqueue(one)
    made.duplicates[1] = [live(5)]
    return made


def test_those_near_the_cap_wait_behind_those_that_fit_the_likeliest_first(queue):
    assert numbers(queue) == [1, 4, 2, 0, 3]
    assert queue.near() == 3


def test_first_that_may_start_is_taken_and_the_others_keep_their_places(queue):
    taken = queue.take(lambda number: number not in {1, 4})
    assert taken is not None
    assert taken.record.number == 2
    assert numbers(queue) == [1, 4, 0, 3]
    assert queue.take(lambda _: False) is None
    assert numbers(queue) == [1, 4, 0, 3]


def test_dropped_trial_waits_nowhere_and_goes_on_running(queue):
    queue.live[6] = running = live(6)
    for number in (4, 5, 6):
        queue.drop(number)
    assert numbers(queue) == [1, 2, 0, 3]
    assert [one.record.number for one in queue.waiting()] == [1, 2, 0, 3]
    assert queue.live == {6: running}
