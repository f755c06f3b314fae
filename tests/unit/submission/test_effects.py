"""Effects over seeds: against known formulas, and their promises on simulated noise."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest

from pgolf_sweep.submission.effects import (
    Accept,
    Decision,
    Effect,
    Rule,
    Run,
    decide,
    fit,
    paired,
    seeds_more,
)
from pgolf_sweep.submission.stats import student_quantile

A = [1.10, 1.12, 1.11, 1.13]
B = [1.05, 1.08, 1.06]


def runs(config, scores, first=0):
    return [Run(config, first + at, score) for at, score in enumerate(scores)]


def test_a_paired_effect_is_students_t_of_the_differences():
    # As scipy.stats.ttest_1samp has it.
    effect = paired([-0.03, -0.01, -0.02, -0.025])
    assert effect.value == pytest.approx(-0.02125)
    assert effect.value / effect.error == pytest.approx(-4.97709, abs=1e-5)
    assert effect.p_value == pytest.approx(0.0155874, abs=1e-6)
    assert effect.low < effect.value < effect.high < 0
    assert paired([0.1]) is None
    assert paired([0.0, 0.0]).p_value == 1.0


def test_unpaired_effect_is_students_with_the_pooled_spread():
    model = fit([*runs("a", A), *runs("b", B, first=50)])
    effect = model.effect("a", "b")
    squares = stdev(A) ** 2 * 3 + stdev(B) ** 2 * 2
    error = math.sqrt(squares / 5 * (1 / 4 + 1 / 3))
    assert effect.value == pytest.approx(fmean(B) - fmean(A))
    assert effect.error == pytest.approx(error)
    assert effect.freedom == 5
    half = student_quantile(5, 0.975) * error
    assert (effect.low, effect.high) == pytest.approx((effect.value - half, effect.value + half))
    assert model.noise.std == pytest.approx(math.sqrt(squares / 5))


def test_seeds_that_move_all_alike_pair_the_runs():
    luck = [0.0, 0.08, -0.05, 0.11, -0.09, 0.04]
    small = [0.001, -0.002, 0.0015, 0.0, -0.001, 0.0005]
    a = [1.1 + one for one in luck]
    b = [1.09 + one + two for one, two in zip(luck, small, strict=True)]
    other = [run for at in range(4) for run in runs(f"o{at}", np.cos(np.arange(6) + at))]
    effect = fit([*runs("a", a), *runs("b", b), *other]).effect("a", "b")
    alone = paired([y - x for x, y in zip(a, b, strict=True)])
    assert (effect.value, effect.error, effect.freedom) == (alone.value, alone.error, 5)
    assert effect.p_value == pytest.approx(2 * alone.p_value)  # the better of two tests
    half = student_quantile(5, 0.9875) * alone.error
    assert (effect.low, effect.high) == pytest.approx((alone.value - half, alone.value + half))


def test_pairs_that_share_no_luck_are_not_judged_by_those_that_do():
    rng = np.random.default_rng(4)
    luck = rng.normal(0, 1, 4)
    alike = [run for at in range(9) for run in runs(f"o{at}", luck + rng.normal(0, 1e-3, 4))]
    own = rng.normal(-0.5, 1, 2)
    effect = fit([*alike, *runs("drawn", own)]).effect("o0", "drawn")
    assert effect.error > 0.5 * math.sqrt(1 / 2 + 1 / 4)
    assert effect.p_value > 0.05


def test_noise_of_other_configurations_judges_a_single_run():
    model = fit([*runs("base", A), *runs("candidate", [0.9])])
    assert model.noise.freedom == 3
    assert model.effect("base", "candidate").p_value < 0.01


def test_without_a_repeat_nothing_is_known_of_the_noise():
    model = fit([Run("a", 0, 1.0), Run("b", 0, 0.9)])
    assert model.noise is None
    assert model.effect("a", "b") is None
    assert decide(Accept(), model, "a", "b", 1) is Decision.MORE
    assert decide(Accept(rule=Rule.GREEDY), model, "a", "b", 1) is Decision.KEEP


def test_scores_that_never_differ_are_certain():
    effect = fit([*runs("a", [1.0, 1.0]), *runs("b", [0.9])]).effect("a", "b")
    assert effect.p_value == 0.0
    assert fit([*runs("a", [1.0, 1.0]), *runs("b", [1.0])]).effect("a", "b").p_value == 1.0


def test_false_alarms_are_as_rare_as_the_level_says_paired_or_not():
    rng = np.random.default_rng(5)
    for shared in (0.0, 2.0):
        alarms = 0
        for _ in range(400):
            luck = rng.normal(0, shared, 5)
            a, b = (luck + rng.normal(0, 1, 5) for _ in range(2))
            effect = fit([*runs("a", a), *runs("b", b)]).effect("a", "b")
            alarms += effect.p_value < 0.05
        assert alarms <= 36  # 20 expected; 9 % with a binomial tail below 1e-3


def test_power_computation_holds_on_simulated_runs():
    effect = Effect(value=-1.5, error=1.0, low=-4, high=1, p_value=0.2, freedom=30)
    more = seeds_more(effect, (2, 2))
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(300):
        others = [run for at in range(6) for run in runs(f"o{at}", rng.normal(0, 1, 6), 100 * at)]
        a, b = rng.normal(0, 1, 2 + more), rng.normal(-1.5, 1, 2 + more)
        both = fit([*others, *runs("a", a, 900), *runs("b", b, 950)]).effect("a", "b")
        found += both.p_value < 0.05
    assert 0.72 <= found / 300 <= 0.93
    small = Effect(value=-1e-4, error=1, low=-2, high=2, p_value=1, freedom=9)
    assert seeds_more(small, (2, 2)) is None


def judged(accept, scores, base):
    """The decision after each run of a candidate, and how many it took."""
    for count in range(1, len(scores) + 1):
        model = fit([*runs("base", base), *runs("candidate", scores[:count])])
        decision = decide(accept, model, "base", "candidate", count)
        if decision is not Decision.MORE:
            return decision, count
    return decision, count


def test_a_clear_loser_ends_after_one_run_and_a_clear_winner_is_kept():
    base = list(np.random.default_rng(0).normal(0, 1, 8))
    assert judged(Accept(), [4.0], base) == (Decision.DROP, 1)
    assert judged(Accept(), [base[0]], base) == (Decision.DROP, 1)  # the training is as it was
    decision, count = judged(Accept(), [-6.0, -6.2, -5.9, -6.1], base)
    assert decision is Decision.KEEP
    assert count <= 4
    assert judged(Accept(most_seeds=2), [-1.5, -1.4], base) == (Decision.DROP, 2)


def test_a_candidate_without_effect_is_seldom_kept():
    rng = np.random.default_rng(3)
    kept = greedy = 0
    for _ in range(300):
        base, scores = rng.normal(0, 1, 8), rng.normal(0, 1, 8)
        kept += judged(Accept(), scores, base)[0] is Decision.KEEP
        greedy += judged(Accept(rule=Rule.GREEDY), scores, base)[0] is Decision.KEEP
    assert kept <= 4  # 0.6 expected
    assert greedy >= 100


def test_no_rule_decides_nothing():
    model = fit([*runs("a", A), *runs("b", B)])
    assert decide(Accept(rule=Rule.NONE), model, "a", "b", 3) is Decision.OPEN
