"""Early termination: Optuna's median rule and W&B's Hyperband, quick over ten thousand trials.

Their originals go through every trial for each report. These give the same answers, at the cost
of the trials that are new.
"""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from pgolf_sweep.config.types import EarlyTerminate


def make_pruner(early: EarlyTerminate | None) -> optuna.pruners.BasePruner:
    """The pruner of a sweep; one that never prunes where the sweep file names none."""
    if early is None:
        return optuna.pruners.NopPruner()
    if early.kind == "median":
        return QuickMedian(startup_trials=early.startup_trials, min_iter=early.min_iter)
    return Hyperband(iterations=early.iterations(), eta=early.eta, strict=early.strict)


class QuickMedian(optuna.pruners.BasePruner):
    """Stops a trial whose best value is worse than the median of completed trials at its step.

    The answers of `optuna.pruners.MedianPruner`, for a study that minimizes.

    Args:
        startup_trials: Completed trials before any is stopped.
        min_iter: First step at which one may be.
    """

    def __init__(self, *, startup_trials: int, min_iter: int) -> None:
        self._startup_trials = startup_trials
        self._min_iter = min_iter
        self._settled = 0
        """Every trial below this number has finished and was taken up."""
        self._taken: set[int] = set()
        self._completed = 0
        self._at_step: dict[int, list[float]] = {}
        """Values of completed trials, ascending."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial, by the value that it reported last."""
        step = trial.last_step
        if step is None or step < self._min_iter:
            return False
        # The study's own cache ends with each ask and tell: only then can a trial have completed.
        self._take_up(study._get_trials(deepcopy=False, use_cache=True))
        if self._completed < max(1, self._startup_trials):
            return False
        numbers = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        others = self._at_step.get(step, [])
        if not numbers:
            return True
        if not others:
            return False
        middle = len(others) // 2
        return min(numbers) > (others[middle] + others[-1 - middle]) / 2

    def _take_up(self, trials: list[FrozenTrial]) -> None:
        for trial in trials[self._settled :]:
            if trial.state.is_finished() and trial.number not in self._taken:
                self._taken.add(trial.number)
                if trial.state is TrialState.COMPLETE:
                    self._completed += 1
                    for step, value in trial.intermediate_values.items():
                        if not math.isnan(value):
                            bisect.insort(self._at_step.setdefault(step, []), value)
        while self._settled in self._taken:
            self._taken.remove(self._settled)
            self._settled += 1


class Hyperband(optuna.pruners.BasePruner):
    """Stops a trial that is not among the best ``1 / eta`` at one of a few iterations.

    W&B's rule, not Optuna's: no brackets; every trial is held to the values that all trials had at
    the last of the iterations that it has reached. Source: `hyperband_stop_runs` of the package
    `sweeps` 0.3.0; for a study that minimizes.

    Args:
        iterations: Ascending.
        eta: The share that goes on is one in so many.
        strict: Judge the value at the iteration, not the best until now.
    """

    def __init__(self, *, iterations: tuple[int, ...], eta: float, strict: bool) -> None:
        self._iterations = iterations
        self._eta = eta
        self._strict = strict
        self._settled = 0
        """Every trial below this number has finished and was taken up."""
        self._at: dict[int, list[float]] = {one: [] for one in iterations}
        """Values of trials at each iteration, ascending."""
        self._seen: set[tuple[int, int]] = set()
        """Trial and iteration of each of them, for trials from `_settled` on."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial, by the values that it reported so far."""
        history = _numbers(trial)
        reached = [one for one in self._iterations if one <= len(history)]
        if not reached:
            return False
        self._take_up(study._get_trials(deepcopy=False, use_cache=True))
        self._note(trial)
        values = self._at[reached[-1]]
        threshold = values[int(len(values) / self._eta)]
        judged = history[reached[-1] - 1] if self._strict else min(history)
        return judged > threshold

    def _take_up(self, trials: list[FrozenTrial]) -> None:
        for trial in trials[self._settled :]:
            self._note(trial)
        while self._settled < len(trials) and trials[self._settled].state.is_finished():
            self._seen -= {(self._settled, one) for one in self._iterations}
            self._settled += 1

    def _note(self, trial: FrozenTrial) -> None:
        if trial.number < self._settled or not trial.intermediate_values:
            return
        history = _numbers(trial)
        for one in self._iterations:
            if one > len(history):
                break
            if (trial.number, one) not in self._seen:
                self._seen.add((trial.number, one))
                bisect.insort(self._at[one], history[one - 1])


def _numbers(trial: FrozenTrial) -> list[float]:
    """The finite values that a trial reported, in their order."""
    reported = (value for _, value in sorted(trial.intermediate_values.items()))
    return [value for value in reported if math.isfinite(value)]
