"""Whether the cheaper rungs of a study rank configurations as the sweep's own rung does.

The configurations that ran on both are compared. Since the leading ones go on, they are alike, so
that their agreement is less than that of all.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.record import State, cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord

LEAST_PAIRS = 5
"""Configurations that ran on both rungs below which nothing is said of their order."""

SURE = 1.96
MISRANKS = 0.2
"""Kendall's tau below which a rung is said to misrank."""

LEAST_FOR_KNOBS = 8
FLIPS = 0.05
"""Probability of naming any knob where none flips."""
STRETCH = 0.5, 2.0
"""A rung whose differences are this much larger or smaller may yet be right of all knobs."""


def rungs_document(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """The ``rungs`` of ``status --json``'s ``search``; empty for a study without any.

    For each cheaper rung `tau`, Kendall's rank correlation of its scores with the sweep's own, with
    its 95 % interval, over `pairs` configurations; None where there are too few.
    """
    numbers = sorted({r.rung for r in records if r.rung is not None})
    whole = {
        r.configuration: r
        for r in records
        if r.outcome is State.COMPLETED and r.duplicate_of is None and r.seed is None
    }
    return {"rungs": [_rung(number, records, whole) for number in numbers]} if numbers else {}


def _rung(
    number: int, records: Sequence[TrialRecord], whole: Mapping[str, TrialRecord]
) -> dict[str, Any]:
    ran = [r for r in records if r.rung == number and r.duplicate_of is None]
    done = [r for r in ran if r.outcome is State.SCREENED]
    pairs = [(r, whole[r.configuration]) for r in done if r.configuration in whole]
    tau = low = high = None
    if len(pairs) >= LEAST_PAIRS:
        tau = kendall([(cost(short), cost(full)) for short, full in pairs])
        low, high = _interval(tau, len(pairs))
    return {
        "rung": number,
        "screened": len(done),
        "slot_seconds": sum(r.slot_seconds for r in ran),
        "pairs": len(pairs),
        "tau": tau,
        "tau_low": low,
        "tau_high": high,
        "flips": flips(pairs),
    }


def kendall(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-b of pairs of scores; 0 where either never differs."""
    from scipy.stats import kendalltau  # noqa: PLC0415 - half a second

    first, second = zip(*pairs, strict=True)
    found = float(kendalltau(first, second).statistic)
    return 0.0 if math.isnan(found) else found


def _interval(tau: float, pairs: int) -> tuple[float, float]:
    """95 % interval of tau. Source: Fieller, Hartley and Pearson, 1957, Biometrika 44."""
    middle = math.atanh(max(-0.999, min(0.999, tau)))
    half = SURE * math.sqrt(0.437 / max(1, pairs - 4))
    return math.tanh(middle - half), math.tanh(middle + half)


def flips(pairs: Sequence[tuple[TrialRecord, TrialRecord]]) -> list[dict[str, Any]]:
    """Knobs of which the cheaper rung makes high or low values look better than they are.

    By the rank correlation of the knob with the difference of the two scores, once the cheaper one
    is stretched as the other asks, at a level of `FLIPS` for all knobs together; the strongest
    first.

    Args:
        pairs: The trials of a configuration on the cheaper rung and on the sweep's own.
    """
    from scipy.stats import spearmanr  # noqa: PLC0415 - half a second

    if len(pairs) < LEAST_FOR_KNOBS:
        return []
    stretch = _stretch([(cost(short), cost(full)) for short, full in pairs])
    # What is left where the rungs agree is rounding.
    apart = [round(cost(full) - stretch * cost(short), 9) for short, full in pairs]
    names = [
        name
        for name in pairs[0][0].knobs
        if len({_number(short, name) for short, _ in pairs} - {None}) > 1
    ]
    found = []
    for name in names:
        both = [
            (value, gap)
            for (short, _), gap in zip(pairs, apart, strict=True)
            if (value := _number(short, name)) is not None
        ]
        if len(both) < LEAST_FOR_KNOBS or len({gap for _, gap in both}) < 2:
            continue
        result = spearmanr([value for value, _ in both], [gap for _, gap in both])
        if result.pvalue * len(names) < FLIPS:
            too_good = "high" if result.statistic > 0 else "low"
            found.append(
                {"knob": name, "looks_too_good": too_good, "p_value": float(result.pvalue)}
            )
    return sorted(found, key=lambda one: one["p_value"])


def _stretch(pairs: Sequence[tuple[float, float]]) -> float:
    """By how much a difference on the cheaper rung counts on the other, within reason."""
    short, full = fmean(x for x, _ in pairs), fmean(y for _, y in pairs)
    spread = sum((x - short) ** 2 for x, _ in pairs)
    shared = sum((x - short) * (y - full) for x, y in pairs)
    low, high = STRETCH
    return min(high, max(low, shared / spread if spread else 1.0))


def _number(record: TrialRecord, name: str) -> float | None:
    value = record.knobs.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]


def rung_lines(rungs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The document in words, a line for each rung."""
    lines = []
    for one in rungs:
        text = f"rung {one['rung']}: {one['screened']} trials screened"
        if one["tau"] is None:
            text += f"; {one['pairs']} ran on the sweep's own rung, too few to compare the order"
        else:
            text += (
                f"; of {one['pairs']} that ran on the sweep's own rung the order agrees by tau "
                f"{one['tau']:.2f} ({one['tau_low']:.2f} to {one['tau_high']:.2f})"
            )
            if one["tau"] < MISRANKS:
                text += ": it misranks"
        if one["flips"]:
            named = ", ".join(f"{flip['looks_too_good']} {flip['knob']}" for flip in one["flips"])
            text += f"; it makes {named} look better than the sweep's own rung finds"
        lines.append(text)
    return lines
