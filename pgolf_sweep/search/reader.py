"""What is read of a study, by those that drive it and those that only look."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.trial import TrialState

from pgolf_sweep.core.errors import StorageAwayError
from pgolf_sweep.search.journal import RECORD, record_of
from pgolf_sweep.search.posterior import Posteriors, posteriors
from pgolf_sweep.search.proposing import expected_noise
from pgolf_sweep.search.storage import close_backend, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.core.record import Posterior, TrialRecord
    from pgolf_sweep.search.storage_lock import StudyLock
    from pgolf_sweep.space.space import Space

LEAST_FOR_IMPORTANCE = 10
"""Completed trials below which the importance of a knob is noise."""

Words = ParamSpec("Words")
Answer = TypeVar("Answer")
Reader = TypeVar("Reader", bound="StudyReader")


def reaching(
    act: Callable[Concatenate[Reader, Words], Answer],
) -> Callable[Concatenate[Reader, Words], Answer]:
    """Turn what a database says in a method when it is away into `StorageAwayError`."""

    @wraps(act)
    def reached(self: Reader, /, *args: Words.args, **kwargs: Words.kwargs) -> Answer:
        with self.reach():
            return act(self, *args, **kwargs)

    return reached


class StudyReader:
    """Rows, curves and attributes of an Optuna study.

    Args:
        optuna_study: It.
        spec: The sweep as launched.
        lock: What its drivers take turns by; None where it can have only one.
    """

    def __init__(
        self, optuna_study: optuna.Study, spec: SweepSpec, lock: StudyLock | None = None
    ) -> None:
        self._study = optuna_study
        self._lock = lock
        self._space: Space = spec.space
        self._metric = spec.metric
        self._noise = expected_noise(spec)
        # A trial that has ended never changes.
        self._ended_rows: dict[int, TrialRecord] = {}
        self._ended_curves: dict[int, list[tuple[int, float]]] = {}

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self._study.study_name)

    @contextmanager
    def reach(self) -> Iterator[None]:
        """Turn what a database says when it is away into one error; others pass.

        Raises:
            StorageAwayError: It is.
        """
        try:
            yield
        except StorageAwayError:
            raise
        except Exception as error:
            from pgolf_sweep.search.storage_lock import is_away  # noqa: PLC0415 - loads sqlalchemy

            if not is_away(error):
                raise
            raise StorageAwayError(
                "the study's storage does not answer",
                got=first_line(error.__cause__ or error),
                next_step="see to the database; the same command resumes the study",
            ) from error

    @reaching
    def records(self) -> list[TrialRecord]:
        """A row for every trial, by number."""
        return [self._row(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def posteriors(self) -> dict[int, Posterior]:
        """What all scores say of each completed trial's; empty while there are too few."""
        return posteriors(self._space, self.records(), self._noise)

    def growing_posteriors(self) -> Posteriors:
        """The same for one who looks again and again."""
        return Posteriors(self._space, self._noise)

    @reaching
    def curves(self) -> dict[int, list[tuple[int, float]]]:
        """Validations of each trial that has any: their ordinal, from 1, and `val_bpb`."""
        trials = self._study.get_trials(deepcopy=False)
        curves = ((frozen.number, self._curve(frozen)) for frozen in trials)
        return {number: curve for number, curve in curves if curve}

    def _curve(self, frozen: optuna.trial.FrozenTrial) -> list[tuple[int, float]]:
        if (known := self._ended_curves.get(frozen.number)) is not None:
            return known
        curve = [
            (ordinal, self._metric.sign * score)
            for ordinal, score in sorted(frozen.intermediate_values.items())
        ]
        if frozen.state.is_finished():
            self._ended_curves[frozen.number] = curve
        return curve

    @reaching
    def importances(self) -> dict[str, float]:
        """Share of what tells good trials from the rest that each parameter explains.

        PED-ANOVA (Watanabe et al., IJCAI 2023) as Optuna has it; largest first, sums to one.

        Returns:
            Empty while fewer than ten trials have completed: their order says little.
        """
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < LEAST_FOR_IMPORTANCE:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    @reaching
    def ended_besides(self, known: Container[int]) -> list[TrialRecord]:
        """Rows of the trials that ended, without those that are known, by number."""
        return [
            self._row(frozen)
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.number not in known and frozen.state.is_finished()
        ]

    @reaching
    def attribute(self, key: str) -> Any:
        """A value that `set_attribute` stored, or None."""
        return self._study.user_attrs.get(key)

    @reaching
    def attributes(self) -> dict[str, Any]:
        """All that `set_attribute` stored, by key."""
        return dict(self._study.user_attrs)

    @reaching
    def set_attribute(self, key: str, value: Any) -> None:
        """Store JSON data with the study: its identity, its drivers' leases."""
        self._study.set_user_attr(key, value)

    def close(self) -> None:
        """Give the storage's connections back; a file needs none."""
        close_backend(self._study._storage)

    def _row(self, frozen: optuna.trial.FrozenTrial) -> TrialRecord:
        if (known := self._ended_rows.get(frozen.number)) is not None:
            return known
        row = self._new_row(frozen)
        if frozen.state.is_finished():
            self._ended_rows[frozen.number] = row
        return row

    def _new_row(self, frozen: optuna.trial.FrozenTrial) -> TrialRecord:
        metric = self._metric
        record = replace(
            record_of(frozen),
            maximize=metric.goal == "maximize",
            metric="" if metric.contest else metric.name,
        )
        if RECORD in frozen.user_attrs:
            return record
        # Nobody has noted it yet: Optuna has the sampler's answers, not the knobs.
        return replace(record, knobs=self._space.decode(record.knobs))

    def _frozen(self, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
        return self._study._storage.get_trial(trial._trial_id)

    def _trial(self, number: int) -> optuna.Trial:
        storage = self._study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        return optuna.Trial(self._study, trial_id)
