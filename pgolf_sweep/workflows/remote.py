"""Commands on a study that a cluster drives: they refresh its copies, or run over there."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.driver.control import live_driver
from pgolf_sweep.launch.remote import dashboard
from pgolf_sweep.launch.remote.entrypoint import JobPayload
from pgolf_sweep.workflows.detach import LOOK_SECONDS, STORAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.report.read import Status


class RemoteAnswer(NamedTuple):
    """The end of a command that ran on the cluster.

    Attributes:
        code: Its exit code.
        stdout: All that it printed.
        stderr: All that it told people.
    """

    code: int
    stdout: str
    stderr: str


def run_where_driven(
    paths: StudyPaths,
    *words: str,
    to_driver: bool = False,
    opens_study: bool = False,
    files: Mapping[str, bytes] | None = None,
) -> RemoteAnswer | None:
    """Run a command where the study is driven.

    Args:
        paths: The study's folder.
        words: The command.
        to_driver: Whether it means nothing without a driver.
        opens_study: Whether it reads or writes the study, whose database may need a password.
        files: Content by relative path of what the words name; the command runs beside them.

    Returns:
        The command's end; None for a study of this machine, or one that nobody drives.

    Raises:
        InfraError: The cluster does not answer.
    """
    place = dashboard.read_place(paths)
    if place is None:
        return None
    board = dashboard.Dashboard(place.address)
    if to_driver and not dashboard.refresh(paths, place, board).alive:
        return None
    # Never among the words, which Ray shows.
    env = {name: os.environ[name] for name in (STORAGE,) if opens_study and os.environ.get(name)}
    payload = JobPayload(
        words=words,
        home=place.home,
        study=paths.name,
        waited_for=True,
        env=env,
        files=files or {},
    )
    return RemoteAnswer(*dashboard.run_remote_command(board, payload))


def refresh_copies(paths: StudyPaths) -> str:
    """Bring the copies of a study that a cluster drives up to date.

    Returns:
        Why they are older, where the cluster does not answer; empty otherwise.
    """
    place = dashboard.read_place(paths)
    if place is None:
        return ""
    try:
        dashboard.refresh(paths, place)
    except InfraError as error:
        at = time.strftime("%F %T", time.localtime(place.seen_at))
        copy = f"; the copy of {at} follows" if place.seen_at is not None else ""
        return f"{place.address}: {error.what}{copy}"
    return ""


def check_reached(found: Status) -> None:
    """Refuse a status that is only a copy.

    Raises:
        InfraError: The cluster that drives the study does not answer.
    """
    if found.state == "unreachable" and found.place is not None:
        raise InfraError(
            f"the cluster that drives {found.name!r} does not answer",
            where=found.place.address,
            next_step="see that it runs and that the tunnel to it is up; a sweep needs neither "
            f"tunnel nor this machine to go on. On a new cluster: {found.place.again}",
        )


def driver_log(paths: StudyPaths, *, follow: bool = False) -> Iterator[str]:
    """Pieces of what a study's driver said: its log here, or all that its job printed.

    Args:
        paths: The study's folder.
        follow: Whether to go on until the driver ends.

    Raises:
        InfraError: The cluster does not answer.
    """
    place = dashboard.read_place(paths)
    board = dashboard.Dashboard(place.address) if place is not None else None
    shown = 0
    while True:
        if place is None or board is None:
            alive = live_driver(paths) is not None
            text = paths.driver_log.read_text(errors="replace") if paths.driver_log.exists() else ""
        else:
            place = dashboard.refresh(paths, place, board)
            alive = place.alive
            text = board.log(place.job) if place.state != dashboard.GONE else ""
        yield text[shown:]
        shown = len(text)
        if not (follow and alive):
            return
        time.sleep(LOOK_SECONDS)
