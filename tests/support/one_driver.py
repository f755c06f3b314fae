"""A driver in a process of its own: simulated slots in real time, a real storage.

    python one_driver.py STORAGE FOLDER RUN_CAP TRIAL_SECONDS LEASE_SECONDS

Says that it is ready and waits for a line; then says what it starts and what it hears, a line each;
the last line is its state.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

from support.sweeps import build_bench, train

from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.driver.sharing.leases import DriverLease, new_driver
from pgolf_sweep.launch.inline import SimulatedClock
from pgolf_sweep.search.study import open_study


class RealClock(SimulatedClock):
    """Simulated slots that take the time that they take."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


def main() -> None:
    storage, folder, run_cap, trial_seconds, lease_seconds = sys.argv[1:]
    # Every width fits, and there are few: the drivers propose what others run already.
    bench = build_bench(
        Path(folder), run_cap=int(run_cap), method="random", width="{values: [32, 64, 96, 128]}"
    )
    bench.clock = RealClock()
    bench.paths.root.mkdir(parents=True, exist_ok=True)

    def simulate(job):
        print("start", job.key, flush=True)
        return train(job, seconds=float(trial_seconds))

    with closing(open_study(bench.session.spec, bench.paths, storage=storage, write=True)) as study:
        lease = DriverLease(
            study, new_driver(bench.paths), bench.clock, lease_seconds=float(lease_seconds)
        )
        bench.watcher.event = lambda event: print("say", event_text(event), flush=True)
        driver = bench.driver(study=study, lease=lease, simulate=simulate, max_retries=9)
        print("ready", flush=True)
        sys.stdin.readline()
        print("state", driver.run().state.value, flush=True)


if __name__ == "__main__":
    main()
