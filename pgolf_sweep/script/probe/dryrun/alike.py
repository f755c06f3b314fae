"""Slow quantizers of alike matrices: one is quantized, the others get its codes shuffled.

A GPTQ export takes a second or more for each of some seventy matrices, most of which have the same
shape and, drawn as they are, the same distribution. What one of them became, shuffled by row and
by column, is distributed as what another would have become, and holds no repetition that a codec
could find.
"""

from __future__ import annotations

import functools
import re
import time
import types
from typing import Any

import torch

from pgolf_sweep.script.probe.dryrun.unknown import Unknown, root_mean_square

SLOW_SECONDS = 0.03
"""Of processor time: a quantizer that takes less runs for every matrix."""
SAME_SPREAD = 0.03
"""Relative difference of the spread up to which two matrices are alike."""
LEAST_NUMBERS = 1 << 14
_QUANTIZERS = re.compile(r"gptq|quant", re.IGNORECASE)


class Alike:
    """What slow quantizers made of matrices."""

    def __init__(self) -> None:
        self._seconds = time.process_time  # the script's clock jumps
        self._made: dict[Any, list[tuple[float, Any]]] = {}
        self._generator = torch.Generator().manual_seed(0)

    def watch(self, namespace: dict[str, Any]) -> None:
        """Look up what the functions of a script that quantize one matrix have made before."""
        for name, function in list(namespace.items()):
            if isinstance(function, types.FunctionType) and _QUANTIZERS.search(name):
                namespace[name] = self._watched(name, function)

    def _watched(self, name: str, function: Any) -> Any:
        @functools.wraps(function)
        def quantize(*args: Any, **keywords: Any) -> Any:
            matrix: Any = args[0] if args else None
            if not _is_matrix(matrix):
                return function(*args, **keywords)
            key = name, _key(args), _key([value for _, value in sorted(keywords.items())])
            spread = root_mean_square(matrix)
            for before, made in self._made.get(key, ()):
                if abs(spread - before) <= SAME_SPREAD * before:
                    return self._shuffled(made, matrix.shape)
            began = self._seconds()
            made = function(*args, **keywords)
            if self._seconds() - began > SLOW_SECONDS and _tensors(made) is not None:
                self._made.setdefault(key, []).append((spread, made))
            return made

        return quantize

    def _shuffled(self, made: Any, shape: Any) -> Any:
        rows = torch.randperm(shape[0], generator=self._generator)
        columns = torch.randperm(shape[1], generator=self._generator)

        def shuffled(one: Any) -> Any:
            if not isinstance(one, torch.Tensor) or not one.ndim or isinstance(one, Unknown):
                return one
            if one.shape[0] == shape[0]:
                one = one[rows]
            if one.ndim > 1 and one.shape[1] == shape[1]:
                one = one[:, columns]
            return one.clone()

        return shuffled(made) if isinstance(made, torch.Tensor) else type(made)(map(shuffled, made))


def _is_matrix(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and not isinstance(value, Unknown)
        and value.ndim == 2
        and value.numel() >= LEAST_NUMBERS
        and value.is_floating_point()
    )


def _key(values: Any) -> tuple[Any, ...]:
    """What else decides: shapes of tensors, names without the layer's number, values."""
    return tuple(
        (tuple(one.shape), one.dtype)
        if isinstance(one, torch.Tensor)
        else re.sub(r"\d+", "*", one)
        if isinstance(one, str)
        else repr(one)[:80]
        for one in values
    )


def _tensors(made: Any) -> Any:
    """What was made, where it can be shuffled."""
    if isinstance(made, torch.Tensor):
        return made
    if type(made) in {tuple, list} and any(isinstance(one, torch.Tensor) for one in made):
        return made
    return None
