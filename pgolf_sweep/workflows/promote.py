"""A promotion's needs of a study: its candidates, the jobs of its seeds, its provenance."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_record, load_rules
from pgolf_sweep.core.record import State, counts
from pgolf_sweep.core.trial import TrialSpec
from pgolf_sweep.launch.base import Job
from pgolf_sweep.promote.promote import plan, with_seeds
from pgolf_sweep.script.program import files_sha256
from pgolf_sweep.submission.evidence import SCRIPT_NAME, SEED_KNOB, Candidate, Provenance
from pgolf_sweep.workflows.study_folder import versions
from pgolf_sweep.workflows.tracking import make_tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.promote.seeds import JobFactory, PromotionPlan
    from pgolf_sweep.track.mode import ResolvedMode


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


def promotion_rules(
    session: Session, name: str | None, record: Path | None, *, contenders: int = 1
) -> Rules:
    """The rules that a promotion is checked by.

    Args:
        session: The study's own rules are used where no others are named.
        name: A preset or a rules file, or None.
        record: A file with the record to beat, or None for the rules' own.
        contenders: Trials that the promoted one is chosen from by its promotion's own seeds. p
            must then be that many times lower (Bonferroni), since the best of several looks better
            than it is.
    """
    rules = load_rules(name, base=Path.cwd()) if name is not None else session.rules
    if record is not None:
        rules = dataclasses.replace(rules, record=load_record(record))
    return dataclasses.replace(rules, p_value=rules.p_value / contenders)


def plan_maker(
    session: Session,
    paths: StudyPaths,
    records: Sequence[TrialRecord],
    rules: Rules,
    *,
    pack: bool,
) -> Callable[[Candidate, int | None], PromotionPlan]:
    """Plans a candidate's promotion on a number of seeds; a script is packed once."""
    used = used_seeds(records)
    made: dict[int, PromotionPlan] = {}

    def make(candidate: Candidate, seeds: int | None) -> PromotionPlan:
        earlier = made.get(candidate.number)
        if earlier is not None:
            return with_seeds(earlier, seeds)
        planned = plan(
            candidate,
            files=session.program.files,
            program_name=session.program.name,
            rules=rules,
            root=paths.promotion,
            seeds=seeds,
            used_seeds=used,
            pack=pack,
        )
        return made.setdefault(candidate.number, planned)

    return make


def run_seconds(records: Sequence[TrialRecord], rules: Rules) -> float:
    """Expected time of one run: the search's median, else what the rules allow."""
    seen = [r.slot_seconds / max(1, r.attempts) for r in records if r.outcome is State.COMPLETED]
    seen = [seconds for seconds in seen if seconds > 0]
    return median(seen) if seen else rules.train_seconds + rules.eval_seconds


def seed_jobs(
    session: Session, paths: StudyPaths, candidate: Candidate, mode: ResolvedMode
) -> JobFactory:
    """Makes the jobs of a candidate's seeds: data and seed from outside, all else in the script."""
    tracking = make_tracking(session, paths, mode)

    def make(*, key: str, attempt: int, seed: int, files: Mapping[str, bytes], folder: Path) -> Job:
        name = f"promotion-{key}"
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
