"""The rise of the loss where one group of tensors is quantized."""

from __future__ import annotations

import torch

from trainer.runtime import Log
from trainer.sensitivity import rises
from trainer.train import Run


def test_fewer_bits_cost_more_and_groups_do_not_overlap(tiny_config):
    config = tiny_config()
    run = Run(config, torch.device("cpu"), Log(config))
    run.train()
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    knobs = {"ATTN_BITS": [4, 8], "MLP_BITS": [4, 8], "EMBED_BITS": [4, 8]}
    found = rises(run, 512, knobs)
    assert found["tokens"] == 512
    for at in found["rises"].values():
        assert abs(at["4"]) > abs(at["8"])
    tensors = [name for names in found["tensors"].values() for name in names]
    assert len(tensors) == len(set(tensors))
    matrices = {name for name, p in before.items() if p.ndim == 2 and ".attn." in name}
    assert set(found["tensors"]["ATTN_BITS"]) == matrices
