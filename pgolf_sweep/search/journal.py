"""A study's journal file: its lock, and reading what a full disk or a stray edit left of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import TrialState

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.locks import acquire
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from pathlib import Path

    import optuna


logger = logging.getLogger(__name__)

RECORD = "record"
"""User attribute of a trial: its row."""

JUDGED = "judged"
"""User attribute of a trial that was found behind: the `Judgement`."""


class DamagedRowError(InputError):
    """A trial's row in the storage is not what a driver wrote."""


class FlockLock:
    """The journal's lock by flock(2): a killed driver leaves no stale lock behind.

    Optuna's own locks are files; after kill -9 the next writer waits out a grace period of 30 s.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock; Optuna asks for True."""
        self._handle = acquire(self._path)
        return True

    def release(self) -> None:
        """Let go of it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def repair_journal(journal: Path) -> int:
    """Cut an incomplete last line, which a full disk or a power cut leaves; bytes cut.

    The record that it held was never acknowledged, so nothing that anyone was told is lost.
    """
    if not journal.is_file():
        journal.parent.mkdir(parents=True, exist_ok=True)
        return 0
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        position = size
        while position > 0:
            start = max(0, position - 65_536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < size:
            file.truncate(position)
            logger.warning("%s: cut %d bytes of an incomplete record", journal, size - position)
    return size - position


def damaged_record(journal: Path) -> tuple[int, str] | None:
    """The first record of a journal that cannot be applied: its line, and why; None: all can.

    An incomplete last line is no damage: what a killed driver was writing.
    """
    if not journal.is_file():
        return None
    state = JournalStorageReplayResult("")
    with journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return None
            try:
                entry = json.loads(line)
                state.apply_logs([entry])
                if (row := entry.get("user_attr", {}).get(RECORD)) is not None:
                    TrialRecord.from_json(row)
            except Exception as error:  # noqa: BLE001 - a damaged record raises anything
                return number, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OldTrial:
    """What a journal tells of one trial.

    Attributes:
        record: Its row.
        scores: What it reported to the pruner, in order.
        waiting: Parameters that were enqueued and that nobody has asked for yet, with who wants
            them; None of a trial that was asked.
    """

    record: TrialRecord
    scores: tuple[float, ...] = ()
    waiting: tuple[dict[str, Any], dict[str, Any]] | None = None


def readable_trials(journal: Path) -> list[OldTrial]:
    """The trials that a damaged journal still tells of, by number; of two studies the first's."""
    state = JournalStorageReplayResult("")
    if journal.is_file():
        with journal.open("rb") as file:
            for line in file:
                with suppress(Exception):
                    state.apply_logs([json.loads(line)])
    studies = state.get_all_studies()
    if not studies:
        return []
    trials = state.get_all_trials(studies[0]._study_id, None)
    found = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        with suppress(DamagedRowError):
            found.append(_old_trial(trial))
    return found


def _old_trial(frozen: optuna.trial.FrozenTrial) -> OldTrial:
    waiting = None
    if frozen.state is TrialState.WAITING and "fixed_params" in frozen.system_attrs:
        waiting = (dict(frozen.system_attrs["fixed_params"]), dict(frozen.user_attrs))
    return OldTrial(
        record=record_of(frozen),
        scores=tuple(score for _, score in sorted(frozen.intermediate_values.items())),
        waiting=waiting,
    )


def record_of(frozen: optuna.trial.FrozenTrial) -> TrialRecord:
    """The row that a trial carries; made up of its parameters where none was noted yet."""
    document = frozen.user_attrs.get(RECORD)
    if document is not None:
        try:
            return TrialRecord.from_json(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedRowError(
                f"the row of trial {frozen.number} in the study is damaged",
                got=f"{type(error).__name__}: {error}",
                next_step="pgolf-sweep recover STUDY rebuilds it from its folder",
            ) from error
    fixed = frozen.system_attrs.get("fixed_params", {})
    origin = Origin.read(frozen.user_attrs)
    return TrialRecord(
        number=frozen.number,
        outcome=State.QUEUED,
        knobs={**fixed, **frozen.params},
        proposer=origin.proposer,
        export_of=origin.export_of,
        repair_of=origin.repair_of,
        rung=origin.rung,
        **dataclasses.asdict(origin.change),
    )
