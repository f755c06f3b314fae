"""How often W&B is asked by trials that run at the same time.

    PYTHONPATH=tests python bench/track/calls.py [--trials 64] [--seconds 120] [--every 0.5]

The trackers of `--trials` trials report to a stand-in server on loopback that counts calls: a line
every `--every` seconds each, a validation every tenth, and the study's summary run beside them.
W&B limits the calls of a project (filestream) and of a user (GraphQL); it names no numbers, and
answers 429 with the headers RateLimit-Remaining and RateLimit-Reset. A trial's worker has a service
process of its own in a sweep; here all share one, which changes nothing about the calls of a run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from support.wandb_server import WandbServer

from pgolf_sweep.core.trial import EndCause, LogSummary, RunEnd, StepReport
from pgolf_sweep.track import make_run_tracker, make_study_tracker, shutdown
from pgolf_sweep.track.base import RunTracking


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
        import os

        env = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url}
        os.environ |= env
        root = Path(folder)
        trials = [make_run_tracker(tracking(n, env), root / str(n)) for n in range(given.trials)]
        study = make_study_tracker("online", "p", "e", "night", root, {})
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
        report("while they run", server, began, time.monotonic(), given.trials)
        ended = time.monotonic()
        summary = LogSummary(val_bpb=1.2, val_loss_nats=2.0, total_bytes=15_000_000)
        end = RunEnd(
            cause=EndCause.EXITED, exit_code=0, detail="", summary=summary, node="n",
            started_at=0.0, ended_at=1.0,
        )  # fmt: skip
        for trial in trials:
            trial.finish(end)
        study.finish({"state": "finished"})
        report("while they end", server, ended, time.monotonic(), given.trials)
        shutdown()


def report(what: str, server: WandbServer, begin: float, end: float, trials: int) -> None:
    calls = [(at, name, size) for at, name, size in list(server.calls) if begin <= at < end]
    kinds = Counter(name for _, name, _ in calls)
    peak = max(Counter(int(at) for at, _, _ in calls).values(), default=0)
    rate = len(calls) / (end - begin)
    size = sum(size for _, _, size in calls) / (end - begin) / 1000
    print(
        f"{what}, {end - begin:.0f} s: {len(calls)} calls, {rate:.2f} a second "
        f"({60 * rate / (trials + 1):.1f} a run and minute), at most {peak} in a second, "
        f"{size:.1f} kB a second; {dict(kinds.most_common())}"
    )


if __name__ == "__main__":
    main()
