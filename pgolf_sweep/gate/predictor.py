"""The protocol of what predicts a program's bytes: our trainer's physics, or a probed script.

The gate holds one predictor, corrects what it says by calibration, and compares it with the cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue, VerdictKind
    from pgolf_sweep.gate.calibration import Calibration
    from pgolf_sweep.gate.physics.predict import Prediction


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A configuration without a prediction.

    Attributes:
        kind: `INVALID` where it cannot run, `UNKNOWN` where nothing is known of its bytes.
        reason: Why, for people.
        regime: What decided: ``invalid``, ``memory``, ``time`` or ``unknown``.
        model_params: Known if the model could be built.
    """

    kind: VerdictKind
    reason: str
    regime: str
    model_params: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The compressed model of a finished trial.

    Attributes:
        knobs: The trial's configuration.
        configuration: Calibration's key for it.
        model_bytes: The size, code not counted.
        steps: Training steps that it made; None where they are expected.
    """

    knobs: Mapping[str, KnobValue]
    configuration: str
    model_bytes: int
    steps: int | None


class Predictor(Protocol):
    """Bytes and validity of the configurations of one program."""

    @property
    def regime(self) -> str:
        """What predictions rest on before a finished trial has calibrated them."""

    @property
    def trusted(self) -> bool:
        """Whether its predictions may discard without a finished trial that checked them."""

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code."""

    def copy(self) -> Predictor:
        """A predictor that knows the same and learns by itself."""

    def predict(self, knobs: Mapping[str, KnobValue], confidence: float) -> Prediction | Refused:
        """The model's bytes, or why there are none; never raises, regardless of the knobs.

        Args:
            knobs: The configuration.
            confidence: With which a limit of time must be exceeded to refuse.
        """

    def answers(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` needs no run of a script; starts none."""

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` answers at once; if not, a thread prepares it."""

    def teach(self, calibration: Calibration, measured: Measurement) -> bool:
        """Take in a measured size; whether there was anything to compare it with.

        Args:
            calibration: Learns the error of the prediction, or the size where there was none.
            measured: The size.
        """

    def learn_time(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        steps: int | None,
        train_seconds: float | None,
        eval_seconds: float | None = None,
    ) -> None:
        """Take in how long a finished trial trained and evaluated."""

    def set_step_seconds(self, seconds: float) -> bool:
        """Take in how long any step takes; False if only finished trials can teach that."""

    def set_lacking(self, packages: frozenset[str]) -> None:
        """Take in which packages of codecs the nodes of the trials lack."""

    def contradict(
        self, knobs: Mapping[str, KnobValue], *, model_params: int | None, code_bytes: int | None
    ) -> str:
        """What a finished trial's log says otherwise; empty where they agree."""

    def smaller_values(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """For each knob known to decide the size, values that shrink the artifact, nearest first.

        Args:
            knobs: The configuration.
        """

    def changes(self, knobs: Mapping[str, KnobValue]) -> Iterable[list[dict[str, KnobValue]]]:
        """For each knob known to decide the size, changes that may make it fit, nearest first.

        Args:
            knobs: The configuration.
        """


def defaults_of(program: ProgramLike) -> dict[str, KnobValue]:
    """The program's own values of its knobs, without those that have none."""
    return {name: knob.default for name, knob in program.knobs.items() if knob.default is not None}
