"""Trials that share a training: which checkpoints are kept, and what a trial takes over.

A trial whose `train` knobs, seed and program equal those of a finished trial starts at the first
part of the run that differs: from that one's artifact where only `eval` knobs do, else from its
checkpoint. Equal trainings do not run at a time: the second waits for the first.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import (
    CHECKPOINT_KNOB,
    EVAL,
    EXPORT,
    START_KNOB,
    TRAIN,
    TrainingReuse,
    configuration_hash,
)
from pgolf_sweep.launch.node.checkpoints import remove

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import RunEnd
    from pgolf_sweep.driver.session import Session

logger = logging.getLogger(__name__)

FIRST_SHARE = 0.1
"""What a trial without a training costs, as a share of one with it, until one has ended."""


def training_of(session: Session, record: TrialRecord, *, upto: str = TRAIN) -> str:
    """Hash of what decides a trial's training, or with `upto` export its artifact."""
    knobs = record.knobs
    roles = session.spec.pgolf.reuse
    parts = {TRAIN} if upto == TRAIN else {TRAIN, EXPORT}
    own = {name: value for name, value in knobs.items() if roles.role(name, knobs) in parts}
    data = "" if session.dataset is None else session.dataset.name
    own |= {" gpus": session.resources.gpus, " data": data}
    if record.rung is not None:
        own |= {" rung": record.rung}
    return configuration_hash(own, session.program.sha256)


def can_reuse(session: Session) -> bool:
    """Whether the sweep keeps checkpoints and its program starts from one."""
    knobs, parameters = session.program.knobs, session.spec.space.parameters
    needed = (CHECKPOINT_KNOB, START_KNOB)
    read = all(name in knobs and name not in parameters for name in needed)
    return session.spec.pgolf.reuse.enabled and read


@dataclass(slots=True)
class Trainings:
    """The trainings of one study.

    Attributes:
        session: The sweep.
        paths: The study's folder.
    """

    session: Session
    paths: StudyPaths
    active: bool = field(init=False)
    """Whether any training is shared."""
    _kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Number and bytes of each checkpoint by its training, that used last at the end."""
    _artifacts: dict[str, int] = field(default_factory=dict)
    _whole: list[float] = field(default_factory=list)
    """Slot-seconds of trials that trained, and of those that did not."""
    _later: list[float] = field(default_factory=list)
    _hashes: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.active = can_reuse(self.session)

    def shares(self, record: TrialRecord) -> bool:
        """Whether a trial may share its training: one of a program that was proposed does not."""
        return self.active and not record.variant

    # -- what finished ---------------------------------------------------------------------------

    def learn(self, record: TrialRecord) -> None:
        """Take in a finished trial: what it left, and what it cost."""
        own = record.outcome is State.COMPLETED and record.duplicate_of is None
        if not self.shares(record) or not own or record.export_of is not None:
            return
        (self._later if record.stage else self._whole).append(record.slot_seconds)
        artifact = training_of(self.session, record, upto=EXPORT)
        self._artifacts.setdefault(artifact, record.number)
        if record.checkpoint_bytes is not None:
            training = self._training(record)
            self._kept[training] = record.number, record.checkpoint_bytes
            self._evict()

    def _evict(self) -> None:
        most = self.session.spec.pgolf.reuse.max_bytes
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > most:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            try:
                remove(self.address(oldest))
            except Exception as error:  # noqa: BLE001 - every file system has errors of its own
                logger.warning("checkpoint %s was not removed: %s", self.address(oldest), error)

    @property
    def names(self) -> tuple[str, ...]:
        """Searched parameters that change only what follows the training."""
        return self.session.spec.pgolf.reuse.later

    @property
    def numbers(self) -> frozenset[int]:
        """Trials whose checkpoint is kept."""
        return frozenset(number for number, _ in self._kept.values())

    @property
    def share(self) -> float:
        """What a trial without a training costs, as a share of one with it.

        One where nothing but `run_cap` limits the sweep: it counts them alike.
        """
        budget = self.session.spec.pgolf.budget
        if (budget.gpu_hours, budget.usd, budget.deadline) == (None, None, None):
            return 1.0
        whole = statistics.median(self._whole) if self._whole else 0.0
        if not whole or not self._later:
            return FIRST_SHARE
        return min(1.0, statistics.median(self._later) / whole)

    def address(self, training: str) -> str:
        """Where a training's checkpoint is kept."""
        store = self.session.spec.pgolf.reuse.store
        if store is None:
            store = str(self.paths.checkpoints.resolve())
        elif "://" not in store:
            store = str((self.session.spec.source.resolve().parent / store).resolve())
        return f"{store.rstrip('/')}/{training}.ckpt"

    # -- what starts -----------------------------------------------------------------------------

    def waits(self, record: TrialRecord, running: Iterable[TrialRecord]) -> bool:
        """Whether a trial's training runs as another trial, which it should wait for."""
        if not self.shares(record):
            return False
        training = self._training(record)
        if training in self._kept:
            return False
        return any(
            one.stage is None and self.shares(one) and self._training(one) == training
            for one in running
        )

    def _training(self, record: TrialRecord) -> str:
        found = self._hashes.get(record.number)
        if found is None:
            found = self._hashes[record.number] = training_of(self.session, record)
        return found

    def reuse_of(self, record: TrialRecord) -> tuple[TrialRecord, TrainingReuse]:
        """A trial that starts, with what it takes over, and its row that says so."""
        if not self.shares(record):
            return dataclasses.replace(record, reused_from=None, stage=None), TrainingReuse()
        training = self._training(record)
        address = self.address(training)
        left = self._artifacts.get(training_of(self.session, record, upto=EXPORT))
        if left is not None:
            artifact = self.paths.trial(left).artifact()
            if artifact is not None:
                with suppress(OSError):
                    files = {artifact.name: artifact.read_bytes()}
                    row = dataclasses.replace(record, reused_from=left, stage=EVAL)
                    return row, TrainingReuse(start_at=EVAL, files=files)
        if training not in self._kept:
            row = dataclasses.replace(record, reused_from=None, stage=None)
            return row, TrainingReuse(keep_at=address)
        self._kept[training] = self._kept.pop(training)
        number = self._kept[training][0]
        row = dataclasses.replace(record, reused_from=number, stage=EXPORT)
        return row, TrainingReuse(start_at=EXPORT, checkpoint=address, keep_at=address)

    def whole(self, end: RunEnd, of: TrialRecord | None) -> RunEnd:
        """The end of a run, with what an evaluation alone does not log of its artifact."""
        if end.start_at != EVAL or of is None:
            return end
        summary = dataclasses.replace(
            end.summary,
            model_bytes=of.model_bytes,
            code_bytes=of.code_bytes,
            total_bytes=of.artifact_bytes,
        )
        return dataclasses.replace(end, summary=summary)
