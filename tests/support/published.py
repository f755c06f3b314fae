"""A row of a table of other people's runs."""

from __future__ import annotations


def row(**changes: object) -> dict[str, str]:
    """The contest's naive baseline (its README and log), with changes."""
    base = {
        "record": "baseline",
        "model_params": 17059912,
        "vocab_size": 1024,
        "num_layers": 9,
        "model_dim": 512,
        "num_heads": 8,
        "num_kv_heads": 4,
        "mlp_mult": 2,
        "iterations_done": 13780,
        "warmdown_iters": 1200,
        "matrix_lr": 0.04,
        "tied_embed_lr": 0.05,
        "scalar_lr": 0.04,
        "muon_momentum": 0.95,
        "weight_decay": 0,
        "ema_or_swa": "none",
        "quant_scheme": "int8-all",
        "codec": "zlib-9",
        "payload_bytes": 17178912,
        "model_bytes": 15815847,
        "code_bytes": 47642,
        "train_seq_len": 1024,
        "train_batch_tokens": 524288,
        "run_idx": 0,
        "warmdown_frac": "",
        "eval_only": 0,
        "duplicate_of": "",
    }
    return {name: str(value) for name, value in (base | changes).items()}
