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

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trainer.config import Config

SPACE_MARK = "\u2581"
IGNORED = -100


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


def count_bytes(tables: ByteTables, sequences: NDArray[np.int64]) -> int:
    """Bytes of text that the targets of rows of tokens stand for."""
    previous, targets = sequences[:, :-1], sequences[:, 1:]
    spaces = tables.leading_space[targets] & ~tables.boundary[previous]
    return int(tables.piece_bytes[targets].sum() + spaces.sum())


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
    sequences: NDArray[np.int64],
    tables: ByteTables,
    *,
    shares: int,
    device: torch.device,
) -> tuple[float, float]:
    """Mean loss in nats per token and bits per byte over all sequences, the same on every rank.

    bpb = (sum of nats / ln 2) / bytes = val_loss / ln 2 * tokens / bytes.

    Args:
        config: The run's configuration.
        model: Inputs and targets to the mean loss over targets that are not ignored.
        sequences: Tokens [rows, seq_len + 1]; each rank scores its contiguous part.
        tables: Bytes of the tokens.
        shares: Ranks times micro-batches, among which VAL_BATCH_SIZE is divided.
        device: Where the model is.
    """
    total = len(sequences)
    first = total * config.rank // config.world_size
    last = total * (config.rank + 1) // config.world_size
    size = batch_rows(config, math.ceil(total / config.world_size), shares)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(first, last, size):
        rows = sequences[start : min(start + size, last)]
        # Every batch has the same shape, so that one compiled graph serves all.
        batch = np.zeros((size, rows.shape[1]), dtype=np.int64)
        batch[: len(rows)] = rows
        tokens = torch.from_numpy(batch).to(device)
        targets = tokens[:, 1:].contiguous()
        targets[len(rows) :] = IGNORED
        loss = model(tokens[:, :-1].contiguous(), targets)
        nats += loss.double() * (rows.size - len(rows))
    if config.world_size > 1:
        dist.all_reduce(nats)
    val_loss = nats.item() / (total * (sequences.shape[1] - 1))
    tokens_per_byte = total * (sequences.shape[1] - 1) / count_bytes(tables, sequences)
    return val_loss, val_loss / math.log(2.0) * tokens_per_byte
