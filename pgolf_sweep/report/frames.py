"""Rows of trials as pandas frames."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd

from pgolf_sweep.core.record import SCORE, State, TrialRecord, named
from pgolf_sweep.report.posterior import POSTERIOR

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERIM = "intermediate"
WHOLE = [item.name for item in dataclasses.fields(TrialRecord) if item.type == "int | None"]
COLUMNS = [*TrialRecord(number=0, outcome=State.QUEUED, knobs={}).to_json(), *POSTERIOR, INTERIM]


def nested(rows: Sequence[dict[str, Any]], score: str = SCORE) -> pd.DataFrame:
    """One row a trial, one column a key of ``trials --json``, in its order and with its types."""
    return pd.DataFrame(rows, columns=_columns(score))


def _columns(score: str) -> list[str]:
    """The columns of a study by the name of its score."""
    return list(named(dict.fromkeys(COLUMNS), score))


def flat(rows: Sequence[dict[str, Any]], score: str = SCORE) -> pd.DataFrame:
    """One row a trial with cells that a table file can hold.

    Returns:
        Frame by trial number. `predicted_bytes` is split into low, mid and high, `finals` and the
        interim scores are left out, and each knob is a column of its own name (``knob.NAME`` where
        that is a column's already).
    """
    taken = {name for name in _columns(score) if name not in {"knobs", "finals", INTERIM}}
    found = []
    for row in rows:
        predicted = row["predicted_bytes"] or {}
        plain = {name: value for name, value in row.items() if name in taken}
        del plain["predicted_bytes"]
        plain |= {f"predicted_bytes_{side}": predicted.get(side) for side in ("low", "mid", "high")}
        knobs = row["knobs"]
        found.append(plain | {(f"knob.{n}" if n in taken else n): v for n, v in knobs.items()})
    table = pd.DataFrame(found)
    # A count that one trial lacks stays a whole number: 252771, not 252771.0.
    counts = [name for name in WHOLE if name in table.columns]
    return table.astype(dict.fromkeys(counts, "Int64"))
