"""Rebuilding a study from what its folder keeps, where its journal or its database is lost.

Each trial's row is taken from ``result.json``, else from ``rows.jsonl``, else from what the old
journal still tells, else from ``spec.json`` (it waits for a slot again). A number of which nothing
is left becomes a failure of the infrastructure, which counts nowhere. Trials are told in the order
of their numbers, with their validation scores, so that sampler and pruner go on.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.kept import (
    kept_rows,
    lost_trials,
    read_result,
    read_spec,
    spec_identity,
    strangers,
)
from pgolf_sweep.core.paths import StudyPaths, put_aside, read_json
from pgolf_sweep.core.record import State, TrialRecord, former_origin
from pgolf_sweep.core.trial import Change, FailureKind
from pgolf_sweep.driver.proposals import answer, answered
from pgolf_sweep.script.logs.stream import LogStream
from pgolf_sweep.search.journal import readable_trials
from pgolf_sweep.search.study import open_study
from pgolf_sweep.workflows.study_folder import identity_of_session, warm_starts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pgolf_sweep.core.paths import TrialPaths
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.search.journal import OldTrial
    from pgolf_sweep.search.study import Study

LOST = "lost with the study's record: nothing of it is on disk"
WORKSHOP = ".recover"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a rebuilt study holds.

    Attributes:
        trials: All of them.
        ended: Those whose end is known.
        waiting: Numbers of those that run again, since nothing tells of their end.
        unknown: Numbers of which nothing is left.
        put_aside: Where the old journal is now, or None.
    """

    trials: int
    ended: int
    waiting: tuple[int, ...]
    unknown: tuple[int, ...]
    put_aside: Path | None

    def lines(self, study: str) -> list[str]:
        """What was rebuilt and what was not, for people."""
        found = [f"study {study!r}: {self.trials} trials rebuilt, {self.ended} with their end"]
        if self.waiting:
            which = _listed(self.waiting)
            found.append(f"  trials {which} have no result and run again at the next launch")
        if self.unknown:
            found.append(f"  nothing is left of trials {_listed(self.unknown)}")
        if self.put_aside is not None:
            found.append(f"  the old journal is kept as {self.put_aside}")
        return found


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")


def is_whole(study: Study, paths: StudyPaths) -> bool:
    """Whether a study knows every trial that has a folder, as what it is."""
    return not strangers(paths, study.records())


def needs_recovery(session: Session, paths: StudyPaths) -> bool:
    """Whether a study cannot be read any more, or does not know every trial of its folder."""
    try:
        with closing(open_study(session.spec, paths)) as study:
            return not is_whole(study, paths)
    except InputError:
        return True


def check_whole(study: Study, paths: StudyPaths) -> None:
    """Refuse to drive a study that has lost trials: new ones would take their numbers.

    Raises:
        InputError: Some trials' folders are unknown to it, or belong to other configurations.
    """
    lost = strangers(paths, study.records())
    if lost:
        raise lost_trials(paths, lost)


def recover(session: Session, paths: StudyPaths, *, storage: str | None = None) -> Recovered:
    """Rebuild a study that has lost trials; the caller holds the driver's lock.

    Raises:
        InputError: Nothing is lost, or the database holds a study that is not this one.
    """
    shared = storage is not None or paths.storage_url.is_file()
    # By the row's own number: where the journal lost a record, rows went to other trials.
    old = {} if shared else {t.record.number: t for t in readable_trials(paths.journal)}
    rows, unknown = _rows(paths, old)
    if not rows:
        raise InputError(
            f"study {paths.name!r} has no trials to rebuild it from",
            where=str(paths.root),
            next_step=f"pgolf-sweep launch {paths.sweep}",
        )
    if shared:
        with closing(open_study(session.spec, paths, storage=storage, write=True)) as study:
            if study.records():
                raise InputError(
                    f"the storage holds a study {study.name!r} with trials: it is left alone",
                    where=str(paths.root),
                    next_step=f"pgolf-sweep status {paths.name}",
                )
            _fill(study, session, paths, rows, old)
        return _summary(rows, unknown, None)
    workshop = StudyPaths(paths.root / WORKSHOP)
    shutil.rmtree(workshop.root, ignore_errors=True)
    with closing(open_study(session.spec, workshop, write=True)) as study:
        _fill(study, session, paths, rows, old)
    aside = put_aside(paths.journal) if paths.journal.is_file() else None
    workshop.journal.replace(paths.journal)
    shutil.rmtree(workshop.root, ignore_errors=True)
    return _summary(rows, unknown, aside)


def _summary(
    rows: Mapping[int, TrialRecord], unknown: tuple[int, ...], aside: Path | None
) -> Recovered:
    waiting = tuple(number for number, row in rows.items() if not row.outcome.final)
    return Recovered(
        trials=len(rows),
        ended=len(rows) - len(waiting) - len(unknown),
        waiting=waiting,
        unknown=unknown,
        put_aside=aside,
    )


# -- rows ----------------------------------------------------------------------------------------


def _rows(
    paths: StudyPaths, old: Mapping[int, OldTrial]
) -> tuple[dict[int, TrialRecord], tuple[int, ...]]:
    """A row for each number up to the largest that anything tells of, and those made up."""
    told = {number: trial.record for number, trial in old.items() if trial.waiting is None}
    kept = kept_rows(paths)
    known = {*told, *kept, *paths.trial_numbers()}
    rows: dict[int, TrialRecord] = {}
    unknown = []
    for number in range(max(known, default=-1) + 1):
        folder = paths.trial(number)
        row = _result_row(folder, number) or kept.get(number)
        row = row or _journal_row(told.get(number)) or _waiting_row(folder, number)
        if row is None:
            unknown.append(number)
        rows[number] = row or TrialRecord(
            number=number,
            outcome=State.FAILED,
            failure=FailureKind.INFRASTRUCTURE.value,
            knobs={},
            reason=LOST,
        )
    return rows, tuple(unknown)


def _result_row(folder: TrialPaths, number: int) -> TrialRecord | None:
    with suppress(InfraError):
        if (result := read_result(folder)) is not None:
            row = TrialRecord.from_json(result["record"])
            return row if row.number == number else None
    return None


def _journal_row(row: TrialRecord | None) -> TrialRecord | None:
    if row is None or row.outcome is not State.RUNNING:
        return row
    return dataclasses.replace(row, outcome=State.QUEUED)


def _waiting_row(folder: TrialPaths, number: int) -> TrialRecord | None:
    """The row of a trial that was to run, from its ``spec.json``."""
    spec = read_spec(folder)
    if spec is None:
        return None
    proposer = str(spec.get("proposer", ""))
    former = former_origin(proposer)
    return TrialRecord(
        number=number,
        outcome=State.QUEUED,
        knobs=spec["knobs"],
        proposer=proposer,
        export_of=spec.get("export_of", former.get("export_of")),
        repair_of=spec.get("repair_of", former.get("repair_of")),
        **_change(spec),
        attempts=len(list(folder.root.glob("train.attempt*.log"))),
        rung=spec.get("rung"),
        identity=spec_identity(spec),
    )


def _change(spec: Mapping[str, Any]) -> dict[str, Any]:
    with suppress(TypeError):
        return dataclasses.asdict(Change.from_json(spec))
    return {}


# -- filling -------------------------------------------------------------------------------------


def _fill(
    study: Study,
    session: Session,
    paths: StudyPaths,
    rows: Mapping[int, TrialRecord],
    old: Mapping[int, OldTrial],
) -> None:
    wishes = {request.number: request for request in answered(paths)}
    for number, row in rows.items():
        study.rebuild(
            row,
            _point(row, rows, session),
            request=wishes[number].id if number in wishes else None,
            scores=_scores(paths.trial(number), old.get(number)),
        )
    # In the order in which they were told, as far as it is known: some samplers go by it.
    told = [number for number in kept_rows(paths) if number in rows]
    for number in dict.fromkeys([*told, *rows]):
        if rows[number].outcome.final:
            study.tell(rows[number])
    for trial in old.values():
        study.enqueue_again(trial)
    _enqueue_warm_starts(study, session, paths, rows)
    for request in wishes.values():
        if request.number not in rows:
            with suppress(InputError):
                number = study.enqueue_once(request.knobs, request.origin)
                answer(paths, request, number=number)
    study.set_attribute("identity", _identity(session, paths))


def _point(
    row: TrialRecord, rows: Mapping[int, TrialRecord], session: Session
) -> dict[str, KnobValue]:
    """Parameters of a trial, as far as the space holds them; of an export see `register_export`."""
    space = session.spec.space
    trained = rows.get(row.export_of) if row.export_of is not None else None
    point = {}
    for name, parameter in space.parameters.items():
        for source in (row, trained):
            if source is None or name not in source.knobs:
                continue
            with suppress(ValueError):
                parameter.domain.encode(source.knobs[name])
                point[name] = source.knobs[name]
                break
    return {name: v for name, v in point.items() if space.parameters[name].active(point)}


def _scores(folder: TrialPaths, trial: OldTrial | None) -> list[float]:
    """Validation scores of a trial, in order: of its result, the old journal or its log."""
    with suppress(InfraError, TypeError, ValueError):
        if result := read_result(folder):
            return [float(score) for score in result.get("scores", ())]
    if trial is not None and trial.scores:
        return list(trial.scores)
    if not folder.log.is_file():
        return []
    stream = LogStream()
    reports = []
    with folder.log.open("rb") as file:
        while chunk := file.read(1 << 20):
            reports += stream.feed(chunk)
    return [r.val_bpb for r in reports if r.step and r.val_bpb is not None]


def _enqueue_warm_starts(
    study: Study, session: Session, paths: StudyPaths, rows: Mapping[int, TrialRecord]
) -> None:
    """Enqueue those of which neither a trial nor the old journal tells."""
    waiting = study.waiting_points()
    for knobs, by in _whole(warm_starts(session, paths.root.parent)):
        done = [r.knobs for r in rows.values() if r.proposer == by] + waiting
        if not any(knobs.items() <= one.items() for one in done):
            study.enqueue(knobs, by=by)


def _whole(starts: Iterator[Any]) -> Iterator[Any]:
    with suppress(InputError):  # the study that they come from may be gone
        yield from starts


def _identity(session: Session, paths: StudyPaths) -> dict[str, Any]:
    """What the study was begun with, as its folder says; else as it is now."""
    with suppress(InfraError):
        kept = read_json(paths.origin).get("identity")
        if isinstance(kept, dict):
            return kept
    return identity_of_session(session)
