"""Quick pruners give the answers of those that they stand for."""

from __future__ import annotations

import math
import random

import optuna
import pytest
from optuna.trial import TrialState

from pgolf_sweep.search.pruner import QuickHyperband, QuickMedian


def answers(pruner: optuna.pruners.BasePruner, *, nan: bool) -> list[tuple[int, int]]:
    """Trial and step of each prune, of trials that overlap and do not end in their order."""
    rng = random.Random(2)
    study = optuna.create_study(
        study_name="s", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=1)
    )
    running = [(study.ask(), rng.random(), 0) for _ in range(6)]
    pruned = []
    for _ in range(1500):
        trial, level, step = running.pop(rng.randrange(len(running)))
        step += 1
        value = math.nan if nan and rng.random() < 0.05 else level + rng.random() / step
        trial.report(value, step)
        if trial.should_prune():
            pruned.append((trial.number, step))
            study.tell(trial, state=TrialState.PRUNED)
        elif step == 12:
            study.tell(trial, level)
        elif rng.random() < 0.02:
            study.tell(trial, state=TrialState.FAIL)
        else:
            running.append((trial, level, step))
            continue
        running.append((study.ask(), rng.random(), 0))
    return pruned


@pytest.mark.parametrize("nan", [False, True])
def test_median_prunes_what_optunas_does(nan: bool) -> None:
    ours = answers(QuickMedian(startup_trials=4, min_iter=3), nan=nan)
    theirs = answers(optuna.pruners.MedianPruner(4, n_warmup_steps=3), nan=nan)
    assert ours == theirs
    assert len(ours) > 20


@pytest.mark.parametrize("longest", [12, "auto"])
def test_hyperband_prunes_what_optunas_does(longest: int | str) -> None:
    ours = QuickHyperband(min_resource=1, max_resource=longest, reduction_factor=3)
    theirs = optuna.pruners.HyperbandPruner(1, longest, 3)
    pruned = answers(ours, nan=False)
    assert pruned == answers(theirs, nan=False)
    assert len(pruned) > 20
