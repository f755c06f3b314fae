"""The worker's end of a guard: start a script, read it, kill all of it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.launch.node.guard import descendants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pgolf_sweep.launch.node.forking import ForkServer

GUARD = Path(__file__).with_name("guard.py")

MARKER = "PGOLF_RUN"
"""Variable of every process of a run, by which those are found that left the guard's tree."""
ORPHAN_SECONDS = 30.0
"""From the guard's death until what has not died of SIGKILL is left to itself."""
PR_SET_CHILD_SUBREAPER = 36

_GUARDS: set[int] = set()
"""Process ids of this process's own children: all guards, and the fork server."""
_IS_SUBREAPER = False


class GuardedProcess:
    """A guard that waits for its script; see `pgolf_sweep.launch.node.guard` for the protocol.

    Made ahead of need: a Python process takes some 20 ms to start, which a slot would idle.

    Args:
        heartbeat_seconds: Without `heartbeat` for this long the guard kills the script and
            this process.
        server: Forks the guard, if given and alive; this process must be a subreaper.

    Attributes:
        output: File descriptor of everything that the script prints.
        status: File descriptor of the guard's lines.
        script_pid: Process and session id of the script, once `note_status` has read it.
        ended: ``(why, wait status)`` once nothing of the script runs any more.
        unkillable: Process ids of what runs all the same, since SIGKILL does not end it.
    """

    def __init__(self, heartbeat_seconds: float = 30.0, server: ForkServer | None = None) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._guard: subprocess.Popen[bytes] | ForkedGuard | None = None
        self._server: ForkServer | None = None
        control_reader, self._control = os.pipe()
        self.status, status_writer = os.pipe()
        self.output, output_writer = os.pipe()
        numbers = [str(control_reader), str(status_writer), str(heartbeat_seconds)]
        try:
            if server is not None:
                fds = (control_reader, status_writer, output_writer)
                with contextlib.suppress(OSError):
                    self._guard = ForkedGuard(server.fork_guard(fds, heartbeat_seconds))
                    self._server = server
            if self._guard is None:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", GUARD, *numbers],
                    stdin=subprocess.DEVNULL,
                    stdout=output_writer,
                    stderr=output_writer,
                    pass_fds=(control_reader, status_writer),
                    # Ctrl-C and other signals sent to the worker's group must not reach the guard.
                    start_new_session=True,
                )
            count_as_own(self._guard.pid)
        except OSError:
            self.close()
            raise
        finally:
            for fd in (control_reader, status_writer, output_writer):
                os.close(fd)
        self.script_pid: int | None = None
        self.ended: tuple[str, int] | None = None
        self.unkillable: tuple[int, ...] = ()
        self._unread = b""
        self._marker = ""
        self._known = children()

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        seconds: float,
        forkable: bool = False,
    ) -> None:
        """Order the script.

        Args:
            argv: What runs.
            cwd: Its working folder.
            env: Its whole environment.
            seconds: It is killed after this long.
            forkable: Whether it may run in a fork of the guard, where the guard is one itself.

        Raises:
            OSError: The guard is gone.
        """
        self._marker = env.get(MARKER, "")
        order: dict[str, object] = {"argv": list(argv), "cwd": str(cwd), "env": dict(env)}
        fork = forkable and self._server is not None and self._server.serves(env)
        order |= {"seconds": seconds, "fork": fork}
        data = json.dumps(order).encode() + b"\n"
        with self._lock:  # a heartbeat must not come between
            while data:
                data = data[os.write(self._control, data) :]

    @property
    def forked(self) -> bool:
        """Whether the fork server made the guard."""
        return self._server is not None

    @property
    def lives(self) -> bool:
        """Whether the guard can be ordered: somebody may kill it while it waits for a run."""
        hangup = select.poll()
        hangup.register(self.status, 0)
        return not hangup.poll(0)

    def kill(self) -> None:
        """Ask for the end of everything; safe from any thread, at any time, more than once."""
        self._say(b"k")

    def heartbeat(self) -> None:
        """Say that this process lives."""
        self._known |= children()  # its own; the run's orphans come only when the guard is gone
        self._say(b"h")

    def _say(self, word: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._open:  # a closed descriptor's number may belong to another file by now
                os.write(self._control, word)

    def note_status(self) -> bool:
        """Read what the guard says, after `status` became readable; False when it is gone."""
        data = os.read(self.status, 4096)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, *rest = line.decode().split()
            if word == "started":
                self.script_pid = int(rest[0])
            elif word == "ended":
                self.ended = (rest[0], int(rest[1]))
                self.unkillable = tuple(map(int, rest[2:]))
        if not data and self.ended is None and self.script_pid is not None:
            # Somebody killed the guard: the kernel took the script along, this the rest.
            self.unkillable = tuple(self._end_orphans(self.script_pid))
        return bool(data)

    def _end_orphans(self, session: int) -> list[int]:
        """Kill what the guard has left, and wait until it and its hold on a GPU are gone.

        Returns:
            Those that SIGKILL did not end in all the time that they had.
        """
        deadline = time.monotonic() + ORPHAN_SECONDS
        killed: set[int] = set()
        if self._guard is not None:
            # Its pipe closes before its children become ours, which its zombie shows.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(timeout=ORPHAN_SECONDS)
        while True:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(session, signal.SIGKILL)
            orphans = children() - self._known - _GUARDS if _IS_SUBREAPER else set()
            found = orphans | set(marked(self._marker) if self._marker else ())
            for pid in list(found):
                found.update(descendants(pid))
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            left = {pid for pid in found if lives(pid)}
            # Not before a pass that finds nobody: one that dies in a pass may leave its children
            # to us after we have looked.
            if time.monotonic() >= deadline or not (found or holds_gpu(killed)):
                return sorted(left)
            for pid in left:
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01 if found else 0.5)

    def close(self) -> None:
        """Close the pipes, which makes the guard kill what is left and end; collect it."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            for fd in (self._control, self.status, self.output):
                os.close(fd)
        if self._guard is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(timeout=5)


class ForkedGuard:
    """A guard that the fork server made: a child of this process, without a `Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False

    def wait(self, timeout: float) -> None:
        """Collect it.

        Raises:
            subprocess.TimeoutExpired: It lives on.
        """
        deadline = time.monotonic() + timeout
        while not self._ended:
            try:
                self._ended = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
            except ChildProcessError:
                self._ended = True
            if not self._ended:
                if time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired([str(GUARD)], timeout)
                time.sleep(0.002)


def count_as_own(pid: int) -> None:
    """Take a child for this process's own, not for an orphan of a run."""
    _GUARDS.add(pid)


def become_subreaper() -> None:
    """Have orphans of this process's children become its own, and so be found."""
    global _IS_SUBREAPER  # noqa: PLW0603 - a property of the process
    _IS_SUBREAPER = True
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Process ids of this process's children."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def marked(prefix: str) -> list[int]:
    """Processes of runs whose marker begins so; of others' processes nothing can be read."""
    wanted = f"\0{MARKER}={prefix}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in {b"Z", b"X"}


def holds_gpu(pids: AbstractSet[int]) -> bool:
    """Whether a GPU's driver still lists one of some dead processes: its memory is not free."""
    if not pids or shutil.which("nvidia-smi") is None:
        return False
    query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False  # the node check says more of it
    return not pids.isdisjoint({int(w) for w in done.stdout.split() if w.isdecimal()})


def exit_code(wait_status: int) -> int | None:
    """A wait status as an exit code, a signal as its negative number; None if unknown."""
    return None if wait_status < 0 else os.waitstatus_to_exitcode(wait_status)
