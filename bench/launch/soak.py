"""Leaks over half an hour of short trials on as many Ray nodes as fit.

    python bench/launch/soak.py [--nodes 8] [--minutes 30] [--seconds 1] [--every 30]

Real raylets in one machine (`ray.cluster_utils.Cluster`), each with eight GPUs that only Ray
believes in, one trial a node, TPE, the study in a journal file. Sampled all along: memory, file
descriptors and threads of the driver; number and memory of all processes that it and the nodes
started, by name; what lies in the scratch folder and in Ray's temporary one; the object store.
At the end: whether every slot still worked, every trial that started ended and was told, and no
process is left. Exits with 1 where one of these does not hold.

The script is told of one GPU, or `torchrun` would start eight processes of it, each with torch.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private.internal_api import memory_summary
from ray.cluster_utils import Cluster
from rig import Listener, make_driver, make_session

from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import Resources
from pgolf_sweep.driver.control import Request
from pgolf_sweep.launch.ray.launcher import RayLauncher

MB = 1e6
STORE_BYTES = 100_000_000


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def kind(process: psutil.Process) -> str:
    command = process.cmdline()
    line = " ".join(command)
    for name in ("raylet/raylet", "gcs_server", "ray::Worker", "ray::IDLE", "guard", "train_gpt"):
        if name in line:
            return name.rpartition("/")[2]
    return "other"


def tree_size(folder: Path) -> tuple[int, float]:
    """Files below a folder, and their megabytes; what vanishes meanwhile is left out."""
    count, size = 0, 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(parent) / name).lstat().st_size
                count += 1
    return count, size / MB


class Sampler(threading.Thread):
    """Prints a line of what is held, every that many seconds."""

    def __init__(self, every: float, listener: Listener, scratch: Path, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._address = cluster.address
        self._every = every
        self._listener = listener
        self._scratch = scratch
        self._session = Path(cluster.head_node.get_session_dir_path())
        self.over = threading.Event()
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        began = time.monotonic()
        while not self.over.wait(self._every):
            self.rows.append(self.sample(time.monotonic() - began))
            print(" ".join(f"{key} {value}" for key, value in self.rows[-1].items()), flush=True)

    def sample(self, elapsed: float) -> dict[str, Any]:
        own = psutil.Process()
        kinds: Counter[str] = Counter()
        memory: Counter[str] = Counter()
        descriptors: Counter[str] = Counter()
        for process in family():
            try:
                name = kind(process)
                kinds[name] += 1
                memory[name] += process.memory_info().rss
                descriptors[name] += process.num_fds()
            except psutil.Error:
                continue
        files, megabytes = tree_size(self._scratch)
        session_files, session_megabytes = tree_size(self._session)
        summary = memory_summary(self._address, stats_only=True)
        plasma = re.search(r"Plasma memory usage ([\d.]+) MiB, (\d+) objects", summary)
        workers = max(1, kinds["ray::Worker"])
        return {
            "s": round(elapsed),
            "ended": len(self._listener.ended),
            "driver_MB": round(own.memory_info().rss / MB, 1),
            "driver_fds": own.num_fds(),
            "driver_threads": own.num_threads(),
            "workers": kinds["ray::Worker"],
            "worker_MB": round(memory["ray::Worker"] / MB / workers, 1),
            "worker_fds": round(descriptors["ray::Worker"] / workers, 1),
            "guards": kinds["guard"],
            "scripts": kinds["train_gpt"],
            "processes": sum(kinds.values()),
            "raylet_MB": round(memory["raylet"] / MB, 1),
            "raylet_fds": descriptors["raylet"],
            "gcs_MB": round(memory["gcs_server"] / MB, 1),
            "scratch_files": files,
            "scratch_MB": round(megabytes, 1),
            "ray_tmp_files": session_files,
            "ray_tmp_MB": round(session_megabytes, 1),
            "store_MiB": plasma.group(1) if plasma else "?",
            "store_objects": plasma.group(2) if plasma else "?",
            "load": round(os.getloadavg()[0], 1),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--every", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        session = make_session(folder, seconds=options.seconds, gpus=1)
        small = {"object_store_memory": STORE_BYTES}
        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, **small}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(options.nodes):
            cluster.add_node(num_cpus=8, num_gpus=8, wait=False, **small)
        cluster.wait_for_nodes(timeout=300)
        launcher = RayLauncher(
            cluster.address,
            Resources(gpus=8, cpus=1.0),
            scratch=folder / "scratch",
            ready_seconds=300.0,
        )
        try:
            slots = len(launcher.slots())
            print(f"{slots} slots on {options.nodes} nodes", flush=True)
            listener = Listener(launcher)
            sampler = Sampler(options.every, listener, folder / "scratch", cluster)
            until = time.monotonic() + 60 * options.minutes

            def request() -> Request:
                return Request.DRAIN if time.monotonic() > until else Request.CONTINUE

            sampler.start()
            driver = make_driver(session, folder, listener, run_cap=None, request=request)
            driver.run()
            sampler.over.set()
            sampler.join()
            records = driver.study.records()
            worked = sum(time.time() - at < 60 for at in listener.last_end.values())
            print("last:", sampler.sample(60 * options.minutes), flush=True)
        finally:
            launcher.close()
            ray.shutdown()
            cluster.shutdown()
        left_files = [str(path) for path in (folder / "scratch").rglob("*")]
    time.sleep(5)
    commands = [" ".join(process.cmdline()) for process in family()]
    # The helper that probes scripts is the program's own and ends with it.
    left = [command for command in commands if command and "probehelper" not in command]
    counts = Counter(record.outcome for record in records)
    queued = counts[State.QUEUED]
    print("trials:", dict(counts), "retried:", sum(record.attempts > 1 for record in records))
    verdicts = {
        "every slot worked in its last minute": worked == slots,
        "every trial that started ended": len(listener.started) == len(listener.ended),
        "every end was told as completed": counts[State.COMPLETED] + queued == len(records),
        "none ran twice": len(listener.ended) == counts[State.COMPLETED],
        "no process is left": not left,
        "no run's folder is left": not left_files,
    }
    for claim, holds in verdicts.items():
        print("yes" if holds else "NO ", claim)
    print(*left, *left_files, sep="\n")
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
