"""`launch --detach`: the bundle of a sweep that is driven on a cluster, and how it is sent."""

from __future__ import annotations

import logging
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.overrides import NONE, Overrides
from pgolf_sweep.config.rules import load_rules, preset_names
from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_text
from pgolf_sweep.driver.opening import calibration_store, located_at, read_sweep
from pgolf_sweep.gate.store import USER
from pgolf_sweep.launch.remote import dashboard
from pgolf_sweep.launch.remote.entrypoint import JobPayload
from pgolf_sweep.report.read import study_status
from pgolf_sweep.script.program import BUILTIN
from pgolf_sweep.track.mode import resolve_mode, travelling_environment
from pgolf_sweep.workflows.notices import webhook_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.core.errors import PgolfError

logger = logging.getLogger(__name__)

DEFAULT_HOME = "~/pgolf-sweep"
STORAGE = "PGOLF_STORAGE"
"""The variable that names the study's database; its value has a password."""
START_SECONDS = 90.0
"""How long a launch waits to see its driver begin: it reports a mistake that only shows there."""
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBundle:
    """A sweep, checked as far as can be without the cluster's data, and the files it needs.

    Attributes:
        study: The study's name.
        text: The sweep file's text.
        sweep: The sweep file, a key of `files`.
        files: Content by relative path; they lie to each other as they do here.
        variables: Variables of this environment that the driver needs.
    """

    study: str
    text: str
    sweep: str
    files: Mapping[str, bytes]
    variables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """The options of `launch` that matter on the cluster.

    Attributes:
        address: The cluster's; None for where the study is driven already.
        home: Folder on the cluster that holds ``runs`` and ``data``; None for where the study is.
        data_root: Folder of data there, where the user named one.
        storage: URL of a shared study's database.
        wandb: W&B mode.
        slots: Trials at a time.
        overrides: What the command line wants otherwise than the sweep file, which is sent with it.
        probe: Whether the gate may execute parts of a script that is not ours.
    """

    address: str | None
    home: str | None
    data_root: Path | None
    storage: str | None
    wandb: str | None
    slots: int | None
    overrides: Overrides = NONE
    probe: bool = True

    def options(self) -> list[str]:
        """Those that a command repeats, here to resume and there to drive."""
        named = {"--wandb": self.wandb, "--slots": self.slots, "--data-root": self.data_root}
        words = [str(x) for pair in named.items() if pair[1] is not None for x in pair]
        return words if self.probe else [*words, "--no-probe"]


def launch_detached(
    sweep: Path,
    sending: Sending,
    *,
    name: str | None = None,
    runs: Path,
    report: Callable[[str], None] = logger.info,
) -> StudyPaths:
    """Send a sweep to a cluster that drives it, and wait until its driver begins.

    Args:
        sweep: The sweep file.
        sending: The options that matter on the cluster.
        name: Name of the study instead of the sweep file's.
        runs: Folder of the studies on this machine.
        report: Takes a line for people at each step.

    Returns:
        The study's folder here, which holds copies.

    Raises:
        InputError: The sweep file or an option is wrong, or the study is driven already.
        InfraError: No cluster answers, the driver does not start there, or no node of it is fit.
    """
    bundle = build_bundle(sweep, name=name, overrides=sending.overrides)
    resolve_mode(sending.wandb, {"WANDB_API_KEY": "the cluster may have one"} | dict(os.environ))
    _check_paths_there(sending)
    paths = StudyPaths(runs.resolve() / bundle.study)
    before = dashboard.read_place(paths)
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
    payload = _payload(bundle, sending, paths, home)
    board = dashboard.Dashboard(address)
    named = ["--name", name] if name is not None else []
    words = ["launch", str(sweep), "--detach", "--address", address, "--home", home, *named]
    again = f"pgolf-sweep {shlex.join(words + sending.overrides.words() + sending.options())}"
    with dashboard.uninterrupted():
        last = before.job if before is not None else None
        job = dashboard.send_driver(board, payload, last=last)
        report(
            f"study {paths.name} is sent to {board.address} as job {job}: this machine may sleep"
        )
        place = dashboard.Place(address=board.address, job=job, home=home, again=again)
        write_text(paths.sweep, bundle.text)
        dashboard.write_place(paths, place)
    try:
        _wait_for_start(paths, place, board, report)
    except KeyboardInterrupt:
        report(f"it goes on without this command; pgolf-sweep cancel {paths.name} ends it")
        raise
    return paths


def _payload(bundle: JobBundle, sending: Sending, paths: StudyPaths, home: str) -> JobPayload:
    """The command that drives the sweep on the cluster, with the files that it needs."""
    here = Path(bundle.sweep)
    env = travelling_environment(os.environ)
    env |= {name: os.environ[name] for name in bundle.variables if os.environ.get(name)}
    return JobPayload(
        words=["launch", here.name, "--name", paths.name, "--address", "auto", *sending.options()],
        home=home,
        study=paths.name,
        begun=read_json(paths.origin)["created_at"] if paths.origin.is_file() else None,
        # The storage has a password, so it is no word of the command.
        env=env if sending.storage is None else env | {STORAGE: sending.storage},
        files=bundle.files,
        folder=here.parent.as_posix(),
    )


def _check_paths_there(sending: Sending) -> None:
    """Refuse a path that means nothing on the cluster."""
    for option, path in (("--home", sending.home), ("--data-root", sending.data_root)):
        if path is not None and not str(path).startswith(("/", "~/")):
            raise InputError(
                f"with --detach, {option} is a folder of the cluster",
                got=str(path),
                expected="an absolute path, or one that begins with ~/",
            )


def _wait_for_start(
    paths: StudyPaths,
    place: dashboard.Place,
    board: dashboard.Dashboard,
    report: Callable[[str], None],
) -> None:
    """Wait until the driver has checked everything, has joined the cluster and has taken a turn.

    Raises:
        PgolfError: It ended before that; its own error is in the message.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        place = dashboard.refresh(paths, place, board)
        state = study_status(paths).state
        if state == "interrupted":
            raise _not_started(place)
        if state != "starting":
            return
        time.sleep(LOOK_SECONDS)
    report(
        f"it has not begun within {START_SECONDS:.0f} s; pgolf-sweep status {paths.name} says more"
    )


def _not_started(place: dashboard.Place) -> PgolfError:
    wrong_input = f"exit code {InputError.exit_code}" in place.reason
    return (InputError if wrong_input else InfraError)(
        "the driver did not start on the cluster",
        where=str(place),
        got=place.reason or place.state.lower(),
        next_step=f"fix it, then the same command: {place.again}",
    )


def build_bundle(sweep: Path, *, name: str | None = None, overrides: Overrides = NONE) -> JobBundle:
    """Check a sweep and gather what its driver needs elsewhere.

    Data does not travel: it is looked for on the cluster.

    Args:
        sweep: The sweep file.
        name: Name of the study instead of the sweep file's.
        overrides: What the command line wants otherwise than the file.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: A file that it names is missing or broken, or is named by an absolute path.
    """
    spec, program = read_sweep(sweep, name=name, overrides=overrides)
    base = sweep.resolve().parent
    with located_at(spec, "pgolf", "rules"):
        load_rules(spec.pgolf.rules, base=base)
    _check_data(spec)
    found = {base / sweep.name: spec.text.encode()}
    if spec.program != BUILTIN:
        script = _beside(spec, spec.program, "program")
        found |= {script.parent / path: content for path, content in program.files.items()}
    if spec.pgolf.rules not in preset_names():
        rules = _beside(spec, spec.pgolf.rules, "pgolf", "rules")
        found[rules] = rules.read_bytes()
    if spec.pgolf.gate_calibration not in {None, USER}:
        store = _beside(spec, str(spec.pgolf.gate_calibration), "pgolf", "gate", "calibration")
        calibration_store(spec, base=base)
        found[store] = store.read_bytes()
    root = os.path.commonpath([path.parent for path in found])
    files = {path.relative_to(root).as_posix(): content for path, content in found.items()}
    own = (base / sweep.name).relative_to(root).as_posix()
    webhook = webhook_variable(spec.pgolf.notify.webhook)
    variables = () if webhook is None else (webhook,)
    return JobBundle(study=spec.name, text=spec.text, sweep=own, files=files, variables=variables)


def _beside(spec: SweepSpec, path: str, *key: str) -> Path:
    """A file that a sweep file names; it must be named as it can be found elsewhere, too."""
    if Path(path).is_absolute():
        with located_at(spec, *key):
            raise InputError(
                "an absolute path is of this machine only",
                got=path,
                expected="a path relative to the sweep file, which can travel with it",
            )
    return Path(os.path.normpath(spec.source.resolve().parent / path))


def _check_data(spec: SweepSpec) -> None:
    block = spec.pgolf.data
    if block is None:
        return
    for key, path in (("path", block.path), ("tokenizer", block.tokenizer)):
        if path is not None and not Path(path).is_absolute():
            with located_at(spec, "pgolf", "data", key):
                raise InputError(
                    "data does not travel, so a path of it is the cluster's",
                    got=path,
                    expected="an absolute path there, or the name of a data set below HOME/data",
                )
