"""Training steps of a script that is not ours: as planned, unless the wallclock ends it before.

How long a step takes is stated, or follows from finished trials, else from the arithmetic of a step
and the GPUs of a trial.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.gate.physics.spread import number
from pgolf_sweep.gate.resources import CPU_FLOPS, Pace
from pgolf_sweep.script.knobs.knobs import STEP_KNOBS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import KnobValue

GPU_FLOPS = 2.3e14
"""Arithmetic of one H100 a second, attention's products included: 23 % of the peak. Source: the
median of 48 records on eight of them."""
GPU_SD = 0.25
"""Spread of its logarithm: the root mean square of 55 records; half of them lie within 10 %."""
CONTEST_GPUS = 8
DEFAULT_STEPS = 10_000.0
"""Of a script that names none and no wallclock."""
DEFAULT_TOKENS = 524_288.0
STATED_SD = 0.02
SHORT_STEPS = 1000.0
"""A run of fewer steps is a short one: below 600 the physics is 4 to 10 % high, on full runs not.
What short runs teach says nothing of long ones."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How many steps a run makes.

    Attributes:
        made: To expect.
        spread: Standard deviation of the logarithm.
    """

    made: float
    spread: float


def planned_steps(values: Mapping[str, KnobValue]) -> float:
    """Steps that a configuration asks for, by its knobs with the script's defaults; 0: none."""
    return number(values, 0.0, *STEP_KNOBS)


def is_short(values: Mapping[str, KnobValue], steps: float | None = None) -> bool:
    """Whether a run of these knobs is a short one, by the steps that it made or asks for."""
    return (steps or planned_steps(values) or DEFAULT_STEPS) < SHORT_STEPS


class ScriptSteps:
    """The pace of one program's trials.

    Args:
        gpus: Of a trial; 0 is a CPU.
    """

    def __init__(self, gpus: int = CONTEST_GPUS) -> None:
        self._pace = Pace(GPU_FLOPS * gpus if gpus else CPU_FLOPS, GPU_SD if gpus else None)
        self.stated: float | None = None
        """Seconds of a step, where somebody says."""

    def copy(self) -> ScriptSteps:
        """One that knows the same and learns by itself."""
        return copy.deepcopy(self)

    def learn(
        self, values: Mapping[str, KnobValue], model_params: int, steps: int, seconds: float
    ) -> None:
        """Take in how long a finished trial trained."""
        self._pace.learn(step_flops(values, model_params) * steps, seconds, units=steps)

    def planned(self, values: Mapping[str, KnobValue], model_params: int) -> Steps:
        """The steps of a configuration.

        Args:
            values: Its knobs, with the script's defaults.
            model_params: Of its model.
        """
        planned = planned_steps(values)
        wallclock = number(values, 0.0, "MAX_WALLCLOCK_SECONDS")
        if wallclock <= 0:
            return Steps(planned or DEFAULT_STEPS, 0.0)
        if self.stated is not None:
            seconds, spread = self.stated, STATED_SD
        else:
            timed = self._pace.seconds(step_flops(values, model_params))
            assert timed is not None  # noqa: S101 - a pace that was guessed always answers
            seconds, spread = timed
        within = max(1.0, wallclock / seconds)
        if not planned:
            return Steps(within, spread)
        # The plan cuts the distribution off: what is surely reached has no spread.
        surely = within >= planned * math.exp(2 * spread)
        return Steps(min(planned, within), 0.0 if surely else spread)


def step_flops(values: Mapping[str, KnobValue], model_params: int) -> float:
    """Arithmetic of a training step: forward and backward, attention's products included."""
    tokens = number(values, DEFAULT_TOKENS, "TRAIN_BATCH_TOKENS", "BATCH_TOKENS", "BATCH_SIZE")
    attended = (
        number(values, 0.0, "NUM_LAYERS", "N_LAYERS")
        * number(values, 0.0, "MODEL_DIM", "DIM")
        * number(values, 0.0, "TRAIN_SEQ_LEN", "SEQ_LEN")
    )
    return max(1.0, 6.0 * tokens * (model_params + attended))
