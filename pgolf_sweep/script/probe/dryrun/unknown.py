"""Tensors whose values nobody knows: batches of tokens and what a forward pass makes of them.

An `Unknown` says that it lies on the CPU and holds a tensor of the meta device, so shapes and types
follow from torch's own rules while nothing is computed. A wrapper costs only the operations that
it takes part in; a mode would cost every operation of the process. Where an unknown meets a real
tensor in place, plausible values are written: see `write_into`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch

ATEN: Any = torch.ops.aten
MOST_REAL = 1
"""Numbers of a tensor that is made like an unknown one and is real all the same."""
PART_NUMBERS = 1 << 20
"""Of a tensor that is summed in double."""
_ANSWERS: dict[str, Any] = {
    "isnan": lambda one: torch.zeros(one.shape, dtype=torch.bool),
    "isinf": lambda one: torch.zeros(one.shape, dtype=torch.bool),
    "isfinite": lambda one: torch.ones(one.shape, dtype=torch.bool),
    "equal": lambda _: True,
    "allclose": lambda _: True,
    "is_pinned": lambda _: False,
}
_FACTORIES = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
    "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided",
})  # fmt: skip


class Unknown(torch.Tensor):
    """A tensor with a shape and a type, and without values.

    Args:
        meta: A tensor of the meta device.
    """

    _meta: torch.Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    def __new__(cls, meta: torch.Tensor) -> Self:
        """Wrap it."""
        kind: Any = torch.Tensor
        made: Any = kind._make_wrapper_subclass(
            cls, meta.shape, strides=meta.stride(), storage_offset=meta.storage_offset(),
            dtype=meta.dtype, layout=meta.layout, device="cpu",
        )  # fmt: skip
        made._meta = meta
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch's own has fewer types
        cls, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        keywords = dict(kwargs or {})
        if func in (ATEN._local_scalar_dense.default, ATEN.item.default):
            return scalar_of(args[0])
        name = func._schema.name.partition("::")[2]
        if func._schema.is_mutable and (real := _real_targets(func, args, keywords)):
            for target in real:
                write_into(target, name)
            return real[0] if len(real) == 1 else real
        if name in _ANSWERS:
            return _ANSWERS[name](args[0])
        if name in {"mm", "addmm"} and _is_gram(args[-2:]):
            # x.T @ x: a GPTQ Hessian, whose empty columns would be zeroed.
            return torch.eye(args[-1].shape[1], dtype=args[-1].dtype)
        made = _on_meta(func, name, args, keywords)
        if name in _FACTORIES and isinstance(made, torch.Tensor) and _is_small(made):
            return torch.zeros(made.shape, dtype=made.dtype)
        return _wrapped(made)

    def __reduce_ex__(self, protocol: Any) -> Any:
        real: Any = known(self)
        return real.__reduce_ex__(protocol)

    def __deepcopy__(self, _memo: Any) -> Unknown:
        return self

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Unknown({tuple(self.shape)}, {self.dtype})"


@dataclass(slots=True)
class Passes:
    """Forward passes of the model.

    Attributes:
        depth: Above zero within one.
    """

    depth: int = 0


PASSES = Passes()


def unknown_like(tensor: torch.Tensor) -> torch.Tensor:
    """An unknown tensor of the same shape and type; an unknown one comes back as it is."""
    if isinstance(tensor, Unknown):
        return tensor
    return Unknown(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))


def unknown(shape: Any, dtype: torch.dtype) -> Unknown:
    """An unknown tensor."""
    return Unknown(torch.empty(tuple(shape), dtype=dtype, device="meta"))


def known(tensor: torch.Tensor) -> torch.Tensor:
    """Plausible values for an unknown tensor: the identity for a square matrix, else ones."""
    if not isinstance(tensor, Unknown):
        return tensor
    if _is_square(tensor):
        return torch.eye(tensor.shape[0], dtype=tensor.dtype)
    return torch.ones(tensor.shape, dtype=tensor.dtype)


def scalar_of(tensor: torch.Tensor) -> Any:
    """What `.item()` of an unknown tensor says."""
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.dtype.is_floating_point else 1


def write_into(target: torch.Tensor, name: str) -> None:
    """Write something plausible into a real tensor that an unknown one is written into.

    A square matrix is taken for a sum of outer products, a GPTQ Hessian, and gets 1 on its
    diagonal; anything else counts.

    Args:
        target: The real tensor.
        name: The operation: a copy replaces, everything else adds.
    """
    with torch.no_grad():
        if name.startswith(("copy_", "set_", "fill_", "index_put", "scatter", "masked_")):
            if target.numel() and not name.startswith(("index_put", "scatter", "masked_")):
                target.copy_(known(Unknown(torch.empty_like(target, device="meta"))))
        elif _is_square(target):
            target.diagonal().add_(1)
        elif target.dtype.is_floating_point:
            target.add_(1)


def _is_square(tensor: torch.Tensor) -> bool:
    return (
        tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1] and tensor.dtype.is_floating_point
    )


def _is_small(tensor: torch.Tensor) -> bool:
    return tensor.numel() <= MOST_REAL or _is_square(tensor)


def _is_gram(args: Any) -> bool:
    left, right = args[0], args[1]
    return (
        isinstance(left, Unknown)
        and isinstance(right, Unknown)
        and left.ndim == 2
        and left.shape[0] == right.shape[1]
    )


def _real_targets(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> list[Any]:
    """The real tensors that an operation writes to."""
    found: list[Any] = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[index] if index < len(args) else keywords.get(argument.name)
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, torch.Tensor) and not isinstance(one, Unknown):
                found += [one]
    return found


def _meta(value: Any) -> Any:
    if isinstance(value, Unknown):
        return value._meta
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, torch.device):  # of `to`, which inference mode does not take apart
        return torch.device("meta")
    if isinstance(value, list | tuple):
        return [_meta(one) for one in value]
    return value


def _wrapped(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Unknown(value) if value.device.type == "meta" else value
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(one) for one in value)
    return value


_MADE: dict[Any, Any] = {}
"""What operations gave, by their arguments' shapes and types. Most of torch's operations on meta
tensors are written in Python and take a millisecond; layers and micro-steps repeat them."""


def _on_meta(func: Any, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if name in _OF_VALUES:
        return _OF_VALUES[name](args, keywords)
    if name == "index":
        args = (args[0], _without_masks(args[1]))
    keywords = {key: one for key, one in keywords.items() if key != "pin_memory"}
    if func._schema.is_mutable:
        return _computed(func, args, keywords)
    key = func, _signature(args), _signature(tuple(keywords.items()))
    if key in _MADE:
        return _again(_MADE[key])
    made = _MADE[key] = _computed(func, args, keywords)
    return _again(made)


def _signature(value: Any) -> Any:
    """All of an argument that the shape and type of an answer depend on."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.storage_offset(), value.dtype
    if isinstance(value, list | tuple):
        return tuple([_signature(one) for one in value])
    return type(value), value  # 1 and 1.0 make other types


def _again(made: Any) -> Any:
    """An answer anew: what one caller does to its tensor is not seen by the next."""
    if isinstance(made, torch.Tensor):
        return made.detach()
    if isinstance(made, list | tuple):
        return type(made)(_again(one) for one in made)
    return made


def _computed(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    positional = [_meta(one) for one in args]
    keywords = {key: _meta(one) for key, one in keywords.items()}
    if keywords.get("device") is not None:
        keywords["device"] = torch.device("meta")
    try:
        return func(*positional, **keywords)
    except RuntimeError:
        floats = {
            one.dtype
            for one in positional
            if isinstance(one, torch.Tensor) and one.is_floating_point()
        }
        if len(floats) < 2:
            raise
        # What autocast would have cast.
        dtype = min(floats, key=lambda one: torch.finfo(one).bits)
        return func(*(_cast(one, dtype) for one in positional), **keywords)


def _numbers(count: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.empty((count,), dtype=dtype, device="meta")


def _distinct(args: tuple[Any, ...], _keywords: Any) -> Any:
    count = args[0].numel()
    return _numbers(count, args[0].dtype), _numbers(count), _numbers(count)


_OF_VALUES: dict[str, Any] = {
    "nonzero": lambda args, _: torch.empty(
        (args[0].numel(), args[0].ndim), dtype=torch.int64, device="meta"
    ),
    "masked_select": lambda args, _: _numbers(args[0].numel(), args[0].dtype),
    "_unique2": _distinct,
    "unique_dim": _distinct,
    "unique_consecutive": _distinct,
    "bincount": lambda args, keywords: _numbers(
        max(args[2] if len(args) > 2 else keywords.get("minlength", 0), 1)
    ),
}
"""Operations whose shapes depend on values: as large as they may be."""


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.empty(value.shape, dtype=dtype, device="meta")
    return value


def _without_masks(indices: Any) -> list[Any]:
    """Indices in which each boolean mask is as many integers as it may select."""
    found: list[Any] = []
    for one in indices:
        if one is None or one.dtype not in {torch.bool, torch.uint8}:
            found.append(one)
            continue
        count = one.numel() if isinstance(one, Unknown) else int(one.sum())
        rank = torch.empty((count,), dtype=torch.int64, device="meta")
        found += [rank] * max(1, one.ndim)
    return found


def root_mean_square(tensor: torch.Tensor) -> float:
    """Of a real tensor; not a number where there is nothing to measure."""
    if isinstance(tensor, Unknown) or not tensor.numel():
        return math.nan
    return math.sqrt(inner_product(tensor, tensor) / tensor.numel())


def inner_product(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of two real tensors of one shape, a part after the other: copies in double take memory."""
    left, right = one.detach().reshape(-1), other.detach().reshape(-1)
    total = 0.0
    for start in range(0, left.numel(), PART_NUMBERS):
        part = slice(start, start + PART_NUMBERS)
        total += float(left[part].double() @ right[part].double())
    return total
