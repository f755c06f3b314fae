"""Two configurations side by side: paired seeds, effect, noise floor, cost, and what decides."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.record import BASELINE, SCORE, State, score_name
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.space.space import is_seed
from pgolf_sweep.submission.effects import Decision, Rule, Run, decide, fit, seeds_more

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.submission.effects import Accept, Effect, Noise

LEVEL = 0.05
"""Two-sided p below which two configurations are called different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two configurations.

    Attributes:
        number: The trial that was named.
        trials: All trials that ran it, each on a seed of its own.
        runs: Trial and seed of the runs that count.
        val_bpb: Their score by seed.
        accepted_on: Seeds on which it was accepted; their scores are not counted again.
        mean_bpb: Over the runs that count; None without one.
        artifact_bytes: The largest.
        step_avg_ms: Mean time of a step.
        train_seconds: Mean of a run.
        slot_seconds: Of all its runs together.
        gpu_hours: The same on its GPUs.
        proposer: Who proposed it.
        idea: Its one line.
    """

    number: int
    trials: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]
    val_bpb: dict[int, float]
    accepted_on: tuple[int, ...]
    mean_bpb: float | None
    artifact_bytes: int | None
    step_avg_ms: float | None
    train_seconds: float | None
    slot_seconds: float
    gpu_hours: float
    proposer: str
    idea: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two runs on one seed; the difference is the candidate's minus the base's."""

    seed: int
    base_bpb: float
    candidate_bpb: float
    difference_bpb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A candidate against its base.

    Attributes:
        base: What is compared to.
        candidate: What is judged.
        pairs: Runs on the same seed.
        noise: The study's noise floor; None where no configuration ran on two seeds.
        effect: Candidate minus base; None where the noise is unknown or a side has no run.
        distinguishable: Whether p is below 0.05; None without an effect.
        seeds_more: Further seeds of both that would tell them apart with 80 % probability, if the
            difference is as large as measured; None where they are apart, or no number would.
        rule: Of acceptance.
        decision: What it says of the candidate.
        next_runs: Trials to run on a further seed, by the rule; one entry a run.
        remeasured: The effect without the runs on which the candidate was accepted; None where it
            was not, or has no further run.
        text: The answer in a sentence.
        next_step: What to type.
        metric: The score's name.
    """

    study: str
    base: Side
    candidate: Side
    pairs: tuple[Pair, ...]
    noise: Noise | None
    effect: Effect | None
    distinguishable: bool | None
    seeds_more: int | None
    rule: Rule
    decision: Decision
    next_runs: tuple[int, ...]
    text: str
    next_step: str
    remeasured: Effect | None = None
    metric: str = SCORE


def configuration(record: TrialRecord) -> str:
    """What a trial's repeats have in common: its program and its knobs, all but the seed."""
    knobs = sorted((n, knob_text(v)) for n, v in record.knobs.items() if not is_seed(n))
    return json.dumps([record.variant, knobs])


def seed_of(record: TrialRecord) -> int:
    """The seed that a trial ran on; -1 where the sweep sets none, and the script's own holds."""
    if record.seed is not None:
        return record.seed
    value: KnobValue = next((v for n, v in record.knobs.items() if is_seed(n)), None)
    return value if isinstance(value, int) else -1


def repeats(records: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """All trials of one trial's configuration and rung, itself included, without duplicates.

    Raises:
        InputError: The study has no such trial.
    """
    named = next((r for r in records if r.number == number), None)
    if named is None:
        raise InputError(
            f"the study has no trial {number}",
            expected=f"0 to {len(records) - 1}" if records else "a study with trials",
            next_step="pgolf-sweep trials STUDY",
        )
    wanted = configuration(named)
    own = [r for r in records if r.duplicate_of is None and r.rung == named.rung]
    return [r for r in own if configuration(r) == wanted]


def compared(
    study: str,
    records: Sequence[TrialRecord],
    base: int,
    candidate: int,
    *,
    accept: Accept,
    used: Collection[tuple[int, int]] = (),
    gpus: int = 0,
) -> Compared:
    """Compare two trials with all their further seeds.

    Args:
        study: The study's name.
        records: Its rows.
        base: A trial of the configuration that is compared to.
        candidate: A trial of the one that is judged.
        accept: The rule.
        used: Trial and seed of each run on which an earlier comparison accepted a configuration.
        gpus: Of one slot.

    Raises:
        InputError: There is no such trial, or both are the same configuration.
        AnswerNoError: The candidate failed: it has no score, and no further seed gives one.
    """
    sides = [_side(records, number, used, gpus) for number in (base, candidate)]
    if configuration(_named(records, base)) == configuration(_named(records, candidate)):
        raise InputError(
            f"trials {base} and {candidate} are one configuration on different seeds",
            next_step="name a trial of another configuration",
        )
    for side in sides:
        _refuse_failed(repeats(records, side.number), side)
    first, second = sides
    model = fit(_runs(records, sides, used))
    noise, effect = model.noise, model.effect(_label(first), _label(second))
    apart = None if effect is None else effect.p_value < LEVEL
    more = None
    if effect is not None and not apart:
        more = seeds_more(effect, (len(first.val_bpb), len(second.val_bpb)), level=LEVEL)
    decision = decide(accept, model, _label(first), _label(second), len(second.trials))
    next_runs = _next_runs(first, second, noise) if decision is Decision.MORE else ()
    found = Compared(
        study=study,
        base=first,
        candidate=second,
        pairs=_pairs(first, second),
        noise=noise,
        effect=effect if _sign(records) == 1 or effect is None else _turned(effect),
        distinguishable=apart,
        seeds_more=more,
        rule=accept.rule,
        decision=decision,
        next_runs=next_runs,
        text="",
        next_step="",
        metric=score_name(records),
    )
    return dataclasses.replace(
        found, text=_text(found, _sign(records)), next_step=_next_step(found)
    )


# -- collecting ----------------------------------------------------------------------------------


def _named(records: Sequence[TrialRecord], number: int) -> TrialRecord:
    return next(record for record in records if record.number == number)


def _sign(records: Sequence[TrialRecord]) -> int:
    return -1 if any(record.maximize for record in records) else 1


def _scored(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [r for r in records if r.outcome is State.COMPLETED and r.val_bpb is not None]


def _side(
    records: Sequence[TrialRecord], number: int, used: Collection[tuple[int, int]], gpus: int
) -> Side:
    own = repeats(records, number)
    scored = _scored(own)
    taken = {seed for trial, seed in used if trial in {r.number for r in own}}
    named = _named(records, number)
    count = [r for r in scored if seed_of(r) not in taken]
    scores = {seed_of(r): r.val_bpb for r in count if r.val_bpb is not None}
    seconds = sum(r.slot_seconds for r in own)
    return Side(
        number=number,
        trials=tuple(r.number for r in own),
        runs=tuple((r.number, seed_of(r)) for r in count),
        val_bpb=scores,
        accepted_on=tuple(sorted(taken)),
        mean_bpb=fmean(scores.values()) if scores else None,
        artifact_bytes=max((r.artifact_bytes or 0 for r in scored), default=0) or None,
        step_avg_ms=_mean([r.step_avg_ms for r in scored]),
        train_seconds=_mean([r.train_seconds for r in scored]),
        slot_seconds=seconds,
        gpu_hours=seconds * gpus / 3600,
        proposer=named.proposer,
        idea=named.idea,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _refuse_failed(own: Sequence[TrialRecord], side: Side) -> None:
    if side.val_bpb or side.accepted_on:
        return
    failed = next((r for r in own if r.outcome.final and r.outcome is not State.COMPLETED), None)
    if failed is not None:
        raise AnswerNoError(
            f"trial {failed.number} has no score: {failed.outcome.value}: {failed.reason}",
            next_step=f"pgolf-sweep logs STUDY --trial {failed.number}",
        )


def _label(side: Side) -> str:
    return f"side {side.number}"


def _runs(
    records: Sequence[TrialRecord], sides: Sequence[Side], used: Collection[tuple[int, int]]
) -> list[Run]:
    """Runs of both sides, and of every configuration with two or more: they tell of the noise."""
    own = {configuration(_named(records, side.number)): _label(side) for side in sides}
    spent = set(used)
    grouped: dict[str, list[Run]] = {}
    for record in _scored(records):
        if record.duplicate_of is not None or record.export_of is not None:
            continue
        key = configuration(record)
        # What was accepted on these scores is flattered by them: a mean of their own.
        late = "" if (record.number, seed_of(record)) not in spent else " (accepted)"
        label = own.get(key, key) + late
        score = _sign(records) * (record.val_bpb or 0.0)
        grouped.setdefault(label, []).append(Run(label, seed_of(record), score))
    return [
        run
        for label, runs in grouped.items()
        if len(runs) > 1 or label in own.values()
        for run in runs
    ]


def _pairs(base: Side, candidate: Side) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            seed=seed,
            base_bpb=score,
            candidate_bpb=candidate.val_bpb[seed],
            difference_bpb=candidate.val_bpb[seed] - score,
        )
        for seed, score in base.val_bpb.items()
        if seed in candidate.val_bpb
    )


def _next_runs(base: Side, candidate: Side, noise: Noise | None) -> tuple[int, ...]:
    """Which side to run on a further seed: the one known worse, the base if neither is.

    A run of the base serves all later comparisons with it.
    """
    first, second = len(base.val_bpb), len(candidate.val_bpb)
    if noise is None:
        return (base.number,) * max(1, 3 - first) + ((candidate.number,) if not second else ())
    return (candidate.number,) if second < first else (base.number,)


def _turned(effect: Effect) -> Effect:
    """The effect of a score that is good when high."""
    return dataclasses.replace(effect, value=-effect.value, low=-effect.high, high=-effect.low)


# -- saying --------------------------------------------------------------------------------------


def _text(found: Compared, sign: int) -> str:
    base, candidate, effect = found.base.number, found.candidate.number, found.effect
    if found.noise is None:
        return "the noise is unknown: no configuration has run on two seeds"
    if effect is None:
        lacks = found.base if not found.base.val_bpb else found.candidate
        return f"trial {lacks.number} has no run that counts yet"
    size = (
        f"{effect.value:+.5f} ({effect.low:+.5f} to {effect.high:+.5f}), p = {effect.p_value:.2g}"
    )
    if found.distinguishable:
        word = "better" if sign * effect.value < 0 else "worse"
        return f"trial {candidate} is {word} than trial {base} by {size}"
    if found.seeds_more is None:
        return f"not distinguishable: {size}; the difference is too small for 100 more seeds"
    plural = "s" if found.seeds_more > 1 else ""
    return (
        f"not distinguishable: {size}; {found.seeds_more} more seed{plural} of both would decide, "
        "if the difference is as large as that (80 % power)"
    )


def _next_step(found: Compared) -> str:
    if found.decision is Decision.MORE:
        runs = {number: found.next_runs.count(number) for number in found.next_runs}
        return "; ".join(
            f"pgolf-sweep repeat {found.study} {number} --seeds {count}"
            for number, count in runs.items()
        )
    if found.noise is None:
        return f"pgolf-sweep repeat {found.study} {found.base.number} --seeds 3"
    if found.decision is Decision.KEEP:
        return f"go on from trial {found.candidate.number}"
    if found.decision is Decision.DROP:
        return f"go on from trial {found.base.number}"
    if found.seeds_more is not None:
        return (
            f"pgolf-sweep repeat {found.study} {found.candidate.number} --seeds {found.seeds_more}"
        )
    return f"pgolf-sweep trials {found.study}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor:
    """What a study knows of its noise.

    Attributes:
        runs: Runs of the baseline that it begins with for that; 0 where it does not.
        ended: Those that have ended.
        noise: From all that ran on two seeds; None where nothing did.
    """

    runs: int
    ended: int
    noise: Noise | None

    @property
    def text(self) -> str:
        """A sentence without its end; empty where there is nothing to say."""
        open_runs = self.runs - self.ended
        waits = f"{self.ended} of {self.runs} runs of the baseline have ended" if open_runs else ""
        if self.noise is None:
            return waits
        noise = self.noise
        configs = f"{noise.configs} configuration{'s' * (noise.configs != 1)}"
        known = f"{noise.std:.5f} a run, from {noise.runs} runs of {configs}"
        return f"{known}; {waits}" if waits else known

    def to_json(self) -> dict[str, Any]:
        """The `noise_floor` of ``status --json``; keys stay stable."""
        return {
            "runs": self.runs,
            "ended": self.ended,
            "run_std_bpb": None if self.noise is None else self.noise.std,
        }


def noise_floor(records: Sequence[TrialRecord]) -> NoiseFloor:
    """What a study knows of its noise, by its rows."""
    if all(record.seed is None for record in records):
        return NoiseFloor(runs=0, ended=0, noise=None)
    floor = [r for r in records if r.proposer == BASELINE]
    return NoiseFloor(
        runs=len(floor) if len(floor) > 1 else 0,
        ended=sum(record.outcome.final for record in floor) if len(floor) > 1 else 0,
        noise=noise_of(records),
    )


def noise_of(records: Sequence[TrialRecord]) -> Noise | None:
    """The study's noise floor, pooled over all that ran on two seeds; None where nothing did."""
    return fit(_runs(records, (), ())).noise
