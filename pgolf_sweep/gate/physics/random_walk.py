"""Drift of the weights of a run whose gradients are as good as white noise.

Weights are then a linear filter of independent gradients: momentum sums them, Muon divides by the
length of what it got, the rate scales it, decay forgets it, and an average over the last steps
blurs it. The variance of a weight is the sum of the squares of what each gradient leaves in the
weights that are stored; one pass forward finds the lengths and one backward the rest. Warm-up of
the momentum, warm-down of the rate and averages come out of it without a constant; one is left for
gradients that are not white.

`dynamics` has the short formula that our trainer's gate uses; this is exact and takes as long as
the run has steps, which a table of finished runs can afford.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

SINGULAR_SQUARE = 0.88
"""Mean square of the singular values that five Newton-Schulz steps leave of a Gaussian matrix, of
which orthogonal ones would have one; 0.82 where the values before fall as a square root.
Computed."""
OPPOSITION = 0.77
"""Share of the variance that is there though gradients are not white: a step too far is taken back
by the next. The mean of twelve of the contest's records, 0.66 to 0.85; without any one of them it
is 0.765 to 0.783."""


class Average(StrEnum):
    """Which average of the weights is stored."""

    NONE = "none"
    EXPONENTIAL = "exponential"
    """Of a decay a step."""
    UNIFORM = "uniform"
    """Of the last steps alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What a run does, step by step.

    Attributes:
        steps: Its number of steps.
        rate: The rate before the warm-down.
        warmdown: Steps over which the rate falls to zero, at the end.
        decay: Decoupled weight decay, times the rate a step.
        momentum: The momentum in the end.
        momentum_start: The momentum in the beginning.
        momentum_warmup: Steps over which it grows, linearly.
        average: Which average is stored.
        average_steps: Its length: 1 / (1 - decay), or the steps that it is taken over.
    """

    steps: int
    rate: float
    warmdown: float
    decay: float
    momentum: float
    momentum_start: float
    momentum_warmup: float
    average: Average = Average.NONE
    average_steps: float = 0.0

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        left = self.steps - step
        return self.rate * (min(1.0, left / self.warmdown) if self.warmdown > 0 else 1.0)

    def momentum_at(self, step: int) -> float:
        """The momentum of a step."""
        share = min(1.0, step / self.momentum_warmup) if self.momentum_warmup > 0 else 1.0
        return (1 - share) * self.momentum_start + share * self.momentum

    def weight_at(self, step: int) -> float:
        """Share of the weights after a step in the average that is stored."""
        behind = self.steps - 1 - step
        if self.average is Average.EXPONENTIAL:
            return math.exp(-behind / self.average_steps) / self.average_steps
        if self.average is Average.UNIFORM:
            return 1 / self.average_steps if behind < self.average_steps else 0.0
        return 1.0 if behind == 0 else 0.0


@dataclass(frozen=True, slots=True)
class RandomWalk:
    """What is left of a run in the weights that are stored.

    Attributes:
        kept: Share of the initial variance.
        grown: Variance that the updates brought, times the number of columns.
    """

    kept: float
    grown: float

    def variance(self, columns: int, initial: float) -> float:
        """Of a weight in a matrix of that many columns that began with variance `initial`."""
        return initial * self.kept + self.grown / columns


@lru_cache(maxsize=1024)
def muon_random_walk(run: TrainingRun) -> RandomWalk:
    """Under Muon: Nesterov's momentum, each update scaled to rows of length one."""
    lengths = []
    summed = 0.0  # variance of the momentum's sum, of gradients of variance one
    for step in range(run.steps):
        beta = run.momentum_at(step)
        summed = beta * beta * summed + 1
        lengths.append(math.sqrt(1 + 2 * beta + beta * beta * summed))
    stored, later, grown = 0.0, 0.0, 0.0
    for step in range(run.steps - 1, -1, -1):
        beta, rate = run.momentum_at(step), run.rate_at(step)
        stored += run.weight_at(step)
        update = rate * stored / lengths[step]
        held = beta * update + later  # what one unit in the momentum's sum ends up as
        grown += (update + held) ** 2
        later = beta * held
        stored *= 1 - rate * run.decay
    return RandomWalk(stored * stored, SINGULAR_SQUARE * OPPOSITION * grown)


@lru_cache(maxsize=1024)
def adam_variance(run: TrainingRun) -> float:
    """Variance of a weight under Adam, whose updates are gradients of size one, averaged briefly.

    The average of the gradients lasts some ten steps, so a gradient leaves what its rate says.
    """
    stored, grown = 0.0, 0.0
    for step in range(run.steps - 1, -1, -1):
        rate = run.rate_at(step)
        stored += run.weight_at(step)
        grown += (rate * stored) ** 2
        stored *= 1 - rate * run.decay
    return grown
