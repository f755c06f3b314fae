"""Bytes of text that a data set's validation tokens stand for.

A token stands for its piece's bytes, and for one more where the piece begins with a space that
the token before does not take away: a control, unknown or unused piece ends the text, so that
what follows begins without one (the contest's rule). Files of byte counts say it instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pgolf_sweep.data.shards import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pgolf_sweep.data.dataset import DataSet

SPACE_MARK = "\u2581"
"""SentencePiece's sign for a space."""
PIECE_TOKENS = 1 << 22
"""Tokens that are looked at together: 130 MB at the most."""


def bytes_per_token(dataset: DataSet) -> float:
    """Mean bytes of a validation token, the first one left out, which no model predicts.

    Args:
        dataset: A sound one; `check` says whether it is.
    """
    if counts := dataset.byte_counts():
        sizes = np.concatenate([np.asarray(_numbers(path)) for path in counts])[1:]
        return float(sizes.mean(dtype=np.float64))
    piece_bytes, spaced, ends = _pieces(dataset.tokenizer)
    total = count = 0
    before: int | None = None
    for part in _parts(dataset):
        tokens = part if before is None else np.concatenate(([before], part))
        previous, targets = tokens[:-1], tokens[1:]
        total += int(piece_bytes[targets].sum())
        total += int((spaced[targets] & ~ends[previous]).sum())
        count += len(targets)
        before = int(part[-1])
    return total / count


def _parts(dataset: DataSet) -> Iterator[NDArray[np.uint16]]:
    for path in dataset.shards("val"):
        numbers = _numbers(path)
        for start in range(0, len(numbers), PIECE_TOKENS):
            yield numbers[start : start + PIECE_TOKENS]


def _numbers(path: Path) -> NDArray[np.uint16]:
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES)


def _pieces(tokenizer: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each piece its bytes without a leading space, whether it has one, and whether it ends."""
    import sentencepiece  # noqa: PLC0415 - late: `pgolf-sweep --help` must not pay for it

    model: Any = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    size = model.get_piece_size()
    sizes = np.zeros(size, dtype=np.int64)
    spaced, ends = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    for token in range(size):
        if model.is_control(token) or model.is_unknown(token) or model.is_unused(token):
            ends[token] = True
            continue
        piece = model.id_to_piece(token)
        spaced[token] = piece.startswith(SPACE_MARK) and not model.is_byte(token)
        sizes[token] = 1 if model.is_byte(token) else len(piece.removeprefix(SPACE_MARK).encode())
    return sizes, spaced, ends
