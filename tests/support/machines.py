"""Machines of a test's own: each with its network, host name, processes, Ray and temporary files.

A machine is a set of Linux namespaces, held by a process that sleeps in them. All hang on one
switch, in a network namespace of its own. Nothing of it is seen from outside, and all of it ends
with the processes that hold it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
KINDS = ("net", "mount", "uts", "pid")


def require_namespaces() -> None:
    """Skip the test where no machine can be made."""
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [word for word in ("ip", "unshare", "nsenter") if shutil.which(word) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install iproute2 util-linux")


class Holder:
    """New namespaces, and the process that keeps them."""

    def __init__(self, *kinds: str, script: str) -> None:
        self.kinds = kinds
        words = [f"--{kind}" for kind in kinds]
        command = ["unshare", *words, "--fork", "--kill-child", "sh", "-ec", script]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, **pipes, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n", script
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.pid = int(children.read_text())

    def inside(self, *words: str) -> list[str]:
        """A command as it is to be typed here in order to run there."""
        return ["nsenter", "--target", str(self.pid), *(f"--{k}" for k in self.kinds), *words]

    def run(self, *words: str) -> None:
        subprocess.run(self.inside(*words), check=True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@dataclass
class Machine:
    """One of them; the others find it at its address."""

    name: str
    address: str
    folder: Path
    holder: Holder

    def small_disk(self) -> Path:
        """Let its temporary files, trials among them, have 8 MB; where they are seen from here."""
        folder = self.folder / "tmp"
        self.holder.run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
        return Path(f"/proc/{self.holder.pid}/root{folder}")

    def environment(self) -> dict[str, str]:
        return {
            "TMPDIR": str(self.folder / "tmp"),
            "RAY_TMPDIR": "/tmp",  # a socket may not have a path longer than 107 bytes
            "RAY_AUTH_MODE": "disabled",
        }

    def ray(self, *words: str, **env: str) -> None:
        """`ray start`; returns when the node is up."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        usual = [
            f"--node-ip-address={self.address}",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
            "--no-monitor",  # nothing scales this cluster,
            "--include-log-monitor=false",  # and nobody reads Ray's logs as they grow
        ]
        for left in (2, 1, 0):
            done = subprocess.run(
                self.holder.inside(RAY, "start", *words, *usual),
                env=clean | self.environment() | env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if done.returncode == 0:
                return
            # Ray gives a node thirty seconds to come up, regardless of the load.
            assert left, done.stdout + done.stderr
            self.reset()

    def processes(self, *holding: str) -> dict[int, str]:
        """Command lines of its live processes that hold one of the words, by process id."""
        mine = Path(f"/proc/{self.holder.pid}/ns/pid").readlink()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.holder.pid:
                continue
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if (entry / "ns/pid").readlink() == mine and state != b"Z":
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if not holding or any(word in words for word in holding):
                        found[int(entry.name)] = words
        return found

    def send(self, number: signal.Signals, *holding: str) -> None:
        """Send a signal to its processes that hold one of the words."""
        found = self.processes(*holding)
        assert found, f"nothing on {self.name} holds {holding}"
        for pid in found:
            self.kill(pid, number)

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def ours(self) -> dict[int, str]:
        """What of pgolf-sweep runs there: workers, guards, scripts."""
        return self.processes("ray::Worker", "guard.py", "good.py", "faulty.py")

    def cut(self) -> None:
        """Pull the network's cable."""
        self.holder.run("ip", "link", "set", "eth0", "down")

    def remedy(self) -> None:
        """Put it back."""
        self.holder.run("ip", "link", "set", "eth0", "up")

    def reset(self) -> None:
        """End every process at once; the machine is up again, and empty."""
        deadline = time.monotonic() + 10.0
        while left := self.processes():
            assert time.monotonic() < deadline, left
            for pid in left:
                self.kill(pid)
            time.sleep(0.05)


class Network:
    """A switch and the machines on it.

    Args:
        folder: Temporary files of the machines go below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machines: list[Machine] = []
        script = "ip link add hub type bridge && ip link set hub up && echo up && exec sleep 1e9"
        self._switch = Holder("net", script=script)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        for machine in self._machines:
            machine.holder.close()
        self._switch.close()

    def machine(self, name: str) -> Machine:
        """A new machine."""
        folder = self._folder / name
        for part in ("ray", "tmp"):
            (folder / part).mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        script = (
            f"mount --make-rprivate / && mount --bind {folder}/ray /tmp/ray && hostname {name} && "
            "mount -t proc proc /proc && echo up && exec sleep 1e9"
        )
        holder = Holder(*KINDS, script=script)
        number = len(self._machines) + 1
        address = f"10.77.0.{number}"
        port = f"port{number}"
        pair = ["veth", "peer", "name", "eth0", "netns", str(holder.pid)]
        self._switch.run("ip", "link", "add", port, "type", *pair)
        self._switch.run("ip", "link", "set", port, "master", "hub", "up")
        holder.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            holder.run("ip", "link", "set", device, "up")
        machine = Machine(name, address, folder, holder)
        self._machines.append(machine)
        return machine
