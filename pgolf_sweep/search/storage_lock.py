"""Mutual exclusion between the drivers that share a study, and what an outage looks like.

Only a study in a database that a `--storage` URL names is shared; nothing here loads for others.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy
from sqlalchemy import exc

from pgolf_sweep.core.errors import StorageAwayError
from pgolf_sweep.core.locks import acquire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

WAIT_SECONDS = 10.0
"""Longest wait for a lock before the storage counts as away: meanwhile no trial is polled."""

FROZEN_SECONDS = 20.0
"""A driver that holds the lock and says nothing for this long loses it."""

MAKING_SECONDS = 60.0
"""Longest wait for another driver that makes the tables of an empty database."""

_NO_STUDY = 0
"""Studies count from one."""

_NAMESPACE = 0x7067_6F6C
"""Tells our advisory locks from those of others in the same database ("pgol")."""

LINK_SECONDS = 10

_TO_POSTGRESQL: dict[str, Any] = {
    "connect_timeout": LINK_SECONDS,
    # A cut network is noticed in half a minute instead of in the two hours of the system.
    "keepalives_idle": LINK_SECONDS,
    "keepalives_interval": LINK_SECONDS // 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 2 * LINK_SECONDS * 1000,
}

_AWAY = (
    exc.OperationalError,  # no connection, server shutting down, lock not to be had in time
    exc.InterfaceError,  # connection closed underneath
    exc.InternalError,  # transaction ended by the server, as a frozen driver's is
    exc.TimeoutError,
    exc.PendingRollbackError,  # the connection broke before: the next try begins anew
)


class StudyLock(Protocol):
    """Held by one driver of a study at a time."""

    def held(self) -> AbstractContextManager[None]:
        """Hold the lock inside; waits at most `WAIT_SECONDS` for it."""
        ...


class PostgresLock:
    """A transaction's advisory lock: the server frees it when the driver or its network dies.

    It also frees the lock of a driver that froze with it, by ending the idle transaction; such a
    driver finds out at the end of what it did, and nothing of that was decided by the lock alone:
    a trial is told once because Optuna refuses to tell an ended one.

    Args:
        engine: Of the study's storage.
        study_id: The study's key in that database.
        wait_seconds: Longest wait for the lock, or None for `WAIT_SECONDS`.
    """

    def __init__(
        self, engine: sqlalchemy.Engine, study_id: int, *, wait_seconds: float | None = None
    ) -> None:
        self._engine = engine
        self._study_id = study_id
        self._wait_seconds = wait_seconds

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock inside."""
        limits = {
            "lock_timeout": self._wait_seconds or WAIT_SECONDS,
            "idle_in_transaction_session_timeout": FROZEN_SECONDS,
        }
        settings = ", ".join(
            f"set_config('{name}', '{seconds * 1000:.0f}', true)"
            for name, seconds in limits.items()
        )
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"SELECT {settings}"))
            connection.execute(
                sqlalchemy.text("SELECT pg_advisory_xact_lock(:namespace, :study)"),
                {"namespace": _NAMESPACE, "study": self._study_id},
            )
            yield


class FileLock:
    """A lock beside an SQLite file, for drivers of one machine.

    Args:
        path: The lock's own file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock inside.

        Raises:
            StorageAwayError: Another driver did not let it go in time.
        """
        try:
            handle = acquire(self._path, wait_seconds=WAIT_SECONDS)
        except BlockingIOError:
            raise StorageAwayError(
                "another driver does not let go of the study", where=str(self._path)
            ) from None
        try:
            yield
        finally:
            os.close(handle)


def lock_of(engine: sqlalchemy.Engine, study_id: int) -> StudyLock | None:
    """What the drivers of a study in a database take turns by; None: it can have only one.

    Args:
        engine: Of the study's storage.
        study_id: The study's key in that database.
    """
    if engine.url.get_backend_name() == "postgresql":
        return PostgresLock(engine, study_id)
    file = sqlite_file(engine.url)
    return None if file is None else FileLock(_beside(file))


@contextlib.contextmanager
def making_tables(url: str) -> Iterator[None]:
    """Alone among the drivers that open a database: the first of them makes its tables."""
    file = sqlite_file(url)
    if file is not None:
        with FileLock(_beside(file)).held():
            yield
        return
    engine = sqlalchemy.create_engine(url, connect_args=link_settings(url))
    try:
        if engine.url.get_backend_name() != "postgresql":
            yield
            return
        with PostgresLock(engine, _NO_STUDY, wait_seconds=MAKING_SECONDS).held():
            yield
    finally:
        engine.dispose()


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def sqlite_file(url: str | sqlalchemy.URL) -> Path | None:
    """The file of an SQLite storage; None for a server, or for one in memory."""
    parsed = sqlalchemy.engine.make_url(url)
    name = parsed.database
    if parsed.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return None
    return Path(name)


def link_settings(url: str) -> dict[str, Any]:
    """What makes a dead connection to a database be noticed, for its driver; empty for others."""
    parsed = sqlalchemy.engine.make_url(url)
    known = parsed.drivername in {"postgresql", "postgresql+psycopg", "postgresql+psycopg2"}
    return {k: v for k, v in _TO_POSTGRESQL.items() if known and k not in parsed.query}


def is_away(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the database cannot be reached now."""
    while error is not None:
        if isinstance(error, _AWAY) or getattr(error, "connection_invalidated", False):
            return True
        error = error.__cause__
    return False
