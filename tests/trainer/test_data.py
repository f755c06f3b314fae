from __future__ import annotations

import numpy as np
import pytest

from trainer.config import TrainerError
from trainer.data import TokenStream, find_shards, open_shard, validation_sequences

VOCAB_SIZE = 320


def test_stream_walks_through_all_shards_without_a_gap_and_starts_again(tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_train_000000.bin", np.arange(10))
    write_shard(tmp_path / "fineweb_train_000001.bin", np.arange(10, 23))
    stream = TokenStream(find_shards(str(tmp_path), "train"), VOCAB_SIZE)
    batches = [stream.batch(2, 4) for _ in range(3)]
    assert batches[0].tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    inputs = np.concatenate([batch[:, :-1].reshape(-1) for batch in batches])
    targets = np.concatenate([batch[:, 1:].reshape(-1) for batch in batches])
    assert inputs.tolist() == [*range(23), 0]
    assert targets.tolist() == [*range(1, 23), 0, 1]


def test_validation_is_every_whole_sequence(tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_val_000000.bin", np.arange(12))
    rows = validation_sequences(find_shards(str(tmp_path), "val"), 5, VOCAB_SIZE)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10]]


def test_missing_shards_name_the_pattern(tmp_path):
    with pytest.raises(TrainerError, match=r"no shards match .*fineweb_train_\*\.bin"):
        find_shards(str(tmp_path / "nowhere"), "train")


def test_wrong_magic_is_named(tmp_path, write_shard):
    write_shard(tmp_path / "shard.bin", np.arange(10), magic=7)
    with pytest.raises(TrainerError, match="not a token shard: magic 7"):
        open_shard(tmp_path / "shard.bin")


@pytest.mark.parametrize("kept_bytes", [100, 1024 + 19])
def test_truncated_shard_is_named(tmp_path, write_shard, kept_bytes):
    path = tmp_path / "shard.bin"
    write_shard(path, np.arange(10))
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(TrainerError, match="truncated"):
        open_shard(path)


def test_token_outside_the_vocabulary_is_named(tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_train_000000.bin", np.arange(400))
    shards = find_shards(str(tmp_path), "train")
    with pytest.raises(TrainerError, match="token 399 is outside VOCAB_SIZE=320"):
        TokenStream(shards, VOCAB_SIZE).batch(100, 4)
    with pytest.raises(TrainerError, match="token 399"):
        validation_sequences(shards, 5, VOCAB_SIZE)


def test_validation_shorter_than_a_sequence_is_refused(tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_val_000000.bin", np.arange(5))
    with pytest.raises(TrainerError, match="shorter than TRAIN_SEQ_LEN=5"):
        validation_sequences(find_shards(str(tmp_path), "val"), 5, VOCAB_SIZE)
