"""Samplers against each other on one surface: paired repetitions, simulated clock, eight slots.

    python bench/search/compare.py [--methods bayes tpe ...] [--seeds 10] [--trials 64]
    python bench/search/compare.py --sweep bench/search/smooth4.yaml --against 200

`bayes`, `tpe`, `cmaes`, `random`, `qmc` run through the product's own driver with its gate.
`plain-tpe`, `plain-gp` and `plain-random` are Optuna's as people write them: no gate, every
configuration takes a slot, one over the cap is told with its constraint. Regret is of the luckiest
trial that fits, in thousandths of bits per byte, without noise, above the best that fits.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import itertools
import json
import math
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import optuna
from smooth import Smooth

from pgolf_sweep.config.types import EarlyTerminate
from pgolf_sweep.core.record import State
from pgolf_sweep.driver.session import Session, open_session
from pgolf_sweep.workflows.simulate import simulate

HERE = Path(__file__).resolve().parent
MARKS = (24, 48, 64)


@dataclasses.dataclass
class Run:
    """One repetition: trials that took a slot, in the order of their end."""

    scores: list[float]
    """Without noise."""
    seen: list[float]
    sizes: list[float]
    minutes: list[float]
    cpu_seconds: float
    discards: int = 0
    saved: float = 0.0
    """Share of the slot-seconds that early stopping saved."""
    stopped_best: bool = False
    """Whether the best of all was stopped."""
    stopping_cost: float = 0.0
    """How much better, in thousandths, the best stopped was than the best that finished."""

    def reaches(self, target: float, optimum: float, cap: float) -> float:
        """Slot-minutes until the regret is no more than the target; infinite where it stays."""
        spent = itertools.accumulate(self.minutes)
        found = zip(self.regrets(optimum, cap), spent, strict=True)
        return next((minutes for regret, minutes in found if regret <= target), math.inf)

    def regrets(self, optimum: float, cap: float) -> list[float]:
        """Regret after each trial, in thousandths."""
        found, best, regret = [], math.inf, math.inf
        for score, seen, size in zip(self.scores, self.seen, self.sizes, strict=True):
            if size <= cap and seen < best:
                best, regret = seen, 1000 * (score - optimum)
            found.append(regret)
        return found


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
    return Run(
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


class _Told:
    """A space asked the way people write it: lists are categorical."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def plain(kind: str, session: Session, surface: Any, seed: int, trials: int, slots: int = 8) -> Run:
    """Optuna without a gate, eight trials at a time."""
    samplers = {
        "plain-tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "plain-gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "plain-random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    began = time.process_time()
    study = optuna.create_study(sampler=samplers[kind]())
    space, cap = session.spec.space, session.rules.artifact_cap_bytes
    running: list[tuple[float, int, Any, dict[str, Any], dict[str, float]]] = []
    run = Run([], [], [], [], 0.0)
    asked, now = 0, 0.0
    while len(run.scores) < trials:
        while len(running) < slots and asked < trials:
            trial = study.ask()
            knobs = session.resolve(space.suggest(_Told(trial)))
            answer = surface(knobs)
            heapq.heappush(running, (now + answer["minutes"], asked, trial, knobs, answer))
            asked += 1
        now, _, trial, knobs, answer = heapq.heappop(running)
        trial.set_constraint("bytes", answer["artifact_bytes"] - cap)
        study.tell(trial, answer["val_bpb"])
        run.scores.append(surface.score(knobs))
        run.seen.append(answer["val_bpb"])
        run.sizes.append(answer["artifact_bytes"])
        run.minutes.append(answer["minutes"])
    run.cpu_seconds = time.process_time() - began
    return run


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


def raced(
    runs: list[Run], targets: list[tuple[float, float]], optima: list[float], cap: float
) -> str:
    """In which share of random's slot time its best was reached."""
    shares = sorted(
        run.reaches(regret, best, cap) / minutes
        for run, (regret, minutes), best in zip(runs, targets, optima, strict=True)
    )
    within = statistics.mean(share <= 0.2 for share in shares)
    most = shares[math.ceil(0.9 * len(shares)) - 1]
    return (
        f"random's best in {statistics.median(shares):.2f} of its slot time (median), "
        f"{most:.2f} in 90 % of repetitions; within 0.2 in {within:.0%}"
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
    parser.add_argument(
        "--against",
        type=int,
        help="share of the slot time in which random's so-many-trial best is reached",
    )
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
    targets: list[tuple[float, float]] = []
    """Regret of a long random search, and its slot-minutes."""
    if options.against is not None:
        for seed, best in zip(seeds, optima, strict=True):
            session = open_sweep(options.sweep, "random", options.against)
            run = driven(session, Smooth(truth, seed, **given), 10_000 + seed)
            targets.append((run.regrets(best, cap)[-1], sum(run.minutes)))
        mean = statistics.mean(regret for regret, _ in targets)
        print(f"random, {options.against} trials: regret {mean:.1f}", flush=True)
    for method in options.methods:
        runs = []
        for seed in seeds:
            surface = Smooth(truth, seed, **given)
            if method.startswith("plain-"):
                runs.append(plain(method, truth, surface, seed, options.trials))
            else:
                session = open_sweep(options.sweep, method, options.trials, options.early)
                runs.append(driven(session, surface, seed))
        print(line(method, runs, optima, cap, options.trials), flush=True)
        if targets:
            print(f"  {raced(runs, targets, optima, cap)}", flush=True)
        kept[method] = [dataclasses.asdict(run) for run in runs]
    if options.out is not None:
        options.out.write_text(json.dumps({"optima": optima, "cap": cap, "runs": kept}))


if __name__ == "__main__":
    main()
