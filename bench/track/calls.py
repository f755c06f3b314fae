"""How often W&B is asked by trials that run at the same time.

    PYTHONPATH=tests:. python bench/track/calls.py [--trials 64] [--seconds 120] [--every 0.5]

The trackers of `--trials` trials report to a stand-in server on loopback that counts calls: a line
every `--every` seconds each, a validation every tenth, and the study's summary run beside them.
All start at once and all end at once, which is the worst of a sweep. A trial's worker has a service
process of its own in a sweep; here all share one, which changes nothing about the calls of a run.

The limits are those that W&B documents for its dedicated cloud; of its shared cloud it says that
there are some for each project, and no numbers.
https://docs.wandb.ai/platform/hosting/hosting-options/dedicated-cloud/rate-limits
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from support.wandb_server import Call, WandbServer

from pgolf_sweep.core.trial import EndCause, LogSummary, RunEnd, StepReport
from pgolf_sweep.track import make_run_tracker, make_study_tracker, shutdown
from pgolf_sweep.track.base import RunTracker, RunTracking

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_OPENING = 300.0
"""Seconds for all runs to open, on a machine that is busy otherwise."""

LIMITS = {
    "file_stream": 500.0,
    "file_stream of a run": 2.0,
    "UpsertBucket": 80.0,
    "MB of file_stream": 120.0,
}
"""In a second."""


def tracking(number: int, env: dict[str, str]) -> RunTracking:
    return RunTracking(
        mode="online",
        project="p",
        entity="e",
        group="night",
        run_id=f"night-{number}",
        name=f"night-{number}",
        config={"MODEL_DIM": 512},
        cap_bytes=16_000_000,
        env=env,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=0.5)
    given = parser.parse_args()
    with WandbServer() as server, tempfile.TemporaryDirectory() as folder:
        env = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url}
        os.environ |= env
        root = Path(folder)
        began = time.monotonic()
        trials = [make_run_tracker(tracking(n, env), root / str(n)) for n in range(given.trials)]
        study = make_study_tracker("online", "p", "e", "night", root, {})
        wait_for(lambda: opened(server) > given.trials)
        report("start", server, began, time.monotonic())

        began = time.monotonic()
        step = 0
        while time.monotonic() - began < given.seconds:
            step += 1
            for trial in trials:
                trial.report(StepReport(step=step, train_loss_nats=3.0, step_avg_ms=50.0))
                if step % 10 == 0:
                    trial.report(StepReport(step=step, val_bpb=1.3, val_loss_nats=2.2))
            study.progress({"completed": float(step)})
            time.sleep(given.every)
        report("run", server, began, time.monotonic())

        ended = time.monotonic()
        with ThreadPoolExecutor(given.trials) as workers:
            list(workers.map(finish, trials))
        study.finish({"state": "finished"})
        report("end", server, ended, time.monotonic())
        shutdown()


def finish(trial: RunTracker) -> None:
    summary = LogSummary(val_bpb=1.2, val_loss_nats=2.0, total_bytes=15_000_000)
    trial.finish(
        RunEnd(
            cause=EndCause.EXITED, exit_code=0, detail="", summary=summary, node="n",
            started_at=0.0, ended_at=1.0,
        )
    )  # fmt: skip


def opened(server: WandbServer) -> int:
    """Runs that the server has opened."""
    return len({v["name"] for name, v in list(server.asked) if name == "UpsertBucket"})


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_OPENING
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"not all runs were open after {LONGEST_OPENING:g} s")
        time.sleep(0.2)


def report(phase: str, server: WandbServer, begin: float, end: float) -> None:
    calls = [call for call in list(server.calls) if begin <= call.at < end]
    print(f"{phase}, {end - begin:.0f} s: {len(calls)} calls", flush=True)
    for kind, count in Counter(call.what for call in calls).most_common():
        print(f"  {kind}: {count}, {count / (end - begin):.2f}/s, at most {peak(calls, kind)}/s")
    streams = [call for call in calls if call.what == "file_stream"]
    by_second = Counter[int]()
    for call in streams:
        by_second[int(call.at)] += call.size
    found = {
        "file_stream": peak(calls, "file_stream"),
        "file_stream of a run": max(
            Counter((c.run, int(c.at)) for c in streams).values(), default=0
        ),
        "UpsertBucket": peak(calls, "UpsertBucket"),
        "MB of file_stream": max(by_second.values(), default=0) / 1e6,
    }
    for name, limit in LIMITS.items():
        print(f"  limit {limit:g}/s of {name}: at most {found[name]:.3g}/s")


def peak(calls: list[Call], kind: str) -> int:
    """Calls of a kind in the busiest second."""
    return max(Counter(int(c.at) for c in calls if c.what == kind).values(), default=0)


if __name__ == "__main__":
    main()
