from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pgolf_sweep.core.errors import InputError, PromotionError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.launch.inline import Finish, InlineLauncher
from pgolf_sweep.promote.race import RacePlan, RaceResult, leader_and_p, plan_race, race

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.promotions import Bench

    from pgolf_sweep.launch.base import Job
    from pgolf_sweep.promote.seeds import JobFactory
    from pgolf_sweep.submission.evidence import Candidate

NOISE = 0.0007
"""Std of val_bpb between seeds of one configuration in the contest."""


def planned_race(bench: Bench, count: int = 3, *, first: int = 0, **options: Any) -> RacePlan:
    contenders = [bench.candidate(number) for number in range(first, first + count)]
    given = {"confidence": 0.95, "most_seeds": 6, "min_seeds": 2, "seconds_each": 900.0, "gpus": 8}
    return plan_race(contenders, **{**given, **options})


def run_race(bench: Bench, planned: RacePlan, means: Mapping[int, float]) -> RaceResult:
    """A race in which contender n scores means[n] plus noise of the contest's size."""

    def simulate(job: Job) -> Iterator[tuple[float, Finish]]:
        seed, number = int(job.spec.env["SEED"]), job.spec.number
        bench.started.append((seed, number))
        bench.log_options = {
            "val_bpb": means[number] + random.Random(seed).gauss(0, NOISE),
            "model_bytes": 200_000 if means[number] < 9 else 400_000,
        }
        yield 60.0, bench.finish(seed, len(job.files["train_gpt.py"]))

    def jobs(contender: Candidate) -> JobFactory:
        def make(**given: Any) -> Job:
            job = bench.job(**given)
            return replace(job, spec=replace(job.spec, number=contender.number))

        return make

    return race(
        planned,
        make_plan=lambda contender, seeds: bench.plan(contender.number, seeds=seeds),
        jobs=jobs,
        launcher=InlineLauncher(4, simulate, bench.clock),
        clock=bench.clock,
        evidence=bench.root / "promotion" / "race.json",
        broken=bench.broken,
    )


def test_clear_winner_is_found_in_the_first_round(bench: Bench) -> None:
    planned = planned_race(bench)
    result = run_race(bench, planned, {0: 1.30, 1: 1.20, 2: 1.25})
    assert (result.winner.number, result.confident, result.runs) == (1, True, 6)
    assert result.summary[0].startswith(
        "trial 0 (search 1.19000): out: mean 1.29962 on 2 seeds, p = "
    )
    assert read_json(bench.root / "promotion" / "race.json")["winner"] == 1


def test_close_contenders_get_more_seeds_and_nobody_is_run_in_vain(bench: Bench) -> None:
    planned = planned_race(bench)
    result = run_race(bench, planned, {0: 1.2000, 1: 1.2030, 2: 1.4})
    by_trial = [number for _, number in bench.started]
    assert result.winner.number == 0
    assert by_trial.count(2) == 2  # out after the first round
    assert 2 < by_trial.count(0) <= 6
    assert len(set(bench.started)) == len(bench.started) == result.runs


def test_equals_are_not_told_apart_and_the_spending_is_capped(bench: Bench) -> None:
    planned = planned_race(bench, 2, most_seeds=4)
    result = run_race(bench, planned, {0: 1.2, 1: 1.2})
    assert result.runs == planned.most_runs == 8
    assert not result.confident
    assert len(result.tied) == 1
    assert any("not told apart" in line for line in result.summary)


def test_finished_seeds_of_a_race_are_not_run_again(bench: Bench) -> None:
    planned = planned_race(bench, 2, most_seeds=4)
    first = run_race(bench, planned, {0: 1.2, 1: 1.2})
    ran = len(bench.started)
    again = run_race(bench, planned, {0: 1.2, 1: 1.2})
    assert (again, len(bench.started)) == (first, ran)


def test_contender_that_breaks_a_rule_is_out(bench: Bench) -> None:
    planned = planned_race(bench, 2)
    result = run_race(bench, planned, {0: 9.0, 1: 1.2})
    assert result.winner.number == 1
    assert "bytes; expected <= 300,000 bytes" in result.summary[0]
    assert not list((bench.root / "promotion").rglob(".*"))  # no staged folder is left
    with pytest.raises(PromotionError, match="no contender"):
        run_race(bench, planned_race(bench, first=2, count=2), {2: 9.0, 3: 9.0})


def test_wrong_winners_are_rarer_than_the_confidence_allows() -> None:
    rng = random.Random(5)
    wrong = 0
    for _ in range(400):
        scores = {0: [rng.gauss(1.2, NOISE)], 1: [rng.gauss(1.2, NOISE)]}
        for _ in range(5):
            for values in scores.values():
                values.append(rng.gauss(1.2, NOISE))
            _, p_values = leader_and_p(scores)
            if min(p_values.values()) < 0.05 / 5:
                wrong += 1  # equals were told apart
                break
    assert wrong / 400 < 0.1  # either may lead, so twice the one-sided level


def test_leader_needs_a_spread_to_be_sure() -> None:
    leader, p_values = leader_and_p({3: [1.0], 4: [1.1]})
    assert (leader, p_values) == (3, {4: 0.5})
    assert leader_and_p({3: [1.0, 1.0], 4: [1.1, 1.1]}) == (3, {4: 0.0})
    assert leader_and_p({3: [1.0, 1.0], 4: [1.0, 1.0]}) == (3, {4: 0.5})


def test_spending_is_said_before(bench: Bench) -> None:
    planned = planned_race(bench, min_seeds=3)
    assert (planned.least_runs, planned.most_runs) == (7, 18)
    assert "7 to 18 runs on fresh seeds, 14.00 to 36.00 GPU-hours" in str(planned)
    with pytest.raises(InputError, match="two contenders"):
        planned_race(bench, 1)
    with pytest.raises(InputError, match="too few seeds"):
        planned_race(bench, most_seeds=2, min_seeds=3)


def test_readme_tells_of_the_race(bench: Bench) -> None:
    result = run_race(bench, planned_race(bench, 2), {7: 1.2, 0: 1.2, 1: 1.3})
    bench.log_options = {}
    done = bench.promote(race=result)
    text = (done.folder / "README.md").read_text()
    assert "chosen in a race of 2 trials on fresh seeds" in text
    assert result.summary[1] in text


def test_second_seeds_of_the_search_spare_a_fresh_one_and_decide(bench: Bench) -> None:
    plain = planned_race(bench, 2, most_seeds=3)
    contenders = [
        replace(bench.candidate(number), second_seeds=(level,))
        for number, level in enumerate([1.19, 1.2])
    ]
    given = {"confidence": 0.95, "most_seeds": 3, "min_seeds": 2, "seconds_each": 900.0, "gpus": 8}
    planned = plan_race(contenders, **given)
    assert (plain.first_seeds, planned.first_seeds) == (2, 1)
    assert planned.least_runs == plain.least_runs - 1
    found = run_race(bench, planned, {0: 1.19, 1: 1.2})
    assert found.winner.number == 0
    assert "1 of them the search's" in found.summary[0]
    document = read_json(bench.root / "promotion" / "race.json")
    assert document["second_seeds"] == {"0": [1.19], "1": [1.2]}
    assert found.seeds == document["rounds"][-1]["seeds"], "fresh ones"
