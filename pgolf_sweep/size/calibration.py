"""What finished trials teach the gate: how far its predictions were off, and how sure it may be.

The error of a prediction, in units that the gate chooses, is modelled as a tree of Gaussians::

    error = program + family + configuration + seed

each level with a spread of its own. A family shares what decides the physics (codec, scale rule,
bits by group), a configuration shares every knob but the seed. What was measured at one node of
the tree moves its parents, and through them its cousins, in proportion to how much was measured
and how alike such nodes have proven to be. The spreads start from a prior and are pulled to what
is seen. All of it is closed form and cheap: sums are kept per node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PRIOR_WEIGHT = 8.0
"""How many observations the prior of a spread counts for."""
_SMALLEST_SD = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Prior standard deviations of the error, one for each level of the tree.

    Attributes:
        program: Our physics against the world, before anything was measured.
        family: Between families of one program.
        configuration: Between configurations of one family.
        seed: Between seeds of one configuration.
    """

    program: float = 0.6
    family: float = 0.35
    configuration: float = 0.6
    seed: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What calibration says of one configuration's error: a Student t distribution.

    Attributes:
        mean: The error to expect.
        sd: Scale of what remains unknown, the seed's part included.
        dof: Degrees of freedom: how well `sd` itself is known.
        trials: Finished trials of this very configuration.
        relatives: Finished trials of its family.
    """

    mean: float
    sd: float
    dof: float
    trials: int
    relatives: int

    def quantile(self, p: float) -> float:
        """Quantile of the error."""
        return self.mean + self.sd * student_quantile(p, self.dof)


def student_quantile(p: float, dof: float) -> float:
    """Quantile of Student's t by the Cornish-Fisher expansion; good to 1 % from 4 degrees on.

    Source: Abramowitz and Stegun, 26.7.5.
    """
    z = NormalDist().inv_cdf(p)
    z3, z5, z7 = z**3, z**5, z**7
    return (
        z
        + (z3 + z) / (4 * dof)
        + (5 * z5 + 16 * z3 + 3 * z) / (96 * dof**2)
        + (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * dof**3)
    )


@dataclass(frozen=True, slots=True)
class _Belief:
    """A Gaussian as precision and precision times mean; zero precision knows nothing."""

    precision: float = 0.0
    weighted: float = 0.0

    def __add__(self, other: _Belief) -> _Belief:
        return _Belief(self.precision + other.precision, self.weighted + other.weighted)

    def __sub__(self, other: _Belief) -> _Belief:
        precision = self.precision - other.precision
        if precision <= 1e-9 * self.precision:  # all that was known came from `other`
            return _Belief()
        return _Belief(precision, self.weighted - other.weighted)

    def blurred(self, variance: float) -> _Belief:
        """The same through a link that adds `variance`."""
        if self.precision == 0:
            return self
        factor = 1 / (1 + self.precision * variance)
        return _Belief(self.precision * factor, self.weighted * factor)

    @property
    def mean(self) -> float:
        return self.weighted / self.precision if self.precision else 0.0


@dataclass(slots=True)
class _Family:
    errors: dict[str, list[float]] = field(default_factory=dict)
    belief: _Belief = field(default_factory=_Belief)

    def trials(self) -> int:
        return sum(len(values) for values in self.errors.values())


class Calibration:
    """Errors of finished trials, and what they say of the next.

    Not thread-safe; the driver that asks the gate is the one that teaches it.
    """

    def __init__(self, spread: Spread | None = None) -> None:
        spread = spread or Spread()
        self._prior = spread
        self._spread = spread
        self._families: dict[str, _Family] = {}
        self._root = _Belief()
        self._bytes: dict[str, list[int]] = {}
        self._known = dict.fromkeys(("program", "family", "configuration", "seed"), _PRIOR_WEIGHT)

    @property
    def trials(self) -> int:
        """Finished trials learnt from."""
        predicted = sum(family.trials() for family in self._families.values())
        return predicted + sum(len(measured) for measured in self._bytes.values())

    def learn(self, family: str, configuration: str, error: float) -> None:
        """Take in one finished trial.

        Args:
            family: Key of what decides the physics.
            configuration: Key of every knob but the seed.
            error: Measured less predicted, in the gate's units; what is not finite is ignored.
        """
        if not math.isfinite(error):
            return
        node = self._families.setdefault(family, _Family())
        node.errors.setdefault(configuration, []).append(error)
        self._refit()

    def learn_bytes(self, configuration: str, model_bytes: int) -> None:
        """Take in one finished trial of a program whose size nobody predicts."""
        self._bytes.setdefault(configuration, []).append(model_bytes)

    def measured_bytes(self, configuration: str) -> list[int]:
        """What `learn_bytes` was given for a configuration."""
        return self._bytes.get(configuration, [])

    def shift(self, family: str, configuration: str) -> Shift:
        """The error to expect of a configuration."""
        spread = self._spread
        node = self._families.get(family, _NOTHING)
        own = node.errors.get(configuration, [])
        seed = spread.seed**2
        prior = _Belief(1 / self._prior.program**2)
        belief = prior + (self._root - node.belief.blurred(spread.family**2))
        belief = belief.blurred(spread.family**2)
        message = _message(own, seed).blurred(spread.configuration**2)
        belief = (belief + (node.belief - message)).blurred(spread.configuration**2)
        belief = belief + _message(own, seed)
        level = "seed" if len(own) > 1 else "configuration" if node.errors else "family"
        return Shift(
            mean=belief.mean,
            sd=math.sqrt(1 / belief.precision + seed),
            dof=self._known[level],
            trials=len(own),
            relatives=node.trials(),
        )

    def state(self) -> dict[str, Any]:
        """Everything learnt, as JSON can hold it."""
        families = {
            name: {key: list(values) for key, values in node.errors.items()}
            for name, node in self._families.items()
        }
        measured = {key: list(values) for key, values in self._bytes.items()}
        return {"families": families, "measured_bytes": measured}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], spread: Spread | None = None) -> Calibration:
        """The calibration that gave `state`; parts that do not read are left out."""
        calibration = cls(spread)
        for name, errors in _items(state.get("families")):
            kept = {key: numbers for key, values in _items(errors) if (numbers := _numbers(values))}
            if kept:
                calibration._families[name] = _Family(errors=kept)
        for key, values in _items(state.get("measured_bytes")):
            if sizes := [int(value) for value in _numbers(values) if value > 0]:
                calibration._bytes[key] = sizes
        calibration._refit()
        return calibration

    def _refit(self) -> None:
        """Pull the spreads to what was seen, then send every observation up the tree."""
        prior = self._prior
        groups = [values for node in self._families.values() for values in node.errors.values()]
        seed = self._pulled("seed", prior.seed, groups)
        means = [[_mean(v) for v in node.errors.values()] for node in self._families.values()]
        configuration = self._pulled("configuration", prior.configuration, means)
        family = self._pulled("family", prior.family, [[_mean(m) for m in means]])
        self._spread = Spread(
            program=prior.program, family=family, configuration=configuration, seed=seed
        )
        self._root = _Belief()
        for node in self._families.values():
            node.belief = _Belief()
            for values in node.errors.values():
                node.belief += _message(values, seed**2).blurred(configuration**2)
            self._root += node.belief.blurred(family**2)

    def _pulled(self, level: str, prior_sd: float, groups: Iterable[list[float]]) -> float:
        """A spread between its prior and the one seen within groups (scaled inverse chi square)."""
        squares, dof = 0.0, 0
        for values in groups:
            if len(values) > 1:
                mean = _mean(values)
                squares += math.fsum((v - mean) ** 2 for v in values)
                dof += len(values) - 1
        self._known[level] = _PRIOR_WEIGHT + dof
        pooled = (_PRIOR_WEIGHT * prior_sd**2 + squares) / (_PRIOR_WEIGHT + dof)
        return max(_SMALLEST_SD, math.sqrt(pooled))


def _message(values: list[float], seed_variance: float) -> _Belief:
    """What trials of one configuration say of its mean."""
    precision = len(values) / seed_variance
    return _Belief(precision, precision * _mean(values) if values else 0.0)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _numbers(values: Any) -> list[float]:
    """The finite numbers of a list; nothing of anything else."""
    if not isinstance(values, list):
        return []
    numbers = (v for v in values if isinstance(v, int | float) and not isinstance(v, bool))
    return [float(v) for v in numbers if math.isfinite(v)]


_NOTHING = _Family()
