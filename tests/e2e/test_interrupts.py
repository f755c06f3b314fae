"""Ctrl-C, SIGTERM, SIGHUP, kill -9 and what others ask: nothing that finished is ever lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import lasting, running_trials, wait_for

if TYPE_CHECKING:
    from support.terminal import Background, Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CTRL_C = "\x03"
GONE_SECONDS = 15.0
"""For Ray and all else that a driver began, on a loaded machine."""

RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Of a driver that had no last word: they ask for their dead head for a minute, then end."""


def sweep(terminal: Terminal, name: str, *, trial_seconds: float = 2.0, **changes: Any) -> str:
    steps = {"ITERATIONS": {"value": 20}, "STEP_SECONDS": {"value": trial_seconds / 20}}
    return terminal.sweep(name, parameters=steps, **changes)


def wait_for_running(background: Background, study: Path, count: int = 2) -> list[int]:
    return wait_for(lambda: _if_enough(running_trials(study), count), 90.0, of=background)


def _if_enough(numbers: list[int], count: int) -> list[int]:
    return numbers if len(numbers) >= count else []


def check_whole(terminal: Terminal, name: str, run_cap: int) -> list[dict[str, Any]]:
    """A finished study: each configuration scored once, nothing left open, nothing told twice."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    rows = terminal.trials(name)
    scored = [row for row in rows if row["outcome"] == "completed" and row["duplicate_of"] is None]
    assert len(scored) == run_cap
    assert len({row["identity"] for row in scored}) == run_cap
    assert {row["outcome"] for row in rows} == {"completed"}
    for row in scored:
        folder = terminal.study(name) / "trials" / str(row["number"])
        assert (folder / "result.json").is_file()
        assert f"val_bpb:{row['val_bpb']:.8f}" in (folder / "train.log").read_text()
        assert not (folder / ".train.log.part").exists()
    backend = JournalFileBackend(str(terminal.study(name) / "study.journal"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.logging, "_default_handler", None)
        study = optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == run_cap
    assert "RUNNING" not in states
    status = terminal.run("status", name, "--json").json()
    assert status["state"] == "finished"
    assert status["trials"]["running"] == status["trials"]["queued"] == 0
    return scored


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
    scored = check_whole(alone, "once", 4)
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
    check_whole(alone, "closed", 4)


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
    check_whole(alone, "killed", 8)
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
    scored = check_whole(terminal, "again", 5)
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
