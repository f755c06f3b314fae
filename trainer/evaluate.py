"""The score: bits per byte on the validation split. Frozen: changing it invalidates scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from trainer.config import require
from trainer.data import byte_sidecar, find_shards, validation_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trainer.config import Config

SPACE_MARK = "\u2581"
IGNORED = -100
BYTES_PER_TOKEN_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteTables:
    """What each token adds to the text's length, indexed by token, [V].

    Attributes:
        piece_bytes: UTF-8 bytes of the piece without its mark of a leading space.
        leading_space: Whether the piece begins with that mark.
        boundary: Whether the token is control, unknown or unused: no text, and a piece after it
            does not show its leading space.
    """

    piece_bytes: NDArray[np.int64]
    leading_space: NDArray[np.bool_]
    boundary: NDArray[np.bool_]


def byte_tables(config: Config) -> ByteTables:
    """The tables of the configured SentencePiece model.

    Raises:
        TrainerError: It is missing, unreadable, or of another vocabulary.
    """
    import sentencepiece  # noqa: PLC0415 - so that what reads only the tables' type does without

    path = Path(config.tokenizer_path)
    require(path.is_file(), f"{path}: no such tokenizer: check TOKENIZER_PATH")
    tokenizer = sentencepiece.SentencePieceProcessor()
    try:
        readable = tokenizer.LoadFromSerializedProto(path.read_bytes())
    except RuntimeError:
        readable = False
    require(readable, f"{path}: not a SentencePiece model")
    size = tokenizer.get_piece_size()
    require(
        size == config.vocab_size,
        f"{path}: vocabulary of {size} pieces does not match VOCAB_SIZE={config.vocab_size}",
    )
    piece_bytes = np.zeros(size, dtype=np.int64)
    leading_space = np.zeros(size, dtype=np.bool_)
    boundary = np.zeros(size, dtype=np.bool_)
    for token in range(size):
        if tokenizer.is_control(token) or tokenizer.is_unknown(token) or tokenizer.is_unused(token):
            boundary[token] = True
        elif tokenizer.is_byte(token):
            piece_bytes[token] = 1
        else:
            piece = tokenizer.id_to_piece(token)
            leading_space[token] = piece.startswith(SPACE_MARK)
            piece_bytes[token] = len(piece.removeprefix(SPACE_MARK).encode())
    return ByteTables(piece_bytes=piece_bytes, leading_space=leading_space, boundary=boundary)


def bytes_of_targets(tables: ByteTables, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of text that each token after the first stands for, [N] of tokens [N + 1]."""
    previous, targets = tokens[:-1], tokens[1:]
    spaces = tables.leading_space[targets] & ~tables.boundary[previous]
    return tables.piece_bytes[targets] + spaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is scored: every token after the first, once.

    Attributes:
        tokens: int64 [N + 1], N a multiple of the sequence length.
        target_bytes: Bytes of text of each target, [N].
    """

    tokens: NDArray[np.int64]
    target_bytes: NDArray[np.integer]

    def first(self, count: int) -> Validation:
        """The first so many targets."""
        return Validation(tokens=self.tokens[: count + 1], target_bytes=self.target_bytes[:count])


def validation_set(config: Config, tables: ByteTables) -> Validation:
    """The validation split, but for the tail that fills no sequence.

    Raises:
        TrainerError: It is shorter than a sequence, its files contradict each other, or its bytes
            cannot be those of its tokens: the score would be worth nothing.
    """
    shards = find_shards(config.data_path, "val")
    tokens = validation_tokens(shards, config.vocab_size)
    count = (len(tokens) - 1) // config.train_seq_len * config.train_seq_len
    length = f"TRAIN_SEQ_LEN={config.train_seq_len}"
    require(count > 0, f"{shards[0].parent}: validation is shorter than {length}")
    sidecar = byte_sidecar(config.data_path, len(tokens))
    tokens = tokens[: count + 1]
    plain = bytes_of_targets(tables, tokens)
    found = Validation(
        tokens=tokens, target_bytes=plain if sidecar is None else sidecar[1 : count + 1]
    )
    total, by_pieces = int(found.target_bytes.sum(dtype=np.int64)), int(plain.sum())
    # A transformed text is of about the length of the original, under any transformation.
    require(
        0 < by_pieces / 2 <= total <= 2 * by_pieces,
        f"{config.data_path}: {total} bytes of validation text, but its tokens' pieces have "
        f"{by_pieces}: the byte files or the tokenizer belong to other data",
    )
    expected = config.bytes_per_token
    require(
        expected == 0 or abs(total / count / expected - 1) <= BYTES_PER_TOKEN_TOLERANCE,
        f"{config.data_path}: {total / count:.4f} bytes a validation token, but "
        f"BYTES_PER_TOKEN={expected}: the score would not be comparable",
    )
    return found


def batch_rows(config: Config, rows: int, shares: int) -> int:
    """Sequences of a validation batch: within VAL_BATCH_SIZE, and evenly many in each.

    Raises:
        TrainerError: VAL_BATCH_SIZE does not hold a sequence for each rank and share.
    """
    batches = max(math.ceil(rows / config.validation_rows(shares)), 1)
    return math.ceil(rows / batches)


@torch.no_grad()
def evaluate(
    config: Config,
    model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    validation: Validation,
    *,
    shares: int,
    device: torch.device,
    stride: int = 0,
) -> tuple[float, float]:
    """Mean loss in nats per token and bits per byte over all targets, the same on every rank.

    bpb = (sum of nats / ln 2) / bytes = val_loss / ln 2 * tokens / bytes.

    Args:
        config: The run's configuration.
        model: Inputs and targets to the mean loss over targets that are not ignored.
        validation: What is scored; each rank scores its contiguous part.
        shares: Ranks times micro-batches, among which VAL_BATCH_SIZE is divided.
        device: Where the model is.
        stride: Targets that a sequence scores, its last ones, so that each has at least
            TRAIN_SEQ_LEN - stride tokens before it (the first sequence scores all of its own);
            0 has sequences follow each other. Each target is scored once either way.
    """
    length, count = config.train_seq_len, len(validation.target_bytes)
    stride = stride or length
    starts = np.minimum(np.arange(0, count - length + stride, stride), count - length)
    scored_before = np.append(0, starts[:-1] + length) - starts
    windows = np.lib.stride_tricks.sliding_window_view(validation.tokens, length + 1)
    total = len(starts)
    first = total * config.rank // config.world_size
    last = total * (config.rank + 1) // config.world_size
    size = batch_rows(config, math.ceil(total / config.world_size), shares)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(first, last, size):
        rows = np.arange(start, min(start + size, last))
        # Every batch has the same shape, so that one compiled graph serves all.
        batch = np.zeros((size, length + 1), dtype=np.int64)
        batch[: len(rows)] = windows[starts[rows]]
        ignored = np.ones((size, length), dtype=np.bool_)
        ignored[: len(rows)] = np.arange(length) < scored_before[rows, None]
        tokens = torch.from_numpy(batch).to(device)
        targets = tokens[:, 1:].masked_fill(torch.from_numpy(ignored).to(device), IGNORED)
        loss = model(tokens[:, :-1].contiguous(), targets)
        nats += loss.double() * int((~ignored).sum())
    if config.world_size > 1:
        dist.all_reduce(nats)
    val_loss = nats.item() / count
    tokens_per_byte = count / int(validation.target_bytes.sum(dtype=np.int64))
    return val_loss, val_loss / math.log(2.0) * tokens_per_byte
