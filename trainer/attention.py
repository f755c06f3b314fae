"""The attention kernel of a GPU, chosen by a measurement at the run's start, alike on all ranks.

Not yet run on a GPU. FA3 is there where `flash_attn_interface` is installed and torch is 2.13 or
newer; cuDNN and FA2 come with torch.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.nn import attention, functional

from trainer.runtime import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.config import Config

REPEATS = 10
UNAVAILABLE = ImportError, RuntimeError, ValueError, AttributeError
"""What is raised for a kernel that is not installed, not of this torch, or not for this shape."""


def fastest(
    kernels: dict[str, Callable[[], object]],
    seconds: Callable[[], float],
    device: torch.device,
    world_size: int = 1,
) -> str:
    """Switch to the kernel that takes least time in all ranks' sum, and name it.

    Ranks measure apart, and each by itself might choose another kernel: their steps would differ in
    time and rounding.

    Args:
        kernels: What switches to each; one that cannot be on any rank raises one of `UNAVAILABLE`.
        seconds: What the present one takes; likewise.
        device: Of the message between the ranks.
        world_size: Their number.
    """
    spent = torch.full((len(kernels),), torch.inf, device=device)
    for index, switch in enumerate(kernels.values()):
        with suppress(*UNAVAILABLE):
            switch()
            spent[index] = seconds()
    if world_size > 1:
        dist.all_reduce(spent)
    best = list(kernels)[int(spent.argmin())]
    kernels[best]()
    return best


def switch_flash(name: str) -> None:
    """Have flash attention compute by FA2, torch's own, or by FA3 where this torch knows it."""
    torch.backends.cuda.enable_cudnn_sdp(enabled=name == "cuDNN")
    torch.backends.cuda.enable_flash_sdp(enabled=name != "cuDNN")
    if name == "FA3":
        attention.activate_flash_attention_impl("FA3")
    elif hasattr(attention, "restore_flash_attention_impl"):
        attention.restore_flash_attention_impl()


def choose_attention(config: Config, rows: int, device: torch.device) -> str:
    """The fastest kernel for a micro-batch of `rows` sequences, switched to."""
    length, width = config.train_seq_len, config.head_dim
    heads = config.num_heads, config.num_kv_heads, config.num_kv_heads
    inputs = [
        torch.randn(rows, count, length, width, device=device, dtype=torch.bfloat16)
        for count in heads
    ]

    def seconds() -> float:
        for _ in range(2):  # the first turn warms up
            watch = Stopwatch(device)
            watch.resume()
            for _ in range(REPEATS):
                q, k, v = (each.requires_grad_() for each in inputs)
                y = functional.scaled_dot_product_attention(
                    q, k, v, is_causal=True, enable_gqa=True
                )
                y.sum().backward()
            watch.pause()
        return watch.before

    names = ("FA3", "cuDNN", "FA2")
    kernels = {name: lambda name=name: switch_flash(name) for name in names}
    return fastest(kernels, seconds, device, config.world_size)
