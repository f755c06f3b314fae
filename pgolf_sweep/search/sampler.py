"""The sampler of a sweep: the Gaussian process that knows the gate (`gp`), or one of Optuna's.

Optuna's TPE looks at every finished trial for each proposal, so that an ask grows with the
study: 14 times as long at 10,000 trials as at 1,000. Here it looks at the best trials, at all
that run, and at a fixed random share of the rest (docs/measurements/speed.md says what that
costs: no score that could be told from noise). Which trials are seen follows from the study alone,
not from the driver's past, so that a resumed study goes on as it would have.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any
from zlib import crc32

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from pgolf_sweep.search.gp import GaussianProcessSampler
from pgolf_sweep.search.gp.sampler import Effort
from pgolf_sweep.search.proposing import (
    GateJudge,
    conditions,
    distributions,
    expected_noise,
    never,
    observed,
)

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from optuna.distributions import BaseDistribution

    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.search.gp import Reuse
    from pgolf_sweep.search.gp.prior import Earlier
    from pgolf_sweep.search.proposing import Verdicts
    from pgolf_sweep.search.rungs import Rungs

GAUSSIAN = frozenset({"bayes", "gp"})
"""Methods of the Gaussian process that knows the gate."""

PROBED = Effort(design=16, verified=6, refined=4)
"""Of a script that is not ours each new shape is built in a process of its own: half a second."""

STARTUP_TRIALS = 8
"""Random ones, before a sampler that learns begins to."""

TPE_BEST = 25
"""TPE's good set, from 241 trials on: these are all kept, regardless of their share."""

TPE_LIMIT = 500
"""Finished trials that TPE looks at besides; below this number it is Optuna's, proposal for
proposal."""


def make_sampler(
    spec: SweepSpec,
    asked: int,
    verdicts: Verdicts | None = None,
    earlier: Earlier = tuple,
    reuse: Reuse | None = None,
    rungs: Rungs | None = None,
) -> optuna.samplers.BaseSampler:
    """The sampler of a sweep.

    A resumed study must not draw its first proposals once more, so the seed moves with the trials
    asked; QMC and the Gaussian process keep their place in the study itself and need the seed
    unchanged.

    Args:
        spec: The sweep.
        asked: Trials that were asked before.
        verdicts: The gate; None proposes without one.
        earlier: What trials under another program scored; asked when it is needed.
        reuse: The trainings that trials may share; None shares none.
        rungs: The cheaper rungs of the sweep; None where it has none.
    """
    method = spec.method
    seed = spec.pgolf.seed if method in {"qmc", *GAUSSIAN} else spec.pgolf.seed + asked
    conditional = any(parameter.when for parameter in spec.space.parameters.values())
    samplers = optuna.samplers
    match method:
        case "random" | "grid":
            # A grid's points are enqueued; the sampler only fills what is not fixed: nothing.
            return samplers.RandomSampler(seed=seed)
        case "bayes" | "gp":
            return _gaussian(spec, seed, verdicts, earlier, reuse, rungs)
        case "tpe":
            return ThinnedTPE(seed=seed, group=conditional)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed)
        case "qmc":
            return samplers.QMCSampler(seed=seed, scramble=True)
    raise AssertionError(method)


def _gaussian(
    spec: SweepSpec,
    seed: int,
    verdicts: Verdicts | None,
    earlier: Earlier,
    reuse: Reuse | None,
    rungs: Rungs | None,
) -> optuna.samplers.BaseSampler:
    space = distributions(spec.space)
    for name in never(spec.space):
        del space[name]
    builtin = spec.program == "trainer"
    return GaussianProcessSampler(
        space,
        when=conditions(spec.space),
        judge=None if verdicts is None else GateJudge(spec.space, verdicts),
        noise=expected_noise(spec),
        seed=seed,
        observe=observed if rungs is None else rungs.observe,
        effort=None if builtin else PROBED,
        earlier=earlier,
        reuse=None if rungs is not None else reuse,  # a rung's trials share no training with others
        fidelity=rungs,
    )


class Thinned:
    """The finished trials that a sampler looks at, kept up at the cost of those that are new.

    Args:
        best: So many of the best are always among them.
        limit: So many of the others, about, drawn by their number.
        states: What the sampler learns from.
    """

    def __init__(self, best: int, limit: int, states: Container[TrialState]) -> None:
        self._most = best
        self._limit = limit
        self._states = states
        self._settled = 0
        """Every trial below this number has finished and was taken up."""
        self._taken: set[int] = set()
        """Those from there on that were, too: trials do not finish in their order."""
        self._best: list[FrozenTrial] = []
        self._others: list[FrozenTrial] = []
        self._count = 0

    def take_up(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """What changed: trials that finished since the last call, and those that have not.

        Args:
            trials: All of the study, by number.
        """
        fresh, unfinished = [], []
        for trial in trials[self._settled :]:
            if not trial.state.is_finished():
                unfinished.append(trial)
            elif trial.number not in self._taken:
                self._taken.add(trial.number)
                if trial.state in self._states:
                    fresh.append(trial)
        while self._settled in self._taken:
            self._taken.remove(self._settled)
            self._settled += 1
        if fresh:
            self._count += len(fresh)
            self._best = heapq.nsmallest(self._most, self._best + fresh, key=merit)
            share = self._limit / self._count
            self._others = [t for t in self._others + fresh if lot(t.number) < share]
        return sorted(fresh + unfinished, key=_number)

    def kept(self) -> list[FrozenTrial]:
        """The finished trials to look at, by number."""
        chosen = {trial.number: trial for trial in self._others + self._best}
        return [chosen[number] for number in sorted(chosen)]


def merit(trial: FrozenTrial) -> tuple[float, ...]:
    """Sorts trials as TPE does, best first: scores, pruned ones, then by what they break."""
    excess = sum(value for value in trial.constraints.values() if value > 0)
    if excess > 0:
        return 2, excess, 0, trial.number
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None  # noqa: S101 - Optuna refuses to complete one without
        return 0, trial.value, 0, trial.number
    if trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return 1, -step, value, trial.number
    return 1, 1, 0, trial.number


def lot(number: int) -> float:
    """A trial's lot in [0, 1): random, and always the same."""
    return crc32(str(number).encode()) / 2**32


def _number(trial: FrozenTrial) -> int:
    return trial.number


class _View(optuna.Study):
    """A study in which a sampler sees the given trials alone."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        # All else is the study's own; Optuna's Hyperband shows samplers a part in this way, too.
        self._whole = study
        self._shown = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        del deepcopy, use_cache  # Samplers change no trial.
        return [trial for trial in self._shown if states is None or trial.state in states]


class _LooksAtSome:
    """What makes a sampler of Optuna look at a part of its study; stands before it among bases."""

    _thinned: Thinned
    _unfinished: list[FrozenTrial]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together; both kinds of search space add up news."""
        news = self._thinned.take_up(study._get_trials(deepcopy=False, use_cache=True))
        self._unfinished = [one for one in news if not one.state.is_finished()]
        base: Any = super()
        space: dict[str, BaseDistribution] = base.infer_relative_search_space(
            _View(study, news), trial
        )
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the parameters that are drawn together."""
        base: Any = super()
        drawn: dict[str, Any] = base.sample_relative(self._view(study), trial, search_space)
        return drawn

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of a parameter that is drawn alone."""
        base: Any = super()
        return base.sample_independent(self._view(study), trial, param_name, param_distribution)

    def _view(self, study: optuna.Study) -> _View:
        return _View(study, self._thinned.kept() + self._unfinished)


class ThinnedTPE(_LooksAtSome, TPESampler):
    """TPE over the best trials and a share of the others."""

    def __init__(
        self, *, seed: int, group: bool = False, best: int = TPE_BEST, limit: int = TPE_LIMIT
    ) -> None:
        super().__init__(seed=seed, group=group, n_startup_trials=STARTUP_TRIALS)
        self._thinned = Thinned(best, limit, (TrialState.COMPLETE, TrialState.PRUNED))
        self._unfinished = []
