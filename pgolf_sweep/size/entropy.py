"""Bits that a quantized weight carries, and what a codec makes of them.

Trained weights of a matrix are close to Gaussian within a row, so what a rounded weight carries
depends on one number: the row's standard deviation over the quantizer's step. The rule that sets
the step therefore decides the size, not ``parameters x bits``. Plain Python: no numpy, no torch.
"""

from __future__ import annotations

import itertools
import math
from enum import StrEnum
from functools import lru_cache

_QUANTILES = 24
"""Points at which the distribution of a row's maximum is sampled; 96 change no digit we print."""


class ScaleRule(StrEnum):
    """How a quantizer sets the step of a row."""

    ROWMAX = "rowmax"
    """Largest absolute weight of the row over Q, where Q = 2^(bits-1) - 1."""
    PERCENTILE = "percentile"
    """A percentile of the row's absolute weights over Q; the rest is clipped."""
    SDCLIP = "sdclip"
    """k standard deviations of the row over Q; the rest is clipped."""
    MSE = "mse"
    """The clip with the least squared error of rounding."""


def top_level(bits: int) -> int:
    """Largest integer of a symmetric quantizer: 127 for 8 bits, 7 for 4."""
    return int(2 ** (bits - 1)) - 1


def normal_cdf(x: float) -> float:
    """Probability that a standard Gaussian is below ``x``."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def normal_quantile(p: float) -> float:
    """Inverse of `normal_cdf` by bisection; ``p`` strictly between 0 and 1."""
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_cdf(middle) < p else (low, middle)
    return (low + high) / 2


def row_max_quantile(p: float, row_length: int) -> float:
    """Quantile of the largest of ``row_length`` absolute standard Gaussians.

    The largest is below m when all are: P = (2 cdf(m) - 1)^n. Written with expm1 so that p near
    one keeps its digits.
    """
    tail = -math.expm1(math.log(p) / row_length)  # P(|x| > m)
    return normal_quantile(1 - tail / 2)


@lru_cache(maxsize=4096)
def row_max_mean(row_length: int) -> float:
    """Expected largest of ``row_length`` absolute standard Gaussians: 3.05 at 256, 3.63 at 2048."""
    return math.fsum(_row_maxima(row_length)) / _QUANTILES


def _row_maxima(row_length: int) -> list[float]:
    return [row_max_quantile((i + 0.5) / _QUANTILES, row_length) for i in range(_QUANTILES)]


def _percentile_clips(above: float, row_length: int) -> list[float]:
    """The clip that leaves ``above`` weights of a row over it, as it varies from row to row.

    The tail beyond the j-th largest of n is Beta(j, n + 1 - j), near Gamma(j) / (n + 1) for a
    small share; quantiles by Wilson and Hilferty.
    """
    j = above + 1
    tails = []
    for i in range(_QUANTILES):
        z = normal_quantile((i + 0.5) / _QUANTILES)
        gamma = j * max(0.01, 1 - 1 / (9 * j) + z / (3 * math.sqrt(j))) ** 3
        tails.append(min(0.99, gamma / (row_length + 1)))
    return [normal_quantile(1 - tail / 2) for tail in tails]


def _half_pmf(step: float, top: int, clip: float | None) -> list[float]:
    """Probabilities of the levels 0..top of a rounded standard Gaussian, level 0 at its half.

    Args:
        step: The quantizer's step in standard deviations.
        top: Largest level; what lies beyond falls on it.
        clip: The Gaussian is known to lie within +-clip (a row below its own maximum), or None.
    """
    edges = [0.5, *(normal_cdf((level + 0.5) * step) for level in range(top)), 1.0]
    mass = [max(0.0, high - low) for low, high in itertools.pairwise(edges)]
    if clip is not None:
        beyond = 2 * (1 - normal_cdf(clip))
        mass[-1] = max(0.0, mass[-1] - beyond / 2)
        mass = [m / (1 - beyond) for m in mass]
    return mass


def _entropy(half: list[float]) -> float:
    """Bits of a symmetric distribution given by `_half_pmf`."""
    zero = 2 * half[0]
    bits = -zero * math.log2(zero) if zero > 0 else 0.0
    return max(0.0, bits - 2 * math.fsum(p * math.log2(p) for p in half[1:] if p > 0))


@lru_cache(maxsize=65536)
def rounded_gaussian_bits(sigma_over_step: float, top: int) -> float:
    """Entropy in bits of a Gaussian rounded to integers and clipped to +-top.

    Tends to ``2.047 + log2(sigma_over_step)`` for fine steps; the closed form fails for few
    levels, which is why it is summed here.
    """
    if sigma_over_step <= 0:
        return 0.0
    return _entropy(_half_pmf(1 / sigma_over_step, top, None))


@lru_cache(maxsize=4096)
def mse_clip(bits: int) -> float:
    """The clip, in standard deviations, at which rounding a Gaussian costs the least error."""
    return min((0.02 * i for i in range(40, 400)), key=lambda k: _rounding_error(k, bits))


def _rounding_error(clip: float, bits: int) -> float:
    """Mean squared error of rounding a standard Gaussian clipped at ``clip``."""
    step = clip / top_level(bits)
    tail = 1 - normal_cdf(clip)
    density = math.exp(-clip * clip / 2) / math.sqrt(2 * math.pi)
    clipped = 2 * ((1 + clip * clip) * tail - clip * density)
    return clipped + step * step / 12 * (1 - 2 * tail)


@lru_cache(maxsize=65536)
def weight_bits(rule: ScaleRule, bits: int, row_length: int, parameter: float) -> float:
    """Entropy in bits of one weight of a Gaussian matrix quantized row by row.

    For the rules that look at a row's largest weight, the entropy is that of the mixture over
    rows, since a codec does not know which row it is in.

    Args:
        rule: How the step of a row is set.
        bits: Width of the quantizer.
        row_length: Weights that share a step.
        parameter: k for `ScaleRule.SDCLIP`, the percentile (0 to 100) for `ScaleRule.PERCENTILE`;
            no meaning otherwise.
    """
    top = top_level(bits)
    if rule is ScaleRule.SDCLIP:
        return rounded_gaussian_bits(top / parameter, top)
    if rule is ScaleRule.MSE:
        return rounded_gaussian_bits(top / mse_clip(bits), top)
    above = (1 - parameter / 100) * (row_length - 1)
    if rule is ScaleRule.PERCENTILE and above >= 1:
        clips, beyond = _percentile_clips(above, row_length), math.ceil(above) / row_length
    else:  # a percentile so high that less than one weight lies above it is the maximum
        clips, beyond = _row_maxima(row_length), 1 / row_length
    # Within a row a known share lies at the clip or beyond it, the rest is Gaussian below it.
    mixture = [0.0] * (top + 1)
    for clip in clips:
        for level, mass in enumerate(_half_pmf(clip / top, top, clip)):
            mixture[level] += mass * (1 - beyond) / len(clips)
    mixture[top] += beyond / 2
    return _entropy(mixture)


def widest_bits(bits: int) -> float:
    """Most that a weight can carry under any rule: all levels equally likely."""
    return math.log2(2 * top_level(bits) + 1)
