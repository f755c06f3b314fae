"""Settings of every test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from support.clusters import address as address  # noqa: PLC0414 - a fixture is found by its name

if TYPE_CHECKING:
    import pytest

# Machines are shared: how long an example takes says nothing about it.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

# Ray gives the first cluster of a process a token and remembers that in the environment: later
# clusters of the same process would turn away the commands that tests start without one.
os.environ["RAY_AUTH_MODE"] = "disabled"

# What somebody measured on this machine teaches gates that are not asked not to learn.
os.environ["XDG_DATA_HOME"] = str(Path(tempfile.gettempdir(), f"pgolf-tests-{os.getpid()}"))

# What commands keep to start sooner: of this run, for all of its workers.
os.environ["XDG_CACHE_HOME"] = str(
    Path(
        tempfile.gettempdir(),
        f"pgolf-caches-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}",
    )
)

# A shell starts what runs in the background with these ignored, and nohup does; what the tests
# start would inherit that, and no Ctrl-C would reach it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files without a slow test unread where none but slow ones are asked for."""
    if config.getoption("markexpr") != "slow" or collection_path.suffix != ".py":
        return None
    return "mark.slow" not in collection_path.read_text(encoding="utf-8") or None


def pytest_unconfigure() -> None:
    """Remove the run's folders; another worker that still runs makes the caches again."""
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        shutil.rmtree(os.environ[name], ignore_errors=True)
