"""`promote`: from a study's trials to a submission folder."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.errors import InterruptedSweepError
from pgolf_sweep.core.paths import StudyPaths, on_disk
from pgolf_sweep.core.record import counts
from pgolf_sweep.core.trial import TrialSpec
from pgolf_sweep.driver.control import DriverLock
from pgolf_sweep.driver.ledger import accepted_runs
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.launch.base import Job
from pgolf_sweep.promote.against import against as compare_runs
from pgolf_sweep.promote.against import keep
from pgolf_sweep.promote.candidate import About, broken_by_runs
from pgolf_sweep.promote.promote import Promotion
from pgolf_sweep.promote.promote import promote as run_promotion
from pgolf_sweep.promote.race import race
from pgolf_sweep.promote.seeds import run_plans
from pgolf_sweep.report.attribution import lineage_of, tried_by
from pgolf_sweep.script.program import files_sha256
from pgolf_sweep.submission.evidence import SCRIPT_NAME, Candidate, Provenance
from pgolf_sweep.track.mode import resolve_mode
from pgolf_sweep.workflows.launch_support import ray_launcher
from pgolf_sweep.workflows.promotion_plan import prepare_promotion
from pgolf_sweep.workflows.study_folder import versions
from pgolf_sweep.workflows.tracking import make_tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.promote.seeds import JobFactory
    from pgolf_sweep.track.mode import ResolvedMode


logger = logging.getLogger(__name__)


def promote(
    study: str | Path,
    *,
    runs: str | Path = "runs",
    trial: int | None = None,
    seeds: int | None = None,
    top: int | None = None,
    confidence: float = 0.9,
    max_seeds: int | None = None,
    pack: bool = False,
    rules: str | None = None,
    record: str | Path | None = None,
    against: str | None = None,
    about: About | None = None,
    out: str | Path | None = None,
    address: str | None = None,
    slots: int | None = None,
    wandb: str | None = None,
    hardware: str | None = None,
    report: Callable[[str], None] = logger.info,
) -> Promotion:
    """Run the best trial on fresh seeds, check it by the rules, write the submission folder.

    The seeds are declared before they run; the same call again resumes.

    Args:
        study: The study's name, or the path of its folder.
        runs: Folder that holds the studies.
        trial: Number of the trial; else the best that fits.
        seeds: Fresh seeds; else what the rules ask for.
        top: Race this many of the best trials; seeds are added until one leads.
        confidence: Of a race, that its winner is the best.
        max_seeds: Most seeds of one contender in a race; else twice the rules'.
        pack: Ship the script minified and compressed.
        rules: A preset or a rules file instead of the study's.
        record: YAML file of the record to beat, with its date and source.
        against: Also run this trial on fresh seeds and compare: its number, or ``baseline``, the
            program's own configuration.
        about: What only people know of the submission.
        out: Folder of submissions; else ``submission`` in the study's folder.
        address: An existing Ray cluster; else a local one is started.
        slots: At most this many seeds at a time.
        wandb: ``online``, ``offline`` or ``disabled``; else what the key allows.
        hardware: What the seeds run on, for the README; else as observed.
        report: Takes each line for people; the log of the program by default.

    Returns:
        The submission, which passes every rule.

    Raises:
        PromotionError: A rule is not met; each is listed, and the evidence stays.
        InputError: There is no such study or trial.
        InfraError: The cluster failed; the same call resumes.
        InterruptedSweepError: Ctrl-C; seeds that finished are kept.
    """
    ready = prepare_promotion(
        study,
        runs=runs,
        trial=trial,
        seeds=seeds,
        top=top,
        confidence=confidence,
        max_seeds=max_seeds,
        pack=pack,
        rules=rules,
        record=record,
        against=against,
        need_data=address is None,
    )
    report(ready.cost)
    session, paths, chosen, asked = ready.session, ready.paths, ready.chosen, ready.seeds
    sessions = Sessions(session, paths)
    mode = resolve_mode(wandb, os.environ)
    settings = session.spec.pgolf
    with (
        on_disk(paths.root),
        DriverLock(paths, job="promote"),
        _resumable(paths.name),
        ray_launcher(session, address=address, slots=slots, report=report) as launcher,
    ):
        named = about or About(name=session.spec.name)
        used = accepted_runs(paths)
        ran_on = hardware or slot_hardware(session)
        raced = None
        if ready.racing is not None:
            raced = race(
                ready.racing,
                make_plan=ready.make_plan,
                jobs=lambda contender: seed_jobs(session, paths, contender, mode),
                launcher=launcher,
                clock=SystemClock(),
                evidence=paths.promotion / "race.json",
                broken=lambda planned, found: broken_by_runs(
                    planned,
                    found,
                    about=named,
                    provenance=provenance(
                        sessions.of(planned.candidate.variant),
                        ready.records,
                        planned.candidate,
                        hardware=ran_on,
                        used=used,
                    ),
                ),
                max_retries=settings.max_retries,
                give_up_seconds=settings.nodes.give_up_seconds,
                report=report,
            )
            chosen, asked = raced.winner, max(raced.seeds, asked or 0, ready.rules.min_seeds)
            for line in raced.summary:
                report(line)
        planned, compared = ready.make_plan(chosen, asked), None
        if ready.rival is not None and ready.rival.number != chosen.number:
            other = ready.make_plan(ready.rival, len(planned.seeds))
            # Together, so that no slot is free while a seed waits.
            ours, theirs = run_plans(
                [
                    (planned, seed_jobs(session, paths, chosen, mode)),
                    (other, seed_jobs(session, paths, ready.rival, mode)),
                ],
                launcher=launcher,
                clock=SystemClock(),
                max_retries=settings.max_retries,
                give_up_seconds=settings.nodes.give_up_seconds,
                report=report,
            )
            compared = compare_runs(ours, ready.rival, theirs)
            if compared is not None:
                keep(compared, planned.root)
                report(str(compared))
        result = run_promotion(
            planned,
            launcher=launcher,
            make_job=seed_jobs(session, paths, chosen, mode),
            clock=SystemClock(),
            provenance=provenance(
                sessions.of(chosen.variant), ready.records, chosen, hardware=ran_on, used=used
            ),
            about=named,
            submissions=paths.submissions if out is None else Path(out),
            race=raced,
            max_retries=settings.max_retries,
            give_up_seconds=settings.nodes.give_up_seconds,
            report=report,
        )
        return result if compared is None else dataclasses.replace(result, against=compared)


@contextmanager
def _resumable(study: str) -> Iterator[None]:
    """Turns Ctrl-C into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedSweepError(
            "the promotion was interrupted; seeds that finished are kept",
            next_step=f"resume with: pgolf-sweep promote {study}",
        ) from None


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
    session: Session,
    records: Sequence[TrialRecord],
    candidate: Candidate,
    *,
    hardware: str,
    used: Collection[tuple[int, int]] = (),
) -> Provenance:
    """Where a candidate came from.

    Args:
        session: Its program's.
        records: Rows of the study.
        candidate: It.
        hardware: What its seeds run on.
        used: Runs on which a comparison accepted a trial.
    """
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
        lineage=lineage_of(session.spec.name, records, candidate.number, used),
        tried=tried_by(records),
        based_on=session.spec.pgolf.based_on,
    )


def slot_hardware(session: Session) -> str:
    """What is known of the slots without having asked them: no GPU's name is claimed."""
    gpus = session.resources.gpus
    return f"{gpus} GPU{'s' if gpus != 1 else ''}" if gpus else f"CPU ({platform.machine()})"
