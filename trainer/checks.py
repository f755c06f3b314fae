"""Ranges of the knobs: what the launcher refuses before a trial, and the package before a run.

Not in the bundle, whose bytes count: what the launcher hands to it has passed here.
"""

from __future__ import annotations

from trainer.config import (
    CODEC_BEST_LEVEL,
    CODECS,
    SHARES_PER_STEP,
    Config,
    TrainerError,
    require,
)

ALIASES = {"MUON_WD": "WEIGHT_DECAY", "MATRIX_CLIP_SIGMAS": "CLIP_SIGMAS"}
"""Names of records for knobs of ours; one that is set comes before ours."""

QUANT_BITS = (1, 2, 3, 4, 5, 6, 7, 8)
FEWEST_ROUNDED_BITS = 3
"""With fewer a model that was not trained for them says nothing."""
QAT_SCALES = ("rowmax", "sdclip")
QUANT_SCALES = ("rowmax", "percentile", "sdclip", "mse")
CODEC_LEAST_LEVEL = {"zlib": 4, "zstd": 16, "lzma": 1, "brotli": 10}
LARGEST_DIMENSION = 2**32 - 1  # the artifact's header keeps a dimension as a u32
MOST_LAYERS = 1000
LR_SCHEDULES = ("linear", "cosine", "wsd")
NOT_NEGATIVE = (
    "grad_accum_steps", "bytes_per_token", "xsa_last_n", "num_loops", "parallel_start_layer",
    "attn_clip_sigmas", "mlp_clip_sigmas", "embed_clip_sigmas", "muon_backend_steps",
    "gptq_batches", "gptq_reserve_seconds", "ttt_lora_alpha", "lqer_rank", "lqer_top_k",
)  # fmt: skip
BELOW_ONE = (
    "ema_decay", "muon_momentum", "muon_momentum_warmup_start", "beta1", "beta2", "ttt_beta2",
)  # fmt: skip
HIGHEST = 2**63  # beyond it no counter and no seed is one
RATES = (
    "embed_lr", "head_lr", "tied_embed_lr", "matrix_lr", "scalar_lr",
    "weight_decay", "embed_wd", "adam_wd", "ttt_lora_lr", "ttt_weight_decay",
)  # fmt: skip
NUMBERS = tuple(name for name, kind in Config.__annotations__.items() if kind in {"int", "float"})


def check(config: Config) -> None:
    """Refuse what cannot be run.

    Raises:
        TrainerError: A value is out of range, or contradicts another.
    """
    check_ranges(config)
    check_shape(config)


def check_ranges(config: Config) -> None:
    """Numbers and choices, each by itself."""
    for name in NUMBERS:
        value = getattr(config, name)
        if not -HIGHEST < value < HIGHEST:
            raise TrainerError(f"{name.upper()} must be a finite number, got {value!s:.20}")
    at_least_one = (
        "val_batch_size",
        "iterations",
        "train_batch_tokens",
        "train_seq_len",
        "vocab_size",
        "num_layers",
        "num_kv_heads",
        "model_dim",
        "num_heads",
        "ttt_batch_size",
        "ttt_chunk_size",
        "ttt_lora_rank",
    )
    for name in at_least_one:
        value = getattr(config, name)
        require(value >= 1, f"{name.upper()} must be at least 1, got {value}")
    for name in ("logit_softcap", "clip_sigmas", "rope_base", "adam_eps"):
        value = getattr(config, name)
        require(value > 0, f"{name.upper()} must be above 0, got {value}")
    for name in RATES:
        value = getattr(config, name)
        require(0 <= value <= 1000, f"{name.upper()} must be from 0 to 1000, got {value}")
    for name in (
        "min_lr_frac",
        "min_lr",
        "warmdown_frac",
        "enable_looping_at",
        "mlp_slope",
        "qat_frac",
    ):
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name.upper()} must be from 0 to 1, got {value}")
    for name in NOT_NEGATIVE:
        value = getattr(config, name)
        require(value >= 0, f"{name.upper()} must be at least 0, got {value}")
    for name in (
        "ema_decay",
        "muon_momentum",
        "muon_momentum_warmup_start",
        "beta1",
        "beta2",
        "ttt_beta2",
    ):
        value = getattr(config, name)
        require(0 <= value < 1, f"{name.upper()} must be at least 0 and below 1, got {value}")
    require(
        50 < config.clip_percentile <= 100,
        f"CLIP_PERCENTILE must be above 50 and at most 100, got {config.clip_percentile}",
    )
    choices = {
        "lr_schedule": LR_SCHEDULES,
        "matrix_bits": QUANT_BITS,
        "embed_bits": QUANT_BITS,
        "attn_bits": (0, *QUANT_BITS),
        "mlp_bits": (0, *QUANT_BITS),
        "quant_scale": QUANT_SCALES,
        "codec": CODECS,
        "start_at": ("train", "export", "eval"),
        "compile": ("auto", "0", "1"),
        "dtype": ("auto", "bf16", "fp32"),
    }
    for name, allowed in choices.items():
        value = getattr(config, name)
        listed = ", ".join(str(choice) for choice in allowed)
        require(value in allowed, f"{name.upper()} must be one of {listed}, got {value!r}")

    best = CODEC_BEST_LEVEL[config.codec]
    # Faster parsers take chance matches in noise for repetitions: 5 to 20 % more bytes.
    least = CODEC_LEAST_LEVEL[config.codec]
    require(
        config.codec_level == 0 or least <= config.codec_level <= best,
        f"CODEC_LEVEL must be 0 or from {least} to {best} for {config.codec}, whose faster "
        f"levels make larger artifacts, got {config.codec_level}",
    )


def check_shape(config: Config) -> None:
    """What must divide what."""
    require(
        config.model_dim % config.num_heads == 0,
        f"MODEL_DIM={config.model_dim} must be divisible by NUM_HEADS={config.num_heads}",
    )
    require(
        config.head_dim % 2 == 0,
        f"MODEL_DIM / NUM_HEADS must be even for rotary embeddings, got {config.head_dim}",
    )
    require(
        0 <= config.rope_dims <= config.head_dim and config.rope_dims % 2 == 0,
        f"ROPE_DIMS must be even and from 0 to MODEL_DIM / NUM_HEADS={config.head_dim}, "
        f"got {config.rope_dims}",
    )
    require(
        config.num_heads % config.num_kv_heads == 0,
        f"NUM_HEADS={config.num_heads} must be divisible by NUM_KV_HEADS={config.num_kv_heads}",
    )
    require(
        config.num_layers <= MOST_LAYERS,
        f"NUM_LAYERS must be at most {MOST_LAYERS}, got {config.num_layers}",
    )
    require(
        1 <= config.model_dim * config.mlp_mult <= LARGEST_DIMENSION,
        f"MODEL_DIM x MLP_MULT must be at least 1 and at most {LARGEST_DIMENSION}, "
        f"got {config.model_dim * config.mlp_mult:.0f}",
    )
    require(
        0 <= config.eval_stride <= config.train_seq_len,
        f"EVAL_STRIDE must be from 0 to TRAIN_SEQ_LEN={config.train_seq_len}, "
        f"got {config.eval_stride}",
    )
    require(
        not config.ttt_enabled or config.ttt_chunk_size <= config.train_seq_len,
        f"TTT_CHUNK_SIZE must be at most TRAIN_SEQ_LEN={config.train_seq_len}, "
        f"got {config.ttt_chunk_size}",
    )
    require(
        config.start_at != "export" or bool(config.checkpoint),
        "START_AT=export needs CHECKPOINT, the file that the training left",
    )
    require(
        config.gptq_reserve_seconds == 0
        or config.gptq_reserve_seconds < config.max_wallclock_seconds,
        f"GPTQ_RESERVE_SECONDS must be below MAX_WALLCLOCK_SECONDS={config.max_wallclock_seconds}, "
        f"got {config.gptq_reserve_seconds}",
    )
    check_rounding(config)
    last = config.num_layers - 1
    require(
        config.num_loops == 0 or 0 <= config.loop_start <= config.loop_end <= last,
        f"NUM_LOOPS={config.num_loops} needs 0 <= LOOP_START <= LOOP_END <= {last}, the last "
        f"block, got {config.loop_start} and {config.loop_end}",
    )
    require(
        config.num_layers + config.num_loops * (config.loop_end - config.loop_start + 1)
        <= MOST_LAYERS,
        f"NUM_LOOPS={config.num_loops} makes a pass of more than {MOST_LAYERS} blocks",
    )
    require(
        1 <= config.gate_window <= config.model_dim,
        f"GATE_WINDOW must be from 1 to MODEL_DIM={config.model_dim}, got {config.gate_window}",
    )
    require(config.vocab_size <= 65536, f"VOCAB_SIZE={config.vocab_size} exceeds 16-bit tokens")
    require(
        config.world_size >= 1 and SHARES_PER_STEP % config.world_size == 0,
        f"WORLD_SIZE={config.world_size} must divide {SHARES_PER_STEP}",
    )


def check_rounding(config: Config) -> None:
    """What quantization-aware training can do, and what cannot do without it."""
    groups = {
        "ATTN_BITS": config.attn_bits or config.matrix_bits,
        "MLP_BITS": config.mlp_bits or config.matrix_bits,
        "EMBED_BITS": config.embed_bits,
    }
    least = min(groups, key=groups.__getitem__)
    require(
        config.qat_frac > 0 or groups[least] >= FEWEST_ROUNDED_BITS,
        f"{least} of {groups[least]} (2 is ternary, 1 binary) needs QAT_FRAC above 0, got "
        f"{config.qat_frac}: such a model has to be trained for it",
    )
    require(
        config.qat_frac == 0 or config.quant_scale in QAT_SCALES,
        f"QAT_FRAC={config.qat_frac} needs QUANT_SCALE to be one of {', '.join(QAT_SCALES)}, got "
        f"{config.quant_scale!r}",
    )
