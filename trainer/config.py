"""Every environment variable that the trainer reads, in one frozen dataclass."""

# ruff: noqa: PLW1508 - numbers as defaults: `int(os.environ.get("SEED", 1337))` is the form in which
# the contest's scripts write their knobs, and in which tools read them.

from __future__ import annotations

import os
from dataclasses import dataclass

SHARES_PER_STEP = 8  # a step's batch has always eight parts, at any number of processes
CODECS = ("zlib", "zstd", "lzma", "brotli")
CODEC_BEST_LEVEL = {"zlib": 9, "zstd": 22, "lzma": 9, "brotli": 11}


class TrainerError(Exception):
    """The run cannot go on, for a reason that one line tells."""


def require(condition: bool, message: str) -> None:
    """Raise TrainerError with the message unless the condition holds."""
    if not condition:
        raise TrainerError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The knobs. A field is its variable's name in lower case; see also `checks.ALIASES`.

    Attributes:
        data_path: Folder of ``fineweb_train_*.bin`` and ``fineweb_val_*.bin``.
        tokenizer_path: SentencePiece model that made the shards.
        run_id: When set, stdout is also kept in ``logs/<run_id>.txt``.
        checkpoint: File, less the rank, that SIGTERM and the training's end leave; empty is none.
        start_at: Part that the run starts at: train (on from CHECKPOINT where it is there), export
            (of CHECKPOINT), eval (of the artifact in the working folder).
        seed: Seed of the initial weights.
        bytes_per_token: Mean bytes of a validation token, where known; a run that counts anything
            more than 1 % away is refused. 0 is unknown.
        val_batch_size: Tokens of a validation batch, over all ranks and shares.
        val_loss_every: Steps between validations; 0 validates only at the end.
        val_interim_tokens: Tokens that a validation before the last step scores; 0 is all.
        eval_stride: Stride of the sliding window that scores the artifact once more; 0 is none.
        ttt_enabled: Whether the artifact is scored once more with test-time training.
        ttt_batch_size: Documents that it works on at a time.
        ttt_chunk_size: Tokens that it scores, then learns from.
        ttt_lora_rank: Rank of its adapters.
        ttt_lora_alpha: Their scale, times the rank.
        ttt_lora_lr: Their learning rate.
        ttt_beta2: Second moment's decay of their Adam; the first's is 0.
        ttt_weight_decay: Their decoupled weight decay.
        train_log_every: Steps between lines with the training loss; 0 is never.
        iterations: Steps of the run, unless the wallclock ends it sooner.
        warmup_steps: Steps that only prime compilation; their effects are undone.
        lr_warmup_steps: Steps over which the learning rates rise from zero.
        lr_schedule: Shape of the warmdown: linear, cosine, or wsd (one minus square root).
        min_lr_frac: Learning rate at the end of the warmdown, relative to its peak.
        min_lr: Share of the peak below which no learning rate falls, as records write it.
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
        mlp_mult: Width of the MLP's hidden layer, in model widths; the product is rounded down.
        tie_embeddings: Whether the output layer is the embedding.
        rope_base: Base of the rotary frequencies.
        rope_dims: Dimensions of a head that rotary positions turn; 0 is all.
        ln_scale: Whether a block's norms are scaled by one over the root of its place.
        xsa_last_n: Last blocks whose attention leaves out the own position's value.
        mlp_slope: Slope of the MLP's relu below zero, before the square.
        num_loops: Further passes over blocks loop_start to loop_end.
        loop_start: First block of the loop.
        loop_end: Its last block.
        enable_looping_at: Share of the run after which the loops begin.
        parallel_start_layer: First block with two lanes, in the second half; 0 is none.
        skip_gates_enabled: Whether skips are blended in by a learnt gate, not added.
        attn_gate_enabled: Whether each head's output has a gate read from the first channels.
        smear_gate_enabled: Whether an embedding takes in a share of the one before it.
        gate_window: Channels that the gates of heads and of smearing read.
        ortho_init: Whether matrices start orthogonal.
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
        muon_row_normalize: Whether Muon divides rows by their norm before orthogonalising.
        polar_express: Whether its iterations use the Polar Express coefficients.
        beta1: Adam's first moment decay.
        beta2: Adam's second moment decay.
        adam_eps: Adam's denominator offset.
        grad_clip_norm: Largest global gradient norm; 0 is no limit.
        weight_decay: Muon's decoupled weight decay, times the rate a step.
        embed_wd: Adam's decoupled weight decay of embedding and output layer.
        adam_wd: Adam's decoupled weight decay of scales, mixes and gates.
        qat_frac: Last share of the run whose losses are those of the quantized weights; 0 is none.
        ema_decay: Decay of the averaged weights that are scored and shipped; 0 is off.
        matrix_bits: Bits of a weight of the blocks; 2 is ternary, 1 binary.
        attn_bits: Bits of attention weights; 0 follows matrix_bits.
        mlp_bits: Bits of MLP weights; 0 follows matrix_bits.
        embed_bits: Bits of the embedding and of an untied output layer.
        quant_scale: How a row's step is chosen; see `trainer.quantize`.
        clip_sigmas: Clip of sdclip in standard deviations of the row.
        attn_clip_sigmas: The same for attention weights; 0 follows clip_sigmas.
        mlp_clip_sigmas: The same for MLP weights.
        embed_clip_sigmas: The same for embedding and output layer.
        clip_percentile: Clip of percentile, of the row's absolute values.
        gptq_batches: Training batches that GPTQ learns matrices' inputs from; 0 is no GPTQ.
        gptq_reserve_seconds: Part of the wallclock that is left to GPTQ.
        lqer_rank: Rank of corrections to the matrices that quantization moves most; 0 is none.
        lqer_top_k: How many matrices get one.
        codec: Entropy coder of the artifact.
        codec_level: Its effort; 0 is its best.
        byte_shuffle: Whether 16-bit numbers are stored as two planes of bytes.
        rans: Whether codes are coded by rANS where that is smaller than the codec.
        artifact_cap_bytes: Most bytes of code and model; over it, the run exports again; 0 is off.
        smaller_exports: Settings for that, the mildest first; see `trainer.export`.
        rank: This process among those of the run.
        world_size: Processes of the run.
        local_rank: This process's GPU.
    """

    data_path: str
    tokenizer_path: str
    run_id: str
    checkpoint: str
    start_at: str
    seed: int
    bytes_per_token: float
    val_batch_size: int
    val_loss_every: int
    val_interim_tokens: int
    eval_stride: int
    ttt_enabled: bool
    ttt_batch_size: int
    ttt_chunk_size: int
    ttt_lora_rank: int
    ttt_lora_alpha: float
    ttt_lora_lr: float
    ttt_beta2: float
    ttt_weight_decay: float
    train_log_every: int
    iterations: int
    warmup_steps: int
    lr_warmup_steps: int
    lr_schedule: str
    min_lr_frac: float
    min_lr: float
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
    mlp_mult: float
    tie_embeddings: bool
    rope_base: float
    rope_dims: int
    ln_scale: bool
    xsa_last_n: int
    mlp_slope: float
    num_loops: int
    loop_start: int
    loop_end: int
    enable_looping_at: float
    parallel_start_layer: int
    skip_gates_enabled: bool
    attn_gate_enabled: bool
    smear_gate_enabled: bool
    gate_window: int
    ortho_init: bool
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
    muon_row_normalize: bool
    polar_express: bool
    beta1: float
    beta2: float
    adam_eps: float
    grad_clip_norm: float
    weight_decay: float
    embed_wd: float
    adam_wd: float
    qat_frac: float
    ema_decay: float
    matrix_bits: int
    attn_bits: int
    mlp_bits: int
    embed_bits: int
    quant_scale: str
    clip_sigmas: float
    attn_clip_sigmas: float
    mlp_clip_sigmas: float
    embed_clip_sigmas: float
    clip_percentile: float
    gptq_batches: int
    gptq_reserve_seconds: float
    lqer_rank: int
    lqer_top_k: int
    codec: str
    codec_level: int
    byte_shuffle: bool
    rans: bool
    artifact_cap_bytes: int
    smaller_exports: str
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:  # package only
        from trainer.checks import check  # noqa: PLC0415 - it reads this class

        check(self)

    @property
    def training_seconds(self) -> float:
        """Wallclock of the steps; 0 is no limit."""
        return max(self.max_wallclock_seconds - self.gptq_reserve_seconds, 0.0)

    @property
    def hidden_dim(self) -> int:
        """Width of the MLP's hidden layer."""
        return int(self.mlp_mult * self.model_dim)

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
        require(  # package only
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
        require(  # package only
            rows >= 1,
            f"VAL_BATCH_SIZE={self.val_batch_size} must hold a sequence of {self.train_seq_len} "
            f"tokens for each of {shares} shares",
        )
        return rows


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
        checkpoint=os.environ.get("CHECKPOINT", ""),
        start_at=os.environ.get("START_AT", "train"),
        seed=int(os.environ.get("SEED", 1337)),
        bytes_per_token=float(os.environ.get("BYTES_PER_TOKEN", 0.0)),
        val_batch_size=int(os.environ.get("VAL_BATCH_SIZE", 524_288)),
        val_loss_every=int(os.environ.get("VAL_LOSS_EVERY", 1000)),
        val_interim_tokens=int(os.environ.get("VAL_INTERIM_TOKENS", 0)),
        eval_stride=int(os.environ.get("EVAL_STRIDE", 0)),
        ttt_enabled=bool(int(os.environ.get("TTT_ENABLED", "0"))),
        ttt_batch_size=int(os.environ.get("TTT_BATCH_SIZE", 64)),
        ttt_chunk_size=int(os.environ.get("TTT_CHUNK_SIZE", 48)),
        ttt_lora_rank=int(os.environ.get("TTT_LORA_RANK", 80)),
        ttt_lora_alpha=float(os.environ.get("TTT_LORA_ALPHA", 144.0)),
        ttt_lora_lr=float(os.environ.get("TTT_LORA_LR", 8e-5)),
        ttt_beta2=float(os.environ.get("TTT_BETA2", 0.99)),
        ttt_weight_decay=float(os.environ.get("TTT_WEIGHT_DECAY", 2.0)),
        train_log_every=int(os.environ.get("TRAIN_LOG_EVERY", 200)),
        iterations=int(os.environ.get("ITERATIONS", 20000)),
        warmup_steps=int(os.environ.get("WARMUP_STEPS", 20)),
        lr_warmup_steps=int(os.environ.get("LR_WARMUP_STEPS", 0)),
        lr_schedule=os.environ.get("LR_SCHEDULE", "linear"),
        min_lr_frac=float(os.environ.get("MIN_LR_FRAC", 0.0)),
        min_lr=float(os.environ.get("MIN_LR", 0.0)),
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
        mlp_mult=float(os.environ.get("MLP_MULT", 2.0)),
        tie_embeddings=bool(int(os.environ.get("TIE_EMBEDDINGS", "1"))),
        rope_base=float(os.environ.get("ROPE_BASE", 10000.0)),
        rope_dims=int(os.environ.get("ROPE_DIMS", 0)),
        ln_scale=bool(int(os.environ.get("LN_SCALE", "0"))),
        xsa_last_n=int(os.environ.get("XSA_LAST_N", 0)),
        mlp_slope=float(os.environ.get("MLP_SLOPE", 0.0)),
        num_loops=int(os.environ.get("NUM_LOOPS", 0)),
        loop_start=int(os.environ.get("LOOP_START", 3)),
        loop_end=int(os.environ.get("LOOP_END", 5)),
        enable_looping_at=float(os.environ.get("ENABLE_LOOPING_AT", 0.35)),
        parallel_start_layer=int(os.environ.get("PARALLEL_START_LAYER", 0)),
        skip_gates_enabled=bool(int(os.environ.get("SKIP_GATES_ENABLED", "0"))),
        attn_gate_enabled=bool(int(os.environ.get("ATTN_GATE_ENABLED", "0"))),
        smear_gate_enabled=bool(int(os.environ.get("SMEAR_GATE_ENABLED", "0"))),
        gate_window=int(os.environ.get("GATE_WINDOW", 12)),
        ortho_init=bool(int(os.environ.get("ORTHO_INIT", "0"))),
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
        muon_row_normalize=bool(int(os.environ.get("MUON_ROW_NORMALIZE", "0"))),
        polar_express=bool(int(os.environ.get("POLAR_EXPRESS", "0"))),
        beta1=float(os.environ.get("BETA1", 0.9)),
        beta2=float(os.environ.get("BETA2", 0.95)),
        adam_eps=float(os.environ.get("ADAM_EPS", 1e-8)),
        grad_clip_norm=float(os.environ.get("GRAD_CLIP_NORM", 0.0)),
        weight_decay=float(os.environ.get("MUON_WD") or os.environ.get("WEIGHT_DECAY", "0")),
        embed_wd=float(os.environ.get("EMBED_WD", 0.0)),
        adam_wd=float(os.environ.get("ADAM_WD", 0.0)),
        qat_frac=float(os.environ.get("QAT_FRAC", 0.0)),
        ema_decay=float(os.environ.get("EMA_DECAY", 0.0)),
        matrix_bits=int(os.environ.get("MATRIX_BITS", 8)),
        attn_bits=int(os.environ.get("ATTN_BITS", 0)),
        mlp_bits=int(os.environ.get("MLP_BITS", 0)),
        embed_bits=int(os.environ.get("EMBED_BITS", 8)),
        quant_scale=os.environ.get("QUANT_SCALE", "rowmax"),
        clip_sigmas=float(
            os.environ.get("MATRIX_CLIP_SIGMAS") or os.environ.get("CLIP_SIGMAS", "12.85")
        ),
        attn_clip_sigmas=float(os.environ.get("ATTN_CLIP_SIGMAS", 0.0)),
        mlp_clip_sigmas=float(os.environ.get("MLP_CLIP_SIGMAS", 0.0)),
        embed_clip_sigmas=float(os.environ.get("EMBED_CLIP_SIGMAS", 0.0)),
        clip_percentile=float(os.environ.get("CLIP_PERCENTILE", 99.99984)),
        gptq_batches=int(os.environ.get("GPTQ_BATCHES", 0)),
        gptq_reserve_seconds=float(os.environ.get("GPTQ_RESERVE_SECONDS", 0.0)),
        lqer_rank=int(os.environ.get("LQER_RANK", 0)),
        lqer_top_k=int(os.environ.get("LQER_TOP_K", 3)),
        codec=os.environ.get("CODEC", "zlib"),
        codec_level=int(os.environ.get("CODEC_LEVEL", 0)),
        byte_shuffle=bool(int(os.environ.get("BYTE_SHUFFLE", "1"))),
        rans=bool(int(os.environ.get("RANS", "0"))),
        artifact_cap_bytes=int(os.environ.get("ARTIFACT_CAP_BYTES", 0)),
        smaller_exports=os.environ.get("SMALLER_EXPORTS", ""),
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
