"""What each codec adds to the entropy of quantized Gaussian rows; the table of size/codecs.py.

Example: PYTHONPATH=. python bench/gate/codec_excess.py --weights 100000 1000000
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np

from pgolf_sweep.size.entropy import ScaleRule, weight_bits
from trainer.artifact import code_bytes, compress
from trainer.quantize import quantize

COLUMNS = 512


def excess(codec: str, bits: int, weights: int, rule: str, level: int) -> float:
    """Compressed bytes of the codes over their Gaussian entropy, minus one."""
    rows = np.random.default_rng(bits).standard_normal((weights // COLUMNS, COLUMNS))
    config = SimpleNamespace(quant_scale=rule, clip_sigmas=4.0, clip_percentile=99.99)
    codes = code_bytes(quantize(config, rows.astype(np.float32), bits))
    parameter = {"sdclip": 4.0, "percentile": 99.99}.get(rule, 0.0)
    entropy_bytes = rows.size * weight_bits(ScaleRule(rule), bits, COLUMNS, parameter) / 8
    return len(compress(codec, level, b"", codes)) / entropy_bytes - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rules", nargs="+", default=["rowmax", "sdclip"])
    parser.add_argument("--level", type=int, default=0)
    options = parser.parse_args()
    print("codec   rule       weights " + " ".join(f"{b:>2}-bit" for b in (4, 5, 6, 7, 8)))
    for codec in ("zlib", "zstd", "lzma", "brotli"):
        for rule in options.rules:
            for weights in options.weights:
                values = [excess(codec, b, weights, rule, options.level) for b in (4, 5, 6, 7, 8)]
                shown = " ".join(f"{100 * v:5.2f}%" for v in values)
                print(f"{codec:7} {rule:9} {weights:8} {shown}", flush=True)


if __name__ == "__main__":
    main()
