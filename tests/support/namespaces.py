"""A part of this machine with processes, network, mounts and host name of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[2]
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child")
NEEDED = ("ip", "unshare", "nsenter", "setpriv")


def why_not(*programs: str) -> str | None:
    """What keeps a room with some programs in it from being made here, or None."""
    path = environment()["PATH"]
    missing = [name for name in (*NEEDED, *programs) if shutil.which(name, path=path) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    made = "ip link add bridge type bridge && mount -t tmpfs tmpfs /srv"
    tried = subprocess.run(
        [*UNSHARE, "--mount-proc", "sh", "-c", made],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode != 0 else None


def environment() -> dict[str, str]:
    """Ours without what other tests set, and with the folders of a system's programs."""
    ours = ("SLURM_", "RAY_", "PGOLF_", "WANDB_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # Ray gives a node thirty seconds to start, which a loaded machine does not keep.
    storage_retry = {"RAY_raylet_start_wait_time_s": "200"}
    return clean | storage_retry | {"PATH": f"{clean['PATH']}:/usr/sbin:/sbin"}


class Room:
    """Namespaces that last while the context is open; their first process is a bash script's.

    Args:
        folder: Where its log goes, and the home of commands in it.
        script: What bash is given: a file and its arguments, or ``-c`` and a command.
    """

    def __init__(self, folder: Path, *script: str) -> None:
        self.folder = folder
        # Ours may hold a token that Ray would ask for.
        self.home = str(folder)
        self._script = script
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        """Start the script."""
        # Ends with this process, however that ends; and everything in the namespaces with it.
        command = ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "--mount-proc", "bash"]
        with (self.folder / "room.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._script],
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_for(self._inside, 10.0)
        return self

    def __exit__(self, *details: object) -> None:
        """End every process in it."""
        self._process.kill()
        self._process.wait(20.0)

    def _inside(self) -> str:
        """Process id of the script, or nothing while it is being started."""
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return task.read_text().strip()

    def enter(
        self, command: str, *, timeout: float = 60.0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        words = ["nsenter", "-t", self._inside(), "-m", "-n", "-p", "-u", "bash", "-c"]
        return subprocess.run(
            [*words, f"cd {self.home} && {command}"],
            env=environment() | {"HOME": self.home} | env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, command: str, **env: str) -> str:
        """What a command says, or nothing if it fails."""
        done = self.enter(command, **env)
        return done.stdout.strip() if done.returncode == 0 else ""

    def processes(self) -> list[str]:
        """Command lines of all processes inside."""
        return self.run("ps axo args=").splitlines()

    def log(self) -> str:
        """What was said inside."""
        return (self.folder / "room.log").read_text(errors="replace")[-3000:]

    def wait_for(self, what: Callable[[], object], seconds: float) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while not what():
            assert self._process.poll() is None, f"it ended: {self.log()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {self.log()}"
            time.sleep(0.5)
