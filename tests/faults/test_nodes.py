"""Nodes whose daemon dies or freezes, whose cable is cut, whose disk is full.

Each node is a machine with a network of its own. Ray's word of a dead node comes late or never, so
that the leases are what saves the sweep.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.aftermath import check_slots_are_back, check_whole
from support.machines import PORT, Network, require_namespaces
from support.offline_runs import read_offline_runs
from support.terminal import Terminal, running_trials, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

LEASE_SECONDS = 24.0
WORKER_SECONDS = 4 * LEASE_SECONDS
"""A worker that nobody speaks to ends itself after this long."""
NOTICE_SECONDS = 20.0
SLACK_SECONDS = 60.0
"""For a machine that others load."""
NODES = ("killed", "frozen", "cut")
PLACE = {
    "resources": {"gpus": 1, "cpus": 1},
    # The disk that is to be full is small, and a look at its node would refuse it.
    "nodes": {"check": False},
}
HEAD = {
    # A head that takes a node for dead after twenty seconds: Ray's own choice is sixty-four.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}


def fill(disk: Path) -> Path:
    """Leave no room on a small disk."""
    ballast = disk / "ballast"
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, bytes(4096))
    except OSError:
        return ballast
    finally:
        os.close(handle)


class Night:
    """The sweep, its faults, and what was seen of them."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.seconds: dict[str, float] = {}
        head = network.machine("head")
        self.nodes = {name: network.machine(name) for name in (*NODES, "spare")}
        self.disk = self.nodes["spare"].small_disk()
        head.ray("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false", **HEAD)
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        self.terminal = Terminal(folder, address=f"{head.address}:{PORT}", machine=head)
        for name in NODES:
            self.join(name)

    def join(self, name: str, slots: int = 1) -> None:
        address = f"--address={self.terminal.address}"
        self.nodes[name].ray(address, f"--num-cpus={slots}", f"--num-gpus={slots}")

    def run(self) -> None:
        terminal = self.terminal
        self.study = terminal.study("night")
        file = terminal.sweep(
            "night",
            program="faulty.py",
            method="grid",
            run_cap=None,
            parameters={
                "MATRIX_LR": None,
                "ITERATIONS": {"values": [10, 11, 12]},
                "FAULT": {"value": "waits"},
                "NOTES": {"value": str(self.notes)},
            },
            pgolf={**PLACE, "files": ["good.py"]},
        )
        lease = {"PGOLF_LEASE_SECONDS": str(LEASE_SECONDS)}
        self.launch = terminal.start_launch(file, "--wandb", "offline", **lease)
        wait_for(lambda: len(running_trials(self.study)) == len(NODES), 200.0, of=self.launch)
        self.join("spare", slots=3)
        wait_for(lambda: self.status()["slots"] == len(NODES) + 3, 120.0, of=self.launch)
        wait_for(lambda: self.placed().keys() == set(NODES), 30.0, of=self.launch)
        self.trial = self.placed()
        self.strike()
        (self.notes / "go").touch()
        assert self.launch.wait(400.0) == 0, self.launch.said
        self.rows = {row["number"]: row for row in check_whole(terminal, "night")}

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.study / "status.json").read_text())
        return document

    def placed(self) -> dict[str, int]:
        """Which trial runs on which node."""
        return {row["node"]: row["number"] for row in self.status()["running"]}

    def log_of_first(self, name: str) -> Path:
        """The log of the attempt that ran there when the fault struck."""
        return self.study / "trials" / str(self.trial[name]) / "train.attempt1.log"

    def runs_again(self, name: str) -> bool:
        log = self.log_of_first(name).with_name(".train.log.part")
        lost = self.log_of_first(name).is_file()
        return lost and log.is_file() and "step:" in log.read_text()

    def strike(self) -> None:
        nodes = self.nodes
        began = time.monotonic()
        nodes["killed"].send(signal.SIGKILL, "raylet/raylet")
        nodes["frozen"].send(signal.SIGSTOP, "raylet/raylet")
        nodes["cut"].cut()
        waiting = set(NODES)
        while waiting:
            for name in list(waiting):
                if self.runs_again(name):
                    self.seconds[name] = time.monotonic() - began
                    waiting.remove(name)
                    if name == "frozen":
                        self.frozen_ran_on = nodes[name].processes("faulty.py")
                        self.first_words = self.log_of_first(name).read_bytes()
                        nodes[name].send(signal.SIGCONT, "raylet/raylet")
            assert self.launch.process.poll() is None, self.launch.said
            assert time.monotonic() < began + 200.0, waiting
            time.sleep(0.1)
        # All that was lost runs here now.
        nodes["spare"].cut()
        time.sleep(10.0)
        nodes["spare"].remedy()
        deadline = began + WORKER_SECONDS + SLACK_SECONDS
        while nodes["cut"].ours():
            assert time.monotonic() < deadline, nodes["cut"].ours()
            time.sleep(0.5)
        self.seconds["cut is clean"] = time.monotonic() - began


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    require_namespaces()
    folder = tmp_path_factory.mktemp("nodes")
    with Network(folder) as network:
        made = Night(network, folder / "here")
        with made.terminal:
            made.run()
            yield made


def row_of(night: Night, node: str) -> dict[str, Any]:
    """The trial that ran there when the fault struck."""
    return night.rows[night.trial[node]]


def test_every_trial_is_completed_and_told_once(night: Night) -> None:
    assert len(night.rows) == len(NODES)
    assert {row["outcome"] for row in night.rows.values()} == {"completed"}


@pytest.mark.parametrize("node", ["killed", "frozen", "cut"])
def test_trial_of_a_lost_node_runs_again_elsewhere(
    night: Night, node: str, measured: Callable[[float], None]
) -> None:
    row = row_of(night, node)
    assert row["attempts"] == 2
    assert row["node"] != node
    measured(night.seconds[node])
    assert night.seconds[node] < LEASE_SECONDS + NOTICE_SECONDS + SLACK_SECONDS


def test_cable_that_is_out_for_ten_seconds_costs_nothing(night: Night) -> None:
    assert {(row["attempts"], row["node"]) for row in night.rows.values()} == {(2, "spare")}


def test_full_disk_of_a_node_is_not_the_trials_fault(night: Night) -> None:
    terminal = night.terminal
    steps = {"ITERATIONS": {"value": 10}, "STEP_SECONDS": {"value": 0.5}}
    file = terminal.sweep("full", run_cap=1, parameters=steps, pgolf=PLACE)
    launch = terminal.start_launch(file)
    wait_for(lambda: running_trials(terminal.study("full")), 120.0, of=launch)
    ballast = fill(night.disk)
    wait_for(lambda: "attempt 2 follows" in launch.said, 60.0, of=launch)
    ballast.unlink()
    assert launch.wait(120.0) == 0, launch.said
    assert "No space left on device" in launch.said
    (row,) = check_whole(terminal, "full")
    assert (row["outcome"], row["attempts"]) == ("completed", 2)


def test_late_words_of_a_node_that_comes_back_are_not_taken_for_the_second_attempt(
    night: Night,
) -> None:
    assert night.frozen_ran_on
    assert night.log_of_first("frozen").read_bytes() == night.first_words
    assert b"model_params" not in night.first_words
    log = night.log_of_first("frozen").with_name("train.log").read_text()
    assert log.count("model_params") == 1


def test_node_that_is_cut_off_for_ever_ends_what_is_ours_by_itself(
    night: Night, measured: Callable[[float], None]
) -> None:
    measured(night.seconds["cut is clean"])
    assert night.nodes["cut"].ours() == {}
    assert night.nodes["cut"].processes("raylet/raylet")  # Ray itself has not noticed


def test_each_trial_has_its_run_in_wandb(night: Night) -> None:
    runs = read_offline_runs(night.study)
    last = {run.run.display_name: run.summary.get("status") for run in runs}
    for number in night.rows:
        assert last[f"night-{number}"] == "completed"


def test_no_process_is_left_on_any_node_and_every_slot_is_back(night: Night) -> None:
    for machine in night.nodes.values():
        wait_for(lambda machine=machine: not machine.ours(), 60.0)
    check_slots_are_back(night.terminal)
