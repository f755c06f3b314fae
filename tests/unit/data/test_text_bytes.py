"""Bytes a validation token, counted over the shards, against the text and against the trainer."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pgolf_sweep.data import text_bytes
from pgolf_sweep.data.shards import write_shard
from trainer.config import read_config
from trainer.evaluate import byte_tables, bytes_of_targets

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.data.build import Built


def shard_tokens(path: Path) -> np.ndarray:
    return np.fromfile(path, dtype="<u2", offset=1024).astype(np.int64)


@pytest.mark.parametrize("part", [1 << 22, 1000])
def test_the_count_is_the_trainers_whatever_the_parts(
    demo_built: Built, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_bytes, "PIECE_TOKENS", part)
    dataset = demo_built.dataset
    tokens = np.concatenate([shard_tokens(path) for path in dataset.shards("val")])
    config = replace(
        read_config(),
        tokenizer_path=str(dataset.tokenizer),
        vocab_size=dataset.vocab_size,
    )
    expected = bytes_of_targets(byte_tables(config), tokens).mean()
    assert text_bytes.bytes_per_token(dataset) == pytest.approx(expected, rel=1e-12)


def test_files_of_byte_counts_decide_where_they_are(demo_built: Built, tmp_path: Path) -> None:
    dataset = replace(demo_built.dataset, path=tmp_path)
    write_shard(tmp_path / "fineweb_val_000000.bin", array("H", [1, 5, 6, 7]))
    write_shard(tmp_path / "fineweb_val_bytes_000000.bin", array("H", [9, 1, 2, 6]))
    assert text_bytes.bytes_per_token(dataset) == 3.0
