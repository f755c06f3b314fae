"""CPU-seconds of an export of 36 million random Gaussian weights, by part and coder.

    python bench/trainer/export_speed.py [rans] [brotli] [zlib]

The shape is 11x512 with an MLP of 4 widths and 8,192 pieces, at 6 bits (embedding 8) by sdclip. A
line has the seconds of quantizing, packing and unpacking, by the processor and by the clock, and
the bits of a weight. On two threads brotli's clock is about half of its processor time.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.artifact import pack, unpack
from trainer.config import read_config
from trainer.quantize import quantize_all

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = {
    "VOCAB_SIZE": 8192, "NUM_LAYERS": 11, "MODEL_DIM": 512, "MLP_MULT": 4, "MATRIX_BITS": 6,
    "EMBED_BITS": 8, "QUANT_SCALE": "sdclip",
}  # fmt: skip
CODERS = {"rans": {"CODEC": "brotli", "RANS": 1}, "brotli": {"CODEC": "brotli"}, "zlib": {}}


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """A result, and the processor's and the clock's seconds that it took."""
    begun = time.process_time(), time.perf_counter()
    found = function(*arguments)
    spent = time.process_time() - begun[0], time.perf_counter() - begun[1]
    return found, "{:.1f} ({:.1f})".format(*spent)


def main(coders: list[str]) -> None:
    """Print one line a coder."""
    rng = np.random.default_rng(0)
    width, kv, hidden = 512, 256, 2048
    shapes = {"q": (width, width), "k": (kv, width), "v": (kv, width), "out": (width, width)}
    mlp = {"up": (hidden, width), "down": (width, hidden)}
    weights = {"embed.weight": (8192, width)}
    for layer in range(11):
        weights |= {f"blocks.{layer}.attn.{name}.weight": shape for name, shape in shapes.items()}
        weights |= {f"blocks.{layer}.mlp.{name}.weight": shape for name, shape in mlp.items()}
    drawn = {
        name: 0.05 * rng.standard_normal(shape, dtype=np.float32) for name, shape in weights.items()
    }
    count = sum(values.size for values in drawn.values())
    for coder in coders:
        os.environ.update({name: str(value) for name, value in (SHAPE | CODERS[coder]).items()})
        os.environ.setdefault("RANS", "0")
        config = read_config()
        stored, rounding = timed(quantize_all, config, drawn)
        blob, packing = timed(pack, config, stored)
        _, reading = timed(unpack, blob)
        print(
            f"{coder}: {count:,} weights, quantize {rounding} s, pack {packing} s, "
            f"unpack {reading} s, {8 * len(blob) / count:.4f} bits a weight",
            flush=True,
        )
        os.environ["RANS"] = "0"


if __name__ == "__main__":
    main(sys.argv[1:] or list(CODERS))
