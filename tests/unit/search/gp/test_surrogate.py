"""The Gaussian process: its gradient, what it interpolates, what believers change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from pgolf_sweep.search.gp.acquisition import log_expected_improvement
from pgolf_sweep.search.gp.feasible import Judged, Limit
from pgolf_sweep.search.gp.surrogate import (
    Surrogate,
    negative_log_posterior,
    priors,
    quadratic_features,
)


def sample(count: int, inputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((count, inputs))
    return x, np.sin(3 * x[:, 0]) + x[:, 1] ** 2 + 0.01 * rng.standard_normal(count)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_is_that_of_central_differences(seed: int) -> None:
    x, y = sample(25, 4, seed)
    squares = (x.T[:, :, None] - x.T[:, None, :]) ** 2
    phi = quadratic_features(x)
    extra = np.where(np.arange(25) < 5, 0.1, 0.0)
    prior = priors(4, 0.05)
    groups = np.arange(25) // (1 + seed)
    shared = np.where(groups[:, None] == groups, 0.9, 0.0) + 0.1 * np.eye(25)
    fixed = (squares, phi @ phi.T, (y - y.mean()) / y.std(), extra, prior, shared)
    theta = prior.means + np.random.default_rng(seed).standard_normal(7) * 0.5
    _, gradient = negative_log_posterior(theta, *fixed)
    step = 1e-5
    for at in range(len(theta)):
        moved = np.zeros(7)
        moved[at] = step
        above, _ = negative_log_posterior(theta + moved, *fixed)
        below, _ = negative_log_posterior(theta - moved, *fixed)
        assert gradient[at] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-4)


def test_it_predicts_what_it_has_not_seen_and_knows_how_well() -> None:
    x, y = sample(60, 3)
    model = Surrogate(x, y, noise=0.01)
    model.condition(model.fit([model.prior.means]))
    new, truth = sample(200, 3, seed=9)
    mean, sd = model.posterior(new)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.05
    assert np.mean(np.abs(mean - truth) < 3 * np.hypot(sd, model.noise)) > 0.95


def test_what_runs_narrows_the_model_there_and_moves_nothing() -> None:
    x, y = sample(20, 3)
    model = Surrogate(x, y, noise=0.01)
    theta = model.fit([model.prior.means])
    model.condition(theta)
    point = np.array([[0.95, 0.05, 0.95]])
    mean, sd = model.posterior(point)
    model.condition(theta, point)
    believed_mean, believed_sd = model.posterior(point)
    assert believed_mean == pytest.approx(mean, abs=1e-6)
    assert believed_sd < 0.5 * sd


def test_log_expected_improvement_is_the_integral_and_never_minus_infinity() -> None:
    for z in (-4.0, -1.001, -0.999, 0.0, 3.0):
        exact = np.log(norm.pdf(z) + z * norm.cdf(z))
        found = log_expected_improvement(np.array([-z]), np.array([1.0]), 0.0)
        assert found[0] == pytest.approx(exact, rel=1e-7)
    far = log_expected_improvement(np.array([1e3, 1e6, 1e9]), np.ones(3), 0.0)
    assert np.isfinite(far).all()
    assert (np.diff(far) < 0).all()


def test_a_limit_is_known_everywhere_from_a_few_hundred_answers() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((300, 5))

    def excess(points: np.ndarray) -> np.ndarray:
        width, depth = 1 + points[:, 0], 7 + 7 * points[:, 1]
        return np.log(depth * width**2 * (4 + 4 * points[:, 2]) / 100)

    judged = [Judged(1.0, float(at), float(at)) for at in excess(x)]
    limit = Limit(x, judged)
    new = rng.random((500, 5))
    truth = excess(new)
    near = np.abs(truth) < 0.2
    assert limit.excess is not None
    assert np.abs(limit.excess(new)[near] - truth[near]).max() < 0.03
    assert limit.derived(new).shape == (500, 1)


def test_values_that_share_their_noise_teach_less():
    rng = np.random.default_rng(3)
    x = np.vstack([rng.random((12, 2)), np.repeat([[0.3, 0.6]], 4, axis=0)])
    y = x.sum(1) + 0.1 * rng.standard_normal(16)
    sds = []
    for groups in (None, [*range(12), 12, 12, 12, 12]):
        model = Surrogate(x, y, noise=0.1, groups=groups)
        model.condition(model.prior.means)
        sds.append(float(model.posterior(x[-1:])[1][0]))
    assert sds[1] > 1.2 * sds[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_with_rungs_the_gradient_is_that_of_central_differences(seed: int) -> None:
    x, y = sample(24, 3, seed)
    squares = (x.T[:, :, None] - x.T[:, None, :]) ** 2
    phi = quadratic_features(x)
    prior = priors(3, 0.05, rungs=True)
    below = np.arange(24.0) % 3
    fixed = (squares, phi @ phi.T, (y - y.mean()) / y.std(), np.zeros(24), prior, np.eye(24), below)
    theta = prior.means + np.random.default_rng(seed).standard_normal(8) * 0.5
    _, gradient = negative_log_posterior(theta, *fixed)
    for at in range(len(theta)):
        moved = 1e-5 * (np.arange(8) == at)
        high, _ = negative_log_posterior(theta + moved, *fixed)
        low, _ = negative_log_posterior(theta - moved, *fixed)
        assert gradient[at] == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-4)


def on_rungs(y: np.ndarray, short: np.ndarray, x: np.ndarray) -> Surrogate:
    """A model of all short values and every fifth whole one."""
    few = x[::5]
    both = np.vstack(
        [np.hstack([x, np.ones((len(x), 1))]), np.hstack([few, np.zeros((len(few), 1))])]
    )
    model = Surrogate(both, np.concatenate([short, y[::5]]), noise=0.01, rungs=True)
    model.condition(model.fit([model.prior.means]))
    return model


def test_a_faithful_rung_tells_of_the_other_whatever_its_level() -> None:
    x, y = sample(60, 3)
    model = on_rungs(y, y + 5.0, x)
    new, truth = sample(100, 3, seed=9)
    mean, _ = model.posterior(np.hstack([new, np.zeros((100, 1))]))
    assert model.agreement > 0.9
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.1
    short, _ = model.posterior(np.hstack([new, np.ones((100, 1))]))
    assert np.sqrt(np.mean((short - 5.0 - truth) ** 2)) < 0.1


def test_a_score_of_what_led_below_is_not_taken_for_the_level_of_all() -> None:
    x, y = sample(24, 6)
    first = [int(np.argmin(y))]
    rows = np.vstack([np.hstack([x, np.ones((24, 1))]), np.hstack([x[first], np.zeros((1, 1))])])
    model = Surrogate(rows, np.concatenate([y + 5.0, y[first]]), noise=0.01, rungs=True)
    model.condition(model.fit([model.prior.means]))
    new, truth = sample(100, 6, seed=9)
    mean, _ = model.posterior(np.hstack([new, np.zeros((100, 1))]))
    assert abs(np.mean(mean - truth)) < 0.5 * y.std()


def test_what_a_configuration_has_of_its_own_shows_in_all_its_repeats() -> None:
    x, y = sample(40, 3)
    own = 0.3
    x = np.vstack([x, x[:1], x[:1]])
    y = np.concatenate([[y[0] + own], y[1:] + 0.05 * np.cos(50 * x[1:40, 2]), [y[0] + own] * 2])
    same = [*range(40), 0, 0]
    model = Surrogate(x, y, noise=0.01)
    model.condition(model.fit([model.prior.means]))
    assert model.noise > 0.02
    assert 0.01 < model.repeats < model.noise
    smooth, _ = model.posterior(x)
    mean, covariance = model.tried(same)
    assert abs(mean[0] - y[0]) < abs(smooth[0] - y[0])
    assert mean[0] == pytest.approx(mean[-1])
    assert covariance[0, 0] == pytest.approx(covariance[0, -1])
    assert covariance[0, 0] < covariance[1, 1], "three scores know more than one"


def test_without_noise_beyond_the_expected_a_configuration_has_nothing_of_its_own() -> None:
    x, y = sample(30, 3)
    for noise in (0.5, None):
        model = Surrogate(x, y, noise=noise)
        model.condition(model.fit([model.prior.means]))
        mean, covariance = model.tried(range(30))
        smooth, sd = model.posterior(x)
        assert mean == pytest.approx(smooth)
        assert np.sqrt(np.diag(covariance)) == pytest.approx(sd, rel=1e-4, abs=1e-5)
        assert model.repeats == pytest.approx(model.noise)


def test_a_rung_that_has_nothing_to_do_with_the_other_is_found_out() -> None:
    x, y = sample(60, 3)
    model = on_rungs(y, np.sin(7 * x[:, 2]) - 2 * x[:, 1], x)
    assert model.agreement < 0.6
    pair = np.hstack([np.full((2, 3), 0.5), [[0.0], [1.0]]])
    whole, short = model.worth(pair)
    assert short < whole <= 1
