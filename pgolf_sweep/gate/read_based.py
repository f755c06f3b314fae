"""The artifact of a script that was read: from its quantizer's curves, or a declared scheme.

The reading probe (`pgolf_sweep.script.probe.prober`) measures what a quantizer makes of Gaussians
at several sigmas. What is left to guess is the sigma of the trained weights: of matrices under Muon
by `dynamics`, of the rest roughly. How much that matters is the slope of the measured curve.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.gate.physics.dynamics import trapezoid, weight_drift
from pgolf_sweep.gate.physics.entropy import ScaleRule, weight_bits
from pgolf_sweep.gate.physics.predict import GroupSize, Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.probe.prober import Probed, ProbedTensor, QuantizedClass

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
LONGEST_RUN = 10_000.0
"""Steps of Muon assumed where the wallclock ends the run: baseline runs end at 13,000."""

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


def group_of(name: str) -> str:
    """The tensor group that a parameter's name speaks of."""
    lowered = name.lower()
    return next((group for group, pattern in _GROUPS if pattern.search(lowered)), "mlp")


def from_curves(found: Probed, values: Mapping[str, KnobValue]) -> Prediction:
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


def from_scheme(found: Probed, scheme: Scheme) -> Prediction:
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
