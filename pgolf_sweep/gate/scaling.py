"""One measured export of a script, carried over to a model of other shapes.

What a number costs depends on how its tensor is quantized and coded, so bits a number are taken by
the tensor's name, digits of layers aside. Row lengths and block effects are left out: a per cent
or so, which the prediction carries as a trait of its own. What is stored beside the tensors of the
model, as a table, is taken to stay as it is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.script.probe.prober import ProbedTensor
    from pgolf_sweep.script.probe.runner import Exported, Update

SCALED_SHARE = 0.012
"""Spread of what is carried over by tensors' names. Source: exports of the contest's baseline at 6
to 12 layers and 384 to 640 columns."""
UNNAMED_SHARE = 0.03
"""The same where what is stored has no names: bytes a parameter are taken for all."""
BESIDE_SHARE = 1 / 3
"""The same of what is stored beside the model's tensors, in what it would be off by if it grew with
them: a 99 % interval reaches that far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A size carried over.

    Attributes:
        factor: The new model's bytes over those that were measured.
        share: Its relative spread.
    """

    factor: float
    share: float


def scaled(
    before: Iterable[ProbedTensor], exported: Exported, after: Iterable[ProbedTensor]
) -> Scaled:
    """How much larger the export of another shape is.

    Args:
        before: The tensors of the model that was exported.
        exported: What came of it.
        after: The tensors of the other model.
    """
    before, after = list(before), list(after)
    bits = _bits_by_class(before, exported)
    if not bits:
        plain = [sum(one.params for one in tensors) for tensors in (before, after)]
        return Scaled(factor=plain[1] / max(1, plain[0]), share=UNNAMED_SHARE)
    mean = sum(bits.values()) / len(bits)
    old, new = (
        sum(one.params * bits.get(class_of(one.name), mean) for one in tensors)
        for tensors in (before, after)
    )
    grown = new / old if old else 1.0
    beside = _bits_beside(before, exported)
    factor = (new + beside) / (old + beside) if old else 1.0
    unsure = BESIDE_SHARE * abs(grown / factor - 1)
    return Scaled(factor=factor, share=math.hypot(SCALED_SHARE, unsure))


def class_of(name: str) -> str:
    """A tensor's name, digits of layers as ``*``."""
    return re.sub(r"\d+", "*", name)


def _bits_beside(tensors: Iterable[ProbedTensor], exported: Exported) -> float:
    """Bits of what is stored under names that no tensor of the model has."""
    classes = {class_of(tensor.name) for tensor in tensors}
    return sum(
        one.numbers * one.entropy
        for one in exported.stored
        if not any(key in class_of(one.name) for key in classes)
    )


def _bits_by_class(tensors: Iterable[ProbedTensor], exported: Exported) -> Mapping[str, float]:
    """Bits a parameter, by class; empty where what is stored is not named as the model is."""
    spent: dict[str, float] = {}
    numbers: dict[str, int] = {}
    by_class: dict[str, float] = {}
    for one in exported.stored:
        key = class_of(one.name)
        by_class[key] = by_class.get(key, 0.0) + one.numbers * one.entropy
    for tensor in tensors:
        key = class_of(tensor.name)
        numbers[key] = numbers.get(key, 0) + tensor.params
    for key in numbers:
        spent[key] = sum(bits for stored, bits in by_class.items() if key in stored)
    found = {key: spent[key] / numbers[key] for key in numbers if numbers[key]}
    named = sum(numbers[key] for key, bits in found.items() if bits)
    return found if named > sum(numbers.values()) / 2 else {}


def updates_for(
    updates: Iterable[Update], tensors: Iterable[ProbedTensor]
) -> list[tuple[Update, tuple[str, ...]]]:
    """Which tensors of another model each optimizer would get, by the classes of its members."""
    names = [tensor.name for tensor in tensors]
    found = []
    for update in updates:
        classes = {class_of(name) for name in update.members}
        found.append((update, tuple(name for name in names if class_of(name) in classes)))
    return found
