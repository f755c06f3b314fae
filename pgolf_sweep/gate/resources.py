"""Time and memory of a configuration on the machine that would run it; None where unknown.

Rates are guessed from what the baseline takes and learnt from finished trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

GPU_FLOPS = 1.54e14
"""Training arithmetic of one H100 a second: the baseline's 43.55 ms on eight, 20 % of the peak."""
CPU_FLOPS = 4e10
"""The same of one CPU core: 17 to 42 thousand tokens a second on 2 x 64 to 3 x 96."""
GUESSED_SD = 0.4
"""Spread of the logarithm of a step's seconds before one was measured: other cards and shapes."""
LEAST_SD = 0.2
"""The same of shapes of one size: models of the contest use 20 to 30 % of a card's peak."""
EXTRAPOLATED_SD = 0.5
"""The same for each e-fold away from the nearest size that was timed: what does not grow with the
model (start of kernels, data, the first batch) may be all of a small one's time."""
ACTIVATIONS = 34.0
"""Bytes kept for the backward pass, for each token, layer and unit of width, with an MLP of twice
the width. Judged from the model's graph; the baseline's logged 10,184 MiB give 33."""
ROUNDING_TOKENS = 180
"""Tokens whose arithmetic takes as long as rounding the weights once: 8.9 ns a weight, on a CPU."""
DOCUMENT_TOKENS = 1000
"""Of a document of the contest's validation split, about: 50,000 in 62 million tokens (sp1024)."""
MEMORY_SURE = 0.8
"""Discard for memory only when this share of what is expected is over the card's. Over 137 logged
runs of 52 records the expectation was at most 1.11 times the peak (`bench/gate/memory.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a trial runs on, and what it may take; None and 0 switch a check off.

    Attributes:
        gpus: GPUs of a trial; 0 is a CPU.
        memory_bytes: Of one card.
        eval_seconds: Most seconds of evaluation.
        min_steps: Fewest training steps that are worth a slot.
    """

    gpus: int = 0
    memory_bytes: float | None = None
    eval_seconds: float | None = None
    min_steps: int | None = None

    @property
    def flops(self) -> float:
        """Training arithmetic a second, a guess."""
        return GPU_FLOPS * self.gpus if self.gpus else CPU_FLOPS


class Pace:
    """Seconds a unit of arithmetic takes: a guess that finished trials replace.

    Args:
        flops: The guess, a second.
        guessed_sd: Spread of its logarithm.
    """

    def __init__(self, flops: float | None, guessed_sd: float | None = None) -> None:
        self._guessed_sd = guessed_sd or GUESSED_SD
        self._logs: list[float] = []
        self._sizes: list[float] = []
        self._guess = None if flops is None else -math.log(flops)

    @property
    def measured(self) -> bool:
        """Whether any trial was timed."""
        return bool(self._logs)

    def learn(self, flops: float, seconds: float, *, units: float = 1) -> None:
        """Take in a measured time.

        Args:
            flops: The arithmetic that was timed.
            seconds: What it took.
            units: The steps or passes that it was.
        """
        if flops > 0 and seconds > 0:
            self._logs.append(math.log(seconds / flops))
            self._sizes.append(math.log(flops / units))

    def seconds(self, flops: float, *, units: float = 1) -> tuple[float, float] | None:
        """Expected time of some arithmetic in that many units, and the SD of its logarithm."""
        count = len(self._logs)
        if not count:
            return (
                None
                if self._guess is None
                else (
                    math.exp(self._guess) * flops,
                    self._guessed_sd,
                )
            )
        mean = math.fsum(self._logs) / count
        squares = math.fsum((value - mean) ** 2 for value in self._logs)
        variance = (4 * LEAST_SD**2 + squares) / (4 + count - 1)
        away = min(abs(math.log(max(flops / units, 1.0)) - size) for size in self._sizes)
        spread = math.hypot(math.sqrt(variance * (1 + 1 / count)), EXTRAPOLATED_SD * away)
        return math.exp(mean) * flops, spread


def step_flops(config: Any, model_params: int) -> float:
    """Arithmetic of a mean training step: forward and backward, attention's products left out."""
    share = 1.0 - config.enable_looping_at
    looped = share * _repeated_blocks(config) * _block_params(config)
    rounding = ROUNDING_TOKENS * config.qat_frac * model_params
    return float(6.0 * ((model_params + looped) * config.train_batch_tokens + rounding))


def _repeated_blocks(config: Any) -> int:
    """How many blocks more than it has a pass with loops goes through."""
    return int(config.num_loops * (config.loop_end - config.loop_start + 1))


def _block_params(config: Any) -> float:
    """Weights of one block's matrices."""
    kv_share = config.num_kv_heads / config.num_heads
    return float((2 + 2 * kv_share + 2 * config.mlp_mult) * config.model_dim**2)


def evaluation_passes(config: Any) -> float:
    """The final evaluation's work, in plain passes over the validation split."""
    sliding = config.train_seq_len / config.eval_stride if config.eval_stride else 0.0
    adapting = 0.0
    if config.ttt_enabled:  # forward and backward for each chunk, half a document before it
        context = min(config.train_seq_len, DOCUMENT_TOKENS / 2)
        adapting = 3.0 * context / config.ttt_chunk_size
    return float((1.0 + sliding + adapting) * (1.0 + _repeated_blocks(config) / config.num_layers))


def peak_bytes(config: Any, model_params: int, gpus: int) -> float:
    """Most memory of one device: weights, gradients, optimizer, and a micro-batch's activations."""
    ranks = max(1, gpus)
    parts = (config.grad_accum_steps or 8 // ranks) * ranks if gpus else 1
    tokens = config.train_batch_tokens / parts
    width = (4 + config.mlp_mult) / 6 * config.model_dim
    blocks = config.num_layers + _repeated_blocks(config)
    activations = ACTIVATIONS * tokens * blocks * width
    logits = 10.0 * tokens * config.vocab_size  # bfloat16, float32 and the latter's gradient
    weights = 16.0 + 4.0 * (config.qat_frac > 0)  # the rounded ones beside the others
    return float(weights * model_params + activations + logits)
