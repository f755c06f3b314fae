"""Effects between configurations that ran on several seeds: noise, interval, power, acceptance.

A score is its configuration's mean, plus an effect of the seed that all configurations share, plus
noise of its own (a mixed model; C. R. Henderson, "Best linear unbiased estimation and prediction
under a selection model", Biometrics 31, 1975). The noise is pooled over all configurations with two
runs or more, so that one run of a candidate can already be judged. Shared seeds pair the runs only
where the data show that a seed moves all configurations alike: else pairing would cost power.

Scores are low when good; the caller turns others around.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from pgolf_sweep.submission.stats import student_quantile, student_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SEED_SHARES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1e3, 1e4, 1e6)
"""Variance of the seeds' common effect over that of the noise, as it is tried."""

PAIRING_EVIDENCE = 2.0
"""Gain in log-likelihood from which a common effect is believed: 2.3 % for a variance, whose null
lies on the boundary (Self and Liang, JASA 82, 1987)."""

LEAST_PAIRED_FREEDOM = 3
"""Degrees of freedom below which a paired difference says less than the pooled noise."""

POWER = 0.8
MOST_MORE = 100
"""Further seeds beyond which nobody would go; `Effect.seeds_more` gives up there."""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run: which configuration, on which seed, with what score."""

    config: str
    seed: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Spread of one configuration's score over seeds.

    Attributes:
        std: Standard deviation of one run.
        shared: Share of its variance that a seed gives to all configurations alike: what pairing
            takes away.
        freedom: Degrees of freedom behind it.
        runs: Runs that it comes from.
        configs: Configurations that they are of.
    """

    std: float
    shared: float
    freedom: int
    runs: int
    configs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A candidate's mean minus another's; negative is better.

    Attributes:
        value: The difference.
        error: Its standard error.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p_value: Two-sided, that there is no difference.
        freedom: Of Student's t.
    """

    value: float
    error: float
    low: float
    high: float
    p_value: float
    freedom: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The mixed model of some runs: means of the configurations, and how well they are known.

    Attributes:
        configs: Names, in the order of the arrays.
        means: (C,) estimated scores.
        covariance: (C, C) of the means, per unit of the noise's variance.
        variance: Of the noise, the seeds' common effect left out; None where no configuration has
            two runs.
        ratio: Variance of the common effect over that of the noise.
        freedom: Degrees of freedom of `variance`.
        runs: How many runs `variance` comes from, and of how many configurations.
    """

    configs: tuple[str, ...]
    means: NDArray[np.float64]
    covariance: NDArray[np.float64]
    variance: float | None
    ratio: float
    freedom: int
    runs: tuple[int, int]

    @property
    def noise(self) -> Noise | None:
        """The noise of one run; None where nothing was run twice."""
        if self.variance is None:
            return None
        return Noise(
            std=math.sqrt(self.variance * (1 + self.ratio)),
            shared=self.ratio / (1 + self.ratio),
            freedom=self.freedom,
            runs=self.runs[0],
            configs=self.runs[1],
        )

    def effect(self, base: str, candidate: str) -> Effect | None:
        """Candidate minus base; None where the noise is unknown."""
        if self.variance is None:
            return None
        contrast = np.zeros(len(self.configs))
        contrast[self.configs.index(candidate)] = 1.0
        contrast[self.configs.index(base)] = -1.0
        value = float(contrast @ self.means)
        error = math.sqrt(self.variance * float(contrast @ self.covariance @ contrast))
        return _effect(value, error, self.freedom)


def paired(differences: Sequence[float]) -> Effect | None:
    """Student's paired t of one change alone; None below two differences.

    Args:
        differences: Score with the change minus score without it, on one seed each.
    """
    count = len(differences)
    if count < 2:  # one shows no spread
        return None
    value = fmean(differences)
    error = stdev(differences) / math.sqrt(count)
    return _effect(value, error, count - 1)


def _effect(value: float, error: float, freedom: int) -> Effect:
    """Interval and p of a difference with its standard error."""
    half = student_quantile(freedom, 0.975) * error
    if error == 0.0:  # every repeat gave the same score: certain one way or the other
        p_value = 1.0 if value == 0.0 else 0.0
    else:
        p_value = 2 * student_tail(freedom, abs(value) / error)
    return Effect(
        value=value,
        error=error,
        low=value - half,
        high=value + half,
        p_value=p_value,
        freedom=freedom,
    )


def fit(runs: Sequence[Run]) -> Fit:
    """Fit the mixed model; the seeds' common effect by restricted likelihood on a grid.

    Args:
        runs: At least one; every configuration of interest has one.
    """
    configs = tuple(dict.fromkeys(run.config for run in runs))
    seeds = list(dict.fromkeys(run.seed for run in runs))
    scores = np.array([run.score for run in runs])
    design = np.array([[float(run.config == name) for name in configs] for run in runs])
    groups = np.array([[float(run.seed == seed) for seed in seeds] for run in runs])
    fits = [_at(ratio, scores, design, groups) for ratio in SEED_SHARES]
    best = max(range(len(fits)), key=lambda at: fits[at][0])
    freedom = len(runs) - len(configs)
    paired = freedom - (len(seeds) - 1)  # as if each seed's effect were a parameter
    if fits[best][0] - fits[0][0] < PAIRING_EVIDENCE or paired < LEAST_PAIRED_FREEDOM:
        best = 0
    _, means, covariance, variance = fits[best]
    freedom = paired if best else freedom
    counts = [int(design[:, at].sum()) for at in range(len(configs))]
    repeated = [count for count in counts if count > 1]
    return Fit(
        configs=configs,
        means=means,
        covariance=covariance,
        variance=variance if freedom > 0 else None,
        ratio=SEED_SHARES[best],
        freedom=freedom,
        runs=(sum(repeated), len(repeated)),
    )


def _at(
    ratio: float,
    scores: NDArray[np.float64],
    design: NDArray[np.float64],
    groups: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], float]:
    """Restricted log-likelihood, means, their covariance per unit of noise, and its variance.

    Args:
        ratio: Variance of the seeds' common effect over that of the noise.
        scores: (R,) of the runs.
        design: (R, C), 1 where a run is of a configuration.
        groups: (R, S), 1 where a run is on a seed.
    """
    count, configs = design.shape
    relation = np.eye(count) + ratio * groups @ groups.T
    inverse = np.linalg.inv(relation)
    information = design.T @ inverse @ design
    covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
    means = covariance @ design.T @ inverse @ scores
    rest = scores - design @ means
    freedom = count - configs
    squares = float(rest @ inverse @ rest)
    variance = squares / freedom if freedom else 0.0
    logs = float(np.linalg.slogdet(relation)[1] + np.linalg.slogdet(information)[1])
    floor = 1e-24 * max(1.0, float(scores @ scores))
    likelihood = -0.5 * (logs + freedom * math.log(max(variance, floor)))
    return likelihood, means, covariance, variance


def seeds_more(
    effect: Effect, noise: Noise, runs: tuple[int, int], *, level: float = 0.05
) -> int | None:
    """Further seeds of both, on the same ones, that would tell the two apart.

    The power computation: the least k for which a difference as large as the one measured is found
    at `level`, two-sided, with 80 % probability, if the noise stays as it is.

    Args:
        effect: As measured.
        noise: Of the study.
        runs: How many runs each of the two has.
        level: Of the test.

    Returns:
        None where a hundred would not do: the difference is too small to matter.
    """
    alone = noise.std * math.sqrt(1 - noise.shared)
    for more in range(1, MOST_MORE + 1):
        error = alone * math.sqrt(sum(1 / (count + more) for count in runs))
        freedom = noise.freedom + 2 * more
        needed = student_quantile(freedom, 1 - level / 2) + student_quantile(freedom, POWER)
        if needed * error <= abs(effect.value):
            return more
    return None


class Rule(StrEnum):
    """When a candidate replaces what it was made from."""

    SIGNIFICANT = "significant"
    """When it is better beyond noise; seeds are added until that is known either way."""
    GREEDY = "greedy"
    """When its mean is better, be it by noise: keep-if-better, as loops without statistics do."""
    NONE = "none"
    """Never; comparisons are only shown."""


class Decision(StrEnum):
    """What a rule says of a candidate."""

    KEEP = "keep"
    DROP = "drop"
    MORE = "more"
    """Further seeds are needed."""
    OPEN = "open"
    """The rule decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """A rule with its numbers; ``pgolf.accept`` of a sweep file.

    Attributes:
        rule: Which.
        false_keep: Probability of keeping a candidate without effect.
        missed: Probability of dropping one that is better by `least_effect`.
        least_effect: Smallest improvement of interest, in standard deviations of one run.
        most_seeds: Runs of one candidate, after which what is still undecided is dropped.
    """

    rule: Rule = Rule.SIGNIFICANT
    false_keep: float = 0.002
    missed: float = 0.05
    least_effect: float = 2.0
    most_seeds: int = 8


def decide(accept: Accept, effect: Effect | None, noise: Noise | None, runs: int) -> Decision:
    """What the rule says after a candidate's latest run.

    `significant` is Wald's sequential probability ratio test (Annals of Mathematical Statistics 16,
    1945) of "not better" against "better by `least_effect` or more", with Student's t for the
    normal distribution, since the noise is estimated: it may look after every run, and a clear
    loser ends after one. What is kept has a p below `false_keep` besides.

    Args:
        accept: The rule.
        effect: Candidate minus incumbent; None where the noise is unknown.
        noise: Of one run.
        runs: Of the candidate.
    """
    if accept.rule is Rule.NONE:
        return Decision.OPEN
    if effect is None or noise is None:
        return Decision.MORE
    if accept.rule is Rule.GREEDY:
        return Decision.KEEP if effect.value < 0 else Decision.DROP
    aim = accept.least_effect * noise.std
    if effect.error == 0.0 or aim == 0.0:
        return Decision.KEEP if effect.value < 0 else Decision.DROP
    better = -effect.value / effect.error
    ratio = _log_ratio(better, max(better, aim / effect.error), effect.freedom)
    real = student_tail(effect.freedom, better) < accept.false_keep
    if real and ratio >= math.log((1 - accept.missed) / accept.false_keep):
        return Decision.KEEP
    if ratio <= math.log(accept.missed / (1 - accept.false_keep)) or runs >= accept.most_seeds:
        return Decision.DROP
    return Decision.MORE


def _log_ratio(t: float, shift: float, freedom: int) -> float:
    """Log of the likelihood of a Student's t about `shift` over that about the nearest t <= 0."""
    far, near = (t - shift) ** 2 / freedom, max(t, 0.0) ** 2 / freedom
    return (freedom + 1) / 2 * (math.log1p(near) - math.log1p(far))
