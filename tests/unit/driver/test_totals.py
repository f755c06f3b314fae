"""Sums that are kept up row by row are those of a pass over all rows."""

from __future__ import annotations

import dataclasses
import statistics

from hypothesis import given
from hypothesis import strategies as st

from pgolf_sweep.core.record import State, TrialRecord, counts, ranked
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.driver.table import TrialTable

ROWS = st.builds(
    TrialRecord,
    number=st.integers(0, 6),
    outcome=st.sampled_from(State),
    knobs=st.just({}),
    val_bpb=st.sampled_from([None, 1.0, 1.5, 2.0]),
    headroom_bytes=st.sampled_from([None, -5, 5]),
    slot_seconds=st.sampled_from([0.0, 1.0, 2.5, 7.0]),
    duplicate_of=st.sampled_from([None, None, 3]),
)


@given(st.lists(ROWS, max_size=40))
def test_snapshot_is_that_of_a_pass_over_the_newest_rows(rows: list[TrialRecord]) -> None:
    table = TrialTable()
    newest: dict[int, TrialRecord] = {}
    for row in rows:
        table.note(row)
        newest[row.number] = row
    seen = table.snapshot(state=SweepState.RUNNING, reason="", slots=1, run_cap=10, now=0.0)
    completed = [r for r in newest.values() if r.outcome is State.COMPLETED and r.slot_seconds]
    times = [row.slot_seconds for row in completed]
    assert seen.counts == counts(newest.values())
    assert seen.best == next(iter(ranked(newest.values())), None)
    assert seen.trained_seconds == sum(row.slot_seconds for row in newest.values())
    typical = statistics.median(times) if times else None
    assert seen.seconds_left == (None if typical is None else 10 * typical)


def test_the_best_that_is_taken_back_gives_way_to_the_next() -> None:
    table = TrialTable()
    rows = [
        TrialRecord(number=n, outcome=State.COMPLETED, knobs={}, val_bpb=2.0 - n) for n in range(2)
    ]
    for row in rows:
        table.note(row)
    table.note(dataclasses.replace(rows[1], outcome=State.QUEUED))
    shown = table.snapshot(state=SweepState.RUNNING, reason="", slots=1, run_cap=None, now=0.0)
    assert shown.best == rows[0]
