"""Share of a sweep's slot-seconds spent on artifacts over the cap, with the gate and without.

    python bench/gate/slots.py bench/gate/trainings.csv

Proposals are the trainings that the gate's constants never saw, in 60 random orders, against a cap
that half of them exceed; a training's seconds are its arithmetic. Configurations near the cap wait
for those that fit: the last row starts them all, the one before none (`policies.py` runs whole
sweeps through the driver).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.gate.table import HELD, Row, read_rows
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.resources import step_flops
from pgolf_sweep.script.program import load_program

ORDERS = 60


def spent(rows: list[Row], gate: Gate | None, cap_bytes: int, *, near: bool) -> tuple[float, float]:
    """Seconds over the cap and seconds in all."""
    over = total = 0.0
    waiting = []
    for row in rows:
        verdict = None if gate is None else gate.verdict(row.knobs)
        if verdict is not None and verdict.discards:
            continue
        if verdict is not None and verdict.kind is VerdictKind.NEAR:
            waiting.append(row)
            continue
        seconds = _seconds(row)
        total += seconds
        over += seconds * (row.model_bytes > cap_bytes)
        if gate is not None:
            gate.learn(row.knobs, row.model_bytes)
    for row in waiting if near and gate is not None else ():
        if gate.verdict(row.knobs).discards:
            continue
        total += _seconds(row)
        over += _seconds(row) * (row.model_bytes > cap_bytes)
        gate.learn(row.knobs, row.model_bytes)
    return over, total


def _seconds(row: Row) -> float:
    params = 12 * row.config.num_layers * row.config.model_dim**2
    return 3.0 + step_flops(row.config, params) * float(row.config.iterations) / 4e10


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    rows = [row for row in read_rows(parser.parse_args().table) if row.half == HELD]
    cap_bytes = int(statistics.median(row.model_bytes for row in rows))
    real = load_program("trainer", base=Path(), extra_files=())
    program: Any = SimpleNamespace(knobs=real.knobs, builtin=True, code_bytes=0)
    print(f"{len(rows)} proposals, cap {cap_bytes:,} bytes, {ORDERS} orders")
    print("| sweep | slot-seconds over the cap |\n| --- | --: |")
    for name, gated, near in (
        ("without the gate", False, True),
        ("with the gate, near ones not reached", True, False),
        ("with the gate, near ones started last", True, True),
    ):
        shares = []
        for order in range(ORDERS):
            shuffled = random.Random(order).sample(rows, len(rows))
            gate = Gate(program, cap_bytes) if gated else None
            over, total = spent(shuffled, gate, cap_bytes, near=near)
            shares.append(over / total)
        print(f"| {name} | {100 * statistics.mean(shares):.1f} % |")


if __name__ == "__main__":
    main()
