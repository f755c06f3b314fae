"""Ask Ray's autoscaler for nodes with N GPUs each and wait for the first; 0 withdraws the request.

Usage, on the head node: python cluster/ray-cluster/nodes.py NODES [--gpus 8] [--wait-seconds 1800]

A sweep makes its slots where nodes are; it does not ask for nodes. This request does. It stands
until it is changed: a node that is lost is replaced, and none goes while it idles. Exits with 3 if
no node came in time; the request is then taken back.
"""

from __future__ import annotations

import argparse
import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

LOOK_SECONDS = 2.0


def nodes_of(gpus: int) -> int:
    """How many live nodes have at least that many GPUs."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(resources.get("GPU", 0) >= gpus for resources in alive)


def main() -> int:
    """The exit code: 0 if a node is there or none was wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nodes", type=int)
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--wait-seconds", type=float, default=1800.0, help="for the first node")
    parser.add_argument("--address", default="auto", help="of the cluster, HOST:PORT")
    wanted = parser.parse_args()
    ray.init(address=wanted.address, log_to_driver=False, logging_level="error")
    request_resources(bundles=[{"GPU": wanted.gpus}] * wanted.nodes)
    deadline = time.monotonic() + wanted.wait_seconds
    while (there := nodes_of(wanted.gpus)) == 0 and wanted.nodes > 0:
        if time.monotonic() > deadline:
            request_resources(bundles=[])
            print(
                f"error: no node of {wanted.gpus} GPUs came within {wanted.wait_seconds:g} s\n"
                "next: `ray status` says why; a quota or no spot capacity, mostly",
                file=sys.stderr,
            )
            return 3
        time.sleep(LOOK_SECONDS)
    print(f"asked for {wanted.nodes} nodes of {wanted.gpus} GPUs; {there} there", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
