"""A table's rows are read as they were meant; what a log leaves out comes from others."""

from __future__ import annotations

import pytest
from support.published import row

from bench.gate.published_rows import complete, read_run
from pgolf_sweep.gate.physics.random_walk import Average


@pytest.mark.parametrize(
    "changes",
    [
        {"duplicate_of": "another"},
        {"eval_only": 1},
        {"quant_scheme": "ternary+fp8"},
        {"quant_scheme": "int6/int5-mixed-gptq"},
        {"num_layers": ""},
        {"model_params": 1_000_000},
        {"codec": "unheard-of"},
        {"iterations_done": 0},
    ],
)
def test_rows_that_do_not_suffice_are_none(changes):
    assert read_run(row()) is not None
    assert read_run(row(**changes)) is None


def test_every_parameter_is_counted_once():
    run = read_run(row())
    whole = run.attn_params + run.mlp_params + run.embed_params + run.table_params
    assert whole + run.float16_params + run.float32_params == pytest.approx(run.model_params)
    assert run.float32_params == pytest.approx(4.5 * 9 * 512, rel=0.01)


def test_the_payload_tells_what_was_kept_in_float16():
    tables = 590_000
    kept = row(model_params=17059912 + tables, payload_bytes=17178912 + 2 * tables)
    codes = row(model_params=17059912 + tables, payload_bytes=17178912 + tables)
    assert read_run(kept).float16_params == pytest.approx(tables, rel=0.01)
    assert read_run(codes).float16_params == pytest.approx(0, abs=1000)
    assert read_run(codes).table_params == pytest.approx(tables, rel=0.01)


def test_without_a_payload_the_projection_of_a_table_is_kept():
    run = read_run(row(model_params=17059912 + 500_000, payload_bytes=""))
    assert run.float16_params == 128 * 512


def test_a_rest_too_large_for_tables_counts_as_the_blocks_matrices():
    usual, odd = read_run(row()), read_run(row(model_params=17059912 + 4_000_000))
    assert odd.table_params == 0
    assert odd.attn_params == pytest.approx(usual.attn_params + 4_000_000, rel=0.01)


def test_momentum_grows_as_in_the_scripts_that_share_it():
    low, high = read_run(row()), read_run(row(muon_momentum=0.99, warmdown_iters=3000))
    assert (low.training.momentum_start, low.training.momentum_warmup) == (0.85, 500)
    assert (high.training.momentum_start, high.training.momentum_warmup) == (0.92, 1500)
    assert read_run(row(muon_momentum=0.99, warmdown_iters=100)).training.momentum_warmup == 50


@pytest.mark.parametrize(
    ("words", "average", "steps"),
    [
        ("none", Average.NONE, 0),
        ("ema0.997", Average.EXPONENTIAL, 1 / 0.003),
        ("ema0.997+swa-started", Average.EXPONENTIAL, 1 / 0.003),
        ("swa", Average.UNIFORM, 600),
    ],
)
def test_the_average_is_read_from_its_words(words, average, steps):
    training = read_run(row(ema_or_swa=words)).training
    assert training.average is average
    assert training.average_steps == pytest.approx(steps)


def test_seeds_share_a_configuration_and_appended_runs_do_not():
    key = read_run(row()).configuration
    assert read_run(row(model_bytes=15_800_000, iterations_done=13_500)).configuration == key
    assert read_run(row(run_idx=1)).configuration != key
    assert read_run(row(train_batch_tokens=786432)).configuration != key


def test_a_gap_is_filled_from_its_record_and_then_from_runs_of_the_same_rates():
    silent = {"muon_momentum": "", "warmdown_iters": ""}
    rows = [
        row(record="a", muon_momentum=0.97, warmdown_iters=3445),
        row(record="a", **silent),
        row(record="b", **silent),
        row(record="c", muon_momentum=0.99, warmdown_iters=3000),
        row(record="d", muon_momentum=0.99, warmdown_iters=3000),
        row(record="e", matrix_lr=0.1, **silent),
    ]
    runs = [read_run(filled).training for filled in complete(rows)]
    assert (runs[1].momentum, runs[1].warmdown) == (0.97, pytest.approx(3445))
    assert (runs[2].momentum, runs[2].warmdown) == (0.99, 3000)
    assert (runs[5].momentum, runs[5].warmdown) == (0.95, 1200)
    assert rows[1]["muon_momentum"] == ""
