"""What is said of sampler and pruner follows from the rows."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.record import Posterior, State, TrialRecord
from pgolf_sweep.report.search import decided, evidence, search_document, search_lines

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


def test_the_best_is_said_with_its_rivals_and_what_one_more_seed_would_decide() -> None:
    def posterior(mean: float, decided_by: float | None, *, tied: bool = True) -> Posterior:
        return Posterior(
            mean=mean, low=mean - 0.001, high=mean + 0.001, tied=tied, decided=decided_by
        )

    records = [completed(n, 1.2 - 0.001 * n, 900_000) for n in range(4)]
    found = {
        0: posterior(1.19, None),
        1: posterior(1.191, 0.7),
        2: posterior(1.192, 0.2),
        3: posterior(1.3, 1.0, tied=False),
    }
    assert decided(records, found) == {1: 0.7, 2: 0.2}
    assert evidence(records, found) == [
        "trial 0 by all scores: 1.1900 (1.1890 to 1.1910), 95 %",
        "not distinguishable from trials 1, 2",
        "one more seed of each would likely tell it from 1",
    ]
    found[1] = posterior(1.191, 0.3)
    assert evidence(records, found)[-1] == (
        "one more seed of each would tell it from none (at most 30% likely)"
    )
