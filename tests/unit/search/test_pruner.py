"""Hyperband stops what W&B's own does."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest
import yaml

from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.search.pruner import Hyperband, make_pruner


def wandb_stops(config: dict[str, object], histories: list[list[float]]) -> list[bool]:
    """Which of the runs W&B's own code would stop, each at the end of its history."""
    from sweeps.hyperband_stopping import hyperband_stop_runs
    from sweeps.run import RunState, SweepRun

    runs = [
        SweepRun(name=str(i), state=RunState.running, history=[{"loss": v} for v in history])
        for i, history in enumerate(histories)
    ]
    stopped = hyperband_stop_runs(
        runs,
        {
            "method": "random",
            "metric": {"name": "loss", "goal": "minimize"},
            "parameters": {"a": {"values": [1, 2]}},
            "early_terminate": config,
        },
    )
    names = {run.name for run in stopped}
    return [str(i) in names for i in range(len(histories))]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "keys",
    [
        {"min_iter": 3},
        {"min_iter": 2, "eta": 1.5, "strict": False},
        {"max_iter": 27, "s": 2},
        {"max_iter": 12, "s": 3, "eta": 2, "strict": False},
        {"min_iter": 5, "max_iter": 16, "s": 2, "eta": 2},
        {"min_iter": 2, "s": 2, "eta": 4},
    ],
)
def test_hyperband_stops_what_wandb_stops(keys: dict[str, object]) -> None:
    pytest.importorskip("sweeps.hyperband_stopping", exc_type=ImportError)
    text = yaml.safe_dump({"type": "hyperband", **keys}, default_flow_style=True).strip()
    spec = parse_spec(
        f"method: random\nparameters: {{A: {{value: 1}}}}\nearly_terminate: {text}\n",
        Path("x.yaml"),
    )
    rng = random.Random(4)
    histories = [
        [level + rng.random() / (step + 1) for step in range(rng.randrange(30))]
        for level in (rng.random() for _ in range(40))
    ]
    pruner = make_pruner(spec.early_terminate)
    study = optuna.create_study(study_name="s", pruner=pruner)
    trials = [study.ask() for _ in histories]
    for trial, history in zip(trials, histories, strict=True):
        for step, value in enumerate(history, 1):
            trial.report(value, step)
    ours = [trial.should_prune() for trial in trials]
    assert ours == wandb_stops({"type": "hyperband", **keys}, histories)
    assert any(ours)
    assert not all(ours)


def test_hyperband_counts_each_value_once_however_often_it_is_asked() -> None:
    def fresh() -> Hyperband:
        return Hyperband(iterations=(2, 4), eta=2.0, strict=True)

    kept, rng = fresh(), random.Random(3)
    study = optuna.create_study(study_name="s", pruner=kept)
    differed = 0
    for _ in range(60):
        trial, level = study.ask(), rng.random()
        for step in range(1, 6):
            trial.report(level + rng.random() / step, step)
            answer = trial.should_prune()
            assert answer == trial.should_prune()
            frozen = study._storage.get_trial(trial._trial_id)
            assert answer == fresh().prune(study, frozen)
            differed += answer
        study.tell(trial, level)
    assert differed > 20
