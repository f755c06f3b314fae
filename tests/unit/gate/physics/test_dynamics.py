from __future__ import annotations

import pytest

from pgolf_sweep.gate.physics.dynamics import warmup_fraction, weight_drift


def run(*, steps=5000.0, rate=0.02, decay=0.0, momentum=0.95, warmdown=0.0):
    def scale(step):
        return min(1.0, (steps - step) / warmdown) if warmdown else 1.0

    return weight_drift(
        steps=steps,
        decay=decay,
        rate=lambda step: rate * scale(step),
        momentum=lambda _step: momentum,
    )


def test_without_decay_the_variance_grows_with_the_square_of_the_rate_and_the_steps():
    assert run(rate=0.04).grown == pytest.approx(4 * run().grown)
    assert run(steps=10_000).grown == pytest.approx(2 * run().grown)
    assert run().kept == 1


def test_with_decay_it_settles_where_growth_and_decay_balance():
    settled = run(steps=100_000, decay=0.1)
    tau = 2.7 * (1.95 / 0.05) ** 0.75
    assert settled.grown == pytest.approx(0.02 * tau / (2 * 0.1), rel=1e-3)
    assert settled.uniform == pytest.approx(0, abs=1e-6)


def test_a_warmdown_leaves_less_than_a_constant_rate():
    assert run(warmdown=3000).grown < run().grown


def test_a_run_that_has_not_begun_is_its_uniform_start():
    start = run(steps=0.0)
    assert start.uniform == 1
    assert start.variance(512, 1 / (3 * 512)) == pytest.approx(1 / (3 * 512))
    assert warmup_fraction(0) == 1
    assert warmup_fraction(10_000) == 0


def test_even_absurd_rates_stay_finite():
    for decay in (0.0, 1e6):
        moved = run(rate=1e3, decay=decay, momentum=1.0)
        assert 0 <= moved.uniform <= 1
