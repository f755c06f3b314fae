"""The optimizers: Muon for the blocks' matrices, Adam for everything else.

Both reduce gradients over the ranks themselves, so the model needs no wrapper: Adam's in one
all-reduce, Muon's by a reduce-scatter that leaves each rank the matrices that it orthogonalises.
Plain classes rather than `torch.optim`, whose first step imports the compiler: 1 s on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

# Quintic that drives singular values towards one, steepest at zero. Source: Keller Jordan,
# https://kellerjordan.github.io/posts/muon/
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),)

# The best quintic for each of five steps in turn. Source: Amsel et al. 2025, arXiv 2505.16932,
# as in the contest's PR #1344.
POLAR_EXPRESS = (
    (8.15655, -22.48329, 15.87877),
    (4.04293, -2.80892, 0.50002),
    (3.89167, -2.77248, 0.50606),
    (3.28575, -2.36813, 0.46449),
    (2.34654, -1.70978, 0.42324),
)

# Renamed in torch 2.13; under the old names it warns.
all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def orthogonalize(
    g_NRC: Tensor,
    steps: int,
    quintics: tuple[tuple[float, float, float], ...] = NEWTON_SCHULZ,
    *,
    rows_alike: bool = False,
) -> Tensor:
    """Matrices with the singular vectors of `g_NRC` and singular values near one, [N, R, C].

    Args:
        g_NRC: The matrices.
        steps: Iterations.
        quintics: Coefficients of each; the last ones serve what iterations remain.
        rows_alike: Whether each row is divided by its norm first. Source: PR #1217 (MuonEq-R).
    """
    if rows_alike:
        g_NRC = g_NRC / g_NRC.float().norm(dim=2, keepdim=True).clamp_min(1e-7).to(g_NRC.dtype)
    x_NRC = g_NRC / (g_NRC.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(g_NRC.dtype)
    tall = x_NRC.size(1) > x_NRC.size(2)
    if tall:
        x_NRC = x_NRC.mT
    for a, b, c in (*quintics, *quintics[-1:] * steps)[:steps]:
        gram = torch.bmm(x_NRC, x_NRC.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, polynomial, x_NRC, beta=a)
    return x_NRC.mT if tall else x_NRC


class Bank:
    """Matrices of one shape, stacked, and the part of them that this rank updates.

    The stack is padded with zeros to a multiple of the ranks.
    """

    def __init__(self, matrices: list[Tensor], rank: int, world_size: int) -> None:
        self.matrices = matrices
        self.world_size = world_size
        self.share = -(-len(matrices) // world_size)
        self.mine = slice(rank * self.share, (rank + 1) * self.share)
        self.momentum = torch.zeros(
            self.share, *matrices[0].shape, device=matrices[0].device, dtype=torch.float32
        )
        self.gradient = self.momentum

    def reduce(self) -> None:
        """Average this rank's share of the gradients over all ranks."""
        gradients = [matrix.grad for matrix in self.matrices if matrix.grad is not None]
        if self.world_size == 1:
            self.gradient = torch.stack(gradients)
            return
        padding = self.share * self.world_size - len(gradients)
        stacked = torch.stack(gradients + [torch.zeros_like(gradients[0])] * padding)
        if stacked.is_cuda:
            self.gradient = torch.empty_like(self.momentum)
            reduce_scatter(self.gradient, stacked, op=dist.ReduceOp.AVG)
        else:
            dist.all_reduce(stacked)
            self.gradient = stacked[self.mine] / self.world_size

    def gathered(self, update: Tensor) -> Tensor:
        """Every rank's updates, without the padding."""
        if self.world_size == 1:
            return update
        everything = update.new_empty(self.share * self.world_size, *update.shape[1:])
        all_gather(everything, update.contiguous())
        return everything[: len(self.matrices)]


class Muon:
    """Nesterov momentum, orthogonalised, with decoupled weight decay.

    Args:
        matrices: The parameters, all two-dimensional.
        weight_decay: Share of a weight that a step of rate one would take away.
        newton_schulz_steps: Iterations of the orthogonalisation.
        rank: This process among the `world_size` that share the work.
        world_size: Number of processes.
        orthogonalizer: `orthogonalize`, perhaps compiled or with further arguments.
        dtype: Arithmetic of the orthogonalisation.
    """

    def __init__(
        self,
        matrices: list[Tensor],
        *,
        weight_decay: float = 0.0,
        newton_schulz_steps: int = 5,
        rank: int = 0,
        world_size: int = 1,
        orthogonalizer: Callable[..., Tensor] = orthogonalize,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.weight_decay = weight_decay
        self.newton_schulz_steps = newton_schulz_steps
        self.orthogonalizer = orthogonalizer
        self.dtype = dtype
        shapes: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.banks = [Bank(group, rank, world_size) for group in shapes.values()]

    def reduce(self) -> None:
        """Average the gradients over the ranks, each rank its share."""
        for bank in self.banks:
            bank.reduce()

    def shared_gradients(self) -> list[Tensor]:
        """The gradients that this rank alone holds after `reduce`."""
        return [bank.gradient for bank in self.banks]

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """Update the matrices in place."""
        for bank in self.banks:
            bank.momentum.mul_(momentum).add_(bank.gradient)
            ahead = bank.gradient.add(bank.momentum, alpha=momentum).to(self.dtype)
            update = bank.gathered(self.orthogonalizer(ahead, self.newton_schulz_steps))
            rows, columns = update.shape[1:]
            if self.weight_decay:
                torch._foreach_mul_(bank.matrices, 1.0 - lr * self.weight_decay)
            # A tall matrix's rows are longer than one; keep the update's size per output.
            scale = max(1.0, rows / columns) ** 0.5
            updates = update.to(bank.matrices[0].dtype).unbind(0)
            torch._foreach_add_(bank.matrices, updates, alpha=-lr * scale)

    def reset(self) -> None:
        """Forget all steps."""
        for bank in self.banks:
            bank.momentum.zero_()


class Adam:
    """Adam with bias correction, over groups of tensors with a rate each.

    Args:
        groups: Tensors, their peak learning rate and their decoupled weight decay.
        betas: Decay of the first and second moments.
        eps: Offset of the denominator.
        world_size: Number of processes.
    """

    def __init__(
        self,
        groups: list[tuple[list[Tensor], float, float]],
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        world_size: int = 1,
    ) -> None:
        self.groups = groups
        self.betas = betas
        self.eps = eps
        self.world_size = world_size
        self.tensors = [tensor for group, _, _ in groups for tensor in group]
        self.first = {id(tensor): torch.zeros_like(tensor) for tensor in self.tensors}
        self.second = {id(tensor): torch.zeros_like(tensor) for tensor in self.tensors}
        self.steps = 0

    def gradients(self) -> list[Tensor]:
        """The gradients, the same on every rank after `reduce`."""
        return [tensor.grad for tensor in self.tensors if tensor.grad is not None]

    def reduce(self) -> None:
        """Average the gradients over the ranks, in one message."""
        if self.world_size == 1:
            return
        gradients = self.gradients()
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Update the tensors in place at `lr_scale` of their peak rates."""
        self.steps += 1
        beta1, beta2 = self.betas
        first_correction = 1.0 - beta1**self.steps
        second_correction = (1.0 - beta2**self.steps) ** 0.5
        for group, peak_lr, weight_decay in self.groups:
            tensors = [tensor for tensor in group if tensor.grad is not None]
            gradients = [tensor.grad for tensor in tensors]
            first = [self.first[id(tensor)] for tensor in tensors]
            second = [self.second[id(tensor)] for tensor in tensors]
            torch._foreach_lerp_(first, gradients, 1.0 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1.0 - beta2)
            denominators = torch._foreach_sqrt(second)  # noqa: SLF001 - there is no public name
            torch._foreach_div_(denominators, second_correction)
            torch._foreach_add_(denominators, self.eps)
            if weight_decay:
                torch._foreach_mul_(tensors, 1.0 - lr_scale * peak_lr * weight_decay)
            step_size = lr_scale * peak_lr / first_correction
            torch._foreach_addcdiv_(tensors, first, denominators, -step_size)

    def reset(self) -> None:
        """Forget all steps."""
        self.steps = 0
        for state in (*self.first.values(), *self.second.values()):
            state.zero_()


@torch.no_grad()
def clip_gradients(muon: Muon, adam: Adam, limit: float, world_size: int) -> None:
    """Scale all gradients so that their global norm is at most `limit`; after `reduce`."""
    shared = muon.shared_gradients()
    squares = torch.stack([gradient.square().sum() for gradient in shared]).sum()
    if world_size > 1:
        dist.all_reduce(squares)
    own = adam.gradients()
    squares = squares + torch.stack([gradient.square().sum() for gradient in own]).sum()
    scale = (limit / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(shared + own, scale)
