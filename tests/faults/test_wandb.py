"""W&B goes away while trials run: nobody waits for it, and nothing that it was to have is lost.

That it is away from the start is shown in tests/e2e/test_tracking_and_pruning.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.aftermath import check_slots_are_back, check_whole
from support.offline_runs import read_offline_runs
from support.terminal import Terminal, wait_for
from support.wandb_server import WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN_CAP, STEPS = 4, 40
TRIAL_SECONDS = 8.0
KEY = "0" * 40


def test_wandb_that_falls_silent_in_the_middle_costs_no_trial_and_no_curve(
    tmp_path: Path, address: str, measured: Callable[[float], None]
) -> None:
    with WandbServer() as server, Terminal(tmp_path, address) as terminal:
        file = terminal.sweep(
            "mute",
            run_cap=RUN_CAP,
            parameters={
                "ITERATIONS": {"value": STEPS},
                "STEP_SECONDS": {"value": TRIAL_SECONDS / STEPS},
            },
        )
        online = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        driver = terminal.start_launch(file, "--wandb", "online", **online)
        wait_for(lambda: len(server.streamed) >= 2, 120.0, of=driver)
        server.go_silent()
        went_at = time.time()
        assert driver.wait(200.0) == 0, driver.said
        ended_at = time.time()
        rows = check_whole(terminal, "mute")
        check_slots_are_back(terminal)
        assert terminal.wait_until_alone(30.0) == {}
    assert [(row["outcome"], row["attempts"]) for row in rows] == [("completed", 1)] * RUN_CAP
    assert max(row["ended_at"] for row in rows) > went_at
    assert max(row["slot_seconds"] for row in rows) < TRIAL_SECONDS + 20.0
    # Nobody waits for W&B but the end of the launch, and that not long.
    tail_seconds = ended_at - max(row["ended_at"] for row in rows)
    measured(tail_seconds)
    assert tail_seconds < 120.0
    assert "wandb sync" in driver.said
    assert "Traceback" not in driver.said
    runs = {run.run.display_name: run for run in read_offline_runs(terminal.study("mute"))}
    for row in rows:
        if row["ended_at"] < went_at:
            continue  # it is all there
        run = runs[f"mute-{row['number']}"]
        steps = [point["step"] for point in run.history if "train/loss_nats" in point]
        assert steps == list(range(1, STEPS + 1))
        assert run.summary["status"] == "completed"
    assert "mute-summary" in runs
