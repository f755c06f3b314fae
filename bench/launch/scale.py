"""Cost of the driver by number of trials: processor seconds, memory, milliseconds of an ask.

    python bench/launch/scale.py [--slots 64] [--gpus 8] [--trials 300] [--early hyperband]
        [--already 0 1000 2000 5000 10000]

The real driver, gate and study (a journal file) on simulated slots, whose time jumps: what is
measured is the driver alone. Our trainer's sweep of eight knobs; a trial reports nine validations.
For each line a process of its own resumes a study that holds that many finished trials already and
runs some more: what these cost is shown by thousand trials, and the memory at their end.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "search"))

from ask import fill
from rig import Silent

from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.trial import LogSummary, StepReport
from pgolf_sweep.driver.control import Request
from pgolf_sweep.driver.driver import Driver, Options
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.launch.base import Ended
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.search.sampler import lot
from pgolf_sweep.search.study import open_study
from pgolf_sweep.track.null import NullStudyTracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.launch.base import Job

SWEEP = """
program: trainer
method: tpe
metric: {{name: val_bpb, goal: minimize}}
parameters:
  MATRIX_LR: {{distribution: log_uniform_values, min: 0.015, max: 0.08}}
  MODEL_DIM: {{distribution: q_uniform, min: 384, max: 640, q: 64}}
  NUM_LAYERS: {{distribution: int_uniform, min: 7, max: 13}}
  LR_SCHEDULE: {{values: [linear, cosine, wsd]}}
  MIN_LR_FRAC: {{min: 0.0, max: 0.2, when: {{LR_SCHEDULE: cosine}}}}
  WARMDOWN_FRAC: {{min: 0.1, max: 0.9}}
  WEIGHT_DECAY: {{min: 0.0, max: 0.2}}
  MATRIX_BITS: {{values: [4, 5, 6, 8]}}
{early}
pgolf: {{rules: parameter-golf-2026, resources: {{gpus: {gpus}}}}}
"""
REPORTS = 9
WARM_UP = 64
"""Trials that end before the measurement begins."""


def train(job: Job) -> Iterator[tuple[float, Any]]:
    """About ten minutes, nine validations, a score of the knobs, an artifact of 15 MB."""
    knobs = job.spec.knobs
    score = 1.2 + 0.05 * math.log(float(knobs["MATRIX_LR"]) / 0.03) ** 2
    score += 0.2 * (float(knobs["WEIGHT_DECAY"]) - 0.09) ** 2 - 1e-4 * int(knobs["MODEL_DIM"])
    seconds = 540 + 120 * lot(job.spec.number)
    for turn in range(1, REPORTS + 1):
        report = StepReport(step=1000 * turn, total_steps=9000, val_bpb=score + 0.3 / turn)
        yield seconds / REPORTS, report
    summary = LogSummary(val_bpb=score, model_bytes=15_000_000, code_bytes=50_000, steps=9000)
    yield 0.0, Finish(summary=summary, model_file_bytes=15_000_000)


class Counted(InlineLauncher):
    """Counts the ends."""

    ended = 0

    def poll(self, timeout_seconds: float) -> list[Any]:
        events = super().poll(timeout_seconds)
        self.ended += sum(isinstance(event, Ended) for event in events)
        return events


class Meter:
    """Processor seconds of each of an object's methods that it is put on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def put_on(self, target: Any, name: str) -> None:
        method = getattr(target, name)

        def metered(*arguments: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return method(*arguments, **more)
            finally:
                self.seconds[name] += time.process_time() - began
                self.calls[name] += 1

        setattr(target, name, metered)


def measure(already: int, options: argparse.Namespace) -> str:
    """The line of a study that begins with that many finished trials."""
    early = f"early_terminate: {{type: {options.early}, min_iter: 3}}" if options.early else ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = folder / "scale.yaml"
        sweep.write_text(SWEEP.format(early=early, gpus=options.gpus))
        session = open_session(sweep, data_root=folder, need_data=False)
        paths = StudyPaths(folder / "runs" / "scale")
        fill(open_study(session.spec, paths, write=True), already, random.Random(0))
        began = time.process_time()
        study = open_study(session.spec, paths, write=True)
        opened = time.process_time() - began
        clock = SimulatedClock()
        launcher = Counted(options.slots, train, clock, slots_per_node=8 // options.gpus)
        meter = Meter()
        for target, names in {
            study: ("ask", "note", "report", "tell"),
            session.gate: ("verdict", "learn"),
            launcher: ("slots", "start", "poll"),
        }.items():
            for method in names:
                meter.put_on(target, method)
        marks: list[dict[str, float]] = []

        def request() -> Request:
            enough = WARM_UP + options.trials * len(marks)
            if len(marks) < 2 and launcher.ended >= enough:
                more = {"all": time.process_time(), "trials": launcher.ended}
                marks.append(meter.seconds | more | {"asks": meter.calls["ask"]})
            return Request.DRAIN if len(marks) == 2 else Request.CONTINUE

        driver = Driver(
            session=session,
            study=study,
            launcher=launcher,
            tracker=NullStudyTracker(),
            paths=paths,
            clock=clock,
            observer=Silent(),
            options=Options(run_cap=None, request=request),
        )
        driver.run()
    first, last = marks
    spent = {key: last[key] - first.get(key, 0.0) for key in last}
    thousands, asks = spent.pop("trials") / 1000, spent.pop("asks")
    cells = "  ".join(f"{key} {value / thousands:.1f}" for key, value in sorted(spent.items()))
    return (
        f"{already:6} trials already: {psutil.Process().memory_info().rss / 1e6:4.0f} MB, "
        f"opened in {opened:.1f} s, ask {1000 * spent['ask'] / asks:.1f} ms; "
        f"seconds by thousand trials: {cells}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--early", choices=["hyperband", "median"])
    parser.add_argument("--already", type=int, nargs="+", default=[0, 1000, 2000, 5000, 10000])
    options = parser.parse_args()
    print(f"{options.slots} slots of {options.gpus} GPUs; all times are the processor's")
    for already in options.already:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print(pool.submit(measure, already, options).result(), flush=True)


if __name__ == "__main__":
    main()
