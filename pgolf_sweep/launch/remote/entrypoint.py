"""The start of a command that was sent to the cluster.

    python -m pgolf_sweep.launch.remote.entrypoint KEY

Runs as a Ray job, on the head node. What the command needs waits in the cluster's store of
packages, in memory, under a key that nobody guesses; it is taken out here, once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InfraError, PgolfError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JOB_VARIABLE = "PGOLF_JOB"
"""Names the Ray job to a driver that is one."""

STDOUT_MARK = "stdout of the command, as JSON: "
"""Before the last line of a remote command's log: Ray keeps one log for both streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPayload:
    """A command and what it needs, on its way to the cluster.

    Attributes:
        words: The command, without the program's name.
        home: Folder on the cluster that holds ``runs`` and ``data``; ``~`` is the user's there.
        study: The study that it is about.
        begun: When the study began, as far as the sender knows; None for a new one.
        waited_for: Whether somebody waits for what it prints; else it drives a study.
        env: Environment variables, secrets among them.
        files: Content by relative path.
        folder: Below the folder of the files: where the command runs.
    """

    words: Sequence[str]
    home: str
    study: str
    begun: float | None = None
    waited_for: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    folder: str = "."

    def pack(self) -> bytes:
        """As bytes, which do not show a secret where a part of them should be printed."""
        document = {name: getattr(self, name) for name in self.__slots__ if name != "files"}
        encoded = {path: base64.b64encode(data).decode() for path, data in self.files.items()}
        return zlib.compress(json.dumps(document | {"files": encoded}).encode())

    @classmethod
    def unpack(cls, data: bytes) -> JobPayload:
        """What `pack` packed."""
        document = json.loads(zlib.decompress(data))
        files = {path: base64.b64decode(text) for path, text in document.pop("files").items()}
        return cls(**document, files=files)


def fetch_payload(key: str) -> JobPayload:
    """Take the payload out of the cluster's store, so that nobody finds it there again.

    Raises:
        InfraError: It is not there.
    """
    # By far the quickest way to the store.
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # noqa: PLC0415

    address = os.environ["RAY_ADDRESS"]
    store = GcsClient(address=address)
    data = store.internal_kv_get(key.encode(), None)
    if data is None:
        raise InfraError(
            "what this job was to run is not in the cluster's store",
            where=address,
            got="a job that was started twice, or RAY_ADDRESS names another cluster of this host",
            next_step="run the same command again",
        )
    store.internal_kv_del(key.encode(), False, None)
    return JobPayload.unpack(data)


def log_dir_alias(home: str) -> str:
    """Name, among the logs that Ray's dashboard serves, under which a folder's studies lie.

    Args:
        home: The folder, as the sender says it.
    """
    return f"pgolf-sweep-{hashlib.sha256(home.encode()).hexdigest()[:8]}"


def show_studies(runs: Path, link: Path) -> None:
    """Let the dashboard read the studies: it follows a link that lies among Ray's logs."""
    if link.is_symlink() and link.readlink() == runs:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(runs)
    fresh.replace(link)


def unpack_files(payload: JobPayload) -> Path:
    """Lay the files down in a folder of their own content; where the command is to run."""
    home = Path(payload.home).expanduser()
    digest = hashlib.sha256(json.dumps(sorted(payload.files)).encode())
    for path in sorted(payload.files):
        digest.update(hashlib.sha256(payload.files[path]).digest())
    sources = home / "sources" / f"{payload.study}-{digest.hexdigest()[:12]}"
    for path, content in payload.files.items():
        write_bytes(sources / path, content)
    folder = sources / payload.folder if payload.files else home
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_continues(payload: JobPayload, paths: StudyPaths) -> None:
    """Refuse to begin a study afresh that its sender knows as begun.

    Raises:
        InfraError: The study's folder is not here, or is of another study of the name.
    """
    if payload.begun is None:
        return
    found = read_json(paths.origin)["created_at"] if paths.origin.is_file() else None
    if found != payload.begun:
        raise InfraError(
            f"this cluster does not hold the study {payload.study!r} that was begun",
            where=str(paths.root),
            got="no such folder" if found is None else "another study of this name",
            next_step="put the folder back, or launch with --name NEW",
        )


def run_payload(key: str, job: str) -> None:
    """Become the command that was sent, or for a remote command run it and add what it printed.

    Args:
        key: Of the payload.
        job: Name of this Ray job.
    """
    payload = fetch_payload(key)
    home = Path(payload.home).expanduser()
    runs = home / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    log = Path("/proc/self/fd/1").readlink()  # Ray's, of this job
    show_studies(runs, log.with_name(log_dir_alias(payload.home)))
    os.chdir(unpack_files(payload))
    os.environ.setdefault("PGOLF_DATA", str(home / "data"))
    os.environ |= {**payload.env, "PGOLF_RUNS": str(runs), JOB_VARIABLE: job}
    command = [sys.executable, "-m", "pgolf_sweep", *payload.words]
    if not payload.waited_for:
        check_continues(payload, StudyPaths(runs / payload.study))
        os.execv(sys.executable, command)  # noqa: S606 - the job is the driver from here on
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(f"{STDOUT_MARK}{json.dumps(done.stdout)}\n")
    sys.exit(done.returncode)


def main() -> None:
    """Entry point of the job."""
    try:
        run_payload(*sys.argv[1:])
    except PgolfError as error:
        sys.stderr.write("error: " + "\n".join(error.lines()) + "\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
