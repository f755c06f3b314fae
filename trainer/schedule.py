"""Learning rate and momentum as functions of the step and the clock; pure arithmetic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import Config


def decay_shape(schedule: str, progress: float) -> float:
    """Share of the peak rate left at a progress of 0 to 1 through the warmdown.

    ``wsd`` is the one-minus-square-root cooldown. Source: Haegele et al. 2024, arXiv 2405.18392.
    """
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "wsd":
        return 1.0 - math.sqrt(progress)
    return 1.0 - progress


def progress(config: Config, step: int, elapsed_seconds: float) -> float:
    """Share of the run that is done, by iterations or by the wallclock, whichever is further."""
    done = step / config.iterations
    cap = config.training_seconds
    return max(done, elapsed_seconds / cap) if cap > 0 else done


def loops(config: Config, step: int, elapsed_seconds: float) -> bool:
    """Whether the step goes over the looped blocks again."""
    return config.num_loops > 0 and (
        progress(config, step, elapsed_seconds) >= config.enable_looping_at
    )


def rounds(config: Config, step: int, elapsed_seconds: float) -> bool:
    """Whether the step's loss is that of the rounded weights."""
    return config.qat_frac > 0 and (
        progress(config, step, elapsed_seconds) >= 1.0 - config.qat_frac
    )


def warmdown_progress(config: Config, step: int, elapsed_seconds: float) -> float:
    """How far the warmdown is: 0 before it starts, towards 1 at the end of the run.

    The run ends by iterations or by the wallclock, whichever comes first. Seconds become steps by
    the mean step so far, so that a warmdown given in steps lasts as long as so many steps.
    """
    if config.warmdown_frac > 0:
        into = progress(config, step, elapsed_seconds) - (1.0 - config.warmdown_frac)
        return min(max(into / config.warmdown_frac, 0.0), 1.0)
    cap = config.training_seconds
    if config.warmdown_iters <= 0:
        return 0.0
    steps_left = float(config.iterations - step)
    if cap > 0 and step > 0 and elapsed_seconds > 0:
        steps_left = min(steps_left, (cap - elapsed_seconds) / (elapsed_seconds / step))
    return min(max(1.0 - steps_left / config.warmdown_iters, 0.0), 1.0)


def lr_scale(config: Config, step: int, elapsed_seconds: float) -> float:
    """Factor on every learning rate for the step (counted from 0)."""
    if step < config.lr_warmup_steps:
        return (step + 1) / config.lr_warmup_steps
    left = decay_shape(config.lr_schedule, warmdown_progress(config, step, elapsed_seconds))
    return max(config.min_lr_frac + (1.0 - config.min_lr_frac) * left, config.min_lr)


def muon_momentum(config: Config, step: int) -> float:
    """Muon's momentum for the step, rising linearly to its full value."""
    if step >= config.muon_momentum_warmup_steps:
        return config.muon_momentum
    done = step / config.muon_momentum_warmup_steps
    start = config.muon_momentum_warmup_start
    return start + done * (config.muon_momentum - start)


def should_stop(config: Config, step: int, elapsed_seconds: float) -> bool:
    """Whether the wallclock forbids another step after the first `step` ones.

    The clock is read in the middle of the last step, hence two mean steps: its rest and a next.
    """
    cap = config.training_seconds
    return cap > 0 and elapsed_seconds + 2.0 * elapsed_seconds / max(step, 1) > cap
