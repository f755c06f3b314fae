"""Forward passes that were made before: their answers are known by the shapes alone.

Without this, 20 warm-ups of 8 micro-steps take minutes, as do the 64 batches that a GPTQ export
collects its Hessians from, or a script that generates its own calibration text token by token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from pgolf_sweep.script.probe.dryrun.unknown import PASSES, Unknown, unknown, unknown_like

if TYPE_CHECKING:
    from collections.abc import Callable

HOOKED_PASSES = 2
"""Passes that hooks see: sums of what they saw are then as good as after many."""
SHAPES_UNTIL_INFERRED = 6
"""Passes of different lengths after which the shape of the next answer is inferred."""

_Seen: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""A pass: the sides of its inputs, those of its answer, and the answer's type."""
_Rule: TypeAlias = tuple[list[tuple[int | None, int]], torch.dtype]


class Repeats:
    """The outermost forward passes of a process."""

    def __init__(self) -> None:
        self._answers: dict[Any, Any] = {}
        self._passes: dict[Any, int] = {}
        self._shapes: dict[Any, list[_Seen]] = {}
        self._rules: dict[Any, _Rule] = {}
        self._unhooked: dict[int, int] = {}  # by module: hooks of this process when it had none

    def call(
        self, module: Any, name: str, true: Callable[..., Any], args: Any, keywords: Any
    ) -> Any:
        """A module's answer: made, or taken from an earlier pass of the same shapes.

        Args:
            module: The module.
            name: The method's name.
            true: The method, bound.
            args: What it gets.
            keywords: What it gets by name.
        """
        if PASSES.depth or not _holds_unknown((args, keywords)):
            return true(*args, **keywords)
        hooks = self._hooks(module)
        kind, shapes = _key(module, name, args, keywords, hooks)
        key = kind, shapes
        passes = self._passes.get(key, 0)
        if key in self._answers and (not hooks or passes >= HOOKED_PASSES):
            return tree_map(_fresh, self._answers[key])
        known = self._inferred(kind, shapes)
        if known is not None:
            return known
        PASSES.depth += 1
        try:
            answer = true(*args, **keywords)
        finally:
            PASSES.depth -= 1
        self._passes[key] = passes + 1
        if isinstance(answer, torch.Tensor | tuple | list | dict):
            self._answers[key] = answer
        if isinstance(answer, Unknown):
            self._shapes.setdefault(kind, []).append((shapes, tuple(answer.shape), answer.dtype))
        return answer

    def _hooks(self, module: Any) -> int:
        """A number of the hooks that watch a module or its parts; 0 without any."""
        made = RemovableHandle.next_id
        if self._unhooked.get(id(module)) == made:
            return 0
        found: int = sum(
            sum(one._forward_hooks) + sum(one._forward_pre_hooks) + 1
            for one in module.modules()
            if one._forward_hooks or one._forward_pre_hooks
        )
        if not found:
            self._unhooked[id(module)] = made
        return found

    def _inferred(self, kind: Any, shapes: tuple[int, ...]) -> Any:
        """An answer of which each side is constant or that of an input; None where it is not."""
        if kind not in self._rules:
            rule = _rule(self._shapes.get(kind, []))
            if rule is None:
                return None
            self._rules[kind] = rule
        sides, dtype = self._rules[kind]
        return unknown([one if of is None else shapes[of] for of, one in sides], dtype)


def _rule(seen: list[_Seen]) -> _Rule | None:
    """Each side of an answer as the place of an equal input side, or a constant."""
    if len(seen) < SHAPES_UNTIL_INFERRED:
        return None
    sides: list[tuple[int | None, int]] = []
    for index in range(len(seen[0][1])):
        values = [out[index] for _, out, _ in seen]
        inputs = [i for i in range(len(seen[0][0])) if [given[i] for given, _, _ in seen] == values]
        if not inputs and len(set(values)) > 1:
            return None
        sides.append((inputs[0] if inputs else None, values[0]))
    return sides, seen[0][2]


def _holds_unknown(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_unknown, value))
    if isinstance(value, dict):
        return any(map(_holds_unknown, value.values()))
    return isinstance(value, Unknown)


def _fresh(value: Any) -> Any:
    return unknown_like(value) if isinstance(value, Unknown) else value


def _key(
    module: Any, name: str, args: Any, keywords: Any, hooks: int
) -> tuple[Any, tuple[int, ...]]:
    """What a pass depends on but for lengths, and the lengths."""
    shapes: list[int] = []
    parts = _parts(args, shapes), _parts(keywords, shapes)
    return (id(module), name, module.training, hooks, parts), tuple(shapes)


def _parts(value: Any, shapes: list[int]) -> Any:
    """What of an argument decides but for lengths, which are added to `shapes`."""
    if isinstance(value, torch.Tensor):
        shapes.extend(value.shape)
        return value.ndim, value.dtype
    if isinstance(value, list | tuple):
        return type(value), *(_parts(one, shapes) for one in value)
    if isinstance(value, dict):
        return type(value), *((key, _parts(one, shapes)) for key, one in value.items())
    return repr(value)[:80]
