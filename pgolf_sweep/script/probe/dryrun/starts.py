"""Random starts of large tensors, as copies of one Gaussian block of the same spread.

To draw all of them, and QR where they shall be orthogonal, takes half of a count; the weights of an
export are drawn anyway.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch

from pgolf_sweep.script.probe.dryrun.unknown import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_NUMBERS = 1 << 18


def _fans(tensor: Any) -> tuple[int, int]:
    return tensor.numel() // max(1, tensor.shape[0]), tensor.numel() // max(1, tensor.shape[1])


def _normal(_: Any, mean: float = 0.0, std: float = 1.0, *__: Any, **___: Any) -> float:
    return std if mean == 0 else 0.0


def _kaiming(tensor: Any, a: float = 0, mode: str = "fan_in", *_: Any, **__: Any) -> float:
    return math.sqrt(2 / (1 + a * a) / _fans(tensor)[mode == "fan_out"])


def _xavier(tensor: Any, gain: float = 1.0, *_: Any, **__: Any) -> float:
    return gain * math.sqrt(2 / sum(_fans(tensor)))


def _orthogonal(tensor: Any, gain: float = 1.0, *_: Any, **__: Any) -> float:
    return gain / math.sqrt(max(tensor.shape[0], _fans(tensor)[0]))


SPREADS: dict[str, Callable[..., float]] = {
    "normal_": _normal, "trunc_normal_": _normal, "kaiming_uniform_": _kaiming,
    "kaiming_normal_": _kaiming, "xavier_uniform_": _xavier, "xavier_normal_": _xavier,
    "orthogonal_": _orthogonal,
}  # fmt: skip
"""Standard deviation of what a function of `torch.nn.init` leaves; 0 where it is to run itself."""


def install() -> None:
    """Patch `torch.nn.init`, for the rest of this process."""
    initial: Any = torch.nn.init
    block = torch.randn(BLOCK_NUMBERS, generator=torch.Generator().manual_seed(0))
    for name, spread in SPREADS.items():
        setattr(initial, name, _quick(getattr(initial, name), spread, block))


def _quick(true: Any, spread: Callable[..., float], block: Any) -> Any:
    @functools.wraps(true)
    def start(tensor: Any, *args: Any, **keywords: Any) -> Any:
        sigma = spread(tensor, *args, **keywords) if _is_large(tensor) else 0.0
        if sigma <= 0:
            return true(tensor, *args, **keywords)
        scaled = block * sigma
        with torch.no_grad():
            for part in tensor.view(-1).split(BLOCK_NUMBERS):
                part.copy_(scaled[: part.numel()])
        return tensor

    return start


def _is_large(tensor: Any) -> bool:
    return (
        isinstance(tensor, torch.Tensor)
        and not isinstance(tensor, Unknown)
        and tensor.device.type == "cpu"
        and tensor.ndim > 1
        and tensor.numel() >= BLOCK_NUMBERS
        and tensor.is_contiguous()
    )
