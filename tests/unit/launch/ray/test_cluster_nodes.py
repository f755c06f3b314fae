"""Several nodes on one machine, with GPUs that only Ray believes in."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.cluster_utils import Cluster
from support.clusters import HEAD

from pgolf_sweep.core.trial import EndCause, Limits, Resources, TrialSpec
from pgolf_sweep.launch.base import Ended, Job
from pgolf_sweep.launch.ray.launcher import RayLauncher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

SEES = "import os\nprint(os.environ['CUDA_VISIBLE_DEVICES'])"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    made = Cluster(initialize_head=True, head_node_args=HEAD)
    for _ in range(2):
        made.add_node(num_cpus=8, num_gpus=8)
    yield made
    ray.shutdown()
    made.shutdown()


def job(key: str, gpus: int, code: str, folder: Path) -> Job:
    spec = TrialSpec(
        study="s",
        number=1,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        # One process: whether torchrun starts eight is not the question here.
        resources=Resources(gpus=min(gpus, 1), cpus=1.0),
        limits=Limits(total_seconds=60.0, silent_seconds=60.0),
        proposer="test",
    )
    files = {"train_gpt.py": code.encode()}
    return Job(key=key, attempt=0, spec=spec, files=files, folder=folder / key)


def run_all(launcher: RayLauncher, count: int) -> list[Ended]:
    ended: list[Ended] = []
    deadline = time.monotonic() + 60.0
    while len(ended) < count:
        assert time.monotonic() < deadline
        ended += [event for event in launcher.poll(1.0) if isinstance(event, Ended)]
    return ended


def devices(folder: Path, key: str) -> list[str]:
    return (folder / key / "train.log").read_text().strip().split(",")


def test_trials_of_eight_gpus_land_one_a_node_and_a_lost_node_is_replaced(
    cluster: Any, tmp_path: Path
) -> None:
    launcher = RayLauncher(cluster.address, Resources(gpus=8, cpus=1.0), ready_seconds=120.0)
    assert Counter(Counter(slot.node for slot in launcher.slots()).values()) == {1: 2}
    for key in ("a", "b"):
        launcher.start(job(key, 8, SEES, tmp_path))
    assert launcher.free() == 0
    assert len({ended.end.node for ended in run_all(launcher, 2)}) == 2
    for key in ("a", "b"):
        assert sorted(devices(tmp_path, key)) == [str(n) for n in range(8)]

    hangs = "import time\nprint('up', flush=True)\ntime.sleep(1000)"
    for key in ("c", "d"):
        launcher.start(job(key, 8, hangs, tmp_path))
    doomed = launcher._live["c"].node
    (raylet,) = [node for node in cluster.worker_nodes if node.node_id == doomed.id]
    cluster.remove_node(raylet, allow_graceful=False)
    (lost,) = run_all(launcher, 1)
    assert (lost.key, lost.end.cause) == ("c", EndCause.LOST)
    deadline = time.monotonic() + 60.0
    while len(launcher.slots()) != 1 or launcher.slots()[0].node == doomed.name:
        assert time.monotonic() < deadline
        launcher.poll(0.5)
    cluster.add_node(num_cpus=8, num_gpus=8)
    deadline = time.monotonic() + 60.0
    while launcher.free() == 0:
        assert time.monotonic() < deadline
        launcher.poll(0.5)
    launcher.start(job("c", 8, SEES, tmp_path))
    (again,) = run_all(launcher, 1)
    assert (again.key, again.end.cause) == ("c", EndCause.EXITED)
    launcher.close()


def test_trials_of_one_gpu_pack_eight_a_node(cluster: Any, tmp_path: Path) -> None:
    launcher = RayLauncher(cluster.address, Resources(gpus=1, cpus=1.0), ready_seconds=240.0)
    assert Counter(Counter(slot.node for slot in launcher.slots()).values()) == {8: 2}
    keys = [str(n) for n in range(16)]
    for key in keys:
        launcher.start(job(key, 1, SEES, tmp_path))
    assert launcher.free() == 0
    ended = run_all(launcher, 16)
    by_node: dict[str, list[str]] = {}
    for event in ended:
        by_node.setdefault(event.end.node, []).extend(devices(tmp_path, event.key))
    assert sorted(map(sorted, by_node.values())) == [[str(n) for n in range(8)]] * 2
    launcher.close()
