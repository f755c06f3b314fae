"""Standard deviations of a script's trained weights, from what its optimizers were seen to do.

Matrices under Muon walk as `random_walk` says: rate, decay and momentum are those of the group that
holds them. Everything else walks as under Adam. The course of a run, which only its end would
show, comes from the names that scripts give their knobs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf_sweep.gate.physics.random_walk import (
    Average,
    TrainingRun,
    adam_variance,
    muon_random_walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.trial import KnobValue

DEFAULT_RATE = 0.02
DEFAULT_MOMENTUM = 0.95
VECTOR_SIGMA = 0.02
"""Noise of gains and scales; they are stored as floating-point numbers."""
MOST_STEPS = 20_000
"""Longer runs are summed as ones of that many steps, of a rate that leaves the same variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUpdate:
    """What one optimizer does to a group of tensors.

    Attributes:
        muon: Whether its updates are orthogonal matrices.
        rate: Learning rate before the warm-down.
        momentum: Momentum in the end.
        decay: Decoupled weight decay, times the rate a step.
        members: Names of the tensors.
    """

    muon: bool
    rate: float
    momentum: float
    decay: float
    members: tuple[str, ...]


def trained_sigmas(
    shapes: Mapping[str, tuple[int, ...]],
    updates: Iterable[GroupUpdate],
    factors: Mapping[str, float],
    values: Mapping[str, KnobValue],
    steps: float,
) -> dict[str, float]:
    """The spread of every tensor after training.

    Args:
        shapes: Shape by name.
        updates: What the optimizers do.
        factors: Factor a step by which the script itself shrinks a tensor.
        values: Its knobs, for the course of the run.
        steps: Its number of steps.
    """
    by_name = {name: update for update in updates for name in update.members}
    found = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            found[name] = VECTOR_SIGMA
            continue
        factor = factors.get(name, 1.0)
        update = by_name.get(name) or _guessed(values, factor)
        if factor < 1 and update.rate > 0 and not update.decay:
            update = replace(update, decay=(1 - factor) / update.rate)
        columns = shape[-1]
        run = run_of(update, values, steps)
        if update.muon:
            variance = muon_random_walk(run).variance(columns, 1 / (3 * columns))
        else:
            variance = adam_variance(run)
        found[name] = math.sqrt(max(variance, 1e-12))
    return found


def run_of(update: GroupUpdate, values: Mapping[str, KnobValue], steps: float) -> TrainingRun:
    """The course of one group's training."""
    whole = max(1, round(min(steps, MOST_STEPS)))
    longer = max(1.0, steps / whole)
    warmdown = number(values, 0.0, "WARMDOWN_ITERS", "WARMDOWN_STEPS", "COOLDOWN_ITERS")
    share = number(values, 0.0, "WARMDOWN_FRAC", "WARMDOWN_FRACTION", "COOLDOWN_FRAC", "WARMDOWN")
    if 0 < share <= 1:
        warmdown = share * whole
    ema = number(values, 0.0, "EMA_DECAY")
    average = Average.EXPONENTIAL if 0 < ema < 1 and _is_on(values, "EMA") else Average.NONE
    momentum = min(max(update.momentum, 0.0), 0.999)
    start = number(values, momentum, "MUON_MOMENTUM_WARMUP_START") if update.muon else momentum
    return TrainingRun(
        steps=whole,
        rate=update.rate * math.sqrt(longer),
        warmdown=min(warmdown, whole),
        decay=update.decay * math.sqrt(longer),
        momentum=momentum,
        momentum_start=min(max(start, 0.0), 0.999),
        momentum_warmup=number(values, 0.0, "MUON_MOMENTUM_WARMUP_STEPS") if update.muon else 0.0,
        average=average,
        average_steps=1 / (1 - ema) if average is Average.EXPONENTIAL else 0.0,
    )


def number(values: Mapping[str, KnobValue], default: float, *names: str) -> float:
    """The first of some knobs that is a number."""
    for name in names:
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return default


def _is_on(values: Mapping[str, KnobValue], word: str) -> bool:
    flag = values.get(f"{word}_ENABLED", values.get(f"USE_{word}", True))
    return bool(flag) and str(flag) not in {"0", "False", "false"}


def _guessed(values: Mapping[str, KnobValue], factor: float) -> GroupUpdate:
    """An update that was not seen, by the names that most scripts give their rates."""
    rate = number(values, DEFAULT_RATE, "MATRIX_LR", "MUON_LR", "LEARNING_RATE")
    decay = number(values, 0.0, "MUON_WD", "MUON_WEIGHT_DECAY", "WEIGHT_DECAY", "WD")
    if factor < 1 and rate > 0:
        decay = (1 - factor) / rate
    return GroupUpdate(
        muon=True,
        rate=rate,
        momentum=number(values, DEFAULT_MOMENTUM, "MUON_MOMENTUM"),
        decay=decay,
        members=(),
    )
