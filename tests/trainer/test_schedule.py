from __future__ import annotations

import pytest

from trainer.schedule import lr_scale, muon_momentum, should_stop


def curve(config, steps=100, seconds_per_step=0.0):
    return [lr_scale(config, step, step * seconds_per_step) for step in range(steps)]


def test_linear_warmdown_is_the_baselines(tiny_config):
    scales = curve(tiny_config(ITERATIONS=100, WARMDOWN_ITERS=20))
    assert scales[:81] == [1.0] * 81
    assert scales[81:] == pytest.approx([(100 - step) / 20 for step in range(81, 100)])


def test_wallclock_cap_measures_the_warmdown_in_mean_steps(tiny_config):
    config = tiny_config(ITERATIONS=20000, WARMDOWN_ITERS=20, MAX_WALLCLOCK_SECONDS=10)
    scales = curve(config, 100, seconds_per_step=0.1)
    assert scales[:80] == [1.0] * 80
    # At step s the rest of the time holds 100 - s steps, as if ITERATIONS were 100.
    assert scales[81:] == pytest.approx([(100 - step) / 20 for step in range(81, 100)])


def test_slower_steps_start_the_warmdown_at_an_earlier_step(tiny_config):
    config = tiny_config(ITERATIONS=20000, WARMDOWN_ITERS=20, MAX_WALLCLOCK_SECONDS=10)
    assert lr_scale(config, 40, 40 * 0.2) == pytest.approx(0.5)


def test_fraction_of_the_run_wins_over_iterations(tiny_config):
    config = tiny_config(ITERATIONS=100, WARMDOWN_ITERS=5, WARMDOWN_FRAC=0.5)
    assert lr_scale(config, 50, 0.0) == 1.0
    assert lr_scale(config, 75, 0.0) == pytest.approx(0.5)
    capped = tiny_config(ITERATIONS=20000, WARMDOWN_FRAC=0.5, MAX_WALLCLOCK_SECONDS=10)
    assert lr_scale(capped, 3, 7.5) == pytest.approx(0.5)


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.5), ("cosine", 0.5), ("wsd", 0.2929)])
def test_shapes_fall_from_one_to_the_floor(tiny_config, schedule, half):
    config = tiny_config(ITERATIONS=100, WARMDOWN_FRAC=1.0, LR_SCHEDULE=schedule, MIN_LR_FRAC=0.1)
    scales = curve(config, 101)
    assert scales[0] == 1.0
    assert scales[50] == pytest.approx(0.1 + 0.9 * half, abs=1e-4)
    assert scales[100] == pytest.approx(0.1)
    assert scales == sorted(scales, reverse=True)


def test_no_warmdown_is_constant_and_warmup_rises(tiny_config):
    scales = curve(tiny_config(ITERATIONS=10, WARMDOWN_ITERS=0, LR_WARMUP_STEPS=4), 10)
    assert scales == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_momentum_rises_to_its_full_value(tiny_config):
    config = tiny_config(MUON_MOMENTUM_WARMUP_STEPS=100)
    values = [muon_momentum(config, step) for step in (0, 50, 100, 500)]
    assert values == pytest.approx([0.85, 0.9, 0.95, 0.95])


def test_no_step_is_begun_that_would_end_past_the_cap(tiny_config):
    config = tiny_config(MAX_WALLCLOCK_SECONDS=10)
    assert not should_stop(config, 97, 9.7)
    assert should_stop(config, 99, 9.9)
    assert not should_stop(tiny_config(MAX_WALLCLOCK_SECONDS=0), 99, 1e9)


def test_min_lr_is_a_floor_as_records_write_it(tiny_config):
    config = tiny_config(ITERATIONS=100, WARMDOWN_FRAC=0.75, MIN_LR=0.1)
    wanted = [1.0] * 25 + [max((100 - step) / 75, 0.1) for step in range(25, 100)]
    assert curve(config) == pytest.approx(wanted)
