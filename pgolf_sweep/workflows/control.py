"""`stop` and `cancel`: requests to the drivers of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.driver.control import Request, live_driver, send_request, wait_for_driver
from pgolf_sweep.driver.sharing.leases import ask_all, short
from pgolf_sweep.report.read import reading

if TYPE_CHECKING:
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.control import DriverInfo


def stop_study(paths: StudyPaths) -> bool:
    """Ask a study's driver to drain: what runs may finish, nothing more starts.

    Returns:
        Whether a driver was there.

    Raises:
        InputError: A promotion holds the study; it acts on no request.
    """
    if _sweeping(paths) is None:
        return False
    send_request(paths, Request.DRAIN)
    return True


def cancel_study(paths: StudyPaths, *, timeout_seconds: float = 60.0) -> bool:
    """Have a study's driver end its trials and itself, and wait for it.

    Returns:
        Whether a driver was there.

    Raises:
        InputError: A promotion holds the study; it acts on no request.
        InfraError: The driver has not ended in time.
    """
    driver = _sweeping(paths)
    if driver is None:
        return False
    send_request(paths, Request.CANCEL)
    if not wait_for_driver(paths, timeout_seconds):
        raise InfraError(
            f"the driver of {paths.name!r} has not ended within {timeout_seconds:.0f} s",
            where=str(driver),
            next_step=f"look at {paths.driver_log}",
        )
    return True


def ask_every_driver(paths: StudyPaths, request: Request) -> list[str]:
    """Leave a request for every driver of a shared study, where they look every few seconds.

    Returns:
        The drivers that were asked, as people read them.
    """
    with reading(paths.root) as study:
        return [short(name) for name in ask_all(study, request)]


def _sweeping(paths: StudyPaths) -> DriverInfo | None:
    """The driver that acts on requests, or None where nobody drives."""
    driver = live_driver(paths)
    if driver is not None and driver.job != "launch":
        raise InputError(
            f"study {paths.name!r} is not being swept: `{driver.job}` runs on it",
            where=str(driver),
            next_step="Ctrl-C there ends it; seeds that finished are kept",
        )
    return driver
