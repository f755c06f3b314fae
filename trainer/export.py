"""What is exported where the configured artifact is over the cap: the same weights, smaller.

`EXPORT_KNOBS` are those on which only the artifact depends, not the training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainer.config import TrainerError, require

if TYPE_CHECKING:
    from trainer.config import Config

EXPORT_KNOBS = (
    "MATRIX_BITS", "ATTN_BITS", "MLP_BITS", "EMBED_BITS", "QUANT_SCALE", "CLIP_SIGMAS",
    "ATTN_CLIP_SIGMAS", "MLP_CLIP_SIGMAS", "EMBED_CLIP_SIGMAS", "CLIP_PERCENTILE",
    "CODEC", "CODEC_LEVEL", "BYTE_SHUFFLE", "RANS", "GPTQ_BATCHES", "LQER_RANK", "LQER_TOP_K",
)  # fmt: skip


def smaller_exports(config: Config) -> dict[str, Config]:
    """The settings of SMALLER_EXPORTS in order, each with the configuration that it makes.

    Written ``EMBED_BITS=7;MLP_BITS=5,CODEC=lzma``: settings apart by semicolons, knobs by commas.

    Raises:
        TrainerError: A knob would need another training, or a value is out of range.
    """
    found = {}
    for setting in config.smaller_exports.split(";") if config.smaller_exports else ():
        changes: dict[str, Any] = {}
        for part in setting.split(","):
            name, _, text = part.partition("=")
            require(name in EXPORT_KNOBS, f"SMALLER_EXPORTS: {part!r} is no matter of the export")
            kind = type(getattr(config, name.lower()))
            try:
                changes[name.lower()] = bool(int(text)) if kind is bool else kind(text)
            except ValueError as error:
                raise TrainerError(f"SMALLER_EXPORTS: {part!r}: {error}") from error
        found[setting] = replace(config, **changes)
    return found
