"""The Gaussian-process sampler: what fits, what exists, what repeats, and that it learns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from pgolf_sweep.search.gp import GaussianProcessSampler, Judged
from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.gp.observation import BELOW, STATE, Observation, clipped
from pgolf_sweep.search.gp.sampler import STARTUP_FINISHED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPACE: dict[str, Any] = {
    "width": IntDistribution(32, 256, step=32),
    "depth": IntDistribution(1, 12),
    "bits": CategoricalDistribution((8, 4, 6)),
    "rate": FloatDistribution(1e-3, 1e-1, log=True),
    "schedule": CategoricalDistribution(("linear", "cosine", "wsd")),
    "floor": FloatDistribution(0.0, 0.2),
}
WHEN = {"floor": {"schedule": ("cosine",)}}
LIMIT = 1e6


def size(values: Mapping[str, Any]) -> float:
    return float(values["width"] ** 2 * values["depth"] * values["bits"])


def judge(values: Mapping[str, Any]) -> Judged:
    excess = math.log(size(values) / LIMIT)
    return Judged(1.0 if excess <= 0 else 0.0, excess, excess)


def score(values: Mapping[str, Any]) -> float:
    """The larger the better, at its own rate; under the limit only."""
    capacity = values["width"] ** 2 * values["depth"]
    rate = math.log(values["rate"] / 0.02 * (values["width"] / 128) ** 0.5)
    bits = {4: 0.2, 6: 0.03, 8: 0.0}[values["bits"]]
    schedule = {"linear": 0.02, "cosine": abs(values.get("floor", 0) - 0.1), "wsd": 0.01}
    return 3 * capacity**-0.1 + 0.05 * rate**2 + bits + schedule[values["schedule"]]


def ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, Any]]:
    trial = study.ask()
    values: dict[str, Any] = {
        "width": trial.suggest_int("width", 32, 256, step=32),
        "depth": trial.suggest_int("depth", 1, 12),
        "bits": trial.suggest_categorical("bits", (8, 4, 6)),
        "rate": trial.suggest_float("rate", 1e-3, 1e-1, log=True),
        "schedule": trial.suggest_categorical("schedule", ("linear", "cosine", "wsd")),
    }
    if values["schedule"] == "cosine":
        values["floor"] = trial.suggest_float("floor", 0.0, 0.2)
    return trial, values


def sampler(seed: int = 0) -> GaussianProcessSampler:
    return GaussianProcessSampler(SPACE, when=WHEN, judge=judge, noise=1e-3, seed=seed)


def searched(trials: int, seed: int = 0, slots: int = 4) -> list[dict[str, Any]]:
    """Proposals with so many under way at a time."""
    study = optuna.create_study(sampler=sampler(seed))
    running, found = [], []
    for _ in range(trials):
        trial, values = ask(study)
        running.append((trial, values))
        found.append(values)
        if len(running) == slots:
            ended, its = running.pop(0)
            study.tell(ended, score(its))
    return found


def test_every_proposal_fits_and_the_boundary_is_not_feared() -> None:
    found = searched(30)
    assert all(size(values) <= LIMIT for values in found)
    assert sum(size(values) > 0.8 * LIMIT for values in found[15:]) >= 5


@pytest.mark.parametrize("surest", [1.0, 0.93])
def test_what_probably_fits_is_proposed_only_where_nothing_surely_does(surest: float) -> None:
    def unsure(values: Mapping[str, Any]) -> Judged:
        excess = math.log(size(values) / LIMIT)
        return Judged((surest if excess < -0.1 else 0.91) * (excess < 0), excess, excess)

    study = optuna.create_study(sampler=GaussianProcessSampler(SPACE, when=WHEN, judge=unsure))
    told = []
    for _ in range(12):
        trial, values = ask(study)
        study.tell(trial, score(values))
        told.append(unsure(values).fit_probability)
    assert min(told[STARTUP_FINISHED:]) >= (1.0 if surest == 1.0 else 0.91)


class LastTrials:
    """One cheaper rung, at the end of a budget."""

    depth = 1
    ending = True

    def below(self, trial: optuna.trial.FrozenTrial) -> int:
        return int(trial.user_attrs.get("below", 0))

    def costs(self, trials: Sequence[optuna.trial.FrozenTrial]) -> list[float]:
        del trials
        return [1.0, 0.125]


def test_at_the_end_what_led_on_the_cheaper_rung_is_run_whole() -> None:
    fidelity = LastTrials()

    def observed(trial: optuna.trial.FrozenTrial) -> Observation | None:
        known = trial.value is not None
        return Observation(trial.value or 0.0, below=fidelity.below(trial)) if known else None

    study = optuna.create_study(sampler=sampler(1))
    short = []
    for _ in range(30):
        trial, values = ask(study)
        trial.set_user_attr("below", 1)
        study.tell(trial, score(values) + 0.5)
        short.append(score(values))
    study.sampler = GaussianProcessSampler(
        SPACE, when=WHEN, judge=judge, seed=1, observe=observed, fidelity=fidelity
    )
    whole = []
    for _ in range(4):  # all under way at a time
        trial, values = ask(study)
        assert study._storage.get_trial(trial._trial_id).system_attrs[STATE][BELOW] == 0
        whole.append(score(values))
    assert whole[0] <= sorted(short)[2]
    assert sum(value < sorted(short)[len(short) // 2] for value in whole) >= 3


def test_it_beats_random_search_by_far() -> None:
    best = min(score(values) for values in searched(30))
    rng = np.random.default_rng(0)
    encoding = Encoding(SPACE, WHEN)
    drawn = (encoding.values(row) for row in encoding.snapped(rng.random((400, len(encoding)))))
    fitting = sorted(score(values) for values in drawn if size(values) <= LIMIT)
    assert len(fitting) > 100
    assert best < fitting[0]  # thirty proposals against more than a hundred that fit


def test_a_conditional_parameter_is_asked_only_where_it_exists() -> None:
    study = optuna.create_study(sampler=sampler())
    for _ in range(12):
        trial, values = ask(study)
        study.tell(trial, score(values))
    for trial in study.trials:
        assert ("floor" in trial.params) == (trial.params["schedule"] == "cosine")
    encoding = Encoding(SPACE, WHEN)
    linear = encoding.row({"schedule": "linear", "width": 64})
    moved = linear.copy()
    moved[-1] = 0.9
    assert (encoding.inputs(linear[None]) == encoding.inputs(moved[None])).all()


def test_a_resumed_study_proposes_what_it_would_have() -> None:
    study = optuna.create_study(sampler=sampler())
    for _ in range(STARTUP_FINISHED + 4):
        trial, values = ask(study)
        study.tell(trial, score(values))
    resumed = optuna.create_study(sampler=sampler())
    resumed.add_trials(study.trials)
    assert ask(resumed)[1] == ask(study)[1]


def test_another_seed_proposes_something_else() -> None:
    assert searched(3, seed=0) == searched(3, seed=0)
    assert searched(3, seed=0) != searched(3, seed=1)


def test_what_an_enqueued_trial_fixes_is_kept_and_the_rest_fits() -> None:
    study = optuna.create_study(sampler=sampler())
    for _ in range(STARTUP_FINISHED + 1):
        trial, values = ask(study)
        study.tell(trial, score(values))
    study.enqueue_trial({"width": 256, "bits": 8})
    _, values = ask(study)
    assert (values["width"], values["bits"]) == (256, 8)
    assert size(values) <= LIMIT


def test_no_configuration_is_proposed_twice() -> None:
    few = {"width": IntDistribution(1, 3), "bits": IntDistribution(1, 3)}
    study = optuna.create_study(sampler=GaussianProcessSampler(few))
    seen = set()
    for _ in range(9):
        trial = study.ask(few)
        seen.add(tuple(trial.params.values()))
        study.tell(trial, float(sum(trial.params.values())))
    assert len(seen) == 9


def test_a_failed_trial_teaches_nothing_by_itself() -> None:
    study = optuna.create_study(sampler=sampler())
    for turn in range(STARTUP_FINISHED + 3):
        trial, values = ask(study)
        if turn % 3:
            study.tell(trial, score(values))
        else:
            study.tell(trial, state=TrialState.FAIL)
    assert size(ask(study)[1]) <= LIMIT


def test_rows_decode_to_what_they_encode() -> None:
    encoding = Encoding(SPACE, WHEN)
    rng = np.random.default_rng(0)
    for row in encoding.snapped(rng.random((50, len(encoding)))):
        values = encoding.values(row)
        again = encoding.values(encoding.row(values))
        assert again == pytest.approx(values) if "x" in values else list(again) == list(values)
        for name, value in values.items():
            assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))


def test_numbers_are_ordered_by_size_and_words_stand_apart() -> None:
    encoding = Encoding(SPACE)
    places = [encoding.row({"bits": bits})[2] for bits in (4, 6, 8)]
    assert places == sorted(places)
    words = [encoding.inputs(encoding.row({"schedule": s})[None])[0] for s in ("linear", "cosine")]
    assert np.linalg.norm(words[0] - words[1]) == pytest.approx(1.0)


def test_moves_stay_in_the_space_and_change_something() -> None:
    encoding = Encoding(SPACE, WHEN)
    rng = np.random.default_rng(0)
    rows = encoding.snapped(rng.random((300, len(encoding))))
    moved = encoding.moved(rows, rng)
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (np.abs(moved - rows).sum(1) > 0).mean() > 0.7
    assert (encoding.snapped(moved) == moved).all()


def test_scores_that_diverge_are_clipped_nearer() -> None:
    values = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 50.0])
    assert clipped(values).max() == pytest.approx(1.25 + 2 * 0.25)
    assert clipped(values[:5]).max() == 1.4
