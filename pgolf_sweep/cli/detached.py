"""A study that is driven elsewhere: sent with `launch --detach`, then seen and told from here."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pgolf_sweep.cli.common import emit, out, say

if TYPE_CHECKING:
    from pgolf_sweep.core.errors import PgolfError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.launch.remote.dashboard import Dashboard, Place

DEFAULT_HOME = "~/pgolf-sweep"
STORAGE = "PGOLF_STORAGE"
START_SECONDS = 90.0
"""How long a launch waits to see its driver begin: it reports a mistake that only shows there."""
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What `launch` was told that matters on the cluster.

    Attributes:
        home: Folder on the cluster that holds ``runs`` and ``data``; None for where the study is.
        data_root: Folder of data there, where the user named one.
    """

    address: str | None
    home: str | None
    data_root: Path | None
    storage: str | None
    wandb: str | None
    slots: int | None

    def options(self) -> list[str]:
        """Those that are typed again, here to resume and there to drive."""
        named = {"--wandb": self.wandb, "--slots": self.slots, "--data-root": self.data_root}
        return [str(x) for pair in named.items() if pair[1] is not None for x in pair]


def launch_detached(
    sweep: Path, sending: Sending, *, name: str | None, runs: Path, json_output: bool
) -> None:
    """Have a sweep driven on a cluster, and see it begin.

    Raises:
        InputError: The sweep file or an option is wrong, or the study is driven already.
        InfraError: No cluster answers, the driver does not start there, or no node of it is fit.
    """
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.core.paths import StudyPaths, read_json, write_text
    from pgolf_sweep.launch.remote.dashboard import (
        Dashboard,
        Place,
        read_place,
        send_driver,
        uninterrupted,
        write_place,
    )
    from pgolf_sweep.launch.remote.entrypoint import JobPayload
    from pgolf_sweep.report.read import study_status
    from pgolf_sweep.track.mode import resolve_mode, travelling_environment
    from pgolf_sweep.workflows.detach import build_bundle

    bundle = build_bundle(sweep, name=name)
    resolve_mode(sending.wandb, {"WANDB_API_KEY": "the cluster may have one"} | dict(os.environ))
    _check_there(sending)
    paths = StudyPaths(runs.resolve() / bundle.study)
    before = read_place(paths)
    if before is None and paths.sweep.is_file():
        raise InputError(
            f"study {paths.name!r} is one of this machine",
            where=str(paths.root),
            next_step="launch it without --detach, or with --name NEW",
        )
    address = sending.address or (before.address if before is not None else None)
    if address is None:
        raise InputError(
            "--detach needs the cluster that is to drive the sweep",
            expected="--address http://HEAD:8265, or HOST:PORT, or auto for a cluster of this host",
            next_step="`ray start --head` starts one on this machine",
        )
    home = sending.home or (before.home if before is not None else DEFAULT_HOME)
    here = Path(bundle.sweep)
    env = travelling_environment(os.environ)
    payload = JobPayload(
        words=["launch", here.name, "--name", paths.name, "--address", "auto", *sending.options()],
        home=home,
        study=paths.name,
        begun=read_json(paths.origin)["created_at"] if paths.origin.is_file() else None,
        # The storage has a password, so it is no word of the command.
        env=env if sending.storage is None else env | {STORAGE: sending.storage},
        files=bundle.files,
        folder=here.parent.as_posix(),
    )
    board = Dashboard(address)
    named = ["--name", name] if name is not None else []
    words = ["launch", str(sweep), "--detach", "--address", address, "--home", home, *named]
    again = f"pgolf-sweep {shlex.join(words + sending.options())}"
    with uninterrupted():
        job = send_driver(board, payload, last=before.job if before is not None else None)
        say(f"study {paths.name} is sent to {board.address} as job {job}: this machine may sleep")
        place = Place(address=board.address, job=job, home=home, again=again)
        write_text(paths.sweep, bundle.text)
        write_place(paths, place)
    try:
        _see_it_begin(paths, place, board)
    except KeyboardInterrupt:
        say(f"it goes on without this command; pgolf-sweep cancel {paths.name} ends it")
        raise
    if json_output:
        emit(study_status(paths).to_json())
    else:
        say(f"next: pgolf-sweep watch {paths.name}")


def _check_there(sending: Sending) -> None:
    """Refuse a path that means nothing on the cluster."""
    from pgolf_sweep.core.errors import InputError

    for option, path in (("--home", sending.home), ("--data-root", sending.data_root)):
        if path is not None and not str(path).startswith(("/", "~/")):
            raise InputError(
                f"with --detach, {option} is a folder of the cluster",
                got=str(path),
                expected="an absolute path, or one that begins with ~/",
            )


def _see_it_begin(paths: StudyPaths, place: Place, board: Dashboard) -> None:
    """Wait until the driver has checked everything, has joined the cluster and has taken a turn.

    Raises:
        PgolfError: It ended before that; its own error is in the message.
    """
    from pgolf_sweep.launch.remote.dashboard import refresh
    from pgolf_sweep.report.read import study_status

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        place = refresh(paths, place, board)
        state = study_status(paths).state
        if state == "interrupted":
            raise _failed(place)
        if state != "starting":
            return
        time.sleep(LOOK_SECONDS)
    say(f"it has not begun within {START_SECONDS:.0f} s; pgolf-sweep status {paths.name} says more")


def _failed(place: Place) -> PgolfError:
    from pgolf_sweep.core.errors import InfraError, InputError

    wrong_input = f"exit code {InputError.exit_code}" in place.reason
    return (InputError if wrong_input else InfraError)(
        "the driver did not start on the cluster",
        where=str(place),
        got=place.reason or place.state.lower(),
        next_step=f"fix it, then the same command: {place.again}",
    )


def look(runs: Path, study: str | None, *, quiet: bool = False) -> StudyPaths:
    """The folder of a study that must be there, with what it says now where it is driven.

    Args:
        runs: Folder of the studies.
        study: Name or path; None for the study that changed last, which is said.
        quiet: Whether the caller says by itself that a cluster does not answer.
    """
    from pgolf_sweep.core.errors import InfraError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.launch.remote.dashboard import read_place, refresh

    paths = StudyPaths.existing(runs, study)
    if study is None and not quiet:
        say(f"study {paths.name}")
    place = read_place(paths)
    if place is not None:
        try:
            refresh(paths, place)
        except InfraError as error:
            if quiet:
                return paths
            at = time.strftime("%F %T", time.localtime(place.seen_at))
            copy = f"; the copy of {at} follows" if place.seen_at is not None else ""
            say(f"{place.address}: {error.what}{copy}")
    return paths


def check_reached(found: Any) -> None:
    """Fail a command that was to say how a study stands and knows only how it stood.

    Args:
        found: The study's `Status`.

    Raises:
        InfraError: Its cluster does not answer.
    """
    from pgolf_sweep.core.errors import InfraError

    if found.state == "unreachable":
        raise InfraError(
            f"the cluster that drives {found.name!r} does not answer",
            where=found.place.address,
            next_step="see that it runs and that the tunnel to it is up; a sweep needs neither "
            f"tunnel nor this machine to go on. On a new cluster: {found.place.again}",
        )


def passed_on(
    paths: StudyPaths, *words: str, to_driver: bool = False, opens_study: bool = False
) -> bool:
    """Run a command where the study is driven, and say and end as it does there.

    Args:
        paths: The study's folder.
        words: The command.
        to_driver: Whether it is nothing without a driver.
        opens_study: Whether it reads or writes the study, whose database may want a password.

    Returns:
        Whether that was done: not for a study of this machine, or one that nobody drives.

    Raises:
        InfraError: The cluster does not answer.
    """
    from pgolf_sweep.launch.remote.dashboard import (
        Dashboard,
        read_place,
        refresh,
        run_remote_command,
    )
    from pgolf_sweep.launch.remote.entrypoint import JobPayload

    place = read_place(paths)
    if place is None:
        return False
    board = Dashboard(place.address)
    if to_driver and not refresh(paths, place, board).alive:
        return False
    # Never among the words, which Ray shows.
    env = {name: os.environ[name] for name in (STORAGE,) if opens_study and os.environ.get(name)}
    payload = JobPayload(words=words, home=place.home, study=paths.name, waited_for=True, env=env)
    code, printed, said = run_remote_command(board, payload)
    if said:
        say(said)
    sys.stdout.write(printed)
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)
    return True


def print_driver_log(paths: StudyPaths, *, follow: bool) -> None:
    """What a study's driver said: its log here, or of its job all that it printed."""
    from pgolf_sweep.driver.control import live_driver
    from pgolf_sweep.launch.remote.dashboard import GONE, Dashboard, read_place, refresh

    place = read_place(paths)
    board = Dashboard(place.address) if place is not None else None
    shown = 0
    while True:
        if place is None or board is None:
            alive = live_driver(paths) is not None
            text = paths.driver_log.read_text(errors="replace") if paths.driver_log.exists() else ""
        else:
            place = refresh(paths, place, board)
            alive = place.alive
            text = board.log(place.job) if place.state != GONE else ""
        out.out(text[shown:], end="", highlight=False)
        shown = len(text)
        if not (follow and alive):
            return
        time.sleep(LOOK_SECONDS)
