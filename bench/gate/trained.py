"""Predicted against measured bytes on real trainings of our trainer.

Trains each configuration of a fixed list on a CPU (minutes in all), keeps what was measured as
JSON lines, and prints the table of docs/gate.md: the gate's interval before anything was
measured, and as it would have been had it learnt from every row above.

Example: PYTHONPATH=. python bench/gate/trained.py --data data/datasets/demo_sp512 \
    --tokenizer data/tokenizers/demo_512_bpe.model --out runs/gate.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BASE = {
    "VOCAB_SIZE": 512, "NUM_LAYERS": 2, "MODEL_DIM": 64, "NUM_HEADS": 4, "NUM_KV_HEADS": 2,
    "ITERATIONS": 300, "TRAIN_BATCH_TOKENS": 1024, "TRAIN_SEQ_LEN": 128, "WARMUP_STEPS": 0,
    "VAL_BATCH_SIZE": 4096, "VAL_LOSS_EVERY": 0, "WARMDOWN_ITERS": 100, "MATRIX_LR": 0.02,
    "MAX_WALLCLOCK_SECONDS": 0, "CODEC": "zlib",
}  # fmt: skip
WIDE = {"NUM_LAYERS": 3, "MODEL_DIM": 96}
CONFIGURATIONS: list[dict[str, object]] = [
    {},
    {"CODEC": "brotli", "MATRIX_BITS": 6},
    {"CODEC": "zstd", "MATRIX_BITS": 5},
    {"CODEC": "lzma", "MATRIX_BITS": 4},
    {"MATRIX_BITS": 4, "EMBED_BITS": 6, "QUANT_SCALE": "mse", "CODEC": "brotli"},
    {"MATRIX_BITS": 6, "QUANT_SCALE": "sdclip", "CLIP_SIGMAS": 4.0, "CODEC": "brotli"},
    {**WIDE, "MATRIX_BITS": 6, "CODEC": "zstd"},
    {**WIDE, "MATRIX_LR": 0.08, "MATRIX_BITS": 5},
    {**WIDE, "MATRIX_LR": 0.005, "MATRIX_BITS": 5},
    {**WIDE, "ITERATIONS": 30, "MATRIX_BITS": 4, "CODEC": "brotli"},
    {"ITERATIONS": 2000, "MATRIX_BITS": 6, "CODEC": "brotli"},
    {"TIE_EMBEDDINGS": 0, "MATRIX_BITS": 7, "CODEC": "brotli"},
    {"MODEL_DIM": 32, "NUM_LAYERS": 6, "MATRIX_BITS": 8, "EMBED_BITS": 4},
    {"MODEL_DIM": 160, "NUM_LAYERS": 2, "MLP_MULT": 4, "ITERATIONS": 150, "MATRIX_BITS": 6},
    {**WIDE, "QUANT_SCALE": "percentile", "CLIP_PERCENTILE": 99.0, "MATRIX_BITS": 4},
    {**WIDE, "WEIGHT_DECAY": 1.0, "EMA_DECAY": 0.98, "MATRIX_BITS": 5, "CODEC": "brotli"},
]


def train(knobs: dict[str, object], data: Path, tokenizer: Path) -> int:
    """Bytes of the compressed model of one real run."""
    texts = {name: str(value) for name, value in knobs.items()}
    paths = {"DATA_PATH": str(data.resolve()), "TOKENIZER_PATH": str(tokenizer.resolve())}
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, **texts, **paths, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer.train"]
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
        return next(Path(folder).glob("final_model.*")).stat().st_size


def report(rows: list[dict[str, object]]) -> None:
    """The table, in Markdown."""
    from pgolf_sweep.script.program import load_program
    from pgolf_sweep.size.gate import Gate

    program = load_program("trainer", base=Path())
    fresh = Gate(program, cap_bytes=300_000, confidence=0.99)
    learnt = Gate(program, cap_bytes=300_000, confidence=0.99)
    print("| change | measured | low | mid | high | error | after learning | low, high |")
    print("| --- | --: | --: | --: | --: | --: | --: | --- |")
    for row in rows:
        knobs, measured = row["knobs"], row["model_bytes"]
        before, after = fresh.verdict(knobs).model_bytes, learnt.verdict(knobs).model_bytes
        learnt.learn(knobs, measured)
        change = " ".join(f"{k}={v}" for k, v in knobs.items() if BASE.get(k) != v) or "(base)"
        outside = "" if before.low <= measured <= before.high else " **outside**"
        late = "" if after.low <= measured <= after.high else " **outside**"
        print(
            f"| {change} | {measured} | {before.low:.0f} | {before.mid:.0f} | {before.high:.0f} "
            f"| {100 * (before.mid / measured - 1):+.1f} %{outside} "
            f"| {100 * (after.mid / measured - 1):+.1f} %{late} "
            f"| {after.low:.0f}, {after.high:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/gate.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in known]
    for change in CONFIGURATIONS:
        knobs = {**BASE, **change}
        if any(row["knobs"] == knobs for row in rows):
            continue
        size = train(knobs, options.data, options.tokenizer)
        rows.append({"knobs": knobs, "model_bytes": size})
        with options.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(size, change, file=sys.stderr, flush=True)
    report(rows)


if __name__ == "__main__":
    main()
