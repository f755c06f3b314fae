"""The predictor for a script that is not ours: what a probe of it says, else nothing.

Without a probe only measured runs of the same configuration count; the gate keeps those.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.physics.predict import Prediction
from pgolf_sweep.gate.predictor import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.gate.calibration import Calibration
    from pgolf_sweep.gate.predictor import Measurement, ProgramLike
    from pgolf_sweep.gate.probed import Foreign


class ScriptPredictor:
    """Predictions for a script that is not ours.

    Args:
        program: The script.
        foreign: What a probe says of it; None where it is not probed.
    """

    regime = "probed"
    trusted = False

    def __init__(self, program: ProgramLike, foreign: Foreign | None) -> None:
        self.program = program
        self.foreign = foreign

    def copy(self) -> ScriptPredictor:
        """A predictor that knows the same and learns by itself."""
        other = copy.copy(self)
        other.foreign = None if self.foreign is None else self.foreign.copy()
        return other

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code: of a script that packs itself, what it makes of itself."""
        packed = None if self.foreign is None else self.foreign.code_bytes
        return self.program.code_bytes if packed is None else packed

    def predict(self, knobs: Mapping[str, KnobValue], confidence: float) -> Prediction | Refused:
        """What the probe says of the model's bytes; no limit of time or memory is judged."""
        del confidence
        if self.foreign is None:
            reason = (
                "no run of this configuration was measured yet, the program is not ours, and it is "
                "not probed (--no-probe, or it has no word of torch)"
            )
            return Refused(kind=VerdictKind.UNKNOWN, reason=reason, regime="unknown")
        expected = self.foreign.expected(knobs)
        if isinstance(expected, Prediction):
            return expected
        return Refused(
            kind=VerdictKind.INVALID if expected.invalid else VerdictKind.UNKNOWN,
            reason=expected.reason,
            regime="unknown",
            model_params=expected.model_params,
        )

    def answers(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` needs no run of the script; starts none."""
        return self.foreign is None or self.foreign.answers(knobs)

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` answers at once; if not, a thread prepares it."""
        return self.foreign is None or self.foreign.ready(knobs)

    def teach(self, calibration: Calibration, measured: Measurement) -> bool:
        """Take in a measured size; without a prediction, the size itself is kept."""
        expected = None
        if self.foreign is not None:
            expected = self.foreign.expected(measured.knobs, measured.steps)
            self.foreign.learn(measured.knobs, measured.model_bytes, measured.steps)
        if isinstance(expected, Prediction):
            size, noise = expected.model_bytes, expected.noise_bytes
            error = measured.model_bytes - size
            calibration.learn(expected.traits, noise, measured.configuration, error, size)
        else:
            calibration.learn_bytes(measured.configuration, measured.model_bytes)
        return True

    def learn_time(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        steps: int | None,
        train_seconds: float | None,
        eval_seconds: float | None = None,
    ) -> None:
        """Take in how long a finished trial's steps took: those of other shapes follow."""
        del eval_seconds
        if steps and train_seconds and self.foreign is not None:
            self.foreign.learn_time(knobs, steps, train_seconds)

    def set_step_seconds(self, seconds: float) -> bool:
        """Take in how long any step takes; False if the script is not probed."""
        if self.foreign is None:
            return False
        self.foreign.state_step_seconds(seconds)
        return True

    def set_lacking(self, packages: frozenset[str]) -> None:
        """Take in which packages of codecs the nodes of the trials lack."""
        if self.foreign is not None:
            self.foreign.set_lacking(packages)

    def contradict(
        self, knobs: Mapping[str, KnobValue], *, model_params: int | None, code_bytes: int | None
    ) -> str:
        """What a finished trial's log says otherwise than the probe; empty where they agree."""
        if self.foreign is None:
            return ""
        return self.foreign.contradict(knobs, model_params=model_params, code_bytes=code_bytes)

    def smaller_values(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """None: nobody says what a script's knobs do to its size."""
        del knobs
        return {}

    def changes(self, knobs: Mapping[str, KnobValue]) -> Iterable[list[dict[str, KnobValue]]]:
        """None: nobody says what a script's knobs do to its size."""
        del knobs
        return ()
