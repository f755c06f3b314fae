"""Statistics of a few seeds: interval, one-sided p against a record, seeds still needed.

Losses are in nats per token, lower is better. Source of the tests: Student (one sample) and
Welch, "The generalization of Student's problem", Biometrika 34 (1947).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import PromotionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.config.rules import Record

SAME_RATIO = 1e-3
"""Relative difference of val_bpb / val_loss up to which two scores share tokenizer and text: the
ratio is constant to six digits for one pair, and differs by 2 % or more between published ones."""

MOST_SEEDS = 100
"""More seeds than anyone would run; `seeds_needed` gives up there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Mean and spread of one number over seeds.

    Attributes:
        n: How many values.
        mean: Their mean.
        std: Sample standard deviation (ddof 1); None for one value.
        low: Lower end of the confidence interval of the mean; None for one value.
        high: Upper end.
        confidence: Of that interval.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate against a record.

    Attributes:
        improvement_nats: Record minus candidate, positive when the candidate is better.
        margin_nats: Improvement that had to be shown.
        p_value: Probability of so good a sample if the true improvement were the margin only.
        method: ``one-sample t`` or ``Welch``.
    """

    improvement_nats: float
    margin_nats: float
    p_value: float
    method: str


def sample(values: Sequence[float], confidence: float = 0.95) -> Sample:
    """Mean, std (ddof 1) and the mean's two-sided Student interval.

    Raises:
        PromotionError: There is no value.
    """
    if not values:
        raise PromotionError("no finished seed to take a mean of", expected="at least one")
    mean = fmean(values)
    if len(values) == 1:
        return Sample(n=1, mean=mean, std=None, low=None, high=None, confidence=confidence)
    std = stdev(values)
    half = student_quantile(len(values) - 1, (1 + confidence) / 2) * std / math.sqrt(len(values))
    return Sample(
        n=len(values),
        mean=mean,
        std=std,
        low=mean - half,
        high=mean + half,
        confidence=confidence,
    )


def same_yardstick(val_bpb: float, val_loss_nats: float, record: Record) -> bool:
    """Whether two scores were measured with one tokenizer on one validation set."""
    ours, theirs = val_bpb / val_loss_nats, record.val_bpb / record.val_loss_nats
    return math.isclose(ours, theirs, rel_tol=SAME_RATIO)


def compare(losses_nats: Sequence[float], record: Record, margin_nats: float) -> Comparison:
    """One-sided test that the true loss is more than the margin below the record's.

    Welch's test where the losses of the record's seeds are known, Student's one-sample test
    where only its mean is.

    Args:
        losses_nats: Validation loss by seed.
        record: What to beat; the caller has checked `same_yardstick`.
        margin_nats: Improvement to show.

    Raises:
        PromotionError: One seed shows no spread, so there is no p.
    """
    ours = sample(losses_nats)
    if ours.std is None:
        raise PromotionError(
            "no p-value can be computed",
            got="1 seed",
            expected="at least 2",
            next_step="promote with more seeds",
        )
    return _compare(ours.n, ours.mean, ours.std, record, margin_nats)


def seeds_needed(
    losses_nats: Sequence[float], record: Record, margin_nats: float, p_value: float
) -> int | None:
    """Seeds that would show the margin at that p if mean and spread stay as they are.

    None where no number of them would: the mean is not better by the margin, or the record's own
    spread is too wide.
    """
    ours = sample(losses_nats)
    if ours.std is None:
        return None
    for n in range(2, MOST_SEEDS + 1):
        if _compare(n, ours.mean, ours.std, record, margin_nats).p_value < p_value:
            return n
    return None


def _compare(n: int, mean: float, std: float, record: Record, margin_nats: float) -> Comparison:
    theirs = record.seed_losses_nats
    variance = std**2 / n
    if len(theirs) > 1:
        method, record_mean = "Welch", fmean(theirs)
        record_variance = stdev(theirs) ** 2 / len(theirs)
        total = variance + record_variance
        spread = variance**2 / (n - 1) + record_variance**2 / (len(theirs) - 1)
        freedom = total**2 / spread if spread else 1.0
    else:
        method, record_mean = "one-sample t", record.val_loss_nats
        total, freedom = variance, n - 1
    improvement = record_mean - mean
    excess = improvement - margin_nats
    if total == 0:  # every value is the same: certain one way or the other
        p_value = 0.0 if excess > 0 else 1.0
    else:
        p_value = student_tail(freedom, excess / math.sqrt(total))
    return Comparison(
        improvement_nats=improvement, margin_nats=margin_nats, p_value=p_value, method=method
    )


def student_tail(freedom: float, t: float) -> float:
    """P(T > t) for Student's t."""
    from scipy.special import stdtr  # noqa: PLC0415 - scipy loads only where a p is asked for

    return float(stdtr(freedom, -t))


def student_quantile(freedom: float, probability: float) -> float:
    """The t below which Student's T lies with that probability."""
    from scipy.special import stdtrit  # noqa: PLC0415 - as above

    return float(stdtrit(freedom, probability))
