"""What a script stores: the tensors that `torch.save` is given, and their entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pgolf_sweep.script.probe.dryrun.unknown import Unknown, known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_TENSORS = 4000
NARROW = {torch.int8: np.int8, torch.uint8: np.uint8, torch.int16: np.int16}


class Saving:
    """Watches `torch.save` and `torch.load`.

    Args:
        loaded: Called when something is loaded.
    """

    def __init__(self, loaded: Callable[[], None]) -> None:
        self._loaded = loaded
        self.last: list[dict[str, Any]] = []

    def install(self) -> None:
        """From here on, for the rest of this process."""
        module: Any = torch
        save, load = torch.save, torch.load

        def saved(item: Any, file: Any, *args: Any, **keywords: Any) -> Any:
            found = list(_stored("", item))
            if any(one["bits"] < 16 for one in found):
                self.last = found[:MOST_TENSORS]
            return save(_real(item), file, *args, **keywords)

        def read(*args: Any, **keywords: Any) -> Any:
            self._loaded()
            return load(*args, **keywords)

        module.save, module.load = saved, read


def _real(item: Any) -> Any:
    if isinstance(item, Unknown):
        return known(item)
    if type(item) is dict:
        return {key: _real(value) for key, value in item.items()}
    return item


def _stored(name: str, item: Any) -> Iterator[dict[str, Any]]:
    """The tensors within something that is stored, by name."""
    if isinstance(item, torch.Tensor):
        if isinstance(item, Unknown) or not item.numel():
            return
        yield {
            "name": name,
            "numbers": item.numel(),
            "dtype": str(item.dtype)[6:],
            **_levels(item),
        }
    elif isinstance(item, dict):
        for key, value in item.items():
            yield from _stored(f"{name}.{key}" if name else str(key), value)
    elif isinstance(item, list | tuple):
        for index, value in enumerate(item):
            yield from _stored(f"{name}.{index}", value)


def _levels(tensor: Any) -> dict[str, Any]:
    """Distinct values of integers and the bits of their entropy."""
    kind = NARROW.get(tensor.dtype)
    if kind is None:
        width = tensor.element_size() * 8
        return {"levels": 0, "bits": width, "entropy": float(width)}
    values = tensor.detach().reshape(-1).numpy().astype(np.int32)
    counts = np.bincount(values - values.min())
    counts = counts[counts > 0]
    entropy = float((counts * np.log2(values.size / counts)).sum()) / values.size
    levels = len(counts)
    return {"levels": levels, "bits": max(1, (levels - 1).bit_length()), "entropy": entropy}
