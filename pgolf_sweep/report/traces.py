"""Traces and axes of which a study's charts are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from pgolf_sweep.core.record import cost, score_name
from pgolf_sweep.report.text import knobs_text, score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgolf_sweep.core.record import TrialRecord

_Item = TypeVar("_Item")

MOST_DOTS = 1200
"""Dots of one kind in a chart: a third of them the best, the rest an even sample."""

BYTES_AXIS = {"tickformat": ",d", "nticks": 5}


def score_axis(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """The axis of a study's scores, under their name."""
    return {"title": score_name(records), "tickformat": ".4~g"}


def bpb(record: TrialRecord) -> float:
    """A trial's score; infinity where it has none."""
    return record.val_bpb if record.val_bpb is not None else math.inf


def points(
    given: Sequence[tuple[Any, TrialRecord]],
    name: str,
    color: str,
    *,
    y: Callable[[TrialRecord], float],
    symbol: str = "circle",
) -> dict[str, Any]:
    """Dots of trials: where each lies across, and the trial that says how high."""
    # Thousands of dots hide each other and make the page heavy; the best ones are all kept.
    placed = subsampled(sorted(given, key=lambda pair: cost(pair[1])), MOST_DOTS)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x for x, _ in placed],
        "y": [y(record) for _, record in placed],
        "text": [f"trial {r.number}: {score(r.val_bpb)}" for _, r in placed],
        "hoverinfo": "text",
        "marker": {"color": color, "size": 7, "symbol": symbol},
    }


def line(
    x: Sequence[Any],
    y: Sequence[float],
    name: str,
    color: str,
    *,
    shape: str = "linear",
    dash: str = "solid",
) -> dict[str, Any]:
    """A line through points."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": color, "width": 2, "shape": shape, "dash": dash},
    }


def vertical_line(x: float) -> dict[str, Any]:
    """A line from the chart's floor to its top."""
    line = {"color": "@over", "width": 2}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def plain(value: object) -> Any:
    """A knob's value as an axis takes it: numbers as they are, all else as text."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return str(value)


def axis_scale(values: Sequence[Any]) -> dict[str, Any]:
    """Logarithmic where positive numbers span a factor of eight, text where one is text."""
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) < len(values):
        return {"type": "category", "categoryorder": "category ascending"}
    few = sorted(set(numbers))
    if min(numbers) > 0 and max(numbers) / min(numbers) >= 8:
        return {"type": "log"} | ({"tickvals": few} if len(few) <= 6 else {"nticks": 5})
    return {"tickvals": few} if len(few) <= 6 else {"nticks": 5}


def axis_places(values: Sequence[object]) -> Callable[[object], float]:
    """Where a knob's value lies on its axis of the parallel coordinates, 0 to 1."""
    known = [plain(v) for v in values if v is not None]
    numbers = [v for v in known if isinstance(v, int | float)]
    if len(numbers) == len(known):
        scale = math.log if min(numbers) > 0 and max(numbers) / min(numbers) >= 8 else float
        low, high = scale(min(numbers)), scale(max(numbers))
        return lambda v: 0.5 if v is None else (scale(v) - low) / ((high - low) or 1.0)  # type: ignore[arg-type]
    names = sorted({str(v) for v in known})
    last = max(1, len(names) - 1)
    return lambda v: 0.5 if v is None else names.index(str(v)) / last


def knobs_lines(record: TrialRecord, names: Sequence[str]) -> str:
    """A trial's knobs, a line each."""
    return knobs_text({n: record.knobs[n] for n in names if n in record.knobs}).replace(" ", "<br>")


def subsampled(items: Sequence[_Item], most: int) -> list[_Item]:
    """The first third of `most` from the front, the rest evenly from what follows."""
    if len(items) <= most:
        return list(items)
    head = most // 3
    step = (len(items) - head) / (most - head)
    return [*items[:head], *(items[head + int(n * step)] for n in range(most - head))]
