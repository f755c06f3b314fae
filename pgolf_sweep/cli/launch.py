"""`launch`: the main job."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    DataRootOption,
    JsonOption,
    RunsOption,
    SweepArgument,
    app,
    emit,
    out,
    say,
)

if TYPE_CHECKING:
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.snapshot import Snapshot

STATUS_SECONDS = 2.0
LEASE = "PGOLF_LEASE_SECONDS"
WORKER_LEASES = 4
"""A worker waits longer for its driver than the driver for it: a driver may be busy."""


@app.command()
def launch(  # noqa: PLR0915 - the order of its steps is what it is about
    context: typer.Context,
    sweep: SweepArgument,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster (`auto` or HOST:PORT); else a local one."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="PGOLF_STORAGE",
            help="Optuna storage URL that shares the study; else a file of its own. Its password "
            "is not kept: for the other commands, set the variable.",
        ),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="online, offline or disabled; else what the key allows.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study; else the sweep file's.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="At most so many trials at a time.")
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Drive it on the cluster at --address, as a Ray job there."),
    ] = False,
    home: Annotated[
        str | None,
        typer.Option(
            help="With --detach: the cluster's folder of runs/ and data/; else ~/pgolf-sweep."
        ),
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """Run a sweep: propose, gate, train, score, until its cap; the same command again resumes.

    Ctrl-C once lets the running trials finish, twice ends them; both can be resumed.

    Example: pgolf-sweep launch sweeps/demo.yaml

    Example: pgolf-sweep launch sweeps/lr.yaml --detach --address http://HEAD:8265
    """
    if detach:
        from pgolf_sweep.cli.detached import Sending, launch_detached

        source = context.get_parameter_source("data_root")
        sending = Sending(
            address=address,
            home=home,
            # What the environment says of data is of this machine.
            data_root=data_root if source and source.name == "COMMANDLINE" else None,
            storage=storage,
            wandb=wandb,
            slots=slots,
        )
        launch_detached(sweep, sending, name=name, runs=runs, json_output=json_output)
        return
    from pgolf_sweep.cli.live import Display
    from pgolf_sweep.core.clock import SystemClock
    from pgolf_sweep.core.paths import StudyPaths, on_disk, write_text
    from pgolf_sweep.driver.control import DriverLock, Requests
    from pgolf_sweep.driver.session import open_session
    from pgolf_sweep.driver.sharing.leases import Crew, new_driver
    from pgolf_sweep.launch.inline import without_slots
    from pgolf_sweep.report.read import study_status
    from pgolf_sweep.track.make import shutdown
    from pgolf_sweep.track.mode import resolve_mode
    from pgolf_sweep.workflows.launch import (
        begin_study,
        claim_storage,
        has_run_its_course,
        make_driver,
        prepare_folder,
    )
    from pgolf_sweep.workflows.recover import is_whole

    # Here, too, where the trials run elsewhere: validation data and tokenizer identify a study.
    session = open_session(sweep, data_root=data_root, name=name)
    mode = resolve_mode(wandb, os.environ)
    paths = StudyPaths(runs.resolve() / session.spec.name)
    with ExitStack() as stack:
        stack.enter_context(on_disk(paths.root))
        me = new_driver(paths)
        lock = stack.enter_context(DriverLock(paths, driver=me))
        resumed = prepare_folder(session, paths, sweep=sweep, data_root=data_root)
        log_to_file(paths)
        from pgolf_sweep.search.study import open_study, without_password

        study = open_study(session.spec, paths, storage=storage, write=True)
        if storage is not None:
            claim_storage(session, study, paths)
            # Not before it has proved to be one: later commands take it from here.
            write_text(paths.storage_url, without_password(storage) + "\n")
        if not is_whole(study, paths):
            study = recovered(session, study, paths, storage)
        begin_study(session, study, paths.root.parent)
        StatusFile(paths).reopen()
        say(headline(session, paths, resumed=resumed))
        if mode.note:
            say(mode.note)
        if has_run_its_course(session, study):
            launcher = stack.enter_context(closing(without_slots()))
        else:
            launcher = stack.enter_context(ray_launcher(session, address=address, slots=slots))
        display = stack.enter_context(
            Display(varied=varying(session), on_turn=StatusFile(paths).write)
        )
        requests = stack.enter_context(Requests(paths))
        driver = make_driver(
            session,
            study,
            launcher,
            paths,
            mode=mode,
            clock=SystemClock(),
            observer=display,
            request=requests,
            crew=Crew(study, me, SystemClock(), lock.before) if study.shared else None,
        )
        stack.callback(shutdown)
        final = driver.run()
        StatusFile(paths).write(final)
        interrupted = requests.interrupted
    status = study_status(paths)
    if json_output:
        emit(status.to_json())
    else:
        show_result(session, final, paths)
    again = f"pgolf-sweep launch {sweep}" + (f" --name {name}" if name is not None else "")
    conclude(final, paths, again, interrupted=interrupted)


def recovered(session: Session, study: Any, paths: StudyPaths, storage: str | None) -> Any:
    """The study rebuilt from its folder, if the user at the terminal wants it.

    Raises:
        InputError: The study has lost trials, and nobody agreed to rebuild it.
    """
    import sys

    from pgolf_sweep.cli.recover import show_recovered
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.search.study import open_study
    from pgolf_sweep.workflows.recover import check_whole, recover

    try:
        check_whole(study, paths)
    except InputError as error:
        say(error.what)
        if not sys.stdin.isatty() or not typer.confirm("Rebuild it from its folder?", err=True):
            raise
    study.close()
    show_recovered(recover(session, paths, storage=storage), paths)
    return open_study(session.spec, paths, storage=storage, write=True)


def conclude(final: Snapshot, paths: StudyPaths, again: str, *, interrupted: bool) -> None:
    """The exit code that a sweep's end deserves, and how to go on.

    Args:
        final: The sweep at its end.
        paths: The study's folder.
        again: The command that resumes it.
        interrupted: Whether a signal ended it.

    Raises:
        InterruptedSweepError: A signal ended it.
        InfraError: No node was fit to run the rest.
        AnswerNoError: No trial can be submitted, or none of this launch ran.
    """
    from pgolf_sweep.core.errors import AnswerNoError, InfraError, InterruptedSweepError
    from pgolf_sweep.driver.snapshot import SweepState

    resume = f"resume with: {again}"
    if interrupted:
        raise InterruptedSweepError(
            f"study {paths.name!r} was interrupted; nothing that finished is lost",
            next_step=resume,
        )
    if final.state is SweepState.STRANDED:
        raise InfraError(
            final.reason,
            where=str(paths.root),
            expected="a node that runs trials; what finished is kept",
            next_step=f"mend or replace the nodes, then {again}",
        )
    if final.state is SweepState.HOPELESS:
        raise AnswerNoError(
            final.reason,
            where=str(paths.root),
            expected="a program that trains; the other trials have not been started",
            next_step=f"pgolf-sweep logs {paths.name} shows the newest; mend it, then {again}",
        )
    if final.state in {SweepState.STOPPED, SweepState.CANCELLED}:
        say(resume)
    if final.best is None:
        raise AnswerNoError(
            "no trial gave a submittable score",
            where=str(paths.root),
            got=final.reason,
            next_step=f"pgolf-sweep trials {paths.name} shows the reason of each",
        )


class StatusFile:
    """Keeps ``status.json`` fresh, not more often than anyone reads it."""

    def __init__(self, paths: StudyPaths) -> None:
        from pgolf_sweep.launch.remote.entrypoint import JOB_VARIABLE

        job = os.environ.get(JOB_VARIABLE)
        self._path = paths.status
        self._job = {"job": job} if job else {}
        self._written: tuple[float, Any] = (-math.inf, None)

    def reopen(self) -> None:
        """Let the last driver's end not be taken for this one's, should this one die early."""
        from pgolf_sweep.core.paths import read_json, write_json
        from pgolf_sweep.driver.snapshot import JOINING, SweepState

        last = read_json(self._path) if self._path.is_file() else {}
        if last or self._job:
            begun = {"state": SweepState.RUNNING.value, "reason": "", "nodes": [], **self._job}
            write_json(self._path, last | begun | {JOINING: True})

    def write(self, snapshot: Snapshot) -> None:
        """Write the snapshot if the state changed or the file is old."""
        from pgolf_sweep.core.paths import write_json
        from pgolf_sweep.driver.snapshot import status_document

        now = time.monotonic()  # the snapshot's time may jump, and the file would grow old
        at, state = self._written
        if snapshot.state != state or now - at >= STATUS_SECONDS:
            self._written = (now, snapshot.state)
            write_json(self._path, status_document(snapshot) | self._job)


def ray_launcher(session: Session, *, address: str | None, slots: int | None) -> Any:
    """The Ray launcher of a session, as a context manager that closes it.

    Raises:
        InputError: PGOLF_LEASE_SECONDS is no time.
    """
    from pgolf_sweep.launch.ray.launcher import RayLauncher
    from pgolf_sweep.workflows.launch import node_fitness

    lease_seconds = leases(os.environ.get(LEASE))
    fitness = node_fitness(session)
    say(f"Ray: {'connecting to ' + address if address else 'starting on this machine'} ...")
    return closing(
        RayLauncher(
            address=address,
            resources=session.resources,
            slots=slots,
            fitness=fitness,
            lease_seconds=lease_seconds,
            driver_lease_seconds=WORKER_LEASES * lease_seconds,
        )
    )


def leases(given: str | None) -> float:
    """Seconds after which a silent worker is lost.

    Raises:
        InputError: It is no number, or too small for a network.
    """
    from pgolf_sweep.core.errors import InputError

    with suppress(ValueError):
        seconds = 30.0 if given is None else float(given)
        if 3.0 <= seconds < math.inf:
            return seconds
    raise InputError(
        "this is no lease", where=LEASE, got=str(given), expected="seconds, 3 or more, such as 30"
    )


def log_to_file(paths: StudyPaths) -> None:
    """The driver's log, tracebacks included, beside the study."""
    handler = logging.FileHandler(paths.driver_log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package = logging.getLogger("pgolf_sweep")
    package.addHandler(handler)
    package.setLevel(logging.INFO)


def varying(session: Session) -> set[str]:
    """Names of the parameters that a sweep varies."""
    parameters = session.spec.space.parameters.values()
    return {parameter.name for parameter in parameters if parameter.domain.count() != 1}


def headline(session: Session, paths: StudyPaths, *, resumed: bool) -> str:
    """What is about to run, in one line."""
    spec, rules = session.spec, session.rules
    cap = f"run_cap {spec.run_cap}" if spec.run_cap is not None else "no run_cap"
    gate = f"gate at {rules.artifact_cap_bytes:,} B" if spec.pgolf.gate_enabled else "gate off"
    if session.learnt:
        gate += f" ({session.learnt})"
    verb = "resuming" if resumed else "study"
    return (
        f"{verb} {spec.name}: {len(varying(session))} knobs, {spec.method}, {cap}, {gate}, "
        f"rules {rules.name}, folder {shown(paths.root)}"
    )


def shown(path: Path) -> str:
    """A path as short as it is unambiguous from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def show_result(session: Session, final: Snapshot, paths: StudyPaths) -> None:
    """The best trials, what the gate saved, and what to type next."""
    from pgolf_sweep.cli.render import bytes_text, duration, trials_table
    from pgolf_sweep.core.record import ranked
    from pgolf_sweep.report.read import study_records

    best = ranked(study_records(paths.root))[:5]
    if best:
        out.print(trials_table(best, varying(session), title="best trials"))
    count = final.counts
    unit = "GPU" if session.resources.gpus else "CPU"
    each = max(1, session.resources.gpus)
    saved = ""
    if final.saved_by_gate_seconds:
        saved = (
            f", which saved about {final.saved_by_gate_seconds * each:,.0f} {unit}-seconds "
            f"({duration(final.saved_by_gate_seconds)} of a slot)"
        )
    out.print(
        f"{count['completed']} completed, {count['pruned']} pruned, {count['failed']} failed; "
        f"{count['discarded']} discarded by the gate before they took a slot{saved}",
        soft_wrap=True,
    )
    say(f"ended: {final.reason}")
    if best:
        name = session.spec.name
        say(
            f"next: pgolf-sweep promote {name}    # trial {best[0].number} on fresh seeds, then "
            f"the submission folder (headroom {bytes_text(best[0].headroom_bytes)})"
        )
