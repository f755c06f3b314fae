"""A prior mean: followed where it is right, left where it is not."""

from __future__ import annotations

import numpy as np

from pgolf_sweep.search.gp.prior import PriorMean, Shifted
from pgolf_sweep.search.gp.surrogate import Surrogate


def bowl(x: np.ndarray) -> np.ndarray:
    return ((x - 0.7) ** 2).sum(1)


def related() -> PriorMean:
    x = np.random.default_rng(0).random((40, 3))
    return PriorMean(x, bowl(x) + 5.0, noise=0.001)


def test_an_objective_that_moves_with_the_earlier_one_is_known_from_few_values() -> None:
    mean = related()
    x = np.random.default_rng(1).random((6, 3))
    values = 1.1 * bowl(x) + 2.0
    slope = mean.slope(x, values)
    assert 0.9 < slope < 1.2
    model = Surrogate(x, values - slope * mean(x), noise=0.001)
    model.condition(model.fit([model.prior.means]))
    alone = Surrogate(x, values, noise=0.001)
    alone.condition(alone.fit([alone.prior.means]))
    there = np.random.default_rng(2).random((200, 3))
    truth = 1.1 * bowl(there) + 2.0
    error = np.abs(Shifted(model, mean, slope).posterior(there)[0] - truth).mean()
    assert error < 0.5 * np.abs(alone.posterior(there)[0] - truth).mean()


def test_an_objective_that_does_not_is_not_held_to_it() -> None:
    mean = related()
    x = np.random.default_rng(3).random((60, 3))
    assert mean.slope(x, np.sin(9 * x[:, 0])) < 0.4
    assert mean.slope(x, -bowl(x)) == 0.0
    assert 0.5 < mean.slope(x[:1], bowl(x[:1])) <= 1.0, "one value says nothing"
