from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.config import TrainerError
from trainer.evaluate import (
    IGNORED,
    Validation,
    byte_tables,
    bytes_of_targets,
    evaluate,
    validation_set,
)

CPU = torch.device("cpu")

TEXTS = ["the of model", "naïve größe 数 under a byte", " curve αβ and", "unseen: qwxyz & 汉字"]


@pytest.mark.parametrize("text", TEXTS)
def test_counted_bytes_are_those_of_the_text(tiny_config, tokenizer, text):
    tables = byte_tables(tiny_config())
    document = np.array([tokenizer.bos_id(), *tokenizer.encode(text)])
    decoded = tokenizer.decode(document[1:].tolist())
    # The tokenizer's dummy space at the start follows a boundary token and does not count.
    assert decoded == text
    assert bytes_of_targets(tables, document).sum() == len(text.encode())


def test_a_space_counts_unless_a_boundary_comes_before(tiny_config, tokenizer):
    tables = byte_tables(tiny_config())
    piece = next(t for t in range(tokenizer.get_piece_size()) if tokenizer.id_to_piece(t) == "▁the")
    bos = tokenizer.bos_id()
    sizes = bytes_of_targets(tables, np.array([piece, piece, bos, piece]))
    assert sizes.tolist() == [4, 0, 3]


def test_byte_pieces_count_one(tiny_config, tokenizer):
    tables = byte_tables(tiny_config())
    raw = [token for token in range(tokenizer.get_piece_size()) if tokenizer.is_byte(token)]
    assert len(raw) == 256
    assert tables.piece_bytes[raw].tolist() == [1] * 256


def tokens_and_bytes(count, size=3):
    tokens = np.arange(count + 1) % 320
    return Validation(tokens=tokens, target_bytes=np.full(count, size))


def flat_guess(inputs, targets):
    logits = torch.zeros(targets.numel(), 320, dtype=torch.float64)
    return torch.nn.functional.cross_entropy(logits, targets.flatten())


@pytest.mark.parametrize("stride", [0, 1, 5, 16])
def test_score_of_a_constant_guess_is_known_for_any_batch_size_and_stride(tiny_config, stride):
    validation = tokens_and_bytes(7 * 16)
    for tokens in (16, 48, 1024):
        config = tiny_config(VAL_BATCH_SIZE=tokens)
        val_loss, val_bpb = evaluate(
            config, flat_guess, validation, shares=1, device=CPU, stride=stride
        )
        assert val_loss == pytest.approx(math.log(320), abs=1e-6)
        assert val_bpb == pytest.approx(math.log2(320) / 3, abs=1e-6)


@pytest.mark.parametrize("stride", [0, 1, 5, 12, 16])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_sliding_window_scores_each_target_once_with_what_came_before(tiny_config, stride, world):
    count, length = 5 * 16, 16
    validation = tokens_and_bytes(count)
    scored = []

    def look(inputs, targets):
        assert targets.shape == inputs.shape
        for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
            at = [index for index, target in enumerate(wanted) if target != IGNORED]
            for index in at:
                assert wanted[index] == row[0] + index + 1 == row[index] + 1
                # Only a token of the first sequence has fewer before it.
                assert index >= length - (stride or length) or row[0] == 0
            scored.extend(wanted[index] for index in at)
        return torch.zeros(())

    for rank in range(world):
        config = tiny_config(VAL_BATCH_SIZE=64, WORLD_SIZE=world, RANK=rank)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
            evaluate(config, look, validation, shares=1, device=CPU, stride=stride)
    assert sorted(scored) == list(range(1, count + 1))


def test_a_sliding_window_is_the_plain_loop_over_positions(tiny_config):
    """A model whose loss depends on how much it sees, against a loop over single targets."""
    validation, stride = tokens_and_bytes(4 * 16), 4

    def by_context(inputs, targets):
        seen = torch.arange(1.0, 17.0).expand(targets.shape)
        return (1.0 / seen)[targets != IGNORED].mean()

    config = tiny_config(VAL_BATCH_SIZE=64)
    total = 0.0
    for target in range(1, 65):
        end = max(16, -(-target // stride) * stride)  # the first window that ends at or behind it
        total += 1.0 / (target - (end - 16))
    val_loss, _ = evaluate(config, by_context, validation, shares=1, device=CPU, stride=stride)
    assert val_loss == pytest.approx(total / 64, rel=1e-6)


def test_padding_of_the_last_batch_is_not_scored(tiny_config):
    config = tiny_config(VAL_BATCH_SIZE=64)  # 7 rows as 4 and 3
    shapes = []

    def one_if_real(inputs, targets):
        shapes.append(tuple(inputs.shape))
        return torch.ones(targets.shape)[targets != IGNORED].mean()

    val_loss, _ = evaluate(config, one_if_real, tokens_and_bytes(7 * 16), shares=1, device=CPU)
    assert val_loss == 1.0
    assert shapes == [(4, 16), (4, 16)]


def test_validation_batch_below_a_sequence_is_refused(tiny_config):
    config = tiny_config(VAL_BATCH_SIZE=100)
    with pytest.raises(TrainerError, match="VAL_BATCH_SIZE=100 must hold a sequence"):
        evaluate(config, None, tokens_and_bytes(64), shares=8, device=CPU)


@pytest.fixture
def transformed(tmp_path, write_shard, tokenizer):
    """Validation of a transformed text: each token is the piece of "the" and stands for 2 bytes."""
    piece = tokenizer.piece_to_id("▁the")
    write_shard(tmp_path / "fineweb_val_000000.bin", np.full(50, piece))
    return tmp_path / "fineweb_val_bytes_000000.bin"


def test_byte_counts_beside_the_shards_are_the_denominator(tiny_config, transformed, write_shard):
    config = tiny_config(DATA_PATH=transformed.parent)
    plain = validation_set(config, byte_tables(config))
    assert (len(plain.tokens), plain.target_bytes.tolist()) == (49, [4] * 48)
    write_shard(transformed, np.arange(50) % 2 * 2 + 2)
    counted = validation_set(config, byte_tables(config))
    assert counted.tokens.tolist() == plain.tokens.tolist()
    assert counted.target_bytes.tolist() == [4, 2] * 24  # of the targets: the first token is none
    scores = [
        evaluate(config, flat_guess, one, shares=1, device=CPU)[1] for one in (plain, counted)
    ]
    assert scores[1] == pytest.approx(scores[0] * 4 / 3)


@pytest.mark.parametrize("size", [0, 1, 9, 1000])
def test_byte_counts_of_other_data_are_refused(tiny_config, transformed, write_shard, size):
    config = tiny_config(DATA_PATH=transformed.parent)
    write_shard(transformed, np.full(50, size))
    with pytest.raises(TrainerError, match=rf"{48 * size} bytes of validation text, but .* 192"):
        validation_set(config, byte_tables(config))


def test_bytes_of_a_token_that_cannot_be_are_refused(tiny_config, transformed):
    config = tiny_config(DATA_PATH=transformed.parent, BYTES_PER_TOKEN=4.03)
    validation_set(config, byte_tables(config))
    config = tiny_config(DATA_PATH=transformed.parent, BYTES_PER_TOKEN=2.0)
    with pytest.raises(TrainerError, match=r"4\.0000 bytes a validation token"):
        validation_set(config, byte_tables(config))


def test_validation_shorter_than_a_sequence_is_refused(tiny_config, tmp_path, write_shard):
    write_shard(tmp_path / "fineweb_val_000000.bin", np.arange(16))
    config = tiny_config(DATA_PATH=tmp_path)
    with pytest.raises(TrainerError, match="shorter than TRAIN_SEQ_LEN=16"):
        validation_set(config, byte_tables(config))


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
