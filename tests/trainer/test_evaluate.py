from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.config import TrainerError
from trainer.evaluate import byte_tables, count_bytes, evaluate

TEXTS = ["the of model", "naïve größe 数 under a byte", " curve αβ and", "unseen: qwxyz & 汉字"]


@pytest.mark.parametrize("text", TEXTS)
def test_counted_bytes_are_those_of_the_text(tiny_config, tokenizer, text):
    tables = byte_tables(tiny_config())
    document = np.array([[tokenizer.bos_id(), *tokenizer.encode(text)]])
    decoded = tokenizer.decode(document[0, 1:].tolist())
    # The tokenizer's dummy space at the start follows a boundary token and does not count.
    assert decoded == text
    assert count_bytes(tables, document) == len(text.encode())


def test_a_space_counts_unless_a_boundary_comes_before(tiny_config, tokenizer):
    tables = byte_tables(tiny_config())
    piece = next(t for t in range(tokenizer.get_piece_size()) if tokenizer.id_to_piece(t) == "▁the")
    inside = count_bytes(tables, np.array([[piece, piece]]))
    at_start = count_bytes(tables, np.array([[tokenizer.bos_id(), piece]]))
    assert (inside, at_start) == (4, 3)
    assert count_bytes(tables, np.array([[piece, tokenizer.bos_id()]])) == 0


def test_byte_pieces_count_one(tiny_config, tokenizer):
    tables = byte_tables(tiny_config())
    raw = [token for token in range(tokenizer.get_piece_size()) if tokenizer.is_byte(token)]
    assert len(raw) == 256
    assert tables.piece_bytes[raw].tolist() == [1] * 256


def test_score_of_a_constant_guess_is_known_for_any_batch_size(tiny_config):
    rows = np.arange(7 * 17).reshape(7, 17) % 320
    results = []
    for tokens in (16, 48, 1024):
        config = tiny_config(VAL_BATCH_SIZE=tokens)
        tables = byte_tables(config)

        def guess(inputs, targets):
            logits = torch.zeros(targets.numel(), 320)
            return torch.nn.functional.cross_entropy(logits, targets.flatten())

        results.append(evaluate(config, guess, rows, tables, shares=1, device=torch.device("cpu")))
    expected_bpb = math.log2(320) * 7 * 16 / count_bytes(tables, rows)
    for val_loss, val_bpb in results:
        assert val_loss == pytest.approx(math.log(320), abs=1e-6)
        assert val_bpb == pytest.approx(expected_bpb, abs=1e-6)


def test_padding_of_the_last_batch_is_not_scored(tiny_config):
    config = tiny_config(VAL_BATCH_SIZE=64)  # 7 rows as 4 and 3
    rows = np.full((7, 17), 5)
    shapes = []

    def one_if_real(inputs, targets):
        shapes.append(tuple(inputs.shape))
        real = targets != -100
        return torch.ones(targets.shape)[real].mean()

    tables = byte_tables(config)
    val_loss, _ = evaluate(config, one_if_real, rows, tables, shares=1, device=torch.device("cpu"))
    assert val_loss == 1.0
    assert shapes == [(4, 16), (4, 16)]


def test_validation_batch_below_a_sequence_is_refused(tiny_config):
    config = tiny_config(VAL_BATCH_SIZE=100)
    with pytest.raises(TrainerError, match="VAL_BATCH_SIZE=100 must hold a sequence"):
        evaluate(config, None, np.zeros((4, 17), int), byte_tables(config), shares=8, device=None)


def test_tokenizer_of_another_vocabulary_is_refused(tiny_config):
    with pytest.raises(TrainerError, match="320 pieces does not match VOCAB_SIZE=512"):
        byte_tables(tiny_config(VOCAB_SIZE=512))


def test_missing_or_foreign_tokenizer_is_refused(tiny_config, tmp_path):
    with pytest.raises(TrainerError, match="no such tokenizer"):
        byte_tables(tiny_config(TOKENIZER_PATH=tmp_path / "none.model"))
    other = tmp_path / "other.model"
    other.write_bytes(b"not a protocol buffer")
    with pytest.raises(TrainerError, match="not a SentencePiece model"):
        byte_tables(tiny_config(TOKENIZER_PATH=other))
