"""The worker's end of a guard: start a script, read it, kill all of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A guard that waits for its script; see `pgolf_sweep.launch.node.guard` for the protocol.

    Made ahead of need: a Python process takes some 20 ms to start, which a slot would idle.

    Args:
        heartbeat_seconds: Without `heartbeat` for this long the guard kills the script and
            this process.

    Attributes:
        output: File descriptor of everything that the script prints.
        status: File descriptor of the guard's lines.
        script_pid: Process and session id of the script, once `note_status` has read it.
        ended: ``(why, wait status)`` once nothing of the script runs any more.
        unkillable: Process ids of what runs all the same, since SIGKILL does not end it.
    """

    def __init__(self, heartbeat_seconds: float = 30.0) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._guard: subprocess.Popen[bytes] | None = None
        control_reader, self._control = os.pipe()
        self.status, status_writer = os.pipe()
        self.output, output_writer = os.pipe()
        numbers = [str(control_reader), str(status_writer), str(heartbeat_seconds)]
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", GUARD, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=output_writer,
                stderr=output_writer,
                pass_fds=(control_reader, status_writer),
                # Ctrl-C and other signals sent to the worker's group must not reach the guard.
                start_new_session=True,
            )
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

    def start(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], seconds: float
    ) -> None:
        """Order the script.

        Raises:
            OSError: The guard is gone.
        """
        order = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "seconds": seconds}
        data = json.dumps(order).encode() + b"\n"
        with self._lock:  # a heartbeat must not come between
            while data:
                data = data[os.write(self._control, data) :]

    def kill(self) -> None:
        """Ask for the end of everything; safe from any thread, at any time, more than once."""
        self._say(b"k")

    def heartbeat(self) -> None:
        """Say that this process lives."""
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
            # Somebody killed the guard: the kernel took the script along, this its session.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.script_pid, signal.SIGKILL)
        return bool(data)

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


def exit_code(wait_status: int) -> int | None:
    """A wait status as an exit code, a signal as its negative number; None if unknown."""
    return None if wait_status < 0 else os.waitstatus_to_exitcode(wait_status)
