"""A search space as columns of numbers: each parameter on its own scale, from 0 to 1.

Two forms. *Rows* have one column for each parameter, in [0, 1]: what is drawn, moved and decoded.
*Inputs* have the columns that a model sees: logarithms straightened, lists of numbers by rank,
categories as one column each, parameters that do not exist at the middle of their range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]

CATEGORY_SCALE = math.sqrt(0.5)
"""Two categories are then as far from each other as the two ends of a range."""

MOST_LEVELS = 10_000
"""Integers that are more than this are treated as continuous."""

STEPS = (0.03, 0.1, 0.25)
"""Standard deviations of a move, as shares of the range."""

CATEGORY_MOVES = 0.2
"""Probability that a move redraws a category."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter.

    Attributes:
        name: Its name.
        distribution: What Optuna draws it from.
        levels: Distinct values, in the order of the axis; 0 for a continuous parameter.
        ordered: Whether levels that are neighbours resemble each other.
        when: Levels of other parameters, by their place, under which it exists.
    """

    name: str
    distribution: BaseDistribution
    levels: int
    ordered: bool
    when: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @property
    def width(self) -> int:
        """Columns of a model's inputs."""
        return 1 if self.ordered or self.levels == 2 else self.levels

    def encode(self, value: Any) -> float:
        """A value's place in [0, 1]."""
        at: Any = self.distribution
        if isinstance(at, CategoricalDistribution):
            return (_ranks(at).index(at.choices.index(value)) + 0.5) / self.levels
        if self.levels:
            return float((round((value - at.low) / (at.step or 1)) + 0.5) / self.levels)
        low, high, value = _ends(at, value)
        return float(min(max((value - low) / (high - low), 0.0), 1.0))

    def decode(self, place: float) -> Any:
        """The value at a place in [0, 1]."""
        at: Any = self.distribution
        if self.levels:
            index = min(int(place * self.levels), self.levels - 1)
            if isinstance(at, CategoricalDistribution):
                return at.choices[_ranks(at)[index]]
            value = at.low + index * (at.step or 1)
            return int(value) if isinstance(at, IntDistribution) else float(value)
        low, high, _ = _ends(at, 1.0)
        value = low + place * (high - low)
        value = math.exp(value) if at.log else value
        if isinstance(at, IntDistribution):
            return min(max(round(value), at.low), at.high)
        return min(max(value, at.low), at.high)


def _ends(at: Any, value: float) -> tuple[float, float, float]:
    """Both ends of a continuous distribution and a value, on its scale."""
    low, high = at.low, at.high
    if isinstance(at, IntDistribution) and at.log:
        low, high = low - 0.5, high + 0.5  # the ends keep their share
    return (math.log(low), math.log(high), math.log(value)) if at.log else (low, high, value)


def _ranks(at: CategoricalDistribution) -> list[int]:
    """Places of the choices along the axis: numbers by size, others as they are listed."""
    if _is_numeric(at):
        return sorted(range(len(at.choices)), key=lambda i: float(at.choices[i] or 0))
    return list(range(len(at.choices)))


def _is_numeric(at: CategoricalDistribution) -> bool:
    return all(type(choice) in {int, float} for choice in at.choices)


class Encoding:
    """The columns of a search space.

    Args:
        space: Every parameter that may be asked for, those first on which others depend. A
            parameter of one value has no column.
        when: For a parameter that exists only under a condition: values of others, all of which
            must hold. Parents that are continuous cannot be told apart and are left aside.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        when: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
    ) -> None:
        self.dimensions: list[Dimension] = []
        self._at: dict[str, int] = {}
        for name, distribution in space.items():
            if distribution.single():
                continue
            conditions = self._conditions((when or {}).get(name, {}))
            self._at[name] = len(self.dimensions)
            self.dimensions.append(_dimension(name, distribution, conditions))
        self.starts = np.cumsum([0, *(d.width for d in self.dimensions)])
        self.width = int(self.starts[-1])
        """Columns of a model's inputs."""
        self.levels = np.array([d.levels for d in self.dimensions])
        self.ordered = np.array([d.ordered for d in self.dimensions], dtype=bool)

    def _conditions(
        self, when: Mapping[str, Sequence[Any]]
    ) -> tuple[tuple[int, tuple[int, ...]], ...]:
        found = []
        for parent, allowed in when.items():
            at = self._at.get(parent)
            if at is None or not self.dimensions[at].levels:
                continue
            dimension = self.dimensions[at]
            levels = {int(dimension.encode(value) * dimension.levels) for value in allowed}
            found.append((at, tuple(sorted(levels))))
        return tuple(found)

    def __len__(self) -> int:
        """Number of parameters that vary."""
        return len(self.dimensions)

    # -- rows -----------------------------------------------------------------------------------

    def row(self, values: Mapping[str, Any]) -> Floats:
        """A configuration as a row; what it leaves out is in the middle.

        Raises:
            ValueError: A value is not one of its distribution's.
        """
        row = np.full(len(self), 0.5)
        for at, dimension in enumerate(self.dimensions):
            if dimension.name in values:
                row[at] = dimension.encode(values[dimension.name])
        return row

    def values(self, row: Floats) -> dict[str, Any]:
        """The configuration of a row, without the parameters that do not exist in it."""
        active = self.active(row[None, :])[0]
        return {
            dimension.name: dimension.decode(float(place))
            for dimension, place, exists in zip(self.dimensions, row, active, strict=True)
            if exists
        }

    def snapped(self, rows: Floats) -> Floats:
        """Rows with levels at their middle; (n, parameters) in, the same out."""
        rows = np.clip(rows, 0.0, 1.0)
        counts = np.maximum(self.levels, 1)
        middle = (np.minimum(np.floor(rows * counts), counts - 1) + 0.5) / counts
        return np.where(self.levels > 0, middle, rows)

    def active(self, rows: Floats) -> Bools:
        """Which parameters exist in which row, (n, parameters)."""
        found = np.ones(rows.shape, dtype=bool)
        for at, dimension in enumerate(self.dimensions):
            for parent, levels in dimension.when:
                count = self.levels[parent]
                level = np.minimum((rows[:, parent] * count).astype(int), count - 1)
                found[:, at] &= np.isin(level, levels) & found[:, parent]
        return found

    def moved(self, rows: Floats, rng: np.random.Generator) -> Floats:
        """Neighbours: each row with a few of its parameters changed, at least one.

        An ordered parameter moves by a normal step or by one level; a category is redrawn.
        """
        count, width = rows.shape
        free = self.active(rows)
        share = max(0.15, min(1.0, 2 / max(1, width)))
        chosen = (rng.random((count, width)) < share) & free
        forced = np.argmax(np.where(free, rng.random((count, width)), -1.0), axis=1)
        chosen[np.arange(count), forced] = True
        steps = rng.choice(STEPS, size=(count, 1)) * rng.standard_normal((count, width))
        counts = np.maximum(self.levels, 1)
        hops = rng.choice((-1.0, 1.0), size=(count, width)) / counts
        change = np.where((self.levels > 0) & (np.abs(steps) < 1 / counts), hops, steps)
        ordered = _reflected(rows + change)
        redrawn = np.where(
            rng.random((count, width)) < CATEGORY_MOVES, rng.random((count, width)), rows
        )
        target = np.where(self.ordered, ordered, redrawn)
        return self.snapped(np.where(chosen, target, rows))

    def nudged(self, rows: Floats, sd: float, rng: np.random.Generator) -> Floats:
        """Rows with their continuous parameters moved a little."""
        change = sd * rng.standard_normal(rows.shape)
        return np.where(self.levels > 0, rows, _reflected(rows + change))

    # -- inputs ---------------------------------------------------------------------------------

    def inputs(self, rows: Floats) -> Floats:
        """What a model sees of rows: (n, parameters) in, (n, `width`) out."""
        found = np.empty((len(rows), self.width))
        active = self.active(rows)
        for at, dimension in enumerate(self.dimensions):
            start = self.starts[at]
            if dimension.width == 1:
                found[:, start] = np.where(active[:, at], rows[:, at], 0.5)
                continue
            level = np.minimum((rows[:, at] * dimension.levels).astype(int), dimension.levels - 1)
            one_hot = CATEGORY_SCALE * (level[:, None] == np.arange(dimension.levels))
            found[:, start : start + dimension.width] = np.where(active[:, at, None], one_hot, 0.0)
        return found


def _dimension(
    name: str, at: BaseDistribution, when: tuple[tuple[int, tuple[int, ...]], ...]
) -> Dimension:
    if isinstance(at, CategoricalDistribution):
        return Dimension(name, at, len(at.choices), _is_numeric(at), when)
    assert isinstance(at, FloatDistribution | IntDistribution)  # noqa: S101 - Optuna has no others
    levels = 0
    if at.step is not None and not at.log:
        levels = round((at.high - at.low) / at.step) + 1
    return Dimension(name, at, levels if levels <= MOST_LEVELS else 0, ordered=True, when=when)


def _reflected(rows: Floats) -> Floats:
    """Rows with what left [0, 1] folded back."""
    folded = np.abs(rows) % 2
    return np.where(folded > 1, 2 - folded, folded)
