"""Rows of the vocabulary that training never tells apart, and what a codec saves on them.

A token that does not occur in the data gives its row of the embedding, and of an untied head, no
gradient but the push away that all such rows share; Adam makes equal steps of it at any
size. Those rows end almost alike: codecs that look for matches or contexts find that. A
tokenizer with byte fallback has 256 pieces of single bytes, of which a small corpus uses few.

Measured on the trainings with an even index of `bench/gate/trainings.py` (vocabulary 512): an
untied head, which starts at zero, compresses to 54 % of its entropy regardless of the bits and the
codec (+-0.03 bits a weight). A tied embedding starts as noise, and what remains of that beside one
quantization step decides: the share found is a logistic function of the rates, the shape, the
bits and the codec, fitted to 0.18 bits a weight.
"""

from __future__ import annotations

import math
from typing import Any

UNUSED_PIECES = 236
"""Pieces that the text never uses: 46 % of a vocabulary of 512."""

RARE_PER_BATCH = 16.0
"""Tokens in a batch for each entry of the vocabulary at which half of the effect is left. At one
to two an entry it was measured; at the contest's 500 every piece occurs and it is gone."""

_CODECS = {
    "zlib": (-0.15, -0.86),
    "zstd": (0.34, -0.75),
    "lzma": (0.90, -0.69),
    "brotli": (0.72, -0.72),
}
"""Logit at 6 bits, and its change for each bit."""


def rarity(config: Any) -> float:
    """Between 0, every token is in every batch, and 1, hardly any is."""
    per_entry: float = config.train_batch_tokens / config.vocab_size
    return 1 / (1 + per_entry / RARE_PER_BATCH)


def unused_share(config: Any) -> float:
    """Share of the vocabulary's rows that nothing tells apart."""
    return min(0.9, UNUSED_PIECES / float(config.vocab_size)) * rarity(config) / 0.9


def found_share(config: Any, steps: float) -> float:
    """Share of the unused rows' entropy in a tied embedding that the codec saves."""
    rate = math.log(max(config.tied_embed_lr, 1e-6) / 0.05)
    base, by_bit = _CODECS[config.codec]
    logit = (
        base
        + by_bit * (config.embed_bits - 6)
        - 1.74 * rate
        - 0.23 * rate * rate
        + 0.34 * math.log(max(steps, 1.0) / 200)
        - 1.8 * math.log(config.model_dim / 64)
        - 0.47 * math.log(config.train_batch_tokens / 512)
        + 0.2 * math.log(max(config.matrix_lr, 1e-6) / 0.02)
        + 0.22 * math.log(config.num_layers / 3)
        + 0.43 * (config.quant_scale == "sdclip")
    )
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
