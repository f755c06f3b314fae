"""The race of the best trials: seeds are added until one leads with the confidence asked.

The best of many noisy trials is biased upwards, so the contenders meet on fresh seeds. Second seeds
of the search count where a contender has them; its first score, for which it was chosen, does not.
After each round those that are worse than the leader beyond chance are out, and the others get one
more seed. The test is Student's with the spread pooled over all contenders, one-sided; its level is
divided by the number of comparisons and of looks planned (Bonferroni), so looking often does not
help.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError, PromotionError
from pgolf_sweep.core.paths import write_json
from pgolf_sweep.launch.batch import GIVE_UP_SECONDS
from pgolf_sweep.promote.seeds import run_plans
from pgolf_sweep.submission.stats import student_tail
from pgolf_sweep.submission.types import RaceResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.promote.seeds import JobFactory, PromotionPlan
    from pgolf_sweep.submission.evidence import Candidate, SeedRun

logger = logging.getLogger(__name__)

FIRST_SEEDS = 2
"""Seeds of the first round: the fewest that have a spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RacePlan:
    """What a race may spend, fixed before it runs.

    Attributes:
        contenders: The trials, best first.
        confidence: Probability that the one called best is.
        most_seeds: Of one contender.
        least_seeds: That the winner needs for the rules.
        seconds_each: Expected time of one run in its slot.
        gpus: GPUs of a slot; 0 for CPU slots.
    """

    contenders: tuple[Candidate, ...]
    confidence: float
    most_seeds: int
    least_seeds: int
    seconds_each: float
    gpus: int

    @property
    def first_seeds(self) -> int:
        """Fresh seeds of the first round: one less where the search ran a second one of each."""
        return FIRST_SEEDS - all(contender.second_seeds for contender in self.contenders)

    @property
    def least_runs(self) -> int:
        """Runs if the first round decides."""
        first = self.first_seeds
        return len(self.contenders) * first + max(0, self.least_seeds - first)

    @property
    def most_runs(self) -> int:
        """Runs if nothing is decided."""
        return len(self.contenders) * self.most_seeds

    @property
    def level(self) -> float:
        """A contender whose p is below this is out."""
        looks = self.most_seeds - self.first_seeds + 1
        return (1 - self.confidence) / (max(1, len(self.contenders) - 1) * looks)

    def __str__(self) -> str:
        numbers = ", ".join(str(contender.number) for contender in self.contenders)
        unit = "GPU-hours" if self.gpus else "slot-hours"
        each = self.seconds_each * max(1, self.gpus) / 3600
        return (
            f"racing trials {numbers} at {self.confidence:.0%} confidence: {self.least_runs} to "
            f"{self.most_runs} runs on fresh seeds, {self.least_runs * each:.2f} to "
            f"{self.most_runs * each:.2f} {unit}"
        )


def plan_race(
    contenders: Sequence[Candidate],
    *,
    confidence: float,
    most_seeds: int | None,
    min_seeds: int,
    seconds_each: float,
    gpus: int,
) -> RacePlan:
    """What a race would spend.

    Raises:
        InputError: The numbers make no race.
    """
    most = most_seeds if most_seeds is not None else max(2 * min_seeds, FIRST_SEEDS + 1)
    if len(contenders) < 2:
        raise InputError(
            "a race needs two contenders that fit the cap",
            got=str(len(contenders)),
            expected=">= 2",
        )
    if most < max(FIRST_SEEDS, min_seeds):
        raise InputError(
            "too few seeds for a race",
            got=f"--max-seeds {most}",
            expected=f"at least {max(FIRST_SEEDS, min_seeds)}",
        )
    return RacePlan(
        contenders=tuple(contenders),
        confidence=confidence,
        most_seeds=most,
        least_seeds=min_seeds,
        seconds_each=seconds_each,
        gpus=gpus,
    )


def leader_and_p(scores: Mapping[int, Sequence[float]]) -> tuple[int, dict[int, float]]:
    """The contender with the lowest mean, and for each other the p that it is not worse.

    Args:
        scores: val_bpb by seed, by contender; at least one with two seeds.
    """
    means = {number: fmean(values) for number, values in scores.items()}
    leader = min(means, key=lambda number: (means[number], number))
    freedom = sum(len(values) - 1 for values in scores.values())
    squares = sum((v - means[n]) ** 2 for n, values in scores.items() for v in values)
    variance = squares / freedom if freedom else math.inf
    answers = {}
    for number, values in scores.items():
        if number == leader:
            continue
        error = math.sqrt(variance * (1 / len(values) + 1 / len(scores[leader])))
        behind = means[number] - means[leader]
        if error == 0:
            answers[number] = 0.0 if behind > 0 else 0.5
        else:
            answers[number] = student_tail(freedom, behind / error) if freedom else 0.5
    return leader, answers


def race(
    planned: RacePlan,
    *,
    make_plan: Callable[[Candidate, int], PromotionPlan],
    jobs: Callable[[Candidate], JobFactory],
    launcher: Launcher,
    clock: Clock,
    evidence: Path,
    broken: Callable[[PromotionPlan, Sequence[SeedRun]], Sequence[str]],
    max_retries: int = 2,
    give_up_seconds: float = GIVE_UP_SECONDS,
    report: Callable[[str], None] = logger.info,
) -> RaceResult:
    """Run the race; every seed that runs is declared before and stays in the evidence.

    Args:
        planned: What may be spent.
        make_plan: A contender's promotion on that many seeds.
        jobs: The maker of a contender's jobs.
        launcher: Runs the seeds of all contenders side by side.
        clock: For declarations.
        evidence: ``race.json`` is written here.
        broken: What keeps a contender's runs from being a submission, in lines.
        max_retries: How often a seed lost to infrastructure is run again.
        give_up_seconds: The longest time without a node that runs anything.
        report: Hears of progress.

    Raises:
        PromotionError: No contender is left.
        InfraError: Seeds were lost for good.
    """
    write_json(evidence, _document(planned, [], None))
    alive = list(planned.contenders)
    scores: dict[int, list[float]] = {}
    out: dict[int, str] = {}
    rounds: list[dict[str, Any]] = []
    ran: dict[int, int] = {}
    earlier = {c.number: list(c.second_seeds) for c in planned.contenders}
    count = planned.first_seeds
    while True:
        plans = [(make_plan(contender, count), jobs(contender)) for contender in alive]
        found = run_plans(
            plans,
            launcher=launcher,
            clock=clock,
            max_retries=max_retries,
            give_up_seconds=give_up_seconds,
            report=report,
        )
        for (plan_of, _), runs in zip(plans, found, strict=True):
            number = plan_of.candidate.number
            ran[number] = len(runs)
            if unmet := broken(plan_of, runs):
                out[number] = unmet[0]
                scores.pop(number, None)
                report(f"trial {number} is out: {unmet[0]}")
            else:
                scores[number] = [run.val_bpb for run in runs] + earlier[number]
        racing = {c.number: scores[c.number] for c in alive if c.number in scores}
        if not racing:
            raise PromotionError(
                "no contender of the race meets the rules",
                where=str(evidence.parent),
                got="\n       ".join(f"trial {n}: {why}" for n, why in out.items()),
                next_step="the evidence stays there; race other trials, or promote --trial N",
            )
        leader, p_values = leader_and_p(racing)
        for number, p_value in p_values.items():
            if p_value < planned.level:
                mean = fmean(racing[number])
                out[number] = f"mean {mean:.5f} on {len(racing[number])} seeds, p = {p_value:.2g}"
                report(f"trial {number} is out: {out[number]} that it is not worse than {leader}")
        alive = [c for c in alive if c.number not in out]
        rounds.append({"seeds": count, "leader": leader, "p_values": p_values})
        report(f"after {count} seeds trial {leader} leads; {len(alive)} still in the race")
        if len(alive) == 1 or count == planned.most_seeds:
            break
        count += 1
    tied = tuple(c.number for c in alive if c.number != leader)
    result = RaceResult(
        winner=next(c for c in alive if c.number == leader),
        seeds=ran[leader],
        confident=not tied,
        runs=sum(ran.values()),
        summary=tuple(_line(c, scores, out, leader) for c in planned.contenders),
        tied=tied,
    )
    write_json(evidence, _document(planned, rounds, result))
    return result


def _line(
    contender: Candidate, scores: Mapping[int, Sequence[float]], out: Mapping[int, str], leader: int
) -> str:
    number = contender.number
    values = scores.get(number)
    if number == leader and values is not None:
        told = f"best, mean {fmean(values):.5f} on {len(values)} seeds{_searched(contender)}"
    elif number in out:
        told = f"out: {out[number]}"
    else:
        told = (
            f"not told apart, mean {fmean(values or [math.nan]):.5f} on {len(values or [])} seeds"
        )
    return f"trial {number} (search {contender.val_bpb:.5f}): {told}"


def _searched(contender: Candidate) -> str:
    """How many of a contender's seeds the search ran."""
    count = len(contender.second_seeds)
    return f", {count} of them the search's" if count else ""


def _document(
    planned: RacePlan, rounds: Sequence[Mapping[str, Any]], result: RaceResult | None
) -> dict[str, Any]:
    return {
        "contenders": [contender.number for contender in planned.contenders],
        "second_seeds": {str(c.number): list(c.second_seeds) for c in planned.contenders},
        "confidence": planned.confidence,
        "level": planned.level,
        "least_runs": planned.least_runs,
        "most_runs": planned.most_runs,
        "rounds": [
            {**one, "p_values": {str(n): p for n, p in one["p_values"].items()}} for one in rounds
        ],
        "winner": None if result is None else result.winner.number,
        "confident": None if result is None else result.confident,
        "summary": [] if result is None else list(result.summary),
    }
