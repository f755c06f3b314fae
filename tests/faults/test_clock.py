"""A clock that is set forward and back by an hour while trials run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.aftermath import check_whole
from support.terminal import Terminal, running_trials, wait_for

if TYPE_CHECKING:
    from support.terminal import Background

pytestmark = [pytest.mark.ray, pytest.mark.slow]

JUMPING = Path(__file__).parent.parent / "support" / "jumping"
TRIAL_SECONDS = 5.0
HOUR = 3600.0


def wait_for_results(study: Path, count: int, driver: Background) -> None:
    wait_for(lambda: len(list(study.glob("trials/*/result.json"))) >= count, 120.0, of=driver)


def test_clock_that_jumps_ends_no_trial_and_changes_no_duration(tmp_path: Path) -> None:
    """In all of our processes: driver, workers and scripts; Ray's own have the true time."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    with Terminal(tmp_path / "here") as terminal:
        file = terminal.sweep(
            "jumpy",
            run_cap=6,
            parameters={
                "ITERATIONS": {"value": 20},
                "STEP_SECONDS": {"value": TRIAL_SECONDS / 20},
            },
            # Half an hour of a slot: a jump of an hour must not use it up.
            pgolf={"budget": {"gpu_hours": 0.5}, "limits": {"total_seconds": 120}},
        )
        jumping = {"PYTHONPATH": str(JUMPING), "CLOCK_OFFSET": str(clock)}
        driver = terminal.start_launch(file, **jumping)
        study = terminal.study("jumpy")
        wait_for(lambda: len(running_trials(study)) == 2, 120.0, of=driver)
        clock.write_text(str(HOUR))
        wait_for_results(study, 2, driver)
        wait_for(lambda: running_trials(study), 60.0, of=driver)
        clock.write_text(str(-HOUR))
        before = (study / "status.json").stat().st_mtime_ns
        wait_for(lambda: (study / "status.json").stat().st_mtime_ns > before, 10.0, of=driver)
        wait_for_results(study, 4, driver)
        clock.write_text(str(HOUR))
        assert driver.wait(120.0) == 0, driver.said
        rows = check_whole(terminal, "jumpy")
        assert terminal.wait_until_alone(20.0) == {}
    assert "run_cap of 6 trials reached" in driver.said
    assert "lost a worker" not in driver.said
    for row in rows:
        assert (row["outcome"], row["attempts"]) == ("completed", 1)
        assert TRIAL_SECONDS <= row["slot_seconds"] < TRIAL_SECONDS + 30.0
    # The jump was seen: an hour lies between trials that ran one after the other.
    starts = sorted(row["started_at"] for row in rows)
    assert starts[-1] - starts[0] > HOUR
    assert json.loads((study / "status.json").read_text())["trained_seconds"] < 300.0
