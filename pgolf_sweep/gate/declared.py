"""The artifact of a script whose sweep file declares how it quantizes (``pgolf.gate.scheme``)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.gate.physics.entropy import ScaleRule, weight_bits
from pgolf_sweep.gate.physics.predict import GroupSize, Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.script.probe.prober import Probed

EXCESS = {"zlib": 0.05, "zstd": 0.012, "lzma": 0.025, "brotli": 0.022}
"""What a codec adds to the entropy of the integers. Source: 52 runs of the contest's records for
brotli; zlib adds 1 % to 8-bit codes and 10 % to 6-bit ones."""
UNKNOWN_EXCESS = 0.02
TENSOR_BYTES = 90.0
"""Names and headers of one tensor in a compressed container of `torch.save`."""
PHYSICS_SHARE = 0.03
"""Spread of everything else: trained rows are not Gaussian, codecs find more or less in them."""
NOISE_SHARE = 0.01
"""Spread between configurations once the program's own error is known."""

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
    return _prediction(found, parts, len(found.tensors) * TENSOR_BYTES)


def _prediction(
    found: Probed, parts: Iterable[tuple[str, int, int, float]], container: float
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
        traits={"foreign": PHYSICS_SHARE * model_bytes},
        noise_bytes=NOISE_SHARE * model_bytes,
        steps=0.0,
    )
