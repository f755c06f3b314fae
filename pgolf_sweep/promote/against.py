"""A promoted trial against another of its study, both on fresh seeds: what the search was worth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.rules import Record
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import write_json
from pgolf_sweep.core.record import BASELINE
from pgolf_sweep.submission.stats import compare, sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pgolf_sweep.submission.evidence import Candidate, SeedRun

FILE = "against.json"
"""Beside the seeds of the promoted trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """How much better a promoted trial is than another.

    Attributes:
        trial: The other's number.
        proposer: Who proposed it.
        seeds: Its fresh seeds that gave a score.
        val_bpb: Its mean score.
        std: Over its seeds (ddof 1); None for one.
        improvement_bpb: Its mean less the promoted trial's.
        p_value: One-sided, that there is no improvement; None where either has one seed.
        method: Of the test.
    """

    trial: int
    proposer: str
    seeds: tuple[int, ...]
    val_bpb: float
    std: float | None
    improvement_bpb: float
    p_value: float | None
    method: str

    def __str__(self) -> str:
        who = "the program's own configuration" if self.proposer == BASELINE else self.proposer
        spread = "" if self.std is None else f" +- {self.std:.4f}"
        better = "better" if self.improvement_bpb > 0 else "worse"
        sure = "no p from one seed"
        if self.p_value is not None:
            sure = f"p = {self.p_value:.2g} ({self.method}, {len(self.seeds)} seeds)"
        return (
            f"{better} by {abs(self.improvement_bpb):.4f} bpb than trial {self.trial}, {who}: "
            f"{self.val_bpb:.4f}{spread}; {sure}"
        )


def rival(candidates: Sequence[Candidate], name: str) -> Candidate:
    """The trial that a promotion is compared with.

    Args:
        candidates: The study's completed trials.
        name: Its number, or ``baseline``.

    Raises:
        InputError: There is no such trial.
    """
    if name == BASELINE:
        found = next((c for c in candidates if c.proposer == BASELINE), None)
    else:
        found = next((c for c in candidates if str(c.number) == name), None)
    if found is None:
        numbers = ", ".join(str(c.number) for c in candidates[:20])
        raise InputError(
            f"no completed trial to compare with: {name!r}",
            where="--against",
            expected=f"baseline, where the study has one, or one of: {numbers}",
        )
    return found


def against(runs: Sequence[SeedRun], other: Candidate, others: Sequence[SeedRun]) -> Against | None:
    """The comparison; None where no seed of either gave a score.

    Args:
        runs: Of the promoted trial.
        other: The other trial.
        others: Its runs.
    """
    ours = [run for run in runs if run.failure is None]
    theirs = [run for run in others if run.failure is None]
    if not ours or not theirs:
        return None
    bpb = sample([run.val_bpb for run in theirs])
    p_value, method = None, ""
    if len(ours) > 1 and len(theirs) > 1:
        losses = [run.val_loss_nats for run in theirs]
        ended = max(run.end.ended_at for run in theirs)
        record = Record(
            val_bpb=bpb.mean,
            val_loss_nats=sum(losses) / len(losses),
            seed_losses_nats=tuple(losses),
            source=f"trial {other.number}",
            date=datetime.fromtimestamp(ended, tz=UTC).date().isoformat(),
        )
        found = compare([run.val_loss_nats for run in ours], record, 0.0)
        p_value, method = found.p_value, found.method
    return Against(
        trial=other.number,
        proposer=other.proposer,
        seeds=tuple(run.seed for run in theirs),
        val_bpb=bpb.mean,
        std=bpb.std,
        improvement_bpb=bpb.mean - sample([run.val_bpb for run in ours]).mean,
        p_value=p_value,
        method=method,
    )


def keep(found: Against, folder: Path) -> None:
    """Write the comparison beside the promoted trial's seeds, for the report."""
    write_json(folder / FILE, document(found) | {"text": str(found)})


def document(found: Against) -> dict[str, Any]:
    """The ``against`` of ``promote --json``; keys stay stable."""
    return {
        "trial": found.trial,
        "proposer": found.proposer,
        "seeds": list(found.seeds),
        "val_bpb": found.val_bpb,
        "std": found.std,
        "improvement_bpb": found.improvement_bpb,
        "p_value": found.p_value,
        "method": found.method,
    }
