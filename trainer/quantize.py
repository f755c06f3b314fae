"""Weights to n-bit integers with a step per row, and back; numpy only.

A value is ``code * step`` with codes from -Q to Q, Q = 2^(bits - 1) - 1. The step is a float16,
and codes are rounded against that float16, so what is stored is exactly what is scored. Rules:

    rowmax       step = max|w| / Q; no value is clipped
    percentile   step = CLIP_PERCENTILE of |w| / Q; the contest's baseline, without its floor
    sdclip       step = CLIP_SIGMAS * rms(w) / Q, by group of tensors where ATTN_, MLP_ or
                 EMBED_CLIP_SIGMAS is set; the entropy of a code is then known beforehand
    mse          the step between 30 % and 100 % of rowmax with the least squared error

Every matrix is quantized; every vector and every scale, mix or gate is kept as float16. Unlike the
baseline no matrix is kept for being small: in a tiny model all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trainer.config import TrainerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trainer.config import Config

    Floats: TypeAlias = NDArray[np.float32]

FLOAT_NAMES = ("scale", "mix", "gate")
MSE_SHRINKS = tuple(1.0 - 0.025 * index for index in range(29))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """One matrix as integers.

    Attributes:
        bits: Bits of a code.
        codes: int8 [rows, columns], from -Q to Q.
        steps: float16 [rows].
    """

    bits: int
    codes: NDArray[np.int8]
    steps: NDArray[np.float16]


Stored: TypeAlias = "Quantized | NDArray[np.float16]"


def tensor_bits(config: Config, name: str, ndim: int) -> int:
    """Bits that a tensor is stored with; 16 stands for float16, not quantized."""
    if ndim != 2 or any(part in name for part in FLOAT_NAMES):
        return 16
    if ".attn." in name:
        return config.attn_bits or config.matrix_bits
    if ".mlp." in name:
        return config.mlp_bits or config.matrix_bits
    return config.embed_bits


def tensor_sigmas(config: Config, name: str) -> float:
    """Clip of sdclip for a tensor, in standard deviations of a row."""
    if ".attn." in name:
        return config.attn_clip_sigmas or config.clip_sigmas
    if ".mlp." in name:
        return config.mlp_clip_sigmas or config.clip_sigmas
    return config.embed_clip_sigmas or config.clip_sigmas


def row_clips(config: Config, weights: Floats, levels: int, name: str) -> Floats:
    """The largest absolute value of each row that the rule keeps, [rows]."""
    magnitudes = np.abs(weights)
    top: Floats = magnitudes.max(axis=1)
    if config.quant_scale == "percentile":
        clips = np.percentile(magnitudes, config.clip_percentile, axis=1)
        return np.asarray(clips, dtype=np.float32)
    if config.quant_scale == "sdclip":
        clips = tensor_sigmas(config, name) * np.sqrt(np.mean(np.square(weights), axis=1))
        return np.asarray(clips, dtype=np.float32)
    if config.quant_scale == "mse":
        best = top
        least = np.full(len(top), np.inf, dtype=np.float32)
        for shrink in MSE_SHRINKS:
            steps = (top * np.float32(shrink) / np.float32(levels))[:, None]
            error: Floats = np.square(weights - round_to(weights, steps, levels) * steps).sum(
                axis=1
            )
            best = np.where(error < least, top * np.float32(shrink), best)
            least = np.minimum(error, least)
        return best
    return top


def round_to(weights: Floats, steps: Floats, levels: int) -> Floats:
    """Codes as floats: weights over steps, rounded, clipped; 0 where the step is 0."""
    ratio = np.divide(weights, steps, out=np.zeros_like(weights), where=steps > 0)
    return np.clip(np.rint(ratio), -levels, levels)


def as_float16(values: Floats, name: str) -> NDArray[np.float16]:
    """The values rounded to float16.

    Raises:
        TrainerError: A value is not finite, or above the largest float16, 65,504.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        raise TrainerError(f"{name} does not fit float16: largest {np.abs(values).max():.3g}")
    return stored


def quantize(config: Config, weights: Floats, bits: int, name: str = "a matrix") -> Quantized:
    """A matrix as codes and steps by the configured rule.

    Raises:
        TrainerError: A weight is not finite, or a step does not fit float16.
    """
    levels = 2 ** (bits - 1) - 1
    # The largest steps of any rule but sdclip's; bounded first, squares of weights stay finite.
    as_float16(np.abs(weights).max(axis=1) / levels, f"a step of {name}")
    steps = as_float16(row_clips(config, weights, levels, name) / levels, f"a step of {name}")
    codes = round_to(weights, steps.astype(np.float32)[:, None], levels)
    return Quantized(bits=bits, codes=codes.astype(np.int8), steps=steps)


def dequantize(stored: Stored) -> Floats:
    """The float32 weights that a stored tensor stands for."""
    if isinstance(stored, Quantized):
        return stored.codes.astype(np.float32) * stored.steps.astype(np.float32)[:, None]
    return stored.astype(np.float32)


def quantize_all(config: Config, weights: Mapping[str, Floats]) -> dict[str, Stored]:
    """Every tensor of a model in the form in which the artifact holds it, by name.

    Raises:
        TrainerError: A weight or a step does not fit its storage.
    """
    stored: dict[str, Stored] = {}
    for name, tensor in weights.items():
        bits = tensor_bits(config, name, tensor.ndim)
        stored[name] = (
            as_float16(tensor, name) if bits == 16 else quantize(config, tensor, bits, name)
        )
    return stored
