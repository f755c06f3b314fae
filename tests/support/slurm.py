"""A real Slurm in namespaces of this machine; `slurm_room.sh` says what it consists of."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = Path(__file__).parent / "slurm_room.sh"
PROJECT = Path(__file__).parents[2]
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "rsync", "ip", "unshare", "nsenter", "setpriv")
NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")


@functools.cache
def why_not() -> str | None:
    """What keeps Slurm from running here, or None."""
    missing = [name for name in NEEDED if shutil.which(name, path=_environment()["PATH"]) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client rsync)"
    bridge = "ip link add bridge type bridge && mount -t tmpfs tmpfs /srv"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "sh", "-c", bridge],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"no network or mount namespaces here: {tried.stderr.strip()}"
    return None


def _environment() -> dict[str, str]:
    ours = ("SLURM_", "RAY_", "PGOLF_", "WANDB_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return clean | {"PATH": f"{clean['PATH']}:/usr/sbin:/sbin"}


class Slurm:
    """A Slurm that runs while the context is open; its shared file system is a folder."""

    def __init__(self, shared: Path, *, nodes: int) -> None:
        self.shared = shared
        self._nodes = nodes
        self._room: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        """Start it, and wait until its nodes take jobs."""
        self.shared.mkdir()
        # Ends with this process, however that ends; and everything in the namespaces with it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "bash", str(ROOM)]
        with (self.shared.parent / "room.log").open("wb") as log:
            self._room = subprocess.Popen(
                [*command, str(self._nodes), str(self.shared), str(PROJECT)],
                env=_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.wait_for(self._inside, 10.0)
            self.wait_for(lambda: self.run("sinfo -h -o %T") == "idle", 60.0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        """End every process of it."""
        self._room.kill()
        self._room.wait(20.0)

    def _inside(self) -> str:
        """Process id of the first process in the namespaces, or nothing."""
        children = Path(f"/proc/{self._room.pid}/task/{self._room.pid}/children")
        return children.read_text().strip()

    def enter(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of the cluster does, in the shared folder."""
        words = ["nsenter", "-t", self._inside(), "-m", "-n", "-p", "-u", "bash", "-c"]
        return subprocess.run(
            [*words, f"cd /srv && {script}"],
            env=_environment() | env,
            capture_output=True,
            text=True,
            timeout=60.0,
            check=False,
        )

    def run(self, script: str, **env: str) -> str:
        """What a command says, or nothing if it fails."""
        done = self.enter(script, **env)
        return done.stdout.strip() if done.returncode == 0 else ""

    def processes(self) -> list[str]:
        """Command lines of all processes on the nodes and beside them."""
        return self.run("ps axo args=").splitlines()

    def log(self) -> str:
        """What the jobs and the daemons said last."""
        files = [self.shared.parent / "room.log", *self.shared.glob("log/*")]
        files += self.shared.glob("*.log")
        said = [f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files]
        return "\n".join(said)

    def wait_for(self, what: Callable[[], object], seconds: float) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while not what():
            assert self._room.poll() is None, f"Slurm ended: {self.log()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {self.log()}"
            time.sleep(0.5)
