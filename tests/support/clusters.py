"""One Ray for all tests that need none of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SPARSE = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
"""Without what no trial needs: the autoscaler and the reader of logs take 1.6 CPU-s of a start."""
HEAD = {"num_cpus": 0, "num_gpus": 0, "dashboard_port": None, **SPARSE}
"""Of a `ray.cluster_utils.Cluster` in a test's own process, whose nodes are added later.

Ray tries the port of the dashboard, if it has one, even where none is wanted; where another Ray has
that port, the socket that tried it is left to the garbage collector, which warns in a later test.
"""
CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

node = json.loads(sys.argv[1])
cluster = Cluster()
for left in (2, 1, 0):
    try:
        cluster.add_node(**node)
        break
    except Exception as error:
        # Ray gives a node thirty seconds to come up, regardless of the load.
        if not left or "timed out during startup" not in str(error):
            raise
        cluster = Cluster()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextlib.contextmanager
def cluster_of(**node: int) -> Iterator[str]:
    """Address of a Ray cluster of one node, in a process of its own.

    Ray keeps the address of the first cluster of a process, and other tests start theirs here.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", CLUSTER, json.dumps(SPARSE | node)]
    with subprocess.Popen(command, **pipes, text=True) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        yield cluster.stdout.readline().strip()
        cluster.stdin.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A cluster of two CPUs, as another job of this machine may have left it."""
    with cluster_of(num_cpus=2, num_gpus=0) as made:
        yield made
