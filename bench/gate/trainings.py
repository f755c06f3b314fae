"""Real CPU trainings of our trainer over a wide range of configurations, for `replay.py`.

    python bench/gate/trainings.py --data DATA --out runs.jsonl --count 160

DATA is the folder that `pgolf-sweep data demo` fills. One process, one configuration after the
other, drawn by its index, so that a run that was interrupted goes on where it stopped. Shapes,
bits, scale rules, codecs, rates, decays, momentum, schedules and averages all vary; sizes are
spread evenly in the logarithm over a factor of ten. Some seconds each on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trainer.checks import CODEC_LEAST_LEVEL
from trainer.config import CODEC_BEST_LEVEL

MODEL_BYTES = (36_000, 360_000)  # 0.3 to 3 times `replay.CAP_BYTES`
MOST_FLOPS = 2.5e11
FIXED = {
    "VOCAB_SIZE": 512, "NUM_HEADS": 4, "TRAIN_SEQ_LEN": 128, "WARMUP_STEPS": 0,
    "VAL_BATCH_SIZE": 4096, "VAL_LOSS_EVERY": 0, "TRAIN_LOG_EVERY": 0, "MAX_WALLCLOCK_SECONDS": 0,
    "WARMDOWN_ITERS": 0, "COMPILE": "0", "DTYPE": "fp32",
}  # fmt: skip


def drawn(index: int) -> dict[str, Any]:
    """The configuration of an index: the first draw of the wanted size that is cheap enough."""
    rng = random.Random(f"trainings {index}")
    low, high = MODEL_BYTES
    wanted = low * (high / low) ** rng.random()
    while True:
        knobs = _draw(rng)
        params, mean_bytes = _size(knobs)
        flops = 6 * params * knobs["ITERATIONS"] * knobs["TRAIN_BATCH_TOKENS"]
        if abs(math.log(mean_bytes / wanted)) < 0.1 and flops < MOST_FLOPS:
            return {**FIXED, **knobs}


def _draw(rng: random.Random) -> dict[str, Any]:
    def log_uniform(low: float, high: float) -> float:
        return float(f"{low * (high / low) ** rng.random():.3g}")

    matrix_bits = rng.choice((4, 5, 6, 7, 8))
    mixed = rng.random() < 0.3
    scale = rng.choice(("rowmax", "sdclip", "mse", "percentile"))
    codec = rng.choice(("zlib", "zstd", "lzma", "brotli"))
    least, best = CODEC_LEAST_LEVEL[codec], CODEC_BEST_LEVEL[codec]
    warmup = rng.choice((20, 100, 300))
    return {
        "NUM_LAYERS": rng.randint(1, 6),
        "MODEL_DIM": rng.choice((32, 48, 64, 80, 96, 128, 160)),
        "NUM_KV_HEADS": rng.choice((1, 2, 4)),
        "MLP_MULT": rng.randint(1, 4),
        "TIE_EMBEDDINGS": int(rng.random() < 0.8),
        "MATRIX_BITS": matrix_bits,
        "ATTN_BITS": rng.choice((4, 5, 6, 7, 8)) if mixed else 0,
        "MLP_BITS": 0,
        "EMBED_BITS": rng.choice((4, 5, 6, 7, 8)),
        "QUANT_SCALE": scale,
        "CLIP_SIGMAS": log_uniform(2.5, 13),
        "CLIP_PERCENTILE": rng.choice((98.0, 99.0, 99.9, 99.99984)),
        "CODEC": codec,
        "CODEC_LEVEL": rng.choice((0, 0, best, max(least, best // 2))),
        "BYTE_SHUFFLE": int(rng.random() < 0.7),
        "ITERATIONS": int(log_uniform(100, 400)),
        "TRAIN_BATCH_TOKENS": rng.choice((512, 1024)),
        "MATRIX_LR": log_uniform(0.005, 0.08),
        "TIED_EMBED_LR": log_uniform(0.02, 0.1),
        "WEIGHT_DECAY": rng.choice((0.0, 0.0, log_uniform(0.05, 2.0))),
        "MUON_MOMENTUM": rng.choice((0.85, 0.95, 0.99)),
        "MUON_MOMENTUM_WARMUP_STEPS": warmup,
        "LR_SCHEDULE": rng.choice(("linear", "cosine", "wsd")),
        "WARMDOWN_FRAC": rng.choice((0.2, 0.5, 0.8)),
        "MIN_LR_FRAC": rng.choice((0.0, 0.1)),
        "EMA_DECAY": rng.choice((0.0, 0.0, 0.95, 0.99)),
        "SEED": rng.randint(1, 3),
    }


def _size(knobs: dict[str, Any]) -> tuple[int, float]:
    """Parameters and roughly the bytes, for spreading the draws: no prediction."""
    width, layers = knobs["MODEL_DIM"], knobs["NUM_LAYERS"]
    kv = knobs["NUM_KV_HEADS"] * width // 4
    attn = layers * width * (2 * width + 2 * kv)
    mlp = layers * 2 * width * width * knobs["MLP_MULT"]
    embed = 512 * width * (2 - knobs["TIE_EMBEDDINGS"])
    attn_bits = knobs["ATTN_BITS"] or knobs["MATRIX_BITS"]
    bits = attn * attn_bits + mlp * knobs["MATRIX_BITS"] + embed * knobs["EMBED_BITS"]
    return attn + mlp + embed, 0.9 * bits / 8


def config_of(knobs: dict[str, Any], data: Path) -> Any:
    """The trainer's own reading of the knobs, through an environment."""
    from trainer.config import read_config

    environment = {name: str(value) for name, value in knobs.items()}
    environment["DATA_PATH"] = str(data / "datasets" / "demo_sp512")
    environment["TOKENIZER_PATH"] = str(data / "tokenizers" / "demo_512_bpe.model")
    known = {name: os.environ.pop(name) for name in list(os.environ) if name in environment}
    os.environ.update(environment)
    try:
        return read_config()
    finally:
        for name in environment:
            del os.environ[name]
        os.environ.update(known)


def train(knobs: dict[str, Any], data: Path, keep: Path | None) -> int:
    """Bytes of the compressed model that a training leaves behind."""
    import numpy as np
    import torch

    from trainer.runtime import Log
    from trainer.train import Run

    config = config_of(knobs, data)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run = Run(config, torch.device("cpu"), Log(config))
                # The score is not what is measured here.
                run.validation = run.validation.first(32 * config.train_seq_len)
                run.train()
                weights = {
                    name: value.detach().numpy().copy()
                    for name, value in run.model.named_parameters()
                }
                run.export_and_score()
            size = next(Path().glob("final_model.*")).stat().st_size
        finally:
            os.chdir(here)
    if keep is not None:
        np.savez(keep, **weights)
    return size


def main() -> None:
    """Train what is missing and append it to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--keep", type=Path, help="folder for the trained weights")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    known = {json.loads(line)["index"] for line in lines}
    for index in range(options.count):
        if index in known:
            continue
        began = time.perf_counter()
        knobs = drawn(index)
        keep = options.keep / f"{index}.npz" if options.keep else None
        row = {"index": index, "model_bytes": train(knobs, options.data.resolve(), keep)}
        row |= {"seconds": round(time.perf_counter() - began, 1), "knobs": knobs}
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(index, row["seconds"], row["model_bytes"], flush=True)


if __name__ == "__main__":
    main()
