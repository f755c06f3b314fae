"""The part of a run that each knob belongs to; not in the bundle.

A run that differs from another in `export` and `eval` knobs alone has the same trained weights, and
one that differs in `eval` knobs alone the same artifact: it can start at that part from what the
other left (`START_AT`, `CHECKPOINT`).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, TypeAlias

from trainer.checks import ALIASES
from trainer.config import Config
from trainer.export import EXPORT_KNOBS

Role: TypeAlias = Literal["train", "export", "eval", "run"]

EVAL_KNOBS = (
    "VAL_BATCH_SIZE", "BYTES_PER_TOKEN", "EVAL_STRIDE", "TTT_ENABLED", "TTT_BATCH_SIZE",
    "TTT_CHUNK_SIZE", "TTT_LORA_RANK", "TTT_LORA_ALPHA", "TTT_LORA_LR", "TTT_BETA2",
    "TTT_WEIGHT_DECAY",
)  # fmt: skip
RUN_KNOBS = (
    "DATA_PATH", "TOKENIZER_PATH", "RUN_ID", "VAL_LOSS_EVERY", "VAL_INTERIM_TOKENS",
    "TRAIN_LOG_EVERY", "WARMUP_STEPS", "COMPILE", "CHECKPOINT", "START_AT", "ARTIFACT_CAP_BYTES",
    "SMALLER_EXPORTS", "RANK", "WORLD_SIZE", "LOCAL_RANK",
)  # fmt: skip
"""Knobs that say where and how a run goes, not what it computes."""

ROUNDING_SWITCH = "QAT_FRAC"
ROUNDED_KNOBS = frozenset({
    "MATRIX_BITS", "ATTN_BITS", "MLP_BITS", "EMBED_BITS", "QUANT_SCALE", "CLIP_SIGMAS",
    "MATRIX_CLIP_SIGMAS", "ATTN_CLIP_SIGMAS", "MLP_CLIP_SIGMAS", "EMBED_CLIP_SIGMAS",
})  # fmt: skip
"""Knobs of the export that the training reads too where the switch is above 0."""


def role(knob: str) -> Role:
    """The first part of a run that a knob changes; ``run`` for one that changes none.

    `ROUNDED_KNOBS` change the training first where `ROUNDING_SWITCH` is above 0.

    Raises:
        KeyError: The trainer has no such knob.
    """
    return ROLES[knob]


def _role(name: str) -> Role:
    if name in EXPORT_KNOBS:
        return "export"
    if name in EVAL_KNOBS:
        return "eval"
    return "run" if name in RUN_KNOBS else "train"


ROLES: dict[str, Role] = {field.name.upper(): _role(field.name.upper()) for field in fields(Config)}
ROLES |= {alias: ROLES[name] for alias, name in ALIASES.items()}
