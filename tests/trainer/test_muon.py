from __future__ import annotations

from functools import partial

import pytest
import torch

from trainer.muon import POLAR_EXPRESS, Adam, Muon, clip_gradients, orthogonalize


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (1, 16, 48)])
def test_singular_values_come_near_one(shape):
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5))
    assert values.min() > 0.4
    assert values.max() < 1.3
    assert 0.75 < values.mean() < 1.1


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (1, 16, 48)])
def test_polar_express_brings_singular_values_nearer_to_one(shape):
    matrices = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalize(matrices, 5, POLAR_EXPRESS))
    plain = torch.linalg.svdvals(orthogonalize(matrices, 5))
    assert (values - 1).abs().max() < 0.4
    assert (values - 1).square().mean() < (plain - 1).square().mean()


def test_further_iterations_repeat_the_last_quintic():
    matrices = torch.randn(1, 8, 8)
    longer = (*POLAR_EXPRESS, POLAR_EXPRESS[-1], POLAR_EXPRESS[-1])
    expected = orthogonalize(matrices, 7, longer)
    assert torch.equal(orthogonalize(matrices, 7, POLAR_EXPRESS), expected)


def test_rows_that_are_made_alike_lose_their_lengths():
    matrices = torch.randn(2, 8, 24)
    lengths = torch.rand(2, 8, 1) * 9 + 1
    found = orthogonalize(matrices * lengths, 5, rows_alike=True)
    assert torch.allclose(found, orthogonalize(matrices, 5, rows_alike=True), atol=1e-4)
    assert not torch.allclose(found, orthogonalize(matrices * lengths, 5), atol=1e-2)


def test_singular_vectors_are_kept():
    left, _ = torch.linalg.qr(torch.randn(16, 16))
    right, _ = torch.linalg.qr(torch.randn(16, 16))
    matrix = left @ torch.diag(torch.linspace(1, 2, 16)) @ right.T
    found = left.T @ orthogonalize(matrix[None], 5)[0] @ right
    assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-4)


def test_stacked_matrices_do_not_touch_each_other():
    matrices = torch.randn(3, 8, 24)
    alone = torch.stack([orthogonalize(matrix[None], 5)[0] for matrix in matrices])
    assert torch.allclose(orthogonalize(matrices, 5), alone, atol=1e-5)


def with_gradients(*shapes):
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    for tensor in tensors:
        tensor.grad = torch.randn_like(tensor)
    return tensors


def test_muon_step_is_the_scaled_orthogonal_update():
    square, tall = with_gradients((8, 8), (32, 8))
    before = [square.detach().clone(), tall.detach().clone()]
    # First step with momentum: (1 + m) times the gradient, whose size orthogonalisation ignores.
    expected = [orthogonalize(tensor.grad[None], 5)[0] for tensor in (square, tall)]
    muon = Muon([square, tall])
    muon.reduce()
    muon.step(lr=0.1, momentum=0.9)
    assert torch.allclose(before[0] - square, 0.1 * expected[0], atol=1e-5)
    assert torch.allclose(before[1] - tall, 0.1 * 2.0 * expected[1], atol=1e-5)


@pytest.mark.parametrize("rows_alike", [False, True])
def test_tall_and_wide_matrices_share_a_bank_and_are_updated_as_alone(rows_alike):
    tensors = with_gradients((32, 8), (8, 32), (32, 8), (8, 8))
    turn = partial(orthogonalize, rows_alike=rows_alike)
    expected = [
        tensor - 0.1 * turn(tensor.grad[None], 5)[0] * max(1, len(tensor) / tensor.size(1)) ** 0.5
        for tensor in tensors
    ]
    muon = Muon(tensors, orthogonalizer=turn)
    assert [len(bank.matrices) for bank in muon.banks] == [3, 1]
    muon.reduce()
    muon.step(lr=0.1, momentum=0.9)
    for tensor, wanted in zip(tensors, expected, strict=True):
        assert torch.allclose(tensor, wanted, atol=1e-5)


def test_weight_decay_is_decoupled_from_the_gradient():
    (matrix,) = with_gradients((8, 8))
    before = matrix.detach().clone()
    matrix.grad.zero_()
    muon = Muon([matrix], weight_decay=0.5)
    muon.reduce()
    muon.step(lr=0.1, momentum=0.9)
    assert torch.allclose(matrix, 0.95 * before)


def test_muon_forgets_on_reset():
    (matrix,) = with_gradients((8, 8))
    muon = Muon([matrix])
    muon.reduce()
    muon.step(0.1, 0.9)
    muon.reset()
    assert not muon.banks[0].momentum.any()


def test_adam_with_decoupled_decay_is_torchs():
    ours = with_gradients((5, 3), (4,))
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    adam = Adam([([ours[0]], 0.1, 0.3), ([ours[1]], 0.02, 0.0)], betas=(0.9, 0.95), eps=1e-8)
    groups = [
        {"params": [theirs[0]], "lr": 0.05, "weight_decay": 0.3},
        {"params": [theirs[1]], "lr": 0.01, "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for _ in range(5):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        adam.step(lr_scale=0.5)
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_clipping_is_torchs():
    tensors = with_gradients((8, 8), (8, 8), (5,))
    copies = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    for tensor, copy in zip(tensors, copies, strict=True):
        copy.grad = tensor.grad.clone()
    torch.nn.utils.clip_grad_norm_(copies, 0.3)
    muon, adam = Muon(tensors[:2]), Adam([(tensors[2:], 0.1, 0.0)])
    muon.reduce()
    clip_gradients(muon, adam, 0.3, world_size=1)
    assert torch.allclose(muon.banks[0].gradient[1], copies[1].grad, atol=1e-6)
    assert torch.allclose(tensors[2].grad, copies[2].grad, atol=1e-6)
