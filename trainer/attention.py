"""The attention kernel of a GPU, chosen by a measurement at the run's start. Not yet run on one.

FA3 is there where `flash_attn_interface` is installed; cuDNN and FA2 come with torch.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch.nn import attention, functional

from trainer.runtime import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.config import Config

REPEATS = 10
UNAVAILABLE = ImportError, RuntimeError, ValueError, AttributeError
"""What is raised for a kernel that is not installed, not of this torch, or not for this shape."""


def fastest(kernels: dict[str, Callable[[], object]], seconds: Callable[[], float]) -> str:
    """Switch to the kernel that takes least time, and name it.

    Args:
        kernels: What switches to each; one that cannot be raises one of `UNAVAILABLE`.
        seconds: What the present one takes; likewise.
    """
    spent: dict[str, float] = {}
    for name, switch in kernels.items():
        with suppress(*UNAVAILABLE):
            switch()
            spent[name] = seconds()
    best = min(spent, key=spent.__getitem__)
    kernels[best]()
    return best


def switch_flash(name: str) -> None:
    """Have flash attention compute by FA2, torch's own, or by FA3."""
    torch.backends.cuda.enable_cudnn_sdp(enabled=name == "cuDNN")
    torch.backends.cuda.enable_flash_sdp(enabled=name != "cuDNN")
    if name == "FA3":
        attention.activate_flash_attention_impl("FA3")
    else:
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
    return fastest({name: lambda name=name: switch_flash(name) for name in names}, seconds)
