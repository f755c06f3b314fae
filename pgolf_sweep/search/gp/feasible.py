"""What may be proposed: a known limit as a function of the configuration, asked sparingly.

Whoever knows the limit (`Judge`) may take milliseconds for a configuration, or a second where it
has to build something. So a quadratic regression of the logarithm of size over limit looks at all
candidates, and the judge at those that would be proposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

LEAST_PROBABILITY = 0.98
"""What fits less likely is not proposed: at .9 a slot in forty held what did not fit."""
LAST_RESORT = 0.9
"""The same where nothing else is found."""

NEAR_LIMIT = 0.2
"""Logarithm of size over limit within which the regression is to be accurate."""

RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of one configuration beforehand.

    Attributes:
        fit_probability: That it is within the limit; 0 where it cannot be tried at all.
        log_excess: ln(expected size / limit); None where the size is unknown.
        log_scale: ln of a size that the objective follows, such as a model's parameters; None
            where there is none.
    """

    fit_probability: float
    log_excess: float | None = None
    log_scale: float | None = None


class Judge(Protocol):
    """Knows the limit."""

    def __call__(self, values: Mapping[str, Any], /) -> Judged:
        """What is known of a configuration, by the names of the search space."""


class Quadratic:
    """A quadratic regression over the columns of a model's inputs.

    Args:
        x: Inputs, (n, inputs).
        y: Values, (n,).
        weights: How much each counts, (n,).
    """

    def __init__(self, x: Floats, y: Floats, weights: Floats) -> None:
        self._centre = float(np.average(y, weights=weights))
        terms = _terms(x)
        weighted = terms * weights[:, None]
        gram = terms.T @ weighted
        gram[np.diag_indices_from(gram)] += RIDGE * weights.sum()
        self._coefficients = np.linalg.solve(gram, weighted.T @ (y - self._centre))
        self.error = math.sqrt(float(np.average((self(x) - y) ** 2, weights=weights)))
        """Root mean squared error of the values that it was made from."""

    def __call__(self, x: Floats) -> Floats:
        """Values at inputs, (n,)."""
        found: Floats = self._centre + _terms(x) @ self._coefficients
        return found


def _terms(x: Floats) -> Floats:
    centred = x - 0.5
    first, second = np.triu_indices(x.shape[1])
    return np.hstack([np.ones((len(x), 1)), centred, centred[:, first] * centred[:, second]])


class Limit:
    """The judge's knowledge as functions of many inputs at once.

    Args:
        x: Inputs that the judge was asked about, (n, inputs).
        judged: Its answers.
    """

    def __init__(self, x: Floats, judged: Sequence[Judged]) -> None:
        sized = [i for i, one in enumerate(judged) if one.log_excess is not None]
        self.excess: Quadratic | None = None
        self.scale: Quadratic | None = None
        self._scales = (0.0, 1.0)
        excess = np.array([judged[i].log_excess or 0.0 for i in sized])
        if len(sized) > 2:
            weights = 0.05 + 1 / (1 + (excess / NEAR_LIMIT) ** 2)
            self.excess = Quadratic(x[sized], excess, weights)
        scaled = [i for i in sized if judged[i].log_scale is not None]
        scales = np.array([judged[i].log_scale or 0.0 for i in scaled])
        if len(scaled) > 2 and np.ptp(scales) > 1e-3:
            self.scale = Quadratic(x[scaled], scales, np.ones(len(scaled)))
            predicted = self.scale(x[scaled])
            self._scales = (float(predicted.min()), float(np.ptp(predicted)))

    @property
    def columns(self) -> int:
        """Inputs that are derived."""
        return int(self.scale is not None)

    def derived(self, x: Floats) -> Floats:
        """Inputs that follow from the others, (n, `columns`), about within [0, 1]."""
        if self.scale is None:
            return np.empty((len(x), 0))
        low, width = self._scales
        return ((self.scale(x) - low) / width)[:, None]
