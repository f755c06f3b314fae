"""A study's trials as the pruner sees them, kept up at the cost of those that are new."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from pgolf_sweep.search.forecast import Forecast
from pgolf_sweep.search.halving import Curve, Judgement, Pruner
from pgolf_sweep.search.journal import JUDGED, RECORD
from pgolf_sweep.search.proposing import expected_noise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.core.trial import KnobValue

FRACTIONS = "fractions"
"""User attribute of a trial: fraction of the schedule at each of its validations; None: unknown."""


class StudyPruner:
    """The pruner of one study.

    Args:
        study: It.
        spec: The sweep, with a rule of stopping early.
    """

    def __init__(self, study: optuna.Study, spec: SweepSpec) -> None:
        assert spec.early_terminate is not None  # noqa: S101 - else there is nothing to judge by
        self._study = study
        self._export = spec.pgolf.export_knobs
        by_forecast = spec.early_terminate.kind == "forecast"
        self._forecast = Forecast(spec.space, expected_noise(spec)) if by_forecast else None
        self._pruner = Pruner(spec.early_terminate, self._forecast)
        self._settled = 0
        """Every trial below this number has ended and was taken up."""
        self._taken: set[int] = set()

    def report(
        self,
        trial: optuna.Trial,
        frozen: FrozenTrial,
        val_bpb: float,
        fraction: float | None,
        knobs: Mapping[str, KnobValue],
    ) -> Judgement | None:
        """Take in a trial's newest validation; its judgement if it is found behind.

        Args:
            trial: The trial.
            frozen: It, as it was before.
            val_bpb: The score.
            fraction: Share of its schedule; None where the script does not say.
            knobs: Its knobs.
        """
        self._take_up()
        number = frozen.number
        curve = self._pruner.known(number)
        ordinal = len(frozen.intermediate_values) + 1
        if curve is None or len(curve.points) != ordinal - 1:
            curve = self._curve(frozen, knobs)
        fractions = [*frozen.user_attrs.get(FRACTIONS, ())[: ordinal - 1], fraction]
        trial.set_user_attr(FRACTIONS, fractions)
        curve.scaled = curve.scaled and fraction is not None
        if math.isfinite(val_bpb):
            curve.points.append((fraction if fraction is not None else float(ordinal), val_bpb))
        self._pruner.follow(curve)
        judgement = self._pruner.judge(number) if math.isfinite(val_bpb) else None
        if judgement is not None:
            curve.settled = curve.behind = True
            trial.set_user_attr(JUDGED, dataclasses.asdict(judgement))
        return judgement

    def again(self, frozen: FrozenTrial, ordinal: int) -> Judgement | None:
        """The judgement that an earlier attempt of a trial got at a validation or before."""
        judged = frozen.user_attrs.get(JUDGED)
        return Judgement(**judged) if judged is not None and judged["ordinal"] <= ordinal else None

    def never_acts(self, number: int) -> str | None:
        """Why the rule cannot stop trials that report as this completed one did; None: it can."""
        return self._pruner.never_acts(self._pruner.known(number) or Curve(number))

    def _take_up(self) -> None:
        # The study's own cache ends with each ask and tell: only then can a trial have ended.
        trials = self._study._get_trials(deepcopy=False, use_cache=True)
        for frozen in trials[self._settled :]:
            if frozen.state.is_finished() and frozen.number not in self._taken:
                self._taken.add(frozen.number)
                row = frozen.user_attrs.get(RECORD, {})
                if frozen.intermediate_values and row.get("duplicate_of") is None:
                    self._pruner.follow(self._curve(frozen, row.get("knobs", {})))
        while self._settled in self._taken:
            self._taken.remove(self._settled)
            self._settled += 1

    def _curve(self, frozen: FrozenTrial, knobs: Mapping[str, KnobValue]) -> Curve:
        values = [value for _, value in sorted(frozen.intermediate_values.items())]
        fractions: Sequence[float | None] = frozen.user_attrs.get(FRACTIONS, [])
        known = [at for at in fractions if at is not None]
        scaled = len(known) >= len(values)
        places = known if scaled else [float(at + 1) for at in range(len(values))]
        points = [(at, v) for at, v in zip(places, values, strict=False) if math.isfinite(v)]
        return Curve(
            number=frozen.number,
            points=points,
            scaled=scaled,
            export={name: knobs[name] for name in self._export if name in knobs},
            final=frozen.value if frozen.state is TrialState.COMPLETE else None,
            fits=all(value <= 0 for value in frozen.constraints.values()),
            row=None if self._forecast is None else self._forecast.row(knobs),
            settled=frozen.state.is_finished() or JUDGED in frozen.user_attrs,
            behind=JUDGED in frozen.user_attrs,
        )
