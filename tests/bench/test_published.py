"""The physics says what the contest's logs measured, and moves the way that training does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.published import row

from bench.gate.published import floored_bits, predict_run
from bench.gate.published_rows import read_run

SHRUNK = {"muon_momentum": 0.99, "matrix_lr": 0.02, "weight_decay": 0.04, "warmdown_iters": 3000}


def size(**changes: object) -> float:
    return predict_run(read_run(row(**changes))).model_bytes


def regime(**changes: object) -> str:
    return predict_run(read_run(row(**changes))).regime


def test_the_naive_baseline_is_predicted_within_half_a_percent():
    assert size() == pytest.approx(15_815_847, rel=0.005)


def test_the_regime_follows_from_quantizer_and_spread():
    assert regime(matrix_clip_sigmas=12.85) == "R1"
    assert regime() == "R2f"
    assert regime(**SHRUNK) == "R3"
    assert regime(**SHRUNK, iterations_done=500) == "R3 short"
    assert regime(**SHRUNK, quant_scheme="int6-blocks+fp16-embed") == "R2"


def test_decay_and_steps_move_the_size_only_at_the_floor():
    assert size(**SHRUNK | {"weight_decay": 0.08}) < 0.97 * size(**SHRUNK)
    assert size(**SHRUNK | {"iterations_done": 700}) < size(**SHRUNK | {"iterations_done": 1200})
    assert size(iterations_done=30_000) == pytest.approx(size(), rel=1e-3)


def test_zlib_pays_for_six_bits_what_zstd_does_not():
    six = {"quant_scheme": "int6-blocks+fp16-embed"}
    assert size(**six) > 1.03 * size(**six, codec="zstd-22")
    assert size() == pytest.approx(size(codec="zstd-22"), rel=0.003)


def test_a_script_that_prunes_never_exceeds_the_cap():
    large = {"model_params": 27_000_000, "quant_scheme": "int8-all(+sel-prune)"}
    pruned = predict_run(read_run(row(**large)))
    assert pruned.model_bytes == 16_000_000 - 47_642
    assert pruned.traits == {}
    assert size(**large | {"quant_scheme": "int8-all"}) > 20_000_000


def test_matrices_of_unknown_kind_widen_the_noise_and_teach_nobody():
    known, odd = (
        predict_run(read_run(row(model_params=params))) for params in (17_059_912, 17_800_000)
    )
    assert odd.noise_bytes > 3 * known.noise_bytes
    assert "tables" not in odd.traits


def test_tables_of_small_schemes_share_a_trait():
    scheme = {"quant_scheme": "int6-blocks+int8-embed", "payload_bytes": "", "codec": "zstd-22"}
    assert predict_run(read_run(row(model_params=17_500_000, **scheme))).traits["tables"] > 0


def test_a_row_above_its_floor_does_not_depend_on_the_spread():
    assert floored_bits(2.0, 6, 512) == floored_bits(3.0, 6, 512)
    assert floored_bits(0.05, 6, 512) < floored_bits(0.1, 6, 512) < floored_bits(2.0, 6, 512)


def test_a_prediction_does_not_look_at_what_was_measured():
    run = read_run(row())
    assert predict_run(replace(run, model_bytes=1)) == predict_run(run)
