"""The page of a sweep: what `launch`, `watch` and `status` show, at any width.

It is drawn from the plain data of ``status.json``, so that a driver's own view and that of one who
only reads the study are the same.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pgolf_sweep.cli.render import bytes_text, duration, score, troubled_nodes, value_text
from pgolf_sweep.core.record import SCORE, State
from pgolf_sweep.core.secrets import visible
from pgolf_sweep.report.text import budget_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from pgolf_sweep.core.record import Posterior

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-~=+*#"
BAR = "█░"
ASCII_BAR = "#."
BAR_WIDTH = 16
ROOM_FOR_BAR = 70
CURVE_WIDTH = 16
LABEL_WIDTH = 9
LONGEST_NODE = 20
MOST_NAMED_NODES = 4
NO_BREAK = "\ue000"
"""Stands for a blank where a line is not to be broken: rich breaks at no-break spaces, too."""
_QUANTITY = re.compile(
    r"(?<=\d) (?=(?:h|min|s|B|of)\b)|(?<=\bh) (?=\d\d min)|(?<=\bmin) (?=\d\d s)"
)
"""Blanks within a number with its unit."""
DROPPED_FIRST = ("curve", "node", "left")
"""Columns of running trials that a narrow terminal does without, in this order."""

ENDING = {"finished": "ending", "cancelled": "cancelling"}
"""States of a driver whose last trials still run, in words."""

STYLES = {
    "running": "green",
    "draining": "yellow",
    "ending": "green",
    "finished": "green",
    "interrupted": "red",
    "unreachable": "red",
    "no_healthy_nodes": "red",
    "aborted_same_error": "red",
}


class Page:
    """A sweep at one moment.

    Args:
        document: As ``status.json`` has it, with the study's name under ``study``.
        varied: Names of the knobs that are shown.
        now: Seconds since 1970.
        posterior: What all scores say of the best trial's, where that is known.
        alive: Whether a driver holds the study.
        more: Further labels and lines, for one who asks once.
        height: Lines that the page may have; None: as many as it takes.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        varied: set[str],
        now: float,
        posterior: Posterior | None = None,
        alive: bool = True,
        more: Iterable[tuple[str, str]] = (),
        height: int | None = None,
    ) -> None:
        self._document = document
        self._varied = varied
        self._now = now
        self._posterior = posterior
        self._alive = alive
        self._more = list(more)
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The page for the console's width."""
        width, ascii_only = options.max_width, options.ascii_only
        head = Text.assemble(
            (str(self._document.get("study", "")), "bold"),
            ": ",
            (self._state, f"bold {STYLES.get(self._state, '')}".strip()),
            f" ({reason})" if (reason := visible(str(self._document.get("reason") or ""))) else "",
        )
        facts = [
            line
            for label, text in [
                ("progress", self._progress(width, ascii_only=ascii_only)),
                *self._facts(),
            ]
            if text
            for line in _folded(label, text, console, width)
        ]
        details = [
            line for label, text in self._more for line in _folded(label, text, console, width)
        ]
        yield head
        yield from facts
        yield from details
        running = self._document.get("running") or []
        if not running or not self._alive:
            return
        room = None
        if self._height is not None:
            used = len(console.render_lines(head, options)) + len(facts) + len(details)
            room = max(0, self._height - used)
        shown = len(running)
        if room is not None and shown > room - 1:
            shown = max(0, room - 2)
        if room is None or room > 1:
            yield self._running(running, shown, width=width, ascii_only=ascii_only)
        if shown < len(running) and room != 0:
            yield Text(f"and {len(running) - shown} more", "dim")

    # -- words ----------------------------------------------------------------------------------

    @property
    def _state(self) -> str:
        state = str(self._document.get("state", ""))
        if self._alive and self._document.get("running"):
            return ENDING.get(state, state)
        return state

    def _progress(self, width: int, *, ascii_only: bool) -> str:
        document = self._document
        counted, cap = document.get("counted"), document.get("run_cap")
        parts = []
        if counted is not None and cap:
            signs = ASCII_BAR if ascii_only else BAR
            done = min(BAR_WIDTH, round(BAR_WIDTH * counted / cap))
            bar = signs[0] * done + signs[1] * (BAR_WIDTH - done) + " "
            parts.append(f"{bar if width >= ROOM_FOR_BAR else ''}{counted} of {cap} trials")
        elif counted is not None:
            parts.append(f"{counted} trials")
        elif cap:
            parts.append(f"run_cap {cap}")
        began = document.get("began_at")
        if began is not None:
            until = self._now if self._alive else document.get("written_at", self._now)
            parts.append(f"elapsed {duration(max(0.0, until - began))}")
        if self._alive and document.get("seconds_left") is not None:
            parts.append(f"about {duration(document['seconds_left'])} left")
        return ", ".join(parts)

    def _facts(self) -> list[tuple[str, str]]:
        document = self._document
        return [
            ("spent", spent_text(document)),
            ("budget", budget_text(document["budget"]) if document.get("budget") else ""),
            ("trials", tally_text(document)),
            *(("best" if i == 0 else "", line) for i, line in enumerate(self._best())),
            ("last", self._last()),
            ("waiting", self._waiting()),
            ("nodes", self._nodes() if self._alive else ""),
            *(("node", text) for text in troubled_nodes(document.get("nodes") or [], self._now)),
        ]

    def _best(self) -> list[str]:
        best = self._document.get("best")
        if best is None:
            return []
        metric = self._document.get("metric") or SCORE
        parts = [f"trial {best['number']}: {metric} {score(best['val_bpb'])}"]
        if self._posterior is not None:
            parts.append(f"by all scores {self._posterior.text}")
        if best.get("headroom_bytes") is not None:
            parts.append(f"headroom {bytes_text(best['headroom_bytes'])}")
        if self._document.get("best_program"):
            parts.append(f"program {self._document['best_program']}")
        pairs = " ".join(_pairs(best["knobs"], self._varied))
        return [", ".join(parts), pairs] if pairs else [", ".join(parts)]

    def _last(self) -> str:
        last = self._document.get("last")
        if last is None:
            return ""
        ago = ""
        if self._alive and last.get("ended_at"):
            ago = f", {duration(max(0.0, self._now - last['ended_at']))} ago"
        outcome = str(last["outcome"])
        if outcome == State.COMPLETED.value:
            metric = self._document.get("metric") or SCORE
            said = f"{metric} {score(last['val_bpb'])}"
        elif outcome == State.SCREENED.value:
            metric = self._document.get("metric") or SCORE
            said = f"{metric} {score(last['val_bpb'])} on rung {last['rung']}"
        else:
            said = f"{outcome}: {last.get('reason') or 'no reason given'}"
        return f"trial {last['number']}{ago}: {said}"

    def _waiting(self) -> str:
        document = self._document
        parts = []
        if waiting := document.get("waiting"):
            near = f" ({document['near']} near the cap)" if document.get("near") else ""
            parts.append(f"{_plural(waiting, 'trial')} for a slot{near}")
        if proposals := document.get("proposals"):
            parts.append(f"{_plural(proposals, 'proposal')} of people")
        return ", ".join(parts)

    def _nodes(self) -> str:
        rows = self._document.get("nodes") or []
        if not rows:
            return ""
        running: dict[str, int] = {}
        for trial in self._document.get("running") or []:
            running[trial.get("node") or ""] = running.get(trial.get("node") or "", 0) + 1
        slots = self._document.get("slots", 0)
        busy = sum(running.values())
        text = f"{busy} of {slots} slots busy"
        if 1 < len(rows) <= MOST_NAMED_NODES:
            named = (f"{node_text(r['node'])} {running.get(r['node'], 0)}" for r in rows)
            return f"{text}: {', '.join(named)}"
        states: dict[str, int] = {}
        for row in rows:
            states[str(row["state"])] = states.get(str(row["state"]), 0) + 1
        return f"{text}; {', '.join(f'{n} {state}' for state, n in states.items())}"

    # -- running trials -------------------------------------------------------------------------

    def _running(
        self,
        running: Sequence[Mapping[str, Any]],
        shown: int,
        *,
        width: int,
        ascii_only: bool,
    ) -> Table:
        """A row for each running trial: what does not fit is left out, whole."""
        metric = str(self._document.get("metric") or SCORE)
        cells = [
            {
                "trial": f"{one['number']} (rung {one['rung']})"
                if one.get("rung")
                else str(one["number"]),
                "node": node_text(one.get("node") or ""),
                "step": one.get("step_text")
                or progress_text(one.get("step"), one.get("total_steps")),
                metric: score(one.get("val_bpb")),
                "curve": sparkline(one.get("curve") or (), ascii_only=ascii_only),
                "left": duration(one.get("seconds_left")),
            }
            for one in running
        ]
        names = list(cells[0])

        def taken() -> int:
            widths = [max(len(name), *(len(row[name]) for row in cells)) for name in names]
            return sum(widths) + 2 * len(names)

        for name in DROPPED_FIRST:
            if taken() <= width:
                break
            names.remove(name)
        beside = width - taken()
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for name in names:
            left = name in {"node", "curve"}
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        pairs = [_pairs(one["knobs"], self._varied) for one in running]
        # Where not even one pair fits, none is shown.
        with_knobs = any(pairs) and beside >= max(len(p[0]) for p in pairs if p) + 2
        if with_knobs:
            table.add_column("knobs", no_wrap=True)
        for row, own in list(zip(cells, pairs, strict=True))[:shown]:
            texts = [Text(row[name]) for name in names]
            if with_knobs:
                texts.append(Text(fitting(own, beside)))
            table.add_row(*texts)
        return table


def line(document: Mapping[str, Any]) -> str:
    """The whole sweep in one line, where the output is no terminal."""
    count = document["counts"]
    parts = [f"{count['running']} running", tally_text(document)]
    if document.get("run_cap") is not None:
        # Pruned and failed trials took a slot, too: the cap is no number of completed ones.
        parts.insert(0, f"{document.get('counted', 0)} of {document['run_cap']} trials")
    best = document.get("best")
    if best is not None:
        room = best.get("headroom_bytes")
        more = "" if room is None else f", headroom {bytes_text(room)}"
        name = f"{document['metric']} " if document.get("metric") else ""
        parts.append(f"best {name}{score(best['val_bpb'])} (trial {best['number']}{more})")
    if document.get("seconds_left") is not None:
        parts.append(f"about {duration(document['seconds_left'])} left")
    return visible(" | ".join(filter(None, parts)))


def _folded(label: str, text: str, console: Console, width: int) -> list[Text]:
    """A fact with its label, folded between words; the label stands before its first line."""
    whole = Text(_QUANTITY.sub(NO_BREAK, visible(text)))
    found = []
    for place, folded in enumerate(whole.wrap(console, max(1, width - LABEL_WIDTH - 1))):
        line = Text(folded.plain.replace(NO_BREAK, " ").rstrip())
        head = label if place == 0 else ""
        found.append(Text.assemble((f"{head:{LABEL_WIDTH}} ", "dim"), line))
    return found


def tally_text(document: Mapping[str, Any]) -> str:
    """Trials by how they ended, and what the gate kept from a slot."""
    count = document.get("counts")
    if not count:
        return ""
    parts = [f"{count[word]} {word}" for word in ("completed", "pruned", "failed")]
    if count.get("screened"):
        parts.insert(1, f"{count['screened']} screened on cheaper rungs")
    if count["discarded"] or (document.get("metric") or SCORE) == SCORE:
        parts.append(f"{count['discarded']} discarded by the gate")
    if document.get("redrawn"):
        parts.append(f"{document['redrawn']} passed over that cannot fit")
    return ", ".join(parts)


def spent_text(document: Mapping[str, Any]) -> str:
    """What the sweep has cost, by the time for which slots were held."""
    held = document.get("held_seconds")
    if held is None:
        return ""
    gpus, price = document.get("gpus") or 0, document.get("usd_per_gpu_hour")
    hours = held * gpus / 3600
    parts = [f"{hours:.2f} GPU-hours" if gpus else f"{duration(held)} of slots"]
    if gpus and price is not None:
        parts.append(f"${hours * price:,.2f}")
    for name, words in (("idle_seconds", "idle"), ("saved_by_gate_seconds", "saved by the gate")):
        if document.get(name):
            parts.append(f"{words} {duration(document[name])}")
    return ", ".join(parts)


def progress_text(step: int | None, total: int | None) -> str:
    """``120/400``, or what is known of it."""
    if step is None:
        return "starting"
    return f"{step}/{total}" if total else str(step)


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """A curve in at most `CURVE_WIDTH` characters, on a log scale: a first loss is far above."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    # Always with its last point.
    places = min(CURVE_WIDTH, len(finite))
    chosen = [finite[round(i * (len(finite) - 1) / (places - 1))] for i in range(places)]
    if min(chosen) > 0:
        chosen = [math.log(value) for value in chosen]
    low, high = min(chosen), max(chosen)
    levels = ASCII_LEVELS if ascii_only else LEVELS
    if high <= low:
        return levels[0] * places
    top = len(levels) - 1
    return "".join(levels[round(top * (value - low) / (high - low))] for value in chosen)


def node_text(name: str) -> str:
    """A node's name, short enough for a column; an address stays whole."""
    host = visible(name)
    if not host.replace(".", "").isdigit():
        host = host.split(".", 1)[0]
    return host if len(host) <= LONGEST_NODE else host[: LONGEST_NODE - 3] + "..."


def fitting(pairs: Sequence[str], width: int) -> str:
    """As many whole ``K=V`` as fit; dots stand for the others."""
    shown = ""
    for place, pair in enumerate(pairs):
        longer = f"{shown} {pair}" if shown else pair
        if len(longer) + (4 if place + 1 < len(pairs) else 0) > width:
            return f"{shown} ..." if shown else ""
        shown = longer
    return shown


def _pairs(knobs: Mapping[str, object], varied: set[str]) -> list[str]:
    return [visible(f"{k}={value_text(v)}") for k, v in knobs.items() if k in varied]


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
