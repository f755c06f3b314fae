"""Knobs that a script reads and that change nothing, seen in the results of finished trials.

Two trials whose scores are equal to the last digit ran the same computation: what differs
between their knobs had no effect. A knob is only accused where no other pair acquits it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import State
from pgolf_sweep.space.domains import value_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.record import TrialRecord

LEAST_DECIMALS = 6
"""A score with fewer may be equal by accident, unless the model's bytes are equal as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOp:
    """Knobs that differ between trials of bit-identical results.

    Attributes:
        knobs: Without effect, at least at the values of these trials.
        trials: Numbers of the trials, oldest first.
        groups: The same numbers; only those within a group share a score.
    """

    knobs: tuple[str, ...]
    trials: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def sentence(self) -> str:
        """For people."""
        verb = "changes" if len(self.knobs) == 1 else "change"
        first, *more = (", ".join(str(number) for number in group) for group in self.groups)
        others = "".join(f"; so have {numbers}" for numbers in more)
        names = " and ".join(self.knobs)
        return f"{names} {verb} nothing: trials {first} have identical scores{others}"


def no_op_knobs(records: Iterable[TrialRecord]) -> list[NoOp]:
    """Knobs that were set differently without any effect, by the evidence of finished trials."""
    done = [
        record
        for record in records
        if record.outcome is State.COMPLETED
        and record.duplicate_of is None
        and record.val_bpb is not None
        and not record.variant
    ]
    by_result: dict[tuple[object, ...], list[TrialRecord]] = defaultdict(list)
    for record in done:
        by_result[record.val_bpb, record.val_loss_nats, record.model_bytes, record.steps].append(
            record
        )
    accused: dict[tuple[str, ...], list[set[int]]] = defaultdict(list)
    for group in by_result.values():
        if len(group) > 1 and _telling(group[0]):
            here: dict[tuple[str, ...], set[int]] = defaultdict(set)
            for one, other in itertools.combinations(group, 2):
                if names := _differing(one, other):
                    here[names] |= {one.number, other.number}
            for names, numbers in here.items():
                accused[names].append(numbers)
    if not accused:
        return []
    acquitted = _with_effect(done)
    found: list[NoOp] = []
    for names, sets in sorted(accused.items(), key=lambda item: (len(item[0]), item[0])):
        # What two changes do together is explained by each of them having been found idle.
        alone = {name for known in found for name in known.knobs}
        if not set(names) & acquitted and not set(names) <= alone:
            groups = tuple(sorted(tuple(sorted(numbers)) for numbers in sets))
            trials = tuple(sorted(itertools.chain.from_iterable(groups)))
            found.append(NoOp(knobs=names, trials=trials, groups=groups))
    return found


def _telling(record: TrialRecord) -> bool:
    """Whether equal results can hardly be an accident."""
    if record.model_bytes is not None:
        return True
    return len(repr(record.val_bpb).partition(".")[2]) >= LEAST_DECIMALS


def _differing(one: TrialRecord, other: TrialRecord) -> tuple[str, ...]:
    names = {*one.knobs, *other.knobs}
    return tuple(sorted(name for name in names if one.knobs.get(name) != other.knobs.get(name)))


def _with_effect(done: list[TrialRecord]) -> set[str]:
    """Knobs that alone made a difference between some two trials."""
    names = {name for record in done for name in record.knobs}
    found = set()
    for name in names:
        results: dict[frozenset[tuple[str, object]], set[float | None]] = defaultdict(set)
        values: dict[frozenset[tuple[str, object]], set[object]] = defaultdict(set)
        for record in done:
            rest = frozenset((k, value_key(v)) for k, v in record.knobs.items() if k != name)
            results[rest].add(record.val_bpb)
            values[rest].add(value_key(record.knobs.get(name)))
        if any(len(results[rest]) > 1 and len(values[rest]) > 1 for rest in results):
            found.add(name)
    return found
