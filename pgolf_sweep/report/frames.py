"""Studies as pandas frames, for notebooks and for whatever the tables do not answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pgolf_sweep.report.read import study_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.record import TrialRecord


def trials(study_folder: str | Path) -> pd.DataFrame:
    """One row a trial, one column a field; knobs as columns of their own name.

    Args:
        study_folder: ``runs/<study>``.

    Returns:
        Frame indexed by trial number; `predicted_bytes` is split into low, mid and high.
    """
    return frame(study_records(Path(study_folder)))


def frame(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """`trials`, from records in memory."""
    rows = []
    for record in records:
        row = record.to_json()
        knobs = row.pop("knobs")
        row.pop("finals")
        predicted = row.pop("predicted_bytes") or {}
        row |= {f"predicted_bytes_{side}": predicted.get(side) for side in ("low", "mid", "high")}
        rows.append(row | knobs)
    table = pd.DataFrame(rows)
    return table.set_index("number").sort_index() if rows else table
