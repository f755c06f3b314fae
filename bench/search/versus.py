"""The comparison of searches, to the bars that they are held to, in paired repetitions.

    python bench/search/versus.py --rows FILE --surface smooth table [--methods ...] [--seeds 0 20]
    python bench/search/versus.py --rows FILE --report

Surfaces: `smooth` and `smooth4` (`smooth.py`), `table` (real trainings, `replay.py`). Methods:
those of the product, through its driver with its gate, and `rivals.py`. Eight slots, 64 trials, a
simulated clock; `fitting-random` runs 200 trials, whose best is to be reached. A repetition is a
line of FILE, and one that is there is not run again: stop and go on at will, and `--seconds` stops
by itself. A method that this interpreter lacks is skipped.

Regret is of the luckiest trial that fits, without noise, in thousandths of bits per byte above the
best that fits; `picked` is the regret of the trial that the product's `best` names.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import optuna
import replay
from compare import driven, open_sweep, optimum
from rivals import RIVALS, rival
from runs import Run, run_search
from smooth import Smooth

HERE = Path(__file__).resolve().parent
SWEEPS = {
    "smooth": HERE / "smooth.yaml",
    "smooth4": HERE / "smooth4.yaml",
    "table": replay.SWEEP,
}
OURS = ("bayes", "tpe", "cmaes", "qmc", "random", "grid")
MARKS = (16, 24, 32, 48, 64)
TARGET, AGAINST = "fitting-random", 200
"""The random search whose best is to be reached, and its trials."""
GRID = 4_500
"""Configurations from which on a grid is no method for a surface."""
SHORTER = 20
DRAWS = 2_000
"""Resamples of a ratio's interval."""


class Brief:
    """A surface whose trials are `SHORTER` times as short and have no curve.

    The driver polls each half second of the simulated time, which would take longer than the rest.
    """

    def __init__(self, surface: Any) -> None:
        self._surface = surface
        self.score, self.size = surface.score, surface.size

    def minutes(self, knobs: Any) -> float:
        """For which a trial holds its slot."""
        return float(self._surface.minutes(knobs)) / SHORTER

    def __call__(self, knobs: Any) -> dict[str, Any]:
        """What `pgolf_sweep.simulate` asks of a run."""
        answer = self._surface(knobs)
        answer.pop("curve", None)
        return {**answer, "minutes": answer["minutes"] / SHORTER}


class Surfaces:
    """A surface for each repetition, its optimum and its cap."""

    def __init__(self, name: str) -> None:
        self._sweep = SWEEPS[name]
        self._truth = open_sweep(self._sweep, "random", 1)
        self.cap = self._truth.rules.artifact_cap_bytes
        self._rows = replay.whole(replay.TABLE) if name == "table" else None
        self.table_best = None
        if self._rows is not None:
            surface = replay.Table(self._rows, 0)
            self.table_best = replay.optimum(surface, self._rows, self.cap)

    def of(self, seed: int) -> Any:
        """The surface of a repetition."""
        if self._rows is not None:
            return replay.Table(self._rows, seed)
        return Smooth(self._truth, seed)

    def best(self, seed: int) -> float:
        """The best score that fits."""
        if self.table_best is not None:
            return self.table_best
        return optimum(self.of(seed), self._truth)

    def run(self, method: str, seed: int, trials: int) -> Run:
        """A repetition of a method."""
        if method in RIVALS:
            search = rival(method, self._truth, self.of(seed), seed)
            return run_search(search, self.of(seed), AGAINST if method == TARGET else trials)
        run = driven(open_sweep(self._sweep, method, trials), Brief(self.of(seed)), seed)
        run.minutes = [SHORTER * minutes for minutes in run.minutes]
        return run

    def has_grid(self) -> bool:
        """Whether a grid over it ends."""
        size = self._truth.spec.space.size()
        return size is not None and size <= GRID


def load(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Repetitions by surface, method and seed."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = map(json.loads, lines)
    return {(row["surface"], row["method"], row["seed"]): row for row in rows}


def measure(options: argparse.Namespace) -> None:
    """Run what is not there yet."""
    known = load(options.rows)
    missing: set[str] = set()
    surfaces = {name: Surfaces(name) for name in options.surface}
    optima: dict[tuple[str, int], float] = {(s, n): r["best"] for (s, _, n), r in known.items()}
    for seed in range(*options.seeds):
        for name, surface in surfaces.items():
            for method in options.methods:
                if (name, method, seed) in known or method in missing:
                    continue
                if method == "grid" and not surface.has_grid():
                    continue
                if time.process_time() > options.seconds:
                    print("stopped by --seconds: the same command goes on", flush=True)
                    return
                try:
                    run = surface.run(method, seed, options.trials)
                except ImportError as error:
                    missing.add(method)
                    print(f"{method} is skipped: {error}", flush=True)
                    continue
                if (name, seed) not in optima:
                    optima[name, seed] = surface.best(seed)
                row = {"surface": name, "method": method, "seed": seed, "cap": surface.cap}
                row |= {"best": optima[name, seed], "run": dataclasses.asdict(run)}
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{name} {method} {seed}: {run.cpu_seconds:.1f} s", flush=True)


def report(rows: dict[tuple[str, str, int], dict[str, Any]], seeds: range) -> None:
    """The tables, a row for each method, and what it is to be held to."""
    for name in SWEEPS:
        runs: dict[str, dict[int, Run]] = {}
        best: dict[int, float] = {}
        cap = 0.0
        for (surface, method, seed), row in rows.items():
            if surface == name and seed in seeds:
                runs.setdefault(method, {})[seed] = Run(**row["run"])
                best[seed], cap = row["best"], row["cap"]
        if not runs:
            continue
        marks = "".join(f" {mark} |" for mark in MARKS)
        print(
            f"\n{name}\n| method (repetitions) |{marks} of plain-tpe at 64 | of botorch | picked | "
            "near the cap (33-64) | over it | random's best of 200 in | within .2 | CPU s |"
        )
        for method in (*OURS, *RIVALS):
            if method in runs:
                print(_row(method, runs, best, cap))


def _row(method: str, runs: dict[str, dict[int, Run]], best: dict[int, float], cap: float) -> str:
    own = runs[method]
    regrets = {seed: run.regrets(best[seed], cap) for seed, run in own.items()}
    cells = [f"{method} ({len(own)})"]
    for mark in MARKS:
        at = [found[mark - 1] for found in regrets.values()]
        at = [value for value in at if math.isfinite(value)]
        error = statistics.stdev(at) / math.sqrt(len(at)) if len(at) > 1 else 0.0
        cells.append(f"{statistics.mean(at):.1f} +- {error:.1f}" if at else "-")
    cells += [_ratio(own, runs.get(other, {}), best, cap) for other in ("plain-tpe", "botorch")]
    picked = [1000 * (r.picked - best[s]) for s, r in own.items() if r.picked is not None]
    cells.append(f"{statistics.mean(picked):.1f}" if picked else "")
    late = [[abs(size / cap - 1) <= 0.03 for size in run.sizes[32:64]] for run in own.values()]
    cells.append(f"{statistics.mean(statistics.mean(each) for each in late):.0%}")
    over = [statistics.mean(size > cap for size in run.sizes[:64]) for run in own.values()]
    cells.append(f"{statistics.mean(over):.1%}")
    shares = []
    for seed, run in own.items():
        if method != TARGET and seed in runs.get(TARGET, {}):
            other = runs[TARGET][seed]
            target = other.regrets(best[seed], cap)[-1]
            shares.append(run.reaches(target, best[seed], cap) / sum(other.minutes))
    if shares:
        middle = statistics.median(shares)
        cells.append(f"{middle:.2f}" if math.isfinite(middle) else "not by 64")
        cells.append(f"{statistics.mean(share <= 0.2 for share in shares):.0%}")
    else:
        cells += ["", ""]
    cells.append(f"{statistics.mean(run.cpu_seconds for run in own.values()):.1f}")
    return f"| {' | '.join(cells)} |"


def _ratio(own: dict[int, Run], others: dict[int, Run], best: dict[int, float], cap: float) -> str:
    """Mean regret at 64 over another's, in the repetitions that both have; its 90 % interval."""
    seeds = sorted(own.keys() & others.keys())
    if own is others or len(seeds) < 2:
        return ""
    pairs = np.array([[run[s].regrets(best[s], cap)[63] for run in (own, others)] for s in seeds])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    drawn = np.random.default_rng(0).integers(len(pairs), size=(DRAWS, len(pairs)))
    means = pairs[drawn].mean(axis=1)
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.05, 0.95])
    mean = pairs.mean(axis=0)
    return f"{mean[0] / mean[1]:.2f} ({low:.2f} to {high:.2f}; {len(pairs)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--surface", nargs="+", default=["smooth", "table"], choices=list(SWEEPS))
    parser.add_argument("--methods", nargs="+", default=[*OURS, *RIVALS], choices=[*OURS, *RIVALS])
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 20), metavar=("FROM", "TO"))
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=math.inf, help="of the processor")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    if not options.report:
        measure(options)
    report(load(options.rows), range(*options.seeds))


if __name__ == "__main__":
    main()
