"""A sweep's space, gate and trials, as the Gaussian-process sampler sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pgolf_sweep.config.rules import SEED_NOISE_BPB, load_rules
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import FailureKind, VerdictKind
from pgolf_sweep.search.gp import Judged, Observation
from pgolf_sweep.search.journal import JUDGED, RECORD
from pgolf_sweep.space.domains import Constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from optuna.trial import FrozenTrial

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.space.space import Space

    Verdicts: TypeAlias = Callable[[Mapping[str, KnobValue]], Verdict]
    """The gate's word on the knobs of a sweep."""

FAILED_BPB = 100.0
"""Stands for the score of a configuration that diverges or runs out of memory: worse than any."""


def expected_noise(spec: SweepSpec) -> float | None:
    """Standard deviation of a sweep's score between seeds, by its rules; None where unknown."""
    if not spec.metric.contest:
        return None
    try:
        return load_rules(spec.pgolf.rules, base=spec.source.parent).seed_noise
    except InputError:
        return SEED_NOISE_BPB  # the rules file lies elsewhere by now


@dataclass(slots=True)
class _Recorder:
    """A sampler that notes how it is asked."""

    asked: dict[str, BaseDistribution]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked[name] = FloatDistribution(low, high, log=log, step=step)
        return low

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.asked[name] = IntDistribution(low, high, log=log, step=step)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = CategoricalDistribution(tuple(choices))
        return choices[0]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """How a sampler is asked for each parameter, parents first."""
    recorder = _Recorder({})
    for parameter in space.ordered():
        parameter.domain.suggest(recorder, parameter.name)
    return recorder.asked


def conditions(space: Space) -> dict[str, dict[str, list[Any]]]:
    """Under which answers for other parameters each conditional one exists."""
    found: dict[str, dict[str, list[Any]]] = {}
    for parameter in space.ordered():
        for parent, allowed in parameter.when.items():
            domain = space.parameters[parent].domain
            if isinstance(domain, Constant):
                continue
            answers = []
            for value in allowed:
                try:
                    answers.append(domain.encode(value))
                except ValueError:
                    continue  # the parent is never so
            found.setdefault(parameter.name, {})[parent] = answers
    return found


def never(space: Space) -> set[str]:
    """Parameters whose condition no configuration meets, since a constant decides it."""
    out: set[str] = set()
    for parameter in space.ordered():
        for parent, allowed in parameter.when.items():
            domain = space.parameters[parent].domain
            if parent in out or (isinstance(domain, Constant) and domain.value not in allowed):
                out.add(parameter.name)
    return out


@dataclass(frozen=True, slots=True)
class GateJudge:
    """The gate, asked with a sampler's answers."""

    space: Space
    verdicts: Verdicts

    def __call__(self, values: Mapping[str, Any], /) -> Judged:
        """Whether a configuration fits, and how large its artifact and its model are."""
        verdict = self.verdicts(self.space.decode(values))
        size, params = verdict.artifact_bytes, verdict.model_params
        excess = None if size is None else math.log(max(size.mid, 1.0) / verdict.cap_bytes)
        probability = verdict.fit_probability
        if verdict.kind is VerdictKind.INVALID or verdict.discards:
            probability = 0.0
        elif probability is None:
            probability = 1.0
        return Judged(probability, excess, math.log(params) if params else None)


def observed(trial: FrozenTrial) -> Observation | None:
    """What a finished trial says of its configuration; None: nothing."""
    row = trial.user_attrs.get(RECORD)
    if row is None or row.get("duplicate_of") is not None:
        return None
    scored = row["outcome"] in {State.COMPLETED.value, State.SCREENED.value}
    if scored and row["val_bpb"] is not None:
        headroom = row.get("headroom_bytes")
        score = -row["val_bpb"] if row.get("maximize") else row["val_bpb"]
        return Observation(score, feasible=headroom is None or headroom >= 0)
    judged = trial.user_attrs.get(JUDGED)
    if row["outcome"] == State.PRUNED.value and judged and judged["expected"] is not None:
        # Where its curve was heading, as the others' went on from there.
        return Observation(judged["expected"], variance=judged["sd"] ** 2, feasible=False)
    if row["outcome"] == State.FAILED.value and row["failure"] == FailureKind.DETERMINISTIC.value:
        return Observation(FAILED_BPB, feasible=False)
    return None
