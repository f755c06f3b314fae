from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from trainer.checks import ALIASES
from trainer.config import Config
from trainer.roles import ROLES, role
from trainer.runtime import Log
from trainer.train import Run


def test_every_knob_has_a_role():
    assert set(ROLES) == {field.name.upper() for field in fields(Config)} | set(ALIASES)
    with pytest.raises(KeyError):
        role("NOVEL")


@pytest.mark.parametrize(
    ("knob", "expected"),
    [
        ("MODEL_DIM", "train"), ("MUON_WD", "train"), ("SEED", "train"), ("EMA_DECAY", "train"),
        ("EMBED_BITS", "export"), ("MATRIX_CLIP_SIGMAS", "export"), ("CODEC", "export"),
        ("EVAL_STRIDE", "eval"), ("RUN_ID", "run"), ("WORLD_SIZE", "run"),
    ],
)  # fmt: skip
def test_a_role_is_the_first_part_that_a_knob_changes(knob, expected):
    assert role(knob) == expected


def test_knobs_of_export_and_eval_do_not_change_the_training(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = {
        "MATRIX_BITS": 4, "ATTN_BITS": 5, "MLP_BITS": 5, "EMBED_BITS": 7, "QUANT_SCALE": "mse",
        "CLIP_SIGMAS": 5, "ATTN_CLIP_SIGMAS": 5, "CODEC": "lzma", "BYTE_SHUFFLE": 0,
        "EVAL_STRIDE": 4, "VAL_BATCH_SIZE": 64,
    }  # fmt: skip
    assert {role(knob) for knob in others} == {"export", "eval"}
    trained = []
    for knobs in ({}, others):
        config = tiny_config(ITERATIONS=4, VAL_LOSS_EVERY=0, **knobs)
        run = Run(config, torch.device("cpu"), Log(config))
        run.train()
        trained.append(run.model.state_dict())
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())
