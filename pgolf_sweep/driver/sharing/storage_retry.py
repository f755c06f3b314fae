"""Sitting out an outage of a shared study's storage while its trials run on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pgolf_sweep.core.errors import InfraError, InterruptedSweepError, StorageAwayError
from pgolf_sweep.core.events import StorageAway, StorageBack
from pgolf_sweep.driver.control import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.events import Notify
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.launch.base import Event, Launcher
    from pgolf_sweep.search.study import Study

Answer = TypeVar("Answer")

GIVE_UP_SECONDS = 300.0
"""How long the storage may be away before the driver gives up."""

POLL_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
"""Between two attempts; the first follow more quickly."""


@dataclass(slots=True)
class StorageRetry:
    """Tries again what the storage did not answer; nothing here happens to a study in a file.

    Attributes:
        study: Whose storage it is.
        launcher: Polled meanwhile, so that no worker takes the driver for dead.
        clock: Measures the outage.
        request: What the user wants: a cancel ends the wait.
        notify: Takes each event.
        lease: The drivers that share the study: none of them can be seen meanwhile.
        events: What the launcher said and nothing was done about yet.
        abandoned: It has ended: nothing more is told.
    """

    study: Study
    launcher: Launcher
    clock: Clock
    request: Callable[[], Request]
    notify: Notify
    lease: DriverLease | None
    events: deque[Event] = field(default_factory=deque)
    abandoned: bool = False
    _away_since: float | None = None

    def call(self, act: Callable[[], Answer]) -> Answer | None:
        """Do something to the study; its answer, or None once it has given up.

        Raises:
            InfraError: The storage has been away for too long.
            InterruptedSweepError: The user cancels meanwhile.
        """
        while not self.abandoned:
            try:
                done = act()
            except StorageAwayError as error:
                if self.study.held:
                    raise  # it is the whole turn that has to be begun anew
                self.wait(error)
            else:
                self.is_back()
                return done
        return None

    def wait(self, error: StorageAwayError) -> None:
        """Wait a while for the storage and hear meanwhile of what runs.

        Raises:
            InfraError: It has been away for too long.
            InterruptedSweepError: The user cancels.
        """
        now = self.clock.monotonic()
        if self._away_since is None:
            self._away_since = now
            self.notify(StorageAway(what=error.what, got=error.got or ""))
        away = now - self._away_since
        if self.request() is Request.CANCEL:
            self.abandoned = True
            raise InterruptedSweepError(
                f"study {self.study.name!r} was cancelled while its storage did not answer",
                got=error.got,
                next_step="run the same command again: what ended is kept, what ran runs again",
            ) from error
        if away > GIVE_UP_SECONDS:
            self.abandoned = True
            raise InfraError(
                f"the study's storage did not answer for {away:.0f} s",
                got=error.got,
                next_step="see to the database, then run the same command again: what ended is "
                "kept, what ran runs again",
            ) from error
        if self.lease is not None:
            self.lease.reset()
        until = now + min(LONGEST_PAUSE_SECONDS, max(POLL_SECONDS, away / 2))
        while (left := until - self.clock.monotonic()) > 0:
            self.events.extend(self.launcher.poll(min(left, POLL_SECONDS)))

    def is_back(self) -> None:
        """The storage has answered."""
        if self._away_since is not None:
            away = self.clock.monotonic() - self._away_since
            self._away_since = None
            self.notify(StorageBack(seconds=away))
