"""Suggestions that make a configuration of our trainer fit: the nearest value of each knob."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.trial import Interval, KnobValue, Verdict, VerdictKind
from pgolf_sweep.gate.physics.entropy import ScaleRule
from trainer.checks import QUANT_SCALES
from trainer.config import CODEC_BEST_LEVEL, CODECS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

LEAST_VOCABULARY_BITS = 8
"""Of the smallest vocabulary that is suggested; in a smaller one not every byte has a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One knob's nearest value with which the configuration fits.

    Attributes:
        knob: Its name.
        value: The value to give it.
        artifact_bytes: What the artifact would then be.
        also: What has to change with it.
    """

    knob: str
    value: KnobValue
    artifact_bytes: Interval
    also: Mapping[str, KnobValue] = field(default_factory=dict)


def suggestions(
    verdict: Callable[[Mapping[str, KnobValue]], Verdict],
    knobs: Mapping[str, KnobValue],
    changes: Iterable[list[dict[str, KnobValue]]],
    given: Container[str],
) -> list[Suggestion]:
    """For each knob that decides the size, its nearest value that makes it surely fit.

    Args:
        verdict: The gate's answer for a configuration.
        knobs: The configuration.
        changes: For each knob, changes to try, nearest first (`changes`).
        given: Knobs that cannot change.
    """
    found = []
    for of_knob in changes:
        for change in of_knob:
            (knob, value), *also = change.items()
            answer = None if knob in given else verdict({**knobs, **change})
            if answer and answer.kind is VerdictKind.FITS and answer.artifact_bytes:
                size = answer.artifact_bytes
                one = Suggestion(knob=knob, value=value, artifact_bytes=size, also=dict(also))
                found.append(one)
                break
    return found


def smaller_values(config: Any) -> Iterator[tuple[str, list[KnobValue]]]:
    """For each knob that decides the size, values that shrink the artifact, nearest first."""
    head = config.num_heads * 2
    yield "NUM_LAYERS", list(range(config.num_layers - 1, 0, -1))
    step = math.lcm(64, head) if config.model_dim > 4 * math.lcm(64, head) else head
    widths = range(config.model_dim - config.model_dim % step, 0, -step)
    yield "MODEL_DIM", [width for width in widths if width < config.model_dim]
    yield "MLP_MULT", [half / 2 for half in range(math.ceil(2 * config.mlp_mult) - 1, 0, -1)]
    fewer = range(config.num_kv_heads - 1, 0, -1)
    yield "NUM_KV_HEADS", [heads for heads in fewer if config.num_heads % heads == 0]
    for knob in ("MATRIX_BITS", "ATTN_BITS", "MLP_BITS", "EMBED_BITS"):
        now = getattr(config, knob.lower()) or config.matrix_bits
        yield knob, list(range(now - 1, 3, -1))
    if config.quant_scale == ScaleRule.SDCLIP:
        for group in ("", "ATTN_", "MLP_", "EMBED_"):
            knob = f"{group}CLIP_SIGMAS"
            if now := getattr(config, knob.lower()):
                yield knob, [round(now * 1.01**n, 2) for n in range(1, 80)]
    if not config.tie_embeddings:
        yield "TIE_EMBEDDINGS", [True]


def changes(config: Any) -> Iterator[list[dict[str, KnobValue]]]:
    """For each knob, changes that may shrink the artifact, nearest first.

    Beyond those of `smaller_values`: what may shrink it or not, and what no export could change.
    """
    for knob, values in smaller_values(config):
        yield [{knob: value} for value in values]
    yield [{"QUANT_SCALE": scale} for scale in QUANT_SCALES if scale != config.quant_scale]
    if config.quant_scale == ScaleRule.PERCENTILE:
        beyond = 100 - config.clip_percentile
        yield [{"CLIP_PERCENTILE": round(100 - beyond / 2**n, 6)} for n in range(1, 12)]
    level = config.codec_level
    levels: list[dict[str, KnobValue]] = [{}, {"CODEC_LEVEL": 0}] if level else [{}]
    codecs = [codec for codec in CODECS if codec != config.codec]
    yield [{"CODEC": codec, **at} for codec in codecs for at in levels]  # not all know all levels
    if level:
        best = CODEC_BEST_LEVEL[config.codec]
        yield [{"CODEC_LEVEL": higher} for higher in range(level + 1, best + 1)]
    if not config.byte_shuffle:
        yield [{"BYTE_SHUFFLE": True}]
    smaller = (2**n for n in range(config.vocab_size.bit_length(), LEAST_VOCABULARY_BITS - 1, -1))
    yield [{"VOCAB_SIZE": size} for size in smaller if size < config.vocab_size]
