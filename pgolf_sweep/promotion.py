"""What a promotion needs of a study: its candidates, the jobs of its seeds, its provenance."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from pgolf_sweep.campaign import make_tracking, versions
from pgolf_sweep.launch.base import Job
from pgolf_sweep.record import State, counts
from pgolf_sweep.script.program import files_sha256
from pgolf_sweep.ship.evidence import SEED_KNOB, Candidate, Provenance
from pgolf_sweep.ship.submission import SCRIPT_NAME
from pgolf_sweep.trial import TrialSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.record import TrialRecord
    from pgolf_sweep.session import Session
    from pgolf_sweep.ship.seeds import JobFactory
    from pgolf_sweep.track.mode import ResolvedMode
    from pgolf_sweep.trialdir import StudyPaths


def candidates(session: Session, records: Sequence[TrialRecord]) -> list[Candidate]:
    """The completed trials of a study, each configuration once."""
    return [
        Candidate(
            study=session.spec.name,
            number=record.number,
            knobs=record.knobs,
            proposer=record.proposer,
            val_bpb=record.val_bpb,
            artifact_bytes=record.artifact_bytes,
        )
        for record in records
        if record.outcome is State.COMPLETED
        and record.val_bpb is not None
        and record.duplicate_of is None
    ]


def seed_jobs(
    session: Session, paths: StudyPaths, candidate: Candidate, mode: ResolvedMode
) -> JobFactory:
    """Makes the jobs of a candidate's seeds: data and seed from outside, all else in the script."""
    tracking = make_tracking(session, paths, mode)

    def make(*, key: str, attempt: int, seed: int, files: Mapping[str, bytes], folder: Path) -> Job:
        name = f"promotion-{candidate.number}-{key}"
        env = session.dataset.env() if session.dataset is not None else {}
        spec = TrialSpec(
            study=session.spec.name,
            number=candidate.number,
            knobs={**candidate.knobs, "SEED": seed},
            env=env | {"SEED": str(seed), "RUN_ID": f"{session.spec.name}-{name}"},
            program_name=SCRIPT_NAME,
            program_sha256=files_sha256(files),
            resources=session.resources,
            limits=session.limits,
            proposer=candidate.proposer,
        )
        config = {**candidate.knobs, "SEED": seed, "promoted_trial": candidate.number}
        return Job(
            key=key,
            attempt=attempt,
            spec=spec,
            files=files,
            folder=folder,
            tracking=tracking.run(key=name, config=config, tags=("promotion",)),
            wandb_folder=paths.wandb,
        )

    return make


def provenance(
    session: Session, records: Sequence[TrialRecord], candidate: Candidate, *, hardware: str
) -> Provenance:
    """Where a candidate came from; `hardware` is what its seeds run on."""
    return Provenance(
        sweep_text=session.spec.text,
        sampler=f"{candidate.proposer}, seed {session.spec.pgolf.seed}",
        trials=counts(records),
        slot_seconds=sum(record.slot_seconds for record in records),
        gpus=session.resources.gpus,
        hardware=hardware,
        dataset=session.dataset.name if session.dataset is not None else "unknown",
        program_sha256=session.program.sha256,
        versions=versions(),
    )


def used_seeds(records: Sequence[TrialRecord]) -> set[int]:
    """Every seed that some trial of the study ran on."""
    seeds = (record.knobs.get(SEED_KNOB) for record in records)
    return {seed for seed in seeds if isinstance(seed, int)}


def slot_hardware(session: Session) -> str:
    """What is known of the slots without having asked them: no GPU's name is claimed."""
    gpus = session.resources.gpus
    return f"{gpus} GPU{'s' if gpus != 1 else ''}" if gpus else f"CPU ({platform.machine()})"
