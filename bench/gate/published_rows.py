"""Reading a table of other people's runs: one training log a row.

A table says shape, rates, steps, the kind of quantizer in words and the codec. What it leaves out
is read from another log of the same record, or is what the contest's scripts share (`_warm_up`,
`_average`, `_split`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf_sweep.gate.physics.random_walk import Average, TrainingRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CODECS = frozenset({"zlib", "zstd", "lzma", "brotli", "lrzip"})
FLOORLESS = frozenset({"int5-mlp+int6-attn+fp16-embed", "int6-blocks+fp16-embed"})
"""Schemes whose step has no floor; read from the records' scripts, the table does not say."""
TABLES_AS_ATTENTION = frozenset({"int5-mlp+int6-attn+fp16-embed"})
"""Schemes that quantize further tables like the attention; others take eight bits and a floor."""
FLOAT16_KEYS = {
    "int5-mlp+int6-attn+fp16-embed": 1,
    "int6-blocks+fp16-embed": 1,
    "int6-blocks+fp16-embed+fp16-lateK": 2,
}
"""Key projections that a scheme keeps in float16; read from the records' scripts."""
PROJECTION_WIDTH = 128
"""Width of the contest's additional tables (bigrams, values), which are projected to the model's.
The projection, 65,536 weights at width 512, is just small enough to stay in float16."""
CAP_BYTES = 16_000_000
"""Of the contest, code included."""
LARGEST_TABLES = 0.1
"""Share of the parameters above which what is neither attention nor MLP by the usual formula
cannot be tables: the blocks themselves are of another kind, and these are their matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """One row, read.

    Attributes:
        record: Whose run it was; runs of one record share a script.
        configuration: The same for runs that differ by their seed alone. Runs that were appended to
            one log (the same seed again, so another script or environment) differ.
        scheme: The quantizer in words.
        bits: Bits of MLP, attention and embedding; 16 for what is kept.
        sigmas: Clips of MLP, attention and embedding in standard deviations, or None.
        training: What Muon did.
        embed_rate: Adam's rate for the embedding.
        float16_params: What is stored in float16 besides an embedding of 16 bits.
        float32_params: Gains and mixes, stored in float32.
        floorless: Whether the quantizer's step has no floor.
        tables_as_attention: Whether further tables are quantized like the attention.
        cap_bytes: The model's bytes that a script prunes down to, or infinity.
    """

    record: str
    configuration: str
    scheme: str
    codec: str
    model_bytes: int
    model_params: int
    attn_params: float
    mlp_params: float
    embed_params: float
    width: int
    hidden: int
    bits: tuple[int, int, int]
    sigmas: tuple[float, float, float] | None
    training: TrainingRun
    embed_rate: float
    float16_params: float = 0.0
    float32_params: float = 0.0
    floorless: bool = False
    tables_as_attention: bool = False
    cap_bytes: float = math.inf

    @property
    def other_params(self) -> float:
        """What is neither matrix of a block nor embedding."""
        return self.model_params - self.attn_params - self.mlp_params - self.embed_params

    @property
    def table_params(self) -> float:
        """Further tables and matrices, which the quantizer touches."""
        return max(0.0, self.other_params - self.float16_params - self.float32_params)


def read_run(row: Mapping[str, str]) -> PublishedRun | None:
    """A row of a table with the columns of the contest's log table; None if it does not suffice.

    Rows that are copies of others, or that trained nothing, do not count.
    """
    scheme = row.get("quant_scheme", "")
    bits = _scheme_bits(scheme)
    try:
        if row.get("duplicate_of") or _number(row, "eval_only", 0.0) or bits is None:
            return None
        layers, width = _number(row, "num_layers"), _number(row, "model_dim")
        kv = _number(row, "num_kv_heads") / _number(row, "num_heads")
        mult, steps = _number(row, "mlp_mult"), int(_number(row, "iterations_done"))
        clip = _number(row, "matrix_clip_sigmas", math.nan)
        run = PublishedRun(
            record=row["record"],
            configuration="",
            scheme=scheme,
            codec=row["codec"].partition("-")[0],
            model_bytes=int(_number(row, "model_bytes")),
            model_params=int(_number(row, "model_params")),
            attn_params=layers * width * (2 * width + 2 * width * kv),
            mlp_params=layers * 2 * width * width * mult,
            embed_params=_number(row, "vocab_size") * width,
            width=int(width),
            hidden=int(width * mult),
            bits=bits,
            sigmas=None
            if math.isnan(clip)
            else (
                _number(row, "mlp_clip_sigmas", clip),
                _number(row, "attn_clip_sigmas", clip),
                _number(row, "embed_clip_sigmas", clip),
            ),
            training=_training_run(row, steps),
            embed_rate=_number(row, "tied_embed_lr", 0.03),
            floorless=scheme in FLOORLESS,
            tables_as_attention=scheme in TABLES_AS_ATTENTION,
        )
    except (KeyError, ValueError):
        return None
    if run.other_params < 0 or run.codec not in CODECS or not steps:
        return None
    training = run.training
    data = [row.get(name, "") for name in ("train_seq_len", "train_batch_tokens", "run_idx")]
    key = (
        f"{run.record} {run.model_params} {training.rate} {training.momentum} {training.decay} "
        f"{training.steps:.1g} {' '.join(data)}"
    )
    cap = math.inf
    if "sel-prune" in scheme and row.get("code_bytes"):
        cap = CAP_BYTES - _number(row, "code_bytes")
    return _split(replace(run, configuration=key, cap_bytes=cap), row, layers, kv)


def _training_run(row: Mapping[str, str], steps: int) -> TrainingRun:
    fraction = _number(row, "warmdown_frac", math.nan)
    warmdown = _number(row, "warmdown_iters", 1200.0 if math.isnan(fraction) else math.nan)
    if math.isnan(warmdown):
        warmdown = fraction * steps
    momentum = _number(row, "muon_momentum", 0.95)
    start, warm_up = _warm_up(momentum)
    average, length = _average(row.get("ema_or_swa", "none"), warmdown)
    return TrainingRun(
        steps=steps,
        rate=_number(row, "matrix_lr", 0.02),
        warmdown=warmdown,
        decay=_number(row, "weight_decay", 0.0),
        momentum=momentum,
        momentum_start=start,
        momentum_warmup=min(warm_up, warmdown / 2),
        average=average,
        average_steps=length,
    )


def _warm_up(momentum: float) -> tuple[float, float]:
    """Where the momentum starts and how long it grows, by where it ends.

    The baseline's 0.85 and 500 steps, or 0.92 and 1500 in every record that raised it. Records
    with few steps shortened it with the warm-down, to half of that.
    """
    return (0.85, 500.0) if momentum <= 0.95 else (0.92, 1500.0)


def _average(words: str, warmdown: float) -> tuple[Average, float]:
    """Which average a run stores, from the table's words.

    "swa" is over the second half of the warm-down; where both are named the script logs one and
    stores the exponential one.
    """
    if words.startswith("ema"):
        decay = float(words.partition("+")[0][3:] or 0.997)
        return Average.EXPONENTIAL, 1 / (1 - decay)
    if words.startswith("swa"):
        return Average.UNIFORM, max(1.0, warmdown / 2)
    return Average.NONE, 0.0


def _split(run: PublishedRun, row: Mapping[str, str], layers: float, kv: float) -> PublishedRun:
    """What of the rest is gains in float32, what is kept in float16, what are tables.

    Gains and mixes are 4.5 vectors a layer in nearly all scripts. The payload, which counts one
    byte for a quantized weight, tells what else was kept; without it the projection of a table is.
    """
    gains = min(run.other_params, 4.5 * layers * run.width)
    rest = run.other_params - gains
    keys = FLOAT16_KEYS.get(run.scheme, 0) * run.width * run.width * kv
    if rest > LARGEST_TABLES * run.model_params:
        return replace(
            run, attn_params=run.attn_params + rest, float32_params=gains, float16_params=0.0
        )
    payload = _number(row, "payload_bytes", 0.0)
    if payload:
        rows = layers * (2 + 2 * kv) * run.width + layers * (run.hidden + run.width)
        spare = payload - run.model_params - 2 * rows - 3 * gains
        spare -= run.embed_params if run.bits[2] == 16 else 2 * run.embed_params / run.width
        kept = min(rest, max(0.0, spare - keys))
    else:
        kept = float(PROJECTION_WIDTH * run.width)
        kept = kept if rest > 2 * kept else 0.0
    return replace(
        run,
        attn_params=run.attn_params - keys,
        float16_params=kept + keys,
        float32_params=gains,
    )


def complete(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows, with what a log leaves out taken from other logs.

    From one of the same record; else, since settings travel together, what most records with the
    same three rates have.
    """
    of_record: dict[tuple[str, str], str] = {}
    of_rates: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    said = set()
    for told in map(_with_share, rows):
        for name in _LEFT_OUT:
            if not told.get(name):
                continue
            place = (told["record"], name)
            of_record.setdefault(place, told[name])
            value = told.get("warmdown_iters") if name == "warmdown_frac" else told[name]
            if value and place not in said:  # a record counts once
                said.add(place)
                of_rates[_rates(told), name][value] += 1
    filled = []
    for row in rows:
        copy = dict(row)
        for name in _LEFT_OUT:
            if row.get(name) or (name == "warmdown_frac" and row.get("warmdown_iters")):
                continue
            copy[name] = of_record.get((row["record"], name), "")
            usual = of_rates[_rates(row), name]
            if not copy[name] and usual:
                column = "warmdown_iters" if name == "warmdown_frac" else name
                copy[column] = usual.most_common(1)[0][0]
        filled.append(copy)
    return filled


_LEFT_OUT = ("muon_momentum", "matrix_lr", "weight_decay", "tied_embed_lr", "warmdown_frac")


def _with_share(row: Mapping[str, str]) -> dict[str, str]:
    """A row with its warm-down as a share of its steps."""
    copy = dict(row)
    if row.get("warmdown_iters") and row.get("iterations_done"):
        share = float(row["warmdown_iters"]) / float(row["iterations_done"])
        copy["warmdown_frac"] = str(min(1.0, share))
    return copy


def _rates(row: Mapping[str, str]) -> str:
    return " ".join(row.get(name, "") for name in ("matrix_lr", "tied_embed_lr", "scalar_lr"))


def _number(row: Mapping[str, str], name: str, default: float | None = None) -> float:
    text = row.get(name, "")
    if text == "":
        if default is None:
            raise ValueError(name)
        return default
    return float(text)


def _scheme_bits(scheme: str) -> tuple[int, int, int] | None:
    """Bits of MLP, attention and embedding from the table's words."""
    if not scheme.startswith(("int8-", "int6-", "int5-")) or "mixed" in scheme:
        return None
    blocks = int(scheme[3])
    attn = 6 if "int6-attn" in scheme else blocks
    embed = 16 if "fp16-embed" in scheme else blocks
    for width in (7, 8):
        if f"int{width}-embed" in scheme:
            embed = width
    return blocks, attn, embed
