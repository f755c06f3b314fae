"""Bytes a number that a quantizer makes, by row length and sigma, with as few trials as possible.

A quantizer that sets its step by row, or once for all, treats tensors of a role alike but for the
length of their rows, and slowly by that. So for a new shape two lengths around it are measured,
one of them a power of two, and what lies between is linear in the logarithm of the length: other
widths within that octave are free. Roles of which the same tensor comes back as the same bytes
share what was measured.

Runs inside the probe's helper process; needs no torch itself.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SIGMAS = tuple(0.005 * 2.0**k for k in range(9))
FIRST_SIGMAS = (SIGMAS[2], SIGMAS[5])
LAST_SIGMA = SIGMAS[8]
FLAT_SHARE = 0.004
"""Difference over three octaves below which an entropy does not depend on sigma."""
MOST_NUMBERS = 1 << 17
"""Of a larger tensor this many numbers are drawn, in whole rows, and the result is scaled."""


class Measure(Protocol):
    """Pushes a tensor of a shape and sigma through the quantizer."""

    def __call__(self, shape: tuple[int, ...], sigma: float) -> tuple[float, bool, int]:
        """Bytes, whether the tensor was kept as floating point, distinct integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What was measured of matrices with one length of rows.

    Attributes:
        rule: A role that stands for all that are quantized like it.
        shape: Of the tensor that was drawn.
        levels: Distinct integers at the widest sigma.
        per_number: Bytes a number by sigma.
    """

    rule: str
    shape: tuple[int, ...]
    levels: int
    per_number: Mapping[float, float]


class Curves:
    """All that is known of one quantizer under one setting of its knobs.

    Args:
        told: What another probe's `told` returned.
    """

    def __init__(self, told: Mapping[str, Any] | None = None) -> None:
        self._rules: dict[str, str] = dict(told["rules"]) if told else {}
        self._least: dict[str, int] = dict(told["least"]) if told else {}
        self._curves: list[Curve] = [_curve(one) for one in told["curves"]] if told else []

    def told(self) -> dict[str, Any]:
        """The same, for JSON."""
        curves = [asdict(one) | {"per_number": list(one.per_number.items())}
                  for one in self._curves]  # fmt: skip
        return {"rules": self._rules, "least": self._least, "curves": curves}

    def of(self, role: str, shape: tuple[int, int], measure: Measure) -> Curve | None:
        """The curve of matrices of a role; None if matrices so small are kept as they are."""
        columns = shape[1]
        part = sampled(shape)
        if role not in self._rules:
            return self._exact(role, shape, measure)
        if math.prod(shape) < self._least[role]:
            if measure(part, FIRST_SIGMAS[0])[1]:
                return None
            self._least[role] = math.prod(shape)
        try:
            return self._between(role, columns, measure) or self._exact(role, shape, measure)
        except (RuntimeError, ValueError, IndexError, KeyError, AssertionError):
            return self._exact(role, shape, measure)  # it wants the shapes of its own model

    def _exact(self, role: str, shape: tuple[int, int], measure: Measure) -> Curve | None:
        found = self._measured(role, sampled(shape), measure)
        if found is not None:
            self._least[role] = min(self._least.get(role, math.prod(shape)), math.prod(shape))
        return found

    def _between(self, role: str, columns: int, measure: Measure) -> Curve | None:
        known = {one.shape[1]: one for one in self._curves if one.rule == self._rules[role]}
        if columns in known:
            return known[columns]
        below = 1 << (columns.bit_length() - 1)
        low = max((n for n in known if below <= n < columns), default=below)
        high = min((n for n in known if columns < n <= 2 * below), default=2 * below)
        ends = []
        for length in (low,) if low == columns else (low, high):
            end = known.get(length)
            if end is None:
                end = self._measured(role, sampled((MOST_NUMBERS, length)), measure)
            if end is None:
                return None
            ends.append(end)
        share = math.log2(columns / low) / math.log2(high / low)
        return _mixed(ends[0], ends[-1], share)

    def _measured(self, role: str, part: tuple[int, ...], measure: Measure) -> Curve | None:
        points: dict[float, float] = {}
        levels, kept = 0, True
        numbers = math.prod(part)

        def add(sigmas: Iterable[float]) -> None:
            nonlocal levels, kept
            for sigma in sigmas:
                size, kept, levels = measure(part, sigma)
                points[sigma] = size / numbers

        add(FIRST_SIGMAS)
        if kept:
            return None
        for other in self._curves:
            same = all(other.per_number[sigma] == points[sigma] for sigma in FIRST_SIGMAS)
            if other.shape == part and same:
                self._merge(role, other.rule)
                return other
        rule = self._rules.setdefault(role, role)
        if not flat(points):
            near = self._nearest(rule, part[1])
            add([LAST_SIGMA] if near else [s for s in SIGMAS if s not in FIRST_SIGMAS])
            if near:
                points = _filled(points, near.per_number)
        found = Curve(rule=rule, shape=part, levels=levels, per_number=points)
        self._curves.append(found)
        return found

    def _nearest(self, rule: str, columns: int) -> Curve | None:
        """A whole curve of the same rule."""
        whole = [o for o in self._curves if o.rule == rule and len(o.per_number) == len(SIGMAS)]
        return min(whole, key=lambda one: abs(math.log2(one.shape[1] / columns)), default=None)

    def _merge(self, role: str, rule: str) -> None:
        """All that was said of a role's rule is from now on said of another."""
        mine = self._rules.get(role, role)
        self._rules[role] = rule
        self._rules = {r: rule if known == mine else known for r, known in self._rules.items()}
        self._curves = [
            Curve(rule=rule, shape=one.shape, levels=one.levels, per_number=one.per_number)
            if one.rule == mine
            else one
            for one in self._curves
        ]


def sampled(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the tensor that is drawn for one: fewer rows where it is large."""
    if len(shape) == 2 and math.prod(shape) > MOST_NUMBERS:
        return (max(2, MOST_NUMBERS // shape[1]), shape[1])
    return shape


def flat(points: Mapping[float, float]) -> bool:
    """Whether the quantizer's step follows the weights."""
    low, high = (points[sigma] for sigma in FIRST_SIGMAS)
    return abs(low - high) <= FLAT_SHARE * max(low, high)


def _filled(points: Mapping[float, float], whole: Mapping[float, float]) -> dict[float, float]:
    """A curve of which some points are known, by its ratio to a whole one of other rows.

    What is quantized to a few levels is what codecs take longest for: it is not measured again.
    """
    first = min(points)
    found = dict(points)
    found |= {s: whole[s] * points[first] / whole[first] for s in SIGMAS if s < first}
    for low, high in itertools.pairwise(sorted(points)):
        for sigma in SIGMAS:
            if low < sigma < high:
                share = math.log(sigma / low) / math.log(high / low)
                ratios = points[low] / whole[low], points[high] / whole[high]
                found[sigma] = whole[sigma] * (ratios[0] + share * (ratios[1] - ratios[0]))
    return found


def _mixed(low: Curve, high: Curve, share: float) -> Curve:
    both = sorted(set(low.per_number) & set(high.per_number))
    return Curve(
        rule=low.rule,
        shape=low.shape,
        levels=max(low.levels, high.levels),
        per_number={s: (1 - share) * low.per_number[s] + share * high.per_number[s] for s in both},
    )


def _curve(told: Mapping[str, Any]) -> Curve:
    return Curve(
        rule=told["rule"],
        shape=tuple(told["shape"]),
        levels=told["levels"],
        per_number={float(sigma): size for sigma, size in told["per_number"]},
    )
