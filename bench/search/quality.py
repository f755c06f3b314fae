"""Scores that TPE finds when it looks at a share of the trials.

    python bench/search/quality.py [--proposals 2000] [--seeds 5] [--limits 0 500]

Two toys, both minimized, eight proposals under way at a time, and told as our driver tells them.
`cap` is the contest's shape: width, depth, bits, rates and a schedule; larger scores better and
what is over the cap is infeasible (about half of the space), so that the best lies at the boundary.
`rugged` is Rastrigin in six dimensions: many local minima. A limit of 0 is Optuna's own TPE, of all
trials. Shown is the best feasible score after that many proposals, and the seconds of all asks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import optuna
from optuna.trial import TrialState

from pgolf_sweep.search.sampler import STARTUP_TRIALS, ThinnedTPE

CAP_BYTES = 16e6
RUNNING = 8


def cap(trial: Any) -> tuple[float, float]:
    """Score, and bytes over the cap."""
    width = trial.suggest_int("MODEL_DIM", 256, 768, step=32)
    depth = trial.suggest_int("NUM_LAYERS", 5, 15)
    bits = trial.suggest_categorical("MATRIX_BITS", [4, 5, 6, 8])
    rate = trial.suggest_float("MATRIX_LR", 0.005, 0.08, log=True)
    decay = trial.suggest_float("WEIGHT_DECAY", 0.0, 0.2)
    warmdown = trial.suggest_float("WARMDOWN_FRAC", 0.1, 0.9)
    schedule = trial.suggest_categorical("LR_SCHEDULE", ["linear", "cosine", "wsd"])
    params = 10 * depth * width**2
    score = 1.05 + 0.6 * (params / 1e7) ** -0.3
    score += {4: 0.05, 5: 0.013, 6: 0.003, 8: 0.0}[bits]
    best_rate = 0.025 * (512 / width) ** 0.5 * (1 + 2 * decay)
    score += 0.02 * math.log(rate / best_rate) ** 2
    score += 0.3 * (decay - 0.09) ** 2 + 0.05 * (warmdown - 0.7) ** 2
    score += 0.01 * abs(math.log(depth / 11))
    score += {"linear": 0.002, "cosine": 0.004, "wsd": 0.0}[schedule]
    return score, params * bits / 8 * (0.92 - 0.3 * decay) - CAP_BYTES


def rugged(trial: Any) -> tuple[float, float]:
    xs = [trial.suggest_float(f"X{i}", -5.12, 5.12) for i in range(6)]
    return sum(x * x + 10 - 10 * math.cos(2 * math.pi * x) for x in xs), 0.0


def search(objective: Any, limit: int, seed: int, marks: list[int]) -> tuple[list[float], float]:
    """The best score at each mark, and the seconds that all asks took."""
    plain = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(sampler=ThinnedTPE(seed=seed, limit=limit) if limit else plain)
    asked: deque[tuple[Any, float, float]] = deque()
    best, bests, seconds = math.inf, [], 0.0
    for proposal in range(1, marks[-1] + 1):
        began = time.process_time()
        trial = study.ask()
        score, excess = objective(trial)
        seconds += time.process_time() - began
        asked.append((trial, score, excess))
        if len(asked) >= RUNNING or proposal == marks[-1]:
            ended, score, excess = asked.popleft()
            if excess > 0:
                ended.set_constraint("predicted_excess_bytes", excess)
                study.tell(ended, state=TrialState.PRUNED)
            else:
                ended.set_constraint("measured_excess_bytes", excess)
                study.tell(ended, score)
                best = min(best, score)
        if proposal in marks:
            bests.append(best)
    return bests, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proposals", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limits", type=int, nargs="+", default=[0, 500])
    parser.add_argument("--toys", nargs="+", default=["cap", "rugged"])
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    marks = [options.proposals // 4, options.proposals // 2, options.proposals]
    print("best score, mean (std) over", options.seeds, "seeds, after", *marks, "proposals")
    for toy in options.toys:
        objective = {"cap": cap, "rugged": rugged}[toy]
        for limit in options.limits:
            runs = []
            for seed in range(options.seeds):
                runs.append(search(objective, limit, seed, marks))
                print(f"  {toy} limit {limit} seed {seed}", *runs[-1][0], flush=True)
            columns = zip(*(bests for bests, _ in runs), strict=True)
            cells = [f"{statistics.mean(c):.4f} ({statistics.stdev(c):.4f})" for c in columns]
            seconds = statistics.mean(seconds for _, seconds in runs)
            print(f"{toy:7} limit {limit:5}", *cells, f"asks {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
