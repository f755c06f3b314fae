from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf_sweep.gate.calibration import Calibration, student_quantile
from pgolf_sweep.gate.priors import guess

BYTES = 1000.0
CODECS = ("zlib", "zstd", "lzma")


def traits(codec: str, *, blocks: float = 300_000, family: str = "f") -> dict[str, float]:
    return {"blocks": blocks, f"blocks {codec}": blocks, f"blocks {codec}/{family}": blocks}


def width(calibration: Calibration, worth: dict[str, float], configuration: str) -> float:
    shift = calibration.shift(worth, BYTES, configuration)
    return shift.quantile(0.995) - shift.quantile(0.005)


def test_before_anything_is_measured_the_guesses_stand():
    worth = traits("zlib")
    shift = Calibration().shift(worth, BYTES, "a")
    means, spreads = zip(*(guess(name) for name in worth), strict=True)
    assert shift.mean == pytest.approx(300_000 * sum(means))
    known = (300_000 * spreads[0]) ** 2 + (300_000 * spreads[1]) ** 2 + (300_000 * spreads[2]) ** 2
    assert shift.sd**2 == pytest.approx(0.6 * (known + BYTES**2))  # Student's, of that variance
    assert shift.trials == 0


def test_what_was_measured_moves_relatives_in_order_of_kinship():
    calibration = Calibration()
    before = {c: calibration.shift(traits(c), BYTES, "x").mean for c in ("zlib", "lzma")}
    for name in "abc":
        calibration.learn(traits("zlib"), BYTES, name, before["zlib"] - 20_000)

    def moved(codec: str, configuration: str) -> float:
        return calibration.shift(traits(codec), BYTES, configuration).mean - before[codec]

    assert moved("zlib", "a") < moved("lzma", "x") < -1000
    assert moved("zlib", "x") < moved("lzma", "x")
    assert moved("zlib", "a") == pytest.approx(-20_000, rel=0.05)


def test_the_interval_narrows_with_knowledge_and_widens_without():
    calibration = Calibration()
    prior = width(calibration, traits("zlib"), "a")
    rng = random.Random(0)
    for i in range(10):
        calibration.learn(traits("zlib"), BYTES, f"c{i}", rng.gauss(2000, 500))
    family = width(calibration, traits("zlib"), "a")
    calibration.learn(traits("zlib"), BYTES, "a", 2000)
    calibration.learn(traits("zlib"), BYTES, "a", 2100)
    assert width(calibration, traits("zlib"), "a") < family < prior
    assert width(calibration, traits("brotli"), "a2") > family


def test_errors_larger_than_guessed_widen_what_is_expected_of_strangers():
    calm, wild = Calibration(), Calibration()
    for i in range(12):
        calm.learn(traits(CODECS[i % 3]), BYTES, f"c{i}", 0.0)
        wild.learn(traits(CODECS[i % 3]), BYTES, f"c{i}", 30_000.0 * (-1) ** i)
    assert width(wild, traits("brotli"), "x") > 2 * width(calm, traits("brotli"), "x")


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_coverage_is_what_is_claimed_when_the_world_is_the_model(confidence):
    rng = random.Random(1)
    inside = total = 0
    for _ in range(150):
        truth = {name: rng.gauss(*guess(name)) for codec in CODECS for name in traits(codec)}
        calibration = Calibration()
        for step in range(20):
            worth = traits(rng.choice(CODECS), blocks=rng.uniform(1e5, 5e5))
            error = sum(truth[name] * value for name, value in worth.items())
            error += rng.gauss(0, BYTES)
            shift = calibration.shift(worth, BYTES, f"c{step}")
            tail = (1 - confidence) / 2
            inside += shift.quantile(tail) <= error <= shift.quantile(1 - tail)
            total += 1
            calibration.learn(worth, BYTES, f"c{step}", error)
    # Heavier tails are claimed than this Gaussian world has: narrower at 90 %, wider at 99 %.
    assert -0.045 < inside / total - confidence < 0.02


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(CODECS), st.sampled_from("abc"), st.floats(-1e6, 1e6)),
        max_size=20,
    )
)
def test_every_history_leaves_a_finite_answer(trials):
    calibration = Calibration()
    for codec, configuration, error in trials:
        calibration.learn(traits(codec), BYTES, configuration + codec, error)
    assert calibration.trials == len(trials)
    for codec in CODECS:
        shift = calibration.shift(traits(codec), BYTES, "a" + codec)
        assert math.isfinite(shift.mean)
        assert shift.sd > 0
        assert shift.quantile(0.005) < shift.quantile(0.5) < shift.quantile(0.995)


def test_what_is_not_a_number_is_not_learnt():
    calibration = Calibration()
    calibration.learn(traits("zlib"), BYTES, "a", float("nan"))
    calibration.learn(traits("zlib"), BYTES, "a", float("inf"))
    assert calibration.trials == 0


def test_student_quantiles_are_the_published_ones():
    published = {0.05: -2.01505, 0.5: 0.0, 0.995: 4.03214, 0.9995: 6.86883, 0.99995: 11.17771}
    for p, quantile in published.items():
        assert student_quantile(p) == pytest.approx(quantile, rel=1e-5, abs=1e-9)


def test_a_measured_configuration_is_expected_where_it_was_measured_when_predictions_move():
    calibration = Calibration()
    calibration.learn(traits("zlib"), BYTES, "a", 1_000.0, expected=100_000.0)
    moved = 110_000.0
    shift = calibration.shift(traits("zlib"), BYTES, "a", expected=moved)
    assert moved + shift.mean == pytest.approx(101_000.0, rel=0.02)
