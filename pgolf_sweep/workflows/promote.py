"""`promote`: from a study's trials to a submission folder."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.rules import load_record, load_rules
from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.errors import InputError, InterruptedSweepError, PromotionError
from pgolf_sweep.core.paths import StudyPaths, on_disk
from pgolf_sweep.core.record import SEED_KNOB, State, counts, second_seeds
from pgolf_sweep.core.trial import TrialSpec
from pgolf_sweep.driver.control import DriverLock
from pgolf_sweep.driver.ledger import accepted_runs
from pgolf_sweep.driver.session import reopen_session
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.launch.base import Job
from pgolf_sweep.launch.remote.dashboard import refuse_copies
from pgolf_sweep.promote.against import against as compare_runs
from pgolf_sweep.promote.against import keep, rival
from pgolf_sweep.promote.candidate import About, broken_by_runs
from pgolf_sweep.promote.promote import Promotion, best, choose, plan, with_seeds
from pgolf_sweep.promote.promote import promote as run_promotion
from pgolf_sweep.promote.race import plan_race, race
from pgolf_sweep.promote.seeds import run_plans
from pgolf_sweep.report.attribution import lineage_of, tried_by
from pgolf_sweep.report.text import duration
from pgolf_sweep.report.trials import read_trials
from pgolf_sweep.script.program import files_sha256
from pgolf_sweep.submission.evidence import SCRIPT_NAME, Candidate, Provenance
from pgolf_sweep.track.mode import resolve_mode
from pgolf_sweep.workflows.launch_support import ray_launcher
from pgolf_sweep.workflows.study_folder import versions
from pgolf_sweep.workflows.tracking import make_tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.record import Posterior, TrialRecord
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.promote.race import RacePlan
    from pgolf_sweep.promote.seeds import JobFactory, PromotionPlan
    from pgolf_sweep.track.mode import ResolvedMode


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPromotion:
    """A promotion that was checked and costed, and of which nothing has run.

    Attributes:
        chosen: The trial to promote; of a race its first contender.
        seeds: Fresh seeds that were asked for; None for what the rules ask for.
        racing: The race, where several trials compete.
        cost: What will run and what it takes, in a line for people.
        rival: The trial that the promoted one is compared with, or None.
    """

    session: Session
    paths: StudyPaths
    records: Sequence[TrialRecord]
    rules: Rules
    chosen: Candidate
    seeds: int | None
    racing: RacePlan | None
    make_plan: Callable[[Candidate, int | None], PromotionPlan]
    cost: str
    rival: Candidate | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of ``promote --dry-run --json``."""
        racing, planned = self.racing, self.make_plan(self.chosen, self.seeds)
        if racing is None:
            return {
                "trial": planned.candidate.number,
                "seeds": list(planned.seeds),
                "rules": planned.rules.name,
                "code_bytes": len(planned.script),
            }
        return {
            "contenders": [contender.number for contender in racing.contenders],
            "confidence": racing.confidence,
            "least_runs": racing.least_runs,
            "most_runs": racing.most_runs,
            "seconds_each": racing.seconds_each,
            "rules": planned.rules.name,
        }


def prepare_promotion(
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
    need_data: bool = False,
) -> PreparedPromotion:
    """Choose what to promote and say what it costs; the arguments are those of `promote`.

    Raises:
        InputError: There is no such study or trial, or `top` and `trial` are both given.
        PromotionError: No trial completed, or none fits.
    """
    if top is not None and trial is not None:
        raise InputError("--top races trials, --trial names one: give only one of them")
    paths = StudyPaths.existing(Path(runs), str(study))
    refuse_copies(paths, "promote")
    session = reopen_session(paths, need_data=need_data)
    _refuse_plain(session)
    found = read_trials(paths)
    records = found.records
    held = promotion_rules(
        session, rules, None if record is None else Path(record), contenders=top or 1
    )
    pool = candidates(session, records, found.posteriors)
    other = None if against is None else rival(pool, against)
    asked = seeds if seeds is not None else session.spec.pgolf.promote_seeds
    make_plan = plan_maker(session, paths, records, held, pack=pack)
    seconds_each = run_seconds(records, held)
    racing = None
    if top is not None:
        racing = plan_race(
            best(pool, held, top),
            confidence=confidence,
            most_seeds=max_seeds,
            min_seeds=max(asked or 0, held.min_seeds),
            seconds_each=seconds_each,
            gpus=session.resources.gpus,
        )
        chosen, cost = racing.contenders[0], str(racing)
    else:
        chosen = choose(pool, held, trial)
        if other is not None and other.number == chosen.number:
            raise InputError(
                f"trial {chosen.number} is the one to promote: it cannot be compared with itself",
                where="--against",
                next_step="--trial N promotes another; the search has found nothing better",
            )
        cost = spending(make_plan(chosen, asked), seconds_each, session.resources.gpus, rival=other)
    return PreparedPromotion(
        session=session,
        paths=paths,
        records=records,
        rules=held,
        chosen=chosen,
        seeds=asked,
        racing=racing,
        make_plan=make_plan,
        cost=cost,
        rival=other,
    )


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


def _refuse_plain(session: Session) -> None:
    """A submission is a script that runs alone, under the rules of a contest.

    Raises:
        PromotionError: There are no rules, or the winner's values are flags.
    """
    if session.spec.pgolf.rules == NO_RULES:
        raise PromotionError(
            "this study has no rules to promote by: rules is none",
            next_step="pgolf-sweep best STUDY shows the winner",
        )
    flags = [n for n in session.spec.space.parameters if n not in session.program.knobs]
    if flags:
        raise PromotionError(
            f"{', '.join(flags[:5])}: not read from the environment, so that a submission, which "
            "runs without flags, could not hold the winner's values",
            next_step="read them with os.environ.get in the script, and sweep that one",
        )


def spending(
    planned: PromotionPlan, seconds_each: float, gpus: int, *, rival: Candidate | None = None
) -> str:
    """What a promotion of one trial will run, in a line."""
    count, chosen = len(planned.seeds), planned.candidate
    seconds = count * seconds_each * (1 if rival is None else 2)
    by = "" if chosen.expected_bpb is None else " by all scores"
    beside = "" if rival is None else f" and trial {rival.number} on as many"
    cost = f"{seconds * gpus / 3600:.2f} GPU-hours" if gpus else f"{duration(seconds)} of a slot"
    return (
        f"promoting trial {chosen.number} (val_bpb {chosen.rank_bpb:.4f}{by}) on {count} fresh "
        f"seeds{beside}, rules {planned.rules.name}; about {cost} where none has run yet"
    )


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


def candidates(
    session: Session,
    records: Sequence[TrialRecord],
    posteriors: Mapping[int, Posterior] | None = None,
) -> list[Candidate]:
    """The completed trials of a study, each configuration once.

    Args:
        session: The sweep.
        records: Rows of its trials.
        posteriors: What all scores say of each.
    """
    known = posteriors or {}
    repeats = second_seeds(records)
    further: dict[int, list[float]] = {}
    for record in records:
        if record.number in repeats and record.submittable and record.duplicate_of is None:
            further.setdefault(repeats[record.number], []).append(record.val_bpb or 0.0)
    return [
        Candidate(
            study=session.spec.name,
            number=record.number,
            knobs=record.knobs,
            proposer=record.proposer,
            val_bpb=record.val_bpb,
            artifact_bytes=record.artifact_bytes,
            variant=record.variant,
            expected_bpb=known[record.number].mean if record.number in known else None,
            second_seeds=tuple(further.get(record.number, ())),
        )
        for record in records
        if record.outcome is State.COMPLETED
        and record.val_bpb is not None
        and record.duplicate_of is None
        and record.number not in repeats
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
    sessions = Sessions(session, paths)
    made: dict[int, PromotionPlan] = {}

    def make(candidate: Candidate, seeds: int | None) -> PromotionPlan:
        earlier = made.get(candidate.number)
        if earlier is not None:
            return with_seeds(earlier, seeds)
        program = sessions.of(candidate.variant).program
        planned = plan(
            candidate,
            files=program.files,
            program_name=program.name,
            rules=rules,
            root=paths.promotion,
            seeds=seeds,
            used_seeds=used,
            pack=pack,
            readable=program.plain,
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


def used_seeds(records: Sequence[TrialRecord]) -> set[int]:
    """Every seed that some trial of the study ran on."""
    seeds = (record.knobs.get(SEED_KNOB) for record in records)
    return {seed for seed in seeds if isinstance(seed, int)}


def slot_hardware(session: Session) -> str:
    """What is known of the slots without having asked them: no GPU's name is claimed."""
    gpus = session.resources.gpus
    return f"{gpus} GPU{'s' if gpus != 1 else ''}" if gpus else f"CPU ({platform.machine()})"
