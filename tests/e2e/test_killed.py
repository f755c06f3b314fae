"""kill -9 and what others ask of a driver: nothing that finished is ever lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.running import GONE_SECONDS, RAY_AGENTS, check_completed, sweep, wait_for_running
from support.terminal import lasting, wait_for

if TYPE_CHECKING:
    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_kill_9_of_the_driver_loses_nothing_and_counts_nothing_twice(alone: Terminal) -> None:
    file = sweep(alone, "killed", trial_seconds=1.0, run_cap=8)
    study = alone.study("killed")
    driver = alone.start_launch(file)
    wait_for(lambda: len(list(study.glob("trials/*/result.json"))) >= 3, 90.0, of=driver)
    wait_for_running(driver, study, 1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    finished = {path.parent.name: path.read_bytes() for path in study.glob("trials/*/result.json")}
    assert alone.wait_until_alone(GONE_SECONDS, but=RAY_AGENTS) == {}
    status = alone.run("status", "killed", "--json").json()
    assert status["state"] == "interrupted"
    assert status["driver"] is None

    said = alone.launch(file)
    assert said.code == 0, said.err
    assert "Traceback" not in said.err
    check_completed(alone, "killed", 8)
    for number, content in finished.items():
        assert (study / "trials" / number / "result.json").read_bytes() == content
    assert alone.wait_until_alone(GONE_SECONDS, but=RAY_AGENTS) == {}


def test_kill_9_of_a_driver_on_a_shared_cluster_frees_its_slots(terminal: Terminal) -> None:
    file = sweep(terminal, "shared", trial_seconds=60.0, run_cap=2)
    driver = terminal.start_launch(file)
    running = wait_for_running(driver, terminal.study("shared"))
    pids = script_pids()
    assert len(pids) == len(running)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not any(pid.exists() for pid in pids), GONE_SECONDS)
    quick = terminal.sweep("quick", run_cap=2)
    assert terminal.launch(quick).code == 0


def test_a_ray_of_its_own_that_dies_ends_the_sweep_instead_of_waiting_for_ever(
    alone: Terminal,
) -> None:
    file = sweep(alone, "rayless", trial_seconds=30.0, run_cap=2)
    driver = alone.start_launch(file)
    wait_for_running(driver, alone.study("rayless"))
    (raylet,) = [
        pid for pid, words in alone.processes().items() if words.split()[0].endswith("/raylet")
    ]
    os.kill(raylet, signal.SIGKILL)
    assert driver.wait(90.0) == 3, driver.said
    assert "the Ray of this machine has died" in driver.said
    assert "next: " in driver.said
    assert {row["outcome"] for row in alone.trials("rayless")} <= {"queued", "running"}
    assert alone.wait_until_alone(GONE_SECONDS, but=RAY_AGENTS) == {}


def script_pids() -> list[Path]:
    """Trials of a shared cluster have the cluster's environment: told by their study's name."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if b"\0RUN_ID=shared-" in b"\0" + (entry / "environ").read_bytes():
                found.append(entry)
    return found


def test_stop_drains_cancel_ends_and_a_second_driver_is_refused(terminal: Terminal) -> None:
    # More trials than a slow machine ends before `stop` is read.
    file = sweep(terminal, "asked", trial_seconds=3.0, run_cap=60)
    driver = terminal.start_launch(file)
    running = wait_for_running(driver, terminal.study("asked"))
    second = terminal.launch(file)
    assert second.code == 2
    assert f"process {driver.pid}" in second.err
    assert "pgolf-sweep watch asked" in second.err
    live = terminal.run("status", "asked", "--json").json()
    assert live["state"] == "running"
    assert {row["number"] for row in live["running"]}
    stopped = terminal.run("stop", "asked")
    assert stopped.code == 0
    assert driver.wait(60.0) == 0, driver.said
    rows = {row["number"]: row for row in terminal.trials("asked")}
    assert {rows[number]["outcome"] for number in running} == {"completed"}
    assert terminal.run("status", "asked", "--json").json()["state"] == "stopped"
    assert terminal.run("stop", "asked").code == 0
    assert terminal.run("cancel", "asked").code == 0

    slow = sweep(terminal, "cut", trial_seconds=60.0)
    driver = terminal.start_launch(slow)
    wait_for_running(driver, terminal.study("cut"))
    asked = time.monotonic()
    cancelled = terminal.run("cancel", "cut")
    assert cancelled.code == 0, cancelled.err
    assert time.monotonic() - asked < GONE_SECONDS
    assert driver.wait(10.0) == 1  # no trial had a score
    assert terminal.run("status", "cut", "--json").json()["state"] == "cancelled"


def test_launch_again_after_the_end_changes_nothing_and_a_raised_cap_goes_on(
    terminal: Terminal,
) -> None:
    file = terminal.sweep("again", run_cap=3)
    assert terminal.launch(file).code == 0
    before = terminal.trials("again")
    said = terminal.launch(file, "--json")
    assert said.code == 0, said.err
    assert said.json()["trials"]["completed"] == 3
    assert terminal.trials("again") == before

    assert terminal.launch(terminal.sweep("again", run_cap=5)).code == 0
    scored = check_completed(terminal, "again", 5)
    assert list(map(lasting, scored[:3])) == list(map(lasting, before))

    changed = terminal.launch(terminal.sweep("again", run_cap=5, method="qmc"))
    assert changed.code == 2
    assert "changed: method" in changed.err
    assert "--name NEW" in changed.err
    file = terminal.sweep("again", run_cap=5)
    script = terminal.folder / "good.py"
    script.write_text(script.read_text() + "# a change\n")
    program = terminal.launch(file)
    assert program.code == 2
    assert "another version of its program" in program.err
    assert "--name NEW" in program.err
    assert terminal.trials("again") == scored
