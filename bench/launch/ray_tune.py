"""The same trials under Ray Tune and under us: trials a second, and what slots lose.

    python -m pip install --constraint constraints.txt 'ray[tune]'
    python bench/launch/ray_tune.py [--slots 8] [--trials 64] [--work noop sleep torch]

One machine, one run, one after the other, as many slots: our driver with its launcher, TPE and the
study in a journal file; Ray Tune with `OptunaSearch` and `reuse_actors=True`; Ray Tune as its
documentation has it, an actor a trial. Its study is in memory in both cases.

The work of a trial: nothing, two seconds of sleep, or `import torch`. Ours is a process of its own,
as every trial of ours is, and its start counts as work; Ray Tune's is a function within an actor.

The gap of a slot is from the end of a trial's work to the begin of the next one on the freed slot.
Lost is slots times the time from the first begin to the last end, less the work. What cannot fit,
Ray Tune has to start: such a trial costs what a no-op does. Our gate discards it before a slot.

Read the ratios of one run: the seconds are the machine's.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

if importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec("tensorboardX") is None:
    sys.exit(
        "Ray Tune's parts are missing: "
        "python -m pip install --constraint constraints.txt 'ray[tune]'"
    )

import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from rig import Listener, gaps_ms, make_driver, make_session

from pgolf_sweep.launch.ray.launcher import RayLauncher

WORK = {"noop": (0.0, False), "sleep": (2.0, False), "torch": (0.0, True)}


@dataclass
class Result:
    """One engine's trials."""

    name: str
    slots: int
    whole_seconds: float
    begun: list[float]
    ended: list[float]

    def line(self) -> str:
        gaps = sorted(gaps_ms(self.begun, self.ended, self.slots))
        span = max(self.ended) - min(self.begun)
        work = sum(self.ended) - sum(self.begun)
        lost = self.slots * span - work
        p95 = statistics.quantiles(gaps, n=20)[-1]
        return (
            f"{self.name:28} {len(self.ended) / self.whole_seconds:7.2f} trials/s  "
            f"gap p50 {statistics.median(gaps):8.1f} p95 {p95:8.1f} ms  "
            f"lost {lost / len(self.ended):8.3f} s a trial, "
            f"{100 * lost / (self.slots * span):5.1f} %"
        )


def under_tune(work: str, trials: int, slots: int, folder: Path, *, reuse: bool) -> Result:
    """Ray Tune's trials; each leaves a file with its begin and end."""
    seconds, torch = WORK[work]
    times = folder / f"times-{work}-{reuse}"
    times.mkdir()

    def trial(config: dict[str, float]) -> None:
        begun = time.time()
        if torch:
            import torch as _  # noqa: F401
        time.sleep(seconds)
        name = tune.get_context().get_trial_id()
        (times / name).write_text(f"{begun} {time.time()}")
        tune.report({"val_bpb": 2.0 + config["MATRIX_LR"]})

    searcher = OptunaSearch(metric="val_bpb", mode="min")
    began = time.time()
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"MATRIX_LR": tune.uniform(0.001, 0.1)},
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=slots),
            num_samples=trials,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    tuner.fit()
    whole = time.time() - began
    spans = [tuple(map(float, path.read_text().split())) for path in times.iterdir()]
    assert len(spans) == trials, f"{len(spans)} of {trials} trials ended"
    name = "Ray Tune, reuse_actors" if reuse else "Ray Tune as documented"
    begun, ended = zip(*spans, strict=True)
    return Result(name, slots, whole, list(begun), list(ended))


def under_us(work: str, trials: int, slots: int, folder: Path) -> Result:
    """Our trials, on the Ray that is up."""
    seconds, torch = WORK[work]
    own = folder / f"ours-{work}"
    own.mkdir()
    session = make_session(own, seconds=seconds, torch=torch)
    launcher = RayLauncher(None, session.resources, slots)
    with closing(launcher):
        listener = Listener(launcher)
        began = time.time()
        make_driver(session, own, listener, run_cap=trials).run()
        whole = time.time() - began
    return Result("ours, study in a journal", slots, whole, listener.started, listener.ended)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--work", nargs="+", choices=sorted(WORK), default=list(WORK))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ray.init(
            address="local",
            num_cpus=options.slots,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=200_000_000,
            _node_ip_address="127.0.0.2",
        )
        try:
            for work in options.work:
                print(f"{work}: {options.trials} trials on {options.slots} slots", flush=True)
                arguments = (work, options.trials, options.slots, folder)
                print(" ", under_us(*arguments).line(), flush=True)
                print(" ", under_tune(*arguments, reuse=True).line(), flush=True)
                print(" ", under_tune(*arguments, reuse=False).line(), flush=True)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
