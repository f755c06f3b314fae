"""A tiny corpus in the contest's format, and configurations small enough for milliseconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trainer.config import Config, read_config

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[2]
VOCAB_SIZE = 320
TINY = {
    "VOCAB_SIZE": VOCAB_SIZE,
    "NUM_LAYERS": 3,
    "MODEL_DIM": 32,
    "NUM_HEADS": 4,
    "NUM_KV_HEADS": 2,
    "TRAIN_SEQ_LEN": 16,
    "TRAIN_BATCH_TOKENS": 256,
    "VAL_BATCH_SIZE": 1024,
    "ITERATIONS": 12,
    "WARMDOWN_ITERS": 6,
    "VAL_LOSS_EVERY": 6,
    "TRAIN_LOG_EVERY": 1,
    "MAX_WALLCLOCK_SECONDS": 0,
    "MATRIX_BITS": 6,
}


def write_shard(path: Path, tokens: np.ndarray, *, magic: int = 20240520) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


def sentences(count: int, seed: int) -> list[str]:
    """Made-up prose with enough regularity to be learnt; some of it is not ASCII."""
    rng = np.random.default_rng(seed)
    words = ["the", "of", "model", "weight", "naïve", "byte", "under", "größe", "a", "数", "and"]
    odds = 1.0 / np.arange(2, len(words) + 2)
    drawn = rng.choice(len(words), size=(count, 12), p=odds / odds.sum())
    return [" ".join(words[index] for index in row) for row in drawn]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Threads that fight for a busy machine's cores cost these tests twenty times their work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sentencepiece

    folder = tmp_path_factory.mktemp("tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(400, seed=0)),
        model_prefix=str(folder / "tiny"),
        vocab_size=VOCAB_SIZE,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder / "tiny.model"


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_path))


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a fixed Markov chain: the same on every machine, whatever the tokenizer."""
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(1)
    successors = rng.integers(3, VOCAB_SIZE, size=(VOCAB_SIZE, 3))
    tokens = [3]
    for choice in rng.integers(0, 3, size=14_000):
        tokens.append(int(successors[tokens[-1], choice]))
    chain = np.array(tokens)
    write_shard(folder / "fineweb_train_000000.bin", chain[:6000])
    write_shard(folder / "fineweb_train_000001.bin", chain[6000:12_000])
    write_shard(folder / "fineweb_val_000000.bin", chain[12_000:])
    return folder


@pytest.fixture(name="write_shard")
def shard_writer() -> Callable[..., None]:
    return write_shard


@pytest.fixture
def tiny_env(data_path: Path, tokenizer_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a tiny run, with overrides by knob name."""

    def build(**knobs: object) -> dict[str, str]:
        merged = {"DATA_PATH": data_path, "TOKENIZER_PATH": tokenizer_path, **TINY, **knobs}
        return {name: str(value) for name, value in merged.items()}

    return build


@pytest.fixture
def tiny_config(
    tiny_env: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Config]:
    """The configuration of a tiny run, read as the trainer reads it."""

    def build(**knobs: object) -> Config:
        with monkeypatch.context() as patch:
            for name, value in tiny_env(**knobs).items():
                patch.setenv(name, value)
            return read_config()

    return build


@pytest.fixture
def process_env(tiny_env: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """`tiny_env` for a process of its own, which finds the package and uses one thread."""

    def build(**knobs: object) -> dict[str, str]:
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        return {**base, **own, **tiny_env(**knobs)}

    return build
