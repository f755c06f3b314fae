"""From a study's best trial to a submission: fresh seeds, a folder, the answer of `verify`.

The script that ships carries the winning values as its defaults, and that very file is what the
seeds run: the bytes that the logs count are the folder's bytes.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError, PromotionError
from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.launch.batch import GIVE_UP_SECONDS
from pgolf_sweep.promote.candidate import broken_by_runs, refuse, submission_of, unmet, verified
from pgolf_sweep.promote.defaults import with_defaults
from pgolf_sweep.promote.pack_check import prove
from pgolf_sweep.promote.seeds import PromotionPlan, declared_seeds, fresh_seeds, run_seeds
from pgolf_sweep.script.dense import is_dense
from pgolf_sweep.script.knobs.knobs import read_knobs
from pgolf_sweep.script.pack import pack as pack_script
from pgolf_sweep.script.source import decoded
from pgolf_sweep.script.unpack import unpack
from pgolf_sweep.submission.evidence import largest, mean_bpb
from pgolf_sweep.submission.margins import margins
from pgolf_sweep.submission.stats import sample
from pgolf_sweep.submission.submission import write_submission

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.promote.against import Against
    from pgolf_sweep.promote.candidate import About
    from pgolf_sweep.promote.seeds import JobFactory
    from pgolf_sweep.script.pack import Packed
    from pgolf_sweep.submission.evidence import Candidate, Provenance
    from pgolf_sweep.submission.margins import Margin
    from pgolf_sweep.submission.stats import Sample
    from pgolf_sweep.submission.types import RaceResult
    from pgolf_sweep.verify.verify import Verification

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A folder that meets the rules, with its headline numbers.

    Attributes:
        std: Of `val_bpb` over the seeds (ddof 1); None for one seed.
        p_value: Against the rules' record; None where there is none to compare with.
        loss: The mean loss with its confidence interval.
        margins: The answer by each margin that reviewers used.
        pack: What packing made of the script, or None.
        race: How the race went that chose the trial, or None.
        against: How it compares with another trial of the study, where that was asked for.
    """

    folder: Path
    trial: int
    val_bpb: float
    val_loss_nats: float
    std: float | None
    p_value: float | None
    seeds: tuple[int, ...]
    artifact_bytes: int
    headroom_bytes: int
    verification: Verification
    loss: Sample
    margins: tuple[Margin, ...] = ()
    pack: Packed | None = None
    race: RaceResult | None = None
    against: Against | None = None


def choose(candidates: Sequence[Candidate], rules: Rules, number: int | None = None) -> Candidate:
    """The trial to promote: the one asked for, else the best that fits the cap.

    Args:
        candidates: The study's completed trials.
        rules: For the cap.
        number: A trial's number, or None.

    Raises:
        InputError: No completed trial has that number.
        PromotionError: No trial completed, or none fits.
    """
    if number is not None:
        found = next((c for c in candidates if c.number == number), None)
        if found is None:
            known = ", ".join(str(c.number) for c in candidates)
            raise InputError(
                f"trial {number} is no completed trial of the study",
                expected=f"one of: {known}" if known else "a trial that completed",
            )
        return found
    return best(candidates, rules, 1)[0]


def best(candidates: Sequence[Candidate], rules: Rules, count: int) -> list[Candidate]:
    """The best `count` trials that fit the cap, best first; fewer where there are not that many.

    Raises:
        PromotionError: No trial completed, or none fits.
    """
    if not candidates:
        raise PromotionError("no trial completed", next_step="pgolf-sweep trials STUDY")
    cap = rules.artifact_cap_bytes
    known_to_fit = [c for c in candidates if c.artifact_bytes and c.artifact_bytes <= cap]
    pool = known_to_fit or [c for c in candidates if c.artifact_bytes is None]
    if not pool:
        smallest = min(c.artifact_bytes for c in candidates if c.artifact_bytes is not None)
        raise PromotionError(
            "no completed trial fits the cap",
            got=f"{smallest:,} bytes for the smallest",
            expected=f"at most {cap:,} bytes",
        )
    return sorted(pool, key=lambda c: (c.rank_bpb, c.number))[:count]


def plan(
    candidate: Candidate,
    *,
    files: Mapping[str, bytes],
    program_name: str,
    rules: Rules,
    root: Path,
    seeds: int | None = None,
    used_seeds: Collection[int] = (),
    pack: bool = False,
    readable: bytes | None = None,
) -> PromotionPlan:
    """What to run, decided before anything runs; writes nothing.

    Args:
        candidate: The trial.
        files: The program's files as the study launched them.
        program_name: Which of them is the script.
        rules: What to meet.
        root: ``runs/<study>/promotion``.
        seeds: How many, or None for as many as the rules ask.
        used_seeds: Seeds that the search ran on, beyond the candidate's and the script's default.
        pack: Ship the script minified and compressed. One that came packed is packed again, since
            its defaults change.
        readable: What the program was packed of, if it was: its names are people's.

    Raises:
        PromotionError: The script has no defaults for some of the knobs.
    """
    given = decoded(files[program_name])
    source = unpack(given, path=Path(program_name), files=files)
    ours = is_dense(files[program_name])
    if readable is not None:
        again = pack_script(readable, name=program_name, ours=ours).script
        # Only the very program that the trials ran may be shipped.
        source = decoded(readable) if again == files[program_name] else source
    read = read_knobs(source)
    # A variant need not read every knob of the study's space.
    defaults = {
        name: value
        for name, value in candidate.knobs.items()
        if name != SEED_KNOB and (name in read or not candidate.variant)
    }
    script = with_defaults(source, defaults).encode()
    packed, plain = None, None
    if pack or source != given:
        packed = pack_script(script, name=program_name, ours=ours)
        plain, script = (script, packed.script) if packed.freed_bytes > 0 else (None, script)
    own = read.get(SEED_KNOB)
    searched = (candidate.knobs.get(SEED_KNOB), own.default if own is not None else None)
    planned = PromotionPlan(
        candidate=candidate,
        seeds=(),
        used_seeds=frozenset({*used_seeds, *(seed for seed in searched if isinstance(seed, int))}),
        script=script,
        files={name: data for name, data in files.items() if name != program_name},
        root=root / str(candidate.number),
        rules=rules,
        plain=plain,
        pack=packed,
    )
    return with_seeds(planned, seeds)


def with_seeds(planned: PromotionPlan, seeds: int | None) -> PromotionPlan:
    """A plan on that many seeds, or on as many as the rules ask.

    Seeds may be added to those that were declared, never left out: that would be choosing.
    """
    count = max(seeds or planned.rules.min_seeds, 1)
    candidate = planned.candidate
    fresh = fresh_seeds(candidate.study, candidate.number, count, planned.used_seeds)
    declared = declared_seeds(planned)
    in_all = tuple(dict.fromkeys((*declared, *fresh)))[: max(count, len(declared))]
    return dataclasses.replace(planned, seeds=in_all)


def promote(
    planned: PromotionPlan,
    *,
    launcher: Launcher,
    make_job: JobFactory,
    clock: Clock,
    provenance: Provenance,
    about: About,
    submissions: Path,
    race: RaceResult | None = None,
    max_retries: int = 2,
    give_up_seconds: float = GIVE_UP_SECONDS,
    report: Callable[[str], None] = logger.info,
) -> Promotion:
    """Run the seeds, write the folder under a temporary name, name it if `verify` passes it.

    Args:
        planned: What `plan` decided.
        launcher: Runs the seeds, as many at once as it has free slots.
        make_job: Makes a seed's job.
        clock: For the declaration's date, and for waiting.
        provenance: For the README.
        about: Name, author, blurb.
        submissions: The folder lands below here.
        race: How the race went that chose the trial, for the README.
        max_retries: How often a seed lost to infrastructure is run again.
        give_up_seconds: The longest time without a node that runs anything.
        report: Hears of progress, one line a call.

    Raises:
        PromotionError: Rules are unmet, all of them listed; the evidence stays.
        InfraError: Seeds were lost for good.
    """
    if planned.pack is not None:
        report(f"pack: {planned.pack}")
        prove(
            planned,
            launcher=launcher,
            make_job=make_job,
            clock=clock,
            give_up_seconds=give_up_seconds,
            report=report,
        )
    runs = run_seeds(
        planned,
        launcher=launcher,
        make_job=make_job,
        clock=clock,
        max_retries=max_retries,
        give_up_seconds=give_up_seconds,
        report=report,
    )
    against = margins(runs, planned.rules.record)
    for margin in against:
        report(f"against the record: {margin}")
    if any(run.failure is not None for run in runs):
        broken = broken_by_runs(planned, runs, about=about, provenance=provenance)
        refuse(broken, planned, against)
    submission = submission_of(planned, runs, about=about, provenance=provenance, race=race)
    found: list[Verification] = []

    def check(folder: Path) -> None:
        found.append(verified(folder, planned.rules, runs))
        refuse([str(one) for one in unmet(found[0], planned.rules)], planned, against)

    folder = write_submission(submission, submissions, check=check)
    bpb = sample([run.val_bpb for run in runs])
    loss = sample([run.val_loss_nats for run in runs])
    artifact_bytes = largest(runs).artifact_bytes or 0
    return Promotion(
        folder=folder,
        trial=planned.candidate.number,
        val_bpb=mean_bpb(runs),
        val_loss_nats=loss.mean,
        std=bpb.std,
        p_value=submission.comparison.p_value if submission.comparison else None,
        seeds=planned.seeds,
        artifact_bytes=artifact_bytes,
        headroom_bytes=planned.rules.artifact_cap_bytes - artifact_bytes,
        verification=dataclasses.replace(found[0], folder=folder),
        loss=loss,
        margins=submission.margins,
        pack=planned.pack,
        race=race,
    )
