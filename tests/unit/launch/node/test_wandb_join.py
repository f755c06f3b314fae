"""A script's own wandb.init() joins the worker's run: real wandb, a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.offline_runs import read_offline_runs

from pgolf_sweep.core.trial import EndCause, Limits, Metric, Resources, TrialSpec
from pgolf_sweep.launch.node.run import BEGINNING, RunOrder
from pgolf_sweep.launch.node.worker import Worker
from pgolf_sweep.track.base import RunTracking

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = b"""
import wandb

run = wandb.init(project="theirs", config={"lr": 5.0, "seed": 3})
assert wandb.config.lr == 0.1, wandb.config
assert run.config["model"] == {"depth": 2}
assert wandb.config.seed == 3
for epoch in range(3):
    wandb.log({"epoch": epoch, "acc": 0.5 + epoch / 10, "note": "text"})
run.summary["best"] = 0.75
wandb.finish()
"""


def test_what_a_script_logs_is_the_metric_and_lands_in_the_trials_run(tmp_path: Path) -> None:
    spec = TrialSpec(
        study="s",
        number=1,
        knobs={"lr": 0.1, "model.depth": 2},
        env={},
        program_name="train.py",
        program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=120, silent_seconds=120),
        proposer="test",
        config={"lr": 0.1, "model": {"depth": 2}},
        metric=Metric(name="acc", goal="maximize", contest=False),
    )
    tracking = RunTracking(
        mode="offline",
        project="p",
        entity=None,
        group="s",
        run_id="s-1",
        name="s-1",
        config={"lr": 0.1},
        cap_bytes=1,
        metric="acc",
    )
    worker = Worker(tmp_path / "scratch")
    order = RunOrder(run="r", node="here", spec=spec, files={"train.py": SCRIPT}, tracking=tracking)
    worker.start(order)
    cursor, reports, log = BEGINNING, [], b""
    while True:
        progress = worker.poll("r", cursor, 5.0)
        cursor = progress.cursor
        reports += progress.reports
        log += progress.log
        if progress.end is not None:
            break
    end = progress.end
    assert (end.cause, end.exit_code) == (EndCause.EXITED, 0), log
    assert [report.val_bpb for report in reports] == [0.5, 0.6, 0.7]
    assert end.summary.val_bpb == 0.7
    folder = tmp_path / "study" / "wandb"
    for name, content in worker.harvest("r", 60.0).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    worker.close()
    (run,) = read_offline_runs(tmp_path / "study")
    assert run.run.display_name == "s-1"
    assert [point["acc"] for point in run.history if "acc" in point] == [0.5, 0.6, 0.7]
    assert any(point.get("best") == 0.75 for point in run.history)
