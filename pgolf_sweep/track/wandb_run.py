"""One run on W&B, from a thread of its own; the only importer of wandb.

A tracker never delays a trial and never fails one. What takes time or may break (loading
wandb, starting its service process, the network) happens in one thread a run that reads a queue.
A server that cannot be reached turns the run into an offline one, kept below ``folder/wandb`` for
``wandb sync``; any other trouble ends the run's tracking. Either is warned of once a process.

Only `Channel.close` waits, so that the offline folder is whole when the worker collects it: at
most `Bounds.offline_seconds` or `Bounds.online_seconds`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pgolf_sweep.track.base import TrackedFiles

    Action: TypeAlias = Callable[[Any], None]
    """Something to do with a W&B run, in its thread."""

_log = logging.getLogger(__name__)

_BACKLOG = 10_000
"""Reports that may wait for W&B; more are dropped, so that a stuck service costs no memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long W&B may take, in seconds."""

    probe_seconds: float = 5.0
    """Until a server that does not answer at all is given up and the run kept offline."""
    init_seconds: float = 20.0
    """The same for a server that answers but does not open the run."""
    upload_seconds: float = 20.0
    """For the upload at an online run's end; what is left stays on disk."""
    online_seconds: float = 30.0
    """Longest wait of `finish` online."""
    offline_seconds: float = 10.0
    """Longest wait of `finish` offline; milliseconds are normal."""
    retry_seconds: float = 600.0
    """For how long after a failure new runs of this process start offline at once."""
    progress_seconds: float = 10.0
    """Between two points of a study's progress."""


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """One W&B run to open."""

    mode: str
    project: str
    entity: str | None
    run_id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, object]
    folder: Path
    tags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    node_metrics: bool = False
    step: str = "step"
    """The metric that `step_metrics` are drawn against."""
    step_metrics: tuple[str, ...] = ()


def log_table(run: Any, name: str, columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    """Log a table whole."""
    import wandb  # noqa: PLC0415 - loaded in the run's thread

    run.log({name: wandb.Table(columns=list(columns), data=rows)})


def keep_files(run: Any, kept: Iterable[TrackedFiles]) -> None:
    """Keep files as artifacts."""
    import wandb  # noqa: PLC0415 - loaded in the run's thread

    for files in kept:
        artifact = wandb.Artifact(files.name, type=files.kind, metadata=dict(files.metadata))
        for name, path in files.files.items():
            # Read where they lie: offline they wait there for the sync.
            artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact)


def default_entity() -> str:
    """The entity that a key's runs go to where nobody names another."""
    import wandb  # noqa: PLC0415 - slow

    return str(wandb.Api().default_entity)


def shutdown(wait_seconds: float = 30.0) -> None:
    """End the service process that wandb started for this process, if any."""
    wandb = sys.modules.get("wandb")
    if wandb is None:
        return
    # In a thread, since wandb waits for the service without a limit of its own.
    thread = threading.Thread(target=_teardown, args=(wandb,), name="wandb-shutdown", daemon=True)
    thread.start()
    thread.join(wait_seconds)
    if thread.is_alive():
        _warn_once("W&B's service process did not end within %g s", wait_seconds)


def _teardown(wandb: Any) -> None:
    try:
        wandb.teardown()
    except Exception as error:  # noqa: BLE001 - the tracker's boundary
        _warn_once("W&B did not shut down cleanly: %s", _headline(error))


class Channel:
    """One W&B run and the thread that talks to it; nothing here raises or blocks but `close`."""

    def __init__(self, options: RunOptions, bounds: Bounds) -> None:
        self._options = options
        self._bounds = bounds
        self._queue: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._exit_code = 0
        self._closed = False
        self._failed = False
        _prepare_process()
        self._thread = threading.Thread(
            target=self._work, name=f"wandb-{options.run_id}", daemon=True
        )
        # A trial that is tried again at once: the service has an id open only once.
        self._before = _open_ids.get(options.run_id)
        _open_ids[options.run_id] = self._thread
        self._thread.start()

    def send(self, action: Action) -> None:
        """Queue an action."""
        if self._closed or self._failed:
            return
        if self._queue.qsize() >= _BACKLOG:
            _warn_once("W&B does not keep up; some points of the curves are dropped")
            return
        self._queue.put(action)

    def send_asking(self, what: str, action: Action) -> None:
        """Queue an action for which W&B asks its server first, and waits long for the answer.

        Where the server does not answer, the action is left out and the run goes on without.
        """
        self.send(lambda run: self._ask(run, what, action))

    def _ask(self, run: Any, what: str, action: Action) -> None:
        global _offline_until  # noqa: PLW0603 - as in `_open`
        import wandb  # noqa: PLC0415 - loaded by now

        try:
            if not run.offline:
                if time.monotonic() < _offline_until:
                    raise TimeoutError("it did not answer before")
                _probe(_server(wandb, self._options), self._bounds.probe_seconds)
            action(run)
        except Exception as error:  # noqa: BLE001 - the tracker's boundary
            if isinstance(error, OSError):
                _offline_until = time.monotonic() + self._bounds.retry_seconds
            _warn_once("W&B did not take a study's %s: %s", what, _headline(error))

    def close(self, last: Action, *, exit_code: int) -> None:
        """Queue the last action and the end; wait until they are done, within the bounds."""
        if self._closed:
            return
        self._closed = True
        self._exit_code = exit_code
        self._queue.put(last)
        self._queue.put(None)
        online = self._options.mode == "online"
        limit = self._bounds.online_seconds if online else self._bounds.offline_seconds
        self._thread.join(limit)
        if self._thread.is_alive():
            _warn_once("W&B took more than %g s to end a run; it goes on in the background", limit)

    def _work(self) -> None:
        run = None
        try:
            if self._before is not None:
                self._before.join(self._bounds.online_seconds)
            run = _open(self._options, self._bounds)
            while (action := self._queue.get()) is not None:
                action(run)
            _finish(run, self._exit_code)
            _wait_until_written(self._bounds.offline_seconds)
        except Exception as error:  # noqa: BLE001 - the tracker's boundary
            self._failed = True
            _warn_once("W&B tracking ended early, the trial goes on: %s", _headline(error))
            _log.debug("W&B failure of %s", self._options.run_id, exc_info=True)
            if run is not None:
                with contextlib.suppress(Exception):
                    _finish(run, 1)  # what it holds so far is kept for `wandb sync`
        finally:
            if _open_ids.get(self._options.run_id) is self._thread:
                del _open_ids[self._options.run_id]


_open_ids: dict[str, threading.Thread] = {}
"""The thread that has, or waits to have, a run of this process open, by the run's id."""

_offline_until = 0.0
"""Monotonic time before which runs of this process start offline, since the server was away."""

_claimed: set[str] = set()
"""Ids that the service process holds for good, since an init with them failed half-way."""


def _open(options: RunOptions, bounds: Bounds) -> Any:
    """The opened run: online if asked for and possible, else offline."""
    global _offline_until  # noqa: PLW0603 - what one run learns of the network holds for the next
    import wandb  # noqa: PLC0415 - half a second, in the run's thread

    options.folder.mkdir(parents=True, exist_ok=True)
    if not os.access(options.folder, os.W_OK):
        # wandb would go to the system's temporary folder, where nobody collects the run.
        raise PermissionError(f"cannot write into {options.folder}")
    server = _server(wandb, options)
    if options.mode == "online" and time.monotonic() >= _offline_until:
        try:
            _probe(server, bounds.probe_seconds)
            return _init(wandb, options, bounds, "online")
        except (wandb.Error, OSError) as error:  # TimeoutError is an OSError
            _offline_until = time.monotonic() + bounds.retry_seconds
            if isinstance(error, wandb.Error):
                _claimed.add(options.run_id)
            _warn_once(
                "W&B cannot be reached; runs are kept offline, `wandb sync` uploads them: %s",
                _headline(error),
            )
    return _init(wandb, options, bounds, "offline")


def _server(wandb: Any, options: RunOptions) -> str:
    """The address of the server that a run is for."""
    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    return str(options.env.get("WANDB_BASE_URL", settings.base_url))


def _probe(base_url: str, timeout_seconds: float) -> None:
    """Ask the server for anything at all.

    An init that fails on a dead network takes its whole time limit and leaves the run's id
    claimed in the service process, so that the same run cannot be opened offline.

    Raises:
        OSError: There was no answer.
    """
    try:
        with urllib.request.urlopen(base_url, timeout=timeout_seconds):  # noqa: S310 - the user's
            pass
    except urllib.error.HTTPError as answer:
        answer.close()  # any status is an answer


def _init(wandb: Any, options: RunOptions, bounds: Bounds, mode: str) -> Any:
    settings = wandb.Settings(
        console="off",
        silent=True,
        show_errors=False,
        disable_code=True,
        disable_git=True,
        save_code=False,
        label_disable=True,
        symlink=False,
        use_dot_wandb=False,
        # A table is read from the run's own folder then, not from an artifact that waits for a
        # sync in the user's home folder and stays behind when the study moves.
        allow_offline_artifacts=False,
        init_timeout=bounds.init_seconds,
        finish_timeout=bounds.upload_seconds,
        finish_timeout_raises=True,
        # The stop button of the web page would send SIGINT to the whole worker or driver.
        stop_fn=_refuse_stop,
        x_save_requirements=False,
        x_disable_stats=not options.node_metrics,
        x_stats_track_process_tree=options.node_metrics,
        x_stats_gpu_device_ids=visible_gpus(os.environ) if options.node_metrics else None,
    )
    if mode == "online":
        settings.update_from_env_vars(dict(options.env))
    taken = options.run_id in _claimed
    run = wandb.init(
        mode=mode,
        reinit="create_new",
        resume="allow",
        id=f"{options.run_id}-offline" if taken else options.run_id,
        project=options.project,
        entity=options.entity,
        name=options.name,
        group=options.group,
        job_type=options.job_type,
        tags=options.tags or None,
        config=dict(options.config),
        dir=str(options.folder),
        settings=settings,
    )
    if options.step_metrics:
        run.define_metric(options.step, hidden=True)
    for name in options.step_metrics:
        run.define_metric(name, step_metric=options.step)
    return run


def _finish(run: Any, exit_code: int) -> None:
    """Close a run; one whose upload does not end is kept as if it had been offline from the start.

    Its file holds all that was logged, under a name that `wandb sync` passes by.
    """
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        folder = Path(run.dir).parent
        if folder.name.startswith("run-"):
            folder.rename(folder.with_name(f"offline-{folder.name}"))
        _warn_once(
            "W&B went away while a run was open; such runs are kept offline, `wandb sync` uploads "
            "them"
        )


def _wait_until_written(wait_seconds: float) -> None:
    """Wait until the service has closed the file of a run that was finished.

    `Run.finish` only posts the close: in 26 of 60 runs the offline file lacked its end right
    after it (wandb 0.31). Requests are served in order, so any later answer will do.
    """
    from wandb.sdk import wandb_setup  # noqa: PLC0415 - in the run's thread

    session = wandb_setup.singleton()
    service = session.ensure_service()
    answer = session.asyncer.run(lambda: service.sync_status(id="none"))
    answer.wait_or(timeout=wait_seconds)


def visible_gpus(environ: Mapping[str, str]) -> list[int] | None:
    """The node's GPUs that this process may use, or None for all of them or unknown."""
    parts = [part.strip() for part in environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return [int(part) for part in parts] if all(part.isdigit() for part in parts) else None


def _refuse_stop() -> None:
    _log.warning("W&B asked to stop a run; use `pgolf-sweep stop` or `pgolf-sweep cancel`")


def _prepare_process() -> None:
    """Set what wandb reads when it loads; in the caller's thread, since it touches the environment.

    A service process inherited from the driver by way of the environment may be on another
    machine, and would die with the driver.
    """
    token = os.environ.get("WANDB_SERVICE")
    if token is not None and f"-{os.getpid()}-" not in token:
        del os.environ["WANDB_SERVICE"]
    # A launch from within a W&B run or agent inherits that run's name: trials would share its id.
    for name in _OF_A_RUN:
        os.environ.pop(name, None)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no crash reports to third parties


_OF_A_RUN = tuple(
    f"WANDB_{name}"
    for name in (
        "RUN_ID", "RUN_GROUP", "RUN_NAME", "NAME", "NOTES", "TAGS", "JOB_TYPE", "RESUME",
        "SWEEP_ID", "SWEEP_PARAM_PATH", "CONFIG_PATHS", "PROGRAM", "ARGS", "LAUNCH", "FORK_FROM",
        "RESUME_FROM",
    )
)  # fmt: skip
"""Variables that say which run this is; each of our runs says so itself."""

_said: set[str] = set()


def _warn_once(message: str, *values: object) -> None:
    """A warning, once a process regardless of the values; repetitions go to the debug log."""
    level = logging.DEBUG if message in _said else logging.WARNING
    _said.add(message)
    _log.log(level, message, *values)


def _headline(error: BaseException) -> str:
    """An error's type and the start of its first line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
