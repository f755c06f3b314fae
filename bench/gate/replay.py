"""The gate on real trainings that its constants never saw, as a study grows from 0 to 60 trials.

    python bench/gate/replay.py bench/gate/trainings.csv

Takes the odd rows of the table, in 60 random orders. Each order is a study: before each training
the gate gives its verdict with what it has learnt from the ones before. A training that the gate
discards would not have run, so nothing is learnt from it. The cap is on the model alone: code is
exact. Over-cap launches are those of configurations that surely fit; the last column counts those
near the cap as well, which a driver starts last (`policies.py` runs whole sweeps through it).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench.gate.table import HELD, Row, read_rows
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.script.program import load_program

CAP_BYTES = 120_000
STUDY = 60
SPANS = ((0, 0), (1, 10), (11, 20), (21, 40), (41, 60))
CONFIDENCES = (0.9, 0.99)


def replay(rows: list[Row], program: Any, orders: int, seed: int) -> dict[Any, list[Any]]:
    """What happened, by how many trials the study had had."""
    seen: dict[Any, list[Any]] = defaultdict(list)
    for order in range(orders):
        rng = random.Random(f"{seed} {order}")
        study = rng.sample(rows, min(STUDY + 1, len(rows)))
        gates = {c: Gate(program, CAP_BYTES, c) for c in CONFIDENCES}
        for learnt, row in enumerate(study):  # trials before this one, discards among them
            fits = row.model_bytes <= CAP_BYTES
            for confidence, gate in gates.items():
                verdict = gate.verdict(row.knobs)
                model = verdict.model_bytes
                inside = model.low <= row.model_bytes <= model.high
                seen["inside", confidence, learnt].append(inside)
                if confidence == max(CONFIDENCES):
                    seen["error", learnt].append(100 * (model.mid / row.model_bytes - 1))
                    seen["width", learnt].append(100 * (model.high - model.low) / model.mid / 2)
                    if fits:
                        seen["false discard", learnt].append(verdict.discards)
                    if verdict.kind is VerdictKind.FITS:
                        seen["over", learnt].append(not fits)
                    if not verdict.discards:
                        seen["over with near", learnt].append(not fits)
                if not verdict.discards:
                    gate.learn(row.knobs, row.model_bytes)
    return seen


def main() -> None:
    """Replay and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--orders", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", default=HELD)
    options = parser.parse_args()
    rows = [row for row in read_rows(options.table) if row.half == options.half]
    real = load_program("trainer", base=Path(), extra_files=())
    program = SimpleNamespace(knobs=real.knobs, builtin=True, code_bytes=0)
    seen = replay(rows, program, options.orders, options.seed)

    def values(name: Any, low: int, high: int) -> Any:
        name = name if isinstance(name, tuple) else (name,)
        return np.array([v for n in range(low, high + 1) for v in seen.get((*name, n), [])], float)

    fitting = sum(row.model_bytes <= CAP_BYTES for row in rows)
    print(f"{len(rows)} trainings, cap {CAP_BYTES:,} bytes of model, {fitting} fit; "
          f"{options.orders} orders")  # fmt: skip
    print("| trials before | median error | 95th | half width (99 %) | in 90 % | in 99 % "
          "| false discards | over-cap launches | with near |")  # fmt: skip
    print("| --- " * 9 + "|")
    for low, high in SPANS:
        errors = np.abs(values("error", low, high))
        discards = values("false discard", low, high)
        over, both = values("over", low, high), values("over with near", low, high)
        label = str(low) if low == high else f"{low} to {high}"
        print(
            f"| {label} | {np.median(errors):.2f} % | {np.percentile(errors, 95):.1f} % "
            f"| {np.median(values('width', low, high)):.1f} % "
            f"| {100 * values(('inside', 0.9), low, high).mean():.1f} % "
            f"| {100 * values(('inside', 0.99), low, high).mean():.1f} % "
            f"| {discards.sum():.0f} of {len(discards)} "
            f"| {over.sum():.0f} of {len(over)} ({100 * over.mean():.1f} %) "
            f"| {both.sum():.0f} of {len(both)} ({100 * both.mean():.1f} %) |"
        )


if __name__ == "__main__":
    main()
