"""Lineage of a candidate: whose change it is, and its worth on seeds that did not pick it."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.report.attribution import lineage_of, tried_by


def row(number, score, *, variant="", parent=None, seed=None, by="ada", **more):
    return TrialRecord(
        number=number,
        outcome=State.COMPLETED,
        knobs={"MODEL_DIM": 64, "SEED": 7 if seed is None else seed},
        val_bpb=score,
        proposer=f"propose:{by}",
        variant=variant,
        parent=parent,
        seed=seed,
        **more,
    )


ROWS = [
    row(0, 1.200, by="eve"),
    row(1, 1.150, variant="a", parent=0, idea="wider|better"),
    row(2, 1.202, seed=11, by="eve"),
    row(3, 1.198, seed=12, by="eve"),
    row(4, 1.181, variant="a", parent=0, seed=11),
    row(5, 1.179, variant="a", parent=0, seed=12),
    row(6, 1.190, variant="b", parent=1, by="bob"),
]


def test_each_change_has_its_proposer_and_its_measured_effect():
    first, second, third = lineage_of("study", ROWS, 6)
    assert (first.trial, first.parent, first.proposer) == (0, None, "propose:eve")
    assert (second.trial, second.parent, second.idea) == (1, 0, "wider|better")
    assert second.effect_bpb == pytest.approx((1.150 + 1.181 + 1.179) / 3 - 1.2)
    assert second.low_bpb < second.effect_bpb < second.high_bpb
    assert second.runs == (3, 3)
    assert (third.proposer, third.runs) == ("propose:bob", (1, 3))


def test_runs_that_accepted_a_change_are_left_out_of_its_worth():
    _, second, _ = lineage_of("study", ROWS, 6, used={(1, 7)})
    assert second.effect_bpb == pytest.approx(1.18 - 1.2)
    assert second.runs == (2, 3)


def test_a_trial_that_changes_no_other_has_no_lineage():
    assert lineage_of("study", ROWS, 0) == ()
    assert tried_by(ROWS) == {"propose:eve": 1, "propose:ada": 1, "propose:bob": 1}
