"""What is written out for a CPU computes what the plain forms compute, gradients too."""

from __future__ import annotations

import pytest
import torch

from trainer import eager, layers
from trainer.eager import ReluSquare, RmsNorm, Rotation, SoftcapLoss, is_eager
from trainer.layers import rotary_tables, rotate
from trainer.model import GPT


@pytest.mark.parametrize("part", [1, 7, 10**6])
@pytest.mark.parametrize("cap", [1.5, 30.0])
def test_the_loss_in_parts_is_the_plain_one_with_its_gradients(monkeypatch, part, cap):
    monkeypatch.setattr("trainer.eager.LOGITS_A_PART", 50 * part)
    torch.manual_seed(0)
    x, head = torch.randn(33, 8), torch.randn(50, 8)
    targets = torch.randint(0, 50, (33,))
    targets[[0, 5, 32]] = -100
    found, expected = [], []
    for losses, plain in ((found, False), (expected, True)):
        leaves = [x.clone().requires_grad_(), head.clone().requires_grad_()]
        if plain:
            logits = cap * torch.tanh(torch.nn.functional.linear(*leaves) / cap)
            loss = torch.nn.functional.cross_entropy(logits, targets)
        else:
            loss = SoftcapLoss.apply(*leaves, targets, cap)
        (3 * loss).backward()
        losses += [loss.detach(), *(leaf.grad for leaf in leaves)]
    for mine, other in zip(found, expected, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("rotated", [8, 6])
def test_each_part_has_the_gradient_that_finite_differences_find(rotated):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    cos, sin = (table.double() for table in rotary_tables(5, rotated, 10.0))
    for function in (RmsNorm.apply, lambda x: Rotation.apply(x, cos, sin), ReluSquare.apply):
        assert torch.autograd.gradcheck(function, (x,))
    assert torch.allclose(Rotation.apply(x, cos, sin), rotate(x, cos, sin))
    assert torch.allclose(RmsNorm.apply(x), torch.nn.functional.rms_norm(x, (8,)))
    assert torch.allclose(ReluSquare.apply(x), x.relu().square())


@pytest.mark.parametrize(
    "knobs",
    [{}, {"TIE_EMBEDDINGS": 0, "ROPE_DIMS": 4, "NUM_LOOPS": 1, "LOOP_START": 1, "LOOP_END": 1}],
)
def test_a_model_has_the_loss_and_gradients_of_the_plain_forms(tiny_config, monkeypatch, knobs):
    torch.manual_seed(0)
    model = GPT(tiny_config(**knobs))
    model.looping = bool(knobs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inputs, targets = torch.randint(2, 320, (2, 4, 16))
    assert is_eager(model.embed.weight)
    loss = model(inputs, targets)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for module in (eager, layers):
        monkeypatch.setattr(module, "is_eager", lambda _: False)
    monkeypatch.setattr("trainer.model.is_eager", lambda _: False)
    plain = model(inputs, targets)
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-3, atol=1e-6), name


def test_other_arithmetic_takes_the_plain_forms():
    assert not is_eager(torch.zeros(1, dtype=torch.bfloat16))
    assert not is_eager(torch.zeros(1, dtype=torch.float64))
