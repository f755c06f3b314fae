"""A Ray cluster as a user starts one, with its dashboard: `ray start --head` on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from support.terminal import Terminal


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Head:
    """The head node, with a Python of its own that lacks our packages: they have to travel.

    Args:
        machine: Where it runs; what it starts is found by the terminal's mark.
    """

    def __init__(self, machine: Terminal) -> None:
        self.machine = machine
        self.ports = free_ports(4)
        # Sockets lie below, and the kernel takes no long names for them.
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        python = self.folder / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", python], check=True)
        [packages] = python.glob("lib/python*/site-packages")
        (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"])
        self.path = f"{python / 'bin'}:{os.environ['PATH']}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def sessions(self) -> Path:
        return self.folder / "ray"

    def start(self) -> None:
        port, dashboard, agent, client = map(str, self.ports)
        words = ["--head", "--block", "--temp-dir", str(self.sessions), "--port", port]
        words += ["--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
        words += ["--ray-client-server-port", client, "--node-ip-address", "127.0.0.1"]
        words += ["--min-worker-port", "0", "--max-worker-port", "0"]
        words += ["--num-cpus", "2", "--num-gpus", "0", "--object-store-memory", "100000000"]
        env = self.machine.environment(PATH=self.path, RAY_USAGE_STATS_ENABLED="0")
        with (self.folder / "head.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["python", "-m", "ray.scripts.scripts", "start", *words],
                cwd=self.machine.folder,
                env=env | {"RAY_AUTH_MODE": "disabled"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90.0
        while not self._answers():
            said = (self.folder / "head.log").read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    def _answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.address}/api/jobs/", timeout=5.0).ok
        return False

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that were submitted, as Ray shows them."""
        found = requests.get(f"{self.address}/api/jobs/", timeout=30.0).json()
        return [job for job in found if job["submission_id"]]

    def end(self) -> None:
        """End it as the cut of its power does, and what runs on it."""
        if self.process is None:
            return
        deadline = time.monotonic() + 60.0
        while left := self._running():
            assert time.monotonic() < deadline, left
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.2)
        self.process.wait(10.0)
        self.process = None

    def _running(self) -> set[int]:
        """What it began: by the terminal's mark, or by its session where Ray hides the mark."""
        assert self.process is not None
        found = set(self.machine.processes())
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(ValueError, OSError):
                state, session = self._state_and_session(int(entry.name))
                if session == self.process.pid and state != "Z":
                    found.add(int(entry.name))
        return found

    @staticmethod
    def _state_and_session(pid: int) -> tuple[str, int]:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return words[0], int(words[3])

    def close(self) -> None:
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)
