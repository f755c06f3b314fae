"""The GPT: grouped-query attention, rotary positions, relu-squared MLP, U-Net skips.

Shapes: B sequences, T positions, D model width, H query heads, K key and value heads,
E width of a head, V vocabulary. Weights are float32 and cast to the arithmetic's type where used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from trainer.config import Config


class Linear(nn.Linear):
    """A matrix without bias that works in the type of its input."""

    def __init__(self, columns: int, rows: int, *, zero: bool = False) -> None:
        super().__init__(columns, rows, bias=False)
        if zero:  # a branch that starts as nothing leaves the residual stream alone
            nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Last dimension from columns to rows."""
        return functional.linear(x, self.weight.to(x.dtype))


def rms_norm(x: Tensor) -> Tensor:
    """Rows of unit root mean square."""
    return functional.rms_norm(x, (x.size(-1),))


def rotary_tables(seq_len: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each position's angles, [T, E / 2]. Source: arXiv 2104.09864."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x_BHTE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of a head by its position's angle."""
    first, second = x_BHTE.chunk(2, dim=-1)
    return torch.cat((first * cos_TE + second * sin_TE, second * cos_TE - first * sin_TE), dim=-1)


class Attention(nn.Module):
    """Causal attention with normalised queries and keys and a learnt gain on the queries."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        kv_width = config.num_kv_heads * config.head_dim
        self.q = Linear(config.model_dim, config.model_dim)
        self.k = Linear(config.model_dim, kv_width)
        self.v = Linear(config.model_dim, kv_width)
        self.out = Linear(config.model_dim, config.model_dim, zero=True)
        self.q_gain = nn.Parameter(torch.full((config.num_heads,), config.qk_gain_init))

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """What each position gathers from itself and those before it."""
        batch, length, width = x_BTD.shape
        q_BHTE = self.q(x_BTD).view(batch, length, self.heads, -1).transpose(1, 2)
        k_BKTE = self.k(x_BTD).view(batch, length, self.kv_heads, -1).transpose(1, 2)
        v_BKTE = self.v(x_BTD).view(batch, length, self.kv_heads, -1).transpose(1, 2)
        gain = self.q_gain.to(x_BTD.dtype)[:, None, None]
        q_BHTE = rotate(rms_norm(q_BHTE), cos, sin) * gain
        k_BKTE = rotate(rms_norm(k_BKTE), cos, sin)
        mixed_BHTE = functional.scaled_dot_product_attention(
            q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=self.kv_heads != self.heads
        )
        return self.out(mixed_BHTE.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two matrices around a squared relu. Source: arXiv 2109.08668."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = Linear(config.model_dim, config.hidden_dim)
        self.down = Linear(config.hidden_dim, config.model_dim, zero=True)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each position by itself."""
        return self.down(functional.relu(self.up(x_BTD)).square())


class Block(nn.Module):
    """Attention and MLP, each with a gain for every channel, after a mix with the embedding."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.model_dim
        self.attn = Attention(config)
        self.mlp = MLP(config)
        self.attn_gain = nn.Parameter(torch.ones(width))
        self.mlp_gain = nn.Parameter(torch.ones(width))
        self.stream_mix = nn.Parameter(torch.stack((torch.ones(width), torch.zeros(width))))

    def forward(self, x_BTD: Tensor, embedded_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The residual stream after this block."""
        dtype = x_BTD.dtype
        keep, again = self.stream_mix.to(dtype)
        x_BTD = keep * x_BTD + again * embedded_BTD
        x_BTD = x_BTD + self.attn_gain.to(dtype) * self.attn(rms_norm(x_BTD), cos, sin)
        return x_BTD + self.mlp_gain.to(dtype) * self.mlp(rms_norm(x_BTD))


class GPT(nn.Module):
    """The language model; its output is the mean cross-entropy in nats.

    The first half of the blocks hands each output over to the second half, last to first.
    """

    def __init__(self, config: Config, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.softcap = config.logit_softcap
        self.embed = nn.Embedding(config.vocab_size, config.model_dim)
        if config.tie_embeddings:
            nn.init.normal_(self.embed.weight, std=config.tied_embed_init_std)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.skips = config.num_layers // 2
        self.skip_gain = nn.Parameter(torch.ones(self.skips, config.model_dim))
        self.head = (
            None
            if config.tie_embeddings
            else Linear(config.model_dim, config.vocab_size, zero=True)
        )
        cos, sin = rotary_tables(config.train_seq_len, config.head_dim, config.rope_base)
        self.register_buffer("cos", cos.to(dtype), persistent=False)
        self.register_buffer("sin", sin.to(dtype), persistent=False)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean over the targets that are not -100."""
        embedded = rms_norm(self.embed(inputs_BT).to(self.dtype))
        x_BTD = embedded
        kept: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index >= self.skips and kept:
                gain = self.skip_gain[index - self.skips].to(self.dtype)
                x_BTD = x_BTD + gain * kept.pop()
            x_BTD = block(x_BTD, embedded, self.cos, self.sin)
            if index < self.skips:
                kept.append(x_BTD)
        weight = (self.embed if self.head is None else self.head).weight
        logits = functional.linear(rms_norm(x_BTD), weight.to(self.dtype))
        logits = self.softcap * torch.tanh(logits / self.softcap)
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten())
