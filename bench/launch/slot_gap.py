"""How long a slot stands empty between two trials, the study on disk and the sampler included.

    python bench/launch/slot_gap.py [--trials 200] [--slots 2] [--seconds 0] [--method tpe]

A real local Ray, a real journal file, a script that does nothing but print a score. The gap is
from the end of a script to the start of the next one on a freed slot. Shared machines are noisy:
compare figures of one run, or of runs side by side.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pgolf_sweep.clock import SystemClock
from pgolf_sweep.driver import Driver, Options
from pgolf_sweep.launch.base import Ended, Started
from pgolf_sweep.launch.ray import RayLauncher
from pgolf_sweep.search.study import open_study
from pgolf_sweep.session import open_session
from pgolf_sweep.track.null import NullStudyTracker
from pgolf_sweep.trialdir import StudyPaths

SCRIPT = """
import os, time
time.sleep(float(os.environ.get("SLEEP_SECONDS", 0)))
score = 2.0 + float(os.environ.get("MATRIX_LR", 0.02))
print(f"final_int8_zlib_roundtrip_exact val_loss:{2 * score:.8f} val_bpb:{score:.8f}")
"""

SWEEP = """
program: train_gpt.py
method: {method}
metric: {{name: val_bpb, goal: minimize}}
run_cap: {trials}
parameters:
  MATRIX_LR: {{min: 0.001, max: 0.1}}
  SLEEP_SECONDS: {{value: {seconds}}}
pgolf: {{rules: demo, resources: {{gpus: 0}}}}
"""


class Listener:
    """A launcher that notes when scripts start and end."""

    def __init__(self, launcher: Any) -> None:
        self._launcher = launcher
        self.started: list[float] = []
        self.ended: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launcher, name)

    def poll(self, timeout_seconds: float) -> list[Any]:
        events = self._launcher.poll(timeout_seconds)
        self.started += [event.at for event in events if isinstance(event, Started)]
        self.ended += [event.end.ended_at for event in events if isinstance(event, Ended)]
        return events


class Silent:
    """An observer that shows nothing."""

    def turn(self, snapshot: Any) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def gaps_ms(started: list[float], ended: list[float], slots: int) -> list[float]:
    """Milliseconds from each end to the start that used the freed slot, oldest free slot first."""
    later = sorted(started)[slots:]
    return [1000 * (start - end) for end, start in zip(sorted(ended), later, strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--method", default="tpe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train_gpt.py").write_text(SCRIPT)
        text = SWEEP.format(method=options.method, trials=options.trials, seconds=options.seconds)
        (folder / "gap.yaml").write_text(text)
        session = open_session(folder / "gap.yaml", data_root=folder)
        paths = StudyPaths(folder / "runs" / "gap")
        launcher = RayLauncher(None, session.resources, options.slots)
        with closing(launcher):
            listener = Listener(launcher)
            began = time.monotonic()
            driver = Driver(
                session=session,
                study=open_study(session.spec, paths, write=True),
                launcher=listener,
                tracker=NullStudyTracker(),
                paths=paths,
                clock=SystemClock(),
                observer=Silent(),
                options=Options(run_cap=options.trials),
            )
            final = driver.run()
            seconds = time.monotonic() - began
    gaps = sorted(gaps_ms(listener.started, listener.ended, options.slots))
    centiles = statistics.quantiles(gaps, n=20)
    print(f"{final.counts['completed']} trials in {seconds:.1f} s")
    print(
        f"gap between two trials of a slot: p50 {statistics.median(gaps):.1f} ms, "
        f"p95 {centiles[-1]:.1f} ms, max {gaps[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
