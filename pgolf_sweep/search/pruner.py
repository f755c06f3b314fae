"""Pruners, which stop trials that lag behind: Optuna's, kept quick over ten thousand trials.

Optuna's pruners go through every trial for each report. These give the same answers, at the cost
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
    return QuickHyperband(
        min_resource=early.min_iter,
        max_resource=early.max_iter if early.max_iter is not None else "auto",
        reduction_factor=early.eta,
    )


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


class QuickHyperband(optuna.pruners.HyperbandPruner):
    """Hyperband that works a trial's bracket out once: it is asked of every trial at every rung."""

    def __init__(
        self, *, min_resource: int, max_resource: int | str, reduction_factor: int
    ) -> None:
        super().__init__(min_resource, max_resource, reduction_factor)
        self._brackets: dict[int, int] = {}

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        found = self._brackets.get(trial.number)
        if found is None:
            found = super()._get_bracket_id(study, trial)
            if self._pruners:  # before, it is not known how many brackets there will be
                self._brackets[trial.number] = found
        return found
