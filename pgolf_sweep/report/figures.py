"""Charts of a study, as plain data for Plotly: traces and a layout each.

Colours are names that the page resolves (``@good``, ``@over``, ...), so that one figure serves
light and dark.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.record import SCORE, State, cost, score_name
from pgolf_sweep.report.story import in_order_of_their_end
from pgolf_sweep.report.text import bytes_text, score, varied_knobs
from pgolf_sweep.report.traces import (
    BYTES_AXIS,
    MOST_DOTS,
    axis_places,
    axis_scale,
    bpb,
    knobs_lines,
    line,
    plain,
    points,
    score_axis,
    subsampled,
    vertical_line,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.report.story import Story

MOST_CURVES = 60
"""Curves in one chart: the best ones and an even sample of the others."""
MOST_LINES = 150
"""Lines of the parallel coordinates, the same way."""
MOST_SLICES = 12
FIRST_DRAWS = 10
"""Trials from which random search is extrapolated: later ones are the sampler's choice."""
HEIGHT = 340

OUTCOME_COLORS: dict[str, str] = {
    State.COMPLETED: "@good",
    State.PRUNED: "@prune",
    State.FAILED: "@fail",
    State.RUNNING: "@soft",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One chart.

    Attributes:
        name: Its element's id.
        title: Heading.
        caption: One or two sentences that say what is drawn.
        traces: Plotly's ``data``.
        layout: Plotly's ``layout``, beside what all charts share.
    """

    name: str
    title: str
    caption: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


def figures(story: Story) -> list[Figure]:
    """The charts for which the study has data, in the order of the page."""
    records = sorted(story.status.records, key=lambda record: record.number)
    whole = [record for record in records if record.rung is None]
    scored = [r for r in in_order_of_their_end(whole) if math.isfinite(r.val_bpb or math.nan)]
    knobs = sorted(varied_knobs(records))
    drawn = [
        _progress(scored),
        _curves(story, scored),
        _score_by_bytes(story, scored),
        _importance(story),
        _slices(scored, knobs),
        _parallel(scored, knobs),
        _prediction(records),
        _outcomes(records),
        _timeline(records),
    ]
    return [figure for figure in drawn if figure is not None]


def _progress(scored: Sequence[TrialRecord]) -> Figure | None:
    """Scores in the order in which they came, the best so far, and what random would reach."""
    if not scored:
        return None
    within = [(n, r) for n, r in enumerate(scored, 1) if r.submittable]
    over = [(n, r) for n, r in enumerate(scored, 1) if not r.submittable]
    name = "completed" if score_name(scored) != SCORE and not over else "within the cap"
    traces = [points(within, name, "@good", y=bpb)]
    caption = "The line is the best so far."
    if over:
        traces.append(points(over, "over the cap", "@over", y=bpb, symbol="circle-open"))
        caption += " Rings are over the cap and do not count."
    best_x, best_y, best = [], [], None
    for place, record in within:
        best = record if best is None else min(best, record, key=cost)
        best_x.append(place)
        best_y.append(bpb(best))
    if best is not None:
        best_x.append(len(scored))
        best_y.append(bpb(best))
        traces.append(line(best_x, best_y, "best so far", "@good", shape="hv"))
    first = [r.val_bpb for _, r in within[:FIRST_DRAWS] if r.val_bpb is not None]
    if len(first) >= FIRST_DRAWS and len(within) > FIRST_DRAWS:
        mean, spread = statistics.fmean(first), statistics.stdev(first)
        counts = sorted({*range(1, 11), *range(1, len(within), max(1, len(within) // 60))})
        better = 1 if scored[0].maximize else -1
        expected = [mean + better * spread * _expected_maximum(n) for n in counts]
        traces.append(line(counts, expected, "random search, expected", "@soft", dash="dot"))
        caption += (
            f" Dotted: the expected best of as many random draws, by mean and spread of the first"
            f" {FIRST_DRAWS} trials."
        )
    layout = {
        "xaxis": {"title": "completed trials, in the order of their end"},
        "yaxis": score_axis(scored),
    }
    return Figure(
        name="progress", title="Best so far", caption=caption, traces=traces, layout=layout
    )


def _expected_maximum(n: int) -> float:
    """Expected maximum of n standard Gaussians (Blom's approximation)."""
    return statistics.NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) if n > 1 else 0.0


def _curves(story: Story, scored: Sequence[TrialRecord]) -> Figure | None:
    """Intermediate scores by validation; the best trial's stands out."""
    records = {r.number: r for r in story.status.records}
    order = [r.number for r in sorted(scored, key=cost)]
    order += [number for number in story.curves if number not in set(order)]
    chosen = subsampled([n for n in order if len(story.curves.get(n, ())) > 1], MOST_CURVES)
    if not chosen:
        return None
    traces = []
    for number in reversed(chosen):
        values = story.curves[number]
        outcome = records[number].outcome if number in records else State.RUNNING
        first = number == order[0]
        trace = line(
            list(range(1, len(values) + 1)),
            list(values),
            f"trial {number}",
            "@good" if first else OUTCOME_COLORS.get(outcome, "@soft"),
        )
        trace |= {"opacity": 1.0 if first else 0.35, "showlegend": False}
        trace["line"]["width"] = 3 if first else 1.2
        traces.append(trace)
    caption = f"Thick: the best, trial {order[0]}." if scored else ""
    if any(records[n].outcome is State.PRUNED for n in chosen if n in records):
        caption += " Amber: pruned."
    if len(chosen) < len(story.curves):
        caption += f" {len(chosen)} of {len(story.curves)} curves: the best and a sample."
    values = [v for n in chosen for v in story.curves[n] if math.isfinite(v)]
    layout: dict[str, Any] = {
        "xaxis": {"title": "validation", "dtick": 1},
        "yaxis": score_axis(scored),
    }
    if values:
        # The first validations of a run are far off and would press all else together.
        cuts = statistics.quantiles(values, n=20) if len(values) > 1 else values
        rises = bool(story.status.records) and story.status.records[0].maximize
        low, top = (cuts[0], max(values)) if rises else (min(values), cuts[-1])
        room = 0.05 * (top - low or 1.0)
        layout["yaxis"]["range"] = [low - room, top + room]
    if max(len(story.curves[n]) for n in chosen) > 12:
        del layout["xaxis"]["dtick"]
    return Figure(
        name="curves", title="Learning curves", caption=caption, traces=traces, layout=layout
    )


def _score_by_bytes(story: Story, scored: Sequence[TrialRecord]) -> Figure | None:
    """What a byte buys: score against the measured artifact, with the cap."""
    measured = [(r.artifact_bytes or 0, r) for r in scored if r.artifact_bytes]
    if len(measured) < 2:
        return None
    within = [pair for pair in measured if pair[1].submittable]
    over = [pair for pair in measured if not pair[1].submittable]
    traces = [points(within, "within the cap", "@good", y=bpb)]
    if over:
        traces.append(points(over, "over the cap", "@over", y=bpb, symbol="circle-open"))
    layout: dict[str, Any] = {"xaxis": BYTES_AXIS | {"title": "artifact, bytes"}}
    layout["yaxis"] = score_axis(scored)
    caption = "Higher is better." if scored[0].maximize else "Lower is better."
    if story.cap_bytes is not None:
        layout["shapes"] = [vertical_line(story.cap_bytes)]
        caption += f" The line is the cap, {bytes_text(story.cap_bytes)}."
    return Figure(
        name="bytes", title="Score against bytes", caption=caption, traces=traces, layout=layout
    )


def _importance(story: Story) -> Figure | None:
    if not story.importance:
        return None
    names = list(story.importance)[::-1]
    shares = [story.importance[name] for name in names]
    bar = {
        "type": "bar",
        "orientation": "h",
        "x": shares,
        "y": names,
        "marker": {"color": "@good"},
        "hovertemplate": "%{y}: %{x:.0%}<extra></extra>",
    }
    return Figure(
        name="importance",
        title="Which knobs matter",
        caption="Share of what tells the better trials from the rest (PED-ANOVA). With few trials"
        " it is a hint.",
        traces=[bar],
        layout={
            "xaxis": {"tickformat": ".0%", "rangemode": "tozero"},
            "yaxis": {"automargin": True, "type": "category"},
            "height": max(HEIGHT, 26 * len(names) + 90),
        },
    )


def _slices(scored: Sequence[TrialRecord], knobs: Sequence[str]) -> Figure | None:
    """The score against each knob that varies."""
    shown = [k for k in knobs if len({plain(r.knobs.get(k)) for r in scored} - {None}) > 1]
    shown = shown[:MOST_SLICES]
    if len(scored) < 3 or not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    traces = []
    layout: dict[str, Any] = {
        "grid": {"rows": rows, "columns": columns, "pattern": "independent", "ygap": 0.35},
        "height": 60 + 230 * rows,
        "showlegend": False,
        "narrow": {"columns": 1, "rows": len(shown), "height": 60 + 230 * len(shown)},
    }
    for index, name in enumerate(shown):
        mark = "" if index == 0 else str(index + 1)
        having = [r for r in scored if name in r.knobs]
        values = [plain(r.knobs[name]) for r in having]
        trace = points([(v, r) for v, r in zip(values, having, strict=True)], name, "@good", y=bpb)
        traces.append(trace | {"xaxis": f"x{mark}", "yaxis": f"y{mark}"})
        layout[f"xaxis{mark}"] = {"title": name} | axis_scale(values)
        layout[f"yaxis{mark}"] = {} if index % columns else {"title": score_name(scored)}
    caption = "Each dot is a completed trial; the other knobs vary as well."
    return Figure(
        name="slices", title="Score by knob", caption=caption, traces=traces, layout=layout
    )


def _parallel(scored: Sequence[TrialRecord], knobs: Sequence[str]) -> Figure | None:
    """Parallel coordinates: a line a trial over the knobs, the better the stronger."""
    shown = [k for k in knobs if len({plain(r.knobs.get(k)) for r in scored} - {None}) > 1]
    if len(scored) < 3 or len(shown) < 2:
        return None
    shown = shown[:MOST_SLICES]
    best_first = sorted(scored, key=cost)
    chosen = subsampled(best_first, MOST_LINES)
    places = {name: axis_places([r.knobs.get(name) for r in scored]) for name in shown}
    least, most = cost(best_first[0]), cost(best_first[-1])
    traces = []
    for record in reversed(chosen):
        rank = (cost(record) - least) / ((most - least) or 1.0)
        heights = [places[name](record.knobs.get(name)) for name in shown]
        drawn = line(
            [*shown, score_name(scored)], [*heights, 1.0 - rank], f"trial {record.number}", "@good"
        )
        drawn["line"]["width"] = 1.0 + 1.5 * (1 - rank)
        hover = f"trial {record.number}: {score(record.val_bpb)}<br>{knobs_lines(record, shown)}"
        traces.append(
            drawn
            | {"opacity": 0.08 + 0.8 * (1 - rank) ** 2, "text": hover, "hoverinfo": "text"}
            | {"showlegend": False}
        )
    caption = "Each line is a trial; the better its score, the stronger. Low to high, upwards;"
    caption += " categories in the order of their names; at the right the best are on top."
    layout = {
        "xaxis": {"type": "category", "tickangle": -30, "automargin": True},
        "yaxis": {"visible": False, "range": [-0.05, 1.05]},
    }
    return Figure(
        name="parallel",
        title="Parallel coordinates",
        caption=caption,
        traces=traces,
        layout=layout,
    )


def _prediction(records: Sequence[TrialRecord]) -> Figure | None:
    """What the gate expected, against what came out."""
    pairs = [
        (record.predicted_bytes, record.artifact_bytes, record)
        for record in records
        if record.predicted_bytes is not None
        and record.artifact_bytes
        and record.duplicate_of is None
    ]
    if not pairs:
        return None
    errors = [100 * (expected.mid / measured - 1) for expected, measured, _ in pairs]
    within = sum(expected.low <= measured <= expected.high for expected, measured, _ in pairs)
    median = statistics.median(abs(error) for error in errors)
    caption = (
        f"Median error {median:.1f} %; {within} of {len(pairs)} within the gate's interval (bars)."
        " Above zero: predicted too large."
    )
    shown = subsampled(list(zip(pairs, errors, strict=True)), MOST_DOTS)
    pairs, errors = [pair for pair, _ in shown], [error for _, error in shown]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "x": [measured for _, measured, _ in pairs],
        "y": errors,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (e.high - e.mid) / measured for e, measured, _ in pairs],
            "arrayminus": [100 * (e.mid - e.low) / measured for e, measured, _ in pairs],
            "color": "@soft",
            "thickness": 1,
        },
        "marker": {"color": "@good", "size": 7},
        "text": [
            f"trial {r.number}: predicted {bytes_text(e.mid)}, measured {bytes_text(m)}"
            for e, m, r in pairs
        ],
        "hoverinfo": "text",
    }
    layout = {
        "xaxis": BYTES_AXIS | {"title": "measured artifact, bytes"},
        "yaxis": {"title": "prediction's error, %", "zeroline": True},
    }
    return Figure(
        name="prediction",
        title="Predicted against measured bytes",
        caption=caption,
        traces=[trace],
        layout=layout,
    )


def _outcomes(records: Sequence[TrialRecord]) -> Figure | None:
    if not records:
        return None
    tally: dict[str, int] = {}
    for record in records:
        name = "duplicate" if record.duplicate_of is not None else record.outcome.value
        tally[name] = tally.get(name, 0) + 1
    bar = {
        "type": "bar",
        "x": list(tally.values()),
        "y": list(tally),
        "orientation": "h",
        "text": list(tally.values()),
        "marker": {"color": [OUTCOME_COLORS.get(name, "@soft") for name in tally]},
        "hoverinfo": "x+y",
    }
    return Figure(
        name="outcomes",
        title="Outcomes",
        caption="A discarded trial took no slot; a duplicate shares an earlier trial's result.",
        traces=[bar],
        layout={"xaxis": {"rangemode": "tozero"}, "yaxis": {"automargin": True}},
    )


def _timeline(records: Sequence[TrialRecord]) -> Figure | None:
    """Which slot ran what, and when; gaps are idle."""
    ran = [r for r in records if r.started_at and r.ended_at and r.node]
    if not ran:
        return None
    begun = min(r.started_at or 0.0 for r in ran)
    lanes: dict[str, list[float]] = {}
    bars: dict[State, dict[str, list[Any]]] = {}
    for record in sorted(ran, key=lambda r: r.started_at or 0.0):
        start, end = record.started_at or 0.0, record.ended_at or 0.0
        free = lanes.setdefault(record.node or "", [])
        lane = next((n for n, until in enumerate(free) if until <= start + 0.5), len(free))
        free[lane : lane + 1] = [end]
        kept = bars.setdefault(record.outcome, {"base": [], "x": [], "y": [], "text": []})
        kept["base"].append((start - begun) / 60)
        kept["x"].append((end - start) / 60)
        kept["y"].append(f"{record.node} #{lane + 1}")
        kept["text"].append(f"trial {record.number}: {record.outcome.value}")
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": outcome.value,
            "textposition": "none",
            "hoverinfo": "text",
            # A thin line of the paper's colour parts a trial from the next.
            "marker": {
                "color": OUTCOME_COLORS.get(outcome, "@soft"),
                "line": {"color": "@paper", "width": 1},
            },
            **kept,
        }
        for outcome, kept in bars.items()
    ]
    slots = sum(len(free) for free in lanes.values())
    return Figure(
        name="timeline",
        title="Slots over time",
        caption="A row a slot of a node; a trial's last attempt is drawn. Gaps are idle.",
        traces=traces,
        layout={
            "barmode": "overlay",
            "xaxis": {"title": "minutes since the first trial"},
            "yaxis": {
                "automargin": True,
                "type": "category",
                "categoryorder": "category descending",
            },
            "height": max(220, min(900, 22 * slots + 120)),
        },
    )
