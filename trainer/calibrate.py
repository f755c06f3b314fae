"""What GPTQ knows of the inputs of each matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainer.layers import Linear

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from trainer.model import GPT


@torch.no_grad()
def input_products(model: GPT, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The sum of x x^T over all inputs x of each matrix, [C, C] by the matrix's name.

    Args:
        model: As it will be quantized.
        batches: Tokens [B, T] of training data.
    """
    found: dict[str, Tensor] = {}

    def take(name: str, x: Tensor) -> None:
        flat = x.flatten(0, -2).float()
        found[name] = found.get(name, 0.0) + flat.T @ flat

    hooks = [
        module.register_forward_pre_hook(
            lambda _, given, name=f"{name}.weight": take(name, given[0])
        )
        for name, module in model.blocks.named_modules(prefix="blocks")
        if isinstance(module, Linear)
    ]
    for tokens in batches:
        take("embed.weight" if model.head is None else "head.weight", model.hidden(tokens))
    for hook in hooks:
        hook.remove()
    return found
