"""Time of an ask, a tell and a report, by the number of trials that have finished.

    python bench/search/ask.py [--trials 100 1000 5000 10000] [--method tpe] [--early hyperband]

A real journal file. The finished trials are drawn at random and written to it in one go, each with
its row, one in five discarded by the gate, one in five pruned; then trials are asked, noted,
reported and told in the way of the driver. `--plain` takes the sampler and the pruner as Optuna
ships them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import optuna
from optuna.trial import TrialState, create_trial

from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.search.study import Study, open_study

if TYPE_CHECKING:
    from collections.abc import Callable

SWEEP = """
program: train_gpt.py
method: {method}
metric: {{name: val_bpb, goal: minimize}}
run_cap: 20000
parameters:
  MATRIX_LR: {{distribution: log_uniform_values, min: 0.015, max: 0.08}}
  MODEL_DIM: {{distribution: q_uniform, min: 384, max: 640, q: 64}}
  NUM_LAYERS: {{distribution: int_uniform, min: 7, max: 13}}
  LR_SCHEDULE: {{values: [linear, cosine, wsd]}}
  WARMDOWN_FRAC: {{min: 0.1, max: 0.9}}
  WEIGHT_DECAY: {{min: 0.0, max: 0.2}}
  MATRIX_BITS: {{values: [4, 5, 6, 8]}}
  {conditional}
{early}
"""
CONDITIONAL = "MIN_LR_FRAC: {min: 0.0, max: 0.2, when: {LR_SCHEDULE: cosine}}"
EARLY = "early_terminate: {{type: {kind}, min_iter: 3}}"
REPORTS = 9


def fill(
    study: Study,
    trials: int,
    rng: random.Random,
    dress: Callable[[TrialRecord], TrialRecord] = lambda row: row,
) -> None:
    """Add finished trials, drawn at random from the study's space; `dress` fills their rows."""
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=rng.randrange(2**31)))
    templates = []
    for _ in range(trials):
        trial = drawn.ask()
        knobs = study._space.suggest(trial)
        number = len(templates)
        outcome = (State.DISCARDED, State.PRUNED, *[State.COMPLETED] * 3)[number % 5]
        score = 1.2 + rng.random()
        row = dress(TrialRecord(number=number, outcome=outcome, knobs=knobs, val_bpb=score))
        excess = {"predicted_excess_bytes": 1000.0 * score}
        templates.append(
            create_trial(
                state=TrialState.COMPLETE if outcome is State.COMPLETED else TrialState.PRUNED,
                value=score if outcome is not State.DISCARDED else None,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={"record": row.to_json()},
                constraints=excess if outcome is State.DISCARDED else None,
                intermediate_values={}
                if outcome is State.DISCARDED
                else {
                    step: score + 0.3 / step
                    for step in range(1, 4 if outcome is State.PRUNED else REPORTS + 1)
                },
            )
        )
    study._study.add_trials(templates)


def make_plain(study: Study, options: argparse.Namespace) -> None:
    """Give a study the sampler and the pruner that Optuna ships."""
    samplers = {"gp": optuna.samplers.GPSampler, "tpe": optuna.samplers.TPESampler}
    group = {"group": options.conditional} if options.method == "tpe" else {}
    study._study.sampler = samplers[options.method](seed=1, n_startup_trials=8, **group)
    if options.early == "median":
        study._study.pruner = optuna.pruners.MedianPruner(5, n_warmup_steps=3)
    elif options.early == "hyperband":
        study._study.pruner = optuna.pruners.HyperbandPruner(3, "auto", 3)


def timed(work: Any, *arguments: Any) -> tuple[tuple[float, float], Any]:
    """Milliseconds of the clock and of the processor, and what the work gave."""
    began, cpu_began = time.perf_counter(), time.process_time()
    result = work(*arguments)
    cpu = time.process_time() - cpu_began
    return (1000 * (time.perf_counter() - began), 1000 * cpu), result


def measure(study: Study, asks: int, running: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of each call, clock and processor, with that many trials running beside."""
    live = [study.ask() for _ in range(running)]
    times: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("ask", "note", "report", "tell")
    }
    for turn in range(asks):
        milliseconds, proposal = timed(study.ask)
        times["ask"].append(milliseconds)
        live.append(proposal)
        oldest = live.pop(0)
        row = TrialRecord(number=oldest.number, outcome=State.RUNNING, knobs=oldest.knobs)
        times["note"].append(timed(study.note, row)[0])
        for ordinal in range(1, REPORTS + 1):
            times["report"].append(timed(study.report, oldest.number, ordinal, 1.5 + turn)[0])
        ended = TrialRecord(
            number=oldest.number, outcome=State.COMPLETED, knobs=oldest.knobs, val_bpb=1.5
        )
        times["tell"].append(timed(study.tell, ended)[0])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000, 10000])
    parser.add_argument("--asks", type=int, default=30)
    parser.add_argument("--running", type=int, default=64)
    parser.add_argument("--method", default="tpe")
    parser.add_argument("--conditional", action="store_true", help="one knob depends on another")
    parser.add_argument("--early", choices=["hyperband", "median"])
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    print("ms: median (95th) by the clock / median of the processor")
    print("finished trials:", *options.trials, "; running:", options.running)
    rows: dict[str, list[str]] = {}
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            early = EARLY.format(kind=options.early) if options.early else ""
            conditional = CONDITIONAL if options.conditional else ""
            sweep = folder / "ask.yaml"
            sweep.write_text(
                SWEEP.format(method=options.method, early=early, conditional=conditional)
            )
            spec = load_spec(sweep)
            study = open_study(spec, StudyPaths(folder / "runs" / "ask"), write=True)
            fill(study, trials, random.Random(trials))
            study = open_study(spec, StudyPaths(folder / "runs" / "ask"), write=True)
            if options.plain:
                make_plain(study, options)
            for call, times in measure(study, options.asks, options.running).items():
                clock, cpu = zip(*times, strict=True)
                p95 = statistics.quantiles(clock, n=20)[-1]
                rows.setdefault(call, []).append(
                    f"{statistics.median(clock):6.1f} ({p95:6.1f}) /{statistics.median(cpu):6.1f}"
                )
    for call, cells in rows.items():
        print(f"{call:7}", *cells)


if __name__ == "__main__":
    main()
