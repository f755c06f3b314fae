"""Parts of the model with their gradients written out, for float32 on a CPU without a compiler.

There each elementwise operation is a pass over memory, and autograd makes two to four of one. A
compiler fuses the plain forms in `layers` and `model`, so that a GPU does not come here. Values and
gradients are the plain ones' up to rounding. Shapes: N positions, D model width, V vocabulary; B
sequences, H heads, T positions, E width of a head, R half of its rotated part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import functional

LOGITS_A_PART = 2**17
"""Half a mebibyte of them: a part and what is made of it stay in a core's cache."""


def is_eager(x: Tensor) -> bool:
    """Whether a tensor's operations are worth writing out."""
    return x.dtype == torch.float32 and not x.is_cuda and not is_compiling()


class RmsNorm(torch.autograd.Function):
    """Rows of unit root mean square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Each row over sqrt(mean(x^2) + eps)."""
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.size(-1))
        scale = squares.add_(torch.finfo(x.dtype).eps).rsqrt_()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Less its part along the row, since a longer row is scaled down."""
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1.0).mul_(scale)


class Rotation(torch.autograd.Function):
    """Pairs of a head's first dimensions turned by their positions' angles."""

    @staticmethod
    def forward(ctx: Any, x_BHTE: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """See `layers.rotate`."""
        ctx.save_for_backward(cos_TR, sin_TR)
        return turned(x_BHTE, cos_TR, sin_TR)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Turned back."""
        cos_TR, sin_TR = ctx.saved_tensors
        return turned(gradient, cos_TR, -sin_TR), None, None


def turned(x_BHTE: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """The rotation without its gradient."""
    half = cos_TR.size(-1)
    y_BHTE = torch.empty_like(x_BHTE)
    first, second, rest = x_BHTE.split((half, half, x_BHTE.size(-1) - 2 * half), dim=-1)
    to_first, to_second, to_rest = y_BHTE.split((half, half, rest.size(-1)), dim=-1)
    torch.mul(first, cos_TR, out=to_first).addcmul_(second, sin_TR)
    torch.mul(second, cos_TR, out=to_second).addcmul_(first, sin_TR, value=-1.0)
    to_rest.copy_(rest)
    return y_BHTE


class ReluSquare(torch.autograd.Function):
    """The square of what is above zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """relu(x)^2."""
        above = x.relu()
        ctx.save_for_backward(above)
        return above * above

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """2 relu(x), which is zero where the relu is."""
        (above,) = ctx.saved_tensors
        return (gradient * above).mul_(2.0)


class SoftcapLoss(torch.autograd.Function):
    """Mean cross-entropy of capped logits: its gradients are taken along with it, in parts.

    A part's logits stay in the processor's cache, and none are kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, cap: float) -> Tensor:
        """In nats, over the targets that are not -100."""
        total = x_ND.new_zeros(())
        count = (targets_N >= 0).sum().clamp_min(1)
        learns = any(ctx.needs_input_grad)
        to_x, to_head = torch.empty_like(x_ND), torch.zeros_like(head_VD)
        part = max(LOGITS_A_PART // head_VD.size(0), 1)
        for x, targets, to_part in zip(
            x_ND.split(part), targets_N.split(part), to_x.split(part), strict=True
        ):
            capped = torch.mm(x, head_VD.T).div_(cap).tanh_()
            logs = functional.log_softmax(capped * cap, dim=1)
            total += functional.nll_loss(logs, targets, reduction="sum")
            if learns:
                rows = targets.clamp_min(0)[:, None]
                gradient = logs.exp_().scatter_add_(1, rows, -torch.ones_like(logs[:, :1]))
                gradient *= capped.square_().neg_().add_(1.0)
                gradient *= ((targets >= 0) / count)[:, None]
                torch.mm(gradient, head_VD, out=to_part)
                to_head.addmm_(gradient.T, x)
        ctx.save_for_backward(to_x, to_head)
        return total / count

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The gradients, times that of the loss."""
        to_x, to_head = ctx.saved_tensors
        return to_x * scale, to_head * scale, None, None
