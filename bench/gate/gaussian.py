"""The gate on artifacts of Gaussian weights: shapes, bits, rules, clips, codecs and levels alone.

    python bench/gate/gaussian.py --draws 200

No training: weights are drawn, then quantized and packed as the trainer does it; what the gate says
of training (its warm-up, unused rows) is switched off by long runs on large batches. A gate that
has learnt nothing has to hold the true size in its 99 % interval.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics.inventory import read_config, tensors
from pgolf_sweep.script.program import load_program
from trainer.artifact import pack
from trainer.checks import CODEC_LEAST_LEVEL
from trainer.config import CODEC_BEST_LEVEL
from trainer.quantize import quantize_all

TRAINED = {"ITERATIONS": 20_000, "MAX_WALLCLOCK_SECONDS": 0.0, "TRAIN_BATCH_TOKENS": 2**32}


def drawn(rng: random.Random) -> dict[str, Any]:
    """A configuration of 30 thousand to two million weights, regardless of its quality."""
    heads = rng.choice((2, 4, 8))
    codec = rng.choice(tuple(CODEC_BEST_LEVEL))
    least, best = CODEC_LEAST_LEVEL[codec], CODEC_BEST_LEVEL[codec]
    rule = rng.choice(("rowmax", "percentile", "mse", "sdclip", "sdclip", "sdclip"))
    mixed = rng.random() < 0.5
    return TRAINED | {
        "NUM_HEADS": heads, "NUM_KV_HEADS": rng.choice((1, heads // 2, heads)),
        "NUM_LAYERS": rng.randint(1, 6), "MODEL_DIM": heads * rng.choice((16, 24, 32)),
        "VOCAB_SIZE": rng.choice((256, 512, 1024)), "MLP_MULT": rng.randint(1, 4),
        "TIE_EMBEDDINGS": rng.random() < 0.8, "QUANT_SCALE": rule,
        "CLIP_SIGMAS": round(2.5 * 16 ** rng.random(), 2),
        "CLIP_PERCENTILE": rng.choice((98.0, 99.0, 99.9, 99.99984)),
        "CODEC": codec, "CODEC_LEVEL": rng.choice((0, rng.randint(least, best))),
        "MATRIX_BITS": rng.randint(4, 8), "EMBED_BITS": rng.randint(4, 8),
        "ATTN_BITS": rng.randint(4, 8) if mixed else 0, "BYTE_SHUFFLE": rng.random() < 0.5,
    }  # fmt: skip


def packed_bytes(config: Any, rng: Any) -> int:
    """A real artifact of Gaussian weights whose rows differ in size, as trained ones do."""
    weights = {}
    for tensor in tensors(config):
        values = 0.02 * rng.standard_normal(tensor.shape)
        if tensor.quantized:
            values *= rng.lognormal(0, 0.3, (tensor.shape[0], 1))
        weights[tensor.name] = values.astype(np.float32)
    return len(pack(config, quantize_all(config, weights)))


def main() -> None:
    """Draw, predict, pack, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="each draw outside its interval")
    options = parser.parse_args()
    real = load_program("trainer", base=Path(), extra_files=())
    program: Any = SimpleNamespace(knobs=real.knobs, builtin=True, code_bytes=0)
    gate = Gate(program, 10**9)
    rng = random.Random(options.seed)
    found: dict[str, list[tuple[float, bool]]] = {}
    for draw in range(options.draws):
        knobs = drawn(rng)
        config = read_config({**gate.defaults, **knobs})
        model = gate.verdict(knobs).model_bytes
        assert model is not None
        actual = packed_bytes(config, np.random.default_rng(draw))
        inside = model.low <= actual <= model.high
        error = 100 * math.log(model.mid / actual)
        coarse = "sdclip above 8" if config.clip_sigmas > 8 else "sdclip up to 8"
        kind = coarse if config.quant_scale == "sdclip" else config.quant_scale
        for name in ("all", config.codec, kind, "lower level" if config.codec_level else "best"):
            found.setdefault(name, []).append((error, inside))
        if options.verbose and not inside:
            print(f"{error:+.1f} % {actual} not in {model} {knobs}", flush=True)
    print("| draws | | median error | 95th | in 99 % |\n| --- | --: | --: | --: | --: |")
    for name, several in found.items():
        errors = np.abs([error for error, _ in several])
        held = 100 * np.mean([inside for _, inside in several])
        print(f"| {name} | {len(several)} | {np.median(errors):.2f} % "
              f"| {np.percentile(errors, 95):.1f} % | {held:.1f} % |")  # fmt: skip


if __name__ == "__main__":
    main()
