"""The artifact of a script that is not ours, predicted from what a probe of it found.

First the script's own `main()` is run (`pgolf_sweep.gate.run_based`): its model, its optimizers and
its export say what they are. Where a run does not get that far, the script is read: the reading
probe (`pgolf_sweep.script.probe.prober`) counts the tensors and measures what the script's
quantizer makes of Gaussians at several sigmas. What is left to guess then is the sigma of the
trained weights. How much that matters is the slope of the measured curve: nothing where the scale
follows the weights, a bit an octave where it is fixed. So the uncertainty is carried as bytes an
octave, and calibration narrows it from finished trials.

Where the quantizer was not recognised, a scheme that the sweep file declares stands in for it;
without one, the first finished trial's bytes a parameter do. Nothing is guessed silently: an
`Unknown` says why. What a finished trial's log says otherwise is reported once, and the probe is
not asked again about configurations of that branch.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pgolf_sweep.gate.physics.dynamics import trapezoid, weight_drift
from pgolf_sweep.gate.physics.entropy import ScaleRule, weight_bits
from pgolf_sweep.gate.physics.predict import GroupSize, Prediction
from pgolf_sweep.gate.run_based import RunBased
from pgolf_sweep.script.knobs.knobs import worded
from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed
from pgolf_sweep.script.probe.runner import Counted, RunFailed, Runner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.config.types import SchemeBlock
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.knobs.knobs import Knob
    from pgolf_sweep.script.probe.prober import ProbedTensor, QuantizedClass
    from pgolf_sweep.script.probe.runner import Exported
    from pgolf_sweep.script.program import Program

EXCESS = {"zlib": 0.05, "zstd": 0.012, "lzma": 0.025, "brotli": 0.022}
"""What a codec adds to the entropy of the integers. Source: 52 runs of the contest's records for
brotli; zlib adds 1 % to 8-bit codes and 10 % to 6-bit ones."""
MEASURED = frozenset({"zlib", "zstd", "lzma"})
"""Codecs that the probe itself ran over the integers."""
UNKNOWN_EXCESS = 0.02
TENSOR_BYTES = 90.0
"""Names and headers of one tensor in a compressed container of `torch.save`."""
SIGMA_OCTAVES = 0.7
"""Spread of the trained matrices' sigma about the guess: steps, rates and shapes of updates."""
EMBED_SIGMA = 0.25
EMBED_OCTAVES = 2.0
"""The same for embeddings and heads, which Adam moves: hardly known."""
PHYSICS_SHARE = 0.03
"""Spread of everything else: trained rows are not Gaussian, codecs find more or less in them."""
NOISE_SHARE = 0.01
"""Spread between configurations once the program's own error is known."""
NOISE_OCTAVES = 0.3
"""The same for sigma: rates and depths that move it otherwise than `dynamics` says. Source: eight
configurations of a CPU variant of the contest's baseline, 40 steps each."""
INFERRED_SHARE = 0.04
"""Spread of bytes a parameter between configurations of a script whose quantizer is unknown."""
LONGEST_RUN = 10_000.0
"""Steps of Muon assumed where the wallclock ends the run: baseline runs end at 13,000."""

READING_FACTOR = 1.5
"""How much wider a prediction is where the script was read because it did not run."""
_PLACE = re.compile(r"_(PATH|DIR|ROOT|FILES?)$|^RUN_ID$")

_GROUPS = (
    ("head", re.compile(r"lm_head|^head|unembed")),
    ("embed", re.compile(r"emb|wte|wpe")),
    ("mlp", re.compile(r"mlp|ffn|\bfc\b|expert")),
    ("attn", re.compile(r"attn|attention|c_[qkv]|qkv|\bqo?_|\bkv_|proj")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a script quantizes, as its sweep file declares it (``pgolf.gate.scheme``).

    Attributes:
        bits: Width of matrices.
        embed_bits: Width of embeddings and heads.
        scale: How the step of a row is set.
        parameter: k for ``sdclip``, the percentile for ``percentile``.
        codec: What compresses the container; an empty string if it is not known.
        keep_below: Tensors of at most that many numbers stay 16-bit floating point, as do vectors.
    """

    bits: int = 8
    embed_bits: int = 8
    scale: ScaleRule = ScaleRule.ROWMAX
    parameter: float = 0.0
    codec: str = ""
    keep_below: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nothing can be said of a configuration's bytes.

    Attributes:
        reason: Why, for people.
        model_params: Known if the model could be built.
        invalid: The script itself refuses to build this model, and builds the default one.
    """

    reason: str
    model_params: int | None = None
    invalid: bool = False


Expected: TypeAlias = Prediction | Unknown


class ProberLike(Protocol):
    """What is asked of `pgolf_sweep.script.probe.prober.Prober`."""

    def probe(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        """What a configuration's model and quantizer are."""


@dataclass(frozen=True)
class _Worded:
    """A prober that is asked with the words that the script knows for its booleans."""

    prober: ProberLike
    known: Mapping[str, Knob]

    def probe(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        return self.prober.probe(worded(knobs, self.known))


@dataclass(frozen=True)
class _WordedRunner:
    """A runner that is asked with the words that the script knows for its booleans."""

    runner: Runner
    known: Mapping[str, Knob]

    def count(self, knobs: Mapping[str, KnobValue]) -> Counted | RunFailed:
        return self.runner.count(worded(knobs, self.known))

    def structure(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        return self.runner.structure(worded(knobs, self.known))

    def export(
        self, knobs: Mapping[str, KnobValue], sigmas: Mapping[str, float]
    ) -> Exported | RunFailed:
        return self.runner.export(worded(knobs, self.known), sigmas)


class Foreign:
    """Predictions for one program that is not ours.

    Args:
        prober: Reads the script.
        defaults: The script's own values of its knobs.
        scheme: What the sweep file declares; it wins over what the probe measured.
        runs: Runs the script's `main()`; without it the script is only read.
    """

    def __init__(
        self,
        prober: ProberLike,
        defaults: Mapping[str, KnobValue],
        scheme: Scheme | None = None,
        runs: RunBased | None = None,
    ) -> None:
        self._runs = runs
        self._contradicted: dict[tuple[str, ...], str] = {}
        self._prober = prober
        self._defaults = defaults
        self._scheme = scheme
        self._measured: list[float] = []  # bytes a parameter of finished trials

    def copy(self) -> Foreign:
        """Predictions that know the same and learn by themselves."""
        other = copy.copy(self)
        learnt = {"_measured": list(self._measured), "_contradicted": dict(self._contradicted)}
        vars(other).update(learnt, _runs=copy.copy(self._runs))
        return other

    def expected(self, knobs: Mapping[str, KnobValue], steps: float | None = None) -> Expected:
        """The prediction for a configuration, or why there is none.

        Args:
            knobs: The configuration.
            steps: Steps of a run that ended; without them they are expected.
        """
        branch = self._branch(knobs)
        if branch in self._contradicted:
            return self._unprobed_branch(branch)
        failed = ""
        if self._runs is not None and self._scheme is None:
            answer = self._from_run(knobs, steps)
            if not isinstance(answer, str):
                return answer
            failed = answer
        answer = self._from_reading(knobs)
        return _less_sure(answer, failed) if failed else answer

    @property
    def code_bytes(self) -> int | None:
        """Bytes of the counted code as a run of the script printed them; None before one."""
        return None if self._runs is None else self._runs.code_bytes

    @property
    def step_seconds(self) -> float | None:
        """How long a training step takes; None where nobody knows."""
        return None if self._runs is None else self._runs.step_seconds

    @step_seconds.setter
    def step_seconds(self, seconds: float | None) -> None:
        if self._runs is not None:
            self._runs.step_seconds = seconds

    def ran(
        self, knobs: Mapping[str, KnobValue]
    ) -> tuple[Counted, Exported | RunFailed | None] | None:
        """What a run of the script showed of a configuration, for people; None without one."""
        if self._runs is None or self._scheme is not None:
            return None
        counted = self._runs.count(knobs)
        return (counted, self._runs.exported(knobs)) if isinstance(counted, Counted) else None

    def _from_run(self, knobs: Mapping[str, KnobValue], steps: float | None) -> Expected | str:
        """What a run of the script says; why it says nothing."""
        if self._runs is None:
            return "the script is not run"
        counted = self._runs.count(knobs)
        if isinstance(counted, RunFailed):
            return f"its main() does not run without a GPU: {counted.reason}"
        if counted.incomplete:
            return f"its main() ran in part: {'; '.join(counted.notes)}"
        found = self._runs.predict(counted, knobs, {**self._defaults, **knobs}, steps)
        if isinstance(found, Prediction):
            return found
        read = self._from_reading(knobs)
        if read.model_params != counted.model_params or isinstance(read, Unknown):
            # The reading is of another model than the one that ran, or knows nothing.
            if self._measured:
                return self._inferred(counted.model_params)
            return Unknown(
                reason=f"{counted.model_params:,} parameters; {found.reason}; declare "
                "pgolf.gate.scheme, or the first finished trial tells",
                model_params=counted.model_params,
            )
        return found.reason

    def contradict(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        model_params: int | None,
        code_bytes: int | None = None,
    ) -> str:
        """Compare a finished trial's log with what was believed of its configuration.

        Args:
            knobs: The trial's configuration.
            model_params: The parameters that its log prints, or None.
            code_bytes: The counted code's bytes that it prints, or None.

        Returns:
            What differs, once for each branch; an empty string where nothing does.
        """
        branch = self._branch(knobs)
        if branch in self._contradicted:
            return ""
        if self._runs is not None and code_bytes is not None:
            self._runs.code_bytes = code_bytes
        believed = self._believed(knobs)
        if model_params is None or believed is None or believed == model_params:
            return ""
        where = " ".join(branch) or "its configuration"
        text = (
            f"the log prints {model_params:,} parameters, the probe counted {believed:,}: what it "
            f"says of {where} is not used any more"
        )
        self._contradicted[branch] = text
        return text

    def _believed(self, knobs: Mapping[str, KnobValue]) -> int | None:
        """The parameters that the probe counted."""
        if self._runs is not None:
            counted = self._runs.count(knobs)
            if isinstance(counted, Counted):
                return counted.model_params
        found = self._prober.probe(knobs)
        return found.model_params if isinstance(found, Probed) else None

    def _branch(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        """What may choose another model by name: values of a configuration that are no numbers."""
        return tuple(
            f"{name}={value}"
            for name, value in sorted({**self._defaults, **knobs}.items())
            if isinstance(value, bool | str) and name in knobs and not _PLACE.search(name)
        )

    def _unprobed_branch(self, branch: tuple[str, ...]) -> Unknown:
        return Unknown(reason=self._contradicted[branch])

    def _from_reading(self, knobs: Mapping[str, KnobValue]) -> Expected:
        found = self.probed(knobs)
        if isinstance(found, Unprobed):
            return self._refused(found, knobs)
        values = {**self._defaults, **knobs}
        if self._scheme is not None:
            return _declared(found, self._scheme)
        if found.incomplete:
            return Unknown(reason=f"the probe saw only a part: {'; '.join(found.notes)}")
        if found.classes:
            return _pushed(found, values)
        if self._measured:
            return self._inferred(found.model_params)
        why = "; ".join(found.notes) or "its quantizer was not recognised"
        return Unknown(
            reason=f"{found.model_params:,} parameters; {why}; declare pgolf.gate.scheme, "
            "or the first finished trial tells",
            model_params=found.model_params,
        )

    def probed(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        """What the probe found, for people."""
        return self._prober.probe(knobs)

    def learn(self, knobs: Mapping[str, KnobValue], model_bytes: int) -> None:
        """Take in a finished trial's bytes; matters where the quantizer is unknown."""
        believed = self._believed(knobs)
        if believed:
            self._measured.append(model_bytes / believed)

    def _refused(self, found: Unprobed, knobs: Mapping[str, KnobValue]) -> Unknown:
        default = self._prober.probe({}) if found.refused_by_script and knobs else None
        return Unknown(
            reason=f"the script cannot be probed: {found.reason}",
            invalid=isinstance(default, Probed),
        )

    def _inferred(self, model_params: int) -> Prediction:
        share = math.fsum(self._measured) / len(self._measured)
        size = share * model_params
        group = GroupSize(group="model", params=model_params, bits=0, model_bytes=size)
        return Prediction(
            groups=(group,),
            model_bytes=size,
            model_params=model_params,
            ceiling=4.0 * model_params,
            traits={},
            noise_bytes=INFERRED_SHARE * size,
            steps=0.0,
        )


def foreign_of(
    program: Program, scheme: SchemeBlock | None = None, env: Mapping[str, str] | None = None
) -> Foreign | None:
    """The predictions for a program that is not ours; None for our own trainer.

    Args:
        program: The program.
        scheme: ``pgolf.gate.scheme`` of the sweep file.
        env: What the script finds in its environment beside its knobs, as the data set's paths.
    """
    if program.builtin:
        return None
    defaults = {name: k.default for name, k in program.knobs.items() if k.default is not None}
    declared = None
    if scheme is not None:
        declared = Scheme(
            bits=scheme.bits,
            embed_bits=scheme.embed_bits,
            scale=ScaleRule(scheme.scale),
            parameter=scheme.parameter,
            codec=scheme.codec,
            keep_below=scheme.keep_below,
        )
    prober = _Worded(Prober(program, env=env, quantizer=declared is None), program.knobs)
    runs = RunBased(_WordedRunner(Runner(program, env=env), program.knobs), group_of)
    return Foreign(prober, defaults, declared, runs)


def _less_sure(answer: Expected, failed: str) -> Expected:
    """A reading where the run failed: a wider prediction, or both reasons."""
    if isinstance(answer, Unknown):
        return replace(answer, reason=f"{answer.reason}; {failed}")
    traits = {name: READING_FACTOR * size for name, size in answer.traits.items()}
    return replace(answer, traits=traits)


def group_of(name: str) -> str:
    """The tensor group that a parameter's name speaks of."""
    lowered = name.lower()
    return next((group for group, pattern in _GROUPS if pattern.search(lowered)), "mlp")


def _pushed(found: Probed, values: Mapping[str, KnobValue]) -> Prediction:
    """From the curves that the probe measured."""
    grown = _variance_grown(values)
    excess = 0.0 if found.codec in MEASURED else EXCESS.get(found.codec, UNKNOWN_EXCESS)
    factor = 1 + excess
    parts: list[tuple[str, int, int, float]] = []
    per_octave = {"matrices": 0.0, "embeddings": 0.0}
    for one in found.classes:
        group = "control" if one.kept and len(one.shape) < 2 else group_of(one.name)
        vocabulary = group in {"embed", "head"}
        sigma = EMBED_SIGMA if vocabulary else _sigma(one, grown)
        size, slope = _read(one.bytes_by_sigma, sigma)
        bits = 16 if one.kept else max(1, math.ceil(math.log2(max(2, one.levels))))
        share = 1.0 if one.kept else factor
        parts.append((group, one.params, bits, one.count * size * share))
        if not one.kept:
            kind = "embeddings" if vocabulary else "matrices"
            per_octave[kind] += one.count * slope * share
    tensors = sum(one.count * (1 if one.kept else 2) for one in found.classes)
    traits = {
        "foreign sigma": SIGMA_OCTAVES * per_octave["matrices"],
        "foreign embed": EMBED_OCTAVES * per_octave["embeddings"],
    }
    noise = NOISE_OCTAVES * per_octave["matrices"]
    return _prediction(found, parts, tensors * TENSOR_BYTES, traits, noise)


def _declared(found: Probed, scheme: Scheme) -> Prediction:
    """From the tensors that the probe counted and the scheme that the sweep file declares."""
    factor = 1 + EXCESS.get(scheme.codec, UNKNOWN_EXCESS)
    parts: list[tuple[str, int, int, float]] = []
    for tensor in found.tensors:
        group = group_of(tensor.name)
        if len(tensor.shape) < 2 or tensor.params <= scheme.keep_below:
            parts.append(("control", tensor.params, 16, 1.8 * tensor.params))
            continue
        bits = scheme.embed_bits if group in {"embed", "head"} else scheme.bits
        entropy = weight_bits(scheme.scale, bits, tensor.shape[-1], scheme.parameter)
        rows = tensor.params / tensor.shape[-1]
        parts.append(
            (group, tensor.params, bits, tensor.params * entropy / 8 * factor + 1.5 * rows)
        )
    return _prediction(found, parts, len(found.tensors) * TENSOR_BYTES, {})


def _prediction(
    found: Probed,
    parts: Iterable[tuple[str, int, int, float]],
    container: float,
    traits: Mapping[str, float],
    noise: float = 0.0,
) -> Prediction:
    params: dict[str, int] = {}
    sizes: dict[str, float] = {}
    widths: dict[str, tuple[int, int]] = {}  # of most of its numbers: a few are kept as they are
    for group, count, bits, size in parts:
        params[group] = params.get(group, 0) + count
        sizes[group] = sizes.get(group, 0.0) + size
        widths[group] = max(widths.get(group, (0, 0)), (count, bits))
    groups = [
        GroupSize(group=name, params=params[name], bits=widths[name][1], model_bytes=sizes[name])
        for name in ("embed", "attn", "mlp", "control", "head")
        if name in params
    ]
    groups.append(GroupSize(group="container", params=0, bits=0, model_bytes=container))
    model_bytes = math.fsum(group.model_bytes for group in groups)
    return Prediction(
        groups=tuple(groups),
        model_bytes=model_bytes,
        model_params=found.model_params,
        ceiling=max(4.2 * found.model_params + 2 * container, model_bytes),
        traits={k: v for k, v in traits.items() if v} | {"foreign": PHYSICS_SHARE * model_bytes},
        noise_bytes=math.hypot(NOISE_SHARE * model_bytes, noise),
        steps=0.0,
    )


def _read(curve: Mapping[float, float], sigma: float) -> tuple[float, float]:
    """Bytes at a sigma, and how many more an octave brings; linear between measured points."""

    def at(point: float) -> float:
        known = sorted(curve)
        point = min(max(point, known[0]), known[-1])
        for low, high in itertools.pairwise(known):
            if point <= high:
                share = math.log(point / low) / math.log(high / low)
                return curve[low] + share * (curve[high] - curve[low])
        return curve[known[-1]]

    below, above = at(sigma / 2), at(sigma * 2)
    return at(sigma), max(0.0, above - below) / 2


def _variance_grown(values: Mapping[str, KnobValue]) -> Any:
    """What the script's Muon does to its matrices, by the knobs that most scripts have."""

    def number(default: float, *names: str) -> float:
        for name in names:
            value = values.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return default

    steps = number(LONGEST_RUN, "ITERATIONS", "NUM_ITERATIONS", "MAX_STEPS")
    if number(0.0, "MAX_WALLCLOCK_SECONDS") > 0:
        steps = min(steps, LONGEST_RUN)
    rate = number(0.02, "MATRIX_LR", "MUON_LR", "LEARNING_RATE")
    momentum = number(0.95, "MUON_MOMENTUM")
    scale = trapezoid(steps, number(0.0, "WARMDOWN_ITERS"))
    return weight_drift(
        steps=max(1.0, steps),
        decay=number(0.0, "MUON_WD", "MUON_WEIGHT_DECAY", "WEIGHT_DECAY", "WD"),
        rate=lambda step: rate * scale(step),
        momentum=lambda _: min(max(momentum, 0.0), 0.999),
    )


def _sigma(one: QuantizedClass | ProbedTensor, grown: Any) -> float:
    """Standard deviation of a trained matrix, by its shape; scripts scale tall updates up."""
    rows, columns = (1, 1, *one.shape)[-2:]
    tall = max(1.0, rows / max(1, columns))
    variance = grown.variance(columns, 0.0) * tall + grown.kept / (3 * columns)
    return math.sqrt(max(float(variance), 1e-12))
