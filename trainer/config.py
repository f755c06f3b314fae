"""Every environment variable that the trainer reads, in one frozen dataclass."""

# ruff: noqa: PLW1508 - numbers as defaults: `int(os.environ.get("SEED", 1337))` is the form in which
# the contest's scripts write their knobs, and in which tools read them.

from __future__ import annotations

import os
from dataclasses import dataclass

SHARES_PER_STEP = 8  # a step's batch has always eight parts, whatever the number of processes
QUANT_BITS = (4, 5, 6, 7, 8)
QUANT_SCALES = ("rowmax", "percentile", "sdclip", "mse")
CODECS = ("zlib", "zstd", "lzma", "brotli")
CODEC_BEST_LEVEL = {"zlib": 9, "zstd": 22, "lzma": 9, "brotli": 11}
CODEC_LEAST_LEVEL = {"zlib": 4, "zstd": 16, "lzma": 1, "brotli": 10}
LARGEST_DIMENSION = 2**32 - 1  # the artifact's header keeps a dimension as a u32
MOST_LAYERS = 1000
LR_SCHEDULES = ("linear", "cosine", "wsd")


class TrainerError(Exception):
    """The run cannot go on, for a reason that one line tells."""


def require(condition: bool, message: str) -> None:
    """Raise TrainerError with the message unless the condition holds."""
    if not condition:
        raise TrainerError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The knobs. A field is its environment variable's name in lower case.

    Attributes:
        data_path: Folder of ``fineweb_train_*.bin`` and ``fineweb_val_*.bin``.
        tokenizer_path: SentencePiece model that made the shards.
        run_id: When set, stdout is also kept in ``logs/<run_id>.txt``.
        seed: Seed of the initial weights.
        val_batch_size: Tokens of a validation batch, over all ranks and shares.
        val_loss_every: Steps between validations; 0 validates only at the end.
        val_interim_tokens: Tokens that a validation before the last step scores; 0 is all.
        train_log_every: Steps between lines with the training loss; 0 is never.
        iterations: Steps of the run, unless the wallclock ends it sooner.
        warmup_steps: Steps that only prime compilation; their effects are undone.
        lr_warmup_steps: Steps over which the learning rates rise from zero.
        lr_schedule: Shape of the warmdown: linear, cosine, or wsd (one minus square root).
        min_lr_frac: Learning rate at the end of the warmdown, relative to its peak.
        warmdown_iters: Length of the warmdown in steps.
        warmdown_frac: Length of the warmdown as a share of the run; wins when above 0.
        train_batch_tokens: Tokens of a step, over all ranks.
        train_seq_len: Tokens of a sequence.
        grad_accum_steps: Micro-batches of a step on one rank; 0 is 8 / ranks on a GPU, 1 on a CPU.
        max_wallclock_seconds: Most seconds of training; 0 is no limit.
        compile: 1 or 0; auto compiles on a GPU.
        dtype: Arithmetic of the model: bf16, fp32; auto is bf16 on a GPU.
        qk_gain_init: Initial factor on the normalised queries.
        vocab_size: Rows of the embedding; must be the tokenizer's.
        num_layers: Transformer blocks.
        num_kv_heads: Heads of keys and values, shared among the query heads.
        model_dim: Width of the residual stream.
        num_heads: Query heads.
        mlp_mult: Width of the MLP's hidden layer, in model widths.
        tie_embeddings: Whether the output layer is the embedding.
        rope_base: Base of the rotary frequencies.
        logit_softcap: Bound that the logits approach.
        embed_lr: Adam's rate for an untied embedding.
        head_lr: Adam's rate for an untied output layer.
        tied_embed_lr: Adam's rate for a tied embedding.
        tied_embed_init_std: Initial standard deviation of a tied embedding.
        matrix_lr: Muon's rate.
        scalar_lr: Adam's rate for gains and mixes.
        muon_momentum: Muon's momentum.
        muon_backend_steps: Newton-Schulz iterations.
        muon_momentum_warmup_start: Momentum of the first step.
        muon_momentum_warmup_steps: Steps until Muon's full momentum.
        beta1: Adam's first moment decay.
        beta2: Adam's second moment decay.
        adam_eps: Adam's denominator offset.
        grad_clip_norm: Largest global gradient norm; 0 is no limit.
        weight_decay: Muon's decoupled weight decay, times the rate a step.
        ema_decay: Decay of the averaged weights that are scored and shipped; 0 is off.
        matrix_bits: Bits of a weight of the blocks.
        attn_bits: Bits of attention weights; 0 follows matrix_bits.
        mlp_bits: Bits of MLP weights; 0 follows matrix_bits.
        embed_bits: Bits of the embedding and of an untied output layer.
        quant_scale: How a row's step is chosen; see `trainer.quantize`.
        clip_sigmas: Clip of sdclip in standard deviations of the row.
        clip_percentile: Clip of percentile, of the row's absolute values.
        codec: Entropy coder of the artifact.
        codec_level: Its effort; 0 is its best.
        byte_shuffle: Whether 16-bit numbers are stored as two planes of bytes.
        artifact_cap_bytes: Most bytes of code and model; over it, the run exports again; 0 is off.
        smaller_exports: Settings for that, the mildest first; see `trainer.export`.
        rank: This process among those of the run.
        world_size: Processes of the run.
        local_rank: This process's GPU.
    """

    data_path: str
    tokenizer_path: str
    run_id: str
    seed: int
    val_batch_size: int
    val_loss_every: int
    val_interim_tokens: int
    train_log_every: int
    iterations: int
    warmup_steps: int
    lr_warmup_steps: int
    lr_schedule: str
    min_lr_frac: float
    warmdown_iters: int
    warmdown_frac: float
    train_batch_tokens: int
    train_seq_len: int
    grad_accum_steps: int
    max_wallclock_seconds: float
    compile: str
    dtype: str
    qk_gain_init: float
    vocab_size: int
    num_layers: int
    num_kv_heads: int
    model_dim: int
    num_heads: int
    mlp_mult: int
    tie_embeddings: bool
    rope_base: float
    logit_softcap: float
    embed_lr: float
    head_lr: float
    tied_embed_lr: float
    tied_embed_init_std: float
    matrix_lr: float
    scalar_lr: float
    muon_momentum: float
    muon_backend_steps: int
    muon_momentum_warmup_start: float
    muon_momentum_warmup_steps: int
    beta1: float
    beta2: float
    adam_eps: float
    grad_clip_norm: float
    weight_decay: float
    ema_decay: float
    matrix_bits: int
    attn_bits: int
    mlp_bits: int
    embed_bits: int
    quant_scale: str
    clip_sigmas: float
    clip_percentile: float
    codec: str
    codec_level: int
    byte_shuffle: bool
    artifact_cap_bytes: int
    smaller_exports: str
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_shape()

    def _check_ranges(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
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
            "mlp_mult",
        )
        for name in at_least_one:
            value = getattr(self, name)
            require(value >= 1, f"{name.upper()} must be at least 1, got {value}")
        for name in ("logit_softcap", "clip_sigmas", "rope_base", "adam_eps"):
            value = getattr(self, name)
            require(value > 0, f"{name.upper()} must be above 0, got {value}")
        rates = ("embed_lr", "head_lr", "tied_embed_lr", "matrix_lr", "scalar_lr", "weight_decay")
        for name in rates:
            value = getattr(self, name)
            require(0 <= value <= 1000, f"{name.upper()} must be from 0 to 1000, got {value}")
        for name in ("min_lr_frac", "warmdown_frac"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name.upper()} must be from 0 to 1, got {value}")
        require(
            self.grad_accum_steps >= 0,
            f"GRAD_ACCUM_STEPS must be at least 0, got {self.grad_accum_steps}",
        )
        for name in ("ema_decay", "muon_momentum", "muon_momentum_warmup_start", "beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name.upper()} must be at least 0 and below 1, got {value}")
        require(
            50 < self.clip_percentile <= 100,
            f"CLIP_PERCENTILE must be above 50 and at most 100, got {self.clip_percentile}",
        )
        choices = {
            "lr_schedule": LR_SCHEDULES,
            "matrix_bits": QUANT_BITS,
            "embed_bits": QUANT_BITS,
            "attn_bits": (0, *QUANT_BITS),
            "mlp_bits": (0, *QUANT_BITS),
            "quant_scale": QUANT_SCALES,
            "codec": CODECS,
            "compile": ("auto", "0", "1"),
            "dtype": ("auto", "bf16", "fp32"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            listed = ", ".join(str(choice) for choice in allowed)
            require(value in allowed, f"{name.upper()} must be one of {listed}, got {value!r}")

        best = CODEC_BEST_LEVEL[self.codec]
        # Faster parsers take chance matches in noise for repetitions: 5 to 20 % more bytes.
        least = CODEC_LEAST_LEVEL[self.codec]
        require(
            self.codec_level == 0 or least <= self.codec_level <= best,
            f"CODEC_LEVEL must be 0 or from {least} to {best} for {self.codec}, whose faster "
            f"levels make larger artifacts, got {self.codec_level}",
        )

    def _check_shape(self) -> None:
        require(
            self.model_dim % self.num_heads == 0,
            f"MODEL_DIM={self.model_dim} must be divisible by NUM_HEADS={self.num_heads}",
        )
        require(
            self.head_dim % 2 == 0,
            f"MODEL_DIM / NUM_HEADS must be even for rotary embeddings, got {self.head_dim}",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"NUM_HEADS={self.num_heads} must be divisible by NUM_KV_HEADS={self.num_kv_heads}",
        )
        require(
            self.num_layers <= MOST_LAYERS,
            f"NUM_LAYERS must be at most {MOST_LAYERS}, got {self.num_layers}",
        )
        widest = self.model_dim * self.mlp_mult
        require(
            widest <= LARGEST_DIMENSION,
            f"MODEL_DIM x MLP_MULT must be at most {LARGEST_DIMENSION}, got {widest}",
        )
        require(self.vocab_size <= 65536, f"VOCAB_SIZE={self.vocab_size} exceeds 16-bit tokens")
        require(
            self.world_size >= 1 and SHARES_PER_STEP % self.world_size == 0,
            f"WORLD_SIZE={self.world_size} must divide {SHARES_PER_STEP}",
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.model_dim // self.num_heads

    def accumulation(self, *, on_gpu: bool) -> int:
        """Micro-batches of a step on one rank.

        Raises:
            TrainerError: The step's sequences do not divide evenly, or a validation batch holds
                too few.
        """
        steps = self.grad_accum_steps or (SHARES_PER_STEP // self.world_size if on_gpu else 1)
        unit = self.world_size * steps * self.train_seq_len
        require(
            self.train_batch_tokens % unit == 0,
            f"TRAIN_BATCH_TOKENS={self.train_batch_tokens} must be a multiple of {unit} "
            f"({self.world_size} ranks x {steps} micro-batches x {self.train_seq_len} tokens)",
        )
        self.validation_rows(self.world_size * steps)
        return steps

    def validation_rows(self, shares: int) -> int:
        """Most sequences of one share of a validation batch.

        Raises:
            TrainerError: VAL_BATCH_SIZE does not hold one for each rank and micro-batch.
        """
        rows = self.val_batch_size // (shares * self.train_seq_len)
        require(
            rows >= 1,
            f"VAL_BATCH_SIZE={self.val_batch_size} must hold a sequence of {self.train_seq_len} "
            f"tokens for each of {shares} shares",
        )
        return rows


HIGHEST = 2**63  # beyond it no counter and no seed is one
NUMBERS = tuple(name for name, kind in Config.__annotations__.items() if kind in {"int", "float"})


def read_config() -> Config:
    """The run's configuration from its environment.

    Raises:
        TrainerError: A value is no number, out of range, or contradicts another.
    """
    try:
        return _read_environment()
    except ValueError as error:
        culprits = [name for name, text in os.environ.items() if repr(text) in str(error)]
        raise TrainerError(f"{' or '.join(culprits) or 'a knob'}: {error}") from error


def _read_environment() -> Config:
    # One call a knob, spelled out: tools read names, types and defaults from these lines.
    return Config(
        data_path=os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024"),
        tokenizer_path=os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model"),
        run_id=os.environ.get("RUN_ID", ""),
        seed=int(os.environ.get("SEED", 1337)),
        val_batch_size=int(os.environ.get("VAL_BATCH_SIZE", 524_288)),
        val_loss_every=int(os.environ.get("VAL_LOSS_EVERY", 1000)),
        val_interim_tokens=int(os.environ.get("VAL_INTERIM_TOKENS", 0)),
        train_log_every=int(os.environ.get("TRAIN_LOG_EVERY", 200)),
        iterations=int(os.environ.get("ITERATIONS", 20000)),
        warmup_steps=int(os.environ.get("WARMUP_STEPS", 20)),
        lr_warmup_steps=int(os.environ.get("LR_WARMUP_STEPS", 0)),
        lr_schedule=os.environ.get("LR_SCHEDULE", "linear"),
        min_lr_frac=float(os.environ.get("MIN_LR_FRAC", 0.0)),
        warmdown_iters=int(os.environ.get("WARMDOWN_ITERS", 1200)),
        warmdown_frac=float(os.environ.get("WARMDOWN_FRAC", 0.0)),
        train_batch_tokens=int(os.environ.get("TRAIN_BATCH_TOKENS", 524_288)),
        train_seq_len=int(os.environ.get("TRAIN_SEQ_LEN", 1024)),
        grad_accum_steps=int(os.environ.get("GRAD_ACCUM_STEPS", 0)),
        max_wallclock_seconds=float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0)),
        compile=os.environ.get("COMPILE", "auto"),
        dtype=os.environ.get("DTYPE", "auto"),
        qk_gain_init=float(os.environ.get("QK_GAIN_INIT", 1.5)),
        vocab_size=int(os.environ.get("VOCAB_SIZE", 1024)),
        num_layers=int(os.environ.get("NUM_LAYERS", 9)),
        num_kv_heads=int(os.environ.get("NUM_KV_HEADS", 4)),
        model_dim=int(os.environ.get("MODEL_DIM", 512)),
        num_heads=int(os.environ.get("NUM_HEADS", 8)),
        mlp_mult=int(os.environ.get("MLP_MULT", 2)),
        tie_embeddings=bool(int(os.environ.get("TIE_EMBEDDINGS", "1"))),
        rope_base=float(os.environ.get("ROPE_BASE", 10000.0)),
        logit_softcap=float(os.environ.get("LOGIT_SOFTCAP", 30.0)),
        embed_lr=float(os.environ.get("EMBED_LR", 0.6)),
        head_lr=float(os.environ.get("HEAD_LR", 0.008)),
        tied_embed_lr=float(os.environ.get("TIED_EMBED_LR", 0.05)),
        tied_embed_init_std=float(os.environ.get("TIED_EMBED_INIT_STD", 0.005)),
        matrix_lr=float(os.environ.get("MATRIX_LR", 0.04)),
        scalar_lr=float(os.environ.get("SCALAR_LR", 0.04)),
        muon_momentum=float(os.environ.get("MUON_MOMENTUM", 0.95)),
        muon_backend_steps=int(os.environ.get("MUON_BACKEND_STEPS", 5)),
        muon_momentum_warmup_start=float(os.environ.get("MUON_MOMENTUM_WARMUP_START", 0.85)),
        muon_momentum_warmup_steps=int(os.environ.get("MUON_MOMENTUM_WARMUP_STEPS", 500)),
        beta1=float(os.environ.get("BETA1", 0.9)),
        beta2=float(os.environ.get("BETA2", 0.95)),
        adam_eps=float(os.environ.get("ADAM_EPS", 1e-8)),
        grad_clip_norm=float(os.environ.get("GRAD_CLIP_NORM", 0.0)),
        weight_decay=float(os.environ.get("WEIGHT_DECAY", 0.0)),
        ema_decay=float(os.environ.get("EMA_DECAY", 0.0)),
        matrix_bits=int(os.environ.get("MATRIX_BITS", 8)),
        attn_bits=int(os.environ.get("ATTN_BITS", 0)),
        mlp_bits=int(os.environ.get("MLP_BITS", 0)),
        embed_bits=int(os.environ.get("EMBED_BITS", 8)),
        quant_scale=os.environ.get("QUANT_SCALE", "rowmax"),
        clip_sigmas=float(os.environ.get("CLIP_SIGMAS", 12.85)),
        clip_percentile=float(os.environ.get("CLIP_PERCENTILE", 99.99984)),
        codec=os.environ.get("CODEC", "zlib"),
        codec_level=int(os.environ.get("CODEC_LEVEL", 0)),
        byte_shuffle=bool(int(os.environ.get("BYTE_SHUFFLE", "1"))),
        artifact_cap_bytes=int(os.environ.get("ARTIFACT_CAP_BYTES", 0)),
        smaller_exports=os.environ.get("SMALLER_EXPORTS", ""),
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
