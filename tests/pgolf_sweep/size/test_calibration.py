from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf_sweep.size.calibration import Calibration, Spread, student_quantile

SPREAD = Spread(program=0.1, family=0.05, configuration=0.03, seed=0.005)


def width(calibration: Calibration, family: str, configuration: str) -> float:
    shift = calibration.shift(family, configuration)
    return shift.quantile(0.995) - shift.quantile(0.005)


def test_before_anything_is_measured_the_prior_stands():
    shift = Calibration(SPREAD).shift("zlib", "a")
    assert shift.mean == 0
    assert shift.sd**2 == pytest.approx(0.1**2 + 0.05**2 + 0.03**2 + 0.005**2)
    assert shift.trials == shift.relatives == 0


def test_what_was_measured_moves_relatives_in_order_of_kinship():
    calibration = Calibration(SPREAD)
    for _ in range(3):
        calibration.learn("zlib", "a", -0.2)
    same = calibration.shift("zlib", "a").mean
    cousin = calibration.shift("zlib", "b").mean
    stranger = calibration.shift("lzma", "a").mean
    assert same < cousin < stranger < 0
    assert same == pytest.approx(-0.2, abs=0.01)


def test_the_interval_narrows_with_knowledge_and_widens_without():
    calibration = Calibration(SPREAD)
    prior = width(calibration, "zlib", "a")
    rng = random.Random(0)
    for i in range(10):
        calibration.learn("zlib", f"c{i}", rng.gauss(0.02, 0.01))
    family = width(calibration, "zlib", "a")
    calibration.learn("zlib", "a", 0.02)
    calibration.learn("zlib", "a", 0.021)
    assert width(calibration, "zlib", "a") < family < prior
    assert width(calibration, "other", "a") > family


def test_families_that_disagree_widen_what_is_expected_of_a_new_one():
    agree, disagree = Calibration(SPREAD), Calibration(SPREAD)
    for i in range(6):
        agree.learn(f"f{i}", "a", 0.0)
        disagree.learn(f"f{i}", "a", 0.3 * (-1) ** i)
    assert width(disagree, "new", "a") > 2 * width(agree, "new", "a")


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_coverage_is_what_is_claimed_when_the_world_is_the_model(confidence):
    rng = random.Random(1)
    inside = total = 0
    for _ in range(120):
        world = rng.gauss(0, SPREAD.program)
        families = [world + rng.gauss(0, SPREAD.family) for _ in range(3)]
        calibration = Calibration(SPREAD)
        for step in range(25):
            family = rng.randrange(3)
            truth = families[family] + rng.gauss(0, SPREAD.configuration)
            truth += rng.gauss(0, SPREAD.seed)
            shift = calibration.shift(str(family), f"c{step}")
            tail = (1 - confidence) / 2
            inside += shift.quantile(tail) <= truth <= shift.quantile(1 - tail)
            total += 1
            calibration.learn(str(family), f"c{step}", truth)
    assert confidence - 0.01 <= inside / total <= confidence + 0.025


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("fgh"), st.sampled_from("abc"), st.floats(-3, 3)), max_size=20
    )
)
def test_state_survives_json_and_gives_the_same_answers(trials):
    calibration = Calibration(SPREAD)
    for family, configuration, ratio in trials:
        calibration.learn(family, configuration, ratio)
    again = Calibration.from_state(json.loads(json.dumps(calibration.state())), SPREAD)
    assert again.trials == calibration.trials == len(trials)
    for family in "fghx":
        mine, theirs = calibration.shift(family, "a"), again.shift(family, "a")
        assert theirs.mean == pytest.approx(mine.mean, abs=1e-9)
        assert theirs.sd == pytest.approx(mine.sd, rel=1e-9)
        assert theirs.sd > 0


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"families": 3},
        {"families": {"f": []}},
        {"families": {"f": {"a": "x"}}},
        {"families": {"f": {"a": [None, float("nan"), True]}}},
    ],
)
def test_a_state_that_does_not_read_is_no_knowledge(state):
    assert Calibration.from_state(state, SPREAD).trials == 0


def test_what_is_not_a_number_is_not_learnt():
    calibration = Calibration(SPREAD)
    calibration.learn("f", "a", float("nan"))
    calibration.learn("f", "a", float("inf"))
    assert calibration.trials == 0


def test_student_quantiles_are_the_published_ones():
    assert student_quantile(0.995, 4) == pytest.approx(4.604, rel=0.015)
    assert student_quantile(0.995, 10) == pytest.approx(3.169, rel=0.002)
    assert student_quantile(0.05, 5) == pytest.approx(-2.015, rel=0.002)
