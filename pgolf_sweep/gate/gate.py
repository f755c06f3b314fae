"""The gate: will this configuration's artifact fit, before it is trained?

A predictor (`predictor`: our trainer's physics, or what a probe says of another script) answers
with bytes, or refuses what cannot run; finished trials move and narrow that (`calibration`). Only
a configuration whose best case is over the cap is discarded.
"""

from __future__ import annotations

import copy
import math
import re
from statistics import NormalDist
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import Interval, KnobValue, Verdict, VerdictKind, knob_text
from pgolf_sweep.gate.calibration import Calibration
from pgolf_sweep.gate.physics.predict import GroupSize, Prediction
from pgolf_sweep.gate.predictor import Measurement, Predictor, Refused, defaults_of
from pgolf_sweep.gate.script_predictor import ScriptPredictor
from pgolf_sweep.gate.suggest import Suggestion, suggestions
from pgolf_sweep.gate.trainer_predictor import TrainerPredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from pgolf_sweep.gate.predictor import ProgramLike
    from pgolf_sweep.gate.probed import Foreign
    from pgolf_sweep.gate.resources import Machine

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
        self.predictor: Predictor = (
            TrainerPredictor(program, machine)
            if program.builtin
            else ScriptPredictor(program, foreign)
        )
        self._defaults = defaults_of(program)

    def copy(self) -> Gate:
        """A gate that knows the same and learns by itself."""
        other = copy.copy(self)
        other.calibration = copy.deepcopy(self.calibration)
        other.predictor = self.predictor.copy()
        return other

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """Whether the configuration fits; never raises, regardless of the knobs.

        Args:
            knobs: Values by name; a knob that is absent has the program's default.
        """
        if self.calibration.sizes_known:
            measured = self.calibration.measured_bytes(self._configuration(knobs))
            if measured:
                return self._measured(measured)
        answer = self.predictor.predict(knobs, self.confidence)
        if isinstance(answer, Refused):
            return self._verdict(
                answer.kind, answer.reason, regime=answer.regime, model_params=answer.model_params
            )
        return self._predicted(answer, knobs)

    def answers(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `verdict` needs no run of a script; starts none."""
        return self.predictor.answers(knobs)

    @property
    def measured(self) -> bool:
        """Whether any finished trial has taught it."""
        return bool(self.calibration.trials)

    @property
    def trusted(self) -> bool:
        """Whether it may discard before any finished trial has taught it."""
        return self.predictor.trusted

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
        return self.predictor.contradict(knobs, model_params=model_params, code_bytes=code_bytes)

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `verdict` answers at once; if not, a thread prepares it."""
        return self.predictor.ready(knobs)

    def set_lacking(self, packages: frozenset[str]) -> None:
        """Take in which packages of codecs the nodes lack: scripts fall back to other codecs."""
        self.predictor.set_lacking(packages)

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code."""
        return self.predictor.code_bytes

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
        measured = Measurement(
            knobs=knobs,
            configuration=self._configuration(knobs),
            model_bytes=model_bytes,
            steps=steps,
        )
        return model_bytes > 0 and self.predictor.teach(self.calibration, measured)

    def learn_time(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        steps: int | None,
        train_seconds: float | None,
        eval_seconds: float | None = None,
    ) -> None:
        """Take in how long a finished trial trained and evaluated."""
        self.predictor.learn_time(
            knobs, steps=steps, train_seconds=train_seconds, eval_seconds=eval_seconds
        )

    def groups(self, knobs: Mapping[str, KnobValue]) -> list[GroupSize]:
        """The prediction by tensor group; empty where nothing is known.

        The sizes add up to the middle of the verdict's interval.
        """
        verdict = self.verdict(knobs)
        if verdict.model_bytes is None:
            return []
        expected = self.predictor.predict(knobs, self.confidence)
        if isinstance(expected, Refused):
            return []
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
        if judged(knobs).kind not in over:
            return []
        return suggestions(judged, knobs, self.predictor.changes(knobs), given)

    def smaller_values(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """For each knob that decides the size, values that shrink the artifact, nearest first."""
        return self.predictor.smaller_values(knobs)

    def _configuration(self, knobs: Mapping[str, KnobValue]) -> str:
        """The knobs that may move the size, as calibration's key."""
        differing = sorted(
            f"{name}={knob_text(value)}"
            for name, value in knobs.items()
            if name not in NOT_SIZE_KNOBS and value != self._defaults.get(name)
        )
        return " ".join(differing)

    def _predicted(self, expected: Prediction, knobs: Mapping[str, KnobValue]) -> Verdict:
        """A prediction as calibration corrects it, against the cap."""
        configuration, size = self._configuration(knobs), expected.model_bytes
        shift = self.calibration.shift(expected.traits, expected.noise_bytes, configuration, size)
        tail = (1 - self.confidence) / 2
        low, mid, high = (_moved(expected, shift.quantile(p)) for p in (tail, 0.5, 1 - tail))
        known = "calibrated" if self.calibration.trials else self.predictor.regime
        return self._judged(
            Interval(low=low, mid=mid, high=high),
            regime="measured" if shift.trials else known,
            model_params=expected.model_params,
            fit_probability=shift.below(self.cap_bytes - self.code_bytes - expected.model_bytes),
        )

    def _measured(self, measured: list[int]) -> Verdict:
        """What runs of the same configuration measured, where nothing had predicted it."""
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


def _moved(expected: Prediction, error: float) -> float:
    """The prediction moved by an error in bytes, kept within what can be."""
    moved = expected.model_bytes + error
    return min(max(moved, LEAST_SHARE * expected.model_bytes), expected.ceiling)
