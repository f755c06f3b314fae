"""Runs of other people's scripts, described by a table: what the same physics says of their bytes.

A row of such a table (the contest's logs, one a row) gives shape, rates, steps, the kind of
quantizer and the codec. Which regime a row is in follows from the quantizer and the weights'
spread (`dynamics`):

    R1   the step is k sigma / Q: the entropy is known beforehand
    R2   the step follows the row's maximum: the entropy depends on the row's length
    R2f  the same, because the weights have outgrown the floor of the step, 1 / Q
    R3   the step is that floor: the size follows the absolute spread, so rate, decay and steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pgolf_sweep.size.dynamics import motion, trapezoid, youth
from pgolf_sweep.size.entropy import (
    ScaleRule,
    rounded_gaussian_bits,
    row_maxima,
    top_level,
    weight_bits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOAT16_BITS = 13.4
"""Bits of a float16 weight of an unquantized embedding after compression."""
OTHER_BITS = 7.0
KEPT_BITS = 28.0
"""Bits of a float32 gain or table that no quantizer touched."""
EXCESS = {"brotli": 0.0215, "zlib": 0.005, "zstd": 0.008, "lzma": 0.02, "lrzip": 0.004}
SHORT_STEPS = 600.0
FLOORLESS = frozenset({"int5-mlp+int6-attn+fp16-embed", "int6-blocks+fp16-embed"})
"""Schemes whose step has no floor; read from the records' scripts, the table does not say."""
EMBED_SIGMA = 0.35
"""Spread of the weights of a tied embedding after a full run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """One row, read.

    Attributes:
        record: Whose run it was; runs of one record share a script.
        configuration: The same for runs that differ by their seed alone.
        scheme: The quantizer in words.
        sigmas: Clips of MLP, attention and embedding in standard deviations, or None.
        bits: Bits of MLP, attention and embedding; 16 for what is kept.
    """

    record: str
    configuration: str
    scheme: str
    codec: str
    model_bytes: int
    model_params: int
    attn_params: float
    mlp_params: float
    embed_params: float
    width: int
    hidden: int
    steps: float
    warmdown: float
    rate: float
    momentum: float
    decay: float
    averaged: bool
    bits: tuple[int, int, int]
    sigmas: tuple[float, float, float] | None
    kept_params: float = 0.0

    @property
    def other_params(self) -> float:
        """What is neither matrix of a block nor embedding."""
        return self.model_params - self.attn_params - self.mlp_params - self.embed_params


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSize:
    """What the physics says: see `physics.Prediction`."""

    model_bytes: float
    traits: Mapping[str, float]
    noise_bytes: float
    regime: str


def read_run(row: Mapping[str, str]) -> PublishedRun | None:
    """A row of a table with the columns of the contest's log table; None if it does not suffice.

    Rows that are copies of others, or that trained nothing, do not count.
    """
    scheme = row.get("quant_scheme", "")
    bits = _scheme_bits(scheme)
    try:
        if row.get("duplicate_of") or _number(row, "eval_only", 0.0) or bits is None:
            return None
        layers, width = _number(row, "num_layers"), _number(row, "model_dim")
        kv = _number(row, "num_kv_heads") / _number(row, "num_heads")
        mult, steps = _number(row, "mlp_mult"), _number(row, "iterations_done")
        attn = layers * width * (2 * width + 2 * width * kv)
        mlp = layers * 2 * width * width * mult
        fraction = _number(row, "warmdown_frac", math.nan)
        warmdown = _number(row, "warmdown_iters", 1200.0 if math.isnan(fraction) else math.nan)
        clip = _number(row, "matrix_clip_sigmas", math.nan)
        run = PublishedRun(
            record=row["record"],
            configuration="",
            scheme=scheme,
            codec=row["codec"].partition("-")[0],
            model_bytes=int(_number(row, "model_bytes")),
            model_params=int(_number(row, "model_params")),
            attn_params=attn,
            mlp_params=mlp,
            embed_params=_number(row, "vocab_size") * width,
            width=int(width),
            hidden=int(width * mult),
            steps=steps,
            warmdown=fraction * steps if math.isnan(warmdown) else warmdown,
            rate=_number(row, "matrix_lr", 0.02),
            momentum=_number(row, "muon_momentum", 0.95),
            decay=_number(row, "weight_decay", 0.0),
            averaged=row.get("ema_or_swa", "none") != "none",
            bits=bits,
            sigmas=None
            if math.isnan(clip)
            else (
                _number(row, "mlp_clip_sigmas", clip),
                _number(row, "attn_clip_sigmas", clip),
                _number(row, "embed_clip_sigmas", clip),
            ),
        )
    except (KeyError, ValueError):
        return None
    if run.other_params < 0 or run.codec not in EXCESS or not run.steps:
        return None
    rows = layers * (2 + 2 * kv + mult + 1) * width + run.embed_params / width
    payload = _number(row, "payload_bytes", 0.0)
    spare = payload - run.model_params - 2 * rows - run.embed_params * (bits[2] == 16)
    key = f"{run.record} {run.model_params} {run.rate} {run.momentum} {run.decay} {run.steps:.1g}"
    kept = max(0.0, spare / 3) if payload else 0.0  # float32 instead of one byte
    return replace(run, configuration=key, kept_params=kept)


def complete(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows, with what a log leaves out taken from another log of the same record."""
    known: dict[tuple[str, str], str] = {}
    for row in rows:
        for name in ("muon_momentum", "matrix_lr", "weight_decay"):
            if row.get(name):
                known.setdefault((row["record"], name), row[name])
        if row.get("warmdown_iters") and row.get("iterations_done"):
            share = float(row["warmdown_iters"]) / float(row["iterations_done"])
            known.setdefault((row["record"], "warmdown_frac"), str(min(1.0, share)))
    filled = []
    for row in rows:
        copy = dict(row)
        for name in ("muon_momentum", "matrix_lr", "weight_decay"):
            copy[name] = row.get(name) or known.get((row["record"], name), "")
        if not row.get("warmdown_iters") and not row.get("warmdown_frac"):
            copy["warmdown_frac"] = known.get((row["record"], "warmdown_frac"), "")
        filled.append(copy)
    return filled


def _number(row: Mapping[str, str], name: str, default: float | None = None) -> float:
    text = row.get(name, "")
    if text == "":
        if default is None:
            raise ValueError(name)
        return default
    return float(text)


def _scheme_bits(scheme: str) -> tuple[int, int, int] | None:
    """Bits of MLP, attention and embedding from the table's words."""
    if not scheme.startswith(("int8-", "int6-", "int5-")) or "mixed" in scheme:
        return None
    blocks = int(scheme[3])
    attn = 6 if "int6-attn" in scheme else blocks
    embed = 16 if "fp16-embed" in scheme else blocks
    for width in (7, 8):
        if f"int{width}-embed" in scheme:
            embed = width
    return blocks, attn, embed


def predict_run(run: PublishedRun) -> PublishedSize:
    """The bytes of a run's compressed model."""
    if run.sigmas is not None:
        return _clipped(run)
    tr = trapezoid(run.steps, run.warmdown)
    moved = motion(
        steps=run.steps,
        decay=run.decay,
        rate=lambda step: run.rate * tr(step),
        momentum=lambda _step: run.momentum,
    )
    floorless = run.scheme in FLOORLESS
    carried = _unfloored_bits if floorless else floored_bits
    bits, steeper = 0.0, 0.0
    for factor in (1.0, 1.05):
        total = 0.0
        for params, width, columns in (
            (run.mlp_params / 2, run.bits[0], run.width),
            (run.mlp_params / 2, run.bits[0], run.hidden),
            (run.attn_params, run.bits[1], run.width),
        ):
            sigma = factor * math.sqrt(moved.variance(columns, 1 / (3 * columns)))
            total += params * carried(sigma, width, columns)
        bits, steeper = (total, 0.0) if factor == 1.0 else (bits, total - bits)
    sigma = math.sqrt(moved.variance(run.width, 1 / (3 * run.width)))
    bound = sigma * float(row_maxima(run.width, 0.0).mean()) < 1.0 and not floorless
    regime = ("R3" if run.steps >= SHORT_STEPS else "R3 short") if bound else (
        "R2" if floorless else "R2f"
    )  # fmt: skip
    embed = FLOAT16_BITS if run.bits[2] == 16 else floored_bits(EMBED_SIGMA, run.bits[2], run.width)
    kept = min(run.kept_params, run.other_params)
    others = OTHER_BITS * (run.other_params - kept) + KEPT_BITS * kept
    whole = (bits + embed * run.embed_params + others) / 8
    model_bytes = whole * (1 + EXCESS[run.codec])
    noise = {"R1": 0.0005, "R2": 0.004, "R2f": 0.002, "R3": 0.005, "R3 short": 0.015}[regime]
    traits = {
        "sigma": steeper / 8 / math.log(1.05),
        "sigma decayed": steeper / 8 / math.log(1.05) * (run.decay > 0),
        "sigma decay": steeper
        / 8
        / math.log(1.05)
        * math.log(max(run.decay, 1e-3) / 0.04)
        * (run.decay > 0),
        "sigma averaged": steeper / 8 / math.log(1.05) * run.averaged,
        "sigma young": steeper / 8 / math.log(1.05) * youth(run.steps),
        f"codec {run.codec}": model_bytes / 100,
        f"rule {regime} {run.bits[0]}": model_bytes / 100,
        f"trained for {run.bits}": model_bytes / 100 * ("qat" in run.scheme),
        f"embed {run.bits[2]}": run.embed_params / 8,
        "other": run.other_params / 8,
        f"family {run.scheme} {run.codec}": model_bytes / 100,
    }
    return PublishedSize(
        model_bytes=model_bytes,
        traits={name: worth for name, worth in traits.items() if worth},
        noise_bytes=noise * model_bytes,
        regime=regime,
    )


def _clipped(run: PublishedRun) -> PublishedSize:
    mlp, attn, embed = run.sigmas or (1.0, 1.0, 1.0)
    parts = (
        (run.mlp_params, run.bits[0], mlp),
        (run.attn_params, run.bits[1], attn),
        (run.embed_params, run.bits[2], embed),
    )
    bits = math.fsum(
        params * rounded_gaussian_bits(top_level(width) / k, top_level(width))
        for params, width, k in parts
    )
    model_bytes = (bits / 8) * (1 + EXCESS[run.codec]) + run.other_params * OTHER_BITS / 8
    low_rank = "lqer" in run.scheme
    traits = {
        f"codec {run.codec}": model_bytes / 100,
        f"clipped embed {run.bits[2]}": run.embed_params / 8,
        "clipped other": run.other_params / 8,
        "low rank": 10_000.0 * low_rank,
        f"family {run.scheme} {run.codec}": model_bytes / 100,
    }
    return PublishedSize(
        model_bytes=model_bytes,
        traits={name: worth for name, worth in traits.items() if worth},
        noise_bytes=0.0004 * model_bytes,
        regime="R1",
    )


def _unfloored_bits(_sigma: float, bits: int, row_length: int) -> float:
    return weight_bits(ScaleRule.ROWMAX, bits, row_length, 0.0)


def floored_bits(sigma: float, bits: int, row_length: int) -> float:
    """Entropy of a Gaussian weight where the step is the row's maximum over Q, at least 1 / Q."""
    top = top_level(bits)
    maxima = sigma * row_maxima(row_length, 0.0)
    bound = float(np.mean(maxima < 1.0))
    free = weight_bits(ScaleRule.ROWMAX, bits, row_length, 0.0) if bound < 1 else 0.0
    held = rounded_gaussian_bits(round(sigma, 4) * top, top) if bound > 0 else 0.0
    return bound * held + (1 - bound) * free
