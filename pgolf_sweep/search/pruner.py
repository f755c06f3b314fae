"""W&B's Hyperband, quick over ten thousand trials; `halving` has the other rules.

The original goes through every trial for each report. This one gives the same answers, at the cost
of the trials that are new.
"""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING

import optuna

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from pgolf_sweep.config.types import EarlyTerminate


def make_pruner(early: EarlyTerminate | None) -> optuna.pruners.BasePruner:
    """The pruner of a sweep; one that never prunes where the sweep file names no Hyperband."""
    if early is None or early.kind != "hyperband":
        return optuna.pruners.NopPruner()
    return Hyperband(iterations=early.iterations(), eta=early.eta, strict=early.strict)


class Hyperband(optuna.pruners.BasePruner):
    """Stops a trial that is not among the best ``1 / eta`` at one of a few iterations.

    W&B's rule, not Optuna's: no brackets; every trial is held to the values that all trials had at
    the last of the iterations that it has reached. Source: `hyperband_stop_runs` of the package
    `sweeps` 0.3.0; for a study that minimizes.

    Args:
        iterations: Ascending.
        eta: One in this many goes on.
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
