from __future__ import annotations

import math

import pytest
import torch

from trainer.config import read_config
from trainer.layers import rotary_tables, rotate
from trainer.model import GPT
from trainer.train import split_parameters


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 320, (4, 17), generator=generator)


def build(config):
    torch.manual_seed(0)
    return GPT(config)


def test_default_model_has_the_baselines_parameters():
    with torch.device("meta"):
        model = GPT(read_config())
    assert sum(parameter.numel() for parameter in model.parameters()) == 17_059_912


@pytest.mark.parametrize(
    "knobs",
    [{}, {"NUM_LAYERS": 1}, {"NUM_LAYERS": 4, "NUM_KV_HEADS": 4}, {"TIE_EMBEDDINGS": 0}],
)
def test_untrained_loss_is_that_of_a_uniform_guess(tiny_config, tokens, knobs):
    model = build(tiny_config(TIED_EMBED_INIT_STD=1e-4, **knobs))
    loss = model(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(320), abs=0.02)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.numel())


def test_no_position_sees_the_future(tiny_config, tokens):
    model = build(tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():  # the zero-initialised branches must speak, too
            parameter.add_(0.1 * torch.randn_like(parameter))
    targets = torch.full((4, 16), -100)
    targets[:, :9] = tokens[:, 1:10]
    before = model(tokens[:, :-1], targets)
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 320
    assert model(changed[:, :-1], targets).item() == pytest.approx(before.item(), abs=1e-6)
    changed[:, 8] = (changed[:, 8] + 1) % 320
    assert model(changed[:, :-1], targets).item() != pytest.approx(before.item(), abs=1e-4)


def test_logits_stay_within_the_softcap(tiny_config, tokens):
    model = build(tiny_config(LOGIT_SOFTCAP=2.0))
    with torch.no_grad():
        model.embed.weight.mul_(1e6)
    # Logits within +-2 can make a loss of log(320) + 4 at the most.
    assert model(tokens[:, :-1], tokens[:, 1:]).item() <= math.log(320) + 4


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    cos, sin = rotary_tables(16, 8, 10000.0)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 16, 8)
    turned_q, turned_k = rotate(q, cos, sin), rotate(k, cos, sin)
    assert torch.allclose(turned_q.norm(dim=-1), q.norm(dim=-1), atol=1e-5)
    scores = (turned_q @ turned_k.mT)[0, 0]
    assert torch.allclose(scores[3, 1], scores[12, 10], atol=1e-5)
    assert not torch.allclose(scores[3, 1], scores[3, 2], atol=1e-3)


def test_every_parameter_has_one_optimizer(tiny_config):
    model = build(tiny_config(TIE_EMBEDDINGS=0))
    matrices, scalars = split_parameters(model)
    own = [model.embed.weight, model.head.weight]
    ids = [id(parameter) for parameter in (*matrices, *scalars, *own)]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    assert all(matrix.ndim == 2 for matrix in matrices)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_model_is_one_graph_for_training_and_one_for_scoring(tiny_config, tokens):
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = torch.compile(build(tiny_config()), backend=counter, dynamic=False, fullgraph=True)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    for _ in range(3):
        compiled(inputs, targets).backward()
    assert counter.frame_count == 1
    with torch.no_grad():
        for _ in range(3):
            compiled(inputs, targets)
    assert counter.frame_count == 2
