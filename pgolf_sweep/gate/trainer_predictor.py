"""The predictor for our own trainer: physics for the bytes, paces for time, a card for memory."""

from __future__ import annotations

import copy
import math
import struct
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.physics import predict
from pgolf_sweep.gate.physics.inventory import (
    UnbuildableError,
    by_our_names,
    read_config,
    refused_batches,
)
from pgolf_sweep.gate.physics.layouts import Layouts
from pgolf_sweep.gate.predictor import Refused, defaults_of
from pgolf_sweep.gate.resources import (
    MEMORY_SURE,
    Machine,
    Pace,
    evaluation_passes,
    peak_bytes,
    step_flops,
)
from pgolf_sweep.gate.suggest import changes, smaller_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.gate.calibration import Calibration
    from pgolf_sweep.gate.physics.predict import Layout, Prediction
    from pgolf_sweep.gate.predictor import Measurement, ProgramLike

UNKNOWN_PACE_SD = 0.5
"""Spread of the logarithm of the steps that a wallclock leaves, of a machine that nobody named."""
_BATCH_FIELDS = ("train_batch_tokens", "train_seq_len", "grad_accum_steps", "val_batch_size")


class TrainerPredictor:
    """Predictions for our own trainer.

    Args:
        program: The trainer, with its knobs' defaults.
        machine: What trials run on; None knows nothing of time and memory.
    """

    regime = "entropy"
    trusted = True

    def __init__(self, program: ProgramLike, machine: Machine | None) -> None:
        self.program = program
        self.machine = machine
        self.pace = Pace(None if machine is None else machine.flops)
        self.eval_pace = Pace(None)
        self._defaults = defaults_of(program)
        self._layouts = Layouts()
        self._batches: dict[tuple[Any, ...], str] = {}

    def copy(self) -> TrainerPredictor:
        """A predictor that knows the same and learns by itself."""
        other = copy.copy(self)
        other.pace, other.eval_pace = copy.deepcopy(self.pace), copy.deepcopy(self.eval_pace)
        return other

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code."""
        return self.program.code_bytes

    def predict(self, knobs: Mapping[str, KnobValue], confidence: float) -> Prediction | Refused:
        """The physics' answer, or why no such model can be built, or not on this machine."""
        try:
            config = self._config(knobs)
            expected = self._expected(config)
        except UnbuildableError as error:
            return Refused(kind=VerdictKind.INVALID, reason=str(error), regime="invalid")
        return self._beyond_machine(config, expected.model_params, confidence) or expected

    def answers(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` needs no run of a script: always."""
        del knobs
        return True

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` answers at once: always."""
        del knobs
        return True

    def teach(self, calibration: Calibration, measured: Measurement) -> bool:
        """Take in a measured size; False if another version of the trainer ran it."""
        try:
            expected = self._expected(self._config(measured.knobs), measured.steps)
        except UnbuildableError:
            return False
        size, noise = expected.model_bytes, expected.noise_bytes
        error = measured.model_bytes - size
        calibration.learn(expected.traits, noise, measured.configuration, error, size)
        return True

    def learn_time(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        steps: int | None,
        train_seconds: float | None,
        eval_seconds: float | None = None,
    ) -> None:
        """Take in how long a finished trial trained and evaluated."""
        try:
            config = self._config(knobs)
            params = self._layout(config).model_params
        except UnbuildableError:
            return
        if steps and train_seconds:
            flops = step_flops(config, params) * steps
            self.pace.learn(flops, train_seconds, units=steps)
        if eval_seconds:
            passes = evaluation_passes(config)
            self.eval_pace.learn(params * passes, eval_seconds, units=passes)

    def set_step_seconds(self, seconds: float) -> bool:
        """Take in how long any step takes: not of a trainer whose steps follow its shape."""
        del seconds
        return False

    def set_lacking(self, packages: frozenset[str]) -> None:
        """Take in what the nodes lack: nothing, a trial without its codec fails."""
        del packages

    def contradict(
        self, knobs: Mapping[str, KnobValue], *, model_params: int | None, code_bytes: int | None
    ) -> str:
        """What a finished trial's log says otherwise: nothing, the inventory is exact."""
        del knobs, model_params, code_bytes
        return ""

    def smaller_values(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """For each knob that decides the size, values that shrink the artifact, nearest first."""
        try:
            return dict(smaller_values(self._config(knobs)))
        except UnbuildableError:
            return {}

    def changes(self, knobs: Mapping[str, KnobValue]) -> Iterable[list[dict[str, KnobValue]]]:
        """For each knob that decides the size, changes that may make it fit, nearest first."""
        try:
            return changes(self._config(knobs))
        except UnbuildableError:
            return ()

    def _config(self, knobs: Mapping[str, KnobValue]) -> Any:
        return read_config({**self._defaults, **by_our_names(knobs, self._defaults)})

    def _layout(self, config: Any) -> Layout:
        try:
            return self._layouts.of(config)
        except (ArithmeticError, struct.error) as error:
            raise UnbuildableError(f"no such model can be reckoned with: {error}") from error

    def _steps(self, config: Any, model_params: int) -> tuple[float, float]:
        planned = float(config.iterations)
        cap = config.max_wallclock_seconds
        if cap <= 0:
            return planned, 0.0
        timed = self.pace.seconds(step_flops(config, model_params))
        if timed is None:
            return planned, UNKNOWN_PACE_SD
        seconds, spread = timed
        within = max(1.0, cap / seconds)
        # The plan cuts the distribution off: what is surely reached has no spread.
        return min(planned, within), spread if within < planned * math.exp(2 * spread) else 0.0

    def _expected(self, config: Any, made: int | None = None) -> Prediction:
        """The physics' answer, with the uncertainty of the steps in its noise.

        `made` are the steps of a run that ended; without them they are expected.
        """
        known = self._layout(config)
        steps, spread = (made, 0.0) if made else self._steps(config, known.model_params)
        try:
            expected = predict.predict(config, known, steps)
            if not spread:
                return expected
            fewer = predict.group_bytes(config, known, max(1.0, steps * math.exp(-spread)))
        except ArithmeticError as error:
            raise UnbuildableError(f"no such training can be reckoned with: {error}") from error
        moved = math.fsum(fewer.values()) - expected.model_bytes
        return replace(expected, noise_bytes=math.hypot(expected.noise_bytes, moved))

    def _beyond_machine(self, config: Any, model_params: int, confidence: float) -> Refused | None:
        """Why the machine cannot do it; None where it can, or nothing is known of it."""
        if self.machine is None:
            return None
        refused = self._refused_batches(config, self.machine.gpus)
        if refused:
            return _invalid("invalid", refused, model_params)
        return self._beyond_memory(config, model_params, self.machine) or self._beyond_time(
            config, model_params, self.machine, NormalDist().inv_cdf(confidence)
        )

    def _beyond_memory(self, config: Any, model_params: int, machine: Machine) -> Refused | None:
        if machine.memory_bytes is None:
            return None
        needed = peak_bytes(config, model_params, machine.gpus)
        if MEMORY_SURE * needed <= machine.memory_bytes:
            return None
        reason = (
            f"about {needed / 2**30:.0f} GiB of device memory, the card has "
            f"{machine.memory_bytes / 2**30:.0f}"
        )
        return _invalid("memory", reason, model_params)

    def _beyond_time(
        self, config: Any, model_params: int, machine: Machine, z: float
    ) -> Refused | None:
        """Why it takes too long by what was timed, `z` standard deviations to the fast side."""
        passes = evaluation_passes(config)
        evaluation = self.eval_pace.seconds(model_params * passes, units=passes)
        if evaluation is not None and machine.eval_seconds:
            seconds, spread = evaluation
            if seconds * math.exp(-z * spread) > machine.eval_seconds:
                reason = (
                    f"about {seconds:,.0f} s of evaluation, the rules allow "
                    f"{machine.eval_seconds:,.0f}"
                )
                return _invalid("time", reason, model_params)
        if machine.min_steps is not None and self.pace.measured:
            steps, spread = self._steps(config, model_params)
            if steps * math.exp(z * spread) < min(machine.min_steps, config.iterations):
                reason = (
                    f"about {steps:,.0f} steps within the wallclock, the sweep file asks for "
                    f"{machine.min_steps:,}"
                )
                return _invalid("time", reason, model_params)
        return None

    def _refused_batches(self, config: Any, gpus: int) -> str:
        """Why the trainer cannot split its batches among that many GPUs; empty if it can."""
        key = tuple(getattr(config, name) for name in _BATCH_FIELDS)
        if key not in self._batches:
            self._batches[key] = refused_batches(config, gpus)
        return self._batches[key]


def _invalid(regime: str, reason: str, model_params: int) -> Refused:
    return Refused(
        kind=VerdictKind.INVALID, reason=reason, regime=regime, model_params=model_params
    )
