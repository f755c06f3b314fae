"""Exchange between the drivers of a shared study: trials told, given up, left, taken over.

Every few seconds, and before it proposes, a driver looks at what the others did, in turn with them
(docs/adr/0006); `pgolf_sweep.driver.sharing.leases` says who of them is alive.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.events import DriversLost, TrialsResumed, TrialTakenOver
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import FailureKind
from pgolf_sweep.driver.sharing.leases import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgolf_sweep.core.events import Notify
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.table import OpenTrial
    from pgolf_sweep.driver.writer import TrialWriter
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.search.study import Proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """One driver's dealings with the others.

    Attributes:
        lease: Its place among them.
        writer: Writes the rows of its trials.
        launcher: Runs them.
        max_retries: Further attempts for a trial whose infrastructure failed.
        resume: Goes on with a trial that is this driver's from now on, given its row.
        has_room: Whether this driver wants a trial that nobody holds.
    """

    lease: DriverLease
    writer: TrialWriter
    launcher: Launcher
    max_retries: int
    resume: Callable[[Proposal, TrialRecord], None]
    has_room: Callable[[], bool]

    def keep_in_touch(self) -> None:
        """Every few seconds: keep the lease, look at what the other drivers did."""
        if self.lease.is_due():
            self.lease.heartbeat(len(self.launcher.slots()))
            with self.writer.study.exclusive():
                self.sync()
            self.writer.storage_retry.is_back()

    def sync(self) -> None:
        """Learn what others told, give up what they took, take what nobody holds; in turn only."""
        study, table = self.writer.study, self.writer.table
        for record in study.ended_besides(table.ended):
            self._give_up(record.number)
            self.writer.learn(record)
            self.writer.finish_duplicates(record)
        rows = {row.number: row for row in study.open_rows()}
        held = {one.record.number for one in table.waiting()}
        held |= table.running.keys() | table.probing.keys()
        for number in held:
            if number in rows and rows[number].driver != self.lease.me:
                self._give_up(number)
        self._release_lost(rows)
        own = self._own
        is_open = [row for row in rows.values() if row.number not in table.ended]
        table.look(row for row in is_open if row.driver not in own)
        queued = table.queued_count
        # What it asked itself while the storage went away is no inheritance: nobody had noted it.
        inherited = {row.number for row in is_open if row.identity and row.driver != self.lease.me}
        for row in is_open:
            again = row.number not in held and row.driver in own
            free = row.driver == "" and row.number not in table.running
            if again or (free and self.has_room()):
                self._take(row)
        taken = [one for one in table.queued[queued:] if one.record.number in inherited]
        notify_resumed(self.writer.notify, taken)

    def leave(self) -> None:
        """What this driver leaves undone may be done by the others."""
        table = self.writer.table
        for record in [*(trial.record for trial in table.waiting()), *table.probing.values()]:
            self.writer.note_row(dataclasses.replace(record, driver=""))
        self.writer.storage_retry.call(self.lease.leave)

    @property
    def _own(self) -> set[str]:
        """The names under which trials are this driver's."""
        return {self.lease.me, self.lease.before} - {""}

    def _release_lost(self, rows: dict[int, TrialRecord]) -> None:
        """Leave the trials of dead drivers to whoever has room, in the open rows by number, too."""
        gone = self.lease.gone({row.driver for row in rows.values() if row.driver}) - self._own
        lost = [row for row in rows.values() if row.driver in gone]
        for row in lost:
            rows[row.number] = self._release(row)
        if lost:
            who = tuple(sorted({short(row.driver) for row in lost}))
            numbers = tuple(row.number for row in lost)
            self.writer.notify(DriversLost(drivers=who, numbers=numbers))

    def _release(self, row: TrialRecord) -> TrialRecord:
        """Leave a dead driver's trial to whoever has room, unless it has lost too many."""
        if row.outcome.final:  # it died in the middle of telling
            self.writer.tell(row)
            return row
        reason = f"its driver {short(row.driver)} is gone"
        if (
            row.outcome is State.RUNNING
            and row.attempts - row.uncounted_attempts > self.max_retries
        ):
            reason = f"{reason} (infrastructure; {row.attempts} attempts)"
            kind = FailureKind.INFRASTRUCTURE.value
            row = dataclasses.replace(row, outcome=State.FAILED, failure=kind, reason=reason)
            self.writer.tell(row)
            return row
        free = dataclasses.replace(row, outcome=State.QUEUED, driver="", reason=reason)
        self.writer.study.note(free, of=row.driver)
        return free

    def _give_up(self, number: int) -> None:
        """Another driver holds a trial or has told it: its run here ends."""
        attempt = self.writer.table.running.get(number)
        if attempt is not None and not attempt.given_up:
            attempt.given_up = True
            self.writer.notify(TrialTakenOver(number=number))
            self.launcher.cancel(str(number), "taken over by another driver")
        self.writer.table.release(number)

    def _take(self, row: TrialRecord) -> None:
        """Hold a trial from now on, and go on with it as a resumed driver does."""
        if row.outcome.final:
            self.writer.tell(row)
            return
        study, table = self.writer.study, self.writer.table
        mine = dataclasses.replace(row, outcome=State.QUEUED, driver=self.lease.me)
        if study.note(mine, of=row.driver):
            table.claim(row.number)
            self.resume(study.proposal(row.number), row)


def notify_resumed(notify: Notify, queued: Iterable[OpenTrial]) -> None:
    """Report the trials that this driver goes on with."""
    numbers = tuple(trial.record.number for trial in queued)
    if numbers:
        notify(TrialsResumed(numbers=numbers))
