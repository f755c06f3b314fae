"""The bytes of a script's export, and its parameters, by tensor group."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pgolf_sweep.gate.physics.predict import GroupSize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgolf_sweep.script.probe.prober import ProbedTensor
    from pgolf_sweep.script.probe.runner import Counted, Exported

GROUPS = ("embed", "attn", "mlp", "control", "head")


def groups_of(
    counted: Counted, exported: Exported, size: float, group_of: Callable[[str], str]
) -> tuple[GroupSize, ...]:
    """Groups whose sizes add up to a prediction's, shared out by what was stored of each.

    Args:
        counted: The model.
        exported: What its export stored.
        size: The prediction in bytes.
        group_of: The group that a tensor's name speaks of.
    """
    params = dict.fromkeys(GROUPS, 0)
    for tensor in counted.tensors:
        group = "control" if len(tensor.shape) < 2 else group_of(tensor.name)
        params[group] += tensor.params
    weights, bits = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0)
    for one in exported.stored:
        group = "control" if one.bits >= 16 else group_of(one.name)
        weights[group] += one.numbers * one.entropy
        bits[group] = max(bits[group], one.bits)
    if not any(weights.values()):  # packed by the script's own means
        weights = {group: float(count) for group, count in params.items()}
    whole = math.fsum(weights.values()) or 1.0
    return tuple(
        GroupSize(
            group=group,
            params=params[group],
            bits=bits[group],
            model_bytes=size * weights[group] / whole,
        )
        for group in GROUPS
        if weights[group] or params[group]
    )


def numbers_in(tensors: Iterable[ProbedTensor], group_of: Callable[[str], str]) -> tuple[int, int]:
    """Numbers in the blocks' matrices, and in those of the vocabulary."""
    matrices, vocabulary = 0, 0
    for tensor in tensors:
        if len(tensor.shape) < 2:
            continue
        if group_of(tensor.name) in {"embed", "head"}:
            vocabulary += tensor.params
        else:
            matrices += tensor.params
    return matrices, vocabulary


def has_few_pieces(tensors: Iterable[ProbedTensor], group_of: Callable[[str], str]) -> bool:
    """Whether each table of the vocabulary has fewer rows than columns: of bytes, for example."""
    tables = [
        tensor.shape
        for tensor in tensors
        if len(tensor.shape) == 2 and group_of(tensor.name) in {"embed", "head"}
    ]
    return bool(tables) and all(rows < columns for rows, columns in tables)
