from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import trainer
from trainer.checks import ALIASES
from trainer.config import Config, TrainerError, read_config

BASELINE = {
    "seed": 1337,
    "val_batch_size": 524288,
    "val_loss_every": 1000,
    "train_log_every": 200,
    "iterations": 20000,
    "warmdown_iters": 1200,
    "warmup_steps": 20,
    "train_batch_tokens": 524288,
    "train_seq_len": 1024,
    "max_wallclock_seconds": 600.0,
    "qk_gain_init": 1.5,
    "vocab_size": 1024,
    "num_layers": 9,
    "num_kv_heads": 4,
    "model_dim": 512,
    "num_heads": 8,
    "mlp_mult": 2,
    "tie_embeddings": True,
    "rope_base": 10000.0,
    "logit_softcap": 30.0,
    "embed_lr": 0.6,
    "head_lr": 0.008,
    "tied_embed_lr": 0.05,
    "tied_embed_init_std": 0.005,
    "matrix_lr": 0.04,
    "scalar_lr": 0.04,
    "muon_momentum": 0.95,
    "muon_backend_steps": 5,
    "muon_momentum_warmup_start": 0.85,
    "muon_momentum_warmup_steps": 500,
    "beta1": 0.9,
    "beta2": 0.95,
    "adam_eps": 1e-8,
    "grad_clip_norm": 0.0,
}


def test_defaults_are_the_baselines():
    config = read_config()
    assert {name: getattr(config, name) for name in BASELINE} == BASELINE


def test_every_field_is_its_variable_in_lower_case():
    source = (Path(trainer.__file__).parent / "config.py").read_text()
    names = [
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.get"
    ]
    knobs = [field.name.upper() for field in fields(Config)]
    assert sorted(names) == sorted([*knobs, *ALIASES])


def test_a_records_name_comes_before_ours(tiny_config):
    assert tiny_config(MUON_WD=0.095).weight_decay == 0.095
    assert tiny_config(MUON_WD=0.0, WEIGHT_DECAY=0.1).weight_decay == 0.0
    assert tiny_config(WEIGHT_DECAY=0.1).weight_decay == 0.1
    assert tiny_config(MATRIX_CLIP_SIGMAS=10).clip_sigmas == 10.0


def test_a_hidden_layer_may_be_any_share_of_the_width(tiny_config):
    assert tiny_config(MLP_MULT="3.5").hidden_dim == 112
    assert tiny_config(MLP_MULT="1.07").hidden_dim == 34
    assert tiny_config(MLP_MULT=4).hidden_dim == 128


def test_no_other_module_reads_the_environment():
    for path in Path(trainer.__file__).parent.glob("*.py"):
        if path.name != "config.py":
            assert "os.environ" not in path.read_text(), path.name


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"MODEL_DIM": 30}, "MODEL_DIM=30 must be divisible by NUM_HEADS=4"),
        ({"MODEL_DIM": 36}, "must be even"),
        ({"NUM_KV_HEADS": 3}, "NUM_HEADS=4 must be divisible by NUM_KV_HEADS=3"),
        ({"NUM_LAYERS": 0}, "NUM_LAYERS must be at least 1, got 0"),
        ({"MATRIX_BITS": 9}, "MATRIX_BITS must be one of 1, 2, 3, 4, 5, 6, 7, 8, got 9"),
        ({"CODEC": "gzip"}, "CODEC must be one of zlib, zstd, lzma, brotli, got 'gzip'"),
        ({"CODEC": "zlib", "CODEC_LEVEL": 22}, "CODEC_LEVEL must be 0 or from 4 to 9 for zlib"),
        ({"CODEC_LEVEL": 3}, "CODEC_LEVEL must be 0 or from 4 to 9 for zlib"),
        ({"CODEC": "zstd", "CODEC_LEVEL": 15}, "CODEC_LEVEL must be 0 or from 16 to 22 for zstd"),
        ({"CODEC": "brotli", "CODEC_LEVEL": 9}, "must be 0 or from 10 to 11 for brotli"),
        ({"MODEL_DIM": 2**33}, "MODEL_DIM x MLP_MULT must be at least 1 and at most 4294967295"),
        ({"MLP_MULT": 10**9}, "MODEL_DIM x MLP_MULT must be at least 1 and at most 4294967295"),
        ({"NUM_LAYERS": 10**9}, "NUM_LAYERS must be at most 1000, got 1000000000"),
        ({"ITERATIONS": 10**30}, "ITERATIONS must be a finite number, got 1000"),
        ({"CLIP_SIGMAS": "inf"}, "CLIP_SIGMAS must be a finite number, got inf"),
        ({"MATRIX_LR": "nan"}, "MATRIX_LR must be a finite number, got nan"),
        ({"TIED_EMBED_LR": 2e3}, "TIED_EMBED_LR must be from 0 to 1000, got 2000.0"),
        ({"MATRIX_LR": -0.1}, "MATRIX_LR must be from 0 to 1000, got -0.1"),
        ({"MUON_MOMENTUM_WARMUP_START": -2}, "MUON_MOMENTUM_WARMUP_START must be at least 0"),
        ({"LR_SCHEDULE": "step"}, "LR_SCHEDULE must be one of linear, cosine, wsd"),
        ({"MIN_LR_FRAC": 1.5}, "MIN_LR_FRAC must be from 0 to 1"),
        ({"MIN_LR": -0.1}, "MIN_LR must be from 0 to 1, got -0.1"),
        ({"MLP_MULT": 0.01}, "MODEL_DIM x MLP_MULT must be at least 1"),
        ({"EVAL_STRIDE": 17}, "EVAL_STRIDE must be from 0 to TRAIN_SEQ_LEN=16, got 17"),
        ({"BYTES_PER_TOKEN": -1}, "BYTES_PER_TOKEN must be at least 0, got -1"),
        ({"EMA_DECAY": 1}, "EMA_DECAY must be at least 0 and below 1"),
        ({"GRAD_ACCUM_STEPS": -1}, "GRAD_ACCUM_STEPS must be at least 0, got -1"),
        ({"MUON_MOMENTUM_WARMUP_START": -0.5}, "MUON_MOMENTUM_WARMUP_START must be at least 0"),
        ({"WORLD_SIZE": 3}, "WORLD_SIZE=3 must divide 8"),
        ({"MATRIX_LR": "fast"}, "MATRIX_LR: could not convert string to float"),
    ],
)
def test_contradictions_are_refused_in_one_line(tiny_config, knobs, message):
    with pytest.raises(TrainerError) as caught:
        tiny_config(**knobs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_accumulation_makes_up_for_missing_gpus(tiny_config):
    shares = {
        world: tiny_config(WORLD_SIZE=world).accumulation(on_gpu=True) for world in (1, 2, 4, 8)
    }
    assert shares == {1: 8, 2: 4, 4: 2, 8: 1}
    assert tiny_config().accumulation(on_gpu=False) == 1
    with pytest.raises(TrainerError, match="TRAIN_BATCH_TOKENS=96 must be a multiple of 128"):
        tiny_config(TRAIN_BATCH_TOKENS=96).accumulation(on_gpu=True)


def test_a_validation_batch_too_small_for_all_shares_is_refused_before_the_training(tiny_config):
    enough, less = tiny_config(VAL_BATCH_SIZE=128), tiny_config(VAL_BATCH_SIZE=127)
    assert enough.accumulation(on_gpu=True) == 8
    assert less.accumulation(on_gpu=False) == 1
    with pytest.raises(TrainerError, match="VAL_BATCH_SIZE=127 must hold a sequence of 16 tokens"):
        less.accumulation(on_gpu=True)
