"""Bits that a quantized weight carries.

Trained weights of a matrix are close to Gaussian within a row, so what a rounded weight carries
depends on one number: the row's standard deviation over the quantizer's step. The rule that sets
the step therefore decides the size, not ``parameters x bits``. What a short run leaves of the
uniform initial values makes a row flatter than a Gaussian: ``uniform`` is the share of a weight's
variance that comes from them (`dynamics`).
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

_QUANTILES = 24
"""Points at which the distribution of a row's maximum is sampled; 96 change no digit we print."""
_GRID = np.linspace(0.0, 9.0, 3601)
"""Absolute weights, in standard deviations, at which distributions are tabulated."""
_LEAST_ABOVE = 0.05
_WIDEST_UNIFORM = 0.98
"""A uniform row blurred this little differs in no digit that matters, and its tail stays finite."""


class ScaleRule(StrEnum):
    """How a quantizer sets the step of a row."""

    ROWMAX = "rowmax"
    """Largest absolute weight of the row over Q, where Q = 2^(bits-1) - 1."""
    PERCENTILE = "percentile"
    """A percentile of the row's absolute weights over Q; the rest is clipped."""
    SDCLIP = "sdclip"
    """k standard deviations of the row over Q; the rest is clipped."""
    MSE = "mse"
    """The clip with the least squared error of rounding, at most the row's largest weight."""


TERNARY, BINARY = 2, 1
"""Bits of quantizers whose step is the row's mean absolute weight, under any rule."""


def top_level(bits: int) -> int:
    """Largest integer of a symmetric quantizer: 127 for 8 bits, 7 for 4, 1 for 2 and for 1."""
    return int(2 ** (bits - 1)) - 1 or 1


def normal_cdf(x: float) -> float:
    """Probability that a standard Gaussian is below ``x``."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


@lru_cache(maxsize=64)
def _below(uniform: float) -> Floats:
    """P(|x| <= grid) for unit variance, a share ``uniform`` of it uniform, the rest Gaussian.

    The mean of the Gaussian's distribution over the uniform part's width a, in closed form:
    s / (2 a) (psi((x + a) / s) - psi((x - a) / s)) with psi(t) = t cdf(t) + density(t).
    """
    a, s = math.sqrt(3 * uniform), math.sqrt(1 - uniform)
    if a < 1e-3:
        below = np.array([normal_cdf(x) for x in _GRID])
    else:
        below = np.array([s / (2 * a) * (_psi((x + a) / s) - _psi((x - a) / s)) for x in _GRID])
    inside: Floats = np.clip(2 * below - 1, 0.0, 1.0)
    return inside


def _psi(t: float) -> float:
    return t * normal_cdf(t) + math.exp(-t * t / 2) / math.sqrt(2 * math.pi)


@lru_cache(maxsize=64)
def _tails(uniform: float) -> tuple[Floats, Floats]:
    """Tail and absolute weight, both in the order of a growing tail: to look quantiles up."""
    tail = 1 - _below(uniform)
    seen = tail > 1e-14
    return np.log(tail[seen][::-1]), _GRID[seen][::-1]


def _at_tail(tails: Floats, uniform: float) -> Floats:
    """The absolute weights that shares ``tails`` of all exceed."""
    logs, grid = _tails(uniform)
    found: Floats = np.interp(np.log(tails), logs, grid)
    return found


@lru_cache(maxsize=4096)
def row_maxima(row_length: int, uniform: float) -> Floats:
    """The largest absolute weight of a row, as it varies from row to row.

    The largest is below m when all are: P = P(|x| < m)^n. Written with expm1 so that P near one
    keeps its digits.
    """
    p = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return _at_tail(-np.expm1(np.log(p) / row_length), uniform)


def _percentile_clips(above: float, row_length: int, uniform: float) -> Floats:
    """The clip that leaves ``above`` weights of a row over it, as it varies from row to row.

    The tail beyond the j-th largest of n is Beta(j, n + 1 - j), near Gamma(j) / (n + 1) for a
    small share; quantiles by Wilson and Hilferty.
    """
    j = above + 1
    z = _at_tail(2 * np.minimum(_MIDDLES, 1 - _MIDDLES), 0.0) * np.sign(_MIDDLES - 0.5)
    gamma = j * np.maximum(0.01, 1 - 1 / (9 * j) + z / (3 * math.sqrt(j))) ** 3
    return _at_tail(np.minimum(0.99, gamma / (row_length + 1)), uniform)


_MIDDLES = (np.arange(_QUANTILES) + 0.5) / _QUANTILES


@lru_cache(maxsize=512)
def mse_clip(bits: int, uniform: float = 0.0) -> float:
    """The clip, in standard deviations, at which rounding costs the least squared error."""
    below = _below(uniform)
    mass, middle = np.diff(below), (_GRID[1:] + _GRID[:-1]) / 2
    clips = np.arange(0.8, 8.0, 0.02)
    beyond = np.maximum(0.0, middle[None, :] - clips[:, None]) ** 2 @ mass
    steps = clips / top_level(bits)
    rounding = steps**2 / 12 * np.interp(clips, _GRID, below)
    return float(clips[np.argmin(beyond + rounding)])


def level_shares(
    rule: ScaleRule, bits: int, row_length: int, parameter: float, uniform: float = 0.0
) -> Floats:
    """Share of the weights of a matrix on each level from 0 to the top one; negative ones alike.

    The level 0 is given by half its share, so that twice the sum is one. For the rules that look
    at a row's largest weight it is the mixture over rows, since a codec does not know which row
    it is in. Arguments as of `weight_bits`.
    """
    uniform = min(uniform, _WIDEST_UNIFORM)
    top = top_level(bits)
    if bits == BINARY:
        return np.array([0.0, 0.5])
    if bits == TERNARY:
        below = _below(uniform)
        mean = float(np.diff(below) @ (_GRID[1:] + _GRID[:-1])) / 2
        zero = float(np.interp(mean / 2, _GRID, below))
        return np.array([zero, 1.0 - zero]) / 2
    above = (1 - parameter / 100) * (row_length - 1)
    beyond = 0.0  # share of a row that is known to lie at its clip or beyond
    if rule is ScaleRule.SDCLIP:
        clips = np.array([parameter])
    elif rule is ScaleRule.MSE:
        clips = np.minimum(row_maxima(row_length, uniform), mse_clip(bits, uniform))
    elif rule is ScaleRule.PERCENTILE and above > _LEAST_ABOVE:
        clips = _percentile_clips(above, row_length, uniform)
        beyond = math.ceil(above) / row_length
    else:  # a percentile so high that no weight lies above it is the maximum
        clips, beyond = row_maxima(row_length, uniform), 1 / row_length
    edges = np.outer(clips / top, np.arange(top) + 0.5)
    below = np.interp(edges, _GRID, _below(uniform)) / 2
    if beyond:  # the rest of the row is known to lie below the clip
        inside = np.interp(clips, _GRID, _below(uniform)) / 2
        below = np.minimum(1.0, below / np.maximum(inside, 1e-9)[:, None] / 2)
    ends = np.ones((len(clips), 1))
    mass = np.diff(below, axis=1, prepend=0.0 * ends, append=0.5 * ends)
    shares: Floats = np.maximum(0.0, mass).mean(axis=0) * (1 - beyond)
    shares[top] += beyond / 2
    return shares


def entropy_bits(shares: Floats) -> float:
    """Bits of the distribution over levels given as by `level_shares`."""
    zero = 2 * float(shares[0])
    rest = shares[1:][shares[1:] > 0]
    bits = -zero * math.log2(zero) if zero > 0 else 0.0
    return max(0.0, bits - 2 * float(rest @ np.log2(rest)))


@lru_cache(maxsize=65536)
def weight_bits(
    rule: ScaleRule, bits: int, row_length: int, parameter: float, uniform: float = 0.0
) -> float:
    """Entropy in bits of one weight of a matrix quantized row by row.

    Args:
        rule: How the step of a row is set.
        bits: Width of the quantizer.
        row_length: Weights that share a step.
        parameter: k for `ScaleRule.SDCLIP`, the percentile (0 to 100) for `ScaleRule.PERCENTILE`;
            no meaning otherwise.
        uniform: Share of the variance that is uniform, the rest being Gaussian.
    """
    return entropy_bits(level_shares(rule, bits, row_length, parameter, uniform))


@lru_cache(maxsize=65536)
def rounded_gaussian_bits(sigma_over_step: float, top: int) -> float:
    """Entropy in bits of a Gaussian rounded to integers and clipped to +-top.

    Tends to ``2.047 + log2(sigma_over_step)`` for fine steps; the closed form fails for few
    levels, which is why it is summed here.
    """
    if sigma_over_step <= 0:
        return 0.0
    edges = (np.arange(top) + 0.5) / sigma_over_step
    below = np.array([0.5, *(normal_cdf(edge) for edge in edges), 1.0])
    return entropy_bits(np.maximum(0.0, np.diff(below)))


def widest_bits(bits: int) -> float:
    """Most that a weight can carry under any rule: all levels equally likely."""
    return 1.0 if bits == BINARY else math.log2(2 * top_level(bits) + 1)
