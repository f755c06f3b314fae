"""What a sampler is told of trials: their values, and what may go on from them more cheaply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.intp]

STATE = "gp"
"""System attribute of a trial that this sampler proposed."""

BELOW = "below"
"""In that attribute: how many rungs below the objective the trial is to run."""

CLIP = 4.0
"""Values worse than the median by this many times the distance to the best are clipped there."""
CLIP_DIVERGED = 2.0
"""The same where trials diverge."""
DIVERGED_SHARE = 0.1
"""Share of values beyond the clip from which on trials are said to diverge."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a finished trial says of the objective.

    Attributes:
        value: The objective; less is better.
        variance: Variance of the value beside the objective's own noise.
        feasible: Whether it is within the limit, as measured.
        below: How many rungs below the objective it was measured.
    """

    value: float
    variance: float = 0.0
    feasible: bool = True
    below: int = 0


class Reuse(Protocol):
    """Trials whose expensive part others may go on from, at a fraction of the cost."""

    @property
    def names(self) -> Collection[str]:
        """Parameters that change only what comes after that part."""

    @property
    def numbers(self) -> Collection[int]:
        """Finished trials of which it was kept."""

    @property
    def share(self) -> float:
        """Cost of going on, as a share of a whole trial's; one where cost does not count."""


class Fidelity(Protocol):
    """Cheaper rungs on which a trial may run, whose value resembles the objective."""

    @property
    def depth(self) -> int:
        """How many there are below the objective."""

    def below(self, trial: FrozenTrial) -> int:
        """On which of them a trial runs; 0: on none."""

    def costs(self, trials: Sequence[FrozenTrial]) -> Sequence[float]:
        """What a trial costs on each, from the objective's own on down."""

    @property
    def ending(self) -> bool:
        """Whether only trials of the objective itself are worth their cost from now on."""


def completed(trial: FrozenTrial) -> Observation | None:
    """What a trial says by itself: its value if it has one."""
    if trial.state is not TrialState.COMPLETE or trial.value is None:
        return None
    return Observation(trial.value, feasible=all(v <= 0 for v in trial.constraints.values()))


def clipped(values: Floats) -> Floats:
    """Values without those that are too bad to matter by how much."""
    middle, least = float(np.median(values)), float(values.min())
    for factor in (CLIP, CLIP_DIVERGED):
        most = middle + factor * (middle - least)
        if np.mean(values > most) < DIVERGED_SHARE:
            break
    return np.minimum(values, most)
