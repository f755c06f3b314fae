"""Runs trials on a node: one at a time, kept for as long as its slot exists.

A plain class that knows nothing of Ray, so that it is tested without; `pgolf_sweep.launch.ray`
makes an actor of it. The driver starts a run and then keeps polling it: a worker that is not
spoken to for `lease_seconds` takes the driver for gone and ends the run, and itself with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

from pgolf_sweep.core.trial import EndCause
from pgolf_sweep.launch.node.forking import ForkServer
from pgolf_sweep.launch.node.identity import Identity, own_identity
from pgolf_sweep.launch.node.process import MARKER, GuardedProcess, become_subreaper, marked
from pgolf_sweep.launch.node.run import FOLDER_PREFIX, Cursor, Progress, Run, RunOrder
from pgolf_sweep.nodes.check import CheckOrder, NodeReport, look

GATHER_SECONDS = 0.2
"""How long a poll gathers reports and log before it answers; starts and ends answer at once."""
CLOSE_SECONDS = 5.0


class Worker:
    """One slot's hands. Its methods may be called from several threads.

    Args:
        scratch: Folder on the node below which runs get folders of their own; None for one in
            the system's temporary folder.
        lease_seconds: Longest time without a call before the driver is taken for gone.
        heartbeat_seconds: This process, should it freeze, and its run are killed after this long.
        exit_when_alone: End this process when its parent (Ray's daemon on the node) or the driver
            is gone.
    """

    def __init__(
        self,
        scratch: Path | None = None,
        lease_seconds: float = 120.0,
        heartbeat_seconds: float = 30.0,
        exit_when_alone: bool = False,
    ) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir()) / f"pgolf-sweep-{os.getuid()}"
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._exit_when_alone = exit_when_alone
        self._parent = os.getppid()
        self._heard_at = time.monotonic()
        self._changed = threading.Condition()
        self._run: Run | None = None
        self._cancelled: dict[str, tuple[EndCause, str]] = {}
        self._unharvested: dict[str, Run] = {}
        self._closed = threading.Event()
        if exit_when_alone:
            become_subreaper()
        self._forks: ForkServer | None = None
        self._spare: GuardedProcess | None = GuardedProcess(heartbeat_seconds)
        remove_leftovers(self._scratch)
        threading.Thread(target=self._keep_watch, name="watch", daemon=True).start()

    def ready(self) -> Identity:
        """Who it is and which copy of the program it runs; an answer says that it is up."""
        return own_identity()

    def check(self, order: CheckOrder) -> NodeReport:
        """What the node is like; takes seconds, and longer where something hangs."""
        return look(order, self._scratch)

    def hold(self, seconds: float) -> None:
        """Wait this long, or until the worker is closed.

        Asked again and again, it tells both sides that the other is there, also between two runs;
        a call that breaks off tells of a dead worker at once.
        """
        self._heard_at = time.monotonic()
        self._closed.wait(seconds)

    def start(self, order: RunOrder) -> None:
        """Start a run and return at once; its end reports what went wrong."""
        with self._changed:
            self._heard_at = time.monotonic()
            guard, self._spare = self._spare, None
            if guard is not None and not guard.lives:
                guard.close()
                guard = None
            guard = guard or GuardedProcess(self._heartbeat_seconds)
            run = self._run = Run(order, self._changed, guard)
            if order.tracking is not None:
                self._unharvested[order.run] = run
            cancelled = self._cancelled.pop(order.run, None)
            self._changed.notify_all()
        if cancelled is not None:
            run.stop(*cancelled)
        arguments = (self._scratch, lambda: self._prepare_guard(run))
        threading.Thread(target=run.go, args=arguments, name="run", daemon=True).start()

    def _prepare_guard(self, run: Run) -> None:
        # Without one the next start makes its own, or says why it cannot.
        with self._changed, contextlib.suppress(OSError):
            if self._spare is None and not self._closed.is_set():
                self._spare = GuardedProcess(self._heartbeat_seconds, self._fork_server(run))

    def _fork_server(self, run: Run) -> ForkServer | None:
        """What forks the next trial if it is like this one; made for the second such trial on."""
        env = run.forkable_env
        if env is None or not self._exit_when_alone:  # only a subreaper gets the forked guards
            return None
        if self._forks is None or not self._forks.serves(env):
            self._close_forks()
            self._forks = ForkServer(env)
        return self._forks if self._forks.ready() else None

    def _replace(self, spare: GuardedProcess) -> None:
        """Have a forked guard wait for the next trial, now that there is a fork server."""
        with self._changed, contextlib.suppress(OSError):
            if self._spare is not spare or self._closed.is_set():
                return
            self._spare = GuardedProcess(self._heartbeat_seconds, self._forks)
        spare.close()

    def _close_forks(self) -> None:
        forks, self._forks = self._forks, None
        if forks is not None:
            forks.close()

    def poll(self, run: str, cursor: Cursor, timeout_seconds: float) -> Progress:
        """What is new of a run since a cursor; waits at most this long for something.

        Args:
            run: `RunOrder.run`; its order may still be on its way to the worker.
            cursor: `BEGINNING`, then that of the last answer: what lies before is forgotten.
            timeout_seconds: Longest wait.
        """
        begun = self._heard_at = time.monotonic()
        with self._changed:
            while True:
                waited = time.monotonic() - begun
                current = self._run
                if current is None or current.order.run != run:
                    current = None
                    urgent = some = False
                else:
                    urgent, some = current.news(cursor)
                if urgent or waited >= (GATHER_SECONDS if some else timeout_seconds):
                    break
                self._changed.wait(GATHER_SECONDS)
            progress = Progress(cursor=cursor) if current is None else current.progress(cursor)
        if current is not None and progress.end is not None:
            current.remove_files()
        return progress

    def cancel(self, run: str, reason: str, cause: EndCause = EndCause.CANCELLED) -> None:
        """End a run, even one whose order has not arrived yet."""
        with self._changed:
            current = self._run
            if current is None or current.order.run != run:
                self._cancelled[run] = (cause, reason)
                return
        current.stop(cause, reason)

    def harvest(self, run: str, timeout_seconds: float) -> dict[str, bytes]:
        """Wait for a run's tracker to finish and take its offline files, by relative path.

        Apart from the run's end, so that a slot does not wait for W&B.
        """
        tracked = self._unharvested.pop(run, None)
        return {} if tracked is None else tracked.harvest(timeout_seconds)

    def close(self) -> None:
        """End what runs, and this process where it is the worker's own."""
        with self._changed:
            self._closed.set()
            current = self._run
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()
        self._close_forks()
        if current is not None:
            current.stop(EndCause.CANCELLED, "the launcher was closed")
            current.done.wait(CLOSE_SECONDS)
        if self._exit_when_alone:
            # Ray's own kill comes first unless its daemon is frozen. An end that is not Ray's doing
            # counts as a fault for Ray.
            last = threading.Timer(CLOSE_SECONDS, os._exit, (0,))
            last.daemon = True
            last.start()

    def _keep_watch(self) -> None:
        while not self._closed.wait(min(1.0, self._heartbeat_seconds / 4)):
            spare, current = self._spare, self._run
            if spare is not None:
                spare.heartbeat()
                if not spare.forked and self._forks is not None and self._forks.ready():
                    self._replace(spare)
            if current is not None and current.done.is_set():
                current = None
            if current is not None:
                current.heartbeat()
            alone = self._alone()
            if alone is None:
                continue
            if current is not None:
                current.stop(EndCause.LOST, alone)
            if self._exit_when_alone:
                if current is not None:
                    current.done.wait(CLOSE_SECONDS)
                os._exit(1)  # Ray would leave this process running forever

    def _alone(self) -> str | None:
        """Why nobody will want what this worker does any more, or None."""
        if self._exit_when_alone and os.getppid() != self._parent:
            return "the node's Ray daemon is gone"
        silence = time.monotonic() - self._heard_at
        if silence > self._lease_seconds:
            return f"the driver was silent for {silence:.0f} s"
        return None


def remove_leftovers(scratch: Path) -> None:
    """End what workers left that were killed here, and remove their folders.

    Only of this namespace of processes, and of this host: elsewhere an id says nothing.
    """
    for left in marked(FOLDER_PREFIX):
        with contextlib.suppress(OSError, IndexError, ValueError):
            environ = Path(f"/proc/{left}/environ").read_bytes()
            marker = environ.partition(f"{MARKER}={FOLDER_PREFIX}".encode())[2]
            if not Path("/proc", str(int(marker.partition(b"-")[0]))).exists():
                os.kill(left, signal.SIGKILL)
    for folder in scratch.glob(f"{FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
