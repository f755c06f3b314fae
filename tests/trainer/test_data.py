from __future__ import annotations

import numpy as np
import pytest

from trainer.config import TrainerError
from trainer.data import TokenStream, byte_sidecar, find_shards, open_shard, validation_tokens

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


def test_validation_is_every_token_of_its_shards_and_no_byte_count(tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_val_000000.bin", np.arange(12))
    write_shard(tmp_path / "fineweb_val_000001.bin", np.arange(12, 15))
    write_shard(tmp_path / "fineweb_val_bytes_000000.bin", np.full(12, 4))
    write_shard(tmp_path / "fineweb_val_bytes_000001.bin", np.arange(3))
    shards = find_shards(str(tmp_path), "val")
    assert [path.name[12:18] for path in shards] == ["000000", "000001"]
    assert validation_tokens(shards, VOCAB_SIZE).tolist() == [*range(15)]
    assert byte_sidecar(str(tmp_path), 15).tolist() == [*[4] * 12, 0, 1, 2]
    with pytest.raises(TrainerError, match="bytes of 15 tokens, but the validation shards hold 14"):
        byte_sidecar(str(tmp_path), 14)


def test_most_data_have_no_byte_counts(tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_val_000000.bin", np.arange(12))
    assert byte_sidecar(str(tmp_path), 12) is None


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
        validation_tokens(shards, VOCAB_SIZE)
