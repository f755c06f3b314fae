"""The head of a cluster is restarted, with the driver on it and with the driver elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.aftermath import check_slots_are_back, check_whole
from support.machines import PORT, Machine, Network, require_namespaces
from support.terminal import Terminal, running_trials, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

TRIAL_SECONDS = 15
SLACK_SECONDS = 60.0


class Cluster:
    """A head without a slot and a node with two."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.folder = folder
        self.head, self.node = network.machine("head"), network.machine("node")
        self.address = f"{self.head.address}:{PORT}"

    def start_head(self) -> None:
        self.head.ray("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")

    def start(self) -> None:
        """What brings a cluster up, also after a head was lost."""
        for machine in (self.head, self.node):
            machine.reset()
        self.start_head()
        self.node.ray(f"--address={self.address}", "--num-cpus=2", "--num-gpus=2")

    def terminal(self, machine: Machine) -> Terminal:
        return Terminal(self.folder / machine.name, address=self.address, machine=machine)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_namespaces()
    folder = tmp_path_factory.mktemp("heads")
    with Network(folder) as network:
        yield Cluster(network, folder / "terminals")


def sweep(terminal: Terminal) -> str:
    steps = {"ITERATIONS": {"value": TRIAL_SECONDS}, "STEP_SECONDS": {"value": 1.0}}
    resources = {"resources": {"gpus": 1, "cpus": 1}}
    return terminal.sweep("night", run_cap=5, parameters=steps, pgolf=resources)


def finished(terminal: Terminal) -> dict[str, bytes]:
    paths = terminal.study("night").glob("trials/*/result.json")
    return {path.parent.name: path.read_bytes() for path in paths}


def check_resumed(terminal: Terminal, file: str, kept: dict[str, bytes]) -> None:
    said = terminal.launch(file, timeout=240)
    assert said.code == 0, said.err
    rows = check_whole(terminal, "night")
    assert [row["outcome"] for row in rows] == ["completed"] * 5
    assert finished(terminal).items() >= kept.items()
    check_slots_are_back(terminal)


def test_driver_elsewhere_lets_trials_end_then_stops_with_three_and_resumes(
    cluster: Cluster, measured: Callable[[float], None]
) -> None:
    """Another head in the old one's place knows no driver and no worker."""
    cluster.start()
    with cluster.terminal(cluster.node) as terminal:
        file = sweep(terminal)
        driver = terminal.start_launch(file)
        wait_for(lambda: finished(terminal), 150.0, of=driver)
        running = wait_for(lambda: running_trials(terminal.study("night")), 60.0, of=driver)
        cluster.head.reset()
        cluster.start_head()
        began = time.monotonic()
        assert driver.wait(TRIAL_SECONDS + SLACK_SECONDS) == 3, driver.said
        measured(time.monotonic() - began)
        assert "was restarted and knows nothing of this sweep" in driver.said
        assert "next: start the head and its nodes anew" in driver.said
        assert "Traceback" not in driver.said
        kept = finished(terminal)
        # What ran when the head went away ran on and was told.
        assert {str(number) for number in running} <= kept.keys()
        wait_for(lambda: not cluster.node.ours(), 60.0)
        cluster.start()
        check_resumed(terminal, file, kept)


def test_driver_on_the_head_goes_with_it_and_resumes(cluster: Cluster) -> None:
    cluster.start()
    with cluster.terminal(cluster.head) as terminal:
        file = sweep(terminal)
        driver = terminal.start_launch(file)
        wait_for(lambda: finished(terminal), 150.0, of=driver)
        wait_for(lambda: running_trials(terminal.study("night")), 60.0, of=driver)
        kept = finished(terminal)
        cluster.head.reset()
        driver.wait(30.0)
        status = terminal.run("status", "night", "--json").json()
        assert status["state"] == "interrupted"
        cluster.start()
        check_resumed(terminal, file, kept)


def test_daemon_of_the_drivers_machine_that_dies_stops_the_launch_with_three(
    cluster: Cluster, measured: Callable[[float], None]
) -> None:
    """As `ray stop` on the head does: the driver itself is not Ray's to end."""
    with cluster.terminal(cluster.head) as terminal:
        file = terminal.sweep(
            "night",
            run_cap=9,
            parameters={"ITERATIONS": {"value": 20}, "STEP_SECONDS": {"value": 0.5}},
            pgolf={"resources": {"gpus": 1, "cpus": 1}},
        )
        terminal.study("night").rename(terminal.study("before"))
        driver = terminal.start_launch(file)
        wait_for(lambda: len(running_trials(terminal.study("night"))) == 2, 150.0, of=driver)
        began = time.monotonic()
        for pid, words in cluster.head.processes().items():
            if "pgolf_sweep" not in words:
                cluster.head.kill(pid)
        assert driver.wait(60.0 + SLACK_SECONDS) == 3, driver.said
        measured(time.monotonic() - began)
        assert "next: " in driver.said
        assert "Traceback" not in driver.said
        wait_for(lambda: not cluster.node.ours(), 90.0)
