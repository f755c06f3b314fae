from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pgolf_sweep.core.errors import DataError
from pgolf_sweep.data import shards

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "fineweb_train_000000.bin"
    shards.write_shard(path, array("H", [1, 5, 511, 7]))
    return path


def test_shard_is_the_contests_format_byte_for_byte(shard: Path) -> None:
    header = np.fromfile(shard, dtype="<i4", count=256)
    tokens = np.fromfile(shard, dtype="<u2", offset=1024)
    assert header[:3].tolist() == [20240520, 1, 4]
    assert not header[3:].any()
    assert tokens.tolist() == [1, 5, 511, 7]


def test_reading_inverts_writing(shard: Path) -> None:
    assert shards.read_shard(shard).tolist() == [1, 5, 511, 7]


@pytest.mark.parametrize(
    ("damage", "what", "got", "expected"),
    [
        (lambda b: b[:500], "shorter than its header", "500 bytes", "at least 1024 bytes"),
        (lambda b: b"", "shorter than its header", "0 bytes", "at least 1024 bytes"),
        (lambda b: struct.pack("<i", 7) + b[4:], "wrong magic", "7", "20240520"),
        (lambda b: b[:4] + struct.pack("<i", 2) + b[8:], "version", "version 2", "version 1"),
        (lambda b: b[:-1], "truncated", "1031 bytes", "1032 bytes for the 4 tokens"),
        (lambda b: b + b"xy", "trailing bytes", "1034 bytes", "1032 bytes"),
        (lambda b: b[:8] + struct.pack("<i", 0) + b[12:1024], "no tokens", "0 tokens", "1 token"),
        (lambda b: b[:8] + struct.pack("<i", -1) + b[12:], "no tokens", "-1 tokens", "1 token"),
    ],
)
def test_damage_is_named_with_file_got_expected_and_command(
    shard: Path, damage, what: str, got: str, expected: str
) -> None:
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(DataError) as caught:
        shards.inspect_shard(shard, vocab_size=512, remedy="fix it")
    error = caught.value
    assert what in error.what
    assert got in error.got
    assert expected in error.expected
    assert error.where == str(shard)
    assert error.next_step == "fix it"


def test_token_id_outside_the_vocabulary_is_found_and_placed(shard: Path) -> None:
    assert shards.inspect_shard(shard, vocab_size=512) == 4
    with pytest.raises(DataError, match="outside the vocabulary") as caught:
        shards.inspect_shard(shard, vocab_size=511)
    assert caught.value.got == "token id 511"
    assert caught.value.where.endswith("token 2")


@pytest.mark.parametrize("bad_at", [0, 299_999])
def test_sample_of_a_large_shard_reaches_both_ends(tmp_path: Path, bad_at: int) -> None:
    tokens = array("H", bytes(2 * 300_000))
    tokens[bad_at] = 600
    path = tmp_path / "s.bin"
    shards.write_shard(path, tokens)
    with pytest.raises(DataError, match="outside the vocabulary"):
        shards.inspect_shard(path, vocab_size=512)


def test_unreadable_shard_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read shard gone\.bin"):
        shards.inspect_shard(tmp_path / "gone.bin")


def test_documents_straddle_full_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_TOKENS", 4)
    documents = [array("H", [1, 2, 3]), array("H", [1, 4, 5, 6, 7, 8])]
    paths = shards.write_shards(tmp_path, "train", documents)
    assert [path.name for path in paths] == [f"fineweb_train_{i:06d}.bin" for i in range(3)]
    assert [shards.read_shard(path).tolist() for path in paths] == [
        [1, 2, 3, 1],
        [4, 5, 6, 7],
        [8],
    ]
