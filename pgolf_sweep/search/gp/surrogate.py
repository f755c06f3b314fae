"""A Gaussian process for tens to hundreds of evaluations of an expensive function.

The kernel is a Matern 5/2 with a length for each input beside a Bayesian quadratic regression::

    k(x, x') = v matern(|x - x'| / lengths) + a phi(x) . phi(x')

with phi the first two Legendre polynomials of each input over sqrt(inputs): learning rates and
decays are bowls, and a bowl is known from a few points. Lengths have priors that grow with the
number of inputs (Hvarfner et al., 2024, https://arxiv.org/abs/2402.02229); the noise has one at
what is known of it. Hyperparameters are the posterior's maximum, by an analytic gradient.
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


@dataclass(frozen=True, slots=True)
class Priors:
    """Gaussian priors of the logarithms of the hyperparameters.

    Their order is that of the vector: a length for each input, the Matern part's variance, the
    quadratic part's, the noise's standard deviation.
    """

    means: Floats
    sds: Floats
    bounds: list[tuple[float, float]]


def priors(inputs: int, noise: float) -> Priors:
    """Priors for standardised values.

    Args:
        inputs: Number of columns.
        noise: Standard deviation that is expected between repeats.
    """
    length = math.sqrt(2) + math.log(max(1, inputs)) / 2
    tail = [0.0, -1.0, math.log(max(noise, LEAST_NOISE))]
    means = np.array([length] * inputs + tail)
    sds = np.array([LENGTH_SD] * inputs + [1.0, 1.0, NOISE_SD])
    bounds = [(-3.0, 6.0)] * inputs + [(-6.0, 4.0), (-8.0, 4.0), (math.log(LEAST_NOISE) - 3, 1.0)]
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
    """
    inputs = len(squares)
    matern, slope = _matern(theta[:inputs], squares)
    v, a, noise = np.exp(theta[inputs]), np.exp(theta[inputs + 1]), np.exp(2 * theta[inputs + 2])
    cov = v * matern + a * linear + noise * shared
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
    return value, gradient


def _matern(log_lengths: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """The correlation, and minus its derivative by half a scaled squared difference."""
    scaled = np.tensordot(np.exp(-2 * log_lengths), squares, axes=1)
    r = ROOT_5 * np.sqrt(np.maximum(scaled, 0.0))
    decay = np.exp(-r)
    return (1 + r + r * r / 3) * decay, 5 / 3 * (1 + r) * decay


class Surrogate:
    """A Gaussian process with its hyperparameters, over standardised values.

    Args:
        x: Inputs, (n, inputs).
        y: Values, (n,); they are standardised here.
        noise: Standard deviation that is expected between repeats, in the values' unit; None where
            nothing is known of it.
        extra: Variance of each value beside that, (n,), in the values' unit squared; None: none.
        groups: Values of one number share their noise, as exports of one training; None: none do.
    """

    def __init__(
        self,
        x: Floats,
        y: Floats,
        *,
        noise: float | None,
        extra: Floats | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        self.mean = float(y.mean())
        self.sd = float(y.std()) or 1.0
        self._x = x
        self._y = (y - self.mean) / self.sd
        self._extra = np.zeros(len(y)) if extra is None else extra / self.sd**2
        self._shared = np.eye(len(y))
        if groups is not None:
            at = np.asarray(groups)
            self._shared = np.where(at[:, None] == at, SHARED, 0.0)
            np.fill_diagonal(self._shared, 1.0)
        self.prior = priors(x.shape[1], UNKNOWN_NOISE if noise is None else noise / self.sd)
        self.theta = self.prior.means

    def fit(self, starts: Sequence[Floats], iterations: int = 30) -> Floats:
        """Set the hyperparameters to the best optimum found from the starts; return them."""
        columns = self._x.T
        squares = (columns[:, :, None] - columns[:, None, :]) ** 2
        phi = quadratic_features(self._x)
        arguments = (squares, phi @ phi.T, self._y, self._extra, self.prior, self._shared)
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
        return self.mean + self.sd * mean, self.sd * np.sqrt(variance)

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

    @property
    def _noise(self) -> float:
        return float(np.exp(2 * self.theta[-1]))

    def _covariance(self, x: Floats, z: Floats) -> Floats:
        inputs = self._x.shape[1]
        scale = np.exp(-self.theta[:inputs])
        x, z, at, to = x * scale, z * scale, quadratic_features(x), quadratic_features(z)
        squared = (x**2).sum(1)[:, None] + (z**2).sum(1) - 2 * x @ z.T
        r = ROOT_5 * np.sqrt(np.maximum(squared, 0.0))
        matern = (1 + r + r * r / 3) * np.exp(-r)
        found: Floats = np.exp(self.theta[-3]) * matern + np.exp(self.theta[-2]) * at @ to.T
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
        phi = quadratic_features(x)
        prior = np.exp(self.theta[-3]) + np.exp(self.theta[-2]) * (phi**2).sum(1)
        return mean, np.maximum(prior - (solved**2).sum(0), 1e-12)
