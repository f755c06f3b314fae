"""The pruner: what it compares, when it judges, and what it leaves alone."""

from __future__ import annotations

import math

import pytest

from pgolf_sweep.config.types import EarlyTerminate
from pgolf_sweep.core.trial import StepReport, schedule_fraction
from pgolf_sweep.search.halving import SPARED_SHARE, Curve, Pruner, lot

HALVING = EarlyTerminate(kind="halving", startup_trials=3)
GRID = [0.1, 0.2, 0.34, 0.5, 0.7, 0.9, 1.0]


def curve(number: int, level: float, *, upto: float = 1.0, export: dict | None = None) -> Curve:
    """A curve that ends at `level` plus what its export costs, by bits."""
    points = [(at, level + 0.3 * (1 - at)) for at in GRID if at <= upto]
    loss = {4: 0.5, 6: 0.02, 8: 0.0}[(export or {}).get("BITS", 8)]
    whole = upto == 1.0
    return Curve(
        number, points, export=export or {}, final=level + loss if whole else None, settled=whole
    )


def judged(pruner: Pruner, number: int, level: float, upto: float, **more) -> bool:
    pruner.follow(curve(number, level, upto=upto, **more))
    return pruner.judge(number) is not None


def test_only_the_best_half_goes_on_at_a_third_of_the_schedule() -> None:
    pruner = Pruner(HALVING)
    for number, level in enumerate([1.0, 1.1, 1.2, 1.3, 1.4]):
        pruner.follow(curve(number, level))
    assert not judged(pruner, 10, 1.05, 0.34)
    assert judged(pruner, 11, 1.25, 0.34)


@pytest.mark.parametrize("kind", ["halving", "median"])
def test_nothing_is_judged_before_a_third_or_at_the_end(kind: str) -> None:
    pruner = Pruner(EarlyTerminate(kind=kind, startup_trials=3))
    for number in range(6):
        pruner.follow(curve(number, 1.0))
    assert not judged(pruner, 10, 5.0, 0.2)
    assert judged(pruner, 10, 5.0, 0.34)
    assert not judged(pruner, 11, 5.0, 1.0) or kind == "halving"


def test_curves_are_compared_at_equal_fractions_whatever_their_validations() -> None:
    pruner = Pruner(HALVING)
    for number, level in enumerate([1.0, 1.1, 1.2, 1.3, 1.4]):
        pruner.follow(curve(number, level))
    # Three validations at other places: at .4 the others stand between .34 and .5.
    good = Curve(10, [(0.2, 1.24), (0.4, 1.18)])
    pruner.follow(good)
    assert pruner.judge(10) is None
    pruner.follow(Curve(11, [(0.2, 1.24), (0.4, 1.35)]))
    assert pruner.judge(11) is not None


def test_one_that_passed_before_there_was_anything_to_compare_with_is_judged_again() -> None:
    pruner = Pruner(HALVING)
    assert not judged(pruner, 10, 1.35, 0.34)
    for number, level in enumerate([1.0, 1.1, 1.2, 1.3, 1.4]):
        pruner.follow(curve(number, level))
    assert judged(pruner, 10, 1.35, 0.5)


def test_what_was_found_behind_counts_as_behind_later_on() -> None:
    pruner = Pruner(HALVING)
    for number in range(3):
        pruner.follow(curve(number, 1.0 + 0.01 * number))
    # Of four at .5 one goes on, by its share at that fraction; of twelve four do.
    assert judged(pruner, 20, 1.005, 0.5)
    for number in range(3, 10):
        stopped = curve(number, 2.0, upto=0.34)
        stopped.behind = stopped.settled = True
        pruner.follow(stopped)
    assert not judged(pruner, 21, 1.015, 0.5)


def test_fewer_go_on_the_further_the_schedule() -> None:
    pruner = Pruner(HALVING)
    for number in range(11):
        pruner.follow(curve(number, 1.0 + 0.01 * number))
    # The fifth of twelve: half go on at first, one in nine at the end.
    assert not judged(pruner, 20, 1.035, 0.34)
    assert judged(pruner, 21, 1.035, 0.9)


def test_fewer_than_startup_curves_judge_nobody() -> None:
    pruner = Pruner(HALVING)
    pruner.follow(curve(0, 1.0))
    pruner.follow(curve(1, 1.0))
    assert not judged(pruner, 2, 9.0, 0.34)


def test_a_worse_curve_with_a_cheaper_export_is_not_stopped() -> None:
    pruner = Pruner(HALVING)
    for number in range(9):
        pruner.follow(curve(number, 1.0 + 0.01 * number, export={"BITS": (4, 6)[number % 2]}))
    # Before quantization behind all of four bits, after it ahead of them.
    assert not judged(pruner, 20, 1.005, 0.34, export={"BITS": 6})
    assert judged(pruner, 21, 1.0, 0.34, export={"BITS": 4})


def test_a_trial_about_whose_export_nothing_is_known_goes_on() -> None:
    pruner = Pruner(HALVING)
    for number in range(9):
        pruner.follow(curve(number, 1.0, export={"BITS": 6}))
    assert not judged(pruner, 20, 3.0, 0.34, export={"BITS": 8})


def test_what_was_judged_is_expected_to_end_as_the_others_did() -> None:
    pruner = Pruner(HALVING)
    for number in range(6):
        pruner.follow(curve(number, 1.0 + 0.1 * number))
    pruner.follow(curve(10, 2.0, upto=0.34))
    judgement = pruner.judge(10)
    assert judgement is not None
    assert judgement.at == 0.34
    assert judgement.expected == pytest.approx(2.0)


def test_a_small_share_is_spared() -> None:
    spared = sum(lot(number) < SPARED_SHARE for number in range(5000))
    assert spared == pytest.approx(5000 * SPARED_SHARE, rel=0.2)


def test_a_rule_that_cannot_act_says_why() -> None:
    late = Pruner(EarlyTerminate(kind="median", min_iter=9))
    assert "min_iter is 9 and a trial reports 7 times" in (late.never_acts(curve(0, 1.0)) or "")
    assert "no validation" in (Pruner(HALVING).never_acts(Curve(0)) or "")
    once = Curve(0, [(1.0, 1.5)])
    assert "lower VAL_LOSS_EVERY" in (Pruner(HALVING).never_acts(once) or "")
    assert Pruner(HALVING).never_acts(curve(0, 1.0)) is None
    by_ordinal = Curve(0, [(1.0, 2.0), (2.0, 1.5)], scaled=False)
    assert "how long its schedule is" in (Pruner(HALVING).never_acts(by_ordinal) or "")
    assert Pruner(EarlyTerminate(kind="median")).never_acts(by_ordinal) is None


def test_ordinals_are_compared_where_the_schedule_is_unknown() -> None:
    pruner = Pruner(EarlyTerminate(kind="median", min_iter=2, startup_trials=3))
    for number in range(5):
        pruner.follow(Curve(number, [(1.0, 2.0), (2.0, 1.0 + number), (3.0, 1.0)], scaled=False))
    pruner.follow(Curve(10, [(1.0, 9.0)], scaled=False))
    assert pruner.judge(10) is None
    pruner.follow(Curve(10, [(1.0, 9.0), (2.0, 9.0)], scaled=False))
    assert pruner.judge(10) is not None


def test_the_schedule_is_over_by_steps_or_by_the_clock() -> None:
    report = StepReport(step=3000, total_steps=20_000, train_seconds=300.0)
    assert schedule_fraction(report, {"MAX_WALLCLOCK_SECONDS": 600.0}) == 0.5
    assert schedule_fraction(report, {"MAX_WALLCLOCK_SECONDS": 0}) == 0.15
    assert schedule_fraction(StepReport(step=5), {}) is None
    late = StepReport(step=9, total_steps=8)
    assert math.isclose(schedule_fraction(late, {}) or 0, 1.0)
