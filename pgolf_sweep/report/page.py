"""A study as one HTML page: no network, no script, whatever its knobs and reasons contain."""

from __future__ import annotations

import math
import statistics
from html import escape
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.report.charts import Axis, Dot, chart
from pgolf_sweep.report.noops import no_op_knobs
from pgolf_sweep.report.text import (
    artifact_text,
    bytes_text,
    duration,
    knobs_text,
    outcome_text,
    score,
    value_text,
    varied_knobs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.report.read import Status

BEST = 10
"""So many trials are in the table of the best."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --line: #d9dee3;
  --paper: #fff; --panel: #f5f7f9; --good: #0b6bcb; --over: #c2410c; --warn: #fff4d6;
  --edge: #d99a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa6b2; --line: #38414a;
  --paper: #14181c; --panel: #1d2329; --good: #62b0ff; --over: #ff9457; --warn: #3a2f10; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb;
  --paper: #fff; --panel: #fff; --good: #0b6bcb; --over: #c2410c; --warn: #fff; }
  body { max-width: none; padding: 0; font-size: 9pt; } .wide { overflow: visible; }
  figure, tr, .figures, .warning { break-inside: avoid; } h2 { break-after: avoid; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 75rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; } .soft, figcaption { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; }
.figures div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: .5rem .9rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.15rem; }
.warning { background: var(--warn); border: 1px solid var(--edge); border-left-width: 6px;
  border-radius: 4px; padding: .5rem .9rem; margin: 1rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 0 1.5rem; }
figure { margin: 0; } .chart { width: 100%; height: auto; font-size: 12px; }
.chart text { fill: var(--soft); } .grid { stroke: var(--line); } .bar { stroke: var(--soft); }
.dot { fill: var(--good); } .over { fill: none; stroke: var(--over); stroke-width: 2; }
.best { fill: none; stroke: var(--good); stroke-width: 2; }
.equal { stroke: var(--soft); stroke-dasharray: 5 4; } .cap { stroke: var(--over); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.text { overflow-wrap: break-word; }
"""


def page(found: Status) -> str:
    """The study as it stands.

    Args:
        found: What `study_status` read; nothing else is looked at.

    Returns:
        An HTML document that is complete in itself.
    """
    records = sorted(found.records, key=lambda record: record.number)
    knobs = sorted(varied_knobs(records))
    document = found.to_json()
    body = [
        _headline(document),
        _warnings(records),
        _best(ranked(records)[:BEST], knobs),
        f'<section class="charts">{_progress(records)}{_prediction(records)}</section>',
        _gate(document),
        _everything(records, knobs),
    ]
    name = escape(found.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # The page asks for nothing, and whatever it quotes cannot make it ask.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name} - pgolf-sweep</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{chr(10).join(part for part in body if part)}\n</body>\n</html>\n"
    )


def _headline(document: Mapping[str, Any]) -> str:
    tally = document["trials"]
    top = document["best"]
    figures = []
    if top is not None:
        figures += [
            ("best val_bpb", score(top["val_bpb"])),
            ("its headroom", bytes_text(top["headroom_bytes"]) or "not measured"),
            ("trial", str(top["number"])),
        ]
    figures += [
        (state, str(count)) for state, count in tally.items() if count or state == State.COMPLETED
    ]
    if document["run_cap"] is not None:
        figures.append(("run_cap", str(document["run_cap"])))
    state = document["state"] + (f" ({document['reason']})" if document["reason"] else "")
    none = "" if top else "<p>No completed trial within the cap yet.</p>"
    return (
        f"<header><h1>{escape(document['study'])}</h1>"
        f'<p class="soft">{escape(state)}</p>{none}{_figures(figures)}</header>'
    )


def _warnings(records: Sequence[TrialRecord]) -> str:
    idle = "".join(f"<p>{escape(one.sentence)}</p>" for one in no_op_knobs(records))
    if not idle:
        return ""
    return f'<div class="warning" role="note"><strong>Knobs without effect</strong>{idle}</div>'


def _best(first: Sequence[TrialRecord], knobs: Sequence[str]) -> str:
    if not first:
        return ""
    rows = [
        [
            str(record.number),
            score(record.val_bpb),
            bytes_text(record.artifact_bytes),
            bytes_text(record.headroom_bytes),
            duration(record.slot_seconds or None),
            *(value_text(record.knobs[name]) if name in record.knobs else "" for name in knobs),
        ]
        for record in first
    ]
    heads = ["trial", "val_bpb", "artifact", "headroom", "time", *knobs]
    return f"<h2>Best trials</h2>{_table(heads, rows, numbers=len(heads))}"


def _everything(records: Sequence[TrialRecord], knobs: Sequence[str]) -> str:
    if not records:
        return "<h2>Trials</h2><p>None yet.</p>"
    rows = [
        [
            str(record.number),
            score(record.val_bpb),
            artifact_text(record),
            bytes_text(record.headroom_bytes),
            duration(record.slot_seconds or None),
            outcome_text(record),
            knobs_text({name: record.knobs[name] for name in knobs if name in record.knobs}),
            record.reason,
        ]
        for record in records
    ]
    heads = ["trial", "val_bpb", "artifact", "headroom", "time", "outcome", "knobs", "reason"]
    return (
        f"<h2>Trials</h2>{_table(heads, rows, numbers=5)}"
        '<p class="soft">~ predicted. Only knobs that vary in this study are shown.</p>'
    )


def _gate(document: Mapping[str, Any]) -> str:
    seconds = document["slot_seconds"]
    return "<h2>Slots</h2>" + _figures(
        [
            ("discarded by the gate", str(document["trials"]["discarded"])),
            ("saved by the gate, about", duration(seconds["saved_by_gate"])),
            ("trained", duration(seconds["trained"])),
            ("idle", duration(seconds["idle"])),
        ]
    )


def _progress(records: Sequence[TrialRecord]) -> str:
    """Scores in the order in which they came, and the best of them so far."""
    done = [
        record
        for record in records
        if record.outcome is State.COMPLETED
        and record.duplicate_of is None
        and record.val_bpb is not None
        and math.isfinite(record.val_bpb)
    ]
    if not done:
        return ""
    done.sort(key=lambda record: (record.ended_at or 0.0, record.number))
    dots = []
    corners: list[tuple[float, float]] = []
    lowest = math.inf
    for place, record in enumerate(done, 1):
        value = record.val_bpb or 0.0
        over = "" if record.submittable else ", over the cap"
        label = f"trial {record.number}: {score(value)}{over}"
        dots.append(Dot(x=place, y=value, label=label, kind="over" if over else "dot"))
        if not over and value < lowest:
            corners += [(place, lowest), (place, value)] if corners else [(place, value)]
            lowest = value
    if corners:
        corners.append((len(done), lowest))
    drawn = chart(
        "Best val_bpb so far",
        Axis(title="completed trials, in the order of their end", text="{:.0f}".format, whole=True),
        Axis(title="val_bpb", text="{:.6g}".format),
        dots,
        lines=[("best", corners)] if corners else [],
    )
    caption = "The line is the best so far."
    if any(not record.submittable for record in done):
        caption += " Rings are over the cap and do not count."
    return _figure("Best so far", drawn, caption)


def _prediction(records: Sequence[TrialRecord]) -> str:
    """What the gate expected, against what came out."""
    dots = []
    errors = []
    within = 0
    cap = None
    for record in records:
        expected, measured = record.predicted_bytes, record.artifact_bytes
        if expected is None or not measured or record.duplicate_of is not None:
            continue
        if record.headroom_bytes is not None:
            cap = measured + record.headroom_bytes
        dots.append(
            Dot(
                x=measured,
                y=expected.mid,
                low=expected.low,
                high=expected.high,
                label=(
                    f"trial {record.number}: predicted {bytes_text(expected.mid)},"
                    f" measured {bytes_text(measured)}"
                ),
                kind="dot" if (record.headroom_bytes or 0) >= 0 else "over",
            )
        )
        errors.append(abs(expected.mid / measured - 1))
        within += expected.low <= measured <= expected.high
    if not dots:
        return ""
    span = [v for dot in dots for v in (dot.x, dot.y, dot.low or dot.y, dot.high or dot.y)]
    # Far enough to cross the whole plot: the chart cuts what leaves it.
    low, high = min(span) / 2, max(span) * 2
    lines = [("equal", [(low, low), (high, high)])]
    if cap is not None:
        lines += [("cap", [(cap, low), (cap, high)]), ("cap", [(low, cap), (high, cap)])]
    drawn = chart(
        "Predicted against measured bytes",
        Axis(title="measured artifact, bytes", text="{:,.0f}".format, whole=True),
        Axis(title="predicted artifact, bytes", text="{:,.0f}".format, whole=True),
        dots,
        lines=lines,
    )
    caption = (
        f"Median error {statistics.median(errors):.1%}; {within} of {len(dots)} within the"
        f" gate's interval (bars). Dashed: predicted as measured. Solid: the cap."
    )
    return _figure("Predicted against measured bytes", drawn, caption)


def _figure(title: str, drawn: str, caption: str) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<figure><h2>{escape(title)}</h2>{drawn}{below}</figure>"


def _figures(pairs: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="figures">{cells}</dl>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> str:
    """A table whose first columns hold numbers."""
    kinds = ["number" if place < numbers else "text" for place in range(len(heads))]

    def cells(tag: str, texts: Sequence[str]) -> str:
        pairs = zip(kinds, texts, strict=True)
        return "".join(f'<{tag} class="{kind}">{escape(text)}</{tag}>' for kind, text in pairs)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{cells("th", heads)}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
