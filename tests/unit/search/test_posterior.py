"""The posterior of each trial's score, and which trials cannot be told from the best."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import yaml

from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.record import State, TrialRecord, ranked, second_seeds
from pgolf_sweep.search.posterior import LEAST_SECONDS, Posteriors, posteriors
from pgolf_sweep.search.proposing import expected_noise
from pgolf_sweep.space.domains import Choices, Parameter, Range
from pgolf_sweep.space.space import Space

SPACE = Space(
    [
        Parameter(name="RATE", distribution="uniform", domain=Range(0.0, 1.0)),
        Parameter(name="BITS", distribution="categorical", domain=Choices((4, 6, 8))),
    ]
)


def truth(rate: float, bits: int) -> float:
    return 1.2 + 0.2 * (rate - 0.5) ** 2 + {4: 0.05, 6: 0.01, 8: 0.0}[bits]


def trials(count: int, noise: float = 0.002) -> list[TrialRecord]:
    rng = random.Random(0)
    found = []
    for number in range(count):
        rate, bits = rng.random(), rng.choice([4, 6, 8])
        found.append(
            TrialRecord(
                number=number,
                outcome=State.COMPLETED,
                knobs={"RATE": rate, "BITS": bits, "SEED": 1},
                val_bpb=truth(rate, bits) + rng.gauss(0, noise),
                headroom_bytes=100,
            )
        )
    return found


def test_the_posterior_is_nearer_to_the_truth_than_the_luckiest_score() -> None:
    records = trials(40)
    found = posteriors(SPACE, records)
    best = min(records, key=lambda record: record.val_bpb or 9.0)
    level = truth(best.knobs["RATE"], best.knobs["BITS"])
    assert abs(found[best.number].mean - level) < abs((best.val_bpb or 9.0) - level)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    records = trials(60)
    found = posteriors(SPACE, records)
    held = [
        found[r.number].low <= truth(r.knobs["RATE"], r.knobs["BITS"]) <= found[r.number].high
        for r in records
    ]
    assert sum(held) >= 0.8 * len(held)


def test_only_trials_near_the_best_are_tied_with_it() -> None:
    records = trials(40)
    found = posteriors(SPACE, records)
    tied = [r for r in records if found[r.number].tied]
    assert 1 <= len(tied) < 20
    assert all(truth(r.knobs["RATE"], r.knobs["BITS"]) < 1.22 for r in tied)


def test_the_order_is_that_of_all_scores_and_a_second_seed_is_no_trial_of_its_own() -> None:
    records = trials(40, noise=0.01)
    found = posteriors(SPACE, records)
    order = [record.number for record in ranked(records, found)]
    assert order == sorted(order, key=lambda number: (found[number].mean, number))
    assert order != [record.number for record in ranked(records)], (
        "luck decides among so noisy ones"
    )
    first = records[order[0]]
    again = replace(first, number=40, knobs={**first.knobs, "SEED": 2}, seed=2, parent=first.number)
    both = [*records, again]
    assert second_seeds(both) == {40: first.number}
    assert 40 not in {record.number for record in ranked(both, found)}
    assert 40 in posteriors(SPACE, both), "its score says something of the configuration"


def test_another_seed_tells_the_best_from_what_is_behind_and_not_from_its_like() -> None:
    records = trials(40)
    leader = ranked(records, posteriors(SPACE, records))[0]
    like = {**leader.knobs, "RATE": leader.knobs["RATE"] + 1e-3}
    records.append(replace(leader, number=40, knobs=like))
    found = posteriors(SPACE, records)
    best, second = ranked(records, found)[:2]
    assert {best.number, second.number} == {leader.number, 40}
    assert found[best.number].decided is None
    assert found[second.number].tied
    assert found[second.number].decided < 0.5
    assert max(p.decided for p in found.values() if not p.tied) > 0.99


def test_a_score_that_is_too_bad_for_the_model_stays_bad() -> None:
    records = trials(8)
    records.append(
        replace(records[0], number=8, knobs={**records[0].knobs, "RATE": 0.9}, val_bpb=3)
    )
    found = posteriors(SPACE, records)
    assert found[8].mean > 2.9
    assert not found[8].tied


def test_few_trials_and_duplicates_say_nothing() -> None:
    assert posteriors(SPACE, trials(4)) == {}
    records = trials(8)
    twin = TrialRecord(
        number=9, outcome=State.COMPLETED, knobs=records[0].knobs, val_bpb=1.0, duplicate_of=0
    )
    assert 9 not in posteriors(SPACE, [*records, twin])


@pytest.mark.parametrize(
    ("rules", "metric", "expected"),
    [
        ("parameter-golf-2026", "val_bpb", 0.0007),
        ("demo", "val_bpb", 0.015),
        ("none", "reward", None),
    ],
)
def test_the_rules_say_what_seeds_are_expected_to_do(tmp_path, rules, metric, expected):
    sweep = {
        "program": "trainer" if metric == "val_bpb" else "train.py",
        "method": "bayes",
        "metric": {"name": metric, "goal": "minimize"},
        "parameters": {"MATRIX_LR": {"min": 0.01, "max": 0.1}},
        "pgolf": {"rules": rules},
    }
    spec = parse_spec(yaml.safe_dump(sweep), tmp_path / "s.yaml")
    assert expected_noise(spec) == expected


def test_few_trials_that_agree_by_chance_are_no_surer_than_the_seeds_that_are_expected():
    records = trials(10, noise=0.0)

    def width(noise):
        found = posteriors(SPACE, records, noise)
        return sum(one.high - one.low for one in found.values())

    assert width(0.015) > 5 * width(0.0007)
    assert width(None) > 2 * width(0.0007), "a share of the scores' spread"


def test_one_who_looks_again_gets_a_new_fit_only_now_and_then() -> None:
    records, now = trials(20), 0.0
    judge = Posteriors(SPACE, 0.002, clock=lambda: now)
    assert judge.look(records[:10]) == posteriors(SPACE, records[:10], 0.002)
    now = LEAST_SECONDS / 2
    assert len(judge.look(records)) == 10, "too soon"
    now = 1e6
    assert judge.look(records) == posteriors(SPACE, records, 0.002)
    now *= 2
    assert judge.look(records) is judge.found


def test_best_of_one_who_looks_again_is_that_of_all_rows() -> None:
    records = trials(20)
    judge = Posteriors(SPACE, 0.002)
    by_score = ranked(records)[0]
    assert judge.best(by_score) == by_score
    found = judge.look(records)
    assert judge.best(by_score) == ranked(records, found)[0]
    newest = replace(by_score, number=20, val_bpb=1.0)
    assert judge.best(newest) == newest
