"""Test-time training by document: score a chunk, then learn from it for the chunks after it.

Each document of a batch has low-rank adapters of its own, so that none sees another. A chunk's loss
is taken before the adapters see it: no token is scored by what was learnt from it. Source: the
contest's PR #1530 and later; LoRA: arXiv 2106.09685. Shapes: B documents, T positions, C columns
and R rows of a matrix, L rank.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional

from trainer.evaluate import IGNORED
from trainer.layers import Linear
from trainer.model import BOS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from trainer.config import Config
    from trainer.evaluate import Validation
    from trainer.model import GPT

ADAPTED = ("v", "out", "up", "down", "head")


def documents(tokens: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First input and number of targets of each document; its last target starts the next one."""
    starts = np.flatnonzero(tokens[:-1] == BOS)
    starts = np.unique(np.append(0, starts))
    return list(zip(starts.tolist(), np.diff(np.append(starts, len(tokens) - 1)), strict=True))


def attach(config: Config, model: GPT, count: int, seed: int) -> list[Tensor]:
    """Fresh adapters, one for each of `count` documents; the second factor starts at zero."""
    device, rank = model.embed.weight.device, config.ttt_lora_rank
    generator = torch.Generator(device).manual_seed(seed)
    factors = []
    targets = [
        (module, tuple(module.weight.shape))
        for name, module in model.named_modules()
        if isinstance(module, Linear) and name.rpartition(".")[2] in ADAPTED
    ]
    if model.head is None:
        targets.append((model, tuple(model.embed.weight.shape)))
    for module, (rows, columns) in targets:
        down_BCL = torch.empty(count, columns, rank, device=device)
        down_BCL.uniform_(-(columns**-0.5), columns**-0.5, generator=generator)
        up_BLR = torch.zeros(count, rank, rows, device=device)
        module.lora = (down_BCL.requires_grad_(), up_BLR.requires_grad_())
        module.lora_scale = config.ttt_lora_alpha / rank
        factors += module.lora
    return factors


def detach(model: GPT) -> None:
    """Take all adapters away."""
    for module in model.modules():
        if hasattr(module, "lora"):
            module.lora = None


def score_batch(
    config: Config, model: GPT, tokens: NDArray[np.int64], batch: list[tuple[int, int]], seed: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Each chunk's losses, before it is learnt from.

    Args:
        config: The run's configuration.
        model: Its own weights stay as they are.
        tokens: Of the validation.
        batch: The documents.
        seed: Of the adapters.

    Yields:
        Places of the targets among all, and their losses in nats.
    """
    device, chunk = model.embed.weight.device, config.ttt_chunk_size
    factors = attach(config, model, len(batch), seed)
    optimizer = torch.optim.AdamW(
        factors,
        lr=config.ttt_lora_lr,
        betas=(0.0, config.ttt_beta2),
        eps=1e-10,
        weight_decay=config.ttt_weight_decay,
    )
    starts, lengths = np.array(batch).T
    for begin in range(0, lengths.max(), chunk):
        end = begin + chunk
        first = max(0, end - config.train_seq_len)
        places = starts[:, None] + np.arange(first, end)
        valid = np.arange(first, end) < lengths[:, None]
        inputs = torch.from_numpy(tokens[np.where(valid, places, 0)]).to(device)
        targets = np.where(valid, tokens[np.where(valid, places + 1, 0)], IGNORED)
        logits = model.logits(inputs)[:, begin - first :]
        wanted = torch.from_numpy(targets[:, begin - first :]).to(device)
        losses_BT = functional.cross_entropy(
            logits.flatten(0, 1).float(), wanted.flatten(), reduction="none"
        ).view(wanted.shape)
        scored = valid[:, begin - first :]
        yield places[:, begin - first :][scored], losses_BT.detach()[wanted != IGNORED]
        goes_on = torch.from_numpy(lengths > end).to(device)
        if goes_on.any():
            optimizer.zero_grad()
            losses_BT[goes_on].mean(dim=1).sum().backward()
            optimizer.step()
    detach(model)


def evaluate_adapting(config: Config, model: GPT, validation: Validation) -> tuple[float, float]:
    """`evaluate` with test-time training: loss in nats and bits per byte, alike on every rank."""
    docs = sorted(documents(validation.tokens), key=lambda document: -document[1])
    batches = [
        docs[at : at + config.ttt_batch_size] for at in range(0, len(docs), config.ttt_batch_size)
    ]
    nats = torch.zeros((), dtype=torch.float64, device=model.embed.weight.device)
    model.requires_grad_(requires_grad=False)
    for seed in range(config.rank, len(batches), config.world_size):
        for _, losses in score_batch(config, model, validation.tokens, batches[seed], seed):
            nats += losses.double().sum()
    model.requires_grad_()
    if config.world_size > 1:
        dist.all_reduce(nats)
    text_bytes = int(validation.target_bytes.sum(dtype=np.int64))
    return nats.item() / len(validation.target_bytes), nats.item() / math.log(2.0) / text_bytes
