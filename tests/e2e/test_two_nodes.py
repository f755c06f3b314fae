"""The command line on a cluster of two nodes with eight GPUs each, that only Ray believes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.clusters import HEAD
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Terminal]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    for _ in range(2):
        cluster.add_node(num_cpus=8, num_gpus=8)
    with Terminal(tmp_path, address=cluster.address) as made:
        yield made
    cluster.shutdown()


def test_trials_of_eight_gpus_run_on_a_node_each_and_a_trial_too_large_is_refused(
    nodes: Terminal,
) -> None:
    file = nodes.sweep(
        "eight",
        run_cap=2,
        parameters={"ITERATIONS": {"value": 20}, "STEP_SECONDS": {"value": 0.1}},
        pgolf={"resources": {"gpus": 8}},
    )
    said = nodes.launch(file, "--json", timeout=300)
    assert said.code == 0, said.err
    assert said.json()["slots"] == 2
    first, second = nodes.trials("eight")
    assert first["node"] != second["node"]
    assert first["started_at"] < second["ended_at"]
    assert second["started_at"] < first["ended_at"]
    log = nodes.study("eight") / "trials" / "0" / "train.log"
    assert log.read_text().count("model_params:") == 1  # eight processes, of which one speaks

    file = nodes.sweep("wide", pgolf={"resources": {"gpus": 1, "cpus": 9}})
    said = nodes.launch(file)
    assert said.code == 3
    assert "no node of the cluster can hold a trial" in said.err
    assert "8 GPUs, 8 CPUs" in said.err
    assert "next: " in said.err
