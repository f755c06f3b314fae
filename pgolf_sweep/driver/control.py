"""One driver a study, and how others talk to it: a lock, a request file, signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.locks import acquire, is_held
from pgolf_sweep.core.paths import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType, TracebackType

from pgolf_sweep.core.paths import StudyPaths


class Request(StrEnum):
    """What the user wants of a running driver."""

    CONTINUE = "continue"
    DRAIN = "drain"
    """Start nothing more; what runs may finish."""
    CANCEL = "cancel"
    """End what runs; it runs again when the study is resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverInfo:
    """Who holds a study's lock, and for which command."""

    pid: int
    host: str
    job: str = "launch"
    driver: str = ""

    def __str__(self) -> str:
        doing = "" if self.job == "launch" else f" ({self.job})"
        return f"process {self.pid} on {self.host}{doing}"


class DriverLock:
    """Held by the one live driver of a study folder; the kernel frees it when the driver dies.

    Args:
        paths: The study's folder.
        job: The command that holds it: ``launch`` acts on requests, ``promote`` does not.
        driver: The holder's name among the drivers of a shared study.

    Attributes:
        before: Name of the driver that held it before, which the lock proves to be gone.
    """

    def __init__(self, paths: StudyPaths, *, job: str = "launch", driver: str = "") -> None:
        self._path = paths.driver_lock
        self._request = paths.request
        self._job = job
        self._driver = driver
        self.before = ""
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock, and forget what was asked of the driver before.

        From here on a request is meant for this driver, also while its slots are starting.

        Raises:
            InputError: Another driver is alive.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = acquire(self._path, wait_seconds=0.0)
        except BlockingIOError:
            holder = live_driver_info(self._path)
            study = self._path.parent.name
            end = f", or pgolf-sweep stop {study}" if holder and holder.job == "launch" else ""
            raise InputError(
                f"study {study!r} is being driven already, by {holder or 'another process'}",
                where=str(self._path.parent),
                next_step=f"pgolf-sweep watch {study}{end}",
            ) from None
        self._handle = handle
        self._request.unlink(missing_ok=True)
        self.before = _holder(os.pread(handle, 8192, 0)).driver
        holder = DriverInfo(
            pid=os.getpid(), host=socket.gethostname(), job=self._job, driver=self._driver
        )
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(holder)).encode(), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def live_driver(paths: StudyPaths) -> DriverInfo | None:
    """Who drives a study now, or None."""
    return live_driver_info(paths.driver_lock)


def live_driver_info(lock: Path) -> DriverInfo | None:
    """Who holds a lock file, or None."""
    return _holder(lock.read_bytes()) if is_held(lock) else None


def _holder(written: bytes) -> DriverInfo:
    """Who wrote the lock file last."""
    content: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        content = json.loads(written or b"{}")
    return DriverInfo(
        pid=int(content.get("pid", 0)),
        host=str(content.get("host", "?")),
        job=str(content.get("job", "launch")),
        driver=str(content.get("driver", "")),
    )


def send_request(paths: StudyPaths, request: Request) -> None:
    """Ask a study's driver to drain or to cancel."""
    write_text(paths.request, request.value)


def wait_for_driver(paths: StudyPaths, timeout_seconds: float) -> bool:
    """Wait until nobody drives a study; False if somebody still does after the time."""
    deadline = time.monotonic() + timeout_seconds
    while live_driver(paths) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@contextlib.contextmanager
def signals_around_a_sweep() -> Iterator[bool]:
    """Around a sweep: what signals do while no `Requests` catches them.

    A closed terminal or a lost ssh session (SIGHUP) ends nothing: Ray's daemons share the terminal,
    and would take the trials with them. SIGTERM while Ray starts is a Ctrl-C, so that what was
    started ends as well.

    Yields:
        Whether `Requests` is to catch hang-ups: not where the user has them ignored (nohup), nor in
        a thread, where Python sets no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield hang_up is not signal.SIG_IGN
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None  # Ray's own handler, which it sets as it starts
    finally:
        for number, before in ((signal.SIGHUP, hang_up), (signal.SIGTERM, terminate)):
            signal.signal(number, signal.SIG_DFL if before is None else before)


class Requests:
    """What the user wants of this driver, from the request file and from signals.

    The first SIGINT drains, the second cancels; SIGTERM cancels. SIGHUP drains, however often it
    comes: a terminal that closes sends it, and its shell once more. Use as a context manager,
    which puts the previous handlers back.

    Args:
        paths: The study's folder.
        hang_ups: Whether SIGHUP counts; not where the user has it ignored (nohup).
    """

    def __init__(self, paths: StudyPaths, *, hang_ups: bool = True) -> None:
        self._file = paths.request
        self._signals = (signal.SIGINT, signal.SIGTERM, *(hang_ups * (signal.SIGHUP,)))
        self._hung_up = False
        self._interrupts = 0
        self._terminated = False
        self._previous: dict[int, Any] = {}

    @property
    def interrupted(self) -> bool:
        """Whether a signal, rather than ``stop`` or ``cancel``, ended the sweep."""
        return self._interrupts > 0 or self._terminated or self._hung_up

    def __enter__(self) -> Self:
        """Catch the signals."""
        for number in self._signals:
            self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signature
        if number == signal.SIGINT:
            self._interrupts += 1
        elif number == signal.SIGHUP:
            self._hung_up = True
        else:
            self._terminated = True

    def __call__(self) -> Request:
        """The strongest request so far."""
        if self._terminated or self._interrupts > 1:
            return Request.CANCEL
        asked = Request.CONTINUE
        with contextlib.suppress(OSError, ValueError):
            asked = Request(self._file.read_text().strip())
        if asked is Request.CANCEL:
            return asked
        return Request.DRAIN if self._interrupts or self._hung_up else asked
