"""The one door through which a driver's trials change and end in the study.

Every change of a row by the loop, the gate or the other drivers is written here: to the
study, into the table, and for those that wait for its result.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.events import BestFound, FileKept, ProbeContradicted, TrialEnded, TrialRetried
from pgolf_sweep.core.kept import append_row
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.driver.exports import register_export

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgolf_sweep.core.events import Notify
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.reuse import Trainings
    from pgolf_sweep.driver.sharing.storage_retry import StorageRetry
    from pgolf_sweep.driver.table import OpenTrial, TrialTable
    from pgolf_sweep.driver.variants import Sessions
    from pgolf_sweep.gate.gate import Gate
    from pgolf_sweep.search.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWriter:
    """Writes the rows of the trials that one driver holds.

    Attributes:
        sessions: Their gates learn from what is told.
        study: Where the rows are.
        paths: The study's folder.
        storage_retry: Sits out a storage that does not answer.
        table: What is known of all trials.
        trainings: What is known of their trainings.
        notify: Takes each event.
        me: This driver's name; empty where it is alone.
        on_end: Hears of each trial that is told.
    """

    sessions: Sessions
    study: Study
    paths: StudyPaths
    storage_retry: StorageRetry
    table: TrialTable
    trainings: Trainings
    notify: Notify
    me: str
    on_end: Callable[[TrialRecord], None] = lambda _record: None
    _unlearnt: list[TrialRecord] = field(default_factory=list)

    def note(self, trial: OpenTrial, record: TrialRecord) -> bool:
        """A trial that has not ended changed; False if another driver has it by now."""
        trial.record = record
        return self.note_row(record)

    def note_row(self, record: TrialRecord) -> bool:
        """`note` of a trial that is not judged yet."""
        self.table.note(record)
        return bool(self.storage_retry.call(lambda: self.study.note(record, of=self.me)))

    def file_kept(self, text: str) -> None:
        """Report a file of a trial's folder that was put aside."""
        self.notify(FileKept(text=text))

    def tell(self, record: TrialRecord) -> None:
        """End a trial in the study, and with it those that waited for its result."""
        if not self.storage_retry.call(lambda: self.study.tell(record)):
            return  # another driver took the trial over, or the storage does not answer
        append_row(self.paths, record)
        self.on_end(record)
        before = self.table.best
        self.learn(record)
        if record.outcome is not State.DISCARDED and record.duplicate_of is None:
            self.notify(TrialEnded(record=record))
        best = self.table.best
        if best is not None and best.number == record.number and best != before:
            self.notify(BestFound(record=record, metric=self.sessions.base.spec.metric.name))
        self.finish_duplicates(record)

    def learn(self, record: TrialRecord) -> None:
        """What a finished trial teaches: its configuration is known, its bytes calibrate."""
        if self.table.finish(record):
            self.trainings.learn(record)
            self._unlearnt.append(record)
            self.catch_up()

    def catch_up(self) -> None:
        """Teach the gates what waited for the probe of its script."""
        waiting = self._unlearnt[:]
        self._unlearnt.clear()
        for record in filter(is_evidence, waiting):
            # Of a variant that nothing has needed yet in this process, the gate would be probed.
            session = self.sessions.known(record.variant)
            if session is None or not session.spec.pgolf.gate_enabled:
                continue
            if not session.ready(record.knobs):
                self._unlearnt.append(record)
                continue
            for said in calibrate(session.gate, record):
                self.notify(ProbeContradicted(number=record.number, text=said))

    # -- duplicates -----------------------------------------------------------------------------

    def dedupe(self, duplicate: OpenTrial, original: TrialRecord) -> None:
        """Give a proposal the result of the trial that ran the same; wait for it if it must."""
        if original.outcome.final:
            self.tell(_as_duplicate(duplicate.record, original))
            return
        self.note(duplicate, dataclasses.replace(duplicate.record, duplicate_of=original.number))
        self.table.wait_for(original.number, duplicate)

    def finish_duplicates(self, record: TrialRecord) -> None:
        """End those that waited for a trial's result."""
        for duplicate in self.table.take_duplicates(record.number):
            self.tell(_as_duplicate(duplicate.record, record))

    # -- results --------------------------------------------------------------------------------

    def tell_result(self, result: Mapping[str, Any]) -> None:
        """End a trial as its ``result.json`` says, and what was exported of it besides."""
        record = dataclasses.replace(TrialRecord.from_json(result["record"]), driver=self.me)
        if record.number not in self.table.ended:  # else an export, told with its trial
            self.storage_retry.call(lambda: self._tell_with_export(record, result.get("export")))

    def _tell_with_export(self, record: TrialRecord, export: Mapping[str, Any] | None) -> None:
        """In turn: until it is told, the export's trial is one that anybody might take."""
        with self.study.exclusive():
            rows = [record]
            if export is not None:
                row = dataclasses.replace(TrialRecord.from_json(export), driver=self.me)
                session = self.sessions.of(record.variant)
                rows.append(register_export(row, record, self.study, session, self.paths))
            for row in rows:
                self.tell(self._counted_once(row))

    def _counted_once(self, row: TrialRecord) -> TrialRecord:
        """An export whose configuration was trained before is no evidence of its own."""
        if row.export_of is None:
            return row
        original = self.table.original(row.identity, row.number)
        if original is None or not original.outcome.final:
            return row
        return dataclasses.replace(row, duplicate_of=original.number)

    # -- attempts without a result --------------------------------------------------------------

    def put_back(self, trial: OpenTrial, record: TrialRecord) -> None:
        """A trial that the user cancelled has no result: it waits for the next launch."""
        reason = f"{record.reason}: runs again when the study is resumed"
        free = dataclasses.replace(
            record,
            outcome=State.QUEUED,
            failure=None,
            failure_code=None,
            reason=reason,
            uncounted_attempts=record.uncounted_attempts + 1,
            driver="",
        )
        self.note(trial, free)
        self.table.release(record.number)

    def retry(self, trial: OpenTrial, record: TrialRecord, *, why: str = "") -> None:
        """Try again what was not the trial's fault; the log of the failed attempt stays.

        Args:
            trial: It.
            record: Its row with how the attempt ended.
            why: The attempt does not count, for this reason; the trial then waits behind others,
                so that one that brings down its node is not the next one's probe, too.
        """
        number = record.number
        self.notify(
            TrialRetried(
                number=number, reason=record.reason, attempt=record.attempts + 1, uncounted=why
            )
        )
        log = self.paths.trial(number).log
        if log.is_file():
            log.replace(log.with_name(f"train.attempt{record.attempts}.log"))
        if not self.note(
            trial,
            dataclasses.replace(record, outcome=State.QUEUED, failure=None, failure_code=None),
        ):
            return
        self.table.requeue(trial, first=not why)


def calibrate(gate: Gate, *records: TrialRecord) -> list[str]:
    """Teach a gate the bytes and times of finished trials, as far as they are their own.

    Returns:
        What their logs say otherwise than the gate believed, once for each branch of a script.
    """
    said = []
    for record in records:
        if record.model_bytes is None or not is_evidence(record):
            continue
        differs = gate.contradiction(
            record.knobs, model_params=record.model_params, code_bytes=record.code_bytes
        )
        if differs:
            said.append(differs)
        gate.learn(record.knobs, record.model_bytes, steps=record.steps)
        # Else its training was taken in before.
        trained = record.export_of is None and record.reused_from is None
        gate.learn_time(
            record.knobs,
            steps=record.steps if trained else None,
            train_seconds=record.train_seconds if trained else None,
            eval_seconds=record.eval_seconds,
        )
    return said


def is_evidence(record: TrialRecord) -> bool:
    """Whether a finished trial's bytes and times are its own."""
    own = record.outcome is State.COMPLETED and record.duplicate_of is None
    return own and record.model_bytes is not None


def _as_duplicate(record: TrialRecord, original: TrialRecord) -> TrialRecord:
    """The row of a proposal whose configuration ran as another trial."""
    return dataclasses.replace(
        original,
        number=record.number,
        proposer=record.proposer,
        parent=record.parent,
        idea=record.idea,
        seed=record.seed,
        export_of=record.export_of,
        repair_of=record.repair_of,
        duplicate_of=original.number,
        reason=f"same configuration as trial {original.number}",
        slot_seconds=0.0,
        attempts=0,
        driver=record.driver,
    )
