"""Tables of trials on a terminal; used by every command that shows trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

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
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord

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


def trials_table(
    records: Sequence[TrialRecord], knob_names: Collection[str], *, title: str | None = None
) -> Table:
    """A table of trials: outcome, score, bytes, the knobs that vary, the reason."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "outcome", "val_bpb", "artifact", "headroom", "time"):
        table.add_column(name, justify="left" if name == "outcome" else "right", no_wrap=True)
    table.add_column("knobs", overflow="fold")
    with_reason = any(record.reason for record in records)
    if with_reason:
        table.add_column("reason", overflow="fold")
    for record in records:
        cells = [
            str(record.number),
            outcome_text(record),
            score(record.val_bpb),
            artifact_text(record),
            bytes_text(record.headroom_bytes),
            duration(record.slot_seconds or None),
            knobs_text({n: v for n, v in record.knobs.items() if n in knob_names}),
        ]
        texts = [*cells, record.reason] if with_reason else cells
        table.add_row(*(Text(text) for text in texts))
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
