"""Runs of other people's scripts, described by a table: what the same physics says of their bytes.

A row of such a table (the contest's logs, one a row) gives shape, rates, steps, the kind of
quantizer and the codec (`published_rows`). Which regime a row is in follows from the quantizer and
the weights' spread (`walk`):

    R1   the step is k sigma / Q: the entropy is known beforehand
    R2   the step follows the row's maximum: the entropy depends on the row's length
    R2f  the same, because the weights have outgrown the floor of the step, 1 / Q
    R3   the step is that floor: the size follows the absolute spread, so rate, decay and steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bench.gate.published_rows import PROJECTION_WIDTH
from pgolf_sweep.gate.physics.entropy import (
    ScaleRule,
    rounded_gaussian_bits,
    row_maxima,
    top_level,
    weight_bits,
)
from pgolf_sweep.gate.physics.random_walk import adam_variance, muon_random_walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.gate.published_rows import PublishedRun

FLOAT16_BITS = 13.4
"""Bits of a float16 weight of an unquantized embedding after compression."""
OTHER_BITS = 7.0
"""Bits of what a record with clips by standard deviations has besides."""
KEPT_BITS = 28.0
"""Bits of a float32 gain or table that no quantizer touched."""
EXCESS = {"brotli": 0.0215, "zlib": 0.005, "zstd": 0.008, "lzma": 0.02, "lrzip": 0.004}
"""What a codec adds to the entropy of a whole container."""
EXCESS_BY_BITS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "zlib": (
        (2.5, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.3),
        (0.178, 0.153, 0.141, 0.118, 0.072, 0.036, 0.020, 0.0104, 0.0100),
    ),
    "lzma": (
        (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.3),
        (0.104, 0.081, 0.067, 0.044, 0.033, 0.028, 0.023, 0.021, 0.0154),
    ),
    "zstd": ((2.5, 7.3), (0.0105, 0.0095)),
}
"""The same by the entropy of a code, for codes of one byte each at the best level: measured on
Gaussian codes. zlib spends more on chance repetitions of three bytes than they are worth: 7 % at
five bits."""
SHORT_STEPS = 600
CAPPED_NOISE = 0.003
"""Share by which a model pruned until it fits misses the cap."""
NOISE = {5: 0.005, 6: 0.004, 8: 0.002}
"""Share of the size that nothing explains, by the bits of the blocks: the seeds' part and more."""
SHORT_NOISE = 0.015
SHARED_SIGMA, RECORD_SIGMA = 0.05, 0.03
"""How far the spread of the blocks' weights is off, in logarithm: in all records, in one."""
EMBED_SIGMA = 0.3
"""The same of an embedding, in all records."""
TABLE_SPREAD_BITS = 1.5
"""How far the bits of a weight beside blocks and embedding are off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSize:
    """What the physics says: see `physics.Prediction`."""

    model_bytes: float
    traits: Mapping[str, float]
    noise_bytes: float
    regime: str


@dataclass(frozen=True, slots=True)
class _Parts:
    """Bytes of a run's parts after compression."""

    blocks: float
    embed: float
    tables: float
    kept: float

    @property
    def whole(self) -> float:
        return self.blocks + self.embed + self.tables + self.kept


@lru_cache(maxsize=1024)
def predict_run(run: PublishedRun) -> PublishedSize:
    """The bytes of a run's compressed model."""
    if run.sigmas is not None:
        return _clipped(run)
    parts, step = _parts(run), math.log(1.05)
    model_bytes, regime = parts.whole, _regime(run)
    if model_bytes > run.cap_bytes:  # pruned until it fits: training no longer matters
        noise = CAPPED_NOISE * run.cap_bytes
        return PublishedSize(model_bytes=run.cap_bytes, traits={}, noise_bytes=noise, regime=regime)
    per_sigma = (_parts(run, blocks=1.05).blocks - parts.blocks) / step
    per_embed = (_parts(run, embed=1.05).embed - parts.embed) / step
    tables = TABLE_SPREAD_BITS * run.table_params / 8
    noise = math.hypot(
        (SHORT_NOISE if regime == "R3 short" else NOISE[run.bits[0]]) * model_bytes,
        RECORD_SIGMA * per_sigma,
        tables,
    )
    # Names without a spread in `traits` have one of one: those are worth theirs in bytes here.
    # Tables share a trait; matrices beside the blocks are each record's own (`_table_bits`).
    traits = {
        "spread of blocks": SHARED_SIGMA * per_sigma,
        "spread of embedding": EMBED_SIGMA * per_embed,
        "tables": 0.0 if run.bits[0] == 8 else tables,
        f"codec {run.codec}": model_bytes / 100,
        f"family {run.scheme} {run.codec}": model_bytes / 100,
    }
    return PublishedSize(
        model_bytes=model_bytes,
        traits={name: worth for name, worth in traits.items() if worth},
        noise_bytes=noise,
        regime=regime,
    )


def _sigma(run: PublishedRun, columns: int) -> float:
    """Spread of a block's weights with that many columns."""
    return math.sqrt(muon_random_walk(run.training).variance(columns, 1 / (3 * columns)))


def _regime(run: PublishedRun) -> str:
    if run.floorless:
        return "R2"
    if _sigma(run, run.width) * float(row_maxima(run.width, 0.0).mean()) >= 1.0:
        return "R2f"
    return "R3" if run.training.steps >= SHORT_STEPS else "R3 short"


def _parts(run: PublishedRun, *, blocks: float = 1.0, embed: float = 1.0) -> _Parts:
    """Each part's bytes, with the spread of blocks or embedding taken that many times larger."""
    rule = _unfloored_bits if run.floorless else floored_bits
    matrices = math.fsum(
        _packed(run.codec, params, rule(blocks * _sigma(run, columns), bits, columns))
        for params, bits, columns in (
            (run.mlp_params / 2, run.bits[0], run.width),
            (run.mlp_params / 2, run.bits[0], run.hidden),
            (run.attn_params, run.bits[1], run.width),
        )
    )
    embedding_run = replace(run.training, rate=run.embed_rate)
    adam = math.sqrt(adam_variance(embedding_run))
    if run.bits[2] == 16:
        embedding = FLOAT16_BITS * run.embed_params / 8
    else:
        bits = floored_bits(embed * adam, run.bits[2], run.width)
        embedding = _packed(run.codec, run.embed_params, bits)
    return _Parts(
        blocks=matrices,
        embed=embedding,
        tables=_packed(run.codec, run.table_params, _table_bits(run, adam)),
        kept=(FLOAT16_BITS * run.float16_params + KEPT_BITS * run.float32_params) / 8,
    )


def _table_bits(run: PublishedRun, adam: float) -> float:
    """Entropy of what lies beside the blocks.

    Under six bits that is tables of bigrams or values, trained as the embedding is and stored in
    eight bits, or where nothing has a floor in the attention's. Under eight bits it is matrices of
    an unusual architecture, which no Muon moves: near the uniform values that they began with.
    """
    if run.bits[0] == 8:
        return floored_bits(math.sqrt(1 / (3 * run.width)), 8, run.width)
    if run.tables_as_attention:
        return _unfloored_bits(adam, run.bits[1], PROJECTION_WIDTH)
    return floored_bits(adam, 8, PROJECTION_WIDTH)


def _packed(codec: str, params: float, bits: float) -> float:
    """Bytes of that many codes of that many bits of entropy."""
    curve = EXCESS_BY_BITS.get(codec)
    excess = EXCESS[codec] if curve is None else float(np.interp(bits, *curve))
    return params * bits / 8 * (1 + excess)


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
