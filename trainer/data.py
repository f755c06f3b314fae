"""Token shards in the contest's format: 256 little-endian int32, then uint16 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trainer.config import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens: TypeAlias = NDArray[np.uint16]

HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
SHARD_MAGIC = 20240520
SHARD_VERSION = 1


def find_shards(data_path: str, split: str) -> list[Path]:
    """The token shards of a split (``train`` or ``val``) in order.

    ``fineweb_val_bytes_*.bin`` beside them hold no tokens: see `byte_sidecar`.

    Raises:
        TrainerError: There is none.
    """
    shards = [
        path
        for path in sorted(Path(data_path).glob(f"fineweb_{split}_*.bin"))
        if "_bytes_" not in path.name
    ]
    require(bool(shards), f"no shards match {data_path}/fineweb_{split}_*.bin: check DATA_PATH")
    return shards


def open_shard(path: Path) -> Tokens:
    """A shard's tokens, mapped from disk rather than read.

    Raises:
        TrainerError: Not a shard, or not all of one.
    """
    header = np.fromfile(path, dtype="<i4", count=HEADER_INTS)
    require(header.size == HEADER_INTS, f"{path}: truncated, it is shorter than a shard's header")
    magic, version, count = (int(number) for number in header[:3])
    require(
        (magic, version) == (SHARD_MAGIC, SHARD_VERSION),
        f"{path}: not a token shard: magic {magic} version {version}, "
        f"expected {SHARD_MAGIC} version {SHARD_VERSION}",
    )
    got, expected = path.stat().st_size, HEADER_BYTES + 2 * count
    require(got == expected, f"{path}: truncated: {got} bytes, its header promises {expected}")
    require(count > 0, f"{path}: holds no tokens")
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))


class TokenStream:
    """The training tokens in the order of their shards, from the start again after the last."""

    def __init__(self, shards: list[Path], vocab_size: int) -> None:
        self.shards = shards
        self.vocab_size = vocab_size
        self.seek(0, 0)

    def seek(self, shard_index: int, position: int) -> None:
        """Go on at a token of a shard."""
        self.shard_index = shard_index
        self.position = position
        self.tokens = open_shard(self.shards[shard_index])

    def batch(self, rows: int, seq_len: int) -> NDArray[np.int64]:
        """The next rows x seq_len inputs with their targets, advancing the stream.

        Returns:
            Tokens of shape [rows, seq_len + 1]: a row's last token is the next row's first.

        Raises:
            TrainerError: A token is outside the vocabulary, or a further shard is broken.
        """
        length = rows * seq_len + 1
        flat = np.empty(length, dtype=np.int64)
        filled = 0
        while filled < length:
            if self.position >= len(self.tokens):
                self.seek((self.shard_index + 1) % len(self.shards), 0)
            piece = self.tokens[self.position : self.position + length - filled]
            flat[filled : filled + len(piece)] = piece
            filled += len(piece)
            self.position += len(piece)
        self.position -= 1  # the last token is only a target here: the next batch's first input
        check_vocabulary(flat, self.vocab_size, self.shards[self.shard_index])
        return as_sequences(flat, seq_len)


def check_vocabulary(tokens: NDArray[np.int64], vocab_size: int, path: Path) -> None:
    """Raise TrainerError when a token has no row in the embedding."""
    highest = int(tokens.max())
    require(
        highest < vocab_size,
        f"{path}: token {highest} is outside VOCAB_SIZE={vocab_size}: "
        "the shards were made with another tokenizer",
    )


def as_sequences(flat: NDArray[np.int64], seq_len: int) -> NDArray[np.int64]:
    """Rows of seq_len + 1 tokens that overlap by one, a view of n * seq_len + 1 tokens."""
    return np.lib.stride_tricks.sliding_window_view(flat, seq_len + 1)[::seq_len]


def byte_sidecar(data_path: str, count: int) -> Tokens | None:
    """Bytes of text for each validation token, [count]; None where the data have no such files.

    Data whose tokens stand for transformed text (CaseOps) bring them in the shards' own format.

    Raises:
        TrainerError: They are not as many as the tokens.
    """
    paths = sorted(Path(data_path).glob("fineweb_val_bytes_*.bin"))
    if not paths:
        return None
    sizes = np.concatenate([open_shard(path) for path in paths])
    require(
        len(sizes) == count,
        f"{paths[0]}: bytes of {len(sizes)} tokens, but the validation shards hold {count}",
    )
    return sizes


def validation_tokens(shards: list[Path], vocab_size: int) -> NDArray[np.int64]:
    """The whole validation split.

    Raises:
        TrainerError: It holds tokens outside the vocabulary.
    """
    tokens = np.concatenate([open_shard(path) for path in shards]).astype(np.int64)
    check_vocabulary(tokens, vocab_size, shards[0])
    return tokens
