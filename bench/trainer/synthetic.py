"""Shards and a tokenizer of 1,024 pieces for timings: `synthetic.py FOLDER`.

The tokens are drawn from a Zipf distribution, so that a model learns something from them; the score
means nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import sentencepiece

VOCAB_SIZE = 1024
TRAIN_TOKENS = 20_000_000
VAL_TOKENS = 70_000


def main(folder: Path) -> None:
    """Write ``data/`` and ``tokenizer.model`` unless they are there."""
    data = folder / "data"
    if (folder / "tokenizer.model").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 7)) for _ in range(2000)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(rng.choice(words, 20)) for _ in range(2000)),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=VOCAB_SIZE,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    for split, count in (("train", TRAIN_TOKENS), ("val", VAL_TOKENS)):
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, count
        tokens = (rng.zipf(1.2, count) % (VOCAB_SIZE - 3) + 3).astype("<u2")
        shard = data / f"fineweb_{split}_000000.bin"
        shard.write_bytes(header.tobytes() + tokens.tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
