"""A driver on the cluster: sent there as a Ray job, looked at and talked to over HTTP.

All of it goes through the one port of Ray's dashboard, so that a tunnel to that port is enough.
Commands travel as jobs. A study's files are read through the dashboard's log service, which
follows the link that the job leaves among Ray's logs; a look costs milliseconds, starts nothing
on the cluster, and works after the driver has died.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import secrets
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import PACKAGE, read_json, write_bytes, write_json
from pgolf_sweep.launch.remote.entrypoint import STDOUT_MARK, JobPayload, log_dir_alias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.core.paths import StudyPaths

ANSWER_SECONDS = (5.0, 30.0)
"""To connect and to answer one question; Ray's own client would wait forever."""
GRACE_SECONDS = 60
"""Between the SIGTERM of `ray job stop`, which cancels a sweep, and its SIGKILL; Ray has 3."""
LOOK_SECONDS = 0.5
SPENT_SECONDS = 60.0
"""When the job of a remote command may be deleted after its end: Ray restores one that is deleted
before Ray has closed it."""
ALIVE = frozenset({"PENDING", "RUNNING"})
ENTRYPOINT = "pgolf_sweep.launch.remote.entrypoint"
REMOTE_COMMAND = "pgolf_remote_command"
"""In the metadata of a job that is no driver."""
GONE = "GONE"
"""State of a job that the cluster does not know: it was started anew."""
UNREACHABLE = "UNREACHABLE"
TUNNEL = "`ssh -N -L 8265:localhost:8265 HEAD`, then --address http://localhost:8265"
MIRRORED = ("sweep.yaml", "origin.json", "storage.url", "status.json", "study.journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a study is driven, and what was last seen there.

    Attributes:
        address: Of the cluster's dashboard.
        job: Name of the Ray job that drives it.
        home: Folder on the cluster that holds ``runs`` and ``data``.
        again: The command that resumes it.
        state: Ray's word for the job, or `GONE`, or `UNREACHABLE`.
        message: What Ray says of its end.
        node: Ray's id of the node that it runs on.
        seen_at: When its files were last copied, in seconds since 1970.
    """

    address: str
    job: str
    home: str
    again: str
    state: str = "PENDING"
    message: str = ""
    node: str | None = None
    seen_at: float | None = None

    @property
    def alive(self) -> bool:
        """Whether the job runs, or will."""
        return self.state in ALIVE

    @property
    def reason(self) -> str:
        """Why the job ended, as far as it is known; the driver's last error if it had one."""
        if self.alive:
            return ""
        if self.state == GONE:
            return "the cluster does not know the job any more: it was started anew"
        ending, _, log = self.message.partition(", last available logs")
        if "exit code -" in ending:  # a signal: nothing that it printed says why
            return ending
        last = log.strip().splitlines()[-1:]
        error = log.rpartition("error: ")[2].strip() if "error: " in log else "".join(last)
        return f"{ending}: {error}" if error else ending

    def __str__(self) -> str:
        return f"job {self.job} at {self.address}"


def read_place(paths: StudyPaths) -> Place | None:
    """Where a study is driven; None for one that is driven here."""
    if not paths.detached.is_file():
        return None
    document = read_json(paths.detached)
    known = {field.name for field in dataclasses.fields(Place)}
    return Place(**{key: value for key, value in document.items() if key in known})


def write_place(paths: StudyPaths, place: Place) -> None:
    """Remember where a study is driven."""
    write_json(paths.detached, dataclasses.asdict(place))


def refuse_copies(paths: StudyPaths, command: str) -> None:
    """Refuse to do with the copies of a detached study what needs the study itself.

    Raises:
        InputError: The study is driven elsewhere.
    """
    place = read_place(paths)
    if place is None:
        return
    where = f"--runs {place.home}/runs" + (" --address auto" if command == "promote" else "")
    step = f"on the head node: pgolf-sweep {command} {paths.name} {where}"
    raise InputError(
        f"study {paths.name!r} is driven elsewhere, by {place}; here are copies",
        where=str(paths.root),
        next_step=place.again if command == "launch" else step,
    )


class Dashboard:
    """The jobs and logs of a cluster.

    Args:
        address: ``http://HEAD:8265``, or ``HOST:PORT`` of dashboard or cluster, or ``auto``.

    Raises:
        InfraError: No dashboard answers there.
    """

    def __init__(self, address: str) -> None:
        with _asking(address):
            self._client = _client(address)
        self.address: str = self._client.get_address()

    def get(self, path: str, **params: Any) -> Any:
        """The answer to a question, regardless of its status."""
        with _asking(self.address):
            return self._client._do_request("GET", path, params=params)  # noqa: SLF001 - with auth

    def job(self, name: str) -> dict[str, Any] | None:
        """What Ray knows of a job."""
        answer = self.get(f"/api/jobs/{name}")
        if answer.status_code == 404:
            return None
        self._check(answer)
        return dict(answer.json())

    def jobs(self) -> list[dict[str, Any]]:
        """Every job that was submitted."""
        answer = self.get("/api/jobs/")
        self._check(answer)
        return [job for job in answer.json() if job.get("submission_id")]

    def log(self, job: str) -> str:
        """What a job printed, both streams."""
        answer = self.get(f"/api/jobs/{job}/logs")
        self._check(answer)
        return str(answer.json()["logs"] or "")

    def read(self, node: str, name: str) -> bytes | None:
        """A file among a node's logs; None if it is empty or not there."""
        answer = self.get("/api/v0/logs/file", node_id=node, filename=name, lines=-1)
        # A missing file is an error 500 or, at times, an empty answer.
        return answer.content if answer.status_code == 200 and answer.content else None

    def names(self, node: str, pattern: str) -> list[str]:
        """Names of the files among a node's logs that match."""
        answer = self.get("/api/v0/logs", node_id=node, glob=pattern)
        self._check(answer)
        return [name for kind in answer.json()["data"]["result"].values() for name in kind]

    def submit(self, job: str, payload: JobPayload, *, metadata: dict[str, str]) -> None:
        """Have a command run on the head node; it either runs, or nothing of it remains there.

        Args:
            job: Name of the job.
            payload: The command. Its environment holds secrets: it goes to the cluster's store,
                in memory, which Ray's interfaces do not show, until the job takes it out.
            metadata: Shown by Ray.
        """
        import trainer  # noqa: PLC0415 - loads nothing

        package = f"{job}-{secrets.token_hex(16)}.zip"
        self._put(package, payload.pack())
        try:
            with _asking(self.address):
                self._client.submit_job(
                    entrypoint=f"exec python -m {ENTRYPOINT} gcs://{package} {job}",
                    submission_id=job,
                    metadata=metadata,
                    runtime_env={
                        "py_modules": [str(PACKAGE), str(Path(trainer.__path__[0]))],
                        "excludes": ["__pycache__"],
                        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_SECONDS)},
                    },
                )
        except InfraError:
            # The answer may be lost after the job was taken; and its name be another's by now.
            taken = self.job(job)
            if taken is None or package not in taken["entrypoint"]:
                self._put(package, JobPayload(words=(), home="", study="").pack())
                raise

    def _put(self, package: str, data: bytes) -> None:
        with _asking(self.address):
            answer = self._client._do_request(  # noqa: SLF001 - with authentication
                "PUT", f"/api/packages/gcs/{package}", data=data
            )
        self._check(answer)

    def delete(self, job: str) -> None:
        """Take a job that ended off Ray's list."""
        with _asking(self.address), contextlib.suppress(RuntimeError):
            self._client.delete_job(job)

    def _check(self, answer: Any) -> None:
        if answer.status_code != 200:
            raise _refused(self.address, f"{answer.status_code}: {answer.text}")


def _client(address: str) -> Any:
    # Ray lets these overrule an address that is given; "auto" asks for them.
    given = [os.environ.pop(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")]
    if address == "auto":
        address = next(filter(None, given), address)
    from ray.exceptions import AuthenticationError  # noqa: PLC0415 - loads late
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

    for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(name).setLevel(logging.WARNING)

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            options.setdefault("timeout", ANSWER_SECONDS)
            try:
                return super()._do_request(method, endpoint, **options)
            except AuthenticationError as error:
                raise RuntimeError(str(error)) from error

    if (scheme := urlsplit(address).scheme) in {"http", "https"}:
        return Client(address)
    if scheme and "://" in address:
        raise InputError(
            "the cluster is reached through its dashboard",
            got=address,
            expected="http://HEAD:8265, or HOST:PORT, or auto",
        )
    if address != "auto":
        with contextlib.suppress(OSError, RuntimeError):
            return Client(f"http://{address}")
    return Client(_dashboard_of(address))


def _dashboard_of(address: str) -> str:
    """The dashboard's URL, as the cluster at an address says it.

    Raises:
        InfraError: No cluster answers, or its dashboard cannot be reached from here.
    """
    from pgolf_sweep.launch.ray.cluster import check_reachable, dashboard_url  # noqa: PLC0415 - ray

    check_reachable(address)
    url = dashboard_url(address)
    here = address == "auto" or _is_here(address.rpartition(":")[0])
    if url is None:
        raise InfraError(
            "this Ray cluster runs without a dashboard, which takes jobs",
            where=address,
            next_step="start it with `ray start --head --include-dashboard=true` where "
            "ray[default] is installed",
        )
    if urlsplit(url).hostname in {"127.0.0.1", "localhost"} and not here:
        raise InfraError(
            "the cluster's dashboard listens on its own host only",
            where=address,
            got=url,
            next_step=f"{TUNNEL}, or start Ray with --dashboard-host=0.0.0.0",
        )
    return url


def _is_here(host: str) -> bool:
    """Whether a host is this machine: it takes only addresses of its own to listen at."""
    try:
        socket.create_server((host, 0)).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _asking(address: str) -> Iterator[None]:
    """Around every request: what Ray's client and its HTTP library raise, as our error."""
    try:
        yield
    except OSError as error:  # what `requests` raises is one, too
        raise InfraError(
            "no Ray dashboard answers at this address",
            where=address,
            got=str(error).partition("\n")[0][:300],
            expected="http://HEAD:8265, the dashboard of a cluster that runs",
            next_step=f"`ray status` there says whether it runs; to reach it: {TUNNEL}",
        ) from error
    except RuntimeError as error:
        raise _refused(address, str(error)) from error


def _refused(address: str, said: str) -> InfraError:
    return InfraError(
        "the Ray dashboard at this address refuses",
        where=address,
        got=said.strip().splitlines()[-1][:300] if said.strip() else None,
        next_step="`ray status` on the head node; dashboard.log among its logs says more",
    )


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold a Ctrl-C back to the end: what is inside happens wholly or not at all."""
    caught: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if caught:
        raise KeyboardInterrupt


def job_name(study: str, taken: list[dict[str, Any]], *, what: str = "") -> str:
    """A name for a study's next job, which says what it is."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{study}-{what}" if what else study)
    pattern = re.compile(rf"pgolf-sweep-{re.escape(slug)}-(\d+)")
    matches = [pattern.fullmatch(job["submission_id"] or "") for job in taken]
    return f"pgolf-sweep-{slug}-{1 + max((int(match[1]) for match in matches if match), default=0)}"


def send_driver(board: Dashboard, payload: JobPayload, *, last: str | None = None) -> str:
    """Have a study driven on the cluster.

    Args:
        board: Of the cluster.
        payload: The command, with what it needs.
        last: The study's job before, whose name a cluster that was started anew may not know.

    Returns:
        Name of the job.

    Raises:
        InputError: A job drives it already.
    """
    jobs = board.jobs()
    metadata = {"pgolf_study": payload.study, "pgolf_home": payload.home}
    for job in jobs:
        if job["metadata"] == metadata and job["status"] in ALIVE:
            raise InputError(
                f"study {payload.study!r} is being driven already, by job {job['submission_id']}",
                where=board.address,
                next_step=f"pgolf-sweep watch {payload.study}, or pgolf-sweep stop {payload.study}",
            )
    name = job_name(payload.study, [*jobs, {"submission_id": last}])
    board.submit(name, payload, metadata=metadata)
    return name


def run_remote_command(board: Dashboard, payload: JobPayload) -> tuple[int, str, str]:
    """Run a command on the cluster and wait for it.

    Returns:
        Exit code, stdout and stderr.
    """
    jobs = board.jobs()
    for spent in finished_remote_commands(jobs, now=time.time()):
        board.delete(spent)
    name = job_name(payload.study, jobs, what=payload.words[0])
    board.submit(name, payload, metadata={REMOTE_COMMAND: payload.study})
    while (job := board.job(name) or {"status": GONE})["status"] in ALIVE:
        time.sleep(LOOK_SECONDS)
    if job["status"] == GONE or job.get("driver_exit_code") is None:
        raise InfraError(
            f"`{payload.words[0]}` was not run on the cluster",
            where=f"job {name} at {board.address}",
            got=(job.get("message") or job["status"]).strip()[-500:],
        )
    log = board.log(name)
    said, mark, printed = log.rpartition(STDOUT_MARK)
    lines = (said if mark else log).splitlines()
    start = next((i + 1 for i, line in enumerate(lines) if "Running entrypoint" in line), 0)
    stderr = "\n".join(lines[start:])
    return int(job["driver_exit_code"]), json.loads(printed) if mark else "", stderr


def finished_remote_commands(jobs: list[dict[str, Any]], *, now: float) -> list[str]:
    """Names of the jobs of remote commands that ended a while ago."""
    return [
        job["submission_id"]
        for job in jobs
        if REMOTE_COMMAND in (job.get("metadata") or {})
        and job["status"] not in ALIVE
        and now - (job.get("end_time") or 0) / 1000 > SPENT_SECONDS
    ]


def refresh(paths: StudyPaths, place: Place, board: Dashboard | None = None) -> Place:
    """Copy what a detached study's files say now; what is known of its job.

    Raises:
        InfraError: The cluster does not answer. The last copy stays.
    """
    try:
        board = board or Dashboard(place.address)
        job = board.job(place.job)
        node = (job or {}).get("driver_node_id") or place.node
        if job is not None and node is not None:
            for name in MIRRORED:
                content = board.read(node, f"{log_dir_alias(place.home)}/{paths.name}/{name}")
                if content is not None:
                    # The driver may be in the middle of the journal's last line.
                    whole = content[: content.rfind(b"\n") + 1]
                    write_bytes(paths.root / name, whole if name == "study.journal" else content)
    except InfraError:
        write_place(paths, dataclasses.replace(place, state=UNREACHABLE))
        raise
    seen = dataclasses.replace(
        place,
        state=GONE if job is None else job["status"],
        message=(job or {}).get("message") or "",
        node=node,
        seen_at=time.time() if job is not None else place.seen_at,
    )
    write_place(paths, seen)
    return seen


def fetch_log(paths: StudyPaths, place: Place, number: int | None) -> int | None:
    """Copy a trial's log, as far as it has come.

    Args:
        paths: The study's folder here.
        place: Where it is driven.
        number: The trial, or None for the newest.

    Returns:
        Its number; None if no trial has run.
    """
    board = Dashboard(place.address)
    node = place.node
    if node is None:
        return None
    folder = f"{log_dir_alias(place.home)}/{paths.name}/trials"
    if number is None:
        found = board.names(node, f"{folder}/*/*train.log*")
        number = max((int(Path(name).parent.name) for name in found), default=None)
        if number is None:
            return None
    trial = paths.trial(number)
    there = {Path(name).name for name in board.names(node, f"{folder}/{number}/*train.log*")}
    for file in (trial.live_log, trial.log):
        if file.name in there:
            content = board.read(node, f"{folder}/{number}/{file.name}")
            if content is not None or not file.exists():
                write_bytes(file, content or b"")
    return number
