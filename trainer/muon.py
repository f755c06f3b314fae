"""The optimizers: Muon for the blocks' matrices, Adam for everything else.

Both reduce gradients over the ranks themselves, so the model needs no wrapper: Adam's in one
all-reduce, Muon's by a reduce-scatter that leaves each rank the matrices that it orthogonalises.
All messages are under way before the first is waited for, the largest first, and each bank's
updates travel while the next bank is orthogonalised.
Plain classes rather than `torch.optim`, whose first step imports the compiler: 1 s on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    turned_N: Tensor | None = None,
) -> Tensor:
    """Matrices with the singular vectors of `g_NRC` and singular values near one, [N, R, C].

    Args:
        g_NRC: The matrices.
        steps: Iterations.
        quintics: Coefficients of each; the last ones serve what iterations remain.
        rows_alike: Whether each row is divided by its norm first. Source: PR #1217 (MuonEq-R).
        turned_N: Which matrices are given transposed, so that their rows are columns here.
    """
    if rows_alike:
        squares = g_NRC.float().square()
        norms = squares.sum(dim=2, keepdim=True)
        if turned_N is not None:
            across = squares.sum(dim=1, keepdim=True)
            norms = torch.where(turned_N[:, None, None], across, norms)
        g_NRC = g_NRC / norms.sqrt().clamp_min(1e-7).to(g_NRC.dtype)
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

    Tall matrices lie transposed among the wide ones of their shape: fewer banks, and less padding,
    since a bank is filled up with zeros to a multiple of the ranks.
    """

    def __init__(self, matrices: list[Tensor], rank: int, world_size: int) -> None:
        detached = [matrix.detach() for matrix in matrices]
        self.matrices = [matrix.T if is_tall(matrix) else matrix for matrix in detached]
        self.given = matrices
        self.world_size = world_size
        self.share = -(-len(matrices) // world_size)
        self.mine = slice(rank * self.share, (rank + 1) * self.share)
        rows, columns = self.matrices[0].shape
        first = matrices[0]
        self.momentum = torch.zeros(
            self.share, rows, columns, device=first.device, dtype=torch.float32
        )
        self.gradient = self.momentum
        # A tall matrix's rows are longer than one; keep the update's size per output.
        turned = [is_tall(matrix) for matrix in matrices]
        factor = (columns / rows) ** 0.5
        self.scales_N11 = first.new_tensor([factor if tall else 1.0 for tall in turned])[
            :, None, None
        ]
        turned += [False] * (self.share * world_size - len(matrices))
        self.turned_N = torch.tensor(turned[self.mine], device=first.device)
        self.stacked = self.momentum
        self.work: Any = None

    def reduce(self) -> None:
        """Send this rank's gradients off to be averaged, each rank its share."""
        gradients = [
            parameter.grad.T if is_tall(parameter) else parameter.grad
            for parameter in self.given
            if parameter.grad is not None
        ]
        if self.world_size == 1:
            self.gradient = torch.stack(gradients)
            return
        padding = self.share * self.world_size - len(gradients)
        stacked = torch.stack(gradients + [torch.zeros_like(gradients[0])] * padding)
        if stacked.is_cuda:  # half the bytes, as records send them
            self.stacked = stacked.bfloat16()
            self.gradient = self.stacked.new_empty(self.momentum.shape)
            self.work = reduce_scatter(
                self.gradient, self.stacked, op=dist.ReduceOp.AVG, async_op=True
            )
        else:
            self.stacked = stacked
            self.work = dist.all_reduce(stacked, async_op=True)

    def wait(self) -> None:
        """Have this rank's share of the averaged gradients."""
        if self.work is None:
            return
        self.work.wait()
        self.work = None
        if self.stacked.is_cuda:
            self.gradient = self.gradient.float()
        else:
            self.gradient = self.stacked[self.mine] / self.world_size

    def share_out(self, update: Tensor) -> None:
        """Send this rank's updates to every other."""
        self.stacked = update
        if self.world_size > 1:
            self.stacked = update.new_empty(self.share * self.world_size, *update.shape[1:])
            self.work = all_gather(self.stacked, update.contiguous(), async_op=True)

    def gathered(self) -> Tensor:
        """Every rank's updates, without the padding."""
        if self.work is not None:
            self.work.wait()
            self.work = None
        return self.stacked[: len(self.matrices)]


def is_tall(matrix: Tensor) -> bool:
    """Whether it has more rows than columns."""
    return matrix.size(0) > matrix.size(1)


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
            shape = (matrix.T if is_tall(matrix) else matrix).shape
            shapes.setdefault(shape, []).append(matrix)
        largest_first = sorted(shapes.items(), key=lambda item: -item[0].numel() * len(item[1]))
        self.banks = [Bank(group, rank, world_size) for _, group in largest_first]

    def reduce(self) -> None:
        """Begin to average the gradients over the ranks, each rank its share."""
        for bank in self.banks:
            bank.reduce()

    def shared_gradients(self) -> list[Tensor]:
        """The gradients that this rank alone holds after `reduce`."""
        for bank in self.banks:
            bank.wait()
        return [bank.gradient for bank in self.banks]

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """Update the matrices in place."""
        for bank in self.banks:
            bank.wait()
            bank.momentum.mul_(momentum).add_(bank.gradient)
            ahead = bank.gradient.add(bank.momentum, alpha=momentum).to(self.dtype)
            steps = self.newton_schulz_steps
            bank.share_out(self.orthogonalizer(ahead, steps, turned_N=bank.turned_N))
        for bank in self.banks:
            updates = bank.gathered().to(bank.scales_N11.dtype) * bank.scales_N11
            if self.weight_decay:
                torch._foreach_mul_(bank.matrices, 1.0 - lr * self.weight_decay)
            torch._foreach_add_(bank.matrices, updates.unbind(0), alpha=-lr)

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
        self.message = torch.empty(0)
        self.work: Any = None

    def gradients(self) -> list[Tensor]:
        """The gradients, the same on every rank after `reduce`."""
        gradients = [tensor.grad for tensor in self.tensors if tensor.grad is not None]
        if self.work is not None:
            self.work.wait()
            self.work = None
            parts = self.message.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient) / self.world_size)
        return gradients

    def reduce(self) -> None:
        """Begin to average the gradients over the ranks, in one message."""
        if self.world_size > 1:
            self.message = torch.cat([gradient.flatten() for gradient in self.gradients()])
            self.work = dist.all_reduce(self.message, async_op=True)

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Update the tensors in place at `lr_scale` of their peak rates."""
        self.gradients()
        self.steps += 1
        for group, peak_lr, weight_decay in self.groups:
            tensors = [tensor for tensor in group if tensor.grad is not None]
            if tensors:
                steps = torch.full((), float(self.steps), device=tensors[0].device)
                torch._fused_adamw_(  # what torch.optim.AdamW calls
                    tensors,
                    [tensor.grad for tensor in tensors],
                    [self.first[id(tensor)] for tensor in tensors],
                    [self.second[id(tensor)] for tensor in tensors],
                    [],
                    [steps] * len(tensors),
                    lr=lr_scale * peak_lr,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    weight_decay=weight_decay,
                    eps=self.eps,
                    amsgrad=False,
                    maximize=False,
                )

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
