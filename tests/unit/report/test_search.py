"""What is said of sampler and pruner follows from the rows."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.report.search import search_document, search_lines

CAP = 1_000_000


def row(number: int, outcome: State = State.COMPLETED, **more) -> TrialRecord:
    return TrialRecord(number=number, outcome=outcome, knobs={}, slot_seconds=60.0, **more)


def completed(number: int, score: float, size: int, **more) -> TrialRecord:
    return row(number, val_bpb=score, artifact_bytes=size, headroom_bytes=CAP - size, **more)


def test_nothing_is_said_of_no_trials() -> None:
    document = search_document([])
    assert document["near_cap_share"] is None
    assert search_lines(document) == []


def test_shares_near_the_cap_and_passed_over() -> None:
    records = [
        completed(0, 1.2, 980_000, redrawn=1),
        completed(1, 1.3, 500_000),
        row(2, State.DISCARDED),
    ]
    document = search_document(records)
    assert document["near_cap_share"] == 0.5
    assert document["redrawn_share"] == pytest.approx(2 / 5)


def test_expectations_are_held_against_scores() -> None:
    records = [
        completed(n, 1.2 + 0.01 * (-1) ** n, 900_000, expected_bpb=1.2, expected_sd=0.005)
        for n in range(4)
    ]
    document = search_document(records)
    assert document["sampler_error_bpb"] == pytest.approx(0.01)
    assert document["sampler_error_sd"] == pytest.approx(2.0)


def test_stopping_is_credited_with_its_savings_and_charged_with_its_cost() -> None:
    records = [
        completed(0, 1.3, 900_000),
        completed(1, 1.25, 900_000, behind_at=0.34),
        row(2, State.PRUNED, val_bpb=2.0, behind_at=0.25),
    ]
    stopping = search_document(records)["early_stopping"]
    assert (stopping["stopped"], stopping["ran_on"]) == (1, [1])
    assert stopping["saved_seconds"] == pytest.approx(180.0)
    assert stopping["saved_share"] == pytest.approx(0.5)
    assert stopping["cost_bpb"] == pytest.approx(0.05)
    assert "0.0500 better than all others" in " ".join(search_lines(search_document(records)))
