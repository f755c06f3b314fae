"""The gate: will this configuration's artifact fit, before it is trained?

The prediction is physics (`physics`: inventory x entropy x codecs x dynamics) moved and narrowed
by what finished trials measured (`calibration`). Only a configuration whose best case is over the
cap is discarded. Time and memory (`resources`) discard by the same interface, with a reason of
their own, where something is known of the machine.
"""

from __future__ import annotations

import copy
import math
import re
import struct
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

from pgolf_sweep.core.trial import Interval, KnobValue, Verdict, VerdictKind, knob_text
from pgolf_sweep.gate.calibration import Calibration
from pgolf_sweep.gate.physics import predict
from pgolf_sweep.gate.physics.inventory import (
    UnbuildableError,
    by_our_names,
    read_config,
    refused_batches,
)
from pgolf_sweep.gate.physics.layouts import Layouts
from pgolf_sweep.gate.physics.predict import GroupSize
from pgolf_sweep.gate.probed import Unknown
from pgolf_sweep.gate.resources import (
    MEMORY_SURE,
    Machine,
    Pace,
    evaluation_passes,
    peak_bytes,
    step_flops,
)
from pgolf_sweep.gate.suggest import Suggestion, smaller_values, suggestions

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from pgolf_sweep.gate.probed import Foreign

NOT_SIZE_KNOBS = frozenset({
    "SEED", "RUN_ID", "DATA_PATH", "DATA_DIR", "TOKENIZER_PATH", "VAL_BATCH_SIZE",
    "VAL_LOSS_EVERY", "VAL_INTERIM_TOKENS", "TRAIN_LOG_EVERY", "COMPILE", "WARMUP_STEPS",
    "EVAL_STRIDE", "BYTES_PER_TOKEN", "CHECKPOINT", "START_AT",
    "TTT_ENABLED", "TTT_BATCH_SIZE", "TTT_CHUNK_SIZE", "TTT_LORA_RANK", "TTT_LORA_ALPHA",
    "TTT_LORA_LR", "TTT_BETA2", "TTT_WEIGHT_DECAY",
})  # fmt: skip
"""Knobs that leave the configuration the same in the eyes of calibration."""

LEAST_SHARE = 0.25
"""No bound falls below this share of the prediction, regardless of the calibration."""

MEASURED_SD = 0.01
"""Relative spread between seeds of a program of which we know nothing but measured runs. Source:
0.02 % to 0.5 % by codec over the contest's records; doubled."""

MOST_SURE = 1 - 1e-9
"""Highest confidence that the tails tell from certainty."""

SMALLER_SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 1 / 4)
"""By which a number of a shape is made smaller in search of what fits."""
_SHAPES = re.compile(r"LAYERS|(^|_)DIM(_|$)|MLP|VOCAB|BITS|HEADS|HIDDEN|SIZE$")
UNKNOWN_PACE_SD = 0.5
"""Spread of the logarithm of the steps that a wallclock leaves, of a machine that nobody named."""


class KnobLike(Protocol):
    """What the gate reads of `pgolf_sweep.script.knobs.knobs.Knob`."""

    @property
    def default(self) -> KnobValue | None:
        """The value that the script takes when the environment has none."""


class ProgramLike(Protocol):
    """What the gate reads of `pgolf_sweep.script.program.Program`."""

    @property
    def knobs(self) -> Mapping[str, Any]:
        """The script's knobs by name, each a `KnobLike`."""

    @property
    def unnamed(self) -> Sequence[str]:
        """Where the script reads names that only it knows while it runs."""

    @property
    def builtin(self) -> bool:
        """Whether it is our own trainer."""

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code."""

    @property
    def sha256(self) -> str:
        """Hash of the program's files."""


class Gate:
    """Verdicts for the configurations of one program.

    Args:
        program: The program of the sweep.
        cap_bytes: Most bytes of code plus compressed model.
        confidence: Probability with which an interval holds the truth, between 0 and 1.
        calibration: What earlier trials taught; a new one knows the prior only.
        machine: What trials run on; None knows nothing of time and memory.
        foreign: Predicts for a program that is not ours; without it only measured runs count.
    """

    def __init__(
        self,
        program: ProgramLike,
        cap_bytes: int,
        confidence: float = 0.99,
        calibration: Calibration | None = None,
        machine: Machine | None = None,
        foreign: Foreign | None = None,
    ) -> None:
        self.program = program
        self.cap_bytes = cap_bytes
        self.confidence = min(confidence, MOST_SURE)
        self.calibration = calibration or Calibration()
        self.machine = machine
        self.foreign = foreign
        self.pace = Pace(None if machine is None else machine.flops)
        self.eval_pace = Pace(None)
        self._layouts = Layouts()
        self._batches: dict[tuple[Any, ...], str] = {}
        self._defaults = {
            name: knob.default for name, knob in program.knobs.items() if knob.default is not None
        }

    def copy(self) -> Gate:
        """A gate that knows the same and learns by itself."""
        other = copy.copy(self)
        other.calibration = copy.deepcopy(self.calibration)
        other.pace, other.eval_pace = copy.deepcopy(self.pace), copy.deepcopy(self.eval_pace)
        other.foreign = None if self.foreign is None else self.foreign.copy()
        return other

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """Whether the configuration fits; never raises, regardless of the knobs.

        Args:
            knobs: Values by name; a knob that is absent has the program's default.
        """
        if not self.program.builtin:
            return self._foreign_verdict(knobs)
        try:
            config = self._config(knobs)
            expected, noise = self._expected(config)
        except UnbuildableError as error:
            return self._verdict(VerdictKind.INVALID, str(error), regime="invalid")
        impossible = self._impossible(config, expected.model_params)
        if impossible is not None:
            regime, reason = impossible
            return self._verdict(
                VerdictKind.INVALID, reason, regime=regime, model_params=expected.model_params
            )
        return self._predicted(expected, noise, knobs)

    def answers(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `verdict` needs no run of a script; starts none."""
        return self.foreign is None or self.foreign.answers(knobs)

    @property
    def measured(self) -> bool:
        """Whether any finished trial has taught it."""
        return bool(self.calibration.trials)

    def nearest_fit(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """One number of a configuration that, made smaller, lets it fit; empty where none does."""
        found: tuple[float, dict[str, KnobValue]] | None = None
        values = {**self._defaults, **knobs}
        for name, value in values.items():
            if not _SHAPES.search(name) or isinstance(value, bool) or not isinstance(value, int):
                continue
            for share in SMALLER_SHARES:
                smaller = max(1, round(value * share))
                if share < 1 and smaller < value and self._fits({**knobs, name: smaller}):
                    if found is None or share > found[0]:
                        found = share, {name: smaller}
                    break
        return {} if found is None else found[1]

    def _fits(self, knobs: Mapping[str, KnobValue]) -> bool:
        return self.verdict(knobs).kind in {VerdictKind.FITS, VerdictKind.NEAR}

    def contradiction(
        self, knobs: Mapping[str, KnobValue], *, model_params: int | None, code_bytes: int | None
    ) -> str:
        """What a finished trial's log says otherwise than the probe; empty where they agree."""
        if self.foreign is None:
            return ""
        return self.foreign.contradict(knobs, model_params=model_params, code_bytes=code_bytes)

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `verdict` answers at once; if not, a thread prepares it."""
        return self.foreign is None or self.foreign.ready(knobs)

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code: of a script that packs itself, what it makes of itself."""
        packed = None if self.foreign is None else self.foreign.code_bytes
        return self.program.code_bytes if packed is None else packed

    @property
    def defaults(self) -> Mapping[str, KnobValue]:
        """The program's own values of its knobs."""
        return self._defaults

    def learn(
        self, knobs: Mapping[str, KnobValue], model_bytes: int, *, steps: int | None = None
    ) -> bool:
        """Take in the measured size of a finished trial's compressed model, code not counted.

        Args:
            knobs: Its configuration.
            model_bytes: The size.
            steps: Training steps that it made; without them, as many as this machine would make.

        Returns:
            Whether there was anything to compare it with.
        """
        configuration = self._configuration(knobs)
        if model_bytes <= 0:
            return False
        if not self.program.builtin:
            self._learn_foreign(knobs, configuration, model_bytes, steps)
            return True
        try:
            expected, noise = self._expected(self._config(knobs), steps)
        except UnbuildableError:
            return False  # it ran, so another version of the trainer ran it
        size = expected.model_bytes
        self.calibration.learn(expected.traits, noise, configuration, model_bytes - size, size)
        return True

    def _learn_foreign(
        self,
        knobs: Mapping[str, KnobValue],
        configuration: str,
        model_bytes: int,
        steps: int | None,
    ) -> None:
        expected = None if self.foreign is None else self.foreign.expected(knobs, steps)
        if self.foreign is not None:
            self.foreign.learn(knobs, model_bytes)
        if isinstance(expected, predict.Prediction):
            size, noise = expected.model_bytes, expected.noise_bytes
            self.calibration.learn(expected.traits, noise, configuration, model_bytes - size, size)
        else:
            self.calibration.learn_bytes(configuration, model_bytes)

    def learn_time(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        steps: int | None,
        train_seconds: float | None,
        eval_seconds: float | None = None,
    ) -> None:
        """Take in how long a finished trial trained and evaluated."""
        if not self.program.builtin:
            if self.foreign is not None and steps and train_seconds:
                self.foreign.step_seconds = train_seconds / steps
            return
        try:
            config = self._config(knobs)
        except UnbuildableError:
            return
        params = self._layout(config).model_params
        if steps and train_seconds:
            flops = step_flops(config, params) * steps
            self.pace.learn(flops, train_seconds, units=steps)
        if eval_seconds:
            passes = evaluation_passes(config)
            self.eval_pace.learn(params * passes, eval_seconds, units=passes)

    def groups(self, knobs: Mapping[str, KnobValue]) -> list[GroupSize]:
        """The prediction by tensor group; empty where nothing is known.

        The sizes add up to the middle of the verdict's interval.
        """
        verdict = self.verdict(knobs)
        if verdict.model_bytes is None:
            return []
        if self.program.builtin:
            expected, _ = self._expected(self._config(knobs))
        else:
            answer = None if self.foreign is None else self.foreign.expected(knobs)
            if not isinstance(answer, predict.Prediction):
                return []
            expected = answer
        factor = verdict.model_bytes.mid / expected.model_bytes
        return [
            GroupSize(
                group=size.group,
                params=size.params,
                bits=size.bits,
                model_bytes=size.model_bytes * factor,
            )
            for size in expected.groups
        ]

    def suggestions(
        self,
        knobs: Mapping[str, KnobValue],
        verdict: Callable[[Mapping[str, KnobValue]], Verdict] | None = None,
        *,
        given: Container[str] = (),
    ) -> list[Suggestion]:
        """For each knob that decides the size, its nearest value that makes it surely fit.

        Empty when the configuration already does, or when the program is not ours.

        Args:
            knobs: The configuration.
            verdict: Who judges instead of this gate, for example with further requirements.
            given: Knobs that cannot change, such as a data set's vocabulary.
        """
        judged = verdict or self.verdict
        over = {VerdictKind.TOO_BIG, VerdictKind.NEAR}
        if not self.program.builtin or judged(knobs).kind not in over:
            return []
        return suggestions(judged, knobs, self._config(knobs), given)

    def smaller_values(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """For each knob that decides the size, values that shrink the artifact, nearest first."""
        try:
            return dict(smaller_values(self._config(knobs))) if self.program.builtin else {}
        except UnbuildableError:
            return {}

    def _config(self, knobs: Mapping[str, KnobValue]) -> Any:
        return read_config({**self._defaults, **by_our_names(knobs, self._defaults)})

    def _layout(self, config: Any) -> predict.Layout:
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

    def _expected(self, config: Any, made: int | None = None) -> tuple[predict.Prediction, float]:
        """The physics' answer and one unit of noise, the uncertainty of the steps included.

        `made` are the steps of a run that ended; without them they are expected.
        """
        known = self._layout(config)
        steps, spread = (made, 0.0) if made else self._steps(config, known.model_params)
        try:
            expected = predict.predict(config, known, steps)
            if not spread:
                return expected, expected.noise_bytes
            fewer = predict.group_bytes(config, known, max(1.0, steps * math.exp(-spread)))
        except ArithmeticError as error:
            raise UnbuildableError(f"no such training can be reckoned with: {error}") from error
        moved = math.fsum(fewer.values()) - expected.model_bytes
        return expected, math.hypot(expected.noise_bytes, moved)

    def _impossible(self, config: Any, model_params: int) -> tuple[str, str] | None:
        """Why the machine cannot do it: what was exceeded and the reason; None where unknown."""
        machine = self.machine
        if machine is None:
            return None
        refused = self._refused_batches(config, machine.gpus)
        if refused:
            return "invalid", refused
        if machine.memory_bytes is not None:
            needed = peak_bytes(config, model_params, machine.gpus)
            if MEMORY_SURE * needed > machine.memory_bytes:
                return "memory", (
                    f"about {needed / 2**30:.0f} GiB of device memory, the card has "
                    f"{machine.memory_bytes / 2**30:.0f}"
                )
        z = NormalDist().inv_cdf(self.confidence)
        passes = evaluation_passes(config)
        evaluation = self.eval_pace.seconds(model_params * passes, units=passes)
        if evaluation is not None and machine.eval_seconds:
            seconds, spread = evaluation
            if seconds * math.exp(-z * spread) > machine.eval_seconds:
                return "time", (
                    f"about {seconds:,.0f} s of evaluation, the rules allow "
                    f"{machine.eval_seconds:,.0f}"
                )
        if machine.min_steps is not None and self.pace.measured:
            steps, spread = self._steps(config, model_params)
            if steps * math.exp(z * spread) < min(machine.min_steps, config.iterations):
                return "time", (
                    f"about {steps:,.0f} steps within the wallclock, the sweep file asks for "
                    f"{machine.min_steps:,}"
                )
        return None

    def _refused_batches(self, config: Any, gpus: int) -> str:
        """Why the trainer cannot part its batches among that many GPUs; empty if it can."""
        key = tuple(getattr(config, name) for name in _BATCH_FIELDS)
        if key not in self._batches:
            self._batches[key] = refused_batches(config, gpus)
        return self._batches[key]

    def _configuration(self, knobs: Mapping[str, KnobValue]) -> str:
        """The knobs that may move the size, as calibration's key."""
        differing = sorted(
            f"{name}={knob_text(value)}"
            for name, value in knobs.items()
            if name not in NOT_SIZE_KNOBS and value != self._defaults.get(name)
        )
        return " ".join(differing)

    def _predicted(
        self, expected: predict.Prediction, noise: float, knobs: Mapping[str, KnobValue]
    ) -> Verdict:
        """A prediction as calibration corrects it, against the cap."""
        configuration, size = self._configuration(knobs), expected.model_bytes
        shift = self.calibration.shift(expected.traits, noise, configuration, size)
        tail = (1 - self.confidence) / 2
        low, mid, high = (_moved(expected, shift.quantile(p)) for p in (tail, 0.5, 1 - tail))
        known = "calibrated" if self.calibration.trials else "entropy"
        if not self.program.builtin:
            known = "calibrated" if self.calibration.trials else "probed"
        return self._judged(
            Interval(low=low, mid=mid, high=high),
            regime="measured" if shift.trials else known,
            model_params=expected.model_params,
            fit_probability=shift.below(self.cap_bytes - self.code_bytes - expected.model_bytes),
        )

    def _foreign_verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """What measured runs of the same configuration say, else what a probe says."""
        if self.foreign is None or self.calibration.measured_bytes(self._configuration(knobs)):
            return self._measured_verdict(knobs)
        expected = self.foreign.expected(knobs)
        if isinstance(expected, Unknown):
            kind = VerdictKind.INVALID if expected.invalid else VerdictKind.UNKNOWN
            return self._verdict(
                kind, expected.reason, regime="unknown", model_params=expected.model_params
            )
        return self._predicted(expected, expected.noise_bytes, knobs)

    def _measured_verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """What earlier runs of the same configuration measured, for a program that is not ours."""
        measured = self.calibration.measured_bytes(self._configuration(knobs))
        if not measured:
            reason = "no run of this configuration was measured yet, and the program is not ours"
            return self._verdict(VerdictKind.UNKNOWN, reason, regime="unknown")
        mid = math.fsum(measured) / len(measured)
        spread = math.sqrt(1 + 1 / len(measured)) * MEASURED_SD * mid
        half = NormalDist().inv_cdf((1 + self.confidence) / 2) * spread
        return self._judged(
            Interval(low=mid - half, mid=mid, high=mid + half),
            regime="measured",
            model_params=None,
            fit_probability=NormalDist(mid, spread).cdf(self.cap_bytes - self.code_bytes),
        )

    def _judged(
        self,
        model: Interval,
        *,
        regime: str,
        model_params: int | None,
        fit_probability: float | None = None,
    ) -> Verdict:
        artifact = model.plus(self.code_bytes)
        cap = self.cap_bytes
        if artifact.low > cap:
            kind = VerdictKind.TOO_BIG
            reason = f"at best {artifact.low:,.0f} bytes, {artifact.low - cap:,.0f} over the cap"
        elif artifact.high <= cap:
            kind = VerdictKind.FITS
            reason = f"at worst {artifact.high:,.0f} bytes, {cap - artifact.high:,.0f} to spare"
        else:
            kind = VerdictKind.NEAR
            reason = (
                f"between {artifact.low:,.0f} and {artifact.high:,.0f} bytes, "
                f"which holds the cap of {cap:,}"
            )
        return self._verdict(
            kind,
            reason,
            regime=regime,
            model_params=model_params,
            model_bytes=model,
            artifact_bytes=artifact,
            fit_probability=fit_probability,
        )

    def _verdict(
        self,
        kind: VerdictKind,
        reason: str,
        *,
        regime: str,
        model_params: int | None = None,
        model_bytes: Interval | None = None,
        artifact_bytes: Interval | None = None,
        fit_probability: float | None = None,
    ) -> Verdict:
        return Verdict(
            kind=kind,
            reason=reason,
            code_bytes=self.code_bytes,
            cap_bytes=self.cap_bytes,
            confidence=self.confidence,
            regime=regime,
            model_params=model_params,
            model_bytes=model_bytes,
            artifact_bytes=artifact_bytes,
            fit_probability=fit_probability,
        )


_BATCH_FIELDS = ("train_batch_tokens", "train_seq_len", "grad_accum_steps", "val_batch_size")


def _moved(expected: predict.Prediction, error: float) -> float:
    """The prediction moved by an error in bytes, kept within what can be."""
    moved = expected.model_bytes + error
    return min(max(moved, LEAST_SHARE * expected.model_bytes), expected.ceiling)
