"""The gate: will this configuration's artifact fit, before it is trained?

The prediction is physics (`inventory` x `entropy` x `codecs`) moved and narrowed by what finished
trials measured (`calibration`). Its error is carried in bits for each quantized weight, because
that is where the physics is uncertain: a trained row's largest weight, which sets the step, lies
some fraction of an octave from that of a Gaussian row, whatever the bits. Only a configuration
whose best case is over the cap is discarded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

from pgolf_sweep.size import codecs
from pgolf_sweep.size.calibration import Calibration
from pgolf_sweep.size.entropy import ScaleRule, weight_bits, widest_bits
from pgolf_sweep.size.inventory import (
    GROUPS,
    SIZE_KNOBS,
    Group,
    UnbuildableError,
    container_bytes,
    read_config,
    tensors,
)
from pgolf_sweep.trial import Interval, KnobValue, Verdict, VerdictKind, knob_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOT_SIZE_KNOBS = frozenset({
    "SEED", "RUN_ID", "DATA_PATH", "DATA_DIR", "TOKENIZER_PATH", "VAL_BATCH_SIZE",
    "VAL_LOSS_EVERY", "VAL_INTERIM_TOKENS", "TRAIN_LOG_EVERY", "MAX_WALLCLOCK_SECONDS",
    "COMPILE", "WARMUP_STEPS",
})  # fmt: skip
"""Knobs that leave the configuration the same in the eyes of calibration."""

UNIT_BITS = {
    ScaleRule.ROWMAX: 0.25,
    ScaleRule.PERCENTILE: 0.25,
    ScaleRule.MSE: 0.2,
    ScaleRule.SDCLIP: 0.12,
}
"""Bits a weight by which the entropy of trained rows is uncertain (one standard deviation) before
anything was measured: wide where the largest weight sets the step, narrower where it does not."""

EMBED_UNIT_BITS = 0.6
"""The same for the embedding and the head, whose rows differ in how often they were trained."""

LEAST_SHARE = 0.25
"""No bound falls below this share of the prediction, whatever calibration says."""

MEASURED_SD = 0.01
"""Relative spread between seeds of a program of which we know nothing but measured runs. Source:
0.02 % to 0.5 % by codec over the contest's records; doubled."""


class KnobLike(Protocol):
    """What the gate reads of `pgolf_sweep.script.knobs.Knob`."""

    @property
    def default(self) -> KnobValue | None:
        """The value that the script takes when the environment has none."""


class ProgramLike(Protocol):
    """What the gate reads of `pgolf_sweep.script.program.Program`."""

    @property
    def knobs(self) -> Mapping[str, Any]:
        """The script's knobs by name, each a `KnobLike`."""

    @property
    def builtin(self) -> bool:
        """Whether it is our own trainer."""

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSize:
    """One part of the artifact.

    Attributes:
        group: ``embed``, ``attn``, ``mlp``, ``control``, ``head`` or ``container``.
        params: Parameters in it.
        bits: Bits of a weight before compression, 16 for what is kept, 0 for the container.
        model_bytes: Predicted bytes after compression; the groups add up to the prediction.
    """

    group: str
    params: int
    bits: int
    model_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One knob's nearest value with which the configuration fits.

    Attributes:
        knob: Its name.
        value: The value to give it.
        artifact_bytes: What the artifact would then be.
    """

    knob: str
    value: KnobValue
    artifact_bytes: Interval


@dataclass(frozen=True, slots=True)
class _Structure:
    """What the physics says of one layout; shared by all configurations that have it."""

    groups: tuple[GroupSize, ...]
    model_params: int
    predicted: float
    ceiling: float
    alternating: float  # bytes that the worst case adds, see `codecs.ALTERNATING`
    unit_bytes: float  # what one unit of calibration's error is worth
    family: str


class Gate:
    """Verdicts for the configurations of one program.

    Args:
        program: The program of the sweep.
        cap_bytes: Most bytes of code plus compressed model.
        confidence: Probability with which an interval holds the truth, between 0 and 1.
        calibration: What earlier trials taught; a new one knows the prior only.
    """

    def __init__(
        self,
        program: ProgramLike,
        cap_bytes: int,
        confidence: float = 0.99,
        calibration: Calibration | None = None,
    ) -> None:
        self.program = program
        self.cap_bytes = cap_bytes
        self.confidence = confidence
        self.calibration = calibration or Calibration()
        self._structures: dict[tuple[Any, ...], _Structure] = {}
        self._defaults = {
            name: knob.default for name, knob in program.knobs.items() if knob.default is not None
        }

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """Whether the configuration fits; never raises, whatever the knobs.

        Args:
            knobs: Values by name; a knob that is absent has the program's default.
        """
        if not self.program.builtin:
            return self._measured_verdict(knobs)
        try:
            structure = self._structure(knobs)
        except UnbuildableError as error:
            return self._verdict(VerdictKind.INVALID, str(error), regime="invalid")
        shift = self.calibration.shift(structure.family, self._configuration(knobs))
        tail = (1 - self.confidence) / 2
        low, mid, high = (self._moved(structure, shift.quantile(p)) for p in (tail, 0.5, 1 - tail))
        regime = "measured" if shift.trials else "calibrated" if shift.relatives else "entropy"
        # Measured relatives alternate in the same way: calibration has seen it.
        worst = high if shift.relatives else min(high + structure.alternating, structure.ceiling)
        interval = Interval(low=low, mid=mid, high=worst)
        return self._judged(interval, regime=regime, model_params=structure.model_params)

    @property
    def defaults(self) -> Mapping[str, KnobValue]:
        """The program's own values of its knobs."""
        return self._defaults

    def learn(self, knobs: Mapping[str, KnobValue], model_bytes: int) -> None:
        """Take in the measured size of a finished trial's compressed model, code not counted."""
        configuration = self._configuration(knobs)
        if model_bytes <= 0:
            return
        if not self.program.builtin:
            self.calibration.learn_bytes(configuration, model_bytes)
            return
        try:
            structure = self._structure(knobs)
        except UnbuildableError:
            return  # it ran, so another version of the trainer ran it: nothing to compare with
        error = (model_bytes - structure.predicted) / structure.unit_bytes
        self.calibration.learn(structure.family, configuration, error)

    def groups(self, knobs: Mapping[str, KnobValue]) -> list[GroupSize]:
        """The prediction by tensor group; empty where nothing is known.

        The sizes add up to the middle of the verdict's interval.
        """
        verdict = self.verdict(knobs)
        if not self.program.builtin or verdict.model_bytes is None:
            return []
        structure = self._structure(knobs)
        factor = verdict.model_bytes.mid / structure.predicted
        return [
            GroupSize(
                group=size.group,
                params=size.params,
                bits=size.bits,
                model_bytes=size.model_bytes * factor,
            )
            for size in structure.groups
        ]

    def suggestions(self, knobs: Mapping[str, KnobValue]) -> list[Suggestion]:
        """For each knob that decides the size, its nearest value that makes it surely fit.

        Empty when the configuration already does, or when the program is not ours.
        """
        verdict = self.verdict(knobs)
        if not self.program.builtin or verdict.kind not in {VerdictKind.TOO_BIG, VerdictKind.NEAR}:
            return []
        config = read_config({**self._defaults, **knobs})
        found = []
        for knob, values in _smaller(config):
            for value in values:
                answer = self.verdict({**knobs, knob: value})
                if answer.kind is VerdictKind.FITS and answer.artifact_bytes is not None:
                    found.append(
                        Suggestion(knob=knob, value=value, artifact_bytes=answer.artifact_bytes)
                    )
                    break
        return found

    def _structure(self, knobs: Mapping[str, KnobValue]) -> _Structure:
        config = read_config({**self._defaults, **knobs})
        key = (_rare(config), *(getattr(config, name.lower()) for name in SIZE_KNOBS))
        if key not in self._structures:
            self._structures[key] = _predict(config)
        return self._structures[key]

    def _configuration(self, knobs: Mapping[str, KnobValue]) -> str:
        """The knobs that may move the size, as calibration's key."""
        differing = sorted(
            f"{name}={knob_text(value)}"
            for name, value in knobs.items()
            if name not in NOT_SIZE_KNOBS and value != self._defaults.get(name)
        )
        return " ".join(differing)

    @staticmethod
    def _moved(structure: _Structure, units: float) -> float:
        """The prediction moved by an error in calibration's units, kept within what can be."""
        moved = structure.predicted + units * structure.unit_bytes
        return min(max(moved, LEAST_SHARE * structure.predicted), structure.ceiling)

    def _measured_verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """What earlier runs of the same configuration measured, for a program that is not ours."""
        measured = self.calibration.measured_bytes(self._configuration(knobs))
        if not measured:
            reason = "no run of this configuration was measured yet, and the program is not ours"
            return self._verdict(VerdictKind.UNKNOWN, reason, regime="unknown")
        mid = math.fsum(measured) / len(measured)
        z = NormalDist().inv_cdf((1 + self.confidence) / 2)
        spread = z * math.sqrt(1 + 1 / len(measured)) * MEASURED_SD * mid
        interval = Interval(low=mid - spread, mid=mid, high=mid + spread)
        return self._judged(interval, regime="measured", model_params=None)

    def _judged(self, model: Interval, *, regime: str, model_params: int | None) -> Verdict:
        artifact = model.plus(self.program.code_bytes)
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
    ) -> Verdict:
        return Verdict(
            kind=kind,
            reason=reason,
            code_bytes=self.program.code_bytes,
            cap_bytes=self.cap_bytes,
            confidence=self.confidence,
            regime=regime,
            model_params=model_params,
            model_bytes=model_bytes,
            artifact_bytes=artifact_bytes,
        )


def _predict(config: Any) -> _Structure:
    """The physics of one layout. `config` is a `trainer.config.Config`."""
    rule = ScaleRule(config.quant_scale)
    parameter = {
        ScaleRule.SDCLIP: config.clip_sigmas,
        ScaleRule.PERCENTILE: config.clip_percentile,
    }.get(rule, 0.0)
    excess = codecs.EXCESS[config.codec]
    step_bytes = codecs.STEP_BITS[config.byte_shuffle] / 8
    float_bytes = codecs.FLOAT_BITS[config.byte_shuffle] / 8
    listed = tuple(tensors(config))
    code_bytes = {True: 0.0, False: 0.0}  # two 4-bit codes to a byte, or one code
    params = dict.fromkeys(GROUPS, 0)
    sizes = dict.fromkeys(GROUPS, 0.0)
    bits_of: dict[Group, int] = {}
    ceiling, unit_bytes = 0.0, codecs.UNSURE_BYTES / 4
    rare_bits = codecs.RARE_ROWS_BITS[config.codec] if _rare(config) else 0.0
    for tensor in listed:
        count = tensor.params
        params[tensor.group] += count
        bits_of[tensor.group] = tensor.bits
        if not tensor.quantized:
            sizes[tensor.group] += count * float_bytes
            ceiling += 2.1 * count
            continue
        rows, columns = tensor.shape
        entropy = weight_bits(rule, tensor.bits, columns, parameter)
        vocabulary = tensor.group in {"embed", "head"}
        if vocabulary:
            entropy = max(0.5 * entropy, entropy + rare_bits)
        factor = (1 + excess[tensor.bits]) / 8
        sizes[tensor.group] += count * entropy * factor + rows * step_bytes
        # All levels equally likely, and as much again of overhead as the codec's excess.
        widest = widest_bits(tensor.bits) / 8 * (1 + 2 * excess[tensor.bits])
        ceiling += count * widest + 2.1 * rows
        unit_bytes += count * (EMBED_UNIT_BITS if vocabulary else UNIT_BITS[rule]) / 8
        code_bytes[tensor.bits == 4] += count * entropy / 8
    lesser = min(*code_bytes.values(), codecs.MIXING_BYTES)
    mixing = codecs.MIXING[config.codec] * lesser
    container = container_bytes(listed) + codecs.CONSTANT_BYTES + mixing
    groups = [
        GroupSize(group=name, params=params[name], bits=bits_of[name], model_bytes=sizes[name])
        for name in GROUPS
        if params[name]
    ]
    groups.append(GroupSize(group="container", params=0, bits=0, model_bytes=container))
    predicted = math.fsum(size.model_bytes for size in groups)
    return _Structure(
        groups=tuple(groups),
        model_params=sum(params.values()),
        predicted=predicted,
        ceiling=max(ceiling + _slack(config.codec, ceiling, container - mixing), predicted),
        alternating=codecs.ALTERNATING[config.codec]
        * (bits_of["attn"] != bits_of["mlp"])
        * min(predicted, codecs.ALTERNATING_BYTES),
        unit_bytes=unit_bytes,
        family="/".join(
            str(part)
            for part in (config.codec, config.codec_level, rule, bits_of["attn"], bits_of["mlp"])
        ),
    )


def _slack(codec: str, ceiling: float, container: float) -> float:
    """What tables, blocks and the header may add to codes with all levels equally likely."""
    mixed = codecs.MIXING[codec] * min(ceiling, codecs.MIXING_BYTES)
    return 0.02 * ceiling + 2 * container + codecs.UNSURE_BYTES + mixed


def _rare(config: Any) -> bool:
    """Whether most entries of the vocabulary are seen too rarely to differ; see `codecs`."""
    tokens = config.iterations * config.train_batch_tokens
    return bool(tokens < codecs.RARE_TOKENS * config.vocab_size)


def _smaller(config: Any) -> Iterator[tuple[str, list[KnobValue]]]:
    """For each knob that decides the size, values that shrink the artifact, nearest first."""
    head = config.num_heads * 2
    yield "NUM_LAYERS", list(range(config.num_layers - 1, 0, -1))
    step = math.lcm(64, head) if config.model_dim > 4 * math.lcm(64, head) else head
    widths = range(config.model_dim - config.model_dim % step, 0, -step)
    yield "MODEL_DIM", [width for width in widths if width < config.model_dim]
    yield "MLP_MULT", list(range(config.mlp_mult - 1, 0, -1))
    fewer = range(config.num_kv_heads - 1, 0, -1)
    yield "NUM_KV_HEADS", [heads for heads in fewer if config.num_heads % heads == 0]
    for knob in ("MATRIX_BITS", "ATTN_BITS", "MLP_BITS", "EMBED_BITS"):
        now = getattr(config, knob.lower()) or config.matrix_bits
        yield knob, list(range(now - 1, 3, -1))
    if config.quant_scale == ScaleRule.SDCLIP:
        yield "CLIP_SIGMAS", [round(config.clip_sigmas * 1.01**n, 2) for n in range(1, 80)]
    if not config.tie_embeddings:
        yield "TIE_EMBEDDINGS", [True]
