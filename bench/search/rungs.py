"""Sweeps with rungs against sweeps without, at the same slot-time: smooth surface, simulated clock.

    python bench/search/rungs.py [--kinds none faithful poor] [--seeds 12] [--hours 4]

A trial on the cheaper rung takes an eighth of a slot for as long as a whole one takes it: one GPU
of eight, an eighth of the steps. `faithful`: its score is the whole one's and .06, with noise .001.
`poor`: steps count as they do in so short a training, the best rates, decay, momentum and warmdown
are others, and each configuration is off by .004 of its own. Regret is of the luckiest
trial on the sweep's own rung that fits, in thousandths of bits per byte, without noise, above the
best that fits. Results are added to `--out`: a long run is cut into pieces by `--first`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import random
import statistics
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import optuna
from compare import HERE, open_sweep, optimum
from smooth import Smooth

from pgolf_sweep.config.fidelity import Fidelity, Rung
from pgolf_sweep.core.record import State
from pgolf_sweep.report.rungs import kendall
from pgolf_sweep.workflows.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.driver.session import Session

SHARE = 0.125
SHORT = Rung(share=SHARE, gpu_share=1 / 8)
SHORT_NOISE = 0.001
EXPORT_MINUTES = 1.25
"""For which a trial holds its slot that goes on from an earlier training: a dozen for one."""
KINDS = ("none", "reuse", "faithful", "poor", "reuse-faithful", "reuse-poor")
OWN = 0.004
"""Standard deviation of what a poor rung says wrong of a configuration alone."""


class Short(Smooth):
    """The surface with a cheaper rung.

    Args:
        poor: Whether the rung misleads.
        shared: Whether what follows a training may be run alone.
        given: Of `Smooth`.
    """

    def __init__(
        self, session: Session, seed: int, *, poor: bool, shared: bool = False, **given: Any
    ) -> None:
        super().__init__(session, seed, **given)
        self._shared = shared
        self._poor = poor
        self._seed = seed
        self._other = Smooth(session, seed, **given)
        self._other.best_rate *= 1.4
        self._other.best_embed *= 1.2
        self._other.best_decay *= 0.6
        self._other.best_momentum -= 0.01
        self._other.best_warmdown -= 0.15

    def short(self, knobs: Mapping[str, Any]) -> float:
        """Score on the cheaper rung, without noise."""
        if not self._poor:
            return self.score(knobs) + 0.06
        width, depth, mlp = (float(knobs[n]) for n in ("MODEL_DIM", "NUM_LAYERS", "MLP_MULT"))
        params = depth * width * width * (3 + 2 * mlp) + 1024 * width
        steps = 600_000 / (20 + 60 * (params / 3e7) ** 0.9) / 9000
        fewer = 0.035 * ((3 * steps * SHARE) ** -0.8 - steps**-0.8)
        own = random.Random(f"{self._seed} {sorted(knobs.items(), key=str)}").gauss(0, OWN)
        return self._other.score(knobs) + fewer + own

    def __call__(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """What `pgolf_sweep.simulate` asks of a run."""
        answer = super().__call__({n: v for n, v in knobs.items() if n != "rung"})
        if "rung" not in knobs:
            return answer | ({"export_minutes": EXPORT_MINUTES} if self._shared else {})
        own = {n: v for n, v in knobs.items() if n != "rung"}
        score = self.short(own) + self._rng.gauss(0, SHORT_NOISE)
        return answer | {"val_bpb": score, "curve": ()}


def session_of(kind: str, hours: float, keep: float) -> Session:
    session = open_sweep(HERE / "smooth.yaml", "bayes", 10_000)
    block = session.spec.pgolf
    budget = block.budget.model_copy(
        update={"gpu_hours": hours * session.resources.gpus, "reserve": False}
    )
    rungs = None if kind in {"none", "reuse"} else Fidelity(rungs=(SHORT,), keep=keep)
    block = dataclasses.replace(block, budget=budget, fidelity=rungs, second_seeds=0)
    return dataclasses.replace(session, spec=dataclasses.replace(session.spec, pgolf=block))


@functools.cache
def best_of(seed: int) -> float:
    truth = open_sweep(HERE / "smooth.yaml", "random", 64)
    return optimum(Smooth(truth, seed), truth)


def repetition(kind: str, seed: int, hours: float, keep: float) -> dict[str, Any]:
    """One sweep; with how the rungs agree over all that was tried on the cheaper one."""
    session = session_of(kind, hours, keep)
    truth = open_sweep(HERE / "smooth.yaml", "random", 64)
    surface = Short(truth, seed, poor="poor" in kind, shared="reuse" in kind)
    best = best_of(seed)
    began = time.process_time()
    study = simulate(session, surface, seed=seed)
    cpu = time.process_time() - began
    done = [r for r in study.records if r.outcome is State.COMPLETED and r.duplicate_of is None]
    fits = [r for r in done if (r.headroom_bytes or 0) >= 0]
    winner = min(fits, key=lambda r: r.val_bpb or math.inf)
    screened = [r for r in study.records if r.outcome is State.SCREENED]
    pairs = [(r.val_bpb or 0.0, surface.score(r.knobs)) for r in screened]
    return {
        "kind": kind,
        "seed": seed,
        "hours": hours,
        "keep": keep,
        "regret": 1000 * (surface.score(winner.knobs) - best),
        "whole": len(done),
        "screened": len(screened),
        "tau": kendall(pairs) if len(pairs) > 2 else None,
        "spent": sum(r.slot_seconds for r in study.records) / 3600,
        "reason": study.reason,
        "cpu": cpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.25])
    parser.add_argument("--out", type=Path, help="JSON lines")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    found = defaultdict(list)
    for seed in range(options.first, options.first + options.seeds):
        for kind in options.kinds:
            for keep in options.keep[: 1 if kind in {"none", "reuse"} else None]:
                row = repetition(kind, seed, options.hours, keep)
                found[kind, keep].append(row)
                if options.out is not None:
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    for (kind, keep), rows in found.items():
        regrets = [row["regret"] for row in rows]
        error = statistics.stdev(regrets) / math.sqrt(len(regrets)) if len(regrets) > 1 else 0.0
        taus = [row["tau"] for row in rows if row["tau"] is not None]
        print(
            f"{kind:14} keep {keep:.2f} regret {statistics.mean(regrets):5.1f} +- {error:.1f}  "
            f"whole {statistics.mean(row['whole'] for row in rows):.1f}  screened "
            f"{statistics.mean(row['screened'] for row in rows):.1f}  tau "
            f"{statistics.mean(taus) if taus else math.nan:.2f}  slot-hours "
            f"{statistics.mean(row['spent'] for row in rows):.2f}  cpu "
            f"{statistics.mean(row['cpu'] for row in rows):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
