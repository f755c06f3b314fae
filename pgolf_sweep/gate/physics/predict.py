"""The bytes of one configuration's compressed model, from first principles and a few measurements.

What is counted: each matrix by the entropy of its quantized distribution (`entropy`), times what
the codec adds (`codecs`); steps, gains and mixes by measured bits; the container's header as it
will be. What is not known beforehand is named: a configuration has *traits*, directions in which
the prediction may be wrong, each with its weight in bytes for a unit of error. Calibration learns
how large the errors are. Their first guesses (`traits`) were fitted on one half of the trainings of
`bench/gate/trainings.py`; `docs/gate.md` reports the other half.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pgolf_sweep.gate.physics import codec_overhead, container
from pgolf_sweep.gate.physics.dynamics import WeightDrift, warmup_fraction, weight_drift
from pgolf_sweep.gate.physics.entropy import ScaleRule, entropy_bits, level_shares, widest_bits
from pgolf_sweep.gate.physics.inventory import GROUPS, Census, Group, census, correction_bytes
from pgolf_sweep.gate.physics.unused_rows import found_share, unused_share
from trainer.config import CODEC_BEST_LEVEL
from trainer.schedule import lr_scale, muon_momentum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

UNIFORM_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)
"""Shares of a uniform start at which a layout is computed; in between it is interpolated."""

UNIFORM_START = frozenset({"q", "k", "v", "up"})
"""Matrices that begin uniform; the others begin at zero, the embedding Gaussian."""

NOISE = 1.15
"""What is left to chance came out larger than the parts by which it is reckoned."""

SURE_BYTES = 150.0
"""What tables and blocks cost more or less, regardless of the size."""


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


@dataclass(frozen=True, slots=True)
class Layout:
    """What the physics says of all configurations that share a layout of the container."""

    groups: tuple[GroupSize, ...]  # their bytes are for `at` to say
    by_uniform: Mapping[str, tuple[float, ...]]  # a group's bytes along `UNIFORM_GRID`
    model_params: int
    ceiling: float
    weights: Mapping[str, float]  # a kind of matrix -> its weights
    vocabulary: Mapping[str, float]  # bytes of the codes of embedding and head
    kept: float  # bytes of gains, mixes and steps
    mixing: float
    switches: float  # bytes lost where unlike matrices follow each other
    family: str

    def at(self, uniform: float) -> dict[str, float]:
        """Bytes by group where a share of the weights' variance is still uniform."""
        place = bisect_right(UNIFORM_GRID, uniform, hi=len(UNIFORM_GRID) - 1) - 1
        low, high = UNIFORM_GRID[place], UNIFORM_GRID[place + 1]
        share = min(1.0, (uniform - low) / (high - low))
        return {
            name: values[place] + share * (values[place + 1] - values[place])
            for name, values in self.by_uniform.items()
        }


@dataclass(frozen=True, slots=True)
class Prediction:
    """One configuration's model before anything of its kind was measured.

    Attributes:
        groups: The parts; they add up to `model_bytes`.
        traits: Bytes that one unit of each trait's error is worth.
        noise_bytes: What is left to chance: one unit of calibration's noise.
        steps: Training steps that were assumed.
    """

    groups: tuple[GroupSize, ...]
    model_bytes: float
    model_params: int
    ceiling: float
    traits: Mapping[str, float]
    noise_bytes: float
    steps: float


def layout(config: Any, parameter: float) -> Layout:
    """The physics of one layout; with RANS of the shorter of both containers.

    Args:
        config: A `trainer.config.Config`.
        parameter: Of its scale rule, as of `entropy.weight_bits`.
    """
    known = [_layout(config, parameter, rans=rans) for rans in {False, bool(config.rans)}]
    return min(known, key=lambda each: sum(each.at(0.0).values()))


def _layout(config: Any, parameter: float, *, rans: bool) -> Layout:
    rule = ScaleRule(config.quant_scale)
    step_bytes = container.STEP_BITS[config.byte_shuffle] / 8
    float_bytes = container.FLOAT_BITS[config.byte_shuffle] / 8
    found = census(config)
    quantized = sum(count * tensor.params for _, tensor, count in found.kinds if tensor.quantized)
    scale = codec_overhead.size_share(max(1, quantized))
    params = dict.fromkeys(GROUPS, 0)
    sizes = {name: np.zeros(len(UNIFORM_GRID)) for name in GROUPS}
    bits_of: dict[Group, int] = {}
    weights: dict[str, float] = dict.fromkeys(("start", "out", "down", "embed", "head"), 0.0)
    vocabulary: dict[str, float] = {}
    tables: list[Floats] = []  # what the bytes of each kind are
    lengths: list[float] = []  # bytes of one matrix of each kind, before compression
    ceiling, kept = 0.0, 0.0
    for kind, tensor, tensors in found.kinds:
        count = tensors * tensor.params
        params[tensor.group] += count
        bits_of[tensor.group] = tensor.bits
        if not tensor.quantized:
            sizes[tensor.group] += count * float_bytes
            kept += count * float_bytes
            ceiling += 2.1 * count
            tables.append(container.EVEN)
            lengths.append(0.0)
            continue
        rows, columns = tensors * tensor.shape[0], tensor.shape[1]
        starts = kind in UNIFORM_START
        weights["start" if starts else kind] += count
        clip = group_clip(config, tensor.group) if rule is ScaleRule.SDCLIP else 0.0
        few, many, entropy, table = _matrix(
            rule, tensor.bits, columns, clip or parameter, config.codec, starts=starts
        )
        coded = count / 8 * (few + scale * (many - few))
        if rans:  # a run for each kind, with a table of its own
            coded = np.minimum(coded, count / 8 * codec_overhead.rans_bits(tensor.bits, entropy))
            coded += codec_overhead.rans_table_bytes(config.codec, tensor.bits, entropy)
        if kind in {"embed", "head"}:
            vocabulary[kind] = float(coded[0])
        sizes[tensor.group] += coded + rows * step_bytes
        kept += rows * step_bytes
        ceiling += count / 8 * _most_bits(config.codec, tensor.bits) + 2.1 * rows
        tables.append(table)
        lengths.append(tensor.params / codec_overhead.codes_a_byte(tensor.bits))
    container_bytes, mixing, switches = _spare(config, found, lengths, tables, kept, rans=rans)
    spare = container_bytes + mixing + switches
    by_uniform: dict[str, tuple[float, ...]] = {
        name: tuple(sizes[name].tolist()) for name in GROUPS if params[name]
    }
    groups = [
        GroupSize(
            group=name, params=params[name], bits=bits_of[name], model_bytes=by_uniform[name][0]
        )
        for name in GROUPS
        if params[name]
    ]
    groups.append(GroupSize(group="container", params=0, bits=0, model_bytes=spare))
    by_uniform["container"] = (spare,) * len(UNIFORM_GRID)
    return Layout(
        groups=tuple(groups),
        by_uniform=by_uniform,
        model_params=sum(params.values()),
        ceiling=1.02 * ceiling + 2 * container_bytes + 2 * mixing + 10 * switches + 800.0,
        weights=weights,
        vocabulary=vocabulary,
        kept=kept,
        mixing=mixing,
        switches=switches,
        family="/".join(map(str, (coder_name(config), rule, bits_of["attn"], bits_of["mlp"]))),
    )


def coder_name(config: Any) -> str:
    """What codes the blocks' matrices, as traits name it."""
    return "rans" if config.rans else str(config.codec)


def _spare(
    config: Any,
    found: Census,
    lengths: list[float],
    tables: list[Floats],
    kept: float,
    *,
    rans: bool,
) -> tuple[float, float, float]:
    """Bytes that belong to no group: the container's own, those of mixing and of switches.

    Args:
        config: A `trainer.config.Config`.
        found: Its tensors.
        lengths: Bytes of one matrix of each kind before compression.
        tables: What the bytes of each kind are.
        kept: Bytes of scales, mixes and steps.
        rans: Whether codes lie by kind.
    """
    own = found.container_bytes + container.CONSTANT_BYTES + correction_bytes(config, found)
    if rans:
        return own, 0.0, 0.0
    by_bits = groupby(found.matrices, lambda place: found.kinds[place][1].bits)
    runs = [[(lengths[place], place) for place in run] for _, run in by_bits]
    widths = [(lengths[place], found.kinds[place][1].bits) for place in found.matrices]
    mixing = container.mixing_bytes(config.codec, runs, tables, kept)
    return own, mixing, container.switch_bytes(config.codec, widths)


def group_clip(config: Any, group: str) -> float:
    """Clip of sdclip that a group has for itself, in standard deviations; 0 follows the common."""
    name = {"attn": "attn_clip_sigmas", "mlp": "mlp_clip_sigmas"}.get(group, "embed_clip_sigmas")
    return float(getattr(config, name))


def between(low: Layout, high: Layout, share: float) -> Layout:
    """What lies a share of the way from one layout to another that differs in the scale alone."""

    def mixed(start: float, end: float) -> float:
        return start + share * (end - start)

    by_uniform = {
        name: tuple(map(mixed, values, high.by_uniform[name]))
        for name, values in low.by_uniform.items()
    }
    return replace(
        low,
        by_uniform=by_uniform,
        ceiling=mixed(low.ceiling, high.ceiling),
        vocabulary={name: mixed(at, high.vocabulary[name]) for name, at in low.vocabulary.items()},
        mixing=mixed(low.mixing, high.mixing),
    )


@lru_cache(maxsize=4096)
def _matrix(
    rule: ScaleRule,
    bits: int,
    columns: int,
    parameter: float,
    codec: str,
    *,
    starts: bool,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Bits of a weight after compression along `UNIFORM_GRID`.

    In a small and in a large model; then the bits that it carries, and what its bytes are. `starts`
    says whether the matrix begins uniform.
    """
    grid = UNIFORM_GRID if starts else UNIFORM_GRID[:1]
    shares = [level_shares(rule, bits, columns, parameter, uniform) for uniform in grid]
    entropy = np.array([entropy_bits(each) for each in shares])
    few, many = codec_overhead.coded_bits(codec, bits, entropy)
    return few, many, entropy, container.byte_shares(shares[0], bits)


@cache
def _most_bits(codec: str, bits: int) -> float:
    """Bits of a weight after compression where all levels are equally likely, and then some."""
    entropy = widest_bits(bits)
    coded = max(
        float(each[0]) for each in codec_overhead.coded_bits(codec, bits, np.array([entropy]))
    )
    return 1.01 * coded + (coded - entropy)


def moved(config: Any, steps: float) -> WeightDrift:
    """What this many steps of Muon do to the blocks' matrices, by the trainer's own schedule."""
    pace = config.max_wallclock_seconds / steps if config.max_wallclock_seconds > 0 else 0.0
    return weight_drift(
        steps=steps,
        decay=config.weight_decay,
        rate=lambda step: config.matrix_lr * lr_scale(config, int(step), pace * step),
        momentum=lambda step: muon_momentum(config, int(step)),
    )


def group_bytes(config: Any, known: Layout, steps: float) -> dict[str, float]:
    """Bytes by group of a configuration of a layout, trained for this many steps."""
    # Orthogonal matrices start with entries that are Gaussian from the first step on.
    sizes = known.at(0.0 if config.ortho_init else moved(config, steps).uniform)
    unused = unused_share(config)
    if "head" in sizes:  # untied: the embedding starts wide, the head at zero
        sizes["head"] -= unused * known.vocabulary["head"]
    else:
        sizes["embed"] -= unused * found_share(config, steps) * known.vocabulary["embed"]
    return sizes


def predict(config: Any, known: Layout, steps: float) -> Prediction:
    """A configuration of a layout, trained for this many steps."""
    sizes = group_bytes(config, known, steps)
    groups = tuple(
        GroupSize(group=g.group, params=g.params, bits=g.bits, model_bytes=sizes[g.group])
        for g in known.groups
    )
    model_bytes = math.fsum(sizes.values())
    traits, noise_bytes = _traits(config, known, steps, model_bytes)
    return Prediction(
        groups=groups,
        model_bytes=model_bytes,
        model_params=known.model_params,
        ceiling=max(known.ceiling, model_bytes),
        traits=traits,
        noise_bytes=noise_bytes,
        steps=steps,
    )


def _traits(
    config: Any, known: Layout, steps: float, model_bytes: float
) -> tuple[dict[str, float], float]:
    weights = known.weights
    codec, rule = coder_name(config), str(config.quant_scale)
    warmup, unused = warmup_fraction(steps), unused_share(config)
    blocks = (weights["start"] + weights["out"] + weights["down"]) / 8
    attn_bits = config.attn_bits or config.matrix_bits
    mlp_bits = config.mlp_bits or config.matrix_bits
    bits = (attn_bits + mlp_bits) / 2 - 6
    down, embed, head = weights["down"] / 8, weights["embed"] / 8, weights["head"] / 8
    near_duplicate_rows = embed * unused * config.tie_embeddings
    rate = math.log(max(config.matrix_lr, 1e-6) / 0.02)
    decayed = 1 - math.exp(-max(0.0, config.matrix_lr * config.weight_decay * steps))
    duration = math.log(max(steps, 1.0) / 200)
    tokens_per_piece = config.train_batch_tokens / config.vocab_size
    embedding_rate = math.log(max(config.tied_embed_lr, 1e-6) / 0.05)
    traits = {
        "blocks": blocks,
        f"blocks {rule}": blocks,
        f"blocks {codec}": blocks,
        f"blocks {known.family}": blocks,
        "blocks bits": blocks * bits,
        "blocks warmup rate": blocks * warmup * rate,
        "blocks warmup decay": blocks * warmup * decayed,
        "start warmup": weights["start"] / 8 * warmup,
        "out warmup": weights["out"] / 8 * warmup,
        "down warmup": down * warmup,
        f"down warmup {rule}": down * warmup,
        "down warmup rate": down * warmup * rate,
        "down warmup decay": down * warmup * decayed,
        "down warmup momentum": down * warmup * (config.muon_momentum > 0.97),
        "embed": embed * config.tie_embeddings,
        "embed untied": embed * (not config.tie_embeddings),
        "near-duplicate rows": near_duplicate_rows,
        f"near-duplicate rows {codec}": near_duplicate_rows,
        f"near-duplicate rows {rule}": near_duplicate_rows,
        "near-duplicate rows bits": near_duplicate_rows * (config.embed_bits - 6),
        "near-duplicate rows duration": near_duplicate_rows * duration,
        "near-duplicate rows batch": near_duplicate_rows * math.log(tokens_per_piece / 2),
        "near-duplicate rows rate": near_duplicate_rows * embedding_rate,
        "near-duplicate rows depth": near_duplicate_rows * math.log(config.num_layers / 3),
        "near-duplicate rows width": near_duplicate_rows * math.log(config.model_dim / 64),
        "near-duplicate rows averaged": near_duplicate_rows * (config.ema_decay > 0),
        "head": head,
        f"head {codec}": head * unused,
        f"head {rule}": head * unused,
        "kept": known.kept / 12,
        f"kept {codec}": known.kept / 12,
        f"mixing {codec}": known.mixing,
        "container": 1.0,
        f"container {codec}": 1.0,
    }  # fmt: skip
    if rule == ScaleRule.SDCLIP:
        attn = group_clip(config, "attn") or config.clip_sigmas
        mlp = group_clip(config, "mlp") or config.clip_sigmas
        traits["blocks clip"] = blocks * ((math.log(attn) + math.log(mlp)) / 2 - math.log(6))
        traits["down warmup clip"] = down * warmup * (math.log(mlp) - math.log(6))
    if 0 < config.codec_level < CODEC_BEST_LEVEL[config.codec]:
        traits[f"level {codec}"] = model_bytes / 100
        traits[f"level {codec} bits"] = model_bytes / 100 * bits
        traits[f"near-duplicate rows level {codec}"] = near_duplicate_rows
    noise = [
        SURE_BYTES,
        0.02 * blocks,
        0.06 * blocks * warmup,
        0.12 * down * warmup,
        0.02 * embed + 0.05 * head,
        0.4 * known.mixing,
        container.SWITCH_SPREAD.get(codec, 0.0) * known.switches,
        0.15 * embed * unused,
    ]
    unit = NOISE * math.sqrt(math.fsum(part * part for part in noise))
    return {name: worth for name, worth in traits.items() if worth}, unit
