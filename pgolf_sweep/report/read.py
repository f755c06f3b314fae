"""Reading a study without driving it."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.kept import lost_trials, settled
from pgolf_sweep.core.paths import StudyPaths, read_mirror
from pgolf_sweep.core.record import (
    State,
    TrialRecord,
    counts,
    named,
    ranked,
    score_name,
)
from pgolf_sweep.driver.control import live_driver
from pgolf_sweep.driver.proposals import left_over
from pgolf_sweep.driver.sharing.leases import drivers, short
from pgolf_sweep.driver.snapshot import JOINING, SweepState
from pgolf_sweep.driver.table import counted
from pgolf_sweep.launch.remote.dashboard import UNREACHABLE, Place, read_place
from pgolf_sweep.report.compare import noise_floor
from pgolf_sweep.report.noops import no_op_knobs
from pgolf_sweep.report.posterior import posterior_row
from pgolf_sweep.report.search import decided, search_document, tied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgolf_sweep.core.record import Posterior
    from pgolf_sweep.search.posterior import Posteriors
    from pgolf_sweep.search.study import Study


def study_records(folder: Path) -> list[TrialRecord]:
    """A row for every trial of the study in a folder, by number.

    Raises:
        InputError: The study has lost trials that its folder holds.
    """
    with reading(folder) as study:
        return _rows(study, StudyPaths(folder))


def _rows(study: Study, paths: StudyPaths) -> list[TrialRecord]:
    """Rows as they stand: where no driver lives, nothing runs."""
    copied = read_place(paths) is not None
    # Before the rows: a driver adds to the study first.
    folders = [] if copied else paths.trial_numbers()
    records = study.records()
    known = {record.number for record in records}
    if lost := [number for number in folders if number not in known]:
        raise lost_trials(paths, lost)
    if copied or paths.storage_url.is_file() or live_driver(paths) is not None:
        return records
    return settled(records)


@contextmanager
def reading(folder: Path) -> Iterator[Study]:
    """The study of a folder, for one who does not drive it."""
    from pgolf_sweep.search.study import open_study  # noqa: PLC0415 - optuna loads late

    paths = StudyPaths(folder)
    spec = dataclasses.replace(load_spec(paths.sweep), name=paths.name)
    with closing(open_study(spec, paths)) as study:
        yield study


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A study as ``status`` shows it.

    Attributes:
        state: ``running`` or ``draining`` while a driver lives; else how the last one ended, or
            ``interrupted`` if it died without a word. A detached one may be ``starting``, or
            ``unreachable``.
        driver: Process and host of the live driver, or its job, or None.
        last: The driver's last snapshot as plain data.
        place: Where the study is driven, if not here.
        sharing: What the drivers of a shared study say of themselves, the dead ones among them.
        curves: Interim validations of a trial by its number: ordinal and `val_bpb`.
        proposals_left: Proposals that have had no slot.
    """

    name: str
    state: str
    driver: str | None
    records: list[TrialRecord]
    last: dict[str, Any]
    place: Place | None = None
    sharing: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    posteriors: dict[int, Posterior] = field(default_factory=dict)
    proposals_left: int = 0

    @property
    def reason(self) -> str:
        """Why the sweep ended."""
        said = str(self.last.get("reason", ""))
        return self.place.reason if self.place is not None and not said else said

    @property
    def held_seconds(self) -> float:
        """Time for which slots were held, by the trials that run, too."""
        now = time.time()
        running = [r.started_at for r in self.records if r.outcome is State.RUNNING]
        begun = sum(max(0.0, now - at) for at in running if at is not None)
        return sum(record.slot_seconds for record in self.records) + begun

    @property
    def elapsed_seconds(self) -> float | None:
        """Since the launch began, or for how long the last one went on; None where none has."""
        began = self.last.get("began_at")
        if began is None:
            return None
        until = time.time() if self.driver is not None else self.last.get("written_at", began)
        return max(0.0, float(until - began))

    @property
    def seconds_left(self) -> float | None:
        """Until the sweep ends, by its driver's last word."""
        return self.last.get("seconds_left") if self.driver is not None else None

    @property
    def running(self) -> list[dict[str, Any]]:
        """A row for each trial that runs."""
        return [
            {
                "number": r.number,
                "node": r.node,
                "knobs": dict(r.knobs),
                "driver": short(r.driver),
            }
            for r in self.records
            if r.outcome is State.RUNNING
        ]

    def to_json(self) -> dict[str, Any]:
        """The document of ``status --json``; keys stay stable.

        The score of a sweep's own metric stands under the metric's name, which is `metric`.
        """
        document: dict[str, Any] = named(self._document(), score_name(self.records))
        return document

    def _document(self) -> dict[str, Any]:
        gpus, price = self.last.get("gpus"), self.last.get("usd_per_gpu_hour")
        gpu_hours = self.held_seconds * gpus / 3600 if gpus else None
        tally = counts(self.records)
        best = next(iter(ranked(self.records, self.posteriors)), None)
        seconds = {
            "trained": sum(record.slot_seconds for record in self.records),
            "idle": self.last.get("idle_seconds", 0.0),
            "saved_by_gate": self.last.get("saved_by_gate_seconds", 0.0),
        }
        return {
            "study": self.name,
            "state": self.state,
            "metric": score_name(self.records),
            "trials": tally,
            "redrawn": sum(record.redrawn for record in self.records),
            "search": search_document(self.records),
            "run_cap": self.last.get("run_cap"),
            "counted": counted(self.records),
            "gpu_hours": gpu_hours,
            "usd": None if gpu_hours is None or price is None else gpu_hours * price,
            "elapsed_seconds": self.elapsed_seconds,
            "budget": self.last.get("budget"),
            "best": None
            if best is None
            else {
                "number": best.number,
                "val_bpb": best.val_bpb,
                "artifact_bytes": best.artifact_bytes,
                "headroom_bytes": best.headroom_bytes,
                "knobs": dict(best.knobs),
                "variant": best.variant,
                "idea": best.idea,
            },
            "best_posterior": None
            if best is None or best.number not in self.posteriors
            else posterior_row(self.posteriors[best.number])
            | {
                "tied_with": tied(self.records, self.posteriors),
                "seed_would_decide": {
                    str(number): share
                    for number, share in decided(self.records, self.posteriors).items()
                },
            },
            "noise_floor": noise_floor(self.records).to_json(),
            "slot_seconds": seconds,
            "seconds_left": self.seconds_left,
            "slots": self.last.get("slots", 0),
            "reason": self.reason,
            "proposals_left": self.proposals_left if self.driver is None else 0,
            "driver": self.driver,
            "nodes": self.last.get("nodes", []),
            "detached": None
            if self.place is None
            else {
                "address": self.place.address,
                "job": self.place.job,
                "job_state": self.place.state.lower(),
                "seen_at": self.place.seen_at,
            },
            "drivers": [
                {
                    "host": entry["host"],
                    "folder": entry["folder"],
                    "pid": entry["pid"],
                    "slots": entry["slots"],
                    "trials": [
                        r.number
                        for r in self.records
                        if r.driver == entry["name"] and r.outcome is State.RUNNING
                    ],
                }
                for entry in self.sharing
            ],
            "no_op_knobs": [dataclasses.asdict(found) for found in no_op_knobs(self.records)],
            "running": self.running,
        }


def study_status(paths: StudyPaths) -> Status:
    """Read a study's status from its folder."""
    place = read_place(paths)
    if not has_study(paths, place):
        return status_of(paths, place, None)
    with reading(paths.root) as study:
        return status_of(paths, place, study)


def has_study(paths: StudyPaths, place: Place | None) -> bool:
    """Whether there is a study to read: the copy of one driven elsewhere may be to come."""
    return place is None or paths.journal.is_file() or paths.storage_url.is_file()


def status_of(
    paths: StudyPaths,
    place: Place | None,
    study: Study | None,
    judge: Posteriors | None = None,
) -> Status:
    """The status of a study that is open.

    Args:
        paths: The study's folder.
        place: Where it is driven, if not here.
        study: It; None: there are no trials to read yet.
        judge: Fits the posteriors now and then; None: they are fitted now.
    """
    last = read_mirror(paths.status)
    if place is None:
        holder = live_driver(paths)
        driver = None if holder is None else str(holder)
    else:
        driver = str(place) if place.alive else None
    records: list[TrialRecord] = []
    beliefs: dict[int, Posterior] = {}
    if study is not None:
        records = _rows(study, paths)
        beliefs = study.posteriors() if judge is None else judge.look(records)
    return Status(
        name=paths.name,
        state=_state(last, place, alive=driver is not None),
        driver=driver,
        records=records,
        last=last,
        place=place,
        sharing=[] if study is None else drivers(study.attributes()),
        curves={} if study is None else study.curves(),
        posteriors=beliefs,
        proposals_left=left_over(paths, records),
    )


def _state(last: dict[str, Any], place: Place | None, *, alive: bool) -> str:
    state = str(SweepState(last.get("state", "running")))
    if place is not None and place.state == UNREACHABLE:
        return "unreachable"
    # A driver that waits for its first node has not begun for one who waits for it.
    own = place is None or (last.get("job") == place.job and not last.get(JOINING))
    if alive:
        return state if own else "starting"
    return state if own and state not in {"running", "draining"} else "interrupted"
