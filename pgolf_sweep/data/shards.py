"""The contest's shard format: 256 little-endian int32, then one uint16 a token.

The header holds a magic number, the format's version and the token count; the rest of it is
zero. Source: ``load_data_shard`` of openai/parameter-golf's ``train_gpt.py``.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN_BYTES = 2
SHARD_TOKENS = 100_000_000
"""Tokens of a full shard of the published export."""

_SAMPLE_TOKENS = 4096
_SAMPLES = 16
"""Blocks read of a shard: 65,536 tokens in all, so a small shard is read whole."""


def write_shard(path: Path, tokens: array[int]) -> None:
    """Write one shard.

    Args:
        path: The file; replaced if it exists.
        tokens: Token ids as ``array("H")``.
    """
    body = tokens
    if sys.byteorder == "big":
        body = array("H", tokens)
        body.byteswap()
    with path.open("wb") as file:
        file.write(struct.pack("<3i", MAGIC, VERSION, len(tokens)).ljust(HEADER_BYTES, b"\0"))
        body.tofile(file)


def read_shard(path: Path) -> array[int]:
    """All tokens of a shard, after `inspect_shard`."""
    count = inspect_shard(path)
    return _read_tokens(path, 0, count)


def inspect_shard(path: Path, *, vocab_size: int | None = None, remedy: str | None = None) -> int:
    """Check a shard's header and length, and a sample of its tokens.

    Args:
        path: The shard.
        vocab_size: Upper limit that every token id must be below, or None not to look at tokens.
        remedy: Command that makes a broken shard whole, for the error's next step.

    Returns:
        How many tokens the shard holds.

    Raises:
        DataError: It is not a whole shard of the contest's format.
    """
    try:
        count = _token_count(path, remedy)
        if vocab_size is not None:
            _check_ids(path, count, vocab_size, remedy)
    except OSError as error:
        raise DataError(
            f"cannot read shard {path.name}: {error.strerror or error}",
            where=str(path),
            next_step=remedy,
        ) from error
    return count


def _token_count(path: Path, remedy: str | None) -> int:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise DataError(
            f"shard {path.name} is shorter than its header",
            where=str(path),
            got=f"{size} bytes",
            expected=f"at least {HEADER_BYTES} bytes",
            next_step=remedy,
        )
    magic, version, count = struct.unpack_from("<3i", header)
    if magic != MAGIC:
        raise DataError(
            f"{path.name} is not a token shard: wrong magic number",
            where=str(path),
            got=str(magic),
            expected=str(MAGIC),
            next_step=remedy,
        )
    if version != VERSION:
        raise DataError(
            f"shard {path.name} has another format version",
            where=str(path),
            got=f"version {version}",
            expected=f"version {VERSION}",
            next_step=remedy,
        )
    if count <= 0:
        raise DataError(
            f"shard {path.name} holds no tokens",
            where=str(path),
            got=f"{count} tokens in the header",
            expected="at least 1 token",
            next_step=remedy,
        )
    expected = HEADER_BYTES + count * TOKEN_BYTES
    if size != expected:
        problem = "is truncated" if size < expected else "has trailing bytes"
        raise DataError(
            f"shard {path.name} {problem}",
            where=str(path),
            got=f"{size} bytes",
            expected=f"{expected} bytes for the {count} tokens of its header",
            next_step=remedy,
        )
    return int(count)


def _check_ids(path: Path, count: int, vocab_size: int, remedy: str | None) -> None:
    for start, length in _sample_blocks(count):
        block = _read_tokens(path, start, length)
        highest = max(block)
        if highest >= vocab_size:
            raise DataError(
                f"shard {path.name} holds a token id outside the vocabulary",
                where=f"{path}, token {start + block.index(highest)}",
                got=f"token id {highest}",
                expected=f"ids below {vocab_size}, the tokenizer's vocabulary",
                next_step=remedy,
            )


def _sample_blocks(count: int) -> Iterator[tuple[int, int]]:
    """Start and length of blocks spread evenly from the first token to the last."""
    if count <= _SAMPLES * _SAMPLE_TOKENS:
        yield 0, count
        return
    last = count - _SAMPLE_TOKENS
    for index in range(_SAMPLES):
        yield last * index // (_SAMPLES - 1), _SAMPLE_TOKENS


def _read_tokens(path: Path, start: int, length: int) -> array[int]:
    tokens = array("H")
    with path.open("rb") as file:
        file.seek(HEADER_BYTES + start * TOKEN_BYTES)
        tokens.frombytes(file.read(length * TOKEN_BYTES))
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens


def write_shards(folder: Path, split: str, documents: Iterable[array[int]]) -> list[Path]:
    """Write tokens as ``fineweb_<split>_NNNNNN.bin`` of at most `SHARD_TOKENS` each.

    Args:
        folder: Where the shards go; it exists.
        split: ``train`` or ``val``.
        documents: Token ids, one array a document; documents may straddle two shards.

    Returns:
        The shards' paths, in order.
    """
    paths: list[Path] = []
    buffer = array("H")

    def flush(count: int) -> None:
        path = folder / f"fineweb_{split}_{len(paths):06d}.bin"
        write_shard(path, buffer[:count])
        del buffer[:count]
        paths.append(path)

    for document in documents:
        buffer.extend(document)
        while len(buffer) >= SHARD_TOKENS:
            flush(SHARD_TOKENS)
    if buffer:
        flush(len(buffer))
    return paths
