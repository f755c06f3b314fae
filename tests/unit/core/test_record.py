"""The row of a trial: stored, read back, counted, ranked."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pgolf_sweep.core.record import State, TrialRecord, counts, ranked
from pgolf_sweep.core.trial import Discarded, Interval, Verdict, VerdictKind


def record(number, **changes):
    plain = TrialRecord(number=number, outcome=State.COMPLETED, knobs={"A": 1}, val_bpb=2.0)
    return dataclasses.replace(plain, **changes)


def test_json_round_trip_keeps_everything():
    row = record(3, predicted_bytes=Interval(low=1, mid=2, high=3), finals={"ttt": 1.9})
    assert TrialRecord.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_keys_of_another_version_are_left_aside():
    document = record(3).to_json() | {"of_the_future": 1}
    assert TrialRecord.from_json(document) == record(3)


def test_ranking_leaves_out_what_cannot_be_submitted():
    rows = [
        record(0, val_bpb=1.0, headroom_bytes=-1),
        record(1, val_bpb=1.5, headroom_bytes=0),
        record(2, val_bpb=1.4, duplicate_of=1),
        record(3, val_bpb=1.2, outcome=State.PRUNED),
        record(4, val_bpb=1.3),
    ]
    assert [row.number for row in ranked(rows)] == [4, 1]


def test_counts_tell_duplicates_apart():
    rows = [record(0), record(1, duplicate_of=0), record(2, outcome=State.FAILED)]
    tally = counts(rows)
    assert (tally["completed"], tally["duplicates"], tally["failed"]) == (1, 1, 1)
    assert sum(tally.values()) == 3


def test_discard_carries_the_predicted_headroom():
    verdict = Verdict(
        kind=VerdictKind.TOO_BIG,
        reason="too big",
        code_bytes=1,
        cap_bytes=100,
        confidence=0.99,
        regime="t",
        artifact_bytes=Interval(low=110, mid=120, high=130),
    )
    row = record(0).ended(Discarded(verdict=verdict), None, cap_bytes=100)
    assert (row.outcome, row.headroom_bytes, row.reason) == (State.DISCARDED, -20, "too big")


def test_row_of_version_0_1_is_read_and_its_key_is_still_written() -> None:
    row = TrialRecord(number=3, outcome=State.QUEUED, knobs={}, uncounted_attempts=2)
    document = row.to_json()
    assert document["excused"] == document["uncounted_attempts"] == 2
    del document["uncounted_attempts"]
    assert TrialRecord.from_json(document) == row


@pytest.mark.parametrize(
    ("proposer", "export_of", "repair_of"),
    [
        ("export of 7", 7, None),
        ("repair of 12", None, 12),
        ("tpe", None, None),
        ("propose:export of 7", None, None),
    ],
)
def test_a_row_of_version_0_1_says_by_its_proposer_what_it_is_made_of(
    proposer, export_of, repair_of
):
    # The row of a duplicate had its original's `export_of`.
    document = record(3).to_json() | {"proposer": proposer, "export_of": 7}
    del document["repair_of"]
    row = TrialRecord.from_json(document)
    assert (row.export_of, row.repair_of) == (export_of, repair_of)
    assert TrialRecord.from_json(row.to_json()) == row
