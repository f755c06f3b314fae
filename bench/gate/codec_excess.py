"""Bytes that codecs make of the entropy of quantized Gaussian rows: tables of `codec_overhead`.

    python bench/gate/codec_excess.py [--codecs zlib zstd] [--level 3]

Rows of 512 Gaussians are quantized by sdclip, as finely and as coarsely as the tables say, packed
as the artifact packs them and compressed. Prints compressed over entropy bytes for each number of
weights. Four minutes of one core, most of them for brotli.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from pgolf_sweep.gate.physics.codec_overhead import PAIRED, SIGMAS, SINGLE, WEIGHTS, bits_of
from pgolf_sweep.gate.physics.entropy import ScaleRule, top_level, weight_bits
from trainer.artifact import code_bytes, compress
from trainer.config import CODECS
from trainer.quantize import quantize

COLUMNS = 512


def ratio(codec: str, bits: int, sigma: float, weights: int, level: int) -> float:
    """Compressed bytes of the codes over their Gaussian entropy.

    Args:
        codec: The artifact's.
        bits: Of a weight.
        sigma: Standard deviation of the weights in steps of the quantizer.
        weights: How many.
        level: The codec's; 0 is its best.
    """
    rows = np.random.default_rng(bits).standard_normal((weights // COLUMNS, COLUMNS))
    clip = top_level(bits) / sigma
    config = SimpleNamespace(quant_scale="sdclip", clip_sigmas=clip)
    codes = code_bytes(quantize(config, rows.astype(np.float32), bits))  # type: ignore[arg-type]
    entropy = weight_bits(ScaleRule.SDCLIP, bits, COLUMNS, clip)
    return 8 * len(compress(codec, level, [codes])) / rows.size / entropy


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codecs", nargs="+", default=list(CODECS))
    parser.add_argument("--weights", type=int, nargs="+", default=list(WEIGHTS))
    parser.add_argument("--level", type=int, default=0)
    options = parser.parse_args()
    for codec in options.codecs:
        for packing in (SINGLE, PAIRED):
            print(f'    ("{codec}", {packing!r}): (')
            for weights in options.weights:
                cells = (
                    ratio(codec, bits_of(packing, sigma), sigma, weights, options.level)
                    for sigma in SIGMAS[packing]
                )
                print("       ", f"({', '.join(f'{cell:.4f}' for cell in cells)}),", flush=True)
            print("    ),", flush=True)


if __name__ == "__main__":
    main()
