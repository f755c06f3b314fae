"""A whole sweep on a simulated clock: driver, sampler, pruner and gate as they are, training not.

What a trial would measure is a plain function of its knobs, so that a method can be judged on a
table or a formula before anything is spent.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.trial import TRAIN, EndCause, LogSummary, StepReport
from pgolf_sweep.driver.budget import spending_of
from pgolf_sweep.driver.driver import Driver, Options
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.driver.reuse import Trainings
from pgolf_sweep.driver.session import Session
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.report.trials import StudyRead
from pgolf_sweep.track.null import NullStudyTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.snapshot import Snapshot
    from pgolf_sweep.launch.base import Job
    from pgolf_sweep.launch.inline import Step

STEPS = 1_000_000
"""Steps of a simulated training: a fraction of the schedule is reported as that many."""


def simulate(
    sweep: str | Path | Session,
    run: Callable[[Mapping[str, KnobValue]], Mapping[str, Any]],
    *,
    slots: int = 8,
    seed: int = 0,
) -> StudyRead:
    """Drive a sweep whose trials are a function of their knobs.

    The gate is the sweep's own and learns from the bytes that the function gives. Two calls with
    the same arguments give the same trials.

    Args:
        sweep: A sweep file, or one that was opened.
        run: From the resolved knobs of a trial to ``val_bpb``, ``artifact_bytes`` and ``minutes``,
            and where the pruner shall have something to judge, ``curve``: pairs of a fraction of
            the schedule and the `val_bpb` there. With ``export_minutes``, what a trial takes that
            goes on from an earlier training, trials share their trainings. A trial on a cheaper
            rung has that rung's knobs, and its number, 1 for the cheapest, under ``rung``.
        slots: Trials at a time.
        seed: Of the sampler, in place of the sweep file's.

    Raises:
        InputError: `run` gave something else, or the sweep has no end.
        SpecError: The sweep file has mistakes.
    """
    from pgolf_sweep.search.study import open_study  # noqa: PLC0415 - optuna loads late
    from pgolf_sweep.workflows.study_folder import begin_trials  # noqa: PLC0415 - loads trackers

    session = sweep if isinstance(sweep, Session) else _opened(Path(sweep))
    block = dataclasses.replace(session.spec.pgolf, seed=seed)
    spec = dataclasses.replace(session.spec, pgolf=block)
    # Time stands still while the gate thinks: what it would prepare in a thread is waited for.
    session = dataclasses.replace(session, spec=spec, gate=session.gate.copy(), prepares=False)
    if session.spec.run_cap is None and session.spec.space.size() is None:
        raise InputError(
            "a simulated sweep must end", where=str(session.spec.source), expected="a run_cap"
        )
    clock = SimulatedClock()
    with tempfile.TemporaryDirectory(prefix="pgolf-simulate-") as folder:
        paths = StudyPaths(Path(folder) / session.spec.name)
        trainings = Trainings(session, paths)
        with closing(
            open_study(
                session.spec,
                paths,
                write=True,
                verdicts=session.verdict_of,
                reuse=trainings if trainings.active else None,
            )
        ) as study:
            begin_trials(session, study, paths.root.parent)
            driver = Driver(
                session=session,
                study=study,
                launcher=InlineLauncher(
                    slots * session.slots_each,
                    _simulated(session, run),
                    clock,
                    slots_per_node=8 if session.slots_each == 1 else session.slots_each,
                ),
                tracker=NullStudyTracker(),
                paths=paths,
                clock=clock,
                observer=_Nobody(),
                trainings=trainings,
                options=Options(
                    run_cap=session.spec.run_cap,
                    spending=spending_of(session, begun=clock.now()),
                    nodes=session.spec.pgolf.nodes,
                ),
            )
            snapshot = driver.run()
            return StudyRead(
                name=study.name,
                records=tuple(study.records()),
                curves=study.curves(),
                posteriors=study.posteriors(),
                state=snapshot.state.value,
                reason=snapshot.reason,
            )


def _opened(sweep: Path) -> Session:
    # A simulation needs no data: nothing is trained.
    return open_session(sweep, data_root=Path("data"), need_data=False)


class _Nobody:
    """An observer that does not look."""

    def turn(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def event(self, event: SweepEvent) -> None:
        """Nothing."""


def _simulated(
    session: Session, run: Callable[[Mapping[str, KnobValue]], Mapping[str, Any]]
) -> Callable[[Job], Iterator[Step]]:
    """What the inline launcher does for a job."""

    def steps(job: Job) -> Iterator[Step]:
        rung = job.spec.rung
        there = {} if rung is None else {**session.instead(job.spec.knobs, rung), "rung": rung}
        answer = run({**job.spec.knobs, **there})
        shares = job.reuse.start_at != TRAIN and "export_minutes" in answer
        leaves = not shares and job.reuse.keep_at and "export_minutes" in answer
        try:
            val_bpb, size = float(answer["val_bpb"]), answer.get("artifact_bytes")
            seconds = 60.0 * float(answer["export_minutes" if shares else "minutes"])
            points = () if shares else answer.get("curve") or ()
            curve = [(float(at), float(value)) for at, value in points]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "the simulated run gave no result",
                got=repr(answer),
                expected="a mapping with val_bpb, artifact_bytes and minutes, and perhaps curve",
            ) from error
        elapsed = 0.0
        for at, value in curve:
            yield (
                at * seconds - elapsed,
                StepReport(step=max(1, round(at * STEPS)), total_steps=STEPS, val_bpb=value),
            )
            elapsed = at * seconds
        if not math.isfinite(val_bpb):
            finish = Finish(exit_code=1, detail="not finite", summary=LogSummary(non_finite=True))
            yield seconds - elapsed, finish
            return
        code_bytes = session.program.code_bytes
        model_bytes = None if size is None else max(0, round(float(size)) - code_bytes)
        summary = LogSummary(
            val_bpb=val_bpb,
            model_bytes=model_bytes,
            code_bytes=code_bytes,
            total_bytes=None if size is None else round(float(size)),
            train_seconds=seconds,
        )
        yield (
            max(0.0, seconds - elapsed),
            Finish(
                cause=EndCause.EXITED,
                summary=summary,
                model_file_bytes=model_bytes,
                start_at=job.reuse.start_at if shares else TRAIN,
                checkpoint_bytes=1 if leaves else None,
            ),
        )

    return steps
