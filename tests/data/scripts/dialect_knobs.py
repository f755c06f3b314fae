"""Every way of reading the environment that the contest's scripts use, in one place."""

import os
import os as system
from os import environ as env
from os import getenv

VOCABULARY = "VOCAB_SIZE"
DEFAULT_DIM = 4 * 128
_read = os.environ.get


def env_int(name, default):
    return int(os.environ.get(name, default))


def env_flag(name, default=False):
    return os.environ.get(name, str(default)).lower() in ("1", "true")


def typed(key, default, kind=str):
    text = os.environ.get(key, str(default))
    if kind is bool:
        return bool(int(text))
    return kind(text)


def nested(key, default):
    return typed(f"OPT_{key}", default, float)


class Hyperparameters:
    model_dim = int(os.environ.get("MODEL_DIM", DEFAULT_DIM))
    batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 524_288))
    matrix_lr = float(system.environ.get("MATRIX_LR", "0.04"))
    tie = bool(int(os.environ.get("TIE_EMBEDDINGS", "1")))
    vocab_size = int(env.get(VOCABULARY, 1024))
    layers = env_int("NUM_LAYERS", 9)
    use_ema = env_flag("USE_EMA", default=True)
    use_swa = env_flag("USE_SWA")
    decay = typed("WEIGHT_DECAY", 0.1, float)
    compiled = typed("COMPILE", 0, bool)
    codec = typed("CODEC", "brotli")
    beta1 = nested("BETA1", 0.9)
    clip = float(getenv("GRAD_CLIP_NORM", 0.0))
    steps = int(_read("ITERATIONS", default=20_000))
    new_name = float(os.environ.get("NEW_LR", os.environ.get("OLD_LR", 0.5)))
    run_id = os.environ.get("RUN_ID", str(object()))
    has_data = "DATA_PATH" in os.environ
    shards = os.environ["DATA_PATH"]


for key, start in (("LOOP_START", 3), ("LOOP_END", 5)):
    setattr(Hyperparameters, key.lower(), int(os.environ.get(key, start)))

rank = int(os.environ.get("RANK", "0"))
for layer in range(3):
    scale = os.environ.get(f"SCALE_{layer}")  # named by the running script: left out
os.environ["WRITTEN_ONLY"] = "1"
