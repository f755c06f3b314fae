"""What a promotion will run and cost: its trials, seeds and rules, before anything runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.rules import load_record, load_rules
from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.core.errors import InputError, PromotionError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.record import SEED_KNOB, State, second_seeds
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.launch.remote.dashboard import refuse_copies
from pgolf_sweep.promote.against import rival
from pgolf_sweep.promote.promote import best, choose, plan, with_seeds
from pgolf_sweep.promote.race import plan_race
from pgolf_sweep.report.text import duration
from pgolf_sweep.report.trials import read_trials
from pgolf_sweep.submission.evidence import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.record import Posterior, TrialRecord
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.promote.race import RacePlan
    from pgolf_sweep.promote.seeds import PromotionPlan


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


def used_seeds(records: Sequence[TrialRecord]) -> set[int]:
    """Every seed that some trial of the study ran on."""
    seeds = (record.knobs.get(SEED_KNOB) for record in records)
    return {seed for seed in seeds if isinstance(seed, int)}
