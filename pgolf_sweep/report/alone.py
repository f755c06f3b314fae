"""Effect of each change in a study whose grid changes one parameter at a time."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import State, score_name
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.report.compare import seed_of
from pgolf_sweep.space.space import is_seed
from pgolf_sweep.submission.effects import paired

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.space.space import Space
    from pgolf_sweep.submission.effects import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """One change against the same configuration without it, on the seeds that both ran on.

    Attributes:
        knob: The parameter that changes.
        value: Its value.
        base_value: Its first value.
        beside: What else differs from all first values: the values that the parameter depends on.
        trials: Scored runs of the change.
        base_trials: Those without it.
        seeds: On which both have a score.
        val_bpb: Mean over those seeds; None without one.
        base_bpb: The same without the change.
        effect: Mean of the paired differences, change minus base; None below two seeds.
        artifact_bytes: Mean over those seeds; None where unknown.
        base_artifact_bytes: The same without the change.
        slot_seconds: Mean of a run.
    """

    knob: str
    value: KnobValue
    base_value: KnobValue
    beside: Mapping[str, KnobValue]
    trials: tuple[int, ...]
    base_trials: tuple[int, ...]
    seeds: tuple[int, ...]
    val_bpb: float | None
    base_bpb: float | None
    effect: Effect | None
    artifact_bytes: float | None
    base_artifact_bytes: float | None
    slot_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OneAtATime:
    """All changes of a study, in the grid's order.

    Attributes:
        metric: The score's name.
        maximize: Whether it is good when high.
    """

    study: str
    metric: str
    maximize: bool
    changes: tuple[Alone, ...]


def one_at_a_time(study: str, space: Space, records: Sequence[TrialRecord]) -> OneAtATime:
    """The paired effect of each change.

    Args:
        study: The study's name.
        space: Of its sweep file.
        records: Its rows.

    Raises:
        InputError: Its grid does not change one parameter at a time.
    """
    if not space.one_at_a_time:
        raise InputError(
            f"study {study} is no grid of one parameter at a time",
            expected="two trials to compare, or `pgolf: {one_at_a_time: true}` in its sweep file",
            next_step=f"pgolf-sweep compare {study} A B",
        )
    names = [name for name in space.parameters if not is_seed(name)]
    runs: dict[str, dict[int, TrialRecord]] = {}
    for record in records:
        if record.outcome is State.COMPLETED and record.val_bpb is not None:
            runs.setdefault(_key(names, record.knobs), {})[seed_of(record)] = record
    first = {name: next(p.domain.values()) for name, p in space.parameters.items()}
    ordered = [p.name for p in space.ordered() if not is_seed(p.name)]
    grid = {_key(names, knobs): knobs for knobs in space.grid()}
    changed = {
        key: tuple(n for n in ordered if n in knobs and _differs(knobs[n], first[n]))
        for key, knobs in grid.items()
    }
    by_change = {_values(grid[key], names): key for key, names in changed.items()}
    changes = []
    for key, parameters in changed.items():
        if parameters:
            knobs = grid[key]
            base = by_change[_values(knobs, parameters[:-1])]
            beside = {name: knobs[name] for name in parameters[:-1]}
            knob = parameters[-1]
            changes.append(
                _alone(knob, knobs[knob], first[knob], beside, runs.get(base), runs.get(key))
            )
    return OneAtATime(
        study=study,
        metric=score_name(records),
        maximize=any(record.maximize for record in records),
        changes=tuple(changes),
    )


def _key(names: Iterable[str], knobs: Mapping[str, KnobValue]) -> str:
    return repr([(name, knob_text(knobs[name])) for name in names if name in knobs])


def _values(knobs: Mapping[str, KnobValue], names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, knob_text(knobs[name])) for name in names)


def _differs(value: KnobValue, first: KnobValue) -> bool:
    return knob_text(value) != knob_text(first)


def _alone(
    knob: str,
    value: KnobValue,
    base_value: KnobValue,
    beside: Mapping[str, KnobValue],
    base: Mapping[int, TrialRecord] | None,
    runs: Mapping[int, TrialRecord] | None,
) -> Alone:
    base, runs = base or {}, runs or {}
    seeds = tuple(sorted(seed for seed in runs if seed in base))
    ours = [runs[seed] for seed in seeds]
    theirs = [base[seed] for seed in seeds]
    return Alone(
        knob=knob,
        value=value,
        base_value=base_value,
        beside=beside,
        trials=tuple(record.number for record in runs.values()),
        base_trials=tuple(record.number for record in base.values()),
        seeds=seeds,
        val_bpb=_mean([record.val_bpb for record in ours]),
        base_bpb=_mean([record.val_bpb for record in theirs]),
        effect=paired(
            [
                a.val_bpb - b.val_bpb
                for a, b in zip(ours, theirs, strict=True)
                if a.val_bpb is not None and b.val_bpb is not None
            ]
        ),
        artifact_bytes=_mean([record.artifact_bytes for record in ours]),
        base_artifact_bytes=_mean([record.artifact_bytes for record in theirs]),
        slot_seconds=_mean([record.slot_seconds for record in ours]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
