"""Idle time of a slot between two trials, the study on disk and the sampler included.

    python bench/launch/slot_gap.py [--trials 200] [--slots 2] [--seconds 0] [--method tpe]

A real local Ray, a real journal file, a script that does nothing but print a score. The gap is
from the end of a script to the start of the next one on a freed slot. Shared machines are noisy:
compare figures of one run, or of runs side by side.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rig import Listener, gaps_ms, make_driver, make_session

from pgolf_sweep.launch.ray.launcher import RayLauncher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--method", default="tpe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = make_session(folder, method=options.method, seconds=options.seconds)
        launcher = RayLauncher(None, session.resources, options.slots)
        with closing(launcher):
            listener = Listener(launcher)
            began = time.monotonic()
            final = make_driver(session, folder, listener, run_cap=options.trials).run()
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
