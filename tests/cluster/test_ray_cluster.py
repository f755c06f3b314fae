"""The `ray up` file: Ray's own checks, and its node types under Ray's autoscaler, here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.namespaces import PROJECT, Room, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = PROJECT / "cluster" / "ray-cluster" / "aws.yaml"
SCRIPT = PROJECT / "cluster" / "ray-cluster" / "sweep.sh"

SWEEP = """
program: good.py
method: random
run_cap: 3
parameters:
  MATRIX_LR: {distribution: log_uniform_values, min: 0.005, max: 0.08}
  ITERATIONS: {value: 20}
pgolf: {rules: demo, resources: {gpus: 8}}
"""

GPUS_OF_LIVE_NODES = """
import json, ray
ray.init(address="auto", logging_level="error", log_to_driver=False)
print(json.dumps([n["Resources"].get("GPU", 0) for n in ray.nodes() if n["Alive"]]))
"""


@pytest.fixture
def config() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return document


def test_rays_own_checks_take_the_file(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(prepare_config(config | {"max_wokers": 4}))


def test_no_gpu_node_is_paid_for_that_no_sweep_asked_for(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    workers = config["available_node_types"]["h100x8"]
    assert workers["min_workers"] == 0
    assert workers["resources"]["GPU"] == 8
    assert config["idle_timeout_minutes"] <= 10
    assert not config["provider"]["cache_stopped_nodes"]


@pytest.fixture
def autoscaled(tmp_path: Path, config: dict[str, Any]) -> Iterator[Room]:
    """A head alone, whose autoscaler starts the file's nodes as processes of this machine."""
    if reason := why_not():
        pytest.skip(reason)
    from ray.autoscaler._private.util import prepare_config

    provider = {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    changes = {"provider": provider, "idle_timeout_minutes": 0.1, "file_mounts": {}, "docker": {}}
    prepared = prepare_config(config) | changes
    types = prepared["available_node_types"]
    for node_type in types.values():
        node_type["node_config"] = {}
    # The one name by which that provider knows the node that it runs on.
    types["ray.head.default"] = types.pop(prepared["head_node_type"])
    prepared["head_node_type"] = "ray.head.default"
    (tmp_path / "cluster.json").write_text(json.dumps(prepared))
    (tmp_path / "small.yaml").write_text(SWEEP)
    shutil.copy(PROJECT / "tests" / "data" / "scripts" / "good.py", tmp_path)
    # Ray's sockets need a short path.
    begin = "ip link set lo up; mount -t tmpfs tmpfs /srv; exec sleep infinity"
    with Room(tmp_path, "-c", begin) as room:
        room.wait_for(lambda: "/srv" in room.run("findmnt /srv"), 10.0)
        started = room.enter(
            f"{Path(sys.executable).parent}/ray start --head --node-ip-address=127.0.0.1"
            " --autoscaling-config=cluster.json --num-cpus=0 --num-gpus=0 --disable-usage-stats"
            " --include-dashboard=false",
            timeout=240.0,
            RAY_TMPDIR="/srv",
            RAY_FAKE_CLUSTER="1",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
        )
        assert started.returncode == 0, started.stderr
        yield room


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_come_for_a_sweep_and_go_after_it(autoscaled: Room) -> None:
    def gpus() -> list[float]:
        said = autoscaled.run(f"{sys.executable} -c '{GPUS_OF_LIVE_NODES}'", RAY_TMPDIR="/srv")
        return sorted(json.loads(said)) if said else []

    assert gpus() == [0]
    words = f"{SCRIPT} 2 small.yaml --wandb disabled --json"
    swept = autoscaled.enter(words, timeout=300.0, RAY_TMPDIR="/srv")
    assert swept.returncode == 0, swept.stderr
    assert json.loads(swept.stdout)["trials"]["completed"] == 3, swept.stdout + swept.stderr
    assert "asked for 2 nodes of 8 GPUs" in swept.stderr
    assert "asked for 0 nodes" in swept.stderr
    autoscaled.wait_for(lambda: gpus() == [0], 120.0)
