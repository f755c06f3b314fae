"""Effects between configurations that ran on several seeds: noise, interval, power, acceptance.

The noise of one run is pooled over all configurations with two runs or more, so that one run of a
candidate can already be judged. What one seed does to two configurations may be alike: in full
where a change leaves the training as it was, not at all where it draws other random numbers. That
share differs from pair to pair, so no pair tells of another's. The pooled noise is right without
any and too large with it, which makes a keep rarer; a pair's own differences are right either way.

Scores are low when good; the caller turns others around.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev, variance
from typing import TYPE_CHECKING

from pgolf_sweep.submission.stats import student_quantile, student_tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST_PAIRS = 4
"""Pairs below which their differences say less than the pooled noise, and are not tried."""

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
        freedom: Degrees of freedom behind it.
        runs: Runs that it comes from.
        configs: Configurations that they are of.
    """

    std: float
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
    """Runs by their configuration.

    Attributes:
        scores: By configuration and seed.
    """

    scores: Mapping[str, Mapping[int, float]]

    @property
    def noise(self) -> Noise | None:
        """The noise of one run; None where nothing was run twice."""
        repeated = [list(own.values()) for own in self.scores.values() if len(own) > 1]
        freedom = sum(len(own) - 1 for own in repeated)
        if not freedom:
            return None
        squares = sum((len(own) - 1) * variance(own) for own in repeated)
        return Noise(
            std=math.sqrt(squares / freedom),
            freedom=freedom,
            runs=sum(map(len, repeated)),
            configs=len(repeated),
        )

    def mean(self, config: str) -> float:
        """Of a configuration that has a run."""
        return fmean(self.scores[config].values())

    def effect(self, base: str, candidate: str) -> Effect | None:
        """Candidate minus base, by the pooled noise or by pairs: the one that tells them apart.

        Two tests are two chances, so p is doubled and the interval wider where both are made
        (O. J. Dunn, "Multiple comparisons among means", JASA 56, 1961).

        Returns:
            None where the noise is unknown or a side has no run.
        """
        pooled, pairs = self.pooled(base, candidate), self.pairs(base, candidate)
        if pooled is None or pairs is None or pairs.freedom < LEAST_PAIRS - 1:
            return pooled
        found = min(pooled, pairs, key=lambda one: one.p_value)
        return _effect(found.value, found.error, found.freedom, tests=2)

    def pooled(self, base: str, candidate: str) -> Effect | None:
        """Student's t of two means, with the noise of all configurations."""
        noise = self.noise
        if noise is None or not {base, candidate} <= self.scores.keys():
            return None
        error = noise.std * math.sqrt(sum(1 / len(self.scores[one]) for one in (base, candidate)))
        return _effect(self.mean(candidate) - self.mean(base), error, noise.freedom)

    def pairs(self, base: str, candidate: str) -> Effect | None:
        """Student's paired t over the seeds that both ran on; None below two."""
        first, second = (self.scores.get(name, {}) for name in (base, candidate))
        return paired([score - first[seed] for seed, score in second.items() if seed in first])


def fit(runs: Sequence[Run]) -> Fit:
    """Group runs by their configuration."""
    scores: dict[str, dict[int, float]] = {}
    for run in runs:
        scores.setdefault(run.config, {})[run.seed] = run.score
    return Fit(scores)


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


def _effect(value: float, error: float, freedom: int, tests: int = 1) -> Effect:
    """Interval and p of a difference with its standard error, the best of so many tests."""
    half = student_quantile(freedom, 1 - 0.025 / tests) * error
    if error == 0.0:  # every repeat gave the same score: certain one way or the other
        p_value = 1.0 if value == 0.0 else 0.0
    else:
        p_value = 2 * student_tail(freedom, abs(value) / error)
    return Effect(
        value=value,
        error=error,
        low=value - half,
        high=value + half,
        p_value=min(tests * p_value, 1.0),
        freedom=freedom,
    )


def seeds_more(effect: Effect, runs: tuple[int, int], *, level: float = 0.05) -> int | None:
    """Further seeds of both, on the same ones, that would tell the two apart.

    The power computation: the least k for which a difference as large as the one measured is found
    at `level`, two-sided, with 80 % probability, if the noise stays as it is.

    Args:
        effect: As measured.
        runs: How many runs each of the two has.
        level: Of the test.

    Returns:
        None where a hundred would not do: the difference is too small to matter.
    """
    std = effect.error / math.sqrt(sum(1 / count for count in runs))
    for more in range(1, MOST_MORE + 1):
        error = std * math.sqrt(sum(1 / (count + more) for count in runs))
        freedom = effect.freedom + more
        tests = 2 if min(runs) + more >= LEAST_PAIRS else 1
        certain = student_quantile(freedom, 1 - level / 2 / tests)
        if (certain + student_quantile(freedom, POWER)) * error <= abs(effect.value):
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
        false_keep: p below which a better candidate is kept.
        missed: At each run, probability of dropping one that is better by `least_effect`.
        least_effect: Smallest improvement of interest, in standard deviations of one run.
        most_seeds: Runs of one candidate, after which what is still undecided is dropped.
    """

    rule: Rule = Rule.SIGNIFICANT
    false_keep: float = 0.001
    missed: float = 0.2
    least_effect: float = 2.0
    most_seeds: int = 8


def decide(accept: Accept, model: Fit, base: str, candidate: str, runs: int) -> Decision:
    """What the rule says after a candidate's latest run.

    `significant` keeps what is better with a p below `false_keep`, and drops what is no better by
    `least_effect` with confidence 1 - `missed`, by the pooled noise or by the pairs: both may be
    asked after every run, and most changes without effect end after one.

    Args:
        accept: The rule.
        model: All runs that count.
        base: What the candidate would replace.
        candidate: What is judged.
        runs: Of the candidate, the failed ones included.
    """
    if accept.rule is Rule.NONE:
        return Decision.OPEN
    if accept.rule is Rule.GREEDY and {base, candidate} <= model.scores.keys():
        return Decision.KEEP if model.mean(candidate) < model.mean(base) else Decision.DROP
    effect, noise = model.effect(base, candidate), model.noise
    if effect is None or noise is None:
        return Decision.MORE
    if effect.value < 0 and effect.p_value < accept.false_keep:
        return Decision.KEEP
    aim = -accept.least_effect * noise.std
    ways = (model.pooled(base, candidate), model.pairs(base, candidate))
    bounds = [w.value - student_quantile(w.freedom, 1 - accept.missed) * w.error for w in ways if w]
    return Decision.DROP if max(bounds) >= aim or runs >= accept.most_seeds else Decision.MORE
