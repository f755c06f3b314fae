"""Seconds from a worker's order to a trial's first line after its imports: new interpreter, fork.

    python bench/launch/start.py [--trials 10]

Both kinds take turns in one worker: every second script imports torch where nobody reads it.
CPU seconds are those of the script's process, its imports included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.launch.node.run import BEGINNING, RunOrder
from pgolf_sweep.launch.node.worker import Worker

FORKED = b"""
import torch, numpy, time
print("up", time.time(), time.process_time(), flush=True)
time.sleep(3)
"""
FRESH = FORKED.replace(b"import torch,", b"__import__('torch'); import")


def start(worker: Worker, number: int, *, fork: bool) -> tuple[float, float]:
    """Wall and CPU seconds of one start."""
    spec = TrialSpec(
        study="start",
        number=number,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=60.0, silent_seconds=60.0),
        proposer="bench",
    )
    run = f"run-{number}"
    begun = time.time()
    worker.start(
        RunOrder(run=run, node="here", spec=spec, files={"train_gpt.py": FORKED if fork else FRESH})
    )
    cursor, log, end = BEGINNING, b"", None
    while end is None:
        progress = worker.poll(run, cursor, 0.5)
        cursor, log, end = progress.cursor, log + progress.log, progress.end
    _, up_at, cpu_seconds = log.split()
    return float(up_at) - begun, float(cpu_seconds)


def main() -> None:
    """Alternate the two kinds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder), exit_when_alone=True)
        start(worker, 0, fork=True)
        while not (worker._spare is not None and worker._spare.forked):
            time.sleep(0.1)
        forks, fresh = [], []
        for number in range(1, 2 * trials, 2):
            forks.append(start(worker, number, fork=True))
            fresh.append(start(worker, number + 1, fork=False))
        worker.close()
    for name, times in (("new interpreter", fresh), ("fork", forks)):
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:16} {1000 * wall:7.1f} ms   {1000 * cpu:7.1f} ms of CPU")


if __name__ == "__main__":
    main()
