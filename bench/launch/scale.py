"""What the driver costs by number of trials: processor seconds, memory, milliseconds of an ask.

    python bench/launch/scale.py [--slots 64] [--gpus 8] [--trials 10000] [--early hyperband]

The real driver, gate and study (a journal file) on simulated slots, whose time jumps: what is
measured is the driver alone. Our trainer's sweep of eight knobs; a trial reports nine validations.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rig import Silent

from pgolf_sweep.driver import Driver, Options
from pgolf_sweep.launch.base import Ended
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.search.sampler import lot
from pgolf_sweep.search.study import open_study
from pgolf_sweep.session import open_session
from pgolf_sweep.track.null import NullStudyTracker
from pgolf_sweep.trial import LogSummary, StepReport
from pgolf_sweep.trialdir import StudyPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
MARKS = (500, 1000, 2000, 5000, 10000)


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
    """Calls back at every so many ends."""

    at_mark: Callable[[int], None]
    ended = 0

    def poll(self, timeout_seconds: float) -> list[Any]:
        events = super().poll(timeout_seconds)
        for event in events:
            if isinstance(event, Ended):
                self.ended += 1
                if self.ended in MARKS:
                    self.at_mark(self.ended)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--trials", type=int, default=10000)
    parser.add_argument("--early", choices=["hyperband", "median"])
    options = parser.parse_args()
    early = f"early_terminate: {{type: {options.early}, min_iter: 3}}" if options.early else ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = folder / "scale.yaml"
        sweep.write_text(SWEEP.format(early=early, gpus=options.gpus))
        session = open_session(sweep, data_root=folder, need_data=False)
        paths = StudyPaths(folder / "runs" / "scale")
        study = open_study(session.spec, paths, write=True)
        clock = SimulatedClock()
        launcher = Counted(options.slots, train, clock, slots_per_node=8 // options.gpus)
        meter = Meter()
        for method in ("ask", "note", "report", "tell"):
            meter.put_on(study, method)
        meter.put_on(session.gate, "verdict")
        meter.put_on(session.gate, "learn")
        meter.put_on(launcher, "slots")
        before: dict[str, float] = {}
        last = {"ended": 0}

        def at_mark(ended: int) -> None:
            now = dict(meter.seconds) | {"all": time.process_time()}
            asks = meter.calls["ask"] - before.get("asks", 0)
            spent = {key: value - before.get(key, 0.0) for key, value in now.items()}
            per = 1000 / (ended - last["ended"])
            cells = " ".join(f"{key} {value * per:.1f}" for key, value in sorted(spent.items()))
            print(
                f"{ended} trials: {psutil.Process().memory_info().rss / 1e6:.0f} MB, "
                f"journal {paths.journal.stat().st_size / 1e6:.0f} MB, "
                f"ask {1000 * spent['ask'] / asks:.1f} ms; "
                f"processor seconds by thousand trials since the line before: {cells}",
                flush=True,
            )
            before.update(now, asks=meter.calls["ask"])
            last["ended"] = ended

        before["all"] = time.process_time()
        launcher.at_mark = at_mark
        driver = Driver(
            session=session,
            study=study,
            launcher=launcher,
            tracker=NullStudyTracker(),
            paths=paths,
            clock=clock,
            observer=Silent(),
            options=Options(run_cap=options.trials),
        )
        began = time.monotonic()
        final = driver.run()
        print(dict(final.counts), f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
