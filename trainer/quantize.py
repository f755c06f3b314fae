"""Weights to n-bit integers with a step per row, and back; numpy only.

A value is ``code * step`` with codes from -Q to Q, Q = 2^(bits - 1) - 1. The step is a float16,
and codes are rounded against that float16, so what is stored is exactly what is scored. Two bits
are ternary: -1, 0 or 1. One bit is binary: -1 or 1, the sign. Both have the row's mean |w| as step
(arXiv 2402.17764 and 1603.05279), under any rule, and need `trainer.qat`. The rules of more bits:

    rowmax       step = max|w| / Q; no value is clipped
    percentile   step = CLIP_PERCENTILE of |w| / Q; the contest's baseline, without its floor
    sdclip       step = CLIP_SIGMAS * rms(w) / Q, by group of tensors where ATTN_, MLP_ or
                 EMBED_CLIP_SIGMAS is set; the entropy of a code is then known beforehand
    mse          the step between 30 % and 100 % of rowmax with the least squared error

Every matrix is quantized; every vector and every scale, mix or gate is kept as float16. Unlike the
baseline no matrix is kept for being small: in a tiny model all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trainer.config import TrainerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trainer.config import Config

    Floats: TypeAlias = NDArray[np.float32]

FLOAT_NAMES = ("scale", "mix", "gate")
DAMPING = 0.01
LOW_RANK_BITS = 4
TERNARY, BINARY = 2, 1
BLOCK = 128
"""Columns whose errors reach the further ones in one product."""

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


def top_code(bits: int) -> int:
    """The largest code, Q."""
    return 2 ** (bits - 1) - 1 or 1


def row_clips(config: Config, weights: Floats, bits: int, name: str) -> Floats:
    """The largest absolute value of each row that the rule keeps, [rows]."""
    magnitudes, levels = np.abs(weights), top_code(bits)
    if bits <= TERNARY:
        return np.asarray(magnitudes.mean(axis=1))
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
            error: Floats = np.square(weights - round_to(weights, steps, bits) * steps).sum(axis=1)
            best = np.where(error < least, top * np.float32(shrink), best)
            least = np.minimum(error, least)
        return best
    return top


def round_to(weights: Floats, steps: Floats, bits: int) -> Floats:
    """Codes as floats: weights over steps, rounded, clipped; 0 where the step is 0."""
    if bits == BINARY:
        return np.where(weights < 0, np.float32(-1), np.float32(1))
    levels = top_code(bits)
    ratio = np.divide(weights, steps, out=np.zeros_like(weights), where=steps > 0)
    return np.clip(np.rint(ratio), -levels, levels)


def as_float16(values: Floats | NDArray[np.float64], name: str) -> NDArray[np.float16]:
    """The values rounded to float16.

    Raises:
        TrainerError: A value is not finite, or above the largest float16, 65,504.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        raise TrainerError(f"{name} does not fit float16: largest {np.abs(values).max():.3g}")
    return stored


def row_steps(config: Config, weights: Floats, bits: int, name: str) -> NDArray[np.float16]:
    """The step of each row by the configured rule, [rows].

    Raises:
        TrainerError: A weight is not finite, or a step does not fit float16.
    """
    # The largest steps of any rule but sdclip's; bounded first, squares of weights stay finite.
    as_float16(np.abs(weights).max(axis=1) / top_code(bits), f"a step of {name}")
    clips = row_clips(config, weights, bits, name)
    return as_float16(clips / top_code(bits), f"a step of {name}")


def quantize(config: Config, weights: Floats, bits: int, name: str = "a matrix") -> Quantized:
    """A matrix as codes, each the nearest, and steps by the configured rule.

    Raises:
        TrainerError: A weight is not finite, or a step does not fit float16.
    """
    steps = row_steps(config, weights, bits, name)
    codes = round_to(weights, steps.astype(np.float32)[:, None], bits)
    return Quantized(bits=bits, codes=codes.astype(np.int8), steps=steps)


def gptq(
    config: Config, weights_RC: Floats, products_CC: Floats, bits: int, name: str
) -> Quantized:
    """A matrix as codes that look at what it is applied to, and steps by the configured rule.

    The error of each column is made up by those after it. Source: Frantar et al. 2022, arXiv
    2210.17323, with the contest's columns in the order of their inputs' size.

    Args:
        config: The run's configuration.
        weights_RC: The matrix.
        products_CC: Sum of x x^T over inputs x.
        bits: Of a code.
        name: For messages and the rule.

    Raises:
        TrainerError: A weight is not finite, or a step does not fit float16.
    """
    steps = row_steps(config, weights_RC, bits, name)
    scale = steps.astype(np.float32)[:, None]
    damped = products_CC.astype(np.float64)
    unused = damped.diagonal() == 0
    damped[unused, unused] = 1.0
    damped[np.diag_indices_from(damped)] += DAMPING * damped.diagonal().mean()
    order = np.argsort(-damped.diagonal(), kind="stable")
    inverse = np.linalg.inv(damped[order][:, order])
    upper = np.linalg.cholesky(inverse).T.astype(np.float32)
    left = weights_RC[:, order].copy()
    left[:, unused[order]] = 0.0
    codes = np.empty_like(left)
    for start in range(0, left.shape[1], BLOCK):
        end = min(start + BLOCK, left.shape[1])
        errors = np.empty_like(left[:, start:end])
        for column in range(start, end):
            own = left[:, column : column + 1]
            codes[:, column : column + 1] = round_to(own, scale, bits)
            error = (own - codes[:, column : column + 1] * scale) / upper[column, column]
            left[:, column + 1 : end] -= error * upper[column, column + 1 : end]
            errors[:, column - start : column - start + 1] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    restored = np.empty_like(codes)
    restored[:, order] = codes
    return Quantized(bits=bits, codes=restored.astype(np.int8), steps=steps)


def dequantize(stored: Stored) -> Floats:
    """The float32 weights that a stored tensor stands for."""
    if isinstance(stored, Quantized):
        return stored.codes.astype(np.float32) * stored.steps.astype(np.float32)[:, None]
    return stored.astype(np.float32)


def low_rank(
    config: Config, weights: Mapping[str, Floats], stored: Mapping[str, Stored]
) -> dict[str, Stored]:
    """Corrections of the matrices that quantization moved most: two factors each, in 4 bits.

    `NAME.left` [rank, rows] and `NAME.right` [rank, columns]; the product is added to the matrix.
    Source: the contest's LQER, PR #1851, there with factors of 2 and 4 bits in groups.
    """
    errors = {
        name: weights[name] - dequantize(tensor)
        for name, tensor in stored.items()
        if isinstance(tensor, Quantized)
    }
    found: dict[str, Stored] = {}
    plain = replace(config, quant_scale="rowmax")
    most = sorted(errors, key=lambda name: -float(np.square(errors[name]).sum()))
    for name in most[: config.lqer_top_k]:
        left, sizes, right = np.linalg.svd(errors[name], full_matrices=False)
        roots = np.sqrt(sizes[: config.lqer_rank])[:, None]
        for side, factor in (("left", left.T), ("right", right)):
            scaled = roots * factor[: config.lqer_rank]
            found[f"{name}.{side}"] = quantize(plain, scaled, LOW_RANK_BITS)
    return found


def quantize_all(
    config: Config,
    weights: Mapping[str, Floats],
    products: Mapping[str, Floats] = MappingProxyType({}),
) -> dict[str, Stored]:
    """Every tensor of a model in the form in which the artifact holds it, by name.

    Args:
        config: The run's configuration.
        weights: By name.
        products: For GPTQ, by a matrix's name; without, codes are the nearest.

    Raises:
        TrainerError: A weight or a step does not fit its storage.
    """
    stored: dict[str, Stored] = {}
    for name, tensor in weights.items():
        bits = tensor_bits(config, name, tensor.ndim)
        if bits == 16:
            stored[name] = as_float16(tensor, name)
        elif name in products:
            stored[name] = gptq(config, tensor, products[name], bits, name)
        else:
            stored[name] = quantize(config, tensor, bits, name)
    if config.lqer_rank:
        stored |= low_rank(config, weights, stored)
    return stored


def dequantize_all(stored: Mapping[str, Stored]) -> dict[str, Floats]:
    """Every weight that an artifact stands for, by name."""
    values = {name: dequantize(tensor) for name, tensor in stored.items()}
    for name in [name for name in values if name.endswith(".left")]:
        left = values.pop(name)
        of = name.removesuffix(".left")
        values[of] = values[of] + left.T @ values.pop(f"{of}.right")
    return values
