"""A node with a spot notice, by the command that gives Ray one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.cluster_utils import Cluster
from support.clusters import HEAD
from support.sweeps import build_bench

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import EndCause, Limits, Resources, TrialSpec
from pgolf_sweep.launch.base import Ended, Job, Started
from pgolf_sweep.launch.ray.launcher import RayLauncher
from pgolf_sweep.nodes.check import CheckOrder
from pgolf_sweep.nodes.compare import NodeComparison
from pgolf_sweep.nodes.info import NodeState
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

TWO_CPUS = Resources(gpus=0, cpus=1.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    made = Cluster(initialize_head=True, head_node_args=HEAD)
    for _ in range(2):
        made.add_node(num_cpus=2, num_gpus=0)
    yield made
    ray.shutdown()
    made.shutdown()


def drain(cluster: Any, node_id: str, seconds: int) -> None:
    command = Path(sys.executable).with_name("ray")
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot notice"]
    where = ["--address", cluster.address, "--node-id", node_id]
    done = subprocess.run(
        [command, "drain-node", *where, *reason, "--deadline-remaining-seconds", str(seconds)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def job(key: str, seconds: float, folder: Path) -> Job:
    spec = TrialSpec(
        study="s",
        number=1,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        resources=TWO_CPUS,
        limits=Limits(total_seconds=600.0, silent_seconds=600.0),
        proposer="test",
    )
    code = f"import time\nprint('up', flush=True)\ntime.sleep({seconds})\n"
    files = {"train_gpt.py": code.encode()}
    return Job(key=key, attempt=0, spec=spec, files=files, folder=folder / key)


def until(claim: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"


def test_drained_node_starts_nothing_and_ends_what_cannot_finish(
    cluster: Any, tmp_path: Path
) -> None:
    comparison = NodeComparison(CheckOrder(gpus=0), NodesBlock())
    launcher = RayLauncher(cluster.address, TWO_CPUS, ready_seconds=120.0, comparison=comparison)
    assert launcher.free() == len(comparison._reports) == 4
    ends: dict[str, Ended] = {}
    started: set[str] = set()

    def poll() -> bool:
        for event in launcher.poll(0.5):
            if isinstance(event, Ended):
                ends[event.key] = event
            elif isinstance(event, Started):
                started.add(event.key)
        return True

    doomed = launcher.start(job("long", 1000.0, tmp_path))
    others = {slot.node for slot in launcher.slots()} - {doomed}
    launcher.start(dataclasses.replace(job("short", 8.0, tmp_path), avoid=others))
    until(lambda: poll() and started == {"long", "short"})
    node_id = launcher._live["long"].node.id
    drain(cluster, node_id, seconds=25)
    goes_at = time.time() + 25

    def info() -> Any:
        return {node.name: node for node in launcher.nodes()}[doomed]

    until(lambda: poll() and info().state is NodeState.DRAINING)
    assert info().drains_at == pytest.approx(goes_at, abs=3)
    assert launcher.free() == launcher.free({doomed}) == 2
    assert launcher.start(job("after", 1.0, tmp_path)) != doomed
    until(lambda: poll() and {"long", "short", "after"} <= ends.keys())
    assert ends["short"].end.cause is EndCause.EXITED, "it had the time"
    assert ends["short"].end.node == doomed
    assert ends["long"].end.cause is EndCause.PREEMPTED
    assert ends["long"].end.ended_at < goes_at
    assert "up" in (tmp_path / "long" / "train.log").read_text()
    until(lambda: poll() and doomed not in {slot.node for slot in launcher.slots()})
    # Nobody is left there, so that Ray takes the node out of the cluster by itself.
    until(lambda: poll() and doomed not in {node.name for node in launcher.nodes()})
    assert launcher.free() == 2
    assert len(comparison._reports) == 2, "no node is compared with one that is gone"
    launcher.close()


TRIAL = b"""
import os, time
RATE = float(os.environ.get("MATRIX_LR", 0.02))
WIDTH = int(os.environ.get("MODEL_DIM", 64))
SEED = int(os.environ.get("SEED", 1337))
for step in range(1, 31):
    print(f"step:{step}/30 train_loss:2.5 train_time:{step}ms step_avg:1.00ms", flush=True)
    time.sleep(0.3)
print("final_int8_zlib_roundtrip_exact val_loss:2.50000000 val_bpb:1.50000000")
print("Total submission size int8+zlib: 1000 bytes")
"""


def test_trial_of_a_drained_node_runs_elsewhere_and_loses_no_attempt(
    cluster: Any, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=2, num_gpus=0)
    bench = build_bench(tmp_path, run_cap=4, method="random", width="{value: 64}")
    program = from_files("train_gpt.py", {"train_gpt.py": TRIAL}, builtin=False)
    bench.session = dataclasses.replace(bench.session, program=program)
    launcher = RayLauncher(cluster.address, TWO_CPUS, ready_seconds=120.0)
    until(lambda: launcher.poll(0.2) or launcher.free() == 4)
    bench.clock = SystemClock()  # type: ignore[assignment]
    driver = bench.driver(launcher=launcher, max_retries=0)
    drained: list[str] = []

    def drain_once(snapshot: Any) -> None:
        steps = [one for one in snapshot.running if one.step and one.node]
        if len(steps) == 4 and not drained:
            drained.append(steps[0].node)
            (node_id,) = {s.node.id for s in launcher._slots if s.node.name == drained[0]}
            drain(cluster, node_id, seconds=3)

    bench.watcher.turn = drain_once  # type: ignore[method-assign]
    final = driver.run()
    launcher.close()
    assert drained
    assert final.counts["completed"] == 4
    records = [r for r in bench.study().records() if r.outcome is State.COMPLETED]
    moved = [record for record in records if record.uncounted_attempts]
    assert len(moved) == 2
    assert {(r.attempts, r.uncounted_attempts) for r in moved} == {(2, 1)}
    assert drained[0] not in {record.node for record in records}
    assert any("is draining" in text for text in bench.watcher.messages)
    assert any("the attempt does not count" in text for text in bench.watcher.messages)
