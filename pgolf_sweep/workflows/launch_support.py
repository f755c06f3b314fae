"""What a launch drives a study with: nodes, launcher, driver, its status and log files."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, read_mirror, write_json
from pgolf_sweep.driver.budget import spending_of
from pgolf_sweep.driver.driver import Driver, Options
from pgolf_sweep.driver.sharing.leases import short
from pgolf_sweep.driver.snapshot import JOINING, SweepState, status_document
from pgolf_sweep.driver.tracked import study_config
from pgolf_sweep.launch.remote.entrypoint import JOB_VARIABLE
from pgolf_sweep.nodes.check import CheckOrder, FileMark, mark
from pgolf_sweep.nodes.compare import NodeComparison
from pgolf_sweep.track.make import make_study_tracker
from pgolf_sweep.workflows.study_folder import versions
from pgolf_sweep.workflows.tracking import make_tracking

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.driver.control import Request
    from pgolf_sweep.driver.reuse import Trainings
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.snapshot import Observer, Snapshot
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.launch.ray.launcher import RayLauncher
    from pgolf_sweep.search.study import Study
    from pgolf_sweep.track.mode import ResolvedMode


STATUS_SECONDS = 2.0


LEASE = "PGOLF_LEASE_SECONDS"


WORKER_LEASES = 4
"""A worker waits longer for its driver than the driver for it: a driver may be busy."""


def node_comparison(session: Session) -> NodeComparison | None:
    """What a session's trials need of a node; None where the sweep file wants no check."""
    rules, resources = session.spec.pgolf.nodes, session.slot_resources
    if not rules.check:
        return None
    files: dict[str, FileMark] = {}
    shards = None
    dataset = session.dataset
    if dataset is not None:
        scored = [dataset.tokenizer, *dataset.shards("val"), *dataset.byte_counts()]
        files |= {str(path.resolve()): mark(path, whole=True) for path in scored}
        # Tens of gigabytes: of these, sizes and samples.
        files |= {str(path.resolve()): mark(path, whole=False) for path in dataset.shards("train")}
        shards = (str(dataset.path.resolve()), "fineweb_train_*.bin")
    order = CheckOrder(
        gpus=resources.gpus,
        threads=max(1, int(resources.cpus)),
        files=files,
        remedy="" if dataset is None else dataset.remedy,
        shards=shards,
        speed=(rules.speed or ("refuse" if resources.gpus else "none")) != "none",
    )
    return NodeComparison(order, rules)


def make_driver(
    session: Session,
    study: Study,
    launcher: Launcher,
    paths: StudyPaths,
    *,
    mode: ResolvedMode,
    clock: Clock,
    observer: Observer,
    request: Callable[[], Request],
    lease: DriverLease | None = None,
    trainings: Trainings | None = None,
) -> Driver:
    """A driver with the session's settings."""
    spec = session.spec
    begun = float(read_json(paths.origin)["created_at"])
    tracking = make_tracking(session, paths, mode)
    # Each driver of a shared study has a summary run of its own.
    salt = tracking.salt if lease is None else f"{tracking.salt} {short(lease.me)}"
    tracker = make_study_tracker(
        mode=mode.mode,
        project=tracking.project,
        entity=spec.entity,
        study=spec.name,
        folder=paths.root,
        config=study_config(spec),
        tags=(spec.method,),
        salt=salt,
    )
    return Driver(
        session=session,
        study=study,
        launcher=launcher,
        tracker=tracker,
        paths=paths,
        clock=clock,
        observer=observer,
        lease=lease,
        trainings=trainings,
        options=Options(
            run_cap=spec.run_cap,
            spending=spending_of(session, begun=begun),
            max_retries=spec.pgolf.max_retries,
            nodes=spec.pgolf.nodes,
            request=request,
            tracking=tracking.of,
            provenance={
                "sampler": {"method": spec.method, "seed": spec.pgolf.seed},
                "data_sha256": session.data_identity,
                "rules": session.rules.name,
                "versions": versions(),
            },
        ),
    )


class StatusFile:
    """Keeps ``status.json`` fresh, not more often than anyone reads it."""

    def __init__(self, paths: StudyPaths) -> None:
        job = os.environ.get(JOB_VARIABLE)
        self._path = paths.status
        self._job = {"job": job} if job else {}
        self._written: tuple[float, Any] = (-math.inf, None)

    def reopen(self) -> None:
        """Let the last driver's end not be taken for this one's, should this one die early."""
        last = read_mirror(self._path)
        if last or self._job:
            begun = {"state": SweepState.RUNNING.value, "reason": "", "nodes": [], **self._job}
            write_json(self._path, last | begun | {JOINING: True})

    def write(self, snapshot: Snapshot) -> None:
        """Write the snapshot if the state changed or the file is old."""
        now = time.monotonic()  # the snapshot's time may jump, and the file would grow old
        at, state = self._written
        if snapshot.state != state or now - at >= STATUS_SECONDS:
            self._written = (now, snapshot.state)
            write_json(self._path, status_document(snapshot) | self._job)


def ray_launcher(
    session: Session,
    *,
    address: str | None,
    slots: int | None,
    report: Callable[[str], None],
) -> closing[RayLauncher]:
    """The Ray launcher of a session, as a context manager that closes it.

    Args:
        session: The sweep.
        address: An existing cluster; None starts a local one.
        slots: At most that many trials at a time.
        report: Takes a line for people.

    Raises:
        InputError: PGOLF_LEASE_SECONDS is no time.
    """
    from pgolf_sweep.launch.ray.cluster import dashboard_url  # noqa: PLC0415 - ray loads late
    from pgolf_sweep.launch.ray.launcher import RayLauncher  # noqa: PLC0415

    lease_seconds = leases(os.environ.get(LEASE))
    comparison = node_comparison(session)
    report(f"Ray: {'connecting to ' + address if address else 'starting on this machine'} ...")
    launcher = RayLauncher(
        address=address,
        resources=session.slot_resources,
        slots=None if slots is None else slots * session.slots_each,
        largest=session.resources,
        comparison=comparison,
        lease_seconds=lease_seconds,
        driver_lease_seconds=WORKER_LEASES * lease_seconds,
    )
    url = None if address is None else dashboard_url(address)
    if url is not None:
        report(f"Ray's dashboard: {url}")
    return closing(launcher)


def leases(given: str | None) -> float:
    """Seconds after which a silent worker is lost.

    Raises:
        InputError: It is no number, or too small for a network.
    """
    with suppress(ValueError):
        seconds = 30.0 if given is None else float(given)
        if 3.0 <= seconds < math.inf:
            return seconds
    raise InputError(
        "this is no lease", where=LEASE, got=str(given), expected="seconds, 3 or more, such as 30"
    )


class _DriverLog(logging.FileHandler):
    """The log file of the study that this process drives."""


def log_to_file(paths: StudyPaths) -> None:
    """Keep the driver's log, tracebacks included, beside the study; one study at a time."""
    package = logging.getLogger("pgolf_sweep")
    for handler in [one for one in package.handlers if isinstance(one, _DriverLog)]:
        package.removeHandler(handler)
        handler.close()
    paths.driver_log.touch(0o600)  # errors may quote what they were given
    handler = _DriverLog(paths.driver_log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package.addHandler(handler)
    package.setLevel(logging.INFO)
