"""Charts as inline SVG: no script, colours from the page's style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 92, 16, 14, 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A point of a chart.

    Attributes:
        label: Shown where the pointer rests on it.
        kind: A class of the style sheet.
        low: Lower end of the bar through it, where it has one.
        high: Upper end of that bar.
    """

    x: float
    y: float
    label: str
    kind: str = "dot"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis measures, and how its numbers read."""

    title: str
    text: Callable[[float], str]
    whole: bool = False
    """Only whole numbers are marked."""


def chart(
    title: str,
    x: Axis,
    y: Axis,
    dots: Sequence[Dot],
    *,
    lines: Iterable[tuple[str, Sequence[tuple[float, float]]]] = (),
) -> str:
    """A chart of dots and lines; a line is a class of the style sheet and its corners.

    What surrounds the dots decides the range: of a line only what is within it is drawn.
    """
    xs = _range([dot.x for dot in dots])
    ys = _range([v for dot in dots for v in (dot.y, dot.low, dot.high) if v is not None])

    def at(horizontal: float, vertical: float) -> tuple[str, str]:
        across = (horizontal - xs[0]) / (xs[1] - xs[0])
        up = (vertical - ys[0]) / (ys[1] - ys[0])
        return (
            f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f}",
            f"{HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}",
        )

    parts = []
    for value in _ticks(*xs, whole=x.whole):
        place, floor = at(value, ys[0])
        parts.append(
            f'<line class="grid" x1="{place}" x2="{place}" y1="{TOP}" y2="{floor}"/>'
            f'<text x="{place}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{escape(x.text(value))}</text>"
        )
    for value in _ticks(*ys, whole=y.whole):
        _, place = at(xs[0], value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place}" y2="{place}"/>'
            f'<text x="{LEFT - 6}" y="{place}" dy="4" text-anchor="end">'
            f"{escape(y.text(value))}</text>"
        )
    inner = []
    for kind, corners in lines:
        points = " ".join(",".join(at(*corner)) for corner in corners)
        inner.append(f'<polyline class="{kind}" points="{points}"/>')
    for dot in dots:
        across, up = at(dot.x, dot.y)
        bar = ""
        if dot.low is not None and dot.high is not None:
            bottom, top = at(dot.x, dot.low)[1], at(dot.x, dot.high)[1]
            bar = f'<line class="bar" x1="{across}" x2="{across}" y1="{bottom}" y2="{top}"/>'
        inner.append(
            f"<g><title>{escape(dot.label)}</title>{bar}"
            f'<circle class="{dot.kind}" cx="{across}" cy="{up}" r="4"/></g>'
        )
    # A nested svg cuts off what leaves the plot; its coordinates stay those of the chart.
    box = f"{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}"
    where = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}"
        f'<svg {where} viewBox="{box}">{"".join(inner)}</svg>'
        f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.title)}</text>"
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text></svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What an axis spans: the values with some air around them."""
    low, high = min(values), max(values)
    air = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - air, high + air


def _ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """About five round numbers within a range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [index * step for index in range(first, last + 1)]
