"""The shared study: with `sampler` and `pruner` the only module that knows Optuna.

Drivers ask and tell; everybody else reads. Each Optuna trial carries one `TrialRecord` as a user
attribute, written before the trial is told, so that a row is complete wherever it is read. Where
several drivers share the study, the row says which of them holds the trial, and nobody else's word
about it is taken (docs/adr/0006).

How each end is told (measured: docs/adr/0001):

* completed -> COMPLETE with the score, and the measured excess over the cap as a constraint;
* pruned -> PRUNED, which keeps the last intermediate score;
* discarded -> FAIL, from which no sampler learns: it redraws. The row says that it was discarded;
* failed -> FAIL;
* any end of another program than the study's -> FAIL: its score says nothing of the knobs of ours;
* any end on a cheaper rung -> FAIL: the Gaussian process reads its row, for all others it is none.
"""

from __future__ import annotations

import logging
import secrets
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import Change, FailureCode, configuration_hash
from pgolf_sweep.search.gp.observation import STATE
from pgolf_sweep.search.halving import Judgement
from pgolf_sweep.search.journal import (
    RECORD,
    damaged_record,
)
from pgolf_sweep.search.judging import StudyPruner
from pgolf_sweep.search.origin import PRIOR, Origin
from pgolf_sweep.search.pruner import make_pruner
from pgolf_sweep.search.reader import StudyReader, reaching
from pgolf_sweep.search.rungs import Rungs
from pgolf_sweep.search.sampler import make_sampler
from pgolf_sweep.search.storage import (
    check_storage,
    close_backend,
    damaged,
    no_trials,
    open_backend,
    storage_url,
    stored_name,
    unreachable,
)
from pgolf_sweep.space.domains import Choices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.search.gp import Reuse
    from pgolf_sweep.search.journal import OldTrial
    from pgolf_sweep.search.proposing import Verdicts
    from pgolf_sweep.search.storage_lock import StudyLock

logger = logging.getLogger(__name__)

_POINT = "point"


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
        change: Program, parent, idea and seed of what somebody proposed.
        rung: Number of the cheaper rung that it is to run on; None: the sweep's own.
    """

    number: int
    knobs: dict[str, KnobValue]
    proposer: str
    repair_of: int | None = None
    expected_bpb: float | None = None
    expected_sd: float | None = None
    redrawn: int = 0
    change: Change = field(default_factory=Change)
    rung: int | None = None


class Study(StudyReader):
    """A study that exists, with the space that its trials are drawn from.

    Args:
        optuna_study: It.
        spec: The sweep as launched.
        lock: What its drivers take turns by; None where it can have only one.
        rungs: The sweep's cheaper rungs; None where it has none.
    """

    def __init__(
        self,
        optuna_study: optuna.Study,
        spec: SweepSpec,
        lock: StudyLock | None = None,
        rungs: Rungs | None = None,
    ) -> None:
        super().__init__(optuna_study, spec, lock)
        self._rungs = rungs
        self._held = False
        self._method = spec.method
        early = spec.early_terminate
        by_curves = early is not None and early.kind != "hyperband"
        self._pruner = StudyPruner(optuna_study, spec) if by_curves else None
        self._grid: Iterator[dict[str, KnobValue]] | None = (
            spec.space.grid() if spec.method == "grid" else None
        )

    # -- taking turns ---------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether several drivers may work on it."""
        return self._lock is not None

    @property
    def held(self) -> bool:
        """Whether this driver is inside `exclusive`."""
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
        with self.reach(), self._lock.held():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    # -- proposing ------------------------------------------------------------------------------

    @reaching
    def ask(self, *, ending: bool = False) -> Proposal | None:
        """The next proposal, or None when a grid is exhausted.

        Args:
            ending: Whether what is left of the budget is for trials on the sweep's own rung.
        """
        if self._rungs is not None and not self._waiting():
            self._rungs.ending = ending
            self._advance(self._rungs)
        if self._grid is not None and not self._waiting():
            knobs = self._next_of_grid()
            if knobs is None:
                return None
            self.enqueue(knobs, by="grid")
        trial = self._study.ask()
        return self._proposal(trial)

    def _advance(self, rungs: Rungs) -> None:
        """Enqueue for the next rung what leads on its own, if it is time for that."""
        found = rungs.leading(self.records(), self.requested().keys())
        if found is not None:
            record, origin = found
            parameters = self._space.parameters
            knobs = {name: v for name, v in record.knobs.items() if name in parameters}
            self.enqueue_once(knobs, origin)

    @reaching
    def enqueue(self, knobs: Mapping[str, KnobValue], *, by: str) -> None:
        """Have these knobs proposed before anything that the sampler draws."""
        self._enqueue(knobs, Origin(proposer=by))

    def _enqueue(self, knobs: Mapping[str, KnobValue], origin: Origin) -> None:
        attributes = {**origin.attributes(), _POINT: _point(knobs)}
        self._study.enqueue_trial(self._space.encode(knobs), user_attrs=attributes)

    @reaching
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

    @reaching
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

    @reaching
    def requested(self) -> dict[str, int]:
        """Trials that requests asked for: the request's name to the trial's number."""
        trials = self._study.get_trials(deepcopy=False)
        found = ((Origin.read(trial.user_attrs).request, trial.number) for trial in trials)
        return {request: number for request, number in found if request is not None}

    def _number_of(self, origin: Origin) -> int | None:
        trials = reversed(self._study.get_trials(deepcopy=False))
        return next((t.number for t in trials if Origin.read(t.user_attrs) == origin), None)

    @reaching
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

    @reaching
    def open_rows(self) -> list[TrialRecord]:
        """Rows of the trials that were asked and not told, oldest first; changes nothing."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self._row(frozen) for frozen in running]

    @reaching
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
            change=origin.change,
            rung=None if self._rungs is None else self._rungs.rung_of(self._frozen(trial)),
        )

    @reaching
    def has_waiting(self) -> bool:
        """Whether a trial is enqueued that nobody has asked for."""
        return self._waiting()

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _next_of_grid(self) -> dict[str, KnobValue] | None:
        assert self._grid is not None  # noqa: S101 - the caller checked
        trials = self._study.get_trials(deepcopy=False)
        asked = {trial.user_attrs.get(_POINT) for trial in trials}
        return next((knobs for knobs in self._grid if _point(knobs) not in asked), None)

    # -- while a trial runs ---------------------------------------------------------------------

    @reaching
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

    @reaching
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

    @reaching
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
        known = self._method != "cmaes" and not record.variant and record.rung is None
        constraint = _constraint(record) if known else None
        # Optuna keeps the first value of a key; a driver that died here may have set it.
        if constraint is not None and constraint[0] not in frozen.constraints:
            trial.set_constraint(*constraint)
        trial.set_user_attr(RECORD, record.to_json())
        state, value = self._told_as(record)
        self._study.tell(record.number, value, state=state)
        return True

    def _told_as(self, record: TrialRecord) -> tuple[TrialState, float | None]:
        match record.outcome:
            case outcome if (record.variant or record.rung is not None) and outcome.final:
                return TrialState.FAIL, None
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
        own = [row for row in rows if not row.get("variant") and row.get("rung") is None]
        scores = [row["val_bpb"] for row in own if row.get("val_bpb") is not None]
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

    @reaching
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
            change=record.change,
            rung=record.rung,
        )
        self._enqueue(point, origin)
        trial = self._study.ask()
        if trial.number != record.number:
            raise ValueError(f"trial {record.number} became {trial.number}")
        self._space.suggest(trial)
        for ordinal, score in enumerate(scores, start=1):
            trial.report(score, ordinal)
        trial.set_user_attr(RECORD, record.to_json())

    @reaching
    def enqueue_again(self, lost: OldTrial) -> None:
        """Enqueue what waited in a lost journal for its turn; leaves others alone."""
        if lost.waiting is not None:
            fixed, attributes = lost.waiting
            self._study.enqueue_trial(fixed, user_attrs=attributes)

    @reaching
    def waiting_points(self) -> list[dict[str, Any]]:
        """Parameters of the trials that wait for their turn, as they were enqueued."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [dict(trial.system_attrs.get("fixed_params", {})) for trial in waiting]


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


def open_study(
    spec: SweepSpec,
    paths: StudyPaths,
    *,
    storage: str | None = None,
    write: bool = False,
    verdicts: Verdicts | None = None,
    reuse: Reuse | None = None,
) -> Study:
    """The study of a folder; made if it is to be written and is not there yet.

    Args:
        spec: The sweep as launched.
        paths: The study's folder.
        storage: An Optuna storage URL, or None for the URL noted in the folder, else its journal.
        write: Whether the caller is the driver; readers never change a file.
        verdicts: The gate's word on the sweep's knobs, for a sampler that proposes what fits.
        reuse: The trainings that trials may share, for a sampler that counts costs.

    Raises:
        InfraError: The storage cannot be reached or is not a study's.
        InputError: There is no such study yet, or its file would lie on a network file system.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage_url(paths, storage)
    if url is not None:
        check_storage(url)
    with ExitStack() as unless_opened:
        study = _open_study(spec, paths, url, write, verdicts, reuse, unless_opened)
        unless_opened.pop_all()
    return study


def _open_study(
    spec: SweepSpec,
    paths: StudyPaths,
    url: str | None,
    write: bool,
    verdicts: Verdicts | None,
    reuse: Reuse | None,
    unless_opened: ExitStack,
) -> Study:
    try:
        backend = open_backend(paths, url, write=write)
        unless_opened.callback(close_backend, backend)
        name = stored_name(backend, paths, url, spec.name)
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
            _refuse_unordered(study, spec)
        else:
            study = optuna.load_study(storage=backend, study_name=name)
    except (InputError, InfraError):
        raise
    except Exception as error:
        if url is None and (damage := damaged_record(paths.journal)) is not None:
            raise damaged(paths, damage) from error
        if isinstance(error, KeyError):
            raise no_trials(paths) from error
        # Every database driver has errors of its own; to the user they are one.
        raise unreachable(paths, url, error) from error
    rungs = None if spec.pgolf.fidelity is None else Rungs(spec)
    if write:
        with warnings.catch_warnings():
            # `group` and some samplers are marked experimental; the tests hold what we need.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = make_sampler(
                spec, asked, verdicts, lambda: study.user_attrs.get(PRIOR, ()), reuse, rungs
            )
    lock = None
    if write and url is not None:
        from pgolf_sweep.search.storage_lock import lock_of  # noqa: PLC0415 - only for a database

        lock = lock_of(study._storage._backend.engine, study._study_id)  # type: ignore[attr-defined]
    return Study(study, spec, lock, rungs)


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
