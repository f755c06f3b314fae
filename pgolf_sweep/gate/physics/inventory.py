"""The tensors of our own trainer's model in closed form, and the container that they go into.

No torch: a test holds this equal to the real `state_dict` over random configurations. What is a
valid configuration is asked of the trainer itself (`trainer.config`, plain Python).
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgolf_sweep.core.trial import KnobValue, knob_text
from trainer.checks import ALIASES
from trainer.config import Config, TrainerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Group: TypeAlias = Literal["embed", "attn", "mlp", "control", "head"]
GROUPS: tuple[Group, ...] = ("embed", "attn", "mlp", "control", "head")

CORRECTION_BITS = 3.8
"""Of a code of a low-rank correction, after compression."""

FLOAT16_BITS = 16
"""Bits that stand for "kept as float16, not quantized"."""

SIZE_KNOBS = (
    "VOCAB_SIZE",
    "NUM_LAYERS",
    "NUM_KV_HEADS",
    "MODEL_DIM",
    "NUM_HEADS",
    "MLP_MULT",
    "TIE_EMBEDDINGS",
    "NUM_LOOPS",
    "LOOP_START",
    "LOOP_END",
    "PARALLEL_START_LAYER",
    "SKIP_GATES_ENABLED",
    "ATTN_GATE_ENABLED",
    "SMEAR_GATE_ENABLED",
    "GATE_WINDOW",
    "MATRIX_BITS",
    "ATTN_BITS",
    "MLP_BITS",
    "EMBED_BITS",
    "QUANT_SCALE",
    "CLIP_SIGMAS",
    "ATTN_CLIP_SIGMAS",
    "MLP_CLIP_SIGMAS",
    "EMBED_CLIP_SIGMAS",
    "CLIP_PERCENTILE",
    "CODEC",
    "CODEC_LEVEL",
    "BYTE_SHUFFLE",
    "RANS",
    "LQER_RANK",
    "LQER_TOP_K",
)
"""Knobs that decide the container's layout; the others move its bytes through training alone."""


class UnbuildableError(ValueError):
    """No model can be built from the knobs; the message says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of the model, as the artifact stores it.

    Attributes:
        name: Its key in the state dict.
        shape: Its dimensions.
        group: Which part of the model it belongs to.
        bits: Bits of a quantized weight; `FLOAT16_BITS` for a tensor that is kept.
    """

    name: str
    shape: tuple[int, ...]
    group: Group
    bits: int

    @property
    def params(self) -> int:
        """Number of weights."""
        product = 1
        for length in self.shape:
            product *= length
        return product

    @property
    def quantized(self) -> bool:
        """Whether it is stored as integers with a step for each row."""
        return self.bits != FLOAT16_BITS


_READERS: dict[str, Callable[[str], KnobValue]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: bool(int(text)),
}
_OF_THE_NODE = {"rank", "world_size", "local_rank"}
_FIELDS = tuple(
    (field.name, field.name.upper(), str(field.type))
    for field in fields(Config)
    if field.name not in _OF_THE_NODE
)


def by_our_names(
    knobs: Mapping[str, KnobValue], defaults: Mapping[str, KnobValue]
) -> dict[str, KnobValue]:
    """Knobs with those that records call otherwise under the trainer's own names as well.

    Args:
        knobs: Values by name.
        defaults: Values of what is not set; a stored configuration may hold them too.
    """
    values = dict(knobs)
    for alias, name in ALIASES.items():
        if alias in knobs and knobs[alias] != defaults.get(alias):
            values[name] = knobs[alias]
    return values


def read_config(knobs: Mapping[str, KnobValue]) -> Config:
    """The trainer's configuration from knobs, by the trainer's own checks.

    Args:
        knobs: A value for each knob of the trainer; others are ignored.

    Raises:
        UnbuildableError: A value is missing, does not read, or contradicts another.
    """
    values: dict[str, Any] = {}
    for name, knob, kind in _FIELDS:
        if knob not in knobs:
            raise UnbuildableError(f"{knob} has no value")
        value = knobs[knob]
        try:
            values[name] = _as_read(kind, knob_text(value))
        except (ValueError, OverflowError):
            raise UnbuildableError(f"{knob}={value!r} does not read as {kind}") from None
    try:
        return Config(**values)
    except (TrainerError, ArithmeticError) as error:
        raise UnbuildableError(str(error)) from error


def refused_batches(config: Config, gpus: int) -> str:
    """Why the trainer cannot split its batches among this number of GPUs; empty if it can."""
    try:
        replace(config, world_size=max(1, gpus)).accumulation(on_gpu=gpus > 0)
    except TrainerError as error:
        return str(error)
    return ""


@lru_cache(maxsize=4096)
def _as_read(kind: str, text: str) -> KnobValue:
    """A knob as the script reads its text."""
    return _READERS[kind](text)


def pass_length(config: Any) -> int:
    """Blocks that a pass goes through, those of a loop as often as it goes over them."""
    return int(config.num_layers + config.num_loops * (config.loop_end - config.loop_start + 1))


def tensors(config: Config) -> Iterator[TensorInfo]:
    """Every tensor of the state dict, in its order."""
    width, vocab, layers = config.model_dim, config.vocab_size, config.num_layers
    kv_width = config.num_kv_heads * config.head_dim
    hidden = int(config.mlp_mult * width)
    attn_bits = config.attn_bits or config.matrix_bits
    mlp_bits = config.mlp_bits or config.matrix_bits

    def kept(name: str, *shape: int) -> TensorInfo:
        return TensorInfo(name=name, shape=shape, group="control", bits=FLOAT16_BITS)

    def matrix(name: str, group: Group, rows: int, columns: int, bits: int) -> TensorInfo:
        return TensorInfo(name=f"{name}.weight", shape=(rows, columns), group=group, bits=bits)

    skips = pass_length(config) // 2
    yield kept("skip_scale", skips, width)
    if config.skip_gates_enabled:
        yield kept("skip_gate", skips, width)
    if config.smear_gate_enabled:
        yield kept("smear_gate", config.gate_window)
        yield kept("smear_scale", 1)
    yield matrix("embed", "embed", vocab, width, config.embed_bits)
    for layer in range(layers):
        block = f"blocks.{layer}"
        yield kept(f"{block}.attn_scale", width)
        yield kept(f"{block}.mlp_scale", width)
        yield kept(f"{block}.resid_mix", 2, width)
        if 0 < config.parallel_start_layer <= layer:
            yield kept(f"{block}.lane_scale", 3, 2)
        yield kept(f"{block}.attn.q_scale", config.num_heads)
        if config.attn_gate_enabled:
            yield kept(f"{block}.attn.gate", config.num_heads, config.gate_window)
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width), ("out", width)):
            yield matrix(f"{block}.attn.{name}", "attn", rows, width, attn_bits)
        yield matrix(f"{block}.mlp.up", "mlp", hidden, width, mlp_bits)
        yield matrix(f"{block}.mlp.down", "mlp", width, hidden, mlp_bits)
    if not config.tie_embeddings:
        yield matrix("head", "head", vocab, width, config.embed_bits)


@dataclass(frozen=True, slots=True)
class Census:
    """The tensors of one shape, as few as there are kinds of them.

    Attributes:
        kinds: One tensor of each kind, by what its name says it is, and how many there are.
        matrices: The quantized tensors in the container's order, as places in `kinds`.
        container_bytes: As the function of that name says.
    """

    kinds: tuple[tuple[str, TensorInfo, int], ...]
    matrices: tuple[int, ...]
    container_bytes: int


def census(config: Config) -> Census:
    """The tensors of a configuration, counted; configurations of one shape share the answer."""
    return _census(tuple(getattr(config, name) for name in _SHAPE_FIELDS))


_SHAPE_FIELDS = tuple(
    name.lower()
    for name in SIZE_KNOBS
    if name in SIZE_KNOBS[: SIZE_KNOBS.index("MATRIX_BITS")] or name.endswith("_BITS")
)


@lru_cache(maxsize=1024)
def _census(shape: tuple[Any, ...]) -> Census:
    config: Any = SimpleNamespace(**dict(zip(_SHAPE_FIELDS, shape, strict=True)))
    config.head_dim = config.model_dim // config.num_heads
    listed = tuple(tensors(config))
    kinds: dict[tuple[str, tuple[int, ...]], list[TensorInfo]] = {}
    for tensor in listed:
        kind = tensor.name.removesuffix(".weight").split(".")[-1]
        kinds.setdefault((kind, tensor.shape), []).append(tensor)
    places = {tensor.name: at for at, alike in enumerate(kinds.values()) for tensor in alike}
    return Census(
        tuple((kind, alike[0], len(alike)) for (kind, _), alike in kinds.items()),
        tuple(places[tensor.name] for tensor in listed if tensor.quantized),
        container_bytes(listed),
    )


def correction_bytes(config: Any, found: Census) -> float:
    """Bytes of the low-rank corrections: those of the largest matrices, which err most."""
    rank = config.lqer_rank
    sizes = [t.shape for _, t, count in found.kinds if t.quantized for _ in range(count)]
    largest = sorted(sizes, key=math.prod, reverse=True)[: config.lqer_top_k if rank else 0]
    # Codes of 4 bits in pairs, a step for each row of a factor, and two entries of the header.
    return float(sum(CORRECTION_BITS / 8 * rank * sum(shape) + 4 * rank + 30 for shape in largest))


def container_bytes(listed: tuple[TensorInfo, ...]) -> int:
    """Bytes of the artifact that are neither weights nor steps: magic and compressed header.

    The header is built exactly, then compressed by zlib regardless of the codec: it is a few
    hundred bytes, and the codecs agree on it within some tens.
    """
    header = bytearray()
    for tensor in listed:
        name = tensor.name.encode()
        header += struct.pack("<B", len(name)) + name
        header += struct.pack(f"<BB{len(tensor.shape)}I", tensor.bits, len(tensor.shape),
                              *tensor.shape)  # fmt: skip
    return 6 + 4 + len(zlib.compress(bytes(header), 6))
