"""Sweeps over the real trainings of `trainings.csv`: simulated clock, eight slots.

    python bench/search/replay.py [--methods bayes bayes-shared tpe random plain-tpe] [--seeds 20]

Every configuration of `table.yaml` was trained, so that nothing is interpolated. In each repetition
a training has one of its seeds, by lot, and a repeat on a second seed the other; regret is of the
mean over its seeds, in thousandths of bits per byte above the best mean that fits. A second of the
processor stands for ten minutes of a slot. `bayes-shared` has the slot-time of so many mean
trainings, not a `run_cap`, and exports go on from a finished training for what an export takes; the
others train for each. Columns are for the slot-time of that many mean trainings; "reaches" is the
share of the slot-time of `--against` random trials after which the best of these, in the median of
repetitions, is reached. At least 33 trials.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import optuna
from compare import driven, open_sweep
from rivals import RIVALS, rival
from runs import Run, run_search
from table import SWEEP, TABLE, TRAINED

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKS = (16, 24, 32, 48, 64)
MINUTES = 10.0
"""Minutes of a slot for a second of the processor."""
OWN_SEED = 1
"""The sweep's; a trial on another, a repeat, has the training's other seed."""
MOST_SHARED = 4
"""Trials, exports and all, for each training of the budget."""


class Table:
    """The surface.

    Args:
        rows: Of the table, of whole trainings.
        repetition: Which seed each training has follows from it.
        shared: Whether what follows a training may be run alone.
    """

    exact_size = True
    """A trial measures what `size` says."""

    def __init__(
        self, rows: list[dict[str, str]], repetition: int, *, shared: bool = False
    ) -> None:
        self._repetition = repetition
        self._shared = shared
        self._seeds: dict[tuple[float, ...], list[dict[str, str]]] = {}
        for row in rows:
            self._seeds.setdefault(key(row), []).append(row)

    def score(self, knobs: Mapping[str, Any]) -> float:
        """`val_bpb`, the mean over the seeds."""
        name = f"bpb_{knobs['MATRIX_BITS']}-{knobs['EMBED_BITS']}"
        return statistics.mean(float(row[name]) for row in self._seeds[key(knobs)])

    def size(self, knobs: Mapping[str, Any]) -> float:
        """Bytes of the artifact."""
        return float(self._row(knobs)[f"bytes_{knobs['MATRIX_BITS']}-{knobs['EMBED_BITS']}"])

    def minutes(self, knobs: Mapping[str, Any]) -> float:
        """Minutes for which a whole trial holds its slot."""
        row = self._row(knobs)
        return MINUTES * (float(row["train_seconds"]) + float(row["export_seconds"]))

    def _row(self, knobs: Mapping[str, Any]) -> dict[str, str]:
        seeds = list(self._seeds[key(knobs)])
        random.Random(f"{self._repetition} {key(knobs)}").shuffle(seeds)
        return seeds[int(knobs.get("SEED", OWN_SEED) != OWN_SEED) % len(seeds)]

    def __call__(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """What `pgolf_sweep.simulate` asks of a run."""
        row = self._row(knobs)
        alone = {"export_minutes": MINUTES * float(row["export_seconds"])}
        return (alone if self._shared else {}) | {
            "val_bpb": float(row[f"bpb_{knobs['MATRIX_BITS']}-{knobs['EMBED_BITS']}"]),
            "artifact_bytes": self.size(knobs),
            "minutes": self.minutes(knobs),
        }


def key(knobs: Mapping[str, Any]) -> tuple[float, ...]:
    """What tells a training from another, its seed aside."""
    return tuple(float(knobs[name]) for name in TRAINED)


def whole(path: Path) -> list[dict[str, str]]:
    """The rows of whole trainings."""
    with path.open() as file:
        return [row for row in csv.DictReader(file) if float(row["ITERATIONS"]) == 60]


def optimum(surface: Table, rows: list[dict[str, str]], cap: float) -> float:
    """The best mean that fits with each of its seeds."""
    best = math.inf
    for row in rows:
        for column in row:
            if column.startswith("bytes_") and float(row[column]) <= cap:
                matrix, embed = column.removeprefix("bytes_").split("-")
                knobs = {**row, "MATRIX_BITS": matrix, "EMBED_BITS": embed}
                seeds = surface._seeds[key(row)]
                if all(float(one[column]) <= cap for one in seeds):
                    best = min(best, surface.score(knobs))
    return best


def by_time(run: Run, regrets: list[float], minutes: float) -> float:
    """Regret after that much slot-time."""
    spent, found = 0.0, math.inf
    for regret, cost in zip(regrets, run.minutes, strict=True):
        spent += cost
        if spent > minutes:
            break
        found = regret
    return found


def reached(run: Run, regrets: list[float], goal: float) -> float:
    """Slot-minutes until a regret is reached; infinite if it never is."""
    spent = 0.0
    for regret, cost in zip(regrets, run.minutes, strict=True):
        spent += cost
        if regret <= goal:
            return spent
    return math.inf


def mean_minutes(rows: list[dict[str, str]]) -> float:
    """For which a trial holds its slot in the mean."""
    seconds = [float(row["train_seconds"]) + float(row["export_seconds"]) for row in rows]
    return MINUTES * statistics.mean(seconds)


def one_run(method: str, rows: list[dict[str, str]], repetition: int, trials: int) -> Run:
    """A repetition of a method."""
    shared = method == "bayes-shared"
    surface = Table(rows, repetition, shared=shared)
    unlike_ours = method in RIVALS
    session = open_sweep(SWEEP, "bayes" if unlike_ours or shared else method, trials)
    if shared:
        hours = trials * mean_minutes(rows) / 60
        update = {"gpu_hours": hours, "reserve": False}
        budget = session.spec.pgolf.budget.model_copy(update=update)
        pgolf = dataclasses.replace(session.spec.pgolf, budget=budget)
        spec = dataclasses.replace(session.spec, pgolf=pgolf, run_cap=MOST_SHARED * trials)
        session = dataclasses.replace(session, spec=spec)
    if unlike_ours:
        return run_search(rival(method, session, surface, repetition), surface, trials)
    return driven(session, surface, repetition)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["bayes", "bayes-shared", "tpe", "random"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--against", type=int, default=200, help="random trials to be beaten")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = whole(options.table)
    cap = open_sweep(SWEEP, "bayes", 1).rules.artifact_cap_bytes
    surface = Table(rows, 0)
    best = optimum(surface, rows, cap)
    mean = mean_minutes(rows)
    print(f"{len(rows)} trainings, best {best:.4f}, a mean trial takes {mean:.1f} slot-minutes")
    goals, spans = [], []
    for repetition in range(options.seeds):
        run = one_run("random", rows, repetition, options.against)
        goals.append(run.regrets(best, cap)[-1])
        spans.append(sum(run.minutes))
    print(f"random after {options.against} trials: {statistics.mean(goals):.1f}", flush=True)
    for method in options.methods:
        began = time.process_time()
        runs = [one_run(method, rows, seed, options.trials) for seed in range(options.seeds)]
        cells = []
        for mark in MARKS:
            at = [by_time(run, run.regrets(best, cap), mark * mean) for run in runs]
            at = [value for value in at if math.isfinite(value)]
            error = statistics.stdev(at) / math.sqrt(len(at)) if len(at) > 1 else 0.0
            cells.append(f"{mark}: {statistics.mean(at):.1f} +- {error:.1f}")
        late = [[abs(s / cap - 1) <= 0.03 for s in run.sizes[32:64]] for run in runs]
        near = statistics.mean(statistics.mean(each) for each in late if each)
        over = statistics.mean(statistics.mean(s > cap for s in run.sizes) for run in runs)
        shares = [
            reached(run, run.regrets(best, cap), goal) / span
            for run, goal, span in zip(runs, goals, spans, strict=True)
        ]
        got = statistics.mean(math.isfinite(share) for share in shares)
        seconds = (time.process_time() - began) / len(runs)
        print(
            f"{method:12} {'  '.join(cells)}  near cap {near:.0%}  over {over:.1%}  trials "
            f"{statistics.mean(len(run.scores) for run in runs):.0f}  reaches "
            f"{statistics.median(shares):.2f} ({got:.0%})  cpu {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
