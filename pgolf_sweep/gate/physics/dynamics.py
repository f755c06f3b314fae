"""Drift of the weights during training, from where they started.

Under Muon every step moves a matrix of n columns by rows of length one times the rate, so the
variance v of a weight follows (eta rate, lambda decay, tau the steps over which successive updates
agree)::

    dv/dt = eta^2 tau / n - 2 eta lambda v,   tau = 2.7 ((1 + beta) / (1 - beta))^0.75

Source: measured on the contest's logs, with beta the momentum. Runs of some hundred steps agree
less than that: over trainings of 100 to 400 steps the growth came out at sqrt(T / 1600) of it
(`warmup_fraction`), which also removes the overestimate below 600 steps that those logs showed.

The equation is linear, so its solution is kept as two numbers that do not depend on n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SEGMENTS = 16
"""Pieces of a run within which rate and momentum count as constant; 400 change 0.4 % of v."""
_GROWN_UP_STEPS = 1600.0
_WIDEST_MOMENTUM = 0.9999


@dataclass(frozen=True, slots=True)
class WeightDrift:
    """What a run does to the variance of a matrix's weights.

    Attributes:
        kept: Share of the initial variance that is left.
        grown: Variance that the updates brought, times the number of columns.
    """

    kept: float
    grown: float

    def variance(self, columns: int, initial: float) -> float:
        """Of a weight in a matrix of that many columns that began with variance `initial`."""
        return initial * self.kept + self.grown / columns

    @property
    def uniform(self) -> float:
        """Share of the variance that is left of a uniform start with variance 1 / (3 n)."""
        whole = self.kept / 3 + self.grown
        return self.kept / 3 / whole if whole > 0 else 0.0


def warmup_fraction(steps: float) -> float:
    """One for a run that has just begun, zero for one whose updates have settled."""
    return 1.0 - min(1.0, math.sqrt(max(steps, 0.0) / _GROWN_UP_STEPS))


def weight_drift(
    *,
    steps: float,
    decay: float,
    rate: Callable[[float], float],
    momentum: Callable[[float], float],
) -> WeightDrift:
    """Integrate a run.

    Args:
        steps: Its number of steps.
        decay: Decoupled weight decay, times the rate a step.
        rate: Muon's rate at a step.
        momentum: Muon's momentum at a step.
    """
    kept, grown = 1.0, 0.0
    length = steps / _SEGMENTS
    for segment in range(_SEGMENTS):
        step = (segment + 0.5) * length
        eta, beta = rate(step), min(momentum(step), _WIDEST_MOMENTUM)
        source = eta * eta * 2.7 * ((1 + beta) / (1 - beta)) ** 0.75
        sink = 2 * eta * decay
        left = math.exp(-min(sink * length, 700.0))
        kept *= left
        grown = grown * left + (source * (1 - left) / sink if sink > 1e-12 else source * length)
    return WeightDrift(kept, grown * (1.0 - warmup_fraction(steps)))
