"""`einops` for real and unknown tensors: its rearrangements, written out in torch's own operations.

The package itself need not be here, and what it makes of a tensor decides shapes only.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

from pgolf_sweep.script.probe.stubs import put_package

_REST = "..."


def rearrange(tensor: Any, pattern: str, **sizes: int) -> Any:
    """A tensor with its axes split, moved and joined as in ``"b (h d) t -> b h t d"``.

    Args:
        tensor: The tensor.
        pattern: Names of axes before and after; those in parentheses are joined.
        sizes: Of axes that the tensor's shape does not tell.
    """
    before, after = (_groups(side) for side in pattern.split("->"))
    rest = [f".{index}" for index in range(tensor.ndim - len(before) + 1)]
    before, after = _without_rest(before, rest), _without_rest(after, rest)
    for group, side in zip(before, tensor.shape, strict=True):
        known = math.prod(sizes.get(name, 1) for name in group)
        sizes |= {name: side // known for name in group if name not in sizes}
    names = [name for group in before for name in group]
    wanted = [name for group in after for name in group]
    apart = tensor.reshape([sizes[name] for name in names])
    for name in wanted:
        if name not in names:
            apart = apart.unsqueeze(-1).expand(*apart.shape, sizes[name])
            names.append(name)
    moved = apart.permute([names.index(name) for name in wanted])
    return moved.reshape([math.prod(sizes[name] for name in group) for group in after])


def reduce(tensor: Any, pattern: str, reduction: str, **sizes: int) -> Any:
    """A tensor without the axes that `pattern` names before and not after; see `rearrange`.

    Args:
        tensor: The tensor.
        pattern: As of `rearrange`.
        reduction: What becomes of numbers along such an axis: ``mean``, ``sum``, ``max``, ``min``.
        sizes: As of `rearrange`.
    """
    before, after = (side.strip() for side in pattern.split("->"))
    kept = [name for group in _groups(after) for name in group]
    gone = [name for group in _groups(before) for name in group if name not in kept]
    last = rearrange(tensor, f"{before} -> {' '.join(kept)} ({' '.join(gone)})", **sizes)
    made = getattr(last, {"max": "amax", "min": "amin"}.get(reduction, reduction))(-1)
    return rearrange(made, f"{' '.join(kept)} -> {after}", **sizes) if "(" in after else made


class Rearrange(nn.Module):
    """`rearrange` as a layer."""

    def __init__(self, pattern: str, **sizes: int) -> None:
        super().__init__()
        self.pattern, self.sizes = pattern, sizes

    def forward(self, tensor: Any) -> Any:
        """The tensor rearranged."""
        return rearrange(tensor, self.pattern, **self.sizes)


def _groups(side: str) -> list[list[str]]:
    """Axes of one side of a pattern, joined ones in one list; an axis of one has no name."""
    found = re.findall(r"\(([^)]*)\)|(\.\.\.|\w+)", side)
    return [[name for name in (joined or single).split() if name != "1"]
            for joined, single in found]  # fmt: skip


def _without_rest(groups: list[list[str]], rest: list[str]) -> list[list[str]]:
    """Groups with a name for each axis that ``...`` stands for."""
    found: list[list[str]] = []
    for group in groups:
        found += [[name] for name in rest] if group == [_REST] else [group]
    return found


def install() -> None:
    """Put it where scripts import it from, for the rest of this process."""
    members: dict[str, dict[str, object]] = {
        "": {"rearrange": rearrange, "repeat": rearrange, "reduce": reduce},
        ".layers": {},
        ".layers.torch": {"Rearrange": Rearrange},
    }
    put_package("einops", "0.8.0", members)
