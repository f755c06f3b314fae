"""Sweep a CPU variant of the contest's baseline script from end to end, and judge the gate by it.

    python bench/records/baseline_cpu.py CHECKOUT WORK [--trials 8]

CHECKOUT is a checkout of openai/parameter-golf, WORK an empty folder. The checkout's `train_gpt.py`
is written to WORK with its device changed to the CPU and with nothing compiled; `pgolf-sweep`
prepares the demo's data there and launches a small sweep of it. Then the gate's prediction for
each trial is printed beside the bytes that the trial printed: before anything was measured, and as
it stood when the trial was proposed. Exit code 1 when a trial failed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

DEVICE = (
    (r'torch\.device\("cuda"[^)]*\)', 'torch.device("cpu")'),
    (r'device_type="cuda"', 'device_type="cpu"'),
    (r"fused=True", "fused=False"),
    # Not compiled, its rotary tables would be kept from the first validation on.
    (r"torch\.inference_mode\(\)", "torch.no_grad()"),
    (r"enable_math_sdp\(False\)", "enable_math_sdp(True)"),
    (r'\["nvidia-smi"\]', '["true"]'),
)
AFTER_TORCH = """
torch.compile = lambda function=None, **_: function or (lambda wrapped: wrapped)
for _name in ("synchronize", "set_device", "manual_seed_all", "max_memory_allocated",
              "max_memory_reserved"):
    setattr(torch.cuda, _name, lambda *_, **__: 0)
torch.cuda.is_available = lambda: True
"""
SWEEP = """
program: train_gpt.py
method: random
metric: {name: val_bpb, goal: minimize}
run_cap: TRIALS
parameters:
  MODEL_DIM:   {values: [96, 192, 256]}
  NUM_LAYERS:  {distribution: int_uniform, min: 2, max: 4}
  MATRIX_LR:   {distribution: log_uniform_values, min: 0.01, max: 0.06}
  NUM_HEADS:   {value: 4}
  NUM_KV_HEADS: {value: 2}
  VOCAB_SIZE:  {value: 512}
  ITERATIONS:  {value: 40}
  WARMUP_STEPS: {value: 0}
  WARMDOWN_ITERS: {value: 20}
  TRAIN_BATCH_TOKENS: {value: 2048}
  TRAIN_SEQ_LEN: {value: 128}
  VAL_BATCH_SIZE: {value: 65536}
  VAL_LOSS_EVERY: {value: 20}
  MUON_MOMENTUM_WARMUP_STEPS: {value: 20}
  SEED: {value: 1337}
pgolf:
  rules: rules.yaml
  data: demo
  resources: {gpus: 0, cpus: 1}
"""
RULES = """
title: baseline on the CPU
track: demo
artifact_cap_bytes: 2_200_000
train_seconds: 300
eval_seconds: 120
min_seeds: 2
"""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--trials", type=int, default=8)
    options = arguments.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    (work / "train_gpt.py").write_text(on_cpu((options.checkout / "train_gpt.py").read_text()))
    (work / "sweep.yaml").write_text(SWEEP.replace("TRIALS", str(options.trials)))
    (work / "rules.yaml").write_text(RULES)
    if not (work / "data").exists():
        pgolf(work, "data", "demo")
    pgolf(work, "launch", "sweep.yaml", "--name", "baseline-cpu", "--wandb", "disabled")
    trials = json.loads(pgolf(work, "trials", "baseline-cpu", "--json"))["trials"]
    print(
        f"{'trial':>5} {'outcome':10} {'val_bpb':>8} {'unmeasured':>24} {'as proposed':>24} printed"
    )
    for trial in trials:
        print(row(work, trial))
    failed = [t for t in trials if t["outcome"] not in {"completed", "pruned", "discarded"}]
    completed = sum(t["outcome"] == "completed" for t in trials)
    print(f"{completed} of {len(trials)} trials completed, {len(failed)} failed")
    return int(bool(failed) or not completed)


def on_cpu(source: str) -> str:
    for pattern, replacement in DEVICE:
        source = re.sub(pattern, replacement, source)
    return re.sub(
        r"^import torch$", "import torch" + AFTER_TORCH, source, count=1, flags=re.MULTILINE
    )


def row(work: Path, trial: dict[str, Any]) -> str:
    settings = [part for k, v in trial["knobs"].items() for part in ("--set", f"{k}={v}")]
    answer = json.loads(
        pgolf(work, "gate", "--program", "train_gpt.py", *settings, "--json", check=False)
    )
    return (
        f"{trial['number']:5} {trial['outcome']:10} {trial['val_bpb'] or 0:8.4f} "
        f"{shown(answer['artifact_bytes']):>24} {shown(trial['predicted_bytes']):>24} "
        f"{trial['artifact_bytes']}"
    )


def shown(interval: dict[str, float] | None) -> str:
    if interval is None:
        return "unknown"
    return "{low:,.0f} {mid:,.0f} {high:,.0f}".format(**interval)


def pgolf(work: Path, *arguments: str, check: bool = True) -> str:
    command = [sys.executable, "-m", "pgolf_sweep", *arguments]
    result = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, text=True, check=False)
    if check and result.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {result.returncode}\n{result.stdout}")
    return result.stdout


if __name__ == "__main__":
    sys.exit(main())
