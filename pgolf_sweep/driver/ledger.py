"""Entries of a study's ledger, from its proposals and trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.ledger import read_ledger
from pgolf_sweep.core.record import State
from pgolf_sweep.driver.proposals import PROPOSED, answered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.ledger import Entry, Ledger
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.proposals import ProposalRequest

PROPOSAL, RESULT, DECISION = "proposal", "result", "decision"


def proposal_entries(requests: Iterable[ProposalRequest]) -> list[tuple[str, str, dict[str, Any]]]:
    """Entries of proposals that a driver has enqueued."""
    return [(PROPOSAL, one.id, _proposal(one)) for one in requests]


def result_entries(records: Iterable[TrialRecord]) -> list[tuple[str, str, dict[str, Any]]]:
    """Entries of finished trials; what the sampler drew and the gate discarded is left out."""
    return [(RESULT, str(one.number), result_body(one)) for one in records if _stands(one)]


def catch_up(ledger: Ledger, records: Iterable[TrialRecord], at: float) -> None:
    """Append what a driver that died between a step and its entry has left out."""
    ledger.append([*proposal_entries(answered(ledger.paths)), *result_entries(records)], at)


def decisions(paths: StudyPaths) -> list[Entry]:
    """What comparisons decided, oldest first."""
    return [entry for entry in read_ledger(paths) if entry.kind == DECISION]


def accepted_runs(paths: StudyPaths) -> set[tuple[int, int]]:
    """Trial and seed of each run on which a comparison accepted a candidate."""
    kept = [e.body for e in decisions(paths) if e.body["decision"] == "keep"]
    return {(trial, seed) for body in kept for trial, seed in body["runs"]}


def result_body(record: TrialRecord) -> dict[str, Any]:
    """What an entry says of a finished trial."""
    body: dict[str, Any] = {
        "number": record.number,
        "proposer": record.proposer,
        "identity": record.identity,
        "outcome": record.outcome.value,
        "val_bpb": record.val_bpb,
        "artifact_bytes": record.artifact_bytes,
        "ended_at": record.ended_at,
    }
    return body | record.change.to_json()


def contradictions(
    entries: Iterable[Entry], records: Iterable[TrialRecord], *, alone: bool = True
) -> list[str]:
    """Where the study's rows say otherwise than its ledger, a sentence each.

    Args:
        entries: Of the ledger.
        records: Rows of the study.
        alone: Whether one folder drives the study: else each driver's ledger has its own trials.
    """
    rows = {str(record.number): record for record in records}
    wrong = []
    results = {entry.key: entry for entry in entries if entry.kind == RESULT}
    for key, entry in results.items():
        if key not in rows:
            wrong.append(f"trial {key} stands in the ledger and not in the study")
            continue
        now = result_body(rows[key])
        differs = [name for name, value in entry.body.items() if now.get(name) != value]
        wrong += [
            f"trial {key}: {name} is {now.get(name)!r}, the ledger has {entry.body[name]!r}"
            for name in differs
        ]
    missing = [key for key, row in rows.items() if _stands(row) and key not in results]
    if missing and alone:
        wrong.append(f"trials {', '.join(missing)} ended and do not stand in the ledger")
    return wrong


def _stands(record: TrialRecord) -> bool:
    proposed = record.proposer.startswith(PROPOSED)
    return record.outcome.final and (proposed or record.outcome is not State.DISCARDED)


def _proposal(request: ProposalRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "by": request.by,
        "proposed_at": request.at,
        "knobs": dict(request.knobs),
        "number": request.number,
    }
    return body | request.change.to_json()
