from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf_sweep.gate.physics.entropy import (
    ScaleRule,
    mse_clip,
    rounded_gaussian_bits,
    row_maxima,
    top_level,
    weight_bits,
    widest_bits,
)


def measured_bits(rule: ScaleRule, bits: int, row_length: int, parameter: float) -> float:
    """Entropy of the levels of real quantized rows."""
    rows = np.random.default_rng(0).standard_normal((400_000 // row_length, row_length))
    top = top_level(bits)
    match rule:
        case ScaleRule.ROWMAX:
            clip = np.abs(rows).max(1, keepdims=True)
        case ScaleRule.PERCENTILE:
            clip = np.quantile(np.abs(rows), parameter / 100, axis=1, keepdims=True)
        case ScaleRule.SDCLIP:
            clip = parameter * rows.std(1, keepdims=True)
        case ScaleRule.MSE:
            clip = np.minimum(np.abs(rows).max(1, keepdims=True), mse_clip(bits))
    levels = np.clip(np.round(rows / (clip / top)), -top, top)
    counts = np.unique(levels, return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize(
    ("rule", "parameter"),
    [
        (ScaleRule.ROWMAX, 0.0),
        (ScaleRule.PERCENTILE, 99.99984),
        (ScaleRule.PERCENTILE, 98.0),
        (ScaleRule.SDCLIP, 2.5),
        (ScaleRule.SDCLIP, 12.85),
        (ScaleRule.MSE, 0.0),
    ],
)
@pytest.mark.parametrize("row_length", [128, 1024])
def test_entropy_is_that_of_real_quantized_rows(rule, parameter, row_length):
    for bits in (3, 4, 5, 6, 8):
        predicted = weight_bits(rule, bits, row_length, parameter)
        assert predicted == pytest.approx(
            measured_bits(rule, bits, row_length, parameter), rel=0.01
        )


def test_fine_steps_reach_the_closed_form():
    assert rounded_gaussian_bits(20.0, 10_000) == pytest.approx(2.0471 + np.log2(20.0), abs=1e-3)


def test_expected_row_maximum_is_the_published_one():
    measured = {256: 3.05, 512: 3.24, 1024: 3.44, 2048: 3.63}
    for row_length, expected in measured.items():
        assert row_maxima(row_length, 0.0).mean() == pytest.approx(expected, abs=0.015)


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(list(ScaleRule)),
    row_length=st.integers(2, 4096),
    parameter=st.floats(1.0, 40.0),
)
def test_more_bits_never_carry_less_and_never_more_than_their_levels(rule, row_length, parameter):
    if rule is ScaleRule.PERCENTILE:
        parameter = 90 + parameter / 4.01
    carried = [weight_bits(rule, bits, row_length, parameter) for bits in range(1, 9)]
    # Ternary and binary codes have a step of their own, whatever the rule.
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(carried[2:]))
    assert carried[0] <= carried[1]
    for bits, value in zip(range(1, 9), carried, strict=True):
        assert 0 <= value <= widest_bits(bits) + 1e-9


def test_nothing_is_carried_without_spread():
    assert rounded_gaussian_bits(0.0, 127) == 0.0
    assert rounded_gaussian_bits(1e-6, 127) == pytest.approx(0.0)
