"""Ctrl-C, SIGTERM and a closed terminal: nothing that finished is ever lost."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.running import GONE_SECONDS, check_completed, sweep, wait_for_running
from support.terminal import wait_for

if TYPE_CHECKING:
    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CTRL_C = "\x03"


def test_ctrl_c_once_lets_trials_finish_and_launch_resumes(alone: Terminal) -> None:
    file = sweep(alone, "once", trial_seconds=4.0, run_cap=4)
    driver = alone.start_launch(file, "--wandb", "offline", tty=True)
    running = wait_for_running(driver, alone.study("once"))
    assert any("ray::" in words for words in alone.processes().values())
    driver.type(CTRL_C)
    assert driver.wait(60.0) == 130, driver.said
    assert "draining" in driver.said
    assert "pgolf-sweep launch once.yaml" in driver.said
    assert "Traceback" not in driver.said
    rows = {row["number"]: row for row in alone.trials("once")}
    assert [rows[number]["outcome"] for number in running] == ["completed", "completed"]
    assert {row["outcome"] for row in rows.values()} <= {"completed", "queued"}
    assert alone.wait_until_alone(GONE_SECONDS) == {}
    assert alone.run("status", "once", "--json").json()["state"] == "stopped"
    # One W&B run a trial and the summary, whole although Ctrl-C reached all processes.
    assert len(list((alone.study("once") / "wandb").glob("offline-run-*/*.wandb"))) == 3

    said = alone.launch(file)
    assert said.code == 0, said.err
    scored = check_completed(alone, "once", 4)
    assert {row["number"] for row in scored} >= set(running)


def test_ctrl_c_twice_ends_everything_within_seconds_and_launch_resumes(alone: Terminal) -> None:
    file = sweep(alone, "twice", trial_seconds=60.0, run_cap=2)
    driver = alone.start_launch(file, tty=True)
    wait_for_running(driver, alone.study("twice"))
    driver.type(CTRL_C)
    wait_for(lambda: "draining" in driver.said, of=driver)
    pressed = time.monotonic()
    driver.type(CTRL_C)
    assert driver.wait(30.0) == 130, driver.said
    assert alone.wait_until_alone(GONE_SECONDS) == {}
    assert time.monotonic() - pressed < GONE_SECONDS
    assert "Traceback" not in driver.said
    cut = {row["number"]: row["knobs"] for row in alone.trials("twice")}
    assert {row["outcome"] for row in alone.trials("twice")} == {"queued"}

    again = alone.start_launch(file, tty=True)
    resumed = wait_for_running(again, alone.study("twice"))
    rows = {row["number"]: row["knobs"] for row in alone.trials("twice")}
    assert {number: rows[number] for number in resumed} == cut
    again.type(CTRL_C)
    wait_for(lambda: "draining" in again.said, of=again)
    again.type(CTRL_C)
    assert again.wait(30.0) == 130


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_an_interrupt_while_ray_starts_leaves_nothing(alone: Terminal, how: str) -> None:
    file = sweep(alone, "early")
    driver = alone.start_launch(file, tty=True)
    wait_for(lambda: "Ray: starting" in driver.said, of=driver)
    time.sleep(1.0)
    if how == "Ctrl-C":
        driver.type(CTRL_C)
    else:
        os.kill(driver.pid, signal.SIGTERM)
    assert driver.wait(30.0) == 130, driver.said
    assert "interrupted" in driver.said
    assert "Traceback" not in driver.said
    assert alone.wait_until_alone(GONE_SECONDS) == {}


def test_sigterm_of_a_job_manager_ends_all(alone: Terminal) -> None:
    file = sweep(alone, "ended", trial_seconds=60.0)
    driver = alone.start_launch(file)
    wait_for_running(driver, alone.study("ended"))
    os.killpg(driver.pid, signal.SIGTERM)  # a job manager tells the whole group
    assert driver.wait(30.0) == 130
    assert alone.wait_until_alone(GONE_SECONDS) == {}
    assert "Traceback" not in driver.said
    assert {row["outcome"] for row in alone.trials("ended")} <= {"queued", "running"}


def test_a_terminal_that_closes_lets_trials_finish_and_launch_resumes(alone: Terminal) -> None:
    file = sweep(alone, "closed", trial_seconds=4.0, run_cap=4)
    driver = alone.start_launch(file, tty=True)
    running = wait_for_running(driver, alone.study("closed"))
    driver.hang_up()
    assert driver.wait(60.0) == 130
    assert alone.wait_until_alone(GONE_SECONDS) == {}
    rows = {row["number"]: row for row in alone.trials("closed")}
    assert [rows[number]["outcome"] for number in running] == ["completed", "completed"]
    assert "takes no more text" in (alone.study("closed") / "driver.log").read_text()
    assert alone.launch(file).code == 0
    check_completed(alone, "closed", 4)
