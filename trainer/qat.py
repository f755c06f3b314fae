"""Quantization-aware training: losses are those of the weights as the artifact will hold them.

From the last `QAT_FRAC` of the run on each matrix stands rounded while a loss and its gradients are
taken; the optimizers then move the unrounded weights by them. That is the straight-through
estimator (arXiv 1308.3432): rounding counts as the identity. Off, it costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainer.quantize import BINARY, TERNARY, tensor_bits, tensor_sigmas, top_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from trainer.config import Config
    from trainer.model import GPT


@torch.no_grad()
def rounded(weights_RC: Tensor, bits: int, sigmas: float) -> Tensor:
    """What `quantize.quantize` makes of a matrix, on its device.

    Args:
        weights_RC: The matrix.
        bits: Of a code.
        sigmas: Clip of sdclip; 0 is rowmax.
    """
    sizes, top = weights_RC.abs(), top_code(bits)
    if bits <= TERNARY:
        clips = sizes.mean(dim=1)
    elif sigmas:
        clips = sigmas * sizes.square().mean(dim=1).sqrt()
    else:
        clips = sizes.amax(dim=1)
    steps = (clips / top).half().float()[:, None]
    if bits == BINARY:
        return torch.where(weights_RC < 0, -steps, steps)
    return (weights_RC / steps.clamp_min(1e-38)).round().clamp(-top, top) * steps


class Rounding:
    """The matrices rounded, while it is entered and on.

    Args:
        config: The run's configuration.
        model: Whose matrices are rounded.
        function: `rounded`, perhaps compiled.
    """

    def __init__(self, config: Config, model: GPT, function: Callable[..., Tensor]) -> None:
        self.on = False
        self.function = function
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.matrices = []
        for name, parameter in model.named_parameters():
            bits = tensor_bits(config, name, parameter.ndim)
            if bits <= 8:
                sigmas = tensor_sigmas(config, name) if config.quant_scale == "sdclip" else 0.0
                self.matrices.append((parameter, bits, sigmas))

    def __enter__(self) -> None:
        """Round them."""
        if self.on:
            for parameter, bits, sigmas in self.matrices:
                self.kept.append((parameter, parameter.data))
                parameter.data = self.function(parameter.data, bits, sigmas)

    def __exit__(self, *_: object) -> None:
        """Put the unrounded ones back."""
        for parameter, weights in self.kept:
            parameter.data = weights
        self.kept = []
