"""Broken data: exit code 2 and the command that repairs it, before Ray starts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.terminal import Said

SWEEP = """program: good.py
method: random
run_cap: 4
parameters:
  MATRIX_LR: {value: 0.02}
pgolf:
  rules: demo
  data: demo
  resources: {gpus: 0, cpus: 1}
"""
TRAIN = "datasets/demo_sp512/fineweb_train_000000.bin"
VAL = "datasets/demo_sp512/fineweb_val_000000.bin"
TOKENIZER = "tokenizers/demo_512_bpe.model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data, made once."""
    from pgolf_sweep.data import build

    root = tmp_path_factory.mktemp("data")
    build.demo(root)
    return root


def remove_folder(data: Path) -> None:
    shutil.rmtree(data)


def remove_train(data: Path) -> None:
    for shard in data.glob("datasets/*/fineweb_train_*.bin"):
        shard.unlink()


def remove_val(data: Path) -> None:
    (data / VAL).unlink()


def wrong_magic(data: Path) -> None:
    with (data / TRAIN).open("r+b") as file:
        file.write(b"PK\3\4")


def truncated(data: Path) -> None:
    with (data / VAL).open("r+b") as file:
        file.truncate(1024 + 1001)


def no_header(data: Path) -> None:
    (data / TRAIN).write_bytes(b"\1\2\3")


def empty(data: Path) -> None:
    (data / TRAIN).write_bytes(b"")


def tokens_of_another_vocabulary(data: Path) -> None:
    with (data / VAL).open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff\xff" * 2000)


def no_tokenizer(data: Path) -> None:
    (data / TOKENIZER).unlink()


def text_for_a_tokenizer(data: Path) -> None:
    (data / TOKENIZER).write_text("Not Found")


def tokenizer_of_another_size(data: Path) -> None:
    import io

    import sentencepiece

    text = [f"a small corpus of {n} words and {n * n} more" for n in range(400)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        model_type="bpe",
        minloglevel=2,
    )
    (data / TOKENIZER).write_bytes(model.getvalue())


CASES: list[tuple[Callable[[Path], None], str]] = [
    (remove_folder, "demo_sp512"),
    (remove_train, "fineweb_train"),
    (remove_val, "fineweb_val"),
    (wrong_magic, TRAIN),
    (truncated, VAL),
    (no_header, TRAIN),
    (empty, TRAIN),
    (tokens_of_another_vocabulary, VAL),
    (no_tokenizer, TOKENIZER),
    (text_for_a_tokenizer, TOKENIZER),
    (tokenizer_of_another_size, TOKENIZER),
]


@pytest.mark.parametrize(("spoil", "named"), CASES, ids=[case.__name__ for case, _ in CASES])
def test_bad_data_is_told_with_the_command_that_mends_it(
    typed_here: Callable[..., Said],
    tmp_path: Path,
    whole: Path,
    spoil: Callable[[Path], None],
    named: str,
) -> None:
    shutil.copytree(whole, tmp_path / "data")
    spoil(tmp_path / "data")
    (tmp_path / "s.yaml").write_text(SWEEP)
    said = typed_here("launch", "s.yaml")
    assert said.code == 2, said.err
    assert named in said.err
    assert "next: pgolf-sweep data demo" in said.err
    assert "got: " in said.err or "expected: " in said.err
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_vocabulary_that_the_tokenizer_does_not_have(
    typed_here: Callable[..., Said], tmp_path: Path, whole: Path
) -> None:
    shutil.copytree(whole, tmp_path / "data")
    text = SWEEP.replace("good.py", "trainer")
    text = text.replace("parameters:\n", "parameters:\n  VOCAB_SIZE: {value: 1024}\n")
    (tmp_path / "s.yaml").write_text(text)
    said = typed_here("launch", "s.yaml")
    assert said.code == 2, said.err
    assert "VOCAB_SIZE=1024" in said.err
    assert "VOCAB_SIZE=512" in said.err


def test_missing_data_is_told_before_a_cluster_is_asked(
    typed_here: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    said = typed_here("launch", "s.yaml", "--address", "127.0.0.1:1")
    assert said.code == 2, said.err
    assert "next: pgolf-sweep data demo" in said.err
