"""Joining or starting a Ray cluster, and watching which of its nodes are alive."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import site
import socket
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.job_config import JobConfig

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.paths import PACKAGE
from pgolf_sweep.launch.remote.entrypoint import JOB_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.core.trial import Resources

logger = logging.getLogger(__name__)

LONGEST_TEMPORARY_BYTES = 36
"""A socket's path has 107 bytes at most, and Ray needs up to 70 of them."""
CONNECT_SECONDS = 5.0
OBJECT_STORE_BYTES = 200_000_000
"""Logs and artifacts pass through it once; Ray's default would take a third of the memory."""
WATCH_SECONDS = 1.0
ANSWER_SECONDS = 2.0
HEAD_SECONDS = 60.0
"""For a head that does not answer; its nodes give up after as long, by Ray's default."""

_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
_PATIENCE_SECONDS = 86_400
"""Ray ends a process whose head is away for a minute, without a word: we end it ourselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One live machine of the cluster.

    Attributes:
        name: Its host name, made unique where several Ray nodes share a host.
        free_gpus: GPUs that nobody holds now, us among them; None where nobody said.
        free_cpus: CPUs, likewise.
        draining: Whether it will be taken away: Ray starts nothing more there.
        drains_at: Epoch seconds at which it goes, or None if nobody said.
    """

    id: str
    name: str
    gpus: float
    cpus: float
    free_gpus: float | None = None
    free_cpus: float | None = None
    draining: bool = False
    drains_at: float | None = None

    def seconds_left(self) -> float:
        """Until it is taken away; infinite where nobody said when."""
        return math.inf if self.drains_at is None else self.drains_at - time.time()

    def capacity(self, resources: Resources) -> int:
        """How many trials it runs at a time."""
        return _fit(self.gpus, self.cpus, resources)

    def room(self, resources: Resources) -> int:
        """How many more trials fit beside what is held now, by us or by others."""
        gpus = self.gpus if self.free_gpus is None else self.free_gpus
        cpus = self.cpus if self.free_cpus is None else self.free_cpus
        return _fit(gpus, cpus, resources)


def _fit(gpus: float, cpus: float, resources: Resources) -> int:
    by_cpu = math.floor(cpus / resources.cpus) if resources.cpus > 0 else None
    by_gpu = math.floor(gpus / resources.gpus) if resources.gpus > 0 else None
    return min((n for n in (by_cpu, by_gpu) if n is not None), default=1)


def join(address: str | None, resources: Resources, slots: int | None) -> bool:
    """Connect this process to a cluster, or start one on this machine.

    A connection that this process already has is used.

    Args:
        address: ``HOST:PORT`` of a cluster's head, ``auto``, or None for one of our own.
        resources: Of a trial; a cluster of our own gets the CPUs that the slots need.
        slots: How many slots are wanted, or None.

    Returns:
        Whether the connection was made here, and is to be ended by `leave`.

    Raises:
        InfraError: Nothing answers there, or Ray does not start; told within seconds.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns that a future version will show all GPUs to workers that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # Ray prints what it hears of faults on stdout, which belongs to the command.
    ray._private.worker.print_to_stdstream = _note_fault  # noqa: SLF001 - there is no other way
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        wanted = math.ceil(resources.cpus * slots) if slots is not None else 0
        options |= {
            "address": "local",  # without it Ray would join any cluster that it finds
            "num_cpus": max(os.cpu_count() or 1, wanted),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            # Ray turns 127.0.0.1 into the machine's address, and a laptop's may change.
            "_node_ip_address": "127.0.0.2",
            # Ray would kill the worker of a trial that fills the memory, which looks like a lost
            # node; the kernel kills the trial's own process, which is the truth.
            "_system_config": {"memory_monitor_refresh_ms": 0},
        }
        if (folder := short_folder(tempfile.gettempdir())) is not None:
            options["_temp_dir"] = folder
        own = str(PACKAGE.parent)
        if own not in site.getsitepackages():
            options["job_config"] = JobConfig()
            options["job_config"]._py_driver_sys_path.append(own)  # noqa: SLF001 - no public way
    else:
        check_reachable(address)
        options["address"] = address
        if JOB_VARIABLE not in os.environ:  # a job's own environment has it, and may say it once
            # The nodes need our code, and not by a shared file system.
            options["runtime_env"] = {"py_modules": [str(PACKAGE)]}
    try:
        with (
            warnings.catch_warnings(),
            _patient(address is not None),
            contextlib.chdir(Path(os.sep)),
        ):
            # Ray puts this process's folder first on its workers' import path, where the user's own
            # wandb.py, or another copy of this program, would take the place of the real one.
            warnings.simplefilter("ignore")
            ray.init(**options)
    except Exception as error:  # Ray raises the bare class when a node is not up
        raise InfraError(
            "Ray does not start here" if address is None else "cannot join the Ray cluster",
            where=address or "this machine",
            got=str(error).strip().partition("\n")[0],
            expected=f"Ray {ray.__version__}, the same version of Python on every node",
            next_step="pgolf-sweep doctor",
        ) from error
    return True


def short_folder(temporary: str) -> str | None:
    """A folder for Ray's sockets, where the system's temporary one has too long a name for them.

    Args:
        temporary: The system's, which TMPDIR names.

    Returns:
        One with a short name; None where the given one will do.

    Raises:
        InfraError: There is none.
    """
    if len(temporary.encode()) <= LONGEST_TEMPORARY_BYTES:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - Ray makes its own below
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray-{os.getuid()}"
    raise InfraError(
        "Ray cannot start: the name of the temporary folder is too long for its sockets",
        where="TMPDIR",
        got=temporary,
        expected=f"at most {LONGEST_TEMPORARY_BYTES} bytes",
        next_step="export TMPDIR=/tmp",
    )


def _note_fault(data: dict[str, Any], *, ignore_prefix: bool) -> None:  # noqa: ARG001 - Ray's call
    for line in data["lines"]:
        logger.warning("Ray: %s", line)


@contextlib.contextmanager
def _patient(patient: bool) -> Iterator[None]:
    """Let this process outlive a head; not the daemons of a Ray of our own, which start here."""
    if not patient or _PATIENCE in os.environ:
        yield
        return
    os.environ[_PATIENCE] = str(_PATIENCE_SECONDS)
    try:
        yield
    finally:
        del os.environ[_PATIENCE]


def leave() -> None:
    """End the connection, and the cluster with it if `join` started it."""
    ray.shutdown()


def check_reachable(address: str) -> None:
    """Refuse an address in seconds for which Ray would wait minutes.

    Raises:
        InfraError: Nothing answers there, or it is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "//" in host:
        raise InfraError(
            "this is no address of a Ray cluster",
            got=address,
            expected="HOST:PORT of the head node, or auto",
            next_step="`ray status` on the head node shows that the cluster is up",
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InfraError(
            "no Ray cluster answers at this address",
            where=address,
            got=str(error),
            next_step=f"`ray start --head --port={port}` there, or leave --address out",
        ) from error


def dashboard_url(address: str) -> str | None:
    """Where a cluster says that its dashboard is; None if it runs without one.

    Args:
        address: ``HOST:PORT`` of a cluster's head that answers, or ``auto``.

    Raises:
        ConnectionError: ``auto`` finds no cluster, or several.
    """
    from ray._private import ray_constants, services  # noqa: PLC0415 - Ray has no public way
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # noqa: PLC0415

    gcs = GcsClient(address=services.canonicalize_bootstrap_address_or_die(address))
    key, space = ray_constants.DASHBOARD_ADDRESS, ray_constants.KV_NAMESPACE_DASHBOARD
    found = gcs.internal_kv_get(key.encode(), space)
    return f"http://{found.decode()}" if found else None


def live_nodes() -> list[Node]:
    """The nodes that the cluster takes for alive.

    Not by `ray.nodes`, which aborts the process when another head answers in the old one's place.

    Raises:
        RayError: The head does not answer within seconds, or is another one.
    """
    head = ray._private.worker.global_worker.gcs_client  # noqa: SLF001 - see above
    known = head.get_all_node_info(timeout=ANSWER_SECONDS).values()
    alive = [node for node in known if node.state == node.ALIVE]
    hosts = Counter(node.node_manager_hostname for node in alive)
    draining: dict[str, int] = head.get_draining_nodes(timeout=ANSWER_SECONDS)
    usage = head.get_all_resource_usage(timeout=ANSWER_SECONDS).resource_usage_data.batch
    free = {one.node_id.hex(): dict(one.resources_available) for one in usage}
    return [
        Node(
            id=node.node_id.hex(),
            name=node.node_manager_hostname
            + (f"-{node.node_id.hex()[:6]}" if hosts[node.node_manager_hostname] > 1 else ""),
            gpus=node.resources_total.get("GPU", 0.0),
            cpus=node.resources_total.get("CPU", 0.0),
            **_free(free.get(node.node_id.hex())),
            draining=node.node_id.hex() in draining,
            # Milliseconds of the epoch; 0 says that there is no deadline.
            drains_at=draining.get(node.node_id.hex(), 0) / 1000 or None,
        )
        for node in alive
    ]


def _free(available: Mapping[str, float] | None) -> dict[str, float]:
    """What a node says that nobody holds, as `Node` keeps it; a kind used up is not listed."""
    if available is None:
        return {}
    return {"free_gpus": available.get("GPU", 0.0), "free_cpus": available.get("CPU", 0.0)}


def require_room(nodes: Sequence[Node], resources: Resources) -> None:
    """Refuse a cluster that can hold no trial.

    Raises:
        InfraError: None of its nodes has what a trial occupies.
    """
    if any(node.capacity(resources) for node in nodes):
        return
    raise InfraError(
        "no node of the cluster can hold a trial",
        got="; ".join(f"{n.name}: {n.gpus:g} GPUs, {n.cpus:g} CPUs" for n in nodes) or "none",
        expected=f"a node with {resources.gpus} GPUs and {resources.cpus:g} CPUs",
        next_step="lower pgolf.resources in the sweep file, or give --address of a cluster",
    )


class NodeWatch:
    """Asks for the live nodes every second on a thread: the question blocks while a head is down.

    Attributes:
        nodes: The last answer.
        replaced: Whether another head answers, which knows nothing of this driver.
    """

    def __init__(self) -> None:
        self.nodes: Sequence[Node] = live_nodes()
        self.replaced = False
        self._heard_at = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nodes", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        warned = False
        while not self._closed.wait(WATCH_SECONDS):
            try:
                self.nodes = live_nodes()
            except ray.exceptions.AuthenticationError:
                self.replaced = True
            except (ray.exceptions.RayError, RuntimeError, OSError) as error:
                if not warned:
                    logger.warning("the cluster's head does not answer: %s", error)
                warned = True
            else:
                self._heard_at = time.monotonic()
                warned = False

    @property
    def silent_seconds(self) -> float:
        """How long ago the head last answered; infinite if another one took its place."""
        return math.inf if self.replaced else time.monotonic() - self._heard_at

    def require_head(self, where: str) -> None:
        """Give up on a head that has been away for `HEAD_SECONDS`.

        Args:
            where: The cluster, as people know it.

        Raises:
            InfraError: It has.
        """
        silence = self.silent_seconds
        if silence < HEAD_SECONDS:
            return
        what = f"the head of the Ray cluster has not answered for {silence:.0f} s"
        if self.replaced:
            what = "the head of the Ray cluster was restarted and knows nothing of this sweep"
        raise InfraError(
            what,
            where=where,
            expected="the head that the sweep began with",
            next_step="start the head and its nodes anew, then run the same command again: what "
            "ended is kept",
        )

    def close(self) -> None:
        """Stop asking."""
        self._closed.set()
        self._thread.join(timeout=2.0)
