"""The drivers that share a study: who is alive, who is gone, and what is asked of them all.

Each driver keeps a lease: a counter in the study that it raises every few seconds. Nobody compares
clocks: a driver is gone when its counter has stood still for `LEASE_SECONDS` of the time of the one
that looks (docs/adr/0006).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import StorageAwayError
from pgolf_sweep.driver.control import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.search.study import Study

LEASE_SECONDS = 30.0
HEARTBEATS_PER_LEASE = 6

_DRIVER = "driver:"
_REQUEST = "request:"
_LEFT, _GONE = "left", "gone"
"""What a driver, or the lock of its folder, says of its end; and what another takes for it."""


def new_driver(paths: StudyPaths) -> str:
    """A name for a driver that begins: where its folder is, and what no other driver has."""
    return f"{socket.gethostname()}:{paths.root}#{secrets.token_hex(4)}"


def short(driver: str) -> str:
    """A driver's name as people need it: host and folder."""
    return driver.rpartition("#")[0] or driver


@dataclass(slots=True)
class LeaseMonitor:
    """Tells from counters which drivers are gone.

    Attributes:
        lease_seconds: A counter that stands still for this long is a dead driver's.
    """

    lease_seconds: float
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _looked_at: float | None = None

    def look(self, counters: Mapping[str, int], now: float) -> set[str]:
        """Drivers whose counter has stood still for the lease.

        Args:
            counters: Of every driver that holds a trial or has said that it works.
            now: The looking driver's own clock, in seconds.
        """
        if self._looked_at is None or now - self._looked_at > self.lease_seconds / 2:
            # One that did not look, frozen or without the storage, knows nothing of the others.
            self.reset()
        self._looked_at = now
        self._seen = {
            driver: seen
            if (seen := self._seen.get(driver)) is not None and seen[0] == count
            else (count, now)
            for driver, count in counters.items()
        }
        lease = self.lease_seconds
        return {driver for driver, (_, since) in self._seen.items() if now - since >= lease}

    def reset(self) -> None:
        """Forget what was seen: every driver has a whole lease from the next look on."""
        self._seen.clear()


@dataclass(slots=True)
class DriverLease:
    """One driver's place among those of its study.

    Attributes:
        study: The shared study.
        me: This driver's name.
        clock: Its clock; nobody else's is asked.
        before: The driver that this folder's lock proves dead, whose trials are taken at once.
    """

    study: Study
    me: str
    clock: Clock
    before: str = ""
    lease_seconds: float = LEASE_SECONDS
    other_slots: int = 0
    """Of the drivers that have not left and are not known to be gone."""
    request: Request = Request.CONTINUE
    """What `stop --all` or `cancel --all` asks of this driver."""
    _monitor: LeaseMonitor = field(init=False)
    _count: int = 0
    _heartbeat_at: float | None = None

    def __post_init__(self) -> None:
        self._monitor = LeaseMonitor(self.lease_seconds)

    def is_due(self) -> bool:
        """Whether it is time to raise the counter and to look at the others."""
        every = self.lease_seconds / HEARTBEATS_PER_LEASE
        return self._heartbeat_at is None or self.clock.monotonic() - self._heartbeat_at >= every

    def heartbeat(self, slots: int) -> None:
        """Keep this driver's lease.

        Args:
            slots: How many it has.

        Raises:
            StorageAwayError: The storage does not answer.
        """
        self._count += 1
        self._say(slots=slots)
        self._heartbeat_at = self.clock.monotonic()

    def leave(self) -> None:
        """Say that this driver ends, so that nobody waits for it."""
        self._say(**{_LEFT: True})

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """From the start of its slots on it is one of the study's drivers: a request reaches it.

        Raises:
            StorageAwayError: The storage does not answer.
        """
        self._say(slots=0)  # the first turn's heartbeat is due all the same
        try:
            yield
        except BaseException:
            with contextlib.suppress(StorageAwayError):
                self.leave()
            raise

    def _say(self, **more: Any) -> None:
        host, _, rest = self.me.partition(":")
        about = {
            "name": self.me,
            "host": host,
            "folder": rest.rpartition("#")[0],
            "pid": os.getpid(),
            "count": self._count,
        }
        self.study.set_attribute(_key(_DRIVER, self.me), about | more)

    def gone(self, holders: Iterable[str]) -> set[str]:
        """The other drivers whose lease has run out, with one that never renewed it.

        Args:
            holders: Drivers that hold a trial.
        """
        attributes = self.study.attributes()
        asked = attributes.get(_key(_REQUEST, self.me))
        self.request = Request.CONTINUE if asked is None else Request(asked)
        at_work = {entry["name"]: entry for entry in drivers(attributes)}
        counters = dict.fromkeys(holders, -1)
        counters |= {name: int(entry["count"]) for name, entry in at_work.items()}
        counters.pop(self.me, None)
        gone = self._monitor.look(counters, self.clock.monotonic())
        if self.before in at_work:
            gone.add(self.before)
        for name in gone & at_work.keys():
            # Should it only have been frozen, its next heartbeat takes this back.
            end = _LEFT if name == self.before else _GONE
            self.study.set_attribute(_key(_DRIVER, name), at_work[name] | {end: True})
        others = at_work.keys() - gone - {self.me}
        self.other_slots = sum(int(at_work[name]["slots"]) for name in others)
        return gone

    def reset(self) -> None:
        """After an outage: the others could not renew theirs either."""
        self._monitor.reset()
        self._heartbeat_at = None


def strongest(*requests: Request) -> Request:
    """The request that asks for most."""
    return max(requests, key=list(Request).index)


def drivers(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each driver at work says of itself; it may be dead."""
    return [
        value
        for key, value in attributes.items()
        if key.startswith(_DRIVER) and not (value.get(_LEFT) or value.get(_GONE))
    ]


def ask_all(study: Study, request: Request) -> list[str]:
    """Ask every driver to drain or to cancel; the names of those at work.

    One that is taken for dead is asked too: it may be frozen, or too busy to keep its lease. A
    request names the driver that it is meant for: one that is launched later ignores it.
    """
    attributes = study.attributes()
    for key, value in attributes.items():
        if key.startswith(_DRIVER) and not value.get(_LEFT):
            study.set_attribute(_key(_REQUEST, str(value["name"])), request.value)
    return [str(entry["name"]) for entry in drivers(attributes)]


def _key(kind: str, driver: str) -> str:
    """Optuna's keys are short: the part that no other driver has."""
    return kind + driver.rpartition("#")[2]
