"""Forecasts of final scores, and the rule that goes by them."""

from __future__ import annotations

import math
import random

import pytest

from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.config.types import EarlyTerminate
from pgolf_sweep.search.forecast import LEAST, Forecast
from pgolf_sweep.search.halving import Curve, Pruner

SWEEP = """
method: bayes
parameters:
  MATRIX_LR: {distribution: log_uniform_values, min: 0.005, max: 0.08}
  WEIGHT_DECAY: {min: 0.0, max: 0.2}
  MATRIX_BITS: {values: [4, 6, 8]}
  SEED: {value: 1}
"""
RULE = EarlyTerminate(kind="forecast")
LOSS = {4: 0.04, 6: 0.01, 8: 0.0}


@pytest.fixture
def forecast(tmp_path) -> Forecast:
    return Forecast(parse_spec(SWEEP, tmp_path / "s.yaml").space, 0.0007)


def knobs_of(rate: float, bits: int, decay: float = 0.1) -> dict:
    return {"MATRIX_LR": rate, "WEIGHT_DECAY": decay, "MATRIX_BITS": bits, "SEED": 1}


def final_of(knobs: dict) -> float:
    """The best rate is a high one; bits cost at the export."""
    return 1.0 + 0.02 * math.log(knobs["MATRIX_LR"] / 0.05) ** 2 + LOSS[knobs["MATRIX_BITS"]]


def value_at(knobs: dict, at: float) -> float:
    """Before the export; a high rate's gain comes with the warmdown."""
    before = final_of(knobs) - LOSS[knobs["MATRIX_BITS"]]
    return before + (1 - at) * (0.05 + 3.0 * knobs["MATRIX_LR"])


def curve(number: int, knobs: dict, forecast: Forecast, *, upto: float = 1.0) -> Curve:
    points = [(at / 12, value_at(knobs, at / 12)) for at in range(1, 13) if at / 12 <= upto + 1e-9]
    whole = upto == 1.0
    final = final_of(knobs) if whole else None
    return Curve(number, points, final=final, settled=whole, row=forecast.row(knobs))


def filled(forecast: Forecast, count: int = 24) -> Pruner:
    pruner = Pruner(RULE, forecast)
    rng = random.Random(0)
    for number in range(count):
        rate = 0.005 * 16 ** rng.random()
        drawn = knobs_of(rate, rng.choice([4, 6, 8]), 0.2 * rng.random())
        pruner.follow(curve(number, drawn, forecast))
    return pruner


def is_stopped(pruner: Pruner, number: int, knobs: dict, forecast: Forecast) -> bool:
    pruner.follow(curve(number, knobs, forecast, upto=0.5))
    return pruner.judge(number) is not None


def test_a_final_score_is_known_from_half_a_curve(forecast):
    pruner = filled(forecast)
    knobs = knobs_of(0.05, 4)
    pruner.follow(curve(50, knobs_of(0.007, 4), forecast, upto=0.5))
    judgement = pruner.judge(50)
    assert judgement is not None
    assert judgement.expected == pytest.approx(final_of(knobs_of(0.007, 4)), abs=0.01)
    assert is_stopped(pruner, 51, knobs, forecast), "at four bits it ends behind"


def test_one_that_looks_bad_early_and_ends_best_goes_on(forecast):
    pruner = filled(forecast)
    best, early = knobs_of(0.05, 8), knobs_of(0.012, 8)
    assert value_at(best, 0.5) > value_at(early, 0.5), "it looks worse half-way"
    assert not is_stopped(pruner, 50, best, forecast)
    assert is_stopped(pruner, 51, early, forecast)


def test_nothing_is_stopped_before_enough_have_completed(forecast):
    pruner = filled(forecast, LEAST - 1)
    assert not is_stopped(pruner, 50, knobs_of(0.006, 4), forecast)


def test_what_is_over_the_cap_is_no_best_to_be_held_to(forecast):
    pruner = filled(forecast)
    winner = curve(40, knobs_of(0.05, 8), forecast)
    winner.final = 0.2
    winner.fits = False
    pruner.follow(winner)
    assert not is_stopped(pruner, 50, knobs_of(0.051, 8), forecast)


def test_a_trial_outside_the_space_goes_on(forecast):
    assert forecast.row({"MATRIX_LR": 0.5, "WEIGHT_DECAY": 0.1, "MATRIX_BITS": 8}) is None
    pruner = filled(forecast)
    pruner.follow(Curve(60, [(0.5, 9.0)], row=None))
    assert pruner.judge(60) is None
