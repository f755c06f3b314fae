from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.adapt import attach, detach, documents, evaluate_adapting, score_batch
from trainer.config import TrainerError
from trainer.evaluate import Validation, evaluate
from trainer.model import BOS, GPT

CPU = torch.device("cpu")
TTT = {"TTT_ENABLED": 1, "TTT_CHUNK_SIZE": 5, "TTT_LORA_RANK": 3, "TTT_LORA_LR": 0.02}


def built(config, seed=0):
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def tokens():
    """Five documents of 40, 3, 22, 1 and 30 tokens, and the start of a sixth."""
    rng = np.random.default_rng(0)
    parts = [np.append(BOS, rng.integers(5, 40, length - 1)) for length in (40, 3, 22, 1, 30)]
    return np.append(np.concatenate(parts), BOS)


def losses(config, model, tokens, batch):
    found = {}
    for places, values in score_batch(config, model, tokens, batch, seed=0):
        for place, value in zip(places.tolist(), values.tolist(), strict=True):
            assert place not in found
            found[place] = value
    return found


def test_every_target_belongs_to_one_document(tokens):
    assert documents(tokens) == [(0, 40), (40, 3), (43, 22), (65, 1), (66, 30)]
    assert documents(tokens[7:30]) == [(0, 22)]  # the split may begin within a document


def test_each_target_is_scored_once_before_anything_is_learnt_from_it(tiny_config, tokens):
    config = tiny_config(**TTT)
    model = built(config)
    batch = documents(tokens)
    before = losses(config, model, tokens, batch)
    assert sorted(before) == list(range(len(tokens) - 1))
    for changed_at in (12, 15, 29, 50, 70):
        changed = tokens.copy()
        changed[changed_at] = 41
        after = losses(config, model, changed, batch)
        start, length = next(d for d in batch if d[0] <= changed_at < d[0] + d[1])
        for place, loss in before.items():
            inside = start <= place < start + length
            if not inside or place + 1 < changed_at:
                assert after[place] == loss, (changed_at, place)
        assert after[changed_at] != before[changed_at]


def test_a_document_alone_is_scored_as_in_a_batch(tiny_config, tokens):
    config = tiny_config(**TTT)
    model = built(config)
    batch = documents(tokens)
    together = losses(config, model, tokens, batch)
    (start, length) = batch[0]
    alone = losses(config, model, tokens, batch[:1])
    # Only the adapters' random start differs, which a batch of one draws alike for its first.
    assert sorted(alone) == list(range(start, start + length))
    assert list(alone.values())[:5] == pytest.approx(list(together.values())[:5], abs=1e-5)


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_others_are_a_low_rank_sum(tiny_config):
    for tied in (0, 1):
        config = tiny_config(TIE_EMBEDDINGS=tied, **TTT)
        model = built(config)
        inputs = torch.randint(5, 40, (2, 16))
        plain = model.logits(inputs)
        factors = attach(config, model, 2, seed=0)
        assert torch.allclose(model.logits(inputs), plain, atol=1e-6)
        for factor in factors:
            factor.add_(torch.randn_like(factor) * 0.1)
        moved = model.logits(inputs)
        module = model.blocks[1].mlp.up
        x = torch.randn(2, 7, 32)
        expected = torch.stack(
            [
                row @ (module.weight + 48 * (down @ up).T).T
                for row, down, up in zip(x, *module.lora, strict=True)
            ]
        )
        assert torch.allclose(module(x), expected, atol=1e-4)
        detach(model)
        assert not torch.allclose(moved, plain, atol=1e-3)
        assert torch.equal(model.logits(inputs), plain)


def test_without_learning_it_is_the_plain_score_of_single_documents(tiny_config, tokens):
    config = tiny_config(**TTT | {"TTT_LORA_LR": 0, "TTT_CHUNK_SIZE": 16})
    model = built(config)
    one = np.append(tokens[:33], BOS)[:33]  # one document of two whole sequences
    validation = Validation(tokens=one, target_bytes=np.full(32, 3))
    adapted = evaluate_adapting(config, model, validation)
    plain = evaluate(config, model, validation, shares=1, device=CPU)
    assert adapted == pytest.approx(plain, abs=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_it_learns_what_a_document_repeats_and_leaves_the_model_as_it_was(tiny_config):
    config = tiny_config(**TTT)
    model = built(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    document = np.append(BOS, np.tile([7, 19, 30], 40))
    validation = Validation(tokens=document, target_bytes=np.full(120, 3))
    adapted, _ = evaluate_adapting(config, model, validation)
    fixed, _ = evaluate_adapting(tiny_config(**TTT | {"TTT_LORA_LR": 0}), model, validation)
    assert adapted < fixed - 0.3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_ranks_add_up_to_one_process(tiny_config, tokens, monkeypatch):
    validation = Validation(tokens=tokens, target_bytes=np.full(len(tokens) - 1, 3))
    knobs = TTT | {"TTT_BATCH_SIZE": 2}
    whole, _ = evaluate_adapting(tiny_config(**knobs), built(tiny_config()), validation)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    parts = [
        evaluate_adapting(
            tiny_config(WORLD_SIZE=2, RANK=rank, **knobs), built(tiny_config()), validation
        )[0]
        for rank in range(2)
    ]
    assert sum(parts) == pytest.approx(whole, abs=1e-9)


def test_a_chunk_is_at_most_a_sequence(tiny_config):
    with pytest.raises(TrainerError, match="TTT_CHUNK_SIZE must be at most TRAIN_SEQ_LEN=16"):
        tiny_config(TTT_ENABLED=1)
