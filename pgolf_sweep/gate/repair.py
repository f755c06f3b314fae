"""From a configuration that does not surely fit to the nearest one that does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pgolf_sweep.core.trial import KnobValue, Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MOST_VALUES = 64
"""Values of a knob that are tried on either side."""
STEP = 0.02
"""Relative distance of the values of a continuous range that are tried."""
COUNTABLE = 1024


class DomainLike(Protocol):
    """What a repair needs of `pgolf_sweep.space.domains.Domain`."""

    def count(self) -> int | None:
        """Number of values, None for a continuous range."""

    def values(self) -> Iterator[KnobValue]:
        """All values, where they can be counted."""

    def encode(self, value: KnobValue) -> Any:
        """Anything for a value of the domain; ValueError for another."""


def nearest_values(domain: DomainLike, value: KnobValue) -> list[KnobValue]:
    """Other values of a parameter, those nearest to `value` first."""
    count = domain.count()
    if count is not None and count <= COUNTABLE:
        found = [other for other in domain.values() if other != value]
        numbers: list[int | float] = [v for v in found if isinstance(v, int | float)]
        if not isinstance(value, int | float) or len(numbers) < len(found):
            return found
        middle = float(value)
        by_distance = sorted(numbers, key=lambda other: abs(other - middle))
        return [*by_distance]
    if not isinstance(value, int | float):
        return []
    nearby: list[KnobValue] = []
    for step in range(1, MOST_VALUES + 1):
        apart = step if isinstance(value, int) else step * STEP * abs(value)
        nearby += [value - apart, value + apart]
    return [other for other in nearby if _holds(domain, other)]


def _holds(domain: DomainLike, value: KnobValue) -> bool:
    try:
        domain.encode(value)
    except ValueError:
        return False
    return True


def repair(
    verdict: Callable[[Mapping[str, KnobValue]], Verdict],
    knobs: Mapping[str, KnobValue],
    may_give: Mapping[str, Sequence[KnobValue]],
) -> dict[str, KnobValue] | None:
    """The configuration nearest to one that does not surely fit, and that does.

    Args:
        verdict: The gate's answer for a configuration.
        knobs: The configuration.
        may_give: For each knob that may change, in the order in which they are tried, its other
            values, nearest first. Where no value of a knob is enough, the one that leaves the
            smallest artifact stays and the next knob is tried on top of it.

    Returns:
        All knobs, changed; None where nothing helps.
    """
    base = dict(knobs)
    for knob, values in may_give.items():
        smallest, best = base, _bytes(verdict(base))
        for value in values:
            changed = {**base, knob: value}
            answer = verdict(changed)
            if answer.kind is VerdictKind.FITS:
                return changed
            size = _bytes(answer)
            if size is not None and (best is None or size < best):
                smallest, best = changed, size
        base = smallest
    return None


def _bytes(verdict: Verdict) -> float | None:
    return None if verdict.artifact_bytes is None else verdict.artifact_bytes.mid
