"""A study as one HTML page that needs no network, and that no knob or reason can script."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.record import SCORE, State, ranked, score_name
from pgolf_sweep.report.figures import figures
from pgolf_sweep.report.lineage import effect_text
from pgolf_sweep.report.noops import no_op_knobs
from pgolf_sweep.report.search import search_document, search_lines
from pgolf_sweep.report.tables import TABLES, table
from pgolf_sweep.report.text import (
    SHORT,
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
    from collections.abc import Iterable, Sequence

    from pgolf_sweep.core.record import Posterior, TrialRecord
    from pgolf_sweep.report.figures import Figure
    from pgolf_sweep.report.lineage import Lineage
    from pgolf_sweep.report.story import Promoted, Story

BEST = 10
"""So many trials are in the table of the best."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --line: #d9dee3;
  --paper: #fff; --panel: #f5f7f9; --good: #0b6bcb; --over: #c2410c; --prune: #b7791f;
  --fail: #a61b3c; --warn: #fff4d6; --edge: #d99a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa6b2; --line: #38414a;
  --paper: #14181c; --panel: #1d2329; --good: #62b0ff; --over: #ff9457; --prune: #e3b341;
  --fail: #ff7b93; --warn: #3a2f10; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb;
  --paper: #fff; --panel: #fff; --good: #0b6bcb; --over: #c2410c; --warn: #fff; }
  body { max-width: none; padding: 0; font-size: 9pt; } .wide { overflow: visible; }
  figure, tr, .figures, .warning { break-inside: avoid; } h2 { break-after: avoid; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 80rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; } .soft, figcaption { color: var(--soft); }
figcaption { font-size: .9rem; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; }
.figures div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: .5rem .9rem; min-width: 0; overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.15rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: .5rem 0; }
.facts dd { font-size: 1rem; overflow-wrap: anywhere; }
.warning { background: var(--warn); border: 1px solid var(--edge); border-left-width: 6px;
  border-radius: 4px; padding: .5rem .9rem; margin: 1rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 0 1.5rem; }
figure { margin: 0; min-width: 0; } figure.broad { grid-column: 1 / -1; }
@media (max-width: 40rem) {
  body { padding: .75rem; }
}
"""

BROAD = {"slices", "parallel", "timeline"}
"""Charts that take the page's whole width."""

DRAW = """
(function () {
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var style = getComputedStyle(document.documentElement);
  function resolved(value) {
    if (typeof value === "string" && value[0] === "@")
      return style.getPropertyValue("--" + value.slice(1)).trim();
    if (Array.isArray(value)) return value.map(resolved);
    if (value && typeof value === "object") {
      var copy = {};
      for (var key in value) copy[key] = resolved(value[key]);
      return copy;
    }
    return value;
  }
  function axis(given) {
    return Object.assign({gridcolor: "@line", linecolor: "@line", zerolinecolor: "@line",
      automargin: true}, given, given.title ? {title: {text: given.title}} : {});
  }
  function draw() {
    figures.forEach(function (figure) {
      var element = document.getElementById(figure.name);
      var layout = Object.assign({height: 340, margin: {l: 56, r: 12, t: 8, b: 48},
        paper_bgcolor: "@paper", plot_bgcolor: "@paper", hovermode: "closest",
        font: {family: "system-ui, sans-serif", size: 12, color: "@ink"},
        hoverlabel: {align: "left"}, legend: {orientation: "h", y: 1.02, yanchor: "bottom"},
        showlegend: figure.traces.length > 1, xaxis: {}, yaxis: {}}, figure.layout);
      if (layout.narrow && element.clientWidth < 640) {
        layout.grid = Object.assign({}, layout.grid,
          {rows: layout.narrow.rows, columns: layout.narrow.columns});
        layout.height = layout.narrow.height;
      }
      delete layout.narrow;
      for (var key in layout)
        if (/^[xy]axis/.test(key)) layout[key] = axis(layout[key]);
      Plotly.react(element, resolved(figure.traces), resolved(layout),
        {responsive: true, displaylogo: false, displayModeBar: false});
    });
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  var wide = innerWidth;
  addEventListener("resize", function () {
    if ((wide < 700) !== (innerWidth < 700)) { wide = innerWidth; draw(); }
  });
})();
"""


def page(story: Story) -> str:
    """The study as it stands.

    Args:
        story: What `read_story` read; nothing else is looked at.

    Returns:
        An HTML document that is complete in itself: it asks for nothing from outside.
    """
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - 5 MB, for this page only

    found = story.status
    records = sorted(found.records, key=lambda record: record.number)
    knobs = sorted(varied_knobs(records))
    document = found.to_json()
    drawn = figures(story)
    body = [
        _headline(document, story),
        _warnings(records),
        _promotions(story.promoted),
        _best(ranked(records, found.posteriors)[:BEST], knobs, found.posteriors),
        f'<section class="charts">{"".join(map(_figure, drawn))}</section>' if drawn else "",
        _gate(document, search_document(records)),
        _lineage(story.lineage, score_name(records)),
        _everything(records, knobs),
    ]
    scripts = [get_plotlyjs(), DRAW] if drawn else []
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts) or "'none'"
    # Only these very scripts run: what the page quotes of a study cannot.
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data: blob:"
    )
    data = ""
    if drawn:
        plain = json.dumps([_plain(figure) for figure in drawn], separators=(",", ":"))
        data = f'<script type="application/json" id="figures">{_inert(plain)}</script>\n'
        data += "".join(f"<script>{script}</script>\n" for script in scripts)
    name = escape(found.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name} - pgolf-sweep</title>\n<style>{TABLES}{STYLE}</style>\n</head>\n"
        f"<body>\n{chr(10).join(part for part in body if part)}\n{data}</body>\n</html>\n"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _inert(text: str) -> str:
    """JSON that no HTML parser takes for markup."""
    return text.replace("<", "\\u003c")


def _plain(figure: Figure) -> dict[str, Any]:
    """A figure for the page's script; NaN and infinities, which JSON lacks, are gaps."""
    return {
        "name": f"chart-{figure.name}",
        "traces": [_quoted(trace) for trace in figure.traces],
        "layout": _quoted(figure.layout),
    }


def _quoted(value: Any) -> Any:
    """Plotly reads some tags in texts: those of a study are shown as they are."""
    if isinstance(value, str):
        quoted = value.replace("&", "&amp;").replace("<", "&lt;")
        return quoted.replace("&lt;br>", "<br>").replace("&lt;extra>&lt;/extra>", "<extra></extra>")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(item) for item in value]
    return value


def _headline(document: Mapping[str, Any], story: Story) -> str:
    tally = document["trials"]
    top, name = document["best"], document["metric"]
    figures = []
    if top is not None:
        figures += [
            (f"best {name}", score(top[name])),
            ("its headroom", bytes_text(top["headroom_bytes"]) or "not measured"),
            ("trial", str(top["number"])),
            *_by_all_scores(document, story.status.posteriors.get(top["number"])),
        ]
        if name != SCORE and top["headroom_bytes"] is None:
            del figures[1]
    figures += [
        (state, str(count)) for state, count in tally.items() if count or state == State.COMPLETED
    ]
    if document["run_cap"] is not None:
        figures.append(("run_cap", str(document["run_cap"])))
    state = document["state"] + (f" ({document['reason']})" if document["reason"] else "")
    cap = " within the cap" if name == SCORE else ""
    none = "" if top else f"<p>No completed trial{cap} yet.</p>"
    question = f"<p>{escape(story.question)}</p>" if story.question else ""
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in story.facts)
    return (
        f"<header><h1>{escape(document['study'])}</h1>"
        f'{question}<p class="soft">{escape(state)}</p>{none}{_figures(figures)}'
        + (f'<dl class="facts">{facts}</dl>' if facts else "")
        + "</header>"
    )


def _by_all_scores(
    document: Mapping[str, Any], posterior: Posterior | None
) -> list[tuple[str, str]]:
    """What the study says of the best trial over seeds, with its 95 % interval."""
    if posterior is None:
        return []
    alike = document["best_posterior"]["tied_with"]
    more = f"{len(alike)} other trial{'s' * (len(alike) != 1)}"
    tied = [("cannot be told from", more)] if alike else []
    return [("by all scores, 95 %", posterior.text), *tied]


def _promotions(promoted: Sequence[Promoted]) -> str:
    """The confirmed score of each submission folder: fresh seeds, not the search's lucky one."""
    parts = []
    for one in promoted:
        spread = f" \u00b1 {one.std:.4f}" if one.std is not None else ""
        verdict = "passes its rules" if one.ok else f"breaks: {', '.join(one.failures)}"
        pairs = [
            ("mean val_bpb on fresh seeds", f"{one.val_bpb:.4f}{spread}"),
            ("seeds", ", ".join(map(str, one.seeds)) or "none named"),
            ("artifact", bytes_text(one.artifact_bytes)),
            ("verify", verdict),
        ]
        if one.trial is not None:
            pairs.insert(0, ("trial", str(one.trial)))
        if one.p_value is not None:
            pairs.insert(3, ("p against the record", f"{one.p_value:.2g}"))
        compared = f"<p>{escape(one.against)}.</p>" if one.against else ""
        parts.append(f"<h2>Promotion: {escape(one.folder)}</h2>{_figures(pairs)}{compared}")
    return "".join(parts)


def _warnings(records: Sequence[TrialRecord]) -> str:
    idle = "".join(f"<p>{escape(one.sentence)}</p>" for one in no_op_knobs(records))
    if not idle:
        return ""
    return f'<div class="warning" role="note"><strong>Knobs without effect</strong>{idle}</div>'


def _best(
    first: Sequence[TrialRecord], knobs: Sequence[str], posteriors: Mapping[int, Posterior]
) -> str:
    if not first:
        return ""

    def by_all(record: TrialRecord) -> list[str]:
        """What the order is by, where that is known."""
        known = posteriors.get(record.number)
        return [] if not posteriors else ["" if known is None else score(known.mean)]

    rows = [
        [
            str(record.number),
            score(record.val_bpb),
            *by_all(record),
            bytes_text(record.artifact_bytes),
            bytes_text(record.headroom_bytes),
            duration(record.slot_seconds or None),
            *(value_text(record.knobs[name]) if name in record.knobs else "" for name in knobs),
        ]
        for record in first
    ]
    middle = ["by all scores"] if posteriors else []
    heads = ["trial", score_name(first), *middle, "artifact", "headroom", "time", *knobs]
    return f"<h2>Best trials</h2>{table(heads, rows, numbers=len(heads))}"


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
    heads = ["trial", score_name(records), "artifact", "headroom", "time"]
    heads += ["outcome", "knobs", "reason"]
    return (
        f"<h2>Trials</h2>{table(heads, rows, numbers=5)}"
        '<p class="soft">~ predicted. Only knobs that vary in this study are shown.</p>'
    )


def _lineage(tree: Lineage | None, name: str) -> str:
    if tree is None or not tree.nodes:
        return ""
    rows = [
        [
            str(node.number),
            score(node.val_bpb) or node.outcome.value,
            effect_text(node.effect),
            "" if node.parent is None else str(node.parent),
            f"{'· ' * depth}{node.idea or ', '.join(node.changed) or 'as the study has it'}",
            node.variant[:SHORT],
            node.proposer.removeprefix("propose:"),
        ]
        for depth, node in tree.walk()
    ]
    heads = ["trial", name, "against its parent", "parent", "idea", "program", "by"]
    return (
        f"<h2>Lineage</h2>{table(heads, rows, numbers=4)}"
        '<p class="soft">Scores are means over seeds; the interval holds the difference with 95 %.'
        "</p>"
    )


def _gate(document: Mapping[str, Any], search: dict[str, Any]) -> str:
    seconds = document["slot_seconds"]
    if document["metric"] != SCORE and not document["trials"]["discarded"]:
        lines = [("trained", duration(seconds["trained"])), ("idle", duration(seconds["idle"]))]
        return f"<h2>Slots</h2>{_figures(lines)}" + _lines(search)
    return (
        "<h2>Slots</h2>"
        + _figures(
            [
                ("discarded by the gate", str(document["trials"]["discarded"])),
                ("passed over by the sampler, cannot fit", str(document["redrawn"])),
                ("saved by the gate, about", duration(seconds["saved_by_gate"])),
                ("trained", duration(seconds["trained"])),
                ("idle", duration(seconds["idle"])),
            ]
        )
        + _lines(search)
    )


def _lines(search: dict[str, Any]) -> str:
    return "".join(f"<p>{escape(text)}.</p>" for text in search_lines(search))


def _figure(figure: Figure) -> str:
    kind = ' class="broad"' if figure.name in BROAD else ""
    return (
        f"<figure{kind}><h2>{escape(figure.title)}</h2>"
        f'<div id="chart-{figure.name}"></div>'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _figures(pairs: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="figures">{cells}</dl>'
