"""Numbers and knobs as people read them, on a terminal and on a page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.record import TrialRecord


SHORT = 8
"""Digits of a variant's id that people see."""


def score(val_bpb: float | None) -> str:
    """Bits per byte to four digits: a seed's noise is in the fourth."""
    return "" if val_bpb is None else f"{val_bpb:.4f}"


def bytes_text(count: float | None) -> str:
    """Bytes with thousands separators."""
    return "" if count is None else f"{round(count):,} B"


def duration(seconds: float | None) -> str:
    """``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def value_text(value: object) -> str:
    """A knob's value, floats to four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def knobs_text(knobs: Mapping[str, object]) -> str:
    """``MODEL_DIM=96 NUM_LAYERS=3``."""
    return " ".join(f"{name}={value_text(value)}" for name, value in knobs.items())


def varied_knobs(records: Iterable[TrialRecord]) -> set[str]:
    """Names of knobs that do not have one and the same value in all records."""
    values: dict[str, set[object]] = {}
    total = 0
    seen: dict[str, int] = {}
    for record in records:
        total += 1
        for name, value in record.knobs.items():
            values.setdefault(name, set()).add(value)
            seen[name] = seen.get(name, 0) + 1
    return {name for name, found in values.items() if len(found) > 1 or seen[name] < total}


def artifact_text(record: TrialRecord) -> str:
    """Measured bytes, or the predicted ones with a tilde."""
    if record.artifact_bytes is not None:
        return bytes_text(record.artifact_bytes)
    if record.predicted_bytes is not None:
        return "~" + bytes_text(record.predicted_bytes.mid)
    return ""


def program_text(record: TrialRecord) -> str:
    """The short id of another program than the study's, with the idea; empty for the study's."""
    idea = f'"{record.idea}"' if record.idea else ""
    return " ".join(filter(None, [record.variant[:SHORT], idea]))


def outcome_text(record: TrialRecord) -> str:
    """The outcome; a trial that shares another's result is called a duplicate."""
    rung = "" if record.rung is None else f" (rung {record.rung})"
    return record.outcome.value + rung if record.duplicate_of is None else "duplicate"


def budget_text(row: Mapping[str, Any]) -> str:
    """The ``budget`` of ``status --json`` in words: what is spent, and of what."""
    usd = row["spent_usd"]
    spent = f"{row['spent_gpu_hours']:.1f} GPU-hours" + ("" if usd is None else f", ${usd:,.0f}")
    parts = [f"spent {spent}" + (f" of {row['limit']}" if row["limit"] else "")]
    if row["deadline_at"] is not None:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["deadline_at"]))
        parts.append(f"deadline {until}")
    if row["reserved_runs"]:
        parts.append(f"{row['reserved_runs']} runs of a promotion kept back")
    if row["trials_left"] is not None:
        more = "trial" if row["trials_left"] == 1 else "trials"
        parts.append(f"enough for about {row['trials_left']} more {more}")
    return ", ".join(parts)
