"""Samplers against each other on one surface: paired repetitions, simulated clock, eight slots.

    python bench/search/compare.py [--methods bayes tpe ...] [--seeds 10] [--trials 64]
    python bench/search/compare.py --early halving

`bayes`, `tpe`, `cmaes`, `random`, `qmc` run through the product's own driver with its gate.
`plain-tpe`, `plain-gp` and `plain-random` are Optuna's without a gate (`rivals.py`). Regret is of
the luckiest trial that fits, in thousandths of bits per byte, without noise, above the best that
fits.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import optuna
from rivals import rival
from runs import Run, run_search
from smooth import Smooth

from pgolf_sweep.config.types import EarlyTerminate
from pgolf_sweep.core.record import State
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.workflows.simulate import simulate

if TYPE_CHECKING:
    from pgolf_sweep.driver.session import Session

HERE = Path(__file__).resolve().parent
MARKS = (24, 48, 64)


def open_sweep(path: Path, method: str, trials: int, early: str = "none") -> Session:
    session = open_session(path, data_root=Path("data"), need_data=False)
    rule: Any = None if early == "none" else EarlyTerminate(kind=early)  # type: ignore[arg-type]
    spec = dataclasses.replace(session.spec, method=method, run_cap=trials, early_terminate=rule)
    return dataclasses.replace(session, spec=spec)


def driven(session: Session, surface: Any, seed: int) -> Run:
    """A repetition through the product's driver."""
    began = time.process_time()
    study = simulate(session, surface, seed=seed)
    seconds = time.process_time() - began
    done = [r for r in study.records if r.outcome is State.COMPLETED and r.duplicate_of is None]
    done.sort(key=lambda r: r.ended_at or 0.0)
    stopped = [r for r in study.records if r.outcome is State.PRUNED]
    trained = [r for r in stopped + done if r.stage is None]
    whole = sum(60 * surface.minutes(r.knobs) for r in trained)
    cap = session.rules.artifact_cap_bytes
    kept = min(surface.score(r.knobs) for r in done if (r.artifact_bytes or 0) <= cap)
    lost = [surface.score(r.knobs) for r in stopped if surface.size(r.knobs) <= cap]
    cost = max(0.0, 1000 * (kept - min(lost, default=kept)))
    picked = study.winner
    return Run(
        picked=None if picked is None else surface.score(picked.knobs),
        saved=1 - sum(r.slot_seconds for r in trained) / whole,
        stopped_best=cost > 0,
        stopping_cost=cost,
        scores=[surface.score(r.knobs) for r in done],
        seen=[r.val_bpb or math.inf for r in done],
        sizes=[float(r.artifact_bytes or 0) for r in done],
        minutes=[r.slot_seconds / 60 for r in done],
        cpu_seconds=seconds,
        discards=sum(r.outcome is State.DISCARDED for r in study.records),
    )


def optimum(surface: Smooth, session: Session) -> float:
    """The best score that fits, by going through every shape with the best rates for it."""
    values = {
        name: list(parameter.domain.values())
        for name, parameter in session.spec.space.parameters.items()
        if parameter.domain.count() is not None
    }
    every = itertools.product(*values.values())
    shapes = (dict(zip(values, shape, strict=True)) for shape in every)
    found = [{**surface.tuned(shape), **shape} for shape in shapes]  # constants stay
    found.sort(key=surface.score)
    cap = session.rules.artifact_cap_bytes
    return surface.score(next(k for k in found if surface.size(session.resolve(k)) <= cap))


def line(name: str, runs: list[Run], optima: list[float], cap: float, trials: int) -> str:
    marks = [mark for mark in (*MARKS, trials) if mark <= trials]
    marks = sorted(set(marks))
    trials = min(len(run.scores) for run in runs)
    marks = [min(mark, trials) for mark in marks]
    cells = []
    for mark in marks:
        at = [r.regrets(o, cap)[mark - 1] for r, o in zip(runs, optima, strict=True)]
        error = statistics.stdev(at) / math.sqrt(len(at)) if len(at) > 1 else 0.0
        cells.append(f"{mark}: {statistics.mean(at):5.1f} +- {error:3.1f}")
    late = [[abs(s / cap - 1) <= 0.03 for s in r.sizes[32:64]] for r in runs]
    near = statistics.mean([statistics.mean(each) for each in late if each] or [math.nan])
    over = statistics.mean(statistics.mean(s > cap for s in r.sizes) for r in runs)
    cpu = statistics.mean(r.cpu_seconds for r in runs)
    if any(run.saved for run in runs):
        saved = statistics.mean(run.saved for run in runs)
        best = statistics.mean(run.stopped_best for run in runs)
        cost = statistics.mean(run.stopping_cost for run in runs)
        cells.append(f"saved {saved:.0%}, best stopped in {best:.0%}, at a cost of {cost:.2f}")
    return (
        f"{name:13} regret {'  '.join(cells)}   near cap (33-64) {near:4.0%}  over the cap "
        f"{over:5.1%}  discards {statistics.mean(r.discards for r in runs):4.0f}  cpu {cpu:5.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["bayes", "tpe", "cmaes", "random"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument(
        "--early", default="none", choices=["none", "forecast", "halving", "median"]
    )
    parser.add_argument("--bias", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.004)
    parser.add_argument("--off-centre", action="store_true", help="optima near the ranges' ends")
    parser.add_argument("--sweep", type=Path, default=HERE / "smooth.yaml")
    parser.add_argument("--out", type=Path, help="where the runs are kept, as JSON")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    truth = open_sweep(options.sweep, "random", options.trials)
    seeds = range(options.first, options.first + options.seeds)
    given: dict[str, Any] = {"bias": options.bias, "noise": options.noise}
    given["off_centre"] = options.off_centre
    optima = [optimum(Smooth(truth, seed, **given), truth) for seed in seeds]
    cap = truth.rules.artifact_cap_bytes
    kept: dict[str, Any] = {}
    for method in options.methods:
        runs = []
        for seed in seeds:
            surface = Smooth(truth, seed, **given)
            if method.startswith("plain-"):
                search = rival(method, truth, surface, seed)
                runs.append(run_search(search, surface, options.trials))
            else:
                session = open_sweep(options.sweep, method, options.trials, options.early)
                runs.append(driven(session, surface, seed))
        print(line(method, runs, optima, cap, options.trials), flush=True)
        kept[method] = [dataclasses.asdict(run) for run in runs]
    if options.out is not None:
        options.out.write_text(json.dumps({"optima": optima, "cap": cap, "runs": kept}))


if __name__ == "__main__":
    main()
