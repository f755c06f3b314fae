"""What a trial that is under way will score: a Gaussian process over what curves still gain.

Trials that completed tell, at the same fraction of the schedule, what lay between the validation
there and the final score: the rest of the training, and what the export cost. Both depend on the
knobs (a high rate has the warmdown's gain still ahead, few bits cost at the end), so that the model
is one over the knobs. A forecast comes with its standard deviation, the seed's noise counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.gp.surrogate import Surrogate
from pgolf_sweep.search.proposing import conditions, distributions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.space.space import Space

    Floats: TypeAlias = NDArray[np.float64]

LEAST = 8
"""Completed trials below which nothing is forecast."""

MOST = 100
"""Completed trials, the newest, that are looked at."""

ITERATIONS = 15


class Forecast:
    """Forecasts the trials of one study.

    Args:
        space: Of the sweep.
        noise: Standard deviation of a score between seeds; None where it is unknown.
    """

    def __init__(self, space: Space, noise: float | None) -> None:
        self._noise = noise
        self._space = space
        self._encoding = Encoding(distributions(space), conditions(space))
        self._theta: Floats | None = None

    def row(self, knobs: Mapping[str, KnobValue]) -> Floats | None:
        """A trial's inputs; None where it lies outside the space."""
        own: dict[str, KnobValue] = {}
        for parameter in self._space.ordered():
            if parameter.name in knobs and parameter.searched:
                own[parameter.name] = knobs[parameter.name]
        try:
            row = self._encoding.row(self._space.encode(own))
        except (InputError, KeyError, ValueError):
            return None
        inputs: Floats = self._encoding.inputs(row[None, :])[0]
        return inputs

    def final(
        self, row: Floats, value: float, known: Sequence[tuple[Floats, float, float]]
    ) -> tuple[float, float] | None:
        """Mean and standard deviation of a final score; None where too little is known.

        Args:
            row: Inputs of the trial.
            value: Its validation.
            known: Inputs of completed trials, their validation at the same fraction, their final
                score; oldest first.
        """
        if len(known) < LEAST:
            return None
        known = known[-MOST:]
        x = np.array([one for one, _, _ in known])
        gains = np.array([final - there for _, there, final in known])
        model = Surrogate(x, gains, noise=self._noise)
        starts = [model.prior.means] if self._theta is None else [self._theta]
        self._theta = model.fit(starts, ITERATIONS)
        model.condition(self._theta)
        mean, sd = model.posterior(row[None, :])
        return value + float(mean[0]), math.hypot(float(sd[0]), model.noise)
