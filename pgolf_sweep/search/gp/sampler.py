"""An Optuna sampler for tens of expensive trials under a limit that is known beforehand.

A Gaussian process (`surrogate`) models the objective; whoever knows the limit is asked what fits
(`feasible`), so that the boundary is neither crossed nor feared. Many trials may run at a time:
those under way are believed at their posterior mean. A proposal follows from the study, its
number and the seed alone, so that a study that is resumed goes on as it would have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from pgolf_sweep.search.gp.candidates import Candidates, hold
from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.gp.feasible import LEAST_PROBABILITY, Judged, Limit
from pgolf_sweep.search.gp.observation import (
    BELOW,
    STATE,
    Fidelity,
    Observation,
    Reuse,
    clipped,
    completed,
)
from pgolf_sweep.search.gp.prior import LEAST_EARLIER, PriorMean, Shifted
from pgolf_sweep.search.gp.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

    from pgolf_sweep.search.gp.feasible import Judge
    from pgolf_sweep.search.gp.prior import Earlier

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.intp]

STARTUP_FINISHED = 5
"""Trials that have finished before the model proposes."""

SHRINK = 0.8
"""Share of each range that the first trials are spread over."""

REFIT_EACH = 100
"""Up to this many values the hyperparameters are fitted anew for each that is new."""
REFIT_SHARE = 0.05
"""From there on when this share more is known."""

MOST_VALUES = 400
"""Values that the model looks at: the best third, the others by lot."""

START_BLOCK = 512
"""First points that are looked at before the sampler gives up finding one that fits."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How often the judge is asked.

    Attributes:
        design: Configurations from which the limit is first known everywhere.
        verified: Candidates for each proposal, most promising first.
        refined: The same after their refinement.
    """

    design: int = 320
    verified: int = 24
    refined: int = 16


class GaussianProcessSampler(BaseSampler):
    """Proposes by expected improvement among what fits.

    Args:
        space: Every parameter that may be asked for, parents before what depends on them.
        when: Conditions under which parameters exist; see `encoding.Encoding`.
        judge: Knows the limit; None: there is none.
        noise: Standard deviation between repeats of one configuration, in the objective's unit.
        seed: Two studies of one seed that see the same values propose the same.
        observe: What a finished trial says; None: nothing.
        effort: How often the judge is asked.
        earlier: What is known of a related objective: a prior mean; asked at the first proposal.
        reuse: What trials may go on from; improvement then counts by its cost, and values that
            share their expensive part share their noise. None: every trial costs alike.
        fidelity: Cheaper rungs. What is proposed is new, and is begun on the cheapest, unless a
            measurement there tells too little for what it costs; what goes on to the next rung is
            the caller's to enqueue. None: there are none.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        *,
        when: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        judge: Judge | None = None,
        noise: float | None = 1e-3,
        seed: int = 0,
        observe: Callable[[FrozenTrial], Observation | None] = completed,
        effort: Effort | None = None,
        earlier: Earlier = tuple,
        reuse: Reuse | None = None,
        fidelity: Fidelity | None = None,
    ) -> None:
        self.encoding = Encoding(space, when)
        self._space = dict(space)
        self._judge = judge
        self._noise = noise
        self._seed = seed
        self._observe = observe
        self.effort = effort or Effort()
        self._earlier = earlier
        self._prior: PriorMean | None = None
        self.reuse = reuse
        self.fidelity = fidelity
        later = frozenset() if reuse is None else frozenset(reuse.names)
        dear = [at for at, d in enumerate(self.encoding.dimensions) if d.name not in later]
        self.dear = np.array(dear, dtype=int)
        """Columns of a row on which the expensive part depends."""
        self._limit: Limit | None = None
        self._rows: dict[int, Floats] = {}

    # -- what Optuna asks -----------------------------------------------------------------------

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The whole space: it is known from the start."""
        del study, trial
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A configuration; what is fixed in an enqueued trial is kept."""
        del search_space
        fixed = trial.system_attrs.get("fixed_params", {})
        if not self.encoding.dimensions or all(d.name in fixed for d in self.encoding.dimensions):
            return {}
        rng = np.random.default_rng([self._seed, trial.number])
        trials = [t for t in study._get_trials(deepcopy=False, use_cache=True) if t is not trial]
        trials = [t for t in trials if t.number != trial.number]
        row, state = self._proposal(trials, rng, self._held(fixed))
        study._storage.set_trial_system_attr(trial._trial_id, STATE, state)
        return self.encoding.values(row)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A uniform draw, for a parameter that a partly enqueued trial leaves open."""
        del study
        rng = np.random.default_rng([self._seed, trial.number, crc32(param_name.encode())])
        alone = Encoding({param_name: param_distribution})
        return alone.values(rng.random(1))[param_name]

    # -- a proposal -----------------------------------------------------------------------------

    def _held(self, fixed: Mapping[str, Any]) -> dict[int, float]:
        """Columns of a row that an enqueued trial has decided."""
        return {
            at: dimension.encode(fixed[dimension.name])
            for at, dimension in enumerate(self.encoding.dimensions)
            if dimension.name in fixed
        }

    def _proposal(
        self, trials: Sequence[FrozenTrial], rng: np.random.Generator, held: Mapping[int, float]
    ) -> tuple[Floats, dict[str, Any]]:
        tried = {self.key(self._row(t)) for t in trials if t.params and not self._may_rise(t)}
        finished, observed = self._observations(trials)
        if len(finished) < STARTUP_FINISHED:
            first, state = self._first(trials, tried, rng, held)
            if self.fidelity is not None:
                state[BELOW] = 0 if self.fidelity.ending else self.fidelity.depth
            return first, state
        model = self._model(trials, finished, observed)
        kept = self._kept(trials)
        state = {"theta": model.theta.tolist(), "values": len(finished)}
        final = None
        if self.fidelity is not None and self.fidelity.ending:
            final = self._final(trials, finished, observed, self.fidelity)
        search = Candidates(self, model, tried, held, rng, kept, final)
        row = search.best(np.array(finished), observed)
        if row is None:
            row = hold(self.encoding.snapped(rng.random((1, len(self.encoding)))), held)[0]
        below = 0
        if self.fidelity is not None:
            truest = min(one.below for one in observed)
            below = self._rung_of(row, model, self.fidelity, trials, truest)
            state[BELOW] = below
            below = max(0, below - truest)
        mean, sd = model.posterior(self.inputs(row[None, :], below))
        state |= {"mean": float(mean[0]), "sd": float(sd[0]), "noise": model.noise}
        return row, state | {"redrawn": int(search.passed_over)}

    def _may_rise(self, trial: FrozenTrial) -> bool:
        """Whether the objective itself is to be measured now where a cheaper rung was."""
        return self.fidelity is not None and self.fidelity.ending and self.fidelity.below(trial) > 0

    def _final(
        self,
        trials: Sequence[FrozenTrial],
        finished: Sequence[Floats],
        observed: Sequence[Observation],
        fidelity: Fidelity,
    ) -> Floats:
        """Rows whose objective itself is measured, within the limit, or under way."""
        pairs = zip(finished, observed, strict=True)
        rows = [row for row, one in pairs if one.feasible and not one.below]
        rows += [self._row(t) for t in _running(trials) if not fidelity.below(t)]
        return np.array(rows).reshape(-1, len(self.encoding))

    def _rung_of(
        self,
        row: Floats,
        model: Surrogate | Shifted,
        fidelity: Fidelity,
        trials: Sequence[FrozenTrial],
        truest: int,
    ) -> int:
        """The rung on which a measurement tells most for what it costs."""
        if truest or fidelity.ending:
            return fidelity.depth * (not fidelity.ending)
        belows = np.arange(fidelity.depth + 1)
        worth = model.worth(self.inputs(np.repeat(row[None, :], len(belows), axis=0), belows))
        return int(np.argmax(worth / np.array(fidelity.costs(trials))))

    def _observations(
        self, trials: Sequence[FrozenTrial]
    ) -> tuple[list[Floats], list[Observation]]:
        """Rows and values of the finished trials that say something."""
        rows, observed = [], []
        for trial in trials:
            if not trial.state.is_finished() or not trial.params:
                continue
            observation = self._observe(trial)
            if observation is not None and math.isfinite(observation.value):
                rows.append(self._row(trial))
                observed.append(observation)
        if len(observed) > MOST_VALUES:
            by_value = sorted(range(len(observed)), key=lambda i: observed[i].value)
            best, others = by_value[: MOST_VALUES // 3], by_value[MOST_VALUES // 3 :]
            others = sorted(others, key=lambda i: crc32(rows[i].tobytes()))
            kept = sorted(best + others[: MOST_VALUES - len(best)])
            rows, observed = [rows[i] for i in kept], [observed[i] for i in kept]
        return rows, observed

    def _row(self, trial: FrozenTrial) -> Floats:
        """A trial's row; it is asked for at each proposal and never changes once it is whole."""
        row = self._rows.get(trial.number)
        if row is None:
            row = self.encoding.row(trial.params)
            if trial.state.is_finished():
                self._rows[trial.number] = row
        return row

    def key(self, row: Floats) -> bytes:
        """What tells a configuration from another."""
        exists = self.encoding.active(row[None, :])[0]
        return bytes(np.where(exists, row, 0.5).round(9).tobytes())

    def _kept(self, trials: Sequence[FrozenTrial]) -> Floats | None:
        """Rows of the trials that others may go on from; None where there are none."""
        reuse = self.reuse
        if reuse is None or reuse.share >= 1 or len(self.dear) == len(self.encoding):
            return None
        numbers = reuse.numbers
        rows = [self._row(trial) for trial in trials if trial.number in numbers]
        return np.array(rows) if rows else None

    def dear_keys(self, rows: Floats) -> list[bytes]:
        """What tells the expensive part of rows from another's; (n, parameters) in."""
        exists = self.encoding.active(rows)
        shown = np.where(exists, rows, 0.5).round(9)[:, self.dear]
        return [row.tobytes() for row in np.ascontiguousarray(shown)]

    def inputs(self, rows: Floats, below: float | Ints | Floats = 0.0) -> Floats:
        """What the model sees of rows, that many rungs below the truest seen."""
        return self.whole(self.encoding.inputs(rows), below)

    def whole(self, x: Floats, below: float | Ints | Floats = 0.0) -> Floats:
        """Inputs with those that are derived, and how many rungs below the truest seen they are."""
        columns = [x, self.limit.derived(x)]
        if self.fidelity is not None:
            columns.append(np.broadcast_to(below, len(x))[:, None])
        return np.hstack(columns)

    def _model(
        self,
        trials: Sequence[FrozenTrial],
        finished: Sequence[Floats],
        observed: Sequence[Observation],
    ) -> Surrogate | Shifted:
        """The model of what finished, conditioned on what runs."""
        belows = np.array([one.below for one in observed])
        values = np.array([one.value for one in observed])
        for below in np.unique(belows):
            values[belows == below] = clipped(values[belows == below])
        truest = int(belows.min())
        extra = np.array([one.variance for one in observed])
        x = self.inputs(np.array(finished), belows - truest)
        prior = self._prior_mean()
        own = belows == truest
        slope = 0.0 if prior is None else prior.slope(x[own], values[own])
        if prior is not None:
            values = values - slope * prior(x)
        groups = None
        if self.reuse is not None:
            keys = self.dear_keys(np.array(finished))
            places = {key: at for at, key in enumerate(dict.fromkeys(keys))}
            groups = [places[key] for key in keys]
        rungs = self.fidelity is not None
        model = Surrogate(x, values, noise=self._noise, extra=extra, groups=groups, rungs=rungs)
        last = next((t.system_attrs[STATE] for t in reversed(trials) if _has_theta(t)), None)
        theta = model.prior.means
        known = last is not None and len(last["theta"]) == len(theta)
        if last is not None and known:
            theta = np.array(last["theta"])
        if last is None or not known or _is_due(last["values"], len(finished)):
            theta = model.fit([theta, model.prior.means] if known else [theta])
        running = _running(trials)
        believed = None
        if running:
            on = [self.fidelity.below(t) if self.fidelity else 0 for t in running]
            rows = np.array([self._row(t) for t in running])
            believed = self.inputs(rows, np.maximum(np.array(on) - truest, 0))
        model.condition(theta, believed)
        return model if prior is None else Shifted(model, prior, slope)

    def _prior_mean(self) -> PriorMean | None:
        """What a related objective says; None: nothing, or too little."""
        if self._prior is None:
            known = list(self._earlier())
            self._earlier = tuple
            if len(known) >= LEAST_EARLIER:
                rows = np.array([self.encoding.row(answers) for answers, _ in known])
                values = clipped(np.array([value for _, value in known]))
                self._prior = PriorMean(
                    self.inputs(rows), values, noise=self._noise, rungs=self.fidelity is not None
                )
        return self._prior

    def _first(
        self,
        trials: Sequence[FrozenTrial],
        tried: set[bytes],
        rng: np.random.Generator,
        held: Mapping[int, float],
    ) -> tuple[Floats, dict[str, Any]]:
        """The next point of a scrambled Sobol sequence that fits."""
        from scipy.stats import qmc  # noqa: PLC0415 - half a second

        begun = [t.system_attrs[STATE]["start"] for t in trials if "start" in _state(t)]
        at = max(begun, default=-1) + 1
        width, scrambled = len(self.encoding), np.random.default_rng(self._seed)
        sequence = qmc.Sobol(width, scramble=True, rng=scrambled)
        if at:
            sequence.fast_forward(at)
        best: tuple[float, int, Floats] | None = None
        for place in range(at, at + START_BLOCK):
            point = 0.5 + SHRINK * (sequence.random(1) - 0.5)
            row = hold(self.encoding.snapped(point), held)[0]
            if self.key(row) in tried:
                continue
            judged = self.judged(row)
            if judged.fit_probability >= LEAST_PROBABILITY:
                return row, {"start": place, "redrawn": place - at}
            if best is None or judged.fit_probability > best[0]:
                best = judged.fit_probability, place, row
        if best is None:
            return hold(self.encoding.snapped(rng.random((1, len(self.encoding)))), held)[0], {}
        return best[2], {"start": at + START_BLOCK - 1, "redrawn": START_BLOCK}

    # -- the limit ------------------------------------------------------------------------------

    @property
    def limit(self) -> Limit:
        """What is known of the limit everywhere; the judge is asked the first time."""
        if self._limit is None:
            self._limit = self._designed()
        return self._limit

    def _designed(self) -> Limit:
        from scipy.stats import qmc  # noqa: PLC0415 - half a second

        width = len(self.encoding)
        if self._judge is None or not width:
            return Limit(np.empty((0, self.encoding.width)), [])
        rng = np.random.default_rng([self._seed, 0x11])
        rows = self.encoding.snapped(qmc.Sobol(width, scramble=True, rng=rng).random(2**12))
        rows = rows[: self.effort.design]
        judged = [self.judged(row) for row in rows]
        return Limit(self.encoding.inputs(rows), judged)

    def judged(self, row: Floats) -> Judged:
        """What the judge says of a row."""
        if self._judge is None:
            return Judged(1.0)
        return self._judge(self.encoding.values(row))


def _state(trial: FrozenTrial) -> Mapping[str, Any]:
    state: Mapping[str, Any] = trial.system_attrs.get(STATE, {})
    return state


def _running(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state is TrialState.RUNNING and t.params]


def _has_theta(trial: FrozenTrial) -> bool:
    return "theta" in _state(trial)


def _is_due(before: int, now: int) -> bool:
    """Whether the hyperparameters are to be fitted again."""
    if now <= REFIT_EACH:
        return now != before
    return abs(now - before) >= REFIT_SHARE * now
