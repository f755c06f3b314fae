"""Who made a candidate: its lineage, what each change is worth by measurement, who tried what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.report.compare import compared
from pgolf_sweep.submission.effects import Accept, Rule
from pgolf_sweep.submission.evidence import LineageStep

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.report.compare import Compared


def lineage_of(
    study: str,
    records: Sequence[TrialRecord],
    number: int,
    used: Collection[tuple[int, int]] = (),
) -> tuple[LineageStep, ...]:
    """The changes from the first trial to one of its descendants.

    Args:
        study: The study's name.
        records: Its rows.
        number: The descendant.
        used: Runs on which a trial was accepted: they are left out of what it is worth.

    Returns:
        Empty where the trial changes no other.
    """
    rows = {record.number: record for record in records}
    chain: list[TrialRecord] = []
    at: int | None = number
    while at is not None and at in rows and all(one.number != at for one in chain):
        chain.append(rows[at])
        at = rows[at].parent
    if len(chain) < 2 and not chain[0].variant:
        return ()
    return tuple(_step(study, records, one, used) for one in reversed(chain))


def tried_by(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Trials by proposer, most first; further seeds and duplicates left out."""
    own = [r.proposer for r in records if r.seed is None and r.duplicate_of is None]
    counts = {name: own.count(name) for name in dict.fromkeys(own)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _step(
    study: str,
    records: Sequence[TrialRecord],
    record: TrialRecord,
    used: Collection[tuple[int, int]],
) -> LineageStep:
    found = _against_parent(study, records, record, used)
    effect = None if found is None else found.effect
    return LineageStep(
        trial=record.number,
        parent=record.parent,
        proposer=record.proposer,
        idea=record.idea,
        variant=record.variant,
        effect_bpb=None if effect is None else effect.value,
        low_bpb=None if effect is None else effect.low,
        high_bpb=None if effect is None else effect.high,
        runs=(0, 0) if found is None else (len(found.candidate.val_bpb), len(found.base.val_bpb)),
    )


def _against_parent(
    study: str,
    records: Sequence[TrialRecord],
    record: TrialRecord,
    used: Collection[tuple[int, int]],
) -> Compared | None:
    """The comparison with its parent; without the flattering runs where others are left."""
    if record.parent is None:
        return None
    found = None
    for left_out in (tuple(used), ()):
        try:
            found = compared(
                study,
                records,
                record.parent,
                record.number,
                accept=Accept(rule=Rule.NONE),
                used=left_out,
            )
        except (AnswerNoError, InputError):
            return None
        if found.effect is not None:
            break
    return found
