"""Proposals and cost of a sweep, by sampling its space through the gate: no GPU, no data."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pgolf_sweep.core.trial import KnobValue, Verdict, VerdictKind
from pgolf_sweep.gate.resources import CPU_FLOPS, GPU_FLOPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.core.spending import Spending
    from pgolf_sweep.gate.gate import Gate

SECONDS_TO_START = 45.0
"""From a free slot to the first line: process, torch, ranks, data."""
SECONDS_TO_COMPILE = 75.0
"""torch.compile and warm-up steps on a GPU; not counted as training by the rules."""
SECONDS_TO_LOAD = 20.0
"""Of those, what is left where the node's cache holds the graph; an estimate."""
SECONDS_TO_EVALUATE = 60.0
"""Final evaluation of the round trip, validations on the way, quantization and the codec."""
CPU_SECONDS_BESIDE = 4.0
"""All of that for a tiny model on a CPU."""
_GRAPH = re.compile(
    r"LAYERS|(^|_)DIM(S|_|$)|MLP|VOCAB|HEADS|HIDDEN|SEQ|BATCH|ACCUM|LOOP(?!ING_AT)|XSA|PARALLEL|GATE"
    r"|COMPILE|DTYPE|(^|_)TIE|LN_SCALE|SOFTCAP|QAT|BACKEND_STEPS|POLAR|ROW_NORM"
)
"""Knobs with which a compiled graph changes, the model's or Muon's: shapes and constants in it.

Rates, decays and schedules do not change it."""
MOST_BINS = 8
LEAST_SPREAD = 0.02
"""A size that varies by less is one size: its prediction is not finer."""
LEAST_SHARE = 0.03
"""A knob that explains less is noise: chance gives 0.01 at a few hundred draws."""


class SpaceLike(Protocol):
    """What a plan needs of `pgolf_sweep.space.space.Space`."""

    def sample(self, rng: random.Random) -> dict[str, KnobValue]:
        """A draw from the prior."""

    def grid(self) -> Iterator[dict[str, KnobValue]]:
        """Every configuration, each once."""

    def size(self) -> int | None:
        """Number of configurations, None where there is no end."""


class Judge(Protocol):
    """What a plan needs of `pgolf_sweep.driver.session.Session`."""

    def resolve(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """Knobs with those that rules and data imply."""

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """The gate's answer after the sweep file's own requirements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One sampled configuration with the gate's answer."""

    knobs: Mapping[str, KnobValue]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class FitShare:
    """Shares of the space by verdict; they add up to one.

    Attributes:
        draws: Configurations sampled.
    """

    draws: int
    fits: float
    near: float
    too_big: float
    invalid: float
    unknown: float

    @property
    def launched(self) -> float:
        """Share that would reach a slot."""
        return self.fits + self.near + self.unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """One bar of the histogram of predicted artifact bytes."""

    low_bytes: float
    high_bytes: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """Share of the variance of log bytes that a knob explains by itself."""

    knob: str
    variance_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Largest:
    """The largest model, by parameters, that surely fits at one width of the blocks' weights."""

    bits: int
    model_params: int
    artifact_bytes: float
    knobs: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the sweep is expected to take; pruning, which only saves, is not counted.

    Attributes:
        trials: Trials that take a slot, or None where the sweep has no end.
        trial_seconds: One trial, from a free slot to its score; None where nothing limits it and
            its training cannot be estimated.
        gpu_hours: All trials; None where there is no end, nothing but CPUs, or no time of a trial.
        usd: The same in dollars, where a price is known.
        wall_seconds: All trials over the slots.
        slots: Trials at a time.
        ended_by_budget: Whether the sweep file's budget ends it before anything else does.
        asked_trials: Trials that would take a slot without the budget.
        reserved_runs: Runs of a promotion: a budget keeps them back, else they come on top.
        reserved_gpu_hours: What they take.
        reserved_usd: The same in dollars.
    """

    trials: int | None
    trial_seconds: float | None
    slots: int
    gpu_hours: float | None
    usd: float | None
    wall_seconds: float | None
    ended_by_budget: bool = False
    asked_trials: int | None = None
    reserved_runs: int = 0
    reserved_gpu_hours: float | None = None
    reserved_usd: float | None = None


def sample_space(judge: Judge, space: SpaceLike, *, draws: int, seed: int) -> list[Draw]:
    """Draws from the prior with the verdicts that a launch would give them."""
    rng = random.Random(seed)
    found = []
    for _ in range(draws):
        knobs = judge.resolve(space.sample(rng))
        found.append(Draw(knobs=knobs, verdict=judge.verdict(knobs)))
    return found


def fit_share(draws: Sequence[Draw]) -> FitShare:
    """What share of a sampled space would fit."""
    counts = Counter(draw.verdict.kind for draw in draws)
    total = max(1, len(draws))
    return FitShare(
        draws=len(draws),
        fits=counts[VerdictKind.FITS] / total,
        near=counts[VerdictKind.NEAR] / total,
        too_big=counts[VerdictKind.TOO_BIG] / total,
        invalid=counts[VerdictKind.INVALID] / total,
        unknown=counts[VerdictKind.UNKNOWN] / total,
    )


def infeasible(draws: Sequence[Draw], gate: Gate) -> str:
    """Why nothing of a sampled space would be launched; empty where something would."""
    known = [draw for draw in draws if draw.verdict.artifact_bytes is not None]
    if not known or fit_share(draws).launched:
        return ""
    nearest = min(known, key=lambda draw: _mid(draw.verdict))
    return (
        f"none of {len(draws)} draws fits; {nearest_text(nearest.knobs, nearest.verdict)}"
        f"{feasible_text(gate, nearest.knobs)}"
    )


def nearest_text(knobs: Mapping[str, KnobValue], verdict: Verdict) -> str:
    """How far the configuration that comes nearest is over the cap."""
    named = " ".join(f"{name}={value}" for name, value in sorted(knobs.items()))
    mid = _mid(verdict)
    return (
        f"the nearest, {named}, is at about {mid:,.0f} bytes, {mid - verdict.cap_bytes:,.0f} over"
    )


def feasible_text(gate: Gate, knobs: Mapping[str, KnobValue]) -> str:
    """With which one knob a resolved configuration would fit; empty where none is known."""
    feasible = gate.nearest_fit(knobs)
    changed = " ".join(f"{name}={value}" for name, value in feasible.items())
    return f"; with {changed} it would fit" if changed else ""


def _mid(verdict: Verdict) -> float:
    return verdict.artifact_bytes.mid if verdict.artifact_bytes else math.inf


def histogram(draws: Sequence[Draw], *, bins: int = 16) -> list[Bin]:
    """Predicted artifact bytes in bins of equal width; empty where nothing is predicted."""
    values = [draw.verdict.artifact_bytes.mid for draw in draws if draw.verdict.artifact_bytes]
    if not values:
        return []
    low, high = min(values), max(values)
    width = (high - low) / bins or 1.0
    counts = Counter(min(bins - 1, int((value - low) / width)) for value in values)
    return [
        Bin(low_bytes=low + i * width, high_bytes=low + (i + 1) * width, count=counts[i])
        for i in range(bins if high > low else 1)
    ]


def size_spread(draws: Sequence[Draw]) -> float | None:
    """How far predicted bytes are apart, from their 5th to their 95th percentile over the median.

    None where nothing is predicted.
    """
    values = sorted(d.verdict.artifact_bytes.mid for d in draws if d.verdict.artifact_bytes)
    if not values:
        return None
    last = len(values) - 1
    return (values[round(0.95 * last)] - values[round(0.05 * last)]) / values[last // 2]


def deciding_knobs(draws: Sequence[Draw]) -> list[Influence]:
    """How much of the spread of log bytes each knob explains alone, most first.

    The variance between groups of draws that share the knob's value (or a range of it) over the
    whole, less what chance would give; knobs that explain nothing are left out, and all are where
    the size hardly varies.
    """
    if (size_spread(draws) or 0.0) < LEAST_SPREAD:
        return []
    known = [
        (draw.knobs, math.log(draw.verdict.artifact_bytes.mid))
        for draw in draws
        if draw.verdict.artifact_bytes
    ]
    if len(known) < 3:
        return []
    mean = math.fsum(y for _, y in known) / len(known)
    whole = math.fsum((y - mean) ** 2 for _, y in known)
    found = []
    for knob in sorted({name for knobs, _ in known for name in knobs}):
        groups: dict[object, list[float]] = {}
        label = _labels([knobs.get(knob) for knobs, _ in known])
        for (_, y), value in zip(known, label, strict=True):
            groups.setdefault(value, []).append(y)
        within = math.fsum(
            math.fsum((y - math.fsum(ys) / len(ys)) ** 2 for y in ys) for ys in groups.values()
        )
        free = len(known) - len(groups)
        if len(groups) < 2 or free < 1 or whole <= 0:
            continue
        share = 1 - (within / free) / (whole / (len(known) - 1))
        if share > LEAST_SHARE:
            found.append(Influence(knob=knob, variance_share=share))
    return sorted(found, key=lambda influence: -influence.variance_share)


def _labels(values: list[KnobValue | None]) -> list[object]:
    """The values themselves where they are few, else the eighth of the range by rank."""
    distinct = sorted({v for v in values if isinstance(v, int | float)})
    if any(isinstance(v, list | dict) for v in values):
        return [str(v) for v in values]
    if len(distinct) <= MOST_BINS or any(isinstance(v, str) for v in values):
        return list(values)
    rank = {value: i * MOST_BINS // len(distinct) for i, value in enumerate(distinct)}
    return [rank[v] if isinstance(v, int | float) else None for v in values]


def largest_by_bits(draws: Sequence[Draw], gate: Gate) -> list[Largest]:
    """The largest model that surely fits, for each width of the blocks' matrices."""
    best: dict[int, Draw] = {}
    for draw in draws:
        if draw.verdict.kind is not VerdictKind.FITS or draw.verdict.model_params is None:
            continue
        bits = next((g.bits for g in gate.groups(draw.knobs) if g.group == "mlp"), 0)
        if bits not in best or _params(draw) > _params(best[bits]):
            best[bits] = draw
    return [
        Largest(
            bits=bits,
            model_params=_params(draw),
            artifact_bytes=draw.verdict.artifact_bytes.mid if draw.verdict.artifact_bytes else 0.0,
            knobs=draw.knobs,
        )
        for bits, draw in sorted(best.items())
    ]


def _params(draw: Draw) -> int:
    return draw.verdict.model_params or 0


def most_trials(
    judge: Judge, space: SpaceLike, draws: Sequence[Draw], run_cap: int | None
) -> int | None:
    """Most trials that can take a slot, or None where there is no end.

    No configuration runs twice and none that the gate discards runs at all, whoever proposes. Of
    a space of more configurations than were drawn, the draws' share is taken.
    """
    size = space.size()
    if size is None:
        return run_cap
    if size <= len(draws):
        kinds = (judge.verdict(judge.resolve(knobs)) for knobs in space.grid())
        found = sum(not verdict.discards for verdict in kinds)
    else:
        found = math.ceil(size * fit_share(draws).launched)
    return found if run_cap is None else min(run_cap, found)


def expected_cost(
    draws: Sequence[Draw],
    gate: Gate,
    *,
    trials: int | None,
    slots: int,
    train_seconds: float | None,
    spending: Spending,
    now: float = 0.0,
    beside: float = 0.0,
) -> Cost:
    """Time and money, with start, compilation and evaluation of each trial counted.

    Args:
        draws: Sampled configurations; those that the gate discards cost nothing.
        gate: For the program's defaults.
        trials: Trials that take a slot, or None where the sweep has no end.
        slots: Trials at a time.
        train_seconds: The limit on training; None where there is none.
        spending: What the sweep may spend, GPUs of a trial and their price.
        now: When it would begin, in seconds of the epoch.
        beside: What each costs on cheaper rungs, as a share of what it costs itself.
    """
    launched = [draw for draw in draws if not draw.verdict.discards]
    asked = trials = trials if launched else 0
    seconds = [trial_seconds(draw, gate, spending.gpus, train_seconds) for draw in launched]
    known = [one for one in seconds if one is not None]
    if len(known) < len(seconds):
        return Cost(
            trials=trials, trial_seconds=None, slots=slots, gpu_hours=None, usd=None,
            wall_seconds=None, asked_trials=asked, reserved_runs=spending.reserved_runs,
        )  # fmt: skip
    cold = math.fsum(known) / len(known) if known else 0.0
    each, possible = cold, math.inf
    for _ in range(2):  # fewer trials compile a larger share of them
        ends = min(math.inf if trials is None else trials, possible)
        if spending.gpus and launched:
            warm = 1 - compiled_share(launched, ends, slots)
            each = cold - warm * (SECONDS_TO_COMPILE - SECONDS_TO_LOAD)
        whole = (1 + beside) * each
        possible = min(
            max(1.0, spending.affordable(whole)),  # a driver lets the first one run
            spending.trials_by_deadline(whole, slots=slots, now=now),
        )
    by_budget = bool(launched) and possible < (math.inf if trials is None else trials)
    if by_budget:
        trials = int(possible)
    held = None if trials is None else trials * whole
    reserved = spending.reserved_runs * each
    on_gpus = bool(spending.gpus)
    return Cost(
        trials=trials,
        trial_seconds=each,
        slots=slots,
        gpu_hours=spending.gpu_hours_of(held) if on_gpus and held is not None else None,
        usd=spending.usd_of(held) if on_gpus and held is not None else None,
        wall_seconds=None if trials is None else math.ceil(trials / slots) * whole,
        ended_by_budget=by_budget,
        asked_trials=asked,
        reserved_runs=spending.reserved_runs,
        reserved_gpu_hours=spending.gpu_hours_of(reserved) if on_gpus else None,
        reserved_usd=spending.usd_of(reserved) if on_gpus else None,
    )


def compiled_share(draws: Sequence[Draw], trials: float, slots: int) -> float:
    """Expected share of trials that compile: the first of each graph on each slot's node.

    Later ones find the graph in the node's cache. The graphs of the draws stand for the sweep's:
    in n trials of a slot one of probability p turns up with probability 1 - (1 - p) ** n.

    Args:
        draws: What is launched; at least one.
        trials: Trials of the sweep; infinity where it has no end.
        slots: Nodes that compile for themselves.
    """
    graphs = Counter(
        (
            draw.verdict.model_params,
            *sorted((k, str(v)) for k, v in draw.knobs.items() if _GRAPH.search(k)),
        )
        for draw in draws
    )
    if math.isinf(trials):
        return 0.0
    each = max(1.0, trials / slots)
    met = math.fsum(1 - (1 - count / len(draws)) ** each for count in graphs.values())
    return min(1.0, met / each)


def slots_needed(cost: Cost, deadline_seconds: float) -> int | None:
    """Fewest trials at a time with which all end by a deadline; None where none would do.

    Args:
        cost: What the sweep takes.
        deadline_seconds: From its start.
    """
    if cost.trials == 0:
        return 0
    if cost.trials is None or cost.trial_seconds is None or cost.trial_seconds > deadline_seconds:
        return None
    rounds = int(deadline_seconds / cost.trial_seconds) if cost.trial_seconds else cost.trials
    return math.ceil(cost.trials / max(1, rounds))


def trial_seconds(draw: Draw, gate: Gate, gpus: int, train_seconds: float | None) -> float | None:
    """One trial's expected time; None where it has no limit and its arithmetic is not known."""
    values = {**gate.defaults, **draw.knobs}

    def number(name: str) -> float:
        value = values.get(name, 0)
        return float(value) if isinstance(value, int | float) else 0.0

    limit = number("MAX_WALLCLOCK_SECONDS") or train_seconds
    flops = 6 * _params(draw) * number("TRAIN_BATCH_TOKENS") * number("ITERATIONS")
    rate = GPU_FLOPS * gpus if gpus else CPU_FLOPS
    bounds = [limit] if limit else []
    if flops:
        bounds.append(flops / rate)
    if not bounds:
        return None
    training = min(bounds)
    beside = SECONDS_TO_START + SECONDS_TO_COMPILE + SECONDS_TO_EVALUATE
    return training + (beside if gpus else CPU_SECONDS_BESIDE)
