"""The shared study: with `sampler` and `pruner` the only module that knows Optuna.

Drivers ask and tell; everybody else reads. Each Optuna trial carries one `TrialRecord` as a user
attribute, written before the trial is told, so that a row is complete wherever it is read. Where
several drivers share the study, the row says which of them holds the trial, and nobody else's word
about it is taken (docs/adr/0006).

How each end is told (measured: docs/adr/0001):

* completed -> COMPLETE with the score, and the measured excess over the cap as a constraint;
* pruned -> PRUNED, which keeps the last intermediate score;
* discarded -> FAIL, from which no sampler learns: it redraws. The row says that it was discarded;
* failed -> FAIL.
"""

from __future__ import annotations

import logging
import os
import secrets
import warnings
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from pgolf_sweep.core.errors import InfraError, InputError, StorageAwayError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.secrets import masked_url, redacted
from pgolf_sweep.core.trial import FailureCode, configuration_hash
from pgolf_sweep.search.gp.sampler import STATE
from pgolf_sweep.search.halving import Judgement
from pgolf_sweep.search.journal import (
    RECORD,
    FlockLock,
    damaged_record,
    record_of,
    repair_journal,
)
from pgolf_sweep.search.judging import StudyPruner
from pgolf_sweep.search.network_fs import network_file_system_of
from pgolf_sweep.search.origin import Origin
from pgolf_sweep.search.posterior import posteriors
from pgolf_sweep.search.pruner import make_pruner
from pgolf_sweep.search.sampler import make_sampler
from pgolf_sweep.space.domains import Choices

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import Posterior
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.search.journal import OldTrial
    from pgolf_sweep.search.proposing import Verdicts
    from pgolf_sweep.search.storage_lock import StudyLock
    from pgolf_sweep.space.space import Space

logger = logging.getLogger(__name__)

_POINT = "point"
LEAST_FOR_IMPORTANCE = 10
"""Completed trials below which the importance of a knob is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the study asks to be tried next.

    Attributes:
        number: The study's number of the trial.
        knobs: Resolved values of the sweep file's parameters.
        proposer: The sampler, or who enqueued it.
        repair_of: The trial over the cap that it replaces.
        expected_bpb: `val_bpb` that the sampler expects, and `expected_sd` how well it knows.
        redrawn: Configurations that it passed over because they cannot fit.
    """

    number: int
    knobs: dict[str, KnobValue]
    proposer: str
    repair_of: int | None = None
    expected_bpb: float | None = None
    expected_sd: float | None = None
    redrawn: int = 0


STORAGES = ("postgresql", "sqlite")


class Study:
    """A study that exists, with the space that its trials are drawn from.

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
        self._held = False
        self._space: Space = spec.space
        self._method = spec.method
        early = spec.early_terminate
        by_curves = early is not None and early.kind != "hyperband"
        self._pruner = StudyPruner(optuna_study, spec) if by_curves else None
        self._metric = spec.metric
        self._grid: Iterator[dict[str, KnobValue]] | None = (
            spec.space.grid() if spec.method == "grid" else None
        )

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self._study.study_name)

    # -- taking turns ---------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether several drivers may work on it."""
        return self._lock is not None

    @property
    def held(self) -> bool:
        """Whether this driver is inside `together`."""
        return self._held

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Alone among the drivers of a shared study; may be nested.

        Raises:
            StorageAwayError: Its storage does not answer, or another driver does not let go.
        """
        if self._lock is None or self._held:
            yield
            return
        with self._reaching(), self._lock.held():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn what a database says when it is away into one error; others pass."""
        try:
            yield
        except Exception as error:
            from pgolf_sweep.search.storage_lock import is_away  # noqa: PLC0415 - only for a database

            if self._lock is None or isinstance(error, StorageAwayError) or not is_away(error):
                raise
            raise StorageAwayError(
                "the study's storage does not answer",
                got=_first_line(error.__cause__ or error),
                next_step="see to the database; the same command resumes the study",
            ) from error

    # -- proposing ------------------------------------------------------------------------------

    def ask(self) -> Proposal | None:
        """The next proposal, or None when a grid is exhausted."""
        if self._grid is not None and not self._waiting():
            knobs = self._next_of_grid()
            if knobs is None:
                return None
            self.enqueue(knobs, by="grid")
        trial = self._study.ask()
        return self._proposal(trial)

    def enqueue(self, knobs: Mapping[str, KnobValue], *, by: str) -> None:
        """Have these knobs proposed before anything that the sampler draws."""
        self._enqueue(knobs, Origin(proposer=by))

    def _enqueue(self, knobs: Mapping[str, KnobValue], origin: Origin) -> None:
        attributes = {**origin.attributes(), _POINT: _point(knobs)}
        self._study.enqueue_trial(self._space.encode(knobs), user_attrs=attributes)

    def enqueue_once(self, knobs: Mapping[str, KnobValue], origin: Origin) -> int:
        """`enqueue`, unless it was done for an equal origin before; the trial's number.

        Raises:
            InputError: The knobs are outside the space.
        """
        found = self._number_of(origin)
        if found is None:
            self._enqueue(knobs, origin)
            found = self._number_of(origin)
        assert found is not None  # noqa: S101 - it was just written
        return found

    def begin_once(self, knobs: Mapping[str, KnobValue], origin: Origin) -> int:
        """A trial that runs already, unless it was begun for this origin before; its number.

        No sampler is asked: it is the caller's to tell.

        Raises:
            InputError: The knobs are outside the space.
        """
        number = self.enqueue_once(knobs, origin)
        trial = self._trial(number)
        storage = self._study._storage
        waiting = self._frozen(trial).state is TrialState.WAITING
        if waiting and storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            self._space.suggest(trial)
        return number

    def _number_of(self, origin: Origin) -> int | None:
        trials = reversed(self._study.get_trials(deepcopy=False))
        return next((t.number for t in trials if Origin.read(t.user_attrs) == origin), None)

    def unfinished(self) -> list[tuple[Proposal, TrialRecord | None]]:
        """Trials that were asked and not told, oldest first: what a dead driver left behind.

        One that died between two of its parameters is completed by the sampler.
        """
        left = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            proposal = self._proposal(optuna.Trial(self._study, frozen._trial_id))
            record = self._row(frozen)
            left.append((proposal, record if frozen.user_attrs.get(RECORD) else None))
        return left

    def open_rows(self) -> list[TrialRecord]:
        """Rows of the trials that were asked and not told, oldest first; changes nothing."""
        with self._reaching():
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self._row(frozen) for frozen in running]

    def proposal(self, number: int) -> Proposal:
        """What a trial that was asked is to try, for a driver that takes it over."""
        return self._proposal(self._trial(number))

    def _proposal(self, trial: optuna.Trial) -> Proposal:
        knobs = self._space.suggest(trial)
        origin = Origin.read(trial.user_attrs, sampler=self._method)
        told = self._frozen(trial).system_attrs.get(STATE, {})
        return Proposal(
            number=trial.number,
            knobs=knobs,
            proposer=origin.proposer,
            repair_of=origin.repair_of,
            expected_bpb=told.get("mean"),
            expected_sd=told.get("sd"),
            redrawn=told.get("redrawn", 0),
        )

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _next_of_grid(self) -> dict[str, KnobValue] | None:
        assert self._grid is not None  # noqa: S101 - the caller checked
        trials = self._study.get_trials(deepcopy=False)
        asked = {trial.user_attrs.get(_POINT) for trial in trials}
        return next((knobs for knobs in self._grid if _point(knobs) not in asked), None)

    # -- while a trial runs ---------------------------------------------------------------------

    def note(self, record: TrialRecord, *, of: str | None = None) -> bool:
        """Store the row of a trial that has not ended.

        Args:
            record: The row, with the driver that holds the trial from now on.
            of: The driver that has held it until now; None: the same one.

        Returns:
            False if another driver holds the trial or has told it; nothing was changed then.
        """
        with self.exclusive():
            trial = self._trial(record.number)
            if self._lock is not None:
                frozen = self._frozen(trial)
                holder = record.driver if of is None else of
                if frozen.state.is_finished() or not _is_held(frozen, holder):
                    return False
            trial.set_user_attr(RECORD, record.to_json())
        return True

    def report(
        self,
        number: int,
        ordinal: int,
        val_bpb: float,
        *,
        fraction: float | None = None,
        knobs: Mapping[str, KnobValue] | None = None,
    ) -> Judgement | None:
        """Tell the pruner of a trial's `ordinal`-th validation.

        Args:
            number: The trial.
            ordinal: Which of its validations, from 1.
            val_bpb: The score.
            fraction: Share of its schedule that was trained; None where nobody knows.
            knobs: Its knobs.

        Returns:
            The judgement of a trial that is found behind the others, else None.
        """
        with self._reaching():
            trial = self._trial(number)
            frozen = self._frozen(trial)
            # Optuna keeps the first value of a step: a retried trial has reported it before.
            if frozen.state.is_finished():
                return None
            if ordinal in frozen.intermediate_values and self._pruner is not None:
                return self._pruner.again(frozen, ordinal)
            value, judgement = self._metric.sign * val_bpb, None
            if self._pruner is not None:
                judgement = self._pruner.report(trial, frozen, value, fraction, knobs or {})
            if ordinal not in frozen.intermediate_values:
                trial.report(value, ordinal)
            if self._pruner is None and trial.should_prune():
                judgement = Judgement(
                    spared=False, ordinal=ordinal, at=fraction, expected=None, sd=None
                )
            return judgement

    def never_prunes(self, number: int) -> str | None:
        """Why no trial that reports as this one can be stopped early; None: one can."""
        return None if self._pruner is None else self._pruner.never_acts(number)

    # -- the single door through which a trial ends ----------------------------------------------

    def tell(self, record: TrialRecord) -> bool:
        """End a trial with its final row, exactly once.

        Returns:
            False if the trial had ended before, or if another driver holds it; nothing was
            changed then.
        """
        with self.exclusive():
            return self._tell(record)

    def _tell(self, record: TrialRecord) -> bool:
        trial = self._trial(record.number)
        frozen = self._frozen(trial)
        if frozen.state.is_finished() or not _is_held(frozen, record.driver):
            return False
        # CMA-ES knows no constraints and warns of each one.
        constraint = _constraint(record) if self._method != "cmaes" else None
        # Optuna keeps the first value of a key; a driver that died here may have set it.
        if constraint is not None and constraint[0] not in frozen.constraints:
            trial.set_constraint(*constraint)
        trial.set_user_attr(RECORD, record.to_json())
        state, value = self._told_as(record)
        self._study.tell(record.number, value, state=state)
        return True

    def _told_as(self, record: TrialRecord) -> tuple[TrialState, float | None]:
        match record.outcome:
            case State.COMPLETED:
                assert record.val_bpb is not None  # noqa: S101 - it completed
                return TrialState.COMPLETE, self._metric.sign * record.val_bpb
            case State.FAILED if (imputed := self._imputed(record.number)) is not None:
                return TrialState.COMPLETE, imputed
            case State.PRUNED:
                return TrialState.PRUNED, None
            case State.DISCARDED | State.FAILED:
                return TrialState.FAIL, None
        raise ValueError(f"trial {record.number} is {record.outcome}, which is no end")

    def _scores(self) -> list[float]:
        """Scores of the trials that have one, low ones good."""
        trials = self._study.get_trials(deepcopy=False)
        rows = [t.user_attrs.get(RECORD, {}) for t in trials if t.state.is_finished()]
        scores = [row["val_bpb"] for row in rows if row.get("val_bpb") is not None]
        return [self._metric.sign * score for score in scores]

    def _imputed(self, number: int) -> float | None:
        """The score that a failed trial gets in the sampler's eyes, as ``metric.impute`` says."""
        impute = self._metric.impute
        if impute == "latest":
            reported = self._frozen(self._trial(number)).intermediate_values
            return reported[max(reported)] if reported else None
        if impute is None or not (scores := self._scores()):
            return None
        return max(scores) if impute == "worst" else min(scores)

    # -- rebuilding -----------------------------------------------------------------------------

    def rebuild(
        self,
        record: TrialRecord,
        point: Mapping[str, KnobValue],
        *,
        request: str | None = None,
        scores: Sequence[float] = (),
    ) -> None:
        """Add a trial that a lost study held, still open; it must be the next one by number.

        Args:
            record: Its row; an end is for `tell`.
            point: Parameters of the space; what they leave out the sampler fills in.
            request: The request that asked for it, if one did.
            scores: Validation scores in the order in which the trial reported them.
        """
        origin = Origin(
            proposer=record.proposer,
            request=request,
            export_of=record.export_of,
            repair_of=record.repair_of,
        )
        self._enqueue(point, origin)
        trial = self._study.ask()
        if trial.number != record.number:
            raise ValueError(f"trial {record.number} became {trial.number}")
        self._space.suggest(trial)
        for ordinal, score in enumerate(scores, start=1):
            trial.report(score, ordinal)
        trial.set_user_attr(RECORD, record.to_json())

    def enqueue_again(self, lost: OldTrial) -> None:
        """Enqueue what waited in a lost journal for its turn; leaves others alone."""
        if lost.waiting is not None:
            fixed, attributes = lost.waiting
            self._study.enqueue_trial(fixed, user_attrs=attributes)

    def waiting_points(self) -> list[dict[str, Any]]:
        """Parameters of the trials that wait for their turn, as they were enqueued."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [dict(trial.system_attrs.get("fixed_params", {})) for trial in waiting]

    # -- reading --------------------------------------------------------------------------------

    def records(self) -> list[TrialRecord]:
        """A row for every trial, by number."""
        with self._reaching():
            return [self._row(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def posteriors(self) -> dict[int, Posterior]:
        """What all scores say of each completed trial's; empty while there are too few."""
        return posteriors(self._space, self.records())

    def curves(self) -> dict[int, list[tuple[int, float]]]:
        """Validations of each trial that has any: their ordinal, from 1, and `val_bpb`."""
        with self._reaching():
            trials = self._study.get_trials(deepcopy=False)
        return {
            frozen.number: [
                (ordinal, self._metric.sign * score)
                for ordinal, score in sorted(frozen.intermediate_values.items())
            ]
            for frozen in trials
            if frozen.intermediate_values
        }

    def importances(self) -> dict[str, float]:
        """Share of what tells good trials from the rest that each parameter explains.

        PED-ANOVA (Watanabe et al., IJCAI 2023) as Optuna has it; largest first, sums to one.

        Returns:
            Empty while fewer than ten trials have completed: their order says little.
        """
        with self._reaching():
            done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < LEAST_FOR_IMPORTANCE:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def ended_besides(self, known: Container[int]) -> list[TrialRecord]:
        """Rows of the trials that ended, without those that are known, by number."""
        return [
            self._row(frozen)
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.number not in known and frozen.state.is_finished()
        ]

    def attribute(self, key: str) -> Any:
        """A value that `set_attribute` stored, or None."""
        return self._study.user_attrs.get(key)

    def attributes(self) -> dict[str, Any]:
        """All that `set_attribute` stored, by key."""
        with self._reaching():
            return dict(self._study.user_attrs)

    def set_attribute(self, key: str, value: Any) -> None:
        """Store JSON data with the study: its identity, its drivers' leases."""
        with self._reaching():
            self._study.set_user_attr(key, value)

    def close(self) -> None:
        """Give the storage's connections back; a file needs none."""
        storage = self._study._storage
        storage.remove_session()
        engine = getattr(getattr(storage, "_backend", None), "engine", None)
        if engine is not None:
            engine.dispose()

    def _row(self, frozen: optuna.trial.FrozenTrial) -> TrialRecord:
        record = record_of(frozen)
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


def _point(knobs: Mapping[str, KnobValue]) -> str:
    """What tells one enqueued configuration from another."""
    return configuration_hash(knobs, "")


def _constraint(record: TrialRecord) -> tuple[str, float] | None:
    """Name and value (positive: infeasible) of the constraint that an outcome carries."""
    headroom = record.headroom_bytes
    if record.outcome is State.COMPLETED and headroom is not None:
        return "measured_excess_bytes", float(-headroom)
    if record.failure_code == FailureCode.OUT_OF_MEMORY:
        return "out_of_memory", 1.0
    return None


def _is_held(frozen: optuna.trial.FrozenTrial, driver: str) -> bool:
    """Whether an open trial is a driver's; one that nobody has noted yet is anybody's."""
    return bool(frozen.user_attrs.get(RECORD, {}).get("driver", driver) == driver)


# -- opening ------------------------------------------------------------------------------------


def open_study(
    spec: SweepSpec,
    paths: StudyPaths,
    *,
    storage: str | None = None,
    write: bool = False,
    verdicts: Verdicts | None = None,
) -> Study:
    """The study of a folder; made if it is to be written and is not there yet.

    Args:
        spec: The sweep as launched.
        paths: The study's folder.
        storage: An Optuna storage URL, or None for the URL noted in the folder, else its journal.
        write: Whether the caller is the driver; readers never change a file.
        verdicts: The gate's word on the sweep's knobs, for a sampler that proposes what fits.

    Raises:
        InfraError: The storage cannot be reached or is not a study's.
        InputError: There is no such study yet, or its file would lie on a network file system.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = _url(paths, storage)
    if url is not None:
        check_storage(url)
    try:
        backend = _storage(paths, url, write=write)
        name = _name_in(backend, spec.name) if url is None else _name_of(paths, spec.name)
        if write:
            study = optuna.create_study(
                storage=backend,
                study_name=name,
                direction="minimize",
                load_if_exists=True,
                pruner=make_pruner(spec.early_terminate),
            )
            asked = len(study.get_trials(deepcopy=False))
            if url is not None:
                # Drivers that begin together must not draw the same.
                asked += secrets.randbelow(2**31)
        else:
            study = optuna.load_study(storage=backend, study_name=name)
    except (InputError, InfraError):
        raise
    except Exception as error:
        if url is None and (damage := damaged_record(paths.journal)) is not None:
            raise _damaged(paths, damage) from error
        if isinstance(error, KeyError):
            raise _no_trials(paths) from error
        # Every database driver has errors of its own; to the user they are one.
        raise _unreachable(paths, url, error) from error
    if write:
        _refuse_unordered(study, spec)
        with warnings.catch_warnings():
            # `group` and some samplers are marked experimental; the tests hold what we need.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = make_sampler(spec, asked, verdicts)
    lock = None
    if write and url is not None:
        from pgolf_sweep.search.storage_lock import lock_of  # noqa: PLC0415 - only for a database

        lock = lock_of(study._storage._backend.engine, study._study_id)  # type: ignore[attr-defined]
    return Study(study, spec, lock)


def _refuse_unordered(study: optuna.Study, spec: SweepSpec) -> None:
    """Refuse a study that was begun when lists of numbers were asked as categories.

    Raises:
        InputError: Its trials do not fit to the ones that would follow.
    """
    known = {
        name: distribution
        for trial in study.get_trials(deepcopy=False)[-1:]
        for name, distribution in trial.distributions.items()
    }
    for name, distribution in known.items():
        domain = spec.space.parameters[name].domain if name in spec.space.parameters else None
        ordered = isinstance(domain, Choices) and domain.ordered
        if ordered and isinstance(distribution, optuna.distributions.CategoricalDistribution):
            raise InputError(
                f"study {spec.name!r} was begun by an earlier version, which did not know that "
                f"the values of {name} are ordered",
                next_step="launch with --name NEW; `warm_start: [{study: "
                f"{spec.name}}}]` takes its best trials along",
            )


def open_storage(paths: StudyPaths) -> tuple[Any, str]:
    """The storage that holds a folder's study, for one who only looks, and the study's name there.

    Raises:
        InfraError: It cannot be reached.
        InputError: There is no such study yet.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = _url(paths, None)
    backend = _storage(paths, url, write=False)
    return backend, _name_in(backend, paths.name) if url is None else _name_of(paths, paths.name)


def _name_in(backend: Any, name: str) -> str:
    """The study that a journal holds, regardless of its folder's name."""
    names = [study.study_name for study in backend.get_all_studies()]
    return name if name in names or len(names) != 1 else str(names[0])


def _name_of(paths: StudyPaths, name: str) -> str:
    """The name under which a folder's study stands in a database, regardless of its name."""
    if not paths.origin.is_file():
        return name
    with suppress(InfraError):
        return str(read_json(paths.origin).get("study", name))
    return name


def _no_trials(paths: StudyPaths) -> InputError:
    """There is no study: not yet, or not any more."""
    kept = paths.trial_numbers()
    if not kept:
        return InputError(
            f"study {paths.name!r} has no trials yet",
            where=str(paths.root),
            next_step=f"pgolf-sweep launch {paths.sweep}",
        )
    return InputError(
        f"study {paths.name!r} has lost its record of {len(kept)} trials",
        where=str(paths.journal),
        got="no study in it",
        expected="the journal that the launch wrote; the trials' folders are there",
        next_step=f"pgolf-sweep recover {paths.name}",
    )


def _damaged(paths: StudyPaths, damage: tuple[int, str]) -> InputError:
    line, why = damage
    return InputError(
        f"record {line} of the study's journal is damaged: {why}",
        where=f"{paths.journal}:{line}",
        expected="one record a line, as the driver wrote it",
        next_step=f"pgolf-sweep recover {paths.name}",
    )


def _url(paths: StudyPaths, storage: str | None) -> str | None:
    """The storage's URL, or None where the study is a journal in its folder."""
    if storage is None and paths.storage_url.is_file():
        return os.environ.get("PGOLF_STORAGE") or paths.storage_url.read_text().strip()
    return storage


def check_storage(url: str) -> None:
    """Refuse a storage of a kind that studies are not kept in.

    Raises:
        InputError: It is no URL, or that of a database without what drivers need.
    """
    import sqlalchemy  # noqa: PLC0415 - only for a database URL

    try:
        backend = sqlalchemy.engine.make_url(url).get_backend_name()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        backend = url.partition("://")[0].partition("+")[0] if "://" in url else ""
    if backend not in STORAGES:
        raise InputError(
            "studies are not kept in such a storage",
            where="--storage, or PGOLF_STORAGE",
            got=masked_url(url),
            expected="postgresql://USER@HOST/DATABASE, or sqlite:///FILE on one machine",
            next_step="leave --storage out where one driver is enough: the study is a file then",
        )


def _storage(paths: StudyPaths, url: str | None, *, write: bool) -> Any:
    if url is not None:
        from pgolf_sweep.search.storage_lock import (  # noqa: PLC0415 - only for a database
            link_settings,
            making_tables,
            sqlite_file,
        )

        try:
            file = sqlite_file(url)
            if write and file is not None:
                _refuse_network(file)
            settings = {"connect_args": link_settings(url)}
            with making_tables(url) if write else nullcontext():
                storage = optuna.storages.RDBStorage(url, engine_kwargs=settings)
        except InputError:
            raise
        except Exception as error:
            raise _unreachable(paths, url, error) from error
        return optuna.storages.get_storage(storage)
    if write:
        _refuse_network(paths.journal)
        repair_journal(paths.journal)
    elif not paths.journal.is_file():
        raise _no_trials(paths)
    # Optuna exports no base class for locks; it calls `acquire` and `release`.
    lock: Any = FlockLock(paths.journal.with_suffix(".lock"))
    return optuna.storages.JournalStorage(JournalFileBackend(str(paths.journal), lock_obj=lock))


def _refuse_network(file: Path) -> None:
    """Refuse a study's file where locks and appends of several machines do not meet.

    Raises:
        InputError: It would lie on a network file system.
    """
    kind = network_file_system_of(file.parent)
    if kind is not None:
        raise InputError(
            "the study's file would lie on a network file system, where its lock does not hold "
            "and what was written may be lost",
            where=str(file),
            got=kind,
            expected="a local disk, or a database",
            next_step="launch with --runs FOLDER on a local disk, or with --storage postgresql://…",
        )


def _unreachable(paths: StudyPaths, url: str | None, error: Exception) -> InfraError:
    place = masked_url(url) if url else str(paths.journal)
    return InfraError(
        "the study's storage cannot be opened",
        where=place,
        got=_first_line(error),
        expected="a journal file written by pgolf-sweep, or a reachable Optuna storage URL",
        next_step="check that the file is whole or the server is up, then launch again",
    )


def _first_line(error: BaseException) -> str:
    return redacted(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
