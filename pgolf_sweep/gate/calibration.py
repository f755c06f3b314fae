"""Calibration of the gate by finished trials: the errors of its predictions and their spread.

A prediction names its *traits* (`physics`): directions in which it may be wrong, each with the
bytes that one unit of error is worth. The error of a configuration is modelled as::

    error = sum over traits of (bytes per unit x the trait's error) + noise

Each trait's error has a first guess with a spread, all Gaussian; the scale of the noise, and with
it of the spreads, is unknown too. That is a Bayesian linear regression with the conjugate
normal-inverse-gamma prior: the posterior is exact, a trial costs one rank-one update, and what is
said of the next trial is a Student t. Traits such as a codec's, a rule's or a family's are the
levels of a hierarchy that may cross: what one codec was measured to do moves all configurations
that use it, the more the surer it is, and strangers only through what they share.

Seeds of one configuration differ far less than configurations do, so a configuration that ran
before is expected where it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pgolf_sweep.gate.priors import guess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

PRIOR_WEIGHT = 8.0
"""How many trials the guess of the noise's scale counts for: the first degrees of freedom."""
TAIL_FREEDOM = 5.0
"""Errors of trained models have heavier tails than a Gaussian, however many were seen: intervals
are those of a Student t with that many degrees of freedom and the variance that was found."""
SEED_SHARE = 0.15
"""Share of the noise's variance that differs between seeds of one configuration. The contest's
records have 0.02 to 0.5 % between seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What calibration says of one configuration's error: a Student t distribution.

    Attributes:
        mean: The error to expect, in bytes.
        sd: Scale of what remains unknown, the seed's part included.
        trials: Finished trials of this very configuration.
    """

    mean: float
    sd: float
    trials: int

    def quantile(self, p: float) -> float:
        """Quantile of the error."""
        return self.mean + self.sd * student_quantile(p)

    def below(self, error: float) -> float:
        """Probability that the error is at most that many bytes."""
        return student_cdf((error - self.mean) / self.sd)


@lru_cache(maxsize=256)
def student_quantile(p: float) -> float:
    """Quantile of Student's t with five degrees of freedom (`TAIL_FREEDOM`), by bisection."""
    low, high = -_FARTHEST, _FARTHEST
    while high - low > 1e-12 * max(1.0, abs(low)):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle) < p else (low, middle)
    return (low + high) / 2


_FARTHEST = 1000.0
"""Beyond this lies 1e-13 of the distribution, less than its function tells from nothing."""


def student_cdf(t: float) -> float:
    """Share of Student's t with five degrees of freedom (`TAIL_FREEDOM`) below `t`.

    Source: Abramowitz and Stegun, 26.7.3.
    """
    angle = math.atan(t / math.sqrt(TAIL_FREEDOM))
    cosine = math.cos(angle)
    return 0.5 + (angle + math.sin(angle) * (cosine + 2 / 3 * cosine**3)) / math.pi


class Calibration:
    """Errors of finished trials, and what they say of the next.

    Not thread-safe; the driver that asks the gate is the one that teaches it.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._mean: Floats = np.zeros(0)
        self._spread: Floats = np.zeros((0, 0))
        self._squares = PRIOR_WEIGHT  # of standardised surprises, the prior's among them
        self._freedom = PRIOR_WEIGHT
        self._own: dict[str, list[float]] = {}
        self._bytes: dict[str, list[int]] = {}

    @property
    def trials(self) -> int:
        """Finished trials learnt from."""
        predicted = sum(len(seen) for seen in self._own.values())
        return predicted + sum(len(seen) for seen in self._bytes.values())

    def learn(
        self,
        traits: Mapping[str, float],
        noise_bytes: float,
        configuration: str,
        error: float,
        expected: float = 0.0,
    ) -> None:
        """Take in one finished trial.

        Args:
            traits: Bytes of one unit of each trait's error.
            noise_bytes: Bytes of one unit of noise.
            configuration: Key of every knob but the seed.
            error: Measured less predicted bytes; what is not finite is ignored.
            expected: The predicted bytes. A prediction moves with what is learnt of the machine's
                pace; what was measured does not, and is what is kept of the configuration.
        """
        if not (math.isfinite(error) and noise_bytes > 0):
            return
        seen = self._own.setdefault(configuration, [])
        seen.append(expected + error)
        if len(seen) > 1:
            return  # another seed says next to nothing of the traits
        for name in traits:
            self._place(name)
        x = self._row(traits, noise_bytes)
        moved = self._spread @ x
        unsure = 1 + float(x @ moved)
        surprise = error / noise_bytes - float(x @ self._mean)
        self._mean = self._mean + moved * (surprise / unsure)
        self._spread = self._spread - np.outer(moved, moved) / unsure
        self._squares += surprise**2 / unsure
        self._freedom += 1

    def shift(
        self,
        traits: Mapping[str, float],
        noise_bytes: float,
        configuration: str,
        expected: float = 0.0,
    ) -> Shift:
        """The error to expect of a configuration; arguments as of `learn`."""
        x = self._row(traits, noise_bytes)
        mean, variance = float(x @ self._mean), float(x @ self._spread @ x)
        for name, worth in traits.items():
            if name not in self._places:
                first, spread = guess(name)
                mean += first * worth / noise_bytes
                variance += (spread * worth / noise_bytes) ** 2
        scale = self._squares / self._freedom
        own = self._own.get(configuration, [])
        if own:
            measured = (math.fsum(own) / len(own) - expected) / noise_bytes
            seed = SEED_SHARE / len(own)
            mean += (measured - mean) * (1 - seed / (1 + seed))
            variance = SEED_SHARE + seed
        else:
            variance += 1
        heavy = (TAIL_FREEDOM - 2) / TAIL_FREEDOM
        return Shift(
            mean=mean * noise_bytes,
            sd=math.sqrt(scale * variance * heavy) * noise_bytes,
            trials=len(own),
        )

    def learn_bytes(self, configuration: str, model_bytes: int) -> None:
        """Take in one finished trial of a program whose size nobody predicts."""
        self._bytes.setdefault(configuration, []).append(model_bytes)

    @property
    def sizes_known(self) -> bool:
        """Whether `learn_bytes` was given any."""
        return bool(self._bytes)

    def measured_bytes(self, configuration: str) -> list[int]:
        """What `learn_bytes` was given for a configuration."""
        return self._bytes.get(configuration, [])

    def _place(self, name: str) -> None:
        if name in self._places:
            return
        mean, spread = guess(name)
        self._places[name] = at = len(self._places)
        self._mean = np.append(self._mean, mean)
        grown = np.zeros((at + 1, at + 1))
        grown[:at, :at] = self._spread
        grown[at, at] = spread**2
        self._spread = grown

    def _row(self, traits: Mapping[str, float], noise_bytes: float) -> Floats:
        row = np.zeros(len(self._places))
        places = self._places
        for name, worth in traits.items():
            at = places.get(name)
            if at is not None:
                row[at] = worth / noise_bytes
        return row
