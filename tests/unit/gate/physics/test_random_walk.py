"""The variance that a run leaves equals that of simulated runs, and what is known on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgolf_sweep.gate.physics.random_walk import (
    OPPOSITION,
    SINGULAR_SQUARE,
    Average,
    TrainingRun,
    adam_variance,
    muon_random_walk,
)

PLAIN = TrainingRun(
    steps=400,
    rate=0.02,
    warmdown=0,
    decay=0.0,
    momentum=0.0,
    momentum_start=0.0,
    momentum_warmup=0,
)
FULL = TrainingRun(
    steps=300,
    rate=0.02,
    warmdown=120,
    decay=2.0,
    momentum=0.95,
    momentum_start=0.7,
    momentum_warmup=60,
    average=Average.EXPONENTIAL,
    average_steps=40,
)


def grown(run: TrainingRun) -> float:
    return muon_random_walk(run).grown / (SINGULAR_SQUARE * OPPOSITION)


def simulated(run: TrainingRun, walks: int = 6000) -> float:
    """Variance of weights under white gradients, each update divided by its known length."""
    rng = np.random.default_rng(0)
    weight, summed, average = np.zeros(walks), np.zeros(walks), np.zeros(walks)
    variance = 0.0
    rates, momenta, weights = run.rates(), run.momenta(), run.weights()
    for step in range(run.steps):
        beta, rate = momenta[step], rates[step]
        gradient = rng.standard_normal(walks)
        summed = beta * summed + gradient
        variance = beta * beta * variance + 1
        length = np.sqrt(1 + 2 * beta + beta * beta * variance)
        weight = weight * (1 - rate * run.decay) - rate * (gradient + beta * summed) / length
        average += weights[step] * weight
    return float(average.var())


@pytest.mark.parametrize(
    "run", [FULL, replace(FULL, average=Average.UNIFORM), replace(FULL, average=Average.NONE)]
)
def test_the_filter_is_what_simulated_runs_do(run):
    assert grown(run) == pytest.approx(simulated(run), rel=0.08)


def test_without_momentum_and_decay_variance_is_steps_times_the_squared_rate():
    assert grown(PLAIN) == pytest.approx(400 * 0.02**2)
    assert muon_random_walk(PLAIN).kept == 1.0
    assert adam_variance(PLAIN) == pytest.approx(400 * 0.02**2)


def test_under_decay_the_start_is_forgotten_and_more_decay_leaves_less():
    weak, strong = (muon_random_walk(replace(FULL, decay=decay)) for decay in (0.5, 5.0))
    assert strong.grown < weak.grown
    assert strong.kept < weak.kept < 1
    assert weak.variance(1024, 0.1) < weak.variance(512, 0.1)


def test_an_average_of_a_free_walk_varies_less_than_its_end():
    whole = replace(PLAIN, average=Average.UNIFORM, average_steps=200)
    assert grown(whole) < grown(PLAIN)


def test_longer_momentum_carries_further():
    assert grown(replace(PLAIN, momentum=0.95)) > 5 * grown(PLAIN)
    held = replace(PLAIN, momentum=0.95, momentum_warmup=300)
    assert grown(held) < grown(replace(PLAIN, momentum=0.95))
