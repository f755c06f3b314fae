"""Two launches in two folders share one study in PostgreSQL; one is killed."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import server as server  # noqa: PLC0414 - a fixture is found by its name
from support.terminal import running_trials, wait_for

if TYPE_CHECKING:
    from support.postgres import Postgres
    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def sweep(terminal: Terminal, name: str, *, trial_seconds: float, run_cap: int) -> str:
    steps = {"ITERATIONS": {"value": 20}, "STEP_SECONDS": {"value": trial_seconds / 20}}
    return terminal.sweep(name, parameters=steps, run_cap=run_cap)


def test_killed_launch_is_replaced_by_the_one_in_another_folder(
    terminal: Terminal, server: Postgres
) -> None:
    def asked(command: str, folder: str) -> dict[str, Any]:
        said = terminal.run(command, "both", "--runs", folder, "--json", PGOLF_STORAGE=url)
        assert said.code == 0, said.err
        return said.json()

    url = server.url.replace("postgres:@", "postgres:not-told@")
    file = sweep(terminal, "both", trial_seconds=3.0, run_cap=10)
    words = (file, "--slots", "1", "--runs")
    killed = terminal.start_launch(*words, "a", PGOLF_STORAGE=url)
    kept = terminal.start_launch(*words, "b", PGOLF_STORAGE=url)
    here, there = terminal.folder / "a" / "both", terminal.folder / "b" / "both"
    wait_for(lambda: list(there.glob("trials/*/*train.log*")), 120.0, of=kept)
    (number,) = wait_for(lambda: running_trials(here), 120.0, of=killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    died_at = time.monotonic()
    wait_for(lambda: "is gone: trials" in kept.said or kept.process.poll() is not None, 60.0)
    assert time.monotonic() - died_at < 60.0
    assert kept.wait(120.0) == 0, kept.said
    assert "is gone: trials" in kept.said

    rows = asked("trials", "a")["trials"]
    assert rows == asked("trials", "b")["trials"]
    assert {row["outcome"] for row in rows} == {"completed"}
    ran = [row for row in rows if row["attempts"]]
    assert len(ran) == len({row["identity"] for row in ran}) == 10
    (lost,) = [row for row in ran if row["attempts"] == 2]
    assert (there / "trials" / str(lost["number"]) / "result.json").is_file()
    assert not (here / "trials" / str(lost["number"]) / "result.json").exists()
    assert lost["number"] == number
    assert asked("best", "a") == asked("best", "b")
    for folder in "ab":
        status = asked("status", folder)
        assert status["trials"]["completed"] == 10
        assert status["drivers"] == []
    for path in [*here.rglob("*"), *there.rglob("*")]:
        assert not path.is_file() or b"not-told" not in path.read_bytes()
    assert "not-told" not in killed.said + kept.said


def test_stop_all_ends_both_launches(terminal: Terminal, server: Postgres) -> None:
    file = sweep(terminal, "stopped", trial_seconds=3.0, run_cap=100)
    words = (file, "--slots", "1", "--runs")
    env = {"PGOLF_STORAGE": server.url}
    both = [terminal.start_launch(*words, folder, **env) for folder in "ab"]
    for folder, driver in zip("ab", both, strict=True):
        study = terminal.folder / folder / "stopped"
        wait_for(lambda study=study: running_trials(study), 120.0, of=driver)
    status = terminal.run("status", "stopped", "--runs", "a", "--json").json()
    assert sorted(entry["pid"] for entry in status["drivers"]) == sorted(d.pid for d in both)
    assert all(len(entry["trials"]) <= 1 for entry in status["drivers"])
    third = terminal.launch(file, "--slots", "1", "--runs", "a", **env)
    assert third.code == 2, "one folder has one driver"
    stopped = terminal.run("stop", "stopped", "--all", "--runs", "b")
    assert stopped.code == 0, stopped.err
    assert stopped.err.count("asked the driver in") == 2
    for driver in both:
        assert driver.wait(60.0) == 0, driver.said
        assert "draining" in driver.said
    after = terminal.run("status", "stopped", "--runs", "b", "--json").json()
    assert after["drivers"] == []
    assert after["trials"]["running"] == 0
    assert after["state"] == "stopped"


def test_database_that_is_away_is_said_at_once_with_the_right_code(terminal: Terminal) -> None:
    file = terminal.sweep("away")
    url = f"postgresql://me:not-told@/sweeps?host={terminal.folder}"
    begun = time.monotonic()
    said = terminal.launch(file, PGOLF_STORAGE=url)
    assert said.code == 3
    assert time.monotonic() - begun < 60.0
    assert "the study's storage cannot be opened" in said.err
    assert "not-told" not in said.err + said.out
    assert "Traceback" not in said.err
