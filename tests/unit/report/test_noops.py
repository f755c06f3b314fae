"""Knobs that change nothing are found by bit-identical scores, and by nothing less."""

from __future__ import annotations

import dataclasses

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.report.noops import no_op_knobs

SCORE = 1.23456789


def trial(number: int, score: float = SCORE, **knobs: float) -> TrialRecord:
    return TrialRecord(number=number, outcome=State.COMPLETED, knobs=knobs, val_bpb=score)


def test_knob_that_differs_between_identical_scores_is_accused() -> None:
    found = no_op_knobs([trial(0, LR=0.1, EMA=0), trial(1, LR=0.1, EMA=1)])
    assert [(one.knobs, one.trials) for one in found] == [(("EMA",), (0, 1))]
    assert found[0].sentence == "EMA changes nothing: trials 0, 1 have identical scores"


def test_any_difference_acquits() -> None:
    assert not no_op_knobs([trial(0, EMA=0), trial(1, SCORE + 1e-8, EMA=1)])


def test_effect_elsewhere_acquits() -> None:
    records = [trial(0, A=0), trial(1, A=1), trial(2, 1.3456789, A=2)]
    assert not no_op_knobs(records)


def test_two_knobs_together_are_named_together() -> None:
    found = no_op_knobs([trial(0, A=0, B=0), trial(1, A=1, B=1)])
    assert [one.knobs for one in found] == [("A", "B")]


def test_pairs_explained_by_single_knobs_are_not_repeated() -> None:
    found = no_op_knobs([trial(0, A=0, B=0), trial(1, A=1, B=0), trial(2, A=1, B=1)])
    assert [one.knobs for one in found] == [("A",), ("B",)]


def test_duplicates_and_rounded_scores_prove_nothing() -> None:

    copied = dataclasses.replace(trial(1, A=1), duplicate_of=0)
    assert not no_op_knobs([trial(0, A=0), copied])
    assert not no_op_knobs([trial(0, 1.2345, A=0), trial(1, 1.2345, A=1)])


def test_only_trials_that_share_a_score_are_said_to() -> None:
    other = 1.87654321
    (found,) = no_op_knobs(
        [
            trial(0, A=0, B=0),
            trial(1, A=1, B=0),
            trial(2, other, A=0, B=1),
            trial(3, other, A=1, B=1),
        ]
    )
    assert (found.knobs, found.trials, found.groups) == (("A",), (0, 1, 2, 3), ((0, 1), (2, 3)))
    assert found.sentence == "A changes nothing: trials 0, 1 have identical scores; so have 2, 3"
