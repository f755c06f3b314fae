"""One run of a script on a node, from its order to its end; the worker's inner half."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.paths import TrialPaths, is_inside
from pgolf_sweep.core.secrets import is_secret_name, redacted, secret_values
from pgolf_sweep.core.trial import TRAIN, EndCause, LogSummary, RunEnd, TrainingReuse
from pgolf_sweep.launch.node import checkpoints
from pgolf_sweep.launch.node.bounded_log import BoundedLog
from pgolf_sweep.launch.node.environment import environment, read_places, withheld
from pgolf_sweep.launch.node.forking import forkable
from pgolf_sweep.launch.node.identity import DEVICES
from pgolf_sweep.launch.node.process import MARKER, exit_code
from pgolf_sweep.launch.node.tracker_thread import TrackerFeed
from pgolf_sweep.launch.node.wandb_lines import WandbJoin
from pgolf_sweep.script.command import ARGS_JSON_FILE, PARAMETERS_FILE, on_node
from pgolf_sweep.script.logs.metric import MetricStream
from pgolf_sweep.script.logs.stream import LogStream
from pgolf_sweep.script.logs.tail import TAIL_BYTES, last_lines
from pgolf_sweep.script.requirements import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.core.trial import StepReport, TrialSpec
    from pgolf_sweep.launch.node.process import GuardedProcess
    from pgolf_sweep.track.base import RunTracking

LOG_CHUNK_BYTES = 4 << 20
REPORTS_KEPT = 10_000
"""Unfetched reports of a script gone wild; the oldest go first."""
LAST_WORDS_SECONDS = 2.0
"""For what is in the pipe after the last process is gone."""
OOM_SECONDS = 10.0
"""Between the kernel's killing one rank for lack of memory and the end of the others."""
RAW_CHECKPOINTS = frozenset({".pt", ".safetensors"})
CHECKPOINT_BYTES = 1_000_000
"""Raw checkpoints larger than this stay behind."""

WITHHELD = "set on the node and withheld from the script (pgolf.env.pass names what it gets)"
INSTALL_FIRST = "install it where the trials run, then launch again"

Cursor = tuple[int, int]
"""What a driver has seen of a run: (1 + reports, once it has started), (log bytes)."""
BEGINNING: Cursor = (0, 0)


def _folder_prefix() -> str:
    namespace = 0
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"run-{namespace}-{socket.gethostname()}-"


FOLDER_PREFIX = _folder_prefix()
"""Of a run's folder; then the worker's process id, which says nothing on another host, nor in
another container of this one that shares the disk."""


FOLDER_REMOVED = (
    "the script removed its own working folder, and its files with it; let it clean up below a "
    "folder that it made"
)


class _UnmetError(Exception):
    """The node lacks a package; the text says which, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One run, as sent to a worker.

    Attributes:
        run: Unique for the worker.
        node: The node's name as the driver tells it to people.
        devices: GPUs, by CUDA_VISIBLE_DEVICES, where they are more than this worker's own.
    """

    run: str
    node: str
    spec: TrialSpec
    files: Mapping[str, bytes]
    tracking: RunTracking | None = None
    reuse: TrainingReuse = field(default_factory=TrainingReuse)
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a poll brings: everything new since the cursor that was given.

    Attributes:
        cursor: To give to the next poll.
        started_at: Epoch seconds, once the script's process exists.
        log: The next bytes of the log.
        end: Set in the last answer, when all of the log has been fetched.
        files: With the end: what the run left, by path relative to its folder.
        unkillable: With the end: what of the run could not be ended, in a sentence; or nothing.
    """

    cursor: Cursor
    started_at: float | None = None
    reports: tuple[StepReport, ...] = ()
    log: bytes = b""
    end: RunEnd | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    unkillable: str = ""


class Run:
    """One run. `go` is its thread; the worker calls the rest.

    Args:
        order: What to run.
        changed: Notified at each start, report and end; its lock guards the run.
        guard: Waits for the script.
    """

    def __init__(
        self, order: RunOrder, changed: threading.Condition, guard: GuardedProcess
    ) -> None:
        self.order = order
        self.done = threading.Event()
        self.feed: TrackerFeed | None = None
        self.forkable_env: dict[str, str] | None = None
        self._changed = changed
        self._guard = guard
        self._stopped: tuple[EndCause, str] | None = None
        self._fault = ""  # of node or worker; what came of the run cannot be believed
        self._removed = False  # its folder, by the script
        metric = order.spec.metric
        self._stream = LogStream() if metric.contest else MetricStream(metric)
        self._joined: WandbJoin | None = None
        self._tail = b""
        self._reports: deque[StepReport] = deque()
        self._forgotten = 0  # reports that are no longer in the deque
        self._held_from = time.monotonic()
        self._oom_kills = oom_kills()
        self._oom_at = float("-inf")
        self._started_at: float | None = None
        self._folder: Path | None = None
        self._log: BoundedLog | None = None
        self._end: RunEnd | None = None
        self._files: dict[str, bytes] = {}
        self._unkillable = ""
        self._start_at = TRAIN
        self._checkpoint_bytes: int | None = None
        self._secrets = secret_values({**os.environ, **order.spec.env})

    # ---- for the worker; the caller holds the lock ------------------------------------------

    def news(self, cursor: Cursor) -> tuple[bool, bool]:
        """Whether there is something to say at once, and whether there is anything at all."""
        urgent = self._end is not None or (self._started_at is not None and cursor[0] == 0)
        reports = self._forgotten + len(self._reports) > max(0, cursor[0] - 1)
        return urgent, reports or (self._log is not None and self._log.size > cursor[1])

    def progress(self, cursor: Cursor) -> Progress:
        """The answer to a poll; what lies before the cursor is forgotten."""
        while self._reports and self._forgotten < cursor[0] - 1:
            self._reports.popleft()
            self._forgotten += 1
        log = self._log.read(cursor[1], LOG_CHUNK_BYTES) if self._log else b""
        offset = cursor[1] + len(log)
        complete = self._end is not None and (self._log is None or offset >= self._log.size)
        started = self._started_at is not None
        return Progress(
            cursor=(1 + self._forgotten + len(self._reports) if started else 0, offset),
            started_at=self._started_at,
            reports=tuple(self._reports),
            log=log,
            end=self._end if complete else None,
            files=self._files if complete else {},
            unkillable=self._unkillable if complete else "",
        )

    # ---- for the worker; the caller does not hold the lock ----------------------------------

    def stop(self, cause: EndCause, reason: str) -> None:
        """End the run; the first reason given stays."""
        with self._changed:
            self._stopped = self._stopped or (cause, reason)
        self._guard.kill()

    def heartbeat(self) -> None:
        """Tell the guard that the worker lives."""
        self._guard.heartbeat()

    def remove_files(self) -> None:
        """Free the node's disk and memory; the tracker's files stay until they are harvested."""
        with self._changed:
            log, self._log, self._files = self._log, None, {}
        if log is not None:
            log.close()
        if self._folder is not None:
            doomed = self._folder if self.feed is None else self._folder / "work"
            threading.Thread(target=shutil.rmtree, args=(doomed, True), daemon=True).start()

    def harvest(self, timeout_seconds: float) -> dict[str, bytes]:
        """The tracker's offline files once it has finished; then nothing of the run is left."""
        if self.feed is None or self._folder is None:
            return {}
        files = self.feed.offline_files(timeout_seconds)
        if self.feed.finished:  # else W&B writes there still
            shutil.rmtree(self._folder, ignore_errors=True)
        return files

    # ---- the run's own thread ----------------------------------------------------------------

    def go(self, scratch: Path, prepare_next: Callable[[], None]) -> None:
        """Run the script to its end, of any kind.

        Args:
            scratch: Folder on the node below which the run makes its own.
            prepare_next: Called while the script runs.
        """
        reuse = self.order.reuse
        try:
            work = self._set_up(scratch)
            prepare_next()
            self._follow()
            self._collect(work)
            if self._guard.ended == ("exit", 0) and self._start_at == TRAIN:
                self._checkpoint_bytes = checkpoints.leave(reuse, work, self._say)
        except _UnmetError as error:
            self.stop(EndCause.MISSING_DEPENDENCY, str(error))
        except OSError as error:
            self._fail(f"the node refused: {error}")
        except Exception as error:
            self._fail(f"the worker failed: {error!r}")
            raise
        finally:
            # After a fault of ours, too: a run always has an end, and nothing of it is left.
            if self._guard.ended is None:
                self._guard.close()
            try:
                self._finish()
            finally:
                self._guard.close()

    def _set_up(self, scratch: Path) -> Path:
        spec = self.order.spec
        scratch.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=scratch))
        work = self._folder / "work"
        work.mkdir()
        for name, content in {**self.order.files, **self.order.reuse.files}.items():
            if not is_inside(name):
                raise OSError(errno.EINVAL, "leaves the run's folder", name)
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._log = BoundedLog(self._folder / "log", spec.limits.log_bytes)
        self._check_requirements()
        if names := withheld(spec, self.order.files, os.environ):
            self._take(f"pgolf-sweep: {WITHHELD}: {', '.join(names)}\n".encode())
        places = read_places(spec, self.order.files, os.environ)
        argv, env = command(spec, os.environ), environment(spec, os.environ, places)
        if ARGS_JSON_FILE in spec.argv:
            (work / PARAMETERS_FILE).write_text(json.dumps(dict(spec.config)))
        if WandbJoin.concerns(self.order.files):
            self._joined = WandbJoin(self._folder / "join", spec.config)
            env = self._joined.environment(env)
        self._start_at, taken_over = checkpoints.take_over(self.order.reuse, work, self._say)
        env |= taken_over
        if self.order.devices:
            env[DEVICES] = ",".join(self.order.devices)
        env[MARKER] = f"{FOLDER_PREFIX}{os.getpid()}-{self.order.run}"
        alike = spec.resources.gpus == 0 and forkable(argv, self.order.files)
        self.forkable_env = env if alike else None
        seconds = spec.limits.total_seconds
        self._guard.start(argv, cwd=work, env=env, seconds=seconds, forkable=alike)
        if self._stopped is not None:
            self._guard.kill()  # stopped before there was anything to kill
        tracking = self.order.tracking
        if tracking is not None and tracking.mode != "disabled":
            self.feed = TrackerFeed(tracking, self._folder / "track")
        return work

    def _collect(self, work: Path) -> None:
        """Keep what the run left.

        A cleaner of the node takes the whole of the run's folder; a script takes where it works.
        """
        try:
            self._files = collect(work)
        except FileNotFoundError:
            if work.exists() or not (work.parent / "log").exists():
                raise
            self._removed = True

    def _say(self, text: str) -> None:
        """Write a line of ours into the log."""
        self._take(f"pgolf-sweep: {self._safe(text)}\n".encode())

    def _check_requirements(self) -> None:
        """Refuse the run where a package is missing; say it where only its version differs."""
        lacks = lacking(self.order.files, self.order.spec.program_name)
        missing = [lack.sentence for lack in lacks if lack.installed is None]
        for lack in lacks:
            self._take(f"pgolf-sweep: {lack.sentence}\n".encode())
        if missing:
            raise _UnmetError(f"{'; '.join(missing)}; {INSTALL_FIRST}")

    def _follow(self) -> None:
        """Read until nothing of the script is left."""
        guard = self._guard
        silent_seconds = self.order.spec.limits.silent_seconds
        heard_at = time.monotonic()
        over_at = float("inf")
        with selectors.DefaultSelector() as selector:
            selector.register(guard.output, selectors.EVENT_READ)
            selector.register(guard.status, selectors.EVENT_READ)
            while selector.get_map() and time.monotonic() < over_at:
                for key, _ in selector.select(timeout=0.25):
                    if key.fd == guard.output:
                        data = os.read(guard.output, 1 << 20)
                        if data:
                            heard_at = time.monotonic()
                            self._take(data)
                            continue
                    elif guard.note_status():
                        self._note_started()
                        continue
                    else:
                        over_at = time.monotonic() + LAST_WORDS_SECONDS
                    selector.unregister(key.fd)
                self._watch_memory()
                if self._take_logged():
                    heard_at = time.monotonic()
                if time.monotonic() - heard_at > silent_seconds:
                    self.stop(EndCause.SILENT, f"no output for {silent_seconds:g} s")

    def _take_logged(self) -> bool:
        """What the script handed to ``wandb.log`` since the last look; whether there was any."""
        news = [] if self._joined is None else self._joined.news()
        for values, step in news:
            if self.feed is not None:
                self.feed.log(values, step)
            if not isinstance(self._stream, MetricStream):
                continue
            with self._changed:
                report = self._stream.logged(values, step)
                if report is not None:
                    self._report(report, tracked=self.feed is None)
                    self._changed.notify_all()
        return bool(news)

    def _fail(self, why: str) -> None:
        self._fault = why
        self.stop(EndCause.SETUP, why)

    def _watch_memory(self) -> None:
        kills = oom_kills()
        if kills > self._oom_kills:
            self._oom_kills = kills
            self._oom_at = time.monotonic()

    def _note_started(self) -> None:
        with self._changed:
            if self._started_at is None:
                self._started_at = time.time()
                self._held_from = time.monotonic()
                self._changed.notify_all()

    def _take(self, data: bytes) -> None:
        with self._changed:
            if self._log is not None:
                self._log.write(data)
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            reports = self._stream.feed(data)
            for report in reports:
                self._report(report)
            if reports:
                self._changed.notify_all()

    def _report(self, report: StepReport, *, tracked: bool = True) -> None:
        self._reports.append(report)
        if len(self._reports) > REPORTS_KEPT:
            self._reports.popleft()
            self._forgotten += 1
        if self.feed is not None and tracked:
            self.feed.report(report)

    def _finish(self) -> None:
        end = self._end_of(EndCause.SETUP, None, "the worker failed to say how the run ended")
        try:
            end = self._conclude()
        finally:
            if self.feed is not None:
                self.feed.finish(end)
            with self._changed:
                self._end = end
                self.done.set()
                self._changed.notify_all()

    def _conclude(self) -> RunEnd:
        self._take_logged()
        if report := self._stream.end(complete=True):
            self._report(report)
        if self._log is not None:
            # A disk that is full now has already been told as the run's end.
            with contextlib.suppress(OSError):
                self._log.seal()
        self._unkillable = unkillable(self._guard.unkillable)
        end = self._end_of(*self._verdict(self._guard.ended))
        model_file_bytes = None
        with contextlib.suppress(OSError):  # likewise: this folder was read for the files already
            artifact = TrialPaths(self._folder / "work").artifact() if self._folder else None
            model_file_bytes = None if artifact is None else artifact.stat().st_size
        summary = self._stream.summary()
        unread = tuple(self._safe(line) for line in summary.unread_finals)
        summary = dataclasses.replace(summary, unread_finals=unread)
        return dataclasses.replace(end, summary=summary, model_file_bytes=model_file_bytes)

    def _end_of(self, cause: EndCause, code: int | None, detail: str) -> RunEnd:
        ended_at = time.time()
        return RunEnd(
            cause=cause,
            exit_code=code,
            detail=self._safe(detail),
            summary=LogSummary(),
            node=self.order.node,
            # Their difference is what the trial costs, even if the clock was set meanwhile.
            started_at=ended_at - (time.monotonic() - self._held_from),
            ended_at=ended_at,
            log_tail=tuple(self._safe(line) for line in last_lines(self._tail)),
            start_at=self._start_at,
            checkpoint_bytes=self._checkpoint_bytes,
        )

    def _safe(self, text: str) -> str:
        """A text that leaves the node: results, reports and W&B are for many eyes."""
        return redacted(text, self._secrets)

    def _verdict(self, ended: tuple[str, int] | None) -> tuple[EndCause, int | None, str]:
        why, status = ended or ("lost", -1)
        code = exit_code(status)
        stopped = self._stopped if why != "exit" else None
        cancelled = stopped is not None and stopped[0] in {
            EndCause.CANCELLED,
            EndCause.PRUNED,
        }
        if self._unkillable and not cancelled and (why, code) != ("exit", 0):
            # What hangs in the kernel has no time limit to blame but its machine.
            return EndCause.LOST, code, self._unkillable
        if why == "exit" and self._removed:
            return EndCause.FOLDER_REMOVED, code, FOLDER_REMOVED
        if why == "exit" and self._fault:
            # A score without its artifact cannot be submitted, nor can an exit code be believed.
            return EndCause.SETUP, code, self._fault
        if stopped is not None:
            return stopped[0], code, stopped[1]
        if why == "timeout":
            seconds = self.order.spec.limits.total_seconds
            return EndCause.TIMEOUT, code, f"still running after {seconds:g} s"
        if why != "exit":
            return EndCause.LOST, code, f"the process that guards the script is gone ({why})"
        # The kernel tells a killed script nothing, nor us whom it killed: the time must do.
        self._watch_memory()
        recent = time.monotonic() - self._oom_at < OOM_SECONDS
        memory = "the node ran out of memory" if recent else ""
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            killed = f"killed by {name}"
            return EndCause.SIGNALED, code, f"{killed}: {memory}" if memory else killed
        return EndCause.EXITED, code, memory if code else ""


def oom_kills() -> int:
    """How many processes the node's kernel has killed so far for lack of memory."""
    try:
        words = Path("/proc/vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0


def unkillable(pids: Sequence[int]) -> str:
    """What is said of processes that SIGKILL does not end; nothing if there are none."""
    names = []
    for pid in pids:
        name = "?"
        with contextlib.suppress(OSError):
            name = Path("/proc", str(pid), "comm").read_text().strip()
        names.append(f"{pid} ({name})")
    return f"SIGKILL does not end process {', '.join(names)}" if names else ""


def command(spec: TrialSpec, node: Mapping[str, str]) -> list[str]:
    """What runs: the trial's own words, else the script, by torchrun on more than one GPU."""
    if spec.argv:
        environ = {n: v for n, v in node.items() if n in spec.passes or not is_secret_name(n)}
        return on_node(
            spec.argv, interpreter=sys.executable, json_file=PARAMETERS_FILE, environ=environ
        )
    if spec.resources.gpus <= 1:
        return [sys.executable, "-u", spec.program_name]
    ranks = f"--nproc_per_node={spec.resources.gpus}"
    torchrun = ["-m", "torch.distributed.run", "--standalone", ranks]
    return [sys.executable, *torchrun, spec.program_name]


def collect(work: Path) -> dict[str, bytes]:
    """What a script left that is worth keeping: its model files and its own logs.

    Raises:
        OSError: It cannot be read, or the folder has gone from under the script.
    """
    work.stat()
    models = [
        path
        for path in work.glob("final_model*")
        if path.suffix not in RAW_CHECKPOINTS or path.stat().st_size <= CHECKPOINT_BYTES
    ]
    logs = (work / "logs").rglob("*")
    return {
        str(path.relative_to(work)): path.read_bytes()
        for path in sorted([*models, *logs])
        if path.is_file() and not path.is_symlink()
    }
