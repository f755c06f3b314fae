"""Early stopping: curves compared at equal fractions of their schedule.

A validation before the warmdown says little of the final score (rank correlation .18 at 40 % of a
demo run), so no trial is judged before a third of its schedule. One that is judged is compared
with every curve that has come as far. Validations on the way are made before quantization: where
knobs of the export are searched, the loss that quantization will cost is added, as finished trials
with the same values measured it; a trial about whose export nothing is known is not stopped.

Halving judges at each validation, not at rungs: with eight trials at a time the first ones pass a
rung before there is anything to compare them with. Few are stopped early, where ranks say little,
and more later. Trials that were found behind count as behind from there on, so that the share that
goes on is one of all trials, not of the survivors.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pgolf_sweep.config.types import EarlyTerminate
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.search.forecast import Forecast

FIRST = 1 / 3
"""Share of the schedule before which no trial is judged."""

LAST = 0.95
"""Share from which on there is nothing to save."""

FIRST_SHARE = 0.5
"""Share of all trials that halving lets go on at `FIRST`; by the end it is ``1 / eta ** 2``."""

COMPARED = 300
"""Curves, the newest, that one is compared with."""

SPARED_SHARE = 0.05
"""Share of the trials to stop that run on, to see what stopping them would have cost."""

LEAST_EXPORTED = 4
"""Completed trials from which the loss of an export can be told at all."""

HOPE = 2.0
"""A trial goes on while its forecast is within so many standard deviations of the best score."""

FORECASTS, FORECAST_EACH = 8, 1 / 12
"""How often a trial is forecast, from the first time on, and how much of the schedule apart."""

GAP_RIDGE = 0.3
"""Trials that the guess "no difference" counts for in the loss of one value of an export knob."""


@dataclass(slots=True)
class Curve:
    """One trial's validations.

    Attributes:
        number: The trial.
        points: Fraction of the schedule and `val_bpb`; ordinals of the validations where the
            script does not say how long its schedule is.
        scaled: Whether they are fractions.
        export: Values of the searched knobs that only the export depends on.
        final: Score of a completed trial.
        fits: Whether a completed trial is not over the cap.
        row: Inputs of a forecast; None where the trial lies outside the space.
        settled: Whether it will be judged no more: it was spared, or it has ended.
        behind: Whether it was found behind, stopped or spared.
    """

    number: int
    points: list[tuple[float, float]] = field(default_factory=list)
    scaled: bool = True
    export: Mapping[str, KnobValue] = field(default_factory=dict)
    final: float | None = None
    fits: bool = True
    row: NDArray[np.float64] | None = None
    settled: bool = False
    behind: bool = False

    def value(self, at: float) -> float | None:
        """`val_bpb` at a fraction, linear between validations; None where there are none."""
        places = [point[0] for point in self.points]
        if not places or not places[0] - 1e-6 <= at <= places[-1] + 1e-6:
            return None
        return float(np.interp(at, places, [point[1] for point in self.points]))

    @property
    def gap(self) -> float | None:
        """Final score less the last validation: what quantization cost, or None."""
        if self.final is None or not self.points:
            return None
        return self.final - self.points[-1][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What becomes of a trial that was judged and found behind.

    Attributes:
        spared: It runs on all the same, to see what stopping it would have cost.
        ordinal: At which of its validations.
        at: Fraction of its schedule, None where nobody knows.
        expected: Its final score as the others' curves go on from here, None where none has ended.
        sd: How well that is known.
    """

    spared: bool
    ordinal: int
    at: float | None
    expected: float | None
    sd: float | None


class Pruner:
    """Judges the trials of one study.

    Args:
        rule: What the sweep file says; see `EarlyTerminate`.
        forecast: What forecasts final scores, where the rule goes by them.
    """

    def __init__(self, rule: EarlyTerminate, forecast: Forecast | None = None) -> None:
        self._rule = rule
        self._forecast = forecast
        self._curves: dict[int, Curve] = {}

    def follow(self, curve: Curve) -> None:
        """Know a trial's curve, in place of what was known of it."""
        self._curves[curve.number] = curve

    def known(self, number: int) -> Curve | None:
        """A trial's curve, or None."""
        return self._curves.get(number)

    def judge(self, number: int) -> Judgement | None:
        """Judge a trial by its newest validation; None: it goes on."""
        curve = self._curves[number]
        if curve.settled or not self._is_due(curve):
            return None
        at, value = curve.points[-1]
        others = [
            (other, known)
            for other in list(self._curves.values())[-COMPARED:]
            if other is not curve
            and other.scaled == curve.scaled
            and (known := self._value(other, at)) is not None
        ]
        if self._rule.kind == "forecast":
            return self._without_promise(curve, at, value, others)
        others, losses = self._comparable(curve, others)
        if len(others) < max(1, self._rule.startup_trials):
            return None
        # In favour of the trial: what is not known of its loss is not held against it.
        own = value + losses[curve.number][0] - losses[curve.number][1]
        scores = sorted(known + losses[other.number][0] for other, known in others)
        if not self._is_behind(at, own, scores):
            return None
        expected, sd = _expected(value, others, losses, losses[curve.number])
        return Judgement(
            spared=lot(number) < SPARED_SHARE,
            ordinal=len(curve.points),
            at=at,
            expected=expected,
            sd=sd,
        )

    def _value(self, other: Curve, at: float) -> float | None:
        """A curve's value at a fraction; infinite where it was stopped before; None: unknown."""
        value = other.value(at)
        if value is None and other.behind and self._rule.kind == "halving":
            return math.inf if other.points and other.points[-1][0] < at else None
        return value

    def _without_promise(
        self, curve: Curve, at: float, value: float, others: Sequence[tuple[Curve, float]]
    ) -> Judgement | None:
        """Judge a trial by whether it may still become the best."""
        assert self._forecast is not None  # noqa: S101 - the rule needs one
        known = [
            (other.row, there, other.final)
            for other, there in others
            if other.final is not None and other.row is not None
        ]
        curves = self._curves.values()
        best = min((c.final for c in curves if c.final is not None and c.fits), default=None)
        if best is None or curve.row is None or len(known) < self._rule.startup_trials:
            return None
        found = self._forecast.final(curve.row, value, known)
        if found is None or found[0] - best <= HOPE * found[1]:
            return None
        return Judgement(
            spared=lot(curve.number) < SPARED_SHARE,
            ordinal=len(curve.points),
            at=at,
            expected=found[0],
            sd=found[1],
        )

    def never_acts(self, curve: Curve) -> str | None:
        """Why the rule cannot stop anything in trials that report as this one did; None: it can."""
        rule, reports = self._rule, len(curve.points)
        if not reports:
            return "a trial reports no validation before its end: lower VAL_LOSS_EVERY"
        if rule.kind in {"halving", "forecast"} and not curve.scaled:
            return "the script does not say how long its schedule is: use median"
        for place in range(1, reports + 1):
            if self._is_due(Curve(curve.number, curve.points[:place], curve.scaled)):
                return None
        if rule.min_iter > reports and rule.kind == "median":
            return f"min_iter is {rule.min_iter} and a trial reports {reports} times"
        return (
            f"a trial reports {reports} times, and not between {FIRST:.0%} and {LAST:.0%} of its "
            "schedule: lower VAL_LOSS_EVERY"
        )

    def _is_due(self, curve: Curve) -> bool:
        """Whether the newest validation is one by which a trial is judged."""
        count = len(curve.points)
        at = curve.points[-1][0]
        before = curve.points[-2][0] if count > 1 else 0.0
        if curve.scaled and not FIRST - 1e-6 <= at < LAST:
            return False
        if self._rule.kind == "median":
            return count >= self._rule.min_iter
        if self._rule.kind == "halving":
            return curve.scaled
        rungs = (FIRST + step * FORECAST_EACH for step in range(FORECASTS))
        return curve.scaled and any(before < rung <= at + 1e-6 for rung in rungs)

    def _is_behind(self, at: float, own: float, scores: Sequence[float]) -> bool:
        if self._rule.kind == "median":
            return own > statistics.median(scores)
        last = min(FIRST_SHARE, math.pow(self._rule.eta, -2))
        share = FIRST_SHARE * math.pow(last / FIRST_SHARE, (at - FIRST) / (1 - FIRST))
        kept = max(1, round((len(scores) + 1) * share))
        return sum(score < own for score in scores) >= kept

    def _comparable(
        self, curve: Curve, others: list[tuple[Curve, float]]
    ) -> tuple[list[tuple[Curve, float]], dict[int, tuple[float, float]]]:
        """The curves to compare with, and the loss of each trial's export with its spread."""
        if not curve.export:
            return others, dict.fromkeys([curve.number, *(o.number for o, _ in others)], (0.0, 0.0))
        alike = [(o, value) for o, value in others if o.export == curve.export]
        losses = _losses([c for c in self._curves.values() if c.gap is not None])
        if losses is None:
            return alike, dict.fromkeys([curve.number, *(o.number for o, _ in alike)], (0.0, 0.0))
        own = losses.of(curve)
        if own is None:
            return [], {curve.number: (0.0, 0.0)}
        found = {curve.number: own}
        kept = []
        for other, value in others:
            loss = (other.gap, 0.0) if other.gap is not None else losses.of(other)
            if loss is not None:
                kept.append((other, value))
                found[other.number] = loss
        return kept, found


class _Losses:
    """What each value of each export knob costs, by a ridge regression over completed trials."""

    def __init__(self, completed: Sequence[Curve]) -> None:
        self._levels: dict[tuple[str, KnobValue], int] = {}
        for curve in completed:
            for level in curve.export.items():
                self._levels.setdefault(level, len(self._levels))
        gaps = np.array([curve.gap for curve in completed], dtype=float)
        self._centre = float(np.median(gaps))
        rows = np.array([self._row(curve) for curve in completed])
        gram = rows.T @ rows + GAP_RIDGE * np.eye(len(self._levels))
        self._worth = np.linalg.solve(gram, rows.T @ (gaps - self._centre))
        missed = rows @ self._worth + self._centre - gaps
        self.spread = float(np.sqrt(np.mean(missed**2)))

    def of(self, curve: Curve) -> tuple[float, float] | None:
        """A trial's loss and its spread; None where one of its values was never completed."""
        if any(level not in self._levels for level in curve.export.items()):
            return None
        return float(self._row(curve) @ self._worth) + self._centre, self.spread

    def _row(self, curve: Curve) -> NDArray[np.float64]:
        row = np.zeros(len(self._levels))
        for level in curve.export.items():
            row[self._levels[level]] = 1.0
        return row


def _losses(completed: Sequence[Curve]) -> _Losses | None:
    """What exports cost, where enough trials have completed to tell."""
    return _Losses(completed) if len(completed) >= LEAST_EXPORTED else None


def _expected(
    value: float,
    others: Sequence[tuple[Curve, float]],
    losses: Mapping[int, tuple[float, float]],
    own: tuple[float, float],
) -> tuple[float | None, float | None]:
    """Final score of a trial whose curve goes on as the completed ones did, and its spread."""
    moves = [
        other.final - known - losses[other.number][0]
        for other, known in others
        if other.final is not None
    ]
    if not moves:
        return None, None
    spread = statistics.stdev(moves) if len(moves) > 1 else abs(moves[0])
    return value + statistics.median(moves) + own[0], math.hypot(spread, own[1])


def lot(number: int) -> float:
    """A trial's lot in [0, 1): random, and always the same."""
    return crc32(f"spared {number}".encode()) / 2**32
