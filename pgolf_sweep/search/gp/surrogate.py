"""A Gaussian process for tens to hundreds of evaluations of an expensive function.

The kernel is a Matern 5/2 with a length for each input beside a Bayesian quadratic regression::

    k(x, x') = v matern(|x - x'| / lengths) + a phi(x) . phi(x')

with phi the first two Legendre polynomials of each input over sqrt(inputs): learning rates and
decays are bowls, and a bowl is known from a few points. Values of cheaper rungs (short trainings)
are those of another function that is correlated with the one of interest::

    k((x, r), (x', r')) = s^r s^r' rho^|r - r'| k(x, x') + [r = r'] c

with r the rungs below the one of interest, s and rho learnt, and c so large that a rung's level
says nothing (the intrinsic coregionalization of Bonilla et al., 2007). That of interest has such a
level too: what is measured there first is what led on the rung below, no sample of the whole.
Lengths have priors that grow with the number of inputs (Hvarfner et al., 2024,
https://arxiv.org/abs/2402.02229); the noise has one at what is known of it. Hyperparameters are the
posterior's maximum, by an analytic gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.linalg import block_diag, cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

JITTER = 1e-6
LENGTH_SD = math.sqrt(3)
NOISE_SD = 0.7
UNKNOWN_NOISE = 0.1
"""Share of the values' spread that repeats are taken to have where nothing is known of them."""

LEAST_NOISE = 1e-3
ROOT_5 = math.sqrt(5)
SHARED = 0.95
"""Correlation of the noise of values that share it."""
BELIEVED = 1e-4
"""Variance of a value that is believed, not measured."""
LEVEL = 16.0
"""Variance of a rung's level beside the mean of its values."""
AGREEMENT, AGREEMENT_SD = 2.0, 1.5
"""Prior of the log odds of rho: .88, between .3 and .99."""
STRETCH_SD = 0.5
"""Of the prior of ln s, whose mean is 0."""
OWN_SHARE = 0.75
"""Of the variance that the fitted noise has beyond the expected, what each configuration has of its
own: repeats alone would tell it from noise, and there are few."""


@dataclass(frozen=True, slots=True)
class Priors:
    """Gaussian priors of the logarithms of the hyperparameters.

    Their order is that of the vector: a length for each input, the Matern part's variance, the
    quadratic part's, the noise's standard deviation; with rungs the log odds of rho, and ln s.
    """

    means: Floats
    sds: Floats
    bounds: list[tuple[float, float]]


def priors(inputs: int, noise: float, *, rungs: bool = False) -> Priors:
    """Priors for standardised values.

    Args:
        inputs: Number of columns.
        noise: Standard deviation that is expected between repeats.
        rungs: Whether values are of several rungs.
    """
    length = math.sqrt(2) + math.log(max(1, inputs)) / 2
    tail = [0.0, -1.0, math.log(max(noise, LEAST_NOISE))]
    means = np.array([length] * inputs + tail)
    sds = np.array([LENGTH_SD] * inputs + [1.0, 1.0, NOISE_SD])
    bounds = [(-3.0, 6.0)] * inputs + [(-6.0, 4.0), (-8.0, 4.0), (math.log(LEAST_NOISE) - 3, 1.0)]
    if rungs:
        means, sds = np.append(means, [AGREEMENT, 0.0]), np.append(sds, [AGREEMENT_SD, STRETCH_SD])
        bounds += [(-3.0, 7.0), (-1.5, 1.5)]
    return Priors(means, sds, bounds)


def quadratic_features(x: Floats) -> Floats:
    """phi: (n, inputs) in, (n, 2 inputs) out; of unit variance over the cube."""
    centred = x - 0.5
    both = [math.sqrt(12) * centred, math.sqrt(180) * (centred**2 - 1 / 12)]
    return np.hstack(both) / math.sqrt(max(1, x.shape[1]))


def negative_log_posterior(
    theta: Floats,
    squares: Floats,
    linear: Floats,
    y: Floats,
    extra: Floats,
    prior: Priors,
    shared: Floats,
    below: Floats | None = None,
) -> tuple[float, Floats]:
    """Minus the log posterior density of hyperparameters, up to a constant, and its gradient.

    Args:
        theta: Logarithms of the hyperparameters, (inputs + 3,).
        squares: Squared differences of each input, (inputs, n, n).
        linear: phi . phi', (n, n).
        y: Standardised values, (n,).
        extra: Variance of each value beside the noise, (n,).
        prior: As of `priors`.
        shared: Correlation of the values' noise, (n, n).
        below: How many rungs below the one of interest each value is, (n,); None: none has any.
    """
    inputs = len(squares)
    matern, slope = _matern(theta[:inputs], squares)
    v, a, noise = np.exp(theta[inputs]), np.exp(theta[inputs + 1]), np.exp(2 * theta[inputs + 2])
    smooth = v * matern + a * linear
    if below is not None:
        between = _between(theta[inputs + 3 :], below, below)
        matern, linear, slope = between * matern, between * linear, between * slope
        smooth = between * smooth
        cov = smooth + _levels(below, below) + noise * shared
    else:
        cov = smooth + noise * shared
    cov[np.diag_indices_from(cov)] += extra + JITTER
    away = (theta - prior.means) / prior.sds
    try:
        chol = cholesky(cov, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    alpha = cho_solve((chol, True), y, check_finite=False)
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(chol)).sum()) + 0.5 * float(away @ away)
    inverse, _ = lapack.dpotri(chol, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weight = inverse - np.outer(alpha, alpha)  # of the gradient by the covariance, doubled
    gradient = away / prior.sds
    by_length = np.tensordot(squares, weight * slope, axes=([1, 2], [0, 1]))
    gradient[:inputs] += 0.5 * v * by_length * np.exp(-2 * theta[:inputs])
    gradient[inputs] += 0.5 * v * float(np.sum(weight * matern))
    gradient[inputs + 1] += 0.5 * a * float(np.sum(weight * linear))
    gradient[inputs + 2] += noise * float(np.sum(weight * shared))
    if below is not None:
        steps, sums = np.abs(below[:, None] - below), below[:, None] + below
        unlike = 1 / (1 + math.exp(theta[inputs + 3]))
        gradient[inputs + 3] += 0.5 * unlike * float(np.sum(weight * smooth * steps))
        gradient[inputs + 4] += 0.5 * float(np.sum(weight * smooth * sums))
    return value, gradient


def _between(theta: Floats, below: Floats, other: Floats) -> Floats:
    """Factor of the covariance of values so many rungs below; (n,) and (m,) in, (n, m) out."""
    log_agreement = -math.log1p(math.exp(-theta[0]))
    steps, sums = np.abs(below[:, None] - other), below[:, None] + other
    found: Floats = np.exp(log_agreement * steps + theta[1] * sums)
    return found


def _levels(below: Floats, other: Floats) -> Floats:
    """Variance of the level that values of one rung share."""
    return np.where(below[:, None] == other, LEVEL, 0.0)


def _matern(log_lengths: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """The correlation, and minus its derivative by half a scaled squared difference."""
    scaled = np.tensordot(np.exp(-2 * log_lengths), squares, axes=1)
    r = ROOT_5 * np.sqrt(np.maximum(scaled, 0.0))
    decay = np.exp(-r)
    return (1 + r + r * r / 3) * decay, 5 / 3 * (1 + r) * decay


class Surrogate:
    """A Gaussian process with its hyperparameters, over standardised values.

    Args:
        x: Inputs, (n, inputs); with `rungs` the last column is how many rungs below the one of
            interest a value is.
        y: Values, (n,); they are standardised here, those of each rung about their own mean.
        noise: Standard deviation that is expected between repeats, in the values' unit; None where
            nothing is known of it.
        extra: Variance of each value beside that, (n,), in the values' unit squared; None: none.
        groups: Values of one number share their noise, as exports of one training; None: none do.
        rungs: Whether values are of several rungs.
    """

    def __init__(
        self,
        x: Floats,
        y: Floats,
        *,
        noise: float | None,
        extra: Floats | None = None,
        groups: Sequence[int] | None = None,
        rungs: bool = False,
    ) -> None:
        self._rungs = rungs
        self._inputs = x.shape[1] - rungs
        self._means = {0.0: float(y.mean())}
        """Mean of the values of each rung."""
        if rungs:
            self._means = {b: float(y[x[:, -1] == b].mean()) for b in np.unique(x[:, -1]).tolist()}
        centred = y - (self._level(x) if rungs else self._means[0.0])
        self.sd = float((centred if rungs else y).std()) or 1.0
        self._x = x
        self._y = centred / self.sd
        self._extra = np.zeros(len(y)) if extra is None else extra / self.sd**2
        self._shared = np.eye(len(y))
        if groups is not None:
            at = np.asarray(groups)
            self._shared = np.where(at[:, None] == at, SHARED, 0.0)
            np.fill_diagonal(self._shared, 1.0)
        relative = UNKNOWN_NOISE if noise is None else noise / self.sd
        self._expected = 0.0 if noise is None else noise / self.sd
        self.prior = priors(self._inputs, relative, rungs=rungs)
        self.theta = self.prior.means

    def fit(self, starts: Sequence[Floats], iterations: int = 30) -> Floats:
        """Set the hyperparameters to the best optimum found from the starts; return them."""
        x, below = self._split(self._x)
        columns = x.T
        squares = (columns[:, :, None] - columns[:, None, :]) ** 2
        phi = quadratic_features(x)
        known = (self._y, self._extra, self.prior, self._shared, below)
        arguments = (squares, phi @ phi.T, *known)
        best = math.inf
        for start in starts:
            found = minimize(
                negative_log_posterior,
                np.clip(start, *np.array(self.prior.bounds).T),
                args=arguments,
                jac=True,
                method="L-BFGS-B",
                bounds=self.prior.bounds,
                options={"maxiter": iterations},
            )
            if found.fun < best:
                best, self.theta = float(found.fun), found.x
        return self.theta

    def condition(self, theta: Floats, believed: Floats | None = None) -> None:
        """Take hyperparameters, and points that are under way as if they gave their mean.

        Args:
            theta: Hyperparameters.
            believed: Inputs of what runs, (m, inputs); None: nothing does.
        """
        self.theta = theta
        noise = self._noise * self._shared + np.diag(self._extra)
        self._factorize(self._x, self._y, noise)
        if believed is not None and len(believed):
            mean, _ = self._posterior(believed)
            noise = block_diag(noise, BELIEVED * np.eye(len(believed)))
            self._factorize(np.vstack([self._x, believed]), np.concatenate([self._y, mean]), noise)

    @property
    def noise(self) -> float:
        """Standard deviation between repeats, as fitted, in the values' unit."""
        return math.sqrt(self._noise) * self.sd

    def posterior(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the noiseless function, in the values' unit; (n,) each."""
        mean, variance = self._posterior(x)
        level = self._level(x) if self._rungs else self._means[0.0]
        return level + self.sd * mean, self.sd * np.sqrt(variance)

    @property
    def mean(self) -> float:
        """Mean of the values on the rung of interest."""
        return self._means[min(self._means)]

    @property
    def agreement(self) -> float:
        """Correlation of the function with that of the rung below, as fitted."""
        return 1 / (1 + math.exp(-float(self.theta[self._inputs + 3]))) if self._rungs else 1.0

    def worth(self, x: Floats) -> Floats:
        """How much a measurement at each input would tell of the function at the first one; (n,).

        The correlation, as far as it is not known yet, of the value with its noise there and the
        function without noise here. Source: the factors alpha of Huang et al., 2006,
        https://doi.org/10.1007/s00158-005-0587-0.
        """
        cross = self._covariance(self._known, x)
        solved = solve_triangular(self._chol, cross, lower=True, check_finite=False)
        cov = self._covariance(x, x) - solved.T @ solved
        variance = np.maximum(np.diag(cov), 1e-12)
        found: Floats = cov[0] / np.sqrt(variance[0] * (variance + self._noise))
        return np.clip(found, 0.0, 1.0)

    def _split(self, x: Floats) -> tuple[Floats, Floats | None]:
        """Inputs, and how many rungs below each is; None without rungs."""
        return (x[:, :-1], x[:, -1]) if self._rungs else (x, None)

    def _level(self, x: Floats) -> Floats:
        """Mean of the values of each input's rung; of one that has none, of the nearest's."""
        known = np.array(sorted(self._means))
        nearest = known[np.abs(x[:, -1:] - known).argmin(1)]
        return np.array([self._means[b] for b in nearest.tolist()])

    def apart(self, x: Floats, point: Floats) -> Floats:
        """Standard deviation of the function's difference between points and one of them; (n,)."""
        both = np.vstack([x, point[None, :]])
        cross = self._covariance(self._known, both)
        solved = solve_triangular(self._chol, cross, lower=True, check_finite=False)
        _, variance = self._posterior(both)
        covariance = self._covariance(both, both[-1:])[:, 0] - solved.T @ solved[:, -1]
        found = variance[:-1] + variance[-1] - 2 * covariance[:-1]
        apart: Floats = self.sd * np.sqrt(np.maximum(found, 0.0))
        return apart

    def tried(self, same: Sequence[int]) -> tuple[Floats, Floats]:
        """Posterior of the measured configurations' own scores: mean (n,), covariance (n, n).

        A configuration is more than the smooth function at its inputs. What the fitted noise
        exceeds the expected by is, as far as `OWN_SHARE`, what each has of its own, which all its
        repeats show; the rest is noise, which their mean has less of.

        Args:
            same: Of each value the number of its configuration.
        """
        at = np.asarray(same)
        own = self._own
        signal = self._covariance(self._x, self._x) + np.where(at[:, None] == at, own, 0.0)
        noise = (self._noise - own) * self._shared + np.diag(self._extra + JITTER)
        chol = cholesky(signal + noise, lower=True, check_finite=False)
        solved = solve_triangular(chol, signal, lower=True, check_finite=False)
        mean = solved.T @ solve_triangular(chol, self._y, lower=True, check_finite=False)
        level = self._level(self._x) if self._rungs else self._means[0.0]
        return level + self.sd * mean, self.sd**2 * (signal - solved.T @ solved)

    @property
    def repeats(self) -> float:
        """Standard deviation between repeats of one configuration, in the values' unit."""
        return math.sqrt(self._noise - self._own) * self.sd

    @property
    def _own(self) -> float:
        """Variance of what each configuration has of its own."""
        if not self._expected:
            return 0.0
        return OWN_SHARE * max(0.0, self._noise - self._expected**2)

    @property
    def _noise(self) -> float:
        return float(np.exp(2 * self.theta[self._inputs + 2]))

    def _covariance(self, x: Floats, z: Floats) -> Floats:
        inputs = self._inputs
        (x, below), (z, other) = self._split(x), self._split(z)
        scale = np.exp(-self.theta[:inputs])
        x, z, at, to = x * scale, z * scale, quadratic_features(x), quadratic_features(z)
        squared = (x**2).sum(1)[:, None] + (z**2).sum(1) - 2 * x @ z.T
        r = ROOT_5 * np.sqrt(np.maximum(squared, 0.0))
        matern = (1 + r + r * r / 3) * np.exp(-r)
        v, a = np.exp(self.theta[inputs : inputs + 2])
        found: Floats = v * matern + a * at @ to.T
        if below is not None and other is not None:
            found = found * _between(self.theta[inputs + 3 :], below, other) + _levels(below, other)
        return found

    def _factorize(self, x: Floats, y: Floats, noise: Floats) -> None:
        cov = self._covariance(x, x) + noise
        cov[np.diag_indices_from(cov)] += JITTER
        self._known = x
        self._chol = cholesky(cov, lower=True, check_finite=False)
        self._alpha = cho_solve((self._chol, True), y, check_finite=False)

    def _posterior(self, x: Floats) -> tuple[Floats, Floats]:
        cross = self._covariance(self._known, x)
        mean = cross.T @ self._alpha
        solved = solve_triangular(self._chol, cross, lower=True, check_finite=False)
        x, below = self._split(x)
        phi = quadratic_features(x)
        v, a = np.exp(self.theta[self._inputs : self._inputs + 2])
        prior = v + a * (phi**2).sum(1)
        if below is not None:
            prior = prior * np.exp(2 * self.theta[-1] * below) + LEVEL
        return mean, np.maximum(prior - (solved**2).sum(0), 1e-12)
