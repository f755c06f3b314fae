"""Samplers that look at a part of a study: which part, and what they propose from it."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.trial import TrialState, create_trial

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.search.sampler import TPE_BEST, Thinned, ThinnedTPE, lot, merit

SPACE = {
    "MATRIX_LR": FloatDistribution(0.005, 0.08, log=True),
    "MATRIX_BITS": CategoricalDistribution([4, 5, 6, 8]),
}
TAUGHT = (TrialState.COMPLETE, TrialState.PRUNED)


def drawn(rng: random.Random, state: TrialState, **more: object) -> optuna.trial.FrozenTrial:
    params = {"MATRIX_LR": rng.uniform(0.005, 0.08), "MATRIX_BITS": rng.choice([4, 5, 6, 8])}
    return create_trial(state=state, params=params, distributions=SPACE, **more)


def filled(count: int, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """A study of every kind of finished trial, those that end badly in the majority."""
    rng = random.Random(5)
    study = optuna.create_study(sampler=sampler)
    for number in range(count):
        score = rng.uniform(1.0, 2.0)
        match number % 5:
            case 0:
                trial = drawn(rng, TrialState.COMPLETE, value=score, constraints={"bytes": -1.0})
            case 1:
                steps = {step: score + 0.1 / step for step in range(1, rng.randint(2, 5))}
                trial = drawn(rng, TrialState.PRUNED, intermediate_values=steps)
            case 2:
                trial = drawn(rng, TrialState.PRUNED, constraints={"bytes": 100 * score})
            case 3:
                excess = {"bytes": 50.0, "memory": rng.choice([-1.0, 60.0])}
                trial = drawn(rng, TrialState.COMPLETE, value=score, constraints=excess)
            case _:
                trial = drawn(rng, TrialState.FAIL)
        study.add_trial(trial)
    return study


def propose(study: optuna.Study) -> dict[str, object]:
    trial = study.ask(SPACE)
    return dict(trial.params)


def test_tpe_calls_so_many_good_that_are_all_kept() -> None:
    assert default_gamma(10**6) == TPE_BEST


def test_merit_sorts_as_tpe_does() -> None:
    study = filled(300)
    trials = study.get_trials(states=TAUGHT)
    for count in (10, 70, 100, 200):
        below, _ = _split_trials(study, trials, count)
        ours = sorted(sorted(trials, key=merit)[:count], key=lambda trial: trial.number)
        assert [trial.number for trial in ours] == [trial.number for trial in below]


def test_below_its_limit_tpe_proposes_what_optunas_does() -> None:
    ours = filled(120, ThinnedTPE(seed=3, limit=200))
    plain = filled(120, optuna.samplers.TPESampler(seed=3, n_startup_trials=8))
    for _ in range(10):
        assert propose(ours) == propose(plain)  # each sees those before it running


def test_the_best_and_a_fixed_share_of_the_others_are_kept() -> None:
    trials = filled(5000).get_trials()
    taught = [trial for trial in trials if trial.state in TAUGHT]
    thinned = Thinned(25, 400, TAUGHT)
    thinned.take_up(trials)
    kept = {trial.number for trial in thinned.kept()}
    assert {trial.number for trial in sorted(taught, key=merit)[:25]} <= kept
    assert len(kept) == pytest.approx(400, abs=60)
    later = Thinned(25, 200, TAUGHT)
    later.take_up(trials)
    assert {trial.number for trial in later.kept()} <= kept


def test_what_is_kept_does_not_hang_on_when_trials_ended_or_drivers_began() -> None:
    trials = filled(900).get_trials()
    at_once = Thinned(25, 100, TAUGHT)
    at_once.take_up(trials)
    bit_by_bit = Thinned(25, 100, TAUGHT)
    rng = random.Random(1)
    ended: set[int] = set()
    order = rng.sample(range(900), 900)
    waits = drawn(rng, TrialState.WAITING)
    while order:
        ended |= {order.pop() for _ in range(30)}
        last = max(ended) + 1
        shown = [trial if trial.number in ended else waits for trial in trials[:last]]
        news = bit_by_bit.take_up(shown)
        assert sum(not trial.state.is_finished() for trial in news) == last - len(ended)
    assert [t.number for t in bit_by_bit.kept()] == [t.number for t in at_once.kept()]


def test_a_resumed_driver_proposes_as_the_first_would_have() -> None:
    first = filled(700, ThinnedTPE(seed=1, limit=100))
    asked = propose(first)
    again = filled(700, ThinnedTPE(seed=1, limit=100))
    assert propose(again) == asked


def test_conditional_knobs_are_proposed_within_their_ranges(make_bench) -> None:
    extra = (
        "  LR_SCHEDULE: {values: [linear, cosine]}\n"
        "  MIN_LR_FRAC: {min: 0.0, max: 0.2, when: {LR_SCHEDULE: cosine}}\n"
    )
    bench = make_bench(extra=extra)
    study = bench.study()
    study._study.sampler._thinned = Thinned(10, 20, TAUGHT)
    schedules = set()
    for _ in range(120):
        proposal = study.ask()
        schedules.add(proposal.knobs["LR_SCHEDULE"])
        assert ("MIN_LR_FRAC" in proposal.knobs) == (proposal.knobs["LR_SCHEDULE"] == "cosine")
        bench.session.spec.space.encode(proposal.knobs)  # refuses what is outside
        study.tell(
            TrialRecord(
                number=proposal.number,
                outcome=State.COMPLETED,
                knobs=proposal.knobs,
                val_bpb=float(proposal.knobs["MATRIX_LR"]),
            )
        )
    assert schedules == {"linear", "cosine"}
    assert len(study._study.sampler._thinned.kept()) < 60


def test_a_thinned_study_still_finds_the_good_region() -> None:
    study = filled(2000, ThinnedTPE(seed=0, limit=100))
    for _ in range(60):
        trial = study.ask(SPACE)
        study.tell(trial, 0.5 + abs(trial.params["MATRIX_LR"] - 0.02) * 10)
    late = [trial.params["MATRIX_LR"] for trial in study.trials[-30:]]
    assert sum(abs(rate - 0.02) < 0.01 for rate in late) > 20


def test_lots_are_spread_evenly() -> None:
    lots = [lot(number) for number in range(10_000)]
    assert sum(one < 0.1 for one in lots) == pytest.approx(1000, abs=100)
    assert sum(one < 0.1 for one in lots[::2]) == pytest.approx(500, abs=80)
