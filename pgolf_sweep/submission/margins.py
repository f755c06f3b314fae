"""Margins over a record, by every rule that reviewers used, from a few seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.submission.stats import compare, same_yardstick, seeds_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.config.rules import Record, Rules
    from pgolf_sweep.submission.evidence import SeedRun
    from pgolf_sweep.submission.stats import Comparison

PRESETS = {"strict": "parameter-golf-2026", "frontier": "parameter-golf-2026-frontier"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The answer by one margin.

    Attributes:
        name: ``strict`` or ``frontier``.
        margin_nats: Improvement to show.
        p_limit: p must be below this.
        improvement_nats: Record minus mean loss.
        p_value: One-sided; None for one seed.
        method: Of the test.
        met: Whether the margin is shown.
        seeds_needed: Seeds that would show it if mean and spread stay; None where none would.
    """

    name: str
    margin_nats: float
    p_limit: float
    improvement_nats: float
    p_value: float | None
    method: str
    met: bool
    seeds_needed: int | None

    def __str__(self) -> str:
        verdict = "shown" if self.met else "not shown"
        p_value = "no p from one seed" if self.p_value is None else f"p = {self.p_value:.3g}"
        needed = (
            f"{self.seeds_needed} seeds needed"
            if self.seeds_needed is not None
            else "no number of seeds would do with this mean"
        )
        return (
            f"{self.name}: {verdict}; {self.improvement_nats:+.5f} nats, {p_value} for more than "
            f"{self.margin_nats:g} nats (limit {self.p_limit:g}); {needed}"
        )


def against_record(runs: Sequence[SeedRun], rules: Rules) -> Comparison | None:
    """The runs against the rules' record; None where there is none or it cannot be compared."""
    record = rules.record
    if record is None or len(runs) < 2:
        return None
    if not all(same_yardstick(run.val_bpb, run.val_loss_nats, record) for run in runs):
        return None
    return compare([run.val_loss_nats for run in runs], record, rules.margin_nats)


def margins(runs: Sequence[SeedRun], record: Record | None) -> list[Margin]:
    """Both margins; none where there is no record, or it was measured by another yardstick."""
    scored = [run for run in runs if run.failure is None]
    if record is None or not scored:
        return []
    if not all(same_yardstick(run.val_bpb, run.val_loss_nats, record) for run in scored):
        return []
    losses = [run.val_loss_nats for run in scored]
    answers = []
    for name, preset in PRESETS.items():
        rules = load_rules(preset, base=Path())
        result = compare(losses, record, rules.margin_nats) if len(losses) > 1 else None
        p_value = result.p_value if result else None
        answers.append(
            Margin(
                name=name,
                margin_nats=rules.margin_nats,
                p_limit=rules.p_value,
                improvement_nats=record.val_loss_nats - sum(losses) / len(losses)
                if result is None
                else result.improvement_nats,
                p_value=p_value,
                method=result.method if result else "",
                met=p_value is not None and p_value < rules.p_value,
                seeds_needed=seeds_needed(losses, record, rules.margin_nats, rules.p_value),
            )
        )
    return answers
