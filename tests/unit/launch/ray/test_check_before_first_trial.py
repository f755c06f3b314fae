"""Nodes are looked at before their first trial: real raylets whose GPUs a stand-in lists."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.cluster_utils import Cluster
from support import smi
from support.clusters import HEAD
from support.sweeps import build_bench

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import Resources
from pgolf_sweep.launch.ray import node_checks
from pgolf_sweep.launch.ray.launcher import RayLauncher
from pgolf_sweep.nodes.check import CheckOrder, FileMark
from pgolf_sweep.nodes.compare import NodeComparison
from pgolf_sweep.nodes.info import NodeState
from pgolf_sweep.nodes.quarantine import NodeStatus
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

ONE_GPU = Resources(gpus=1, cpus=1.0)
TORCH = """
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
"""


class Nodes:
    """Three nodes of a GPU each; `said` is where each one's nvidia-smi reads what to say."""

    def __init__(self, folder: Path) -> None:
        program = smi.install(folder / "bin", sys.executable)
        (folder / "torch").mkdir()
        (folder / "torch" / "torch.py").write_text(TORCH)
        self.said: dict[str, Path] = {}
        self.cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        for name in ("a", "b", "c"):
            said = smi.say(folder / f"{name}.json", smi.Card(0))
            env = {
                "PATH": f"{program}:/usr/bin:/bin",
                "FAKE_SMI": str(said),
                "PYTHONPATH": str(folder / "torch"),
                "BROKEN": "1" if name == "b" else "",
            }
            node = self.cluster.add_node(num_cpus=1, num_gpus=1, env_vars=env)
            self.said[node.node_id] = said

    def launcher(self, **order: Any) -> RayLauncher:
        comparison = NodeComparison(CheckOrder(gpus=1, **order), NodesBlock())
        return RayLauncher(
            self.cluster.address, ONE_GPU, ready_seconds=120.0, comparison=comparison
        )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("nodes"))
    yield made
    ray.shutdown()
    made.cluster.shutdown()


def poll_until(launcher: RayLauncher, claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90.0
    while not claim():
        assert time.monotonic() < deadline, launcher.nodes()
        launcher.poll(0.2)


def test_node_with_a_gpu_in_use_is_refused_and_taken_once_it_is_free(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_checks, "CHECK_WAIT_SECONDS", 1.0)
    first, said = next(iter(nodes.said.items()))
    smi.say(said, smi.Card(0, used_mib=70_123), apps=(("GPU-0", 4242, "zombie"),))
    launcher = nodes.launcher()
    assert launcher.free() == 2
    assert len(launcher.slots()) == 2
    states = {node.name: node for node in launcher.nodes()}
    (name,) = {slot.node.name for slot in launcher._slots if slot.node.id == first}
    assert states[name].state is NodeState.REFUSED
    (refusal,) = states[name].refusals
    assert refusal.got == "70123 MiB in use by process 4242 (zombie)"
    assert states[name].retry_at is not None
    assert abs(states[name].retry_at - time.time()) < 10
    assert Counted(launcher).states == {NodeState.REFUSED: 1, NodeState.READY: 2}
    smi.say(said, smi.Card(0))
    poll_until(launcher, lambda: launcher.free() == 3)
    assert Counted(launcher).states == {NodeState.READY: 3}
    launcher.close()


class Counted:
    def __init__(self, launcher: RayLauncher) -> None:
        states = [node.state for node in launcher.nodes()]
        self.states = {state: states.count(state) for state in set(states)}


def test_node_with_another_driver_than_the_others_is_refused(nodes: Nodes) -> None:
    said = list(nodes.said.values())
    smi.say(said[0], smi.Card(0, driver="535.54.03"))
    launcher = nodes.launcher()
    assert launcher.free() == 2
    (refused,) = [node for node in launcher.nodes() if node.state is NodeState.REFUSED]
    assert refused.refusals[0].what == "NVIDIA driver differs from other nodes'"
    assert refused.refusals[0].got == "535.54.03"
    smi.say(said[0], smi.Card(0))
    launcher.close()


def test_cluster_without_a_fit_node_is_said_at_once(nodes: Nodes, tmp_path: Path) -> None:
    shard = str(tmp_path / "fineweb_val_000000.bin")
    marks = {shard: FileMark(size_bytes=1000, sha256="0" * 64, whole=True)}
    before = time.monotonic()
    with pytest.raises(InfraError, match="no node of the cluster is fit") as error:
        nodes.launcher(files=marks, remedy="pgolf-sweep data demo")
    assert time.monotonic() - before < 90
    assert "1 of 1 files of the data set are missing" in str(error.value)
    assert "pgolf-sweep data demo" in str(error.value)


TRIAL = b"""
import os, time
RATE = float(os.environ.get("MATRIX_LR", 0.02))
WIDTH = int(os.environ.get("MODEL_DIM", 64))
SEED = int(os.environ.get("SEED", 1337))
if os.environ["BROKEN"]:
    raise RuntimeError("CUDA error: no CUDA-capable device is detected")
for step in range(1, 7):
    print(f"step:{step}/6 train_loss:2.5 train_time:{step}ms step_avg:1.00ms", flush=True)
    time.sleep(0.2)
print("final_int8_zlib_roundtrip_exact val_loss:2.50000000 val_bpb:1.50000000")
print("Total submission size int8+zlib: 1000 bytes")
"""


def test_broken_node_is_quarantined_and_no_trial_is_lost_to_it(
    nodes: Nodes, tmp_path: Path
) -> None:
    bench = build_bench(tmp_path, run_cap=12, method="random", width="{value: 64}")
    program = from_files("train_gpt.py", {"train_gpt.py": TRIAL}, builtin=False)
    block = dataclasses.replace(bench.session.spec.pgolf, env_pass=("BROKEN",))
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    bench.session = dataclasses.replace(bench.session, program=program, spec=spec)
    launcher = RayLauncher(nodes.cluster.address, ONE_GPU, ready_seconds=120.0)
    poll_until(launcher, lambda: launcher.free() == 3)
    broken = list(nodes.said)[1]
    (name,) = {slot.node.name for slot in launcher._slots if slot.node.id == broken}
    bench.clock = SystemClock()  # type: ignore[assignment]
    final = bench.driver(launcher=launcher, max_retries=0).run()
    launcher.close()
    assert final.counts["completed"] == 12
    assert final.counts["failed"] == 0
    records = [r for r in bench.study().records() if r.outcome is State.COMPLETED]
    assert name not in {record.node for record in records}
    assert 3 <= sum(record.uncounted_attempts for record in records) <= 5
    (row,) = [row for row in final.nodes if row.node == name]
    assert row.state is NodeStatus.QUARANTINED
    assert "no CUDA-capable device" in row.reason
    assert row.retry_at is not None
    assert row.retry_at > time.time() + 200
