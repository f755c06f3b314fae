"""Owner of one trial's process tree: none of its processes outlives the worker.

A program of its own, run as a file with ``python -I -S``: it imports the standard library only
and is started ahead of need, so that a trial does not wait for it. The worker holds the other
end of two pipes:

* control (guard reads): one line of JSON ``{"argv", "cwd", "env", "seconds", "fork"}`` starts the
  script, with ``fork`` in a fork of the guard itself, which then has torch imported;
  ``h`` at least every HEARTBEAT seconds says that the worker lives; ``k`` means "kill"; end of
  file means that the worker is gone, and kills too. So does a missing heartbeat: a frozen worker
  is killed as well, since nobody else can and it holds its GPUs until then.
* status (guard writes): ``started PID``, then ``ended WHY STATUS [PID...]``, WHY one of exit,
  killed, timeout, orphaned and STATUS the script's wait status. Nothing of the trial runs any more
  when ``ended`` is written, but for the PIDs: what hangs in the kernel (a GPU, NFS) and does not
  die of SIGKILL. Nobody can do more to it, and whoever waits for the end must not hang, too.

torchrun gives each rank a session of its own, so killing one process group is not enough. The
guard is a subreaper: every orphan below it becomes its child, however often it forked and
regardless of its sessions. Without children there are therefore no descendants either.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # importing `typing` would double the time to start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GRACE_SECONDS = 1.0
"""From SIGTERM to SIGKILL: a pruned trial must be gone within three seconds."""
UNDYING_SECONDS = 30.0
"""From the first SIGKILL until what has not died is left to itself."""
PARENT_CHECK_SECONDS = 1.0

DEFAULT_IN_SCRIPT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class Guard:
    """One script and everything that it starts."""

    def __init__(
        self,
        control: int,
        status: int,
        heartbeat_seconds: float,
        in_fork: Callable[[list[str], dict[str, str]], object] | None = None,
    ) -> None:
        self.control = control
        self.heartbeat_seconds = heartbeat_seconds
        self.heard_at = time.monotonic()
        self.status = status
        self.parent = os.getppid()
        self.script = 0
        self.wait_status: int | None = None
        self.told_to_stop = False
        self.in_fork = in_fork
        self.wake, wake_writer = os.pipe()
        self.own_fds = (control, status, self.wake, wake_writer)
        for fd in (self.wake, wake_writer):
            os.set_blocking(fd, False)
        for fd in (control, status):
            os.set_inheritable(fd, False)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        # An empty handler, since only a handled signal writes to the wake-up pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        # Ray's processes block SIGINT, and a mask is inherited through exec.
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def _stop(self, *_: object) -> None:
        self.told_to_stop = True

    def run(self) -> None:
        """Wait for the order, run it, report its end; return when nothing is left."""
        line, extra = self._read_order()
        if not line:
            self._end_worker()
            return
        order = json.loads(line)
        deadline = time.monotonic() + order["seconds"]
        self.script = self._start(order)
        self._tell(f"started {self.script}")
        # The script's output ends when its own processes close it; ours must not keep it open.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        why = "killed" if b"k" in extra else self._watch(deadline)
        unkillable = self._end_tree()
        status = self.wait_status if self.wait_status is not None else -1
        self._tell(" ".join(map(str, ("ended", why, status, *unkillable))))
        self._end_worker()

    def _read_order(self) -> tuple[bytes, bytes]:
        """The order, and what was read behind it; empty if there will be none."""
        data = b""
        poller = select.poll()
        poller.register(self.control, select.POLLIN | select.POLLHUP)
        while b"\n" not in data:
            if poller.poll(PARENT_CHECK_SECONDS * 1000):
                chunk = os.read(self.control, 1 << 16)
                self.heard_at = time.monotonic()
                data += chunk
                if not chunk or b"k" in data.partition(b"{")[0]:
                    return b"", b""
            elif self._worker_is_frozen() or self.told_to_stop:
                return b"", b""
        line, _, extra = data.lstrip(b"h").partition(b"\n")
        return line, extra

    def _worker_is_frozen(self) -> bool:
        return time.monotonic() - self.heard_at > self.heartbeat_seconds

    def _end_worker(self) -> None:
        if self._worker_is_frozen():
            # Nobody listened while the tree was being ended; the end of the file is a word, too.
            poller = select.poll()
            poller.register(self.control, select.POLLIN | select.POLLHUP)
            # Only while it is still our parent does the id belong to it.
            if not poller.poll(0) and os.getppid() == self.parent:
                _signal(self.parent, signal.SIGKILL)

    def _start(self, order: dict[str, Any]) -> int:
        argv, cwd, env = order["argv"], order["cwd"], order["env"]
        # Between fork and exec our handler must not swallow a SIGTERM meant for the script.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            return pid
        try:
            os.setsid()
            # Should the guard itself be killed, at least the script goes with it.
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            for number in DEFAULT_IN_SCRIPT:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.chdir(cwd)
            if order["fork"] and self.in_fork:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in self.own_fds:
                    os.close(fd)
                self.in_fork(argv, env)
            os.execvpe(argv[0], argv, env)  # noqa: S606  there is no shell to want here
        except OSError as error:
            os.write(2, f"pgolf-sweep: cannot start {argv[0]} in {cwd}: {error}\n".encode())
        os._exit(127)

    def _watch(self, deadline: float) -> str:
        poller = select.poll()
        poller.register(self.control, select.POLLIN | select.POLLHUP)
        poller.register(self.wake, select.POLLIN)
        while True:
            self._reap()
            if self.wait_status is not None:
                return "exit"
            if self.told_to_stop:
                return "killed"
            if os.getppid() != self.parent or self._worker_is_frozen():
                return "orphaned"
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            for fd, _ in poller.poll(min(left, PARENT_CHECK_SECONDS) * 1000):
                data = os.read(fd, 1024)
                if fd == self.control:
                    self.heard_at = time.monotonic()
                    if not data:
                        return "orphaned"
                    if b"k" in data:
                        return "killed"

    def _reap(self) -> bool:
        """Collect the dead; whether a child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.script:
                self.wait_status = status

    def _end_tree(self) -> list[int]:
        """SIGTERM to every descendant, SIGKILL after the grace, again until none is left.

        Returns:
            Those that SIGKILL did not end in all the time that they had.
        """
        grace_end = time.monotonic() + GRACE_SECONDS
        asked: set[int] = set()
        while self._reap():
            kill = time.monotonic() >= grace_end
            left = descendants(os.getpid())
            if time.monotonic() >= grace_end + UNDYING_SECONDS:
                return left
            for pid in left:
                if kill:
                    _signal(pid, signal.SIGKILL)
                elif pid not in asked:
                    asked.add(pid)
                    _signal(pid, signal.SIGTERM)
                    _signal(pid, signal.SIGCONT)  # a stopped process would not hear the other
            time.sleep(0.005)
        return []

    def _tell(self, line: str) -> None:
        # The control pipe shows a worker that is gone, too.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.status, f"{line}\n".encode())


def _signal(pid: int, number: int) -> None:
    # Gone meanwhile; or a setuid program, which nothing of a trial is.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(root: int) -> list[int]:
    """Process ids of everything below a process, from ``/proc``."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  pathlib doubles the time to start
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123  likewise
                # The command's name may hold blanks and parentheses: count from its last one.
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found.extend(below)
        queue.extend(below)
    return found


if __name__ == "__main__":
    Guard(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).run()
