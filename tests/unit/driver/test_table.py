"""The table of trials: the order in which they start, and its verbs."""

from __future__ import annotations

import dataclasses

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.driver.table import OpenTrial, TrialTable


def trial(number: int, fit_probability: float | None = None) -> OpenTrial:
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
        return OpenTrial(record, spec)
    return OpenTrial(record, spec, near_cap=True, fit_probability=fit_probability)


def numbers(table: TrialTable) -> list[int]:
    return [one.record.number for one in table.queued]


@pytest.fixture
def table() -> TrialTable:
    """Five queued trials, of which 0, 2 and 3 are near the cap, and one that waits for 1."""
    made = TrialTable()
    for one in (trial(0, 0.4), trial(1), trial(2, 0.9), trial(3, 0.4), trial(4)):
        made.note(one.record)
        made.queue(one)
    made.wait_for(1, trial(5))
    return made


def test_those_near_the_cap_wait_behind_those_that_fit_the_likeliest_first(table):
    assert numbers(table) == [1, 4, 2, 0, 3]
    assert table.near_count() == 3


def test_the_first_that_may_start_stays_queued_until_it_starts(table):
    found = table.next_to_start(lambda number: number not in {1, 4})
    assert found.record.number == 2
    assert numbers(table) == [1, 4, 2, 0, 3]
    assert table.next_to_start(lambda _: False) is None
    table.start(found, started_at=5.0, held_from=1.0)
    assert numbers(table) == [1, 4, 0, 3]
    assert list(table.running) == [2]
    assert table.counted == 1
    assert table.slot_seconds(now=4.0, epoch=8.0) == 3.0


@pytest.mark.parametrize(("first", "order"), [(True, [2, 1, 4, 0, 3]), (False, [1, 4, 2, 0, 3])])
def test_a_failed_attempt_is_queued_again_and_counts_no_more(table, first, order):
    table.start(table.queued[2], started_at=5.0, held_from=1.0)
    attempt = table.running[2]
    table.vacate(2)
    table.requeue(attempt.trial, first=first)
    assert numbers(table) == order
    assert table.counted == 0
    assert not table.running


def test_released_trial_waits_nowhere_and_goes_on_running(table):
    table.start(table.queued[4], started_at=5.0, held_from=1.0)
    for number in (3, 4, 5):
        table.release(number)
    assert numbers(table) == [1, 2, 0]
    assert [one.record.number for one in table.waiting()] == [1, 2, 0]
    assert list(table.running) == [3]
    assert table.counted == 1


def test_finished_trial_counts_unless_infrastructure_ended_it(table):
    for number, failure in ((1, None), (4, "infrastructure")):
        table.start(
            next(one for one in table.queued if one.record.number == number),
            started_at=5.0,
            held_from=1.0,
        )
        table.vacate(number)
        row = dataclasses.replace(
            table.records[number], outcome=State.FAILED, failure=failure, identity=f"i{number}"
        )
        assert table.finish(row) is (failure is None)
    assert table.counted == 1
    assert set(table.ended) == {1, 4}
    assert table.original("i1", 9).number == 1
    assert table.original("i4", 9) is None, "it may be proposed again"


def test_snapshot_does_not_change_with_the_table(table):
    table.start(table.queued[0], started_at=5.0, held_from=1.0)
    shot = table.snapshot(state=SweepState.RUNNING, reason="", slots=1, run_cap=9, now=6.0)
    table.running[1].step = 7
    table.vacate(1)
    assert [(one.number, one.step) for one in shot.running] == [(1, None)]
