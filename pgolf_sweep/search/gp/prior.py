"""What trials of a related objective say beforehand: a prior mean, trusted as far as it is right.

The objective is modelled as ``slope * m(x) + g(x)``, with m the posterior mean of a Gaussian
process of the related values, about their mean, and g one of its own. The slope is 1 until trials
say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pgolf_sweep.search.gp.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Earlier: TypeAlias = Callable[[], Sequence[tuple[Mapping[str, Any], float]]]
    """Answers for the parameters, and values, of a related objective."""

LEAST_EARLIER = 5
"""Values below which nothing is expected of them."""

SLOPE_TRIALS = 4.0
"""Trials that the guess of a slope of 1 counts for."""

MOST_SLOPE = 1.5


class PriorMean:
    """The mean function.

    Args:
        x: Inputs of the related values, (n, inputs).
        values: They, (n,).
        noise: Standard deviation that is expected between repeats.
        rungs: As of `Surrogate`.
    """

    def __init__(
        self, x: Floats, values: Floats, *, noise: float | None, rungs: bool = False
    ) -> None:
        self._model = Surrogate(x, values, noise=noise, rungs=rungs)
        self._model.condition(self._model.fit([self._model.prior.means]))

    def __call__(self, x: Floats) -> Floats:
        """M at inputs, (n,)."""
        mean, _ = self._model.posterior(x)
        return mean - self._model.mean

    def slope(self, x: Floats, values: Floats) -> float:
        """How far the objective follows, by its values: a ridge regression about 1."""
        expected = self(x)
        expected = expected - expected.mean()
        scale = SLOPE_TRIALS * self._model.sd**2
        covered = float(expected @ (values - values.mean())) + scale
        return float(np.clip(covered / (float(expected @ expected) + scale), 0.0, MOST_SLOPE))


class Shifted:
    """A model of what a prior mean leaves over, which answers for the whole.

    Args:
        model: Of the values less `slope` times the mean.
        mean: The prior mean.
        slope: How far it is followed.
    """

    def __init__(self, model: Surrogate, mean: PriorMean, slope: float) -> None:
        self.theta = model.theta
        self.noise = model.noise
        self._model = model
        self._mean = mean
        self._slope = slope

    def posterior(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, in the values' unit; (n,) each."""
        mean, sd = self._model.posterior(x)
        return mean + self._slope * self._mean(x), sd

    def apart(self, x: Floats, point: Floats) -> Floats:
        """As of `Surrogate`."""
        return self._model.apart(x, point)

    def worth(self, x: Floats) -> Floats:
        """As of `Surrogate`."""
        return self._model.worth(x)
