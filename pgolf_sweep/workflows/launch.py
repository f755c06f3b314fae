"""`launch`: the main job, from a sweep file to a driven study."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.overrides import NONE, Overrides
from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.errors import AnswerNoError, InfraError, InputError, InterruptedSweepError
from pgolf_sweep.core.event_text import event_document, event_text
from pgolf_sweep.core.paths import StudyPaths, on_disk, write_text
from pgolf_sweep.core.secrets import masked_url
from pgolf_sweep.driver.control import DriverLock, Requests, signals_around_a_sweep
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.driver.reuse import Trainings
from pgolf_sweep.driver.sharing.leases import DriverLease, new_driver
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.driver.table import counted
from pgolf_sweep.launch.inline import without_slots
from pgolf_sweep.report.read import study_records
from pgolf_sweep.report.trials import StudyRead, read_trials
from pgolf_sweep.track.make import shutdown
from pgolf_sweep.track.mode import resolve_mode
from pgolf_sweep.workflows.launch_support import (
    StatusFile,
    log_to_file,
    make_driver,
    ray_launcher,
)
from pgolf_sweep.workflows.notices import Notices, notices_of
from pgolf_sweep.workflows.plan import cost_line
from pgolf_sweep.workflows.recover import check_whole, is_whole, recover
from pgolf_sweep.workflows.study_folder import (
    begin_study,
    check_same_sweep,
    claim_storage,
    has_run_its_course,
    prepare_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.snapshot import Observer, Snapshot
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.search.study import Study

logger = logging.getLogger(__name__)
events_log = logging.getLogger("pgolf_sweep.events")
"""Goes to ``driver.log`` alone: on the terminal the observer shows the event."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LaunchedStudy(StudyRead):
    """A study after a launch of it.

    Attributes:
        session: The sweep that was launched.
        folder: The study's folder.
        snapshot: The sweep at its end.
        interrupted: Whether a signal, rather than a command, ended it.
    """

    session: Session
    folder: Path
    snapshot: Snapshot
    interrupted: bool = False


def launch(
    sweep: str | Path,
    *,
    name: str | None = None,
    runs: str | Path = "runs",
    data_root: str | Path = "data",
    address: str | None = None,
    storage: str | None = None,
    wandb: str | None = None,
    slots: int | None = None,
    events: str | Path | None = None,
    overrides: Overrides = NONE,
    probe: bool = True,
    report: Callable[[str], None] = logger.info,
    view: Callable[[Session], AbstractContextManager[Observer]] | None = None,
    rebuild: Callable[[str], bool] = lambda _: False,
) -> LaunchedStudy:
    """Run a sweep until its cap; the same call again resumes it.

    The first SIGINT lets the running trials finish, the second ends them; both can be resumed. A
    SIGHUP counts as a first SIGINT, unless it is ignored.

    Args:
        sweep: The sweep file.
        name: Name of the study instead of the sweep file's.
        runs: Folder that holds the studies.
        data_root: Folder of datasets and tokenizers.
        address: An existing Ray cluster; else a local one is started.
        storage: Optuna storage URL that shares the study; else a file of its own.
        wandb: ``online``, ``offline`` or ``disabled``; else what the key allows.
        slots: At most that many trials at a time.
        events: File that gets each event of the sweep as a JSON line.
        overrides: Values otherwise than in the sweep file; the study keeps the file with them.
        probe: Whether the gate may execute parts of a script that is not ours here, contained;
            else only its finished trials tell its size.
        report: Takes each line for people; the log of the program by default.
        view: Makes the observer of the driver's turns; by default its events are reported.
        rebuild: Asked with the reason where the study has lost its record; True rebuilds it from
            its folder.

    Returns:
        The study at its end; `state` and `reason` say how it ended, `winner` what it found.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: A file is missing, or the study was begun with something else.
        InfraError: Disk, storage or cluster failed; the same call resumes.
    """
    sweep, data_root = Path(sweep), Path(data_root)
    events = None if events is None else Path(events)
    if events is not None:
        with on_disk(events):
            events.touch()
    # Here, too, where the trials run elsewhere: validation data and tokenizer identify a study.
    session = open_session(sweep, data_root=data_root, name=name, overrides=overrides, probe=probe)
    if storage is not None:
        from pgolf_sweep.search.storage import check_storage  # noqa: PLC0415 - optuna loads late

        check_storage(storage)
    mode = resolve_mode(wandb, os.environ)
    paths = StudyPaths(Path(runs).resolve() / session.spec.name)
    with ExitStack() as stack:
        hang_ups = stack.enter_context(signals_around_a_sweep())
        stack.enter_context(on_disk(paths.root))
        me = new_driver(paths)
        lock = stack.enter_context(DriverLock(paths, driver=me))
        resumed = prepare_folder(session, paths, sweep=sweep, data_root=data_root)
        log_to_file(paths)
        trainings = Trainings(session, paths)
        study = _opened(session, paths, storage, report, rebuild, trainings)
        begin_study(session, study, paths.root.parent)
        status = StatusFile(paths)
        status.reopen()
        first = headline(session, paths, resumed=resumed)
        events_log.info("%s", first)
        report(first)
        for note in session.spec.notes:
            report(note)
        report(cost_line(session, slots=slots, done=counted(study.records())))
        if mode.note:
            report(mode.note)
        lease = DriverLease(study, me, SystemClock(), lock.before) if study.shared else None
        if lease is not None:
            stack.enter_context(lease.joined())
        if has_run_its_course(session, study):
            launcher: Launcher = stack.enter_context(closing(without_slots()))
        else:
            launcher = stack.enter_context(
                ray_launcher(session, address=address, slots=slots, report=report)
            )
        notices = stack.enter_context(closing(notices_of(session, os.environ)))
        observer = nullcontext(_Lines(report)) if view is None else view(session)
        requests = stack.enter_context(Requests(paths, hang_ups=hang_ups))
        driver = make_driver(
            session,
            study,
            launcher,
            paths,
            mode=mode,
            clock=SystemClock(),
            observer=_Recorder(stack.enter_context(observer), status, events, notices),
            request=requests,
            trainings=trainings,
            lease=lease,
        )
        stack.callback(shutdown)
        final = driver.run()
        status.write(final)
        interrupted = requests.interrupted
    read = read_trials(paths)
    return LaunchedStudy(
        name=read.name,
        records=read.records,
        curves=read.curves,
        posteriors=read.posteriors,
        state=read.state,
        reason=read.reason,
        session=session,
        folder=paths.root,
        snapshot=final,
        interrupted=interrupted,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPreview:
    """A launch that was only checked.

    Attributes:
        session: The sweep, the command line's values in it.
        resumed: Whether it would go on with a study that is there.
        done: Trials of that study which have had their slot.
        lines: What the launch would say before it starts.
    """

    session: Session
    resumed: bool
    done: int
    lines: tuple[str, ...]


def preview(
    sweep: Path,
    *,
    name: str | None = None,
    runs: Path,
    data_root: Path,
    wandb: str | None = None,
    slots: int | None = None,
    overrides: Overrides = NONE,
    need_data: bool = True,
    probe: bool = True,
) -> LaunchPreview:
    """Check a launch as far as that starts and writes nothing, and say what it would cost.

    Args:
        sweep: The sweep file.
        name: Name of the study instead of the sweep file's.
        runs: Folder that holds the studies.
        data_root: Folder of datasets and tokenizers.
        wandb: W&B mode.
        slots: Trials at a time.
        overrides: Values otherwise than in the sweep file.
        need_data: Whether the data must be here; not where the sweep is driven elsewhere.
        probe: Whether the gate may execute parts of a script that is not ours.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: What a launch would refuse before it starts.
    """
    session = open_session(
        sweep,
        data_root=data_root,
        name=name,
        overrides=overrides,
        need_data=need_data,
        probe=probe,
    )
    mode = resolve_mode(wandb, os.environ)
    paths = StudyPaths(runs.resolve() / session.spec.name)
    resumed = paths.sweep.is_file()
    done = 0
    if resumed:
        check_same_sweep(session, paths, sweep)
        with suppress(InputError):  # a launch that ended before it had a study
            done = counted(study_records(paths.root))
    lines = [headline(session, paths, resumed=resumed), *session.spec.notes]
    lines.append(cost_line(session, slots=slots, done=done))
    if mode.note:
        lines.append(mode.note)
    return LaunchPreview(session=session, resumed=resumed, done=done, lines=tuple(lines))


def conclude(final: Snapshot, paths: StudyPaths, again: str, *, interrupted: bool) -> None:
    """Raise what a sweep's end deserves, with how to go on; nothing where it may count as done.

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
    resume = f"resume with: {again}"
    if interrupted:
        raise InterruptedSweepError(
            f"study {paths.name!r} was interrupted; nothing that finished is lost",
            next_step=resume,
        )
    if final.state is SweepState.NO_HEALTHY_NODES:
        raise InfraError(
            final.reason,
            where=str(paths.root),
            expected="a node that runs trials; what finished is kept",
            next_step=f"fix or replace the nodes, then {again}",
        )
    if final.state is SweepState.ABORTED_SAME_ERROR:
        raise AnswerNoError(
            final.reason,
            where=str(paths.root),
            expected="a program that trains; the other trials have not been started",
            next_step=f"pgolf-sweep logs {paths.name} shows the newest; fix it, then {again}",
        )
    if final.best is None:
        raise AnswerNoError(
            "no trial gave a submittable score",
            where=str(paths.root),
            got=final.reason,
            next_step=f"pgolf-sweep trials {paths.name} shows the reason of each",
        )


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


def varying(session: Session) -> set[str]:
    """Names of the parameters that a sweep varies."""
    parameters = session.spec.space.parameters.values()
    return {parameter.name for parameter in parameters if parameter.domain.count() != 1}


def shown(path: Path) -> str:
    """A path as short as it is unambiguous from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class _Lines:
    """An observer that reports each event as a line and shows no turn."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report

    def turn(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def event(self, event: SweepEvent) -> None:
        """One line."""
        self._report(event_text(event))


class _Recorder:
    """An observer that keeps ``status.json``, ``driver.log`` and the file of events besides.

    Args:
        observer: Shows the sweep to people.
        status: Written at each turn.
        events: File that gets a JSON line for each event; None for none.
        notices: Tells those whom the sweep file names.
    """

    def __init__(
        self, observer: Observer, status: StatusFile, events: Path | None, notices: Notices
    ) -> None:
        self._observer = observer
        self._status = status
        self._events = events
        self._notices = notices

    def turn(self, snapshot: Snapshot) -> None:
        """Write the status, then show the turn."""
        self._status.write(snapshot)
        self._observer.turn(snapshot)

    def event(self, event: SweepEvent) -> None:
        """Write the event down, then show it."""
        events_log.info("%s", event_text(event))
        if self._events is not None:
            line = json.dumps(event_document(event, at=time.time()), allow_nan=False)
            with on_disk(self._events), self._events.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        self._notices.event(event)
        self._observer.event(event)


def _opened(
    session: Session,
    paths: StudyPaths,
    storage: str | None,
    report: Callable[[str], None],
    rebuild: Callable[[str], bool],
    trainings: Trainings,
) -> Study:
    """The study to be written, rebuilt from its folder if its record is lost and the user agrees.

    Raises:
        InputError: The study has lost trials, and nobody agreed to rebuild it.
    """
    from pgolf_sweep.search.study import (  # noqa: PLC0415 - optuna loads late
        open_study,
    )

    def opened() -> Study:
        return open_study(
            session.spec,
            paths,
            storage=storage,
            write=True,
            verdicts=session.verdict_of,
            reuse=trainings if trainings.active else None,
        )

    study = opened()
    if storage is not None:
        claim_storage(session, study, paths)
        # Not before it has proved to be one: later commands take it from here.
        write_text(paths.storage_url, masked_url(storage) + "\n", private=True)
    if is_whole(study, paths):
        return study
    try:
        check_whole(study, paths)
    except InputError as error:
        if not rebuild(error.what):
            raise
    study.close()
    for line in recover(session, paths, storage=storage).lines(paths.name):
        report(line)
    return opened()
