from __future__ import annotations

import numpy as np
import pytest

from trainer.config import TrainerError
from trainer.quantize import (
    Quantized,
    dequantize,
    dequantize_all,
    gptq,
    quantize,
    quantize_all,
    tensor_bits,
)

RULES = ("rowmax", "percentile", "sdclip", "mse")
BITS = (4, 5, 6, 7, 8)


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((24, 96)) * rng.uniform(0.01, 0.1, (24, 1))).astype(np.float32)


def squared_error(config, weights, bits):
    return float(np.square(dequantize(quantize(config, weights, bits)) - weights).sum())


@pytest.mark.parametrize("bits", BITS)
def test_error_of_rowmax_is_within_half_a_step(tiny_config, weights, bits):
    stored = quantize(tiny_config(), weights, bits)
    steps = stored.steps.astype(np.float32)[:, None]
    # A tenth more: a float16 step may be a little short of the row's largest value.
    assert (np.abs(dequantize(stored) - weights) <= 0.55 * steps).all()
    assert np.abs(stored.codes).max() == 2 ** (bits - 1) - 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", BITS)
def test_error_within_the_clip_is_within_half_a_step(tiny_config, weights, rule, bits):
    stored = quantize(tiny_config(QUANT_SCALE=rule, CLIP_SIGMAS=2.5), weights, bits)
    steps = stored.steps.astype(np.float32)[:, None]
    inside = np.abs(weights) <= (2 ** (bits - 1) - 1) * steps
    error = np.abs(dequantize(stored) - weights)
    assert (error <= 0.5 * steps + 1e-7)[inside].all()
    assert inside.mean() > 0.95


def test_mse_is_the_best_rule_at_few_bits(tiny_config, weights):
    for bits in (4, 5):
        errors = {r: squared_error(tiny_config(QUANT_SCALE=r), weights, bits) for r in RULES}
        assert min(errors, key=errors.__getitem__) == "mse"


def test_more_bits_are_closer(tiny_config, weights):
    errors = [squared_error(tiny_config(), weights, bits) for bits in BITS]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [1e30, 1e7, np.inf, np.nan])
def test_steps_that_do_not_fit_float16_are_refused(tiny_config, rule, value):
    weights = np.full((3, 8), value, np.float32)
    with pytest.raises(TrainerError, match="a step of a matrix does not fit float16"):
        quantize(tiny_config(QUANT_SCALE=rule), weights, 6)


def test_step_of_sdclip_may_be_too_large_where_the_weights_fit(tiny_config):
    weights = np.full((3, 8), 31 * 60_000, np.float32)
    quantize(tiny_config(QUANT_SCALE="rowmax"), weights, 6)
    with pytest.raises(TrainerError, match="does not fit float16"):
        quantize(tiny_config(QUANT_SCALE="sdclip", CLIP_SIGMAS=2.0), weights, 6)


@pytest.mark.parametrize("rule", RULES)
def test_a_row_of_zeros_stays_zero(tiny_config, rule):
    stored = quantize(tiny_config(QUANT_SCALE=rule), np.zeros((3, 8), np.float32), 6)
    assert not dequantize(stored).any()


def test_bits_follow_the_tensors_group(tiny_config):
    config = tiny_config(MATRIX_BITS=6, MLP_BITS=5, EMBED_BITS=7)
    names = {
        "embed.weight": 7,
        "head.weight": 7,
        "blocks.0.attn.q.weight": 6,
        "blocks.0.mlp.up.weight": 5,
        "blocks.0.resid_mix": 16,
        "skip_scale": 16,
    }
    assert {name: tensor_bits(config, name, 2) for name in names} == names
    assert tensor_bits(config, "blocks.0.attn.q_scale", 1) == 16


def test_all_tensors_are_stored_in_order(tiny_config, weights):
    given = {"embed.weight": weights, "skip_scale": weights[:2], "blocks.0.mlp.up.weight": weights}
    stored = quantize_all(tiny_config(MATRIX_BITS=5), given)
    assert list(stored) == list(given)
    kinds = [t.bits if isinstance(t, Quantized) else str(t.dtype) for t in stored.values()]
    assert kinds == [8, "float16", 5]


def test_clips_follow_the_tensors_group(tiny_config, weights):
    config = tiny_config(
        QUANT_SCALE="sdclip", CLIP_SIGMAS=8, MLP_CLIP_SIGMAS=6, EMBED_CLIP_SIGMAS=9
    )
    deviation = np.sqrt(np.square(weights).mean(axis=1))
    for name, clip in (("embed", 9), ("head", 9), ("blocks.0.attn.q", 8), ("blocks.0.mlp.up", 6)):
        steps = quantize(config, weights, 6, f"{name}.weight").steps
        assert np.array_equal(steps, (np.float32(clip) * deviation / 31).astype(np.float16))


def correlated(columns, count=2000):
    """Inputs of a layer whose channels go along with each other, [count, columns]."""
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / columns * 4)
    return (rng.standard_normal((count, columns)) @ mixing.T).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 5, 6])
@pytest.mark.parametrize("columns", [24, 300])  # within a block, and over several
@pytest.mark.parametrize("scale", ["rowmax", "sdclip"])
def test_gptq_moves_the_layers_output_less_than_rounding(tiny_config, bits, columns, scale):
    config = tiny_config(QUANT_SCALE=scale, CLIP_SIGMAS=4)
    weights = np.random.default_rng(0).standard_normal((40, columns)).astype(np.float32)
    inputs = correlated(columns)
    nearest = quantize(config, weights, bits)
    found = gptq(config, weights, inputs.T @ inputs, bits, "a matrix")
    assert np.array_equal(found.steps, nearest.steps)
    assert np.abs(found.codes.astype(int)).max() <= 2 ** (bits - 1) - 1

    def moved(stored):
        return np.square(inputs @ (dequantize(stored) - weights).T).sum()

    assert moved(found) < 0.7 * moved(nearest)


def test_gptq_of_independent_inputs_is_rounding(tiny_config, weights):
    found = gptq(tiny_config(), weights, np.eye(weights.shape[1]) * 7, 6, "a matrix")
    assert np.array_equal(found.codes, quantize(tiny_config(), weights, 6).codes)


def test_gptq_survives_channels_that_are_never_used(tiny_config, weights):
    inputs = correlated(weights.shape[1])
    inputs[:, 3:6] = 0
    found = gptq(tiny_config(), weights, inputs.T @ inputs, 6, "a matrix")
    assert not found.codes[:, 3:6].any()
    assert np.isfinite(dequantize(found)).all()


def test_a_low_rank_correction_takes_away_the_largest_errors(tiny_config):
    rng = np.random.default_rng(0)
    weights = {
        f"blocks.{index}.mlp.up.weight": rng.standard_normal((48, 32)).astype(np.float32) * size
        for index, size in enumerate((1.0, 9.0, 3.0))
    }
    weights["skip_scale"] = np.ones((2, 4), np.float32)
    plain = dequantize_all(quantize_all(tiny_config(MATRIX_BITS=4), weights))
    config = tiny_config(MATRIX_BITS=4, LQER_RANK=4, LQER_TOP_K=2)
    stored = quantize_all(config, weights)
    corrected = dequantize_all(stored)
    assert list(corrected) == list(weights)
    assert [name for name in stored if name.endswith(".left")] == [
        "blocks.1.mlp.up.weight.left",
        "blocks.2.mlp.up.weight.left",
    ]
    for name, tensor in weights.items():
        before, after = (
            float(np.square(found[name] - tensor).sum()) for found in (plain, corrected)
        )
        if name.startswith(("blocks.1", "blocks.2")):
            assert after < 0.9 * before
        else:
            assert after == before
