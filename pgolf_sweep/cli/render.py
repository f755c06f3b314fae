"""Tables of trials on a terminal; used by every command that shows trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pgolf_sweep.core.record import SCORE, score_name
from pgolf_sweep.report.text import (
    artifact_text,
    bytes_text,
    duration,
    knobs_text,
    outcome_text,
    program_text,
    score,
    value_text,
    varied_knobs,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from pgolf_sweep.core.record import Posterior, TrialRecord

__all__ = [
    "artifact_text",
    "bytes_text",
    "duration",
    "knobs_text",
    "score",
    "trials_table",
    "troubled_nodes",
    "value_text",
    "varied_knobs",
]


WIDE = 10_000
BY_ALL = "by all"
DROPPED_FIRST = ("time", "headroom", "outcome", BY_ALL, "artifact")
"""Columns that a narrow terminal does without, in this order."""
STUDIES_DROPPED_FIRST = ("all", "headroom", "changed", "completed")
"""The same of the table of studies."""
LEAST_REASON = 24
"""Columns of text in which a reason still reads well beside the knobs."""


def trials_table(
    records: Sequence[TrialRecord],
    knob_names: Collection[str],
    *,
    title: str | None = None,
    posteriors: Mapping[int, Posterior] | None = None,
) -> TrialsTable:
    """A table of trials: outcome, score, bytes, the knobs that vary, the reason.

    Args:
        records: Their rows.
        knob_names: The knobs that are shown.
        title: Above the table.
        posteriors: What all scores say of each, where the table is in that order.
    """
    name = score_name(records)
    known = posteriors or {}
    rows = [
        {
            "trial": str(record.number),
            "outcome": outcome_text(record),
            name: score(record.val_bpb),
            BY_ALL: score(known[record.number].mean) if record.number in known else "",
            "artifact": artifact_text(record),
            "headroom": bytes_text(record.headroom_bytes),
            "time": duration(record.slot_seconds or None),
            "knobs": knobs_text({n: v for n, v in record.knobs.items() if n in knob_names}),
            "program": program_text(record),
            "reason": record.reason,
        }
        for record in records
    ]
    return TrialsTable(rows, title, name)


class TrialsTable:
    """Rows that fit the terminal: where it is narrow, knobs and reason stand below their trial.

    No number and no ``KNOB=value`` is ever broken, unless it alone is wider than the terminal.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], title: str | None, score: str) -> None:
        self._rows = rows
        self._score = score
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for the console's width."""
        sizes = [n for n in ("artifact", "headroom") if self._of_contest or self._has(n)]
        by_all = [BY_ALL] if self._has(BY_ALL) else []
        columns = ["trial", "outcome", self._score, *by_all, *sizes, "time"]
        pairs = [pair for row in self._rows for pair in row["knobs"].split(" ")]
        longest = max(map(len, pairs), default=0)
        named = ("knobs", "program", "reason")
        texts = [name for name in named if any(row[name] for row in self._rows)]
        beside = longest + 2 + (LEAST_REASON + 2) * len(set(texts) - {"knobs"})
        base = self._table(columns, [])
        if console.measure(base, options=options.update(width=WIDE)).maximum + beside <= (
            options.max_width
        ):
            yield self._table(columns, texts)
            return
        for name in [name for name in DROPPED_FIRST if name in columns]:
            if console.measure(base, options=options.update(width=WIDE)).maximum <= (
                options.max_width
            ):
                break
            columns.remove(name)
            base = self._table(columns, [])
        if self._title:
            yield Text(self._title, style="italic")
        head, *lines = console.render_lines(base, options.update(height=None), pad=False)
        yield from head
        yield Segment.line()
        for row, line in zip(self._rows, lines, strict=True):
            yield from line
            yield Segment.line()
            for name in texts:
                if row[name]:
                    yield Padding(Text(row[name]), (0, 0, 0, 4), expand=False)

    @property
    def _of_contest(self) -> bool:
        return self._score == SCORE

    def _has(self, name: str) -> bool:
        return any(row[name] for row in self._rows)

    def _table(self, columns: Sequence[str], texts: Sequence[str]) -> Table:
        """The rows as a table; the title only where it is all that is shown."""
        title = self._title if texts else None
        table = Table(
            title=title, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for name in columns:
            table.add_column(name, justify="left" if name == "outcome" else "right", no_wrap=True)
        for name in texts:
            table.add_column(name, overflow="fold")
        for row in self._rows:
            table.add_row(*(Text(row[name]) for name in (*columns, *texts)))
        return table


class StudiesTable:
    """A row a study; a narrow terminal does without whole columns, never without a name.

    Args:
        rows: Cells by heading, the same headings in each.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for the console's width."""
        names = list(self._rows[0])
        for name in STUDIES_DROPPED_FIRST:
            wide = console.measure(self._table(names), options=options.update(width=WIDE))
            if wide.maximum <= options.max_width:
                break
            names.remove(name)
        yield self._table(names)

    def _table(self, names: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            left = name in {"study", "state", "changed"}
            table.add_column(
                name,
                justify="left" if left else "right",
                no_wrap=name != "study",
                overflow="fold",
            )
        for row in self._rows:
            table.add_row(*(Text(row[name]) for name in names))
        return table


def troubled_nodes(rows: Iterable[Mapping[str, Any]], now: float) -> list[str]:
    """A line for each node that takes no trials; `rows` are those of ``status --json``."""
    lines = []
    for row in rows:
        if row["state"] in {"ready", "checking"} and not row["refusals"]:
            continue
        again = row["retry_at"]
        left = "" if again is None else f"; tried again in {duration(max(0.0, again - now))}"
        lines.append(f"{row['node']} {row['state']}: {row['reason']}{left}")
        lines += [f"  next: {one['next_step']}" for one in row["refusals"]]
    return lines
