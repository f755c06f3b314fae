"""Who proposed what: samplers, people and agents of a study, with what of theirs was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State, ranked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgolf_sweep.core.ledger import Entry
    from pgolf_sweep.core.record import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerRow:
    """One proposer of one study.

    Attributes:
        proposer: As the trials carry it.
        tried: Trials, further seeds and duplicates left out.
        completed: Of them.
        seeds: Further runs that it asked for.
        kept: Candidates of its own that a comparison kept.
        gain_bpb: Sum of their measured effects; negative is better where the metric is minimised.
        slot_hours: Time for which its trials held slots.
        best_number: Its best trial within the cap.
        best_bpb: That trial's score.
    """

    study: str
    proposer: str
    tried: int
    completed: int
    seeds: int
    kept: int
    gain_bpb: float | None
    slot_hours: float
    best_number: int | None
    best_bpb: float | None


def proposer_rows(
    study: str, records: Sequence[TrialRecord], decided: Iterable[Entry] = ()
) -> list[ProposerRow]:
    """A row for each proposer, best score first."""
    kept = {
        entry.body["candidate"]: entry.body["effect"]
        for entry in decided
        if entry.body["decision"] == "keep"
    }
    rows = [
        _row(study, name, [r for r in records if r.proposer == name], kept)
        for name in dict.fromkeys(record.proposer for record in records)
    ]
    sign = -1 if any(record.maximize for record in records) else 1
    return sorted(rows, key=lambda row: (row.best_bpb is None, sign * (row.best_bpb or 0.0)))


def _row(
    study: str, name: str, own: Sequence[TrialRecord], kept: dict[int, float | None]
) -> ProposerRow:
    tried = [r for r in own if r.seed is None and r.duplicate_of is None]
    best = next(iter(ranked(own)), None)
    gains = [effect for r in own if (effect := kept.get(r.number)) is not None]
    return ProposerRow(
        study=study,
        proposer=name,
        tried=len(tried),
        completed=sum(r.outcome is State.COMPLETED for r in tried),
        seeds=sum(r.seed is not None for r in own),
        kept=sum(r.number in kept for r in own),
        gain_bpb=sum(gains) if gains else None,
        slot_hours=sum(r.slot_seconds for r in own) / 3600,
        best_number=None if best is None else best.number,
        best_bpb=None if best is None else best.val_bpb,
    )
