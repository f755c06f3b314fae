"""The layers: matrices, rotary positions, grouped-query attention, squared-relu MLP.

Shapes: B sequences, T positions, D model width, H query heads, K key and value heads, G = H / K
query heads of one key head, E width of a head, R rotated part of it. Weights are float32 and cast
to the arithmetic's type where used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.eager import ReluSquare, RmsNorm, Rotation, is_eager

if TYPE_CHECKING:
    from trainer.config import Config


def adapted(y: Tensor, x_BTC: Tensor, module: Any) -> Tensor:
    """What a matrix makes of `x`, with what its adapters add where `trainer.adapt` attached any."""
    if module.lora is None:
        return y
    down_BCL, up_BLR = (factor.to(x_BTC.dtype) for factor in module.lora)
    return y + module.lora_scale * (x_BTC @ down_BCL @ up_BLR)


class Linear(nn.Linear):
    """A matrix without bias that works in the type of its input."""

    lora: tuple[Tensor, Tensor] | None = None
    lora_scale = 1.0

    def __init__(
        self, columns: int, rows: int, *, zero: bool = False, orthogonal: bool = False
    ) -> None:
        super().__init__(columns, rows, bias=False)
        if zero:  # a branch that starts as nothing leaves the residual stream alone
            nn.init.zeros_(self.weight)
        elif orthogonal:
            nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor, scale_R: Tensor | None = None) -> Tensor:
        """Last dimension from columns to rows; each row times its scale."""
        if scale_R is not None and self.lora is None and is_eager(x):  # fewer numbers to scale
            return functional.linear(x, scale_R[:, None] * self.weight)
        y = adapted(functional.linear(x, self.weight.to(x.dtype)), x, self)
        return y if scale_R is None else scale_R.to(x.dtype) * y


def rms_norm(x: Tensor) -> Tensor:
    """Rows of unit root mean square."""
    if is_eager(x):
        return RmsNorm.apply(x)
    return functional.rms_norm(x, (x.size(-1),))


def rotary_tables(seq_len: int, rotated: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each position's angles, [T, R / 2]. Source: arXiv 2104.09864."""
    frequencies = base ** (-torch.arange(0, rotated, 2, dtype=torch.float32) / rotated)
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x_BHTE: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of a head's first R dimensions by its angle."""
    if is_eager(x_BHTE):
        return Rotation.apply(x_BHTE, cos_TR, sin_TR)
    half = cos_TR.size(-1)
    first, second, rest = x_BHTE.split((half, half, x_BHTE.size(-1) - 2 * half), dim=-1)
    turned = (first * cos_TR + second * sin_TR, second * cos_TR - first * sin_TR)
    return torch.cat((*turned, rest) if rest.size(-1) else turned, dim=-1)


def without_own_value(y_BHTE: Tensor, v_BKTE: Tensor) -> Tensor:
    """What attention gathered, less its part along the own position's value (XSA).

    y - (y . n) n, n the unit vector of the value that the head shares. Source: PR #265.
    """
    n_BK1TE = functional.normalize(v_BKTE, dim=-1).unsqueeze(2)
    y_BKGTE = y_BHTE.unflatten(1, (v_BKTE.size(1), -1))
    along = (y_BKGTE * n_BK1TE).sum(dim=-1, keepdim=True)
    return (y_BKGTE - along * n_BK1TE).flatten(1, 2)


class Attention(nn.Module):
    """Causal attention with normalised queries and keys and a learnt scale on the queries."""

    def __init__(self, config: Config, index: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.exclusive = index >= config.num_layers - config.xsa_last_n
        width, kv_width = config.model_dim, config.num_kv_heads * config.head_dim
        self.q = Linear(width, width, orthogonal=config.ortho_init)
        self.k = Linear(width, kv_width, orthogonal=config.ortho_init)
        self.v = Linear(width, kv_width, orthogonal=config.ortho_init)
        self.out = Linear(width, width, zero=True)
        self.q_scale = nn.Parameter(torch.full((config.num_heads,), config.qk_gain_init))
        if config.attn_gate_enabled:
            self.gate = nn.Parameter(torch.zeros(config.num_heads, config.gate_window))

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, out_scale: Tensor) -> Tensor:
        """What each position gathers from itself and those before it, times a scale a channel."""
        batch, length, width = x_BTD.shape
        q_BHTE = rms_norm(self.q(x_BTD).view(batch, length, self.heads, -1)).transpose(1, 2)
        k_BKTE = rms_norm(self.k(x_BTD).view(batch, length, self.kv_heads, -1)).transpose(1, 2)
        v_BKTE = self.v(x_BTD).view(batch, length, self.kv_heads, -1).transpose(1, 2)
        scale = self.q_scale.to(x_BTD.dtype)[:, None, None]
        q_BHTE = rotate(q_BHTE, cos, sin) * scale
        k_BKTE = rotate(k_BKTE, cos, sin)
        y_BHTE = functional.scaled_dot_product_attention(
            q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=self.kv_heads != self.heads
        )
        if self.exclusive:
            y_BHTE = without_own_value(y_BHTE, v_BKTE)
        if hasattr(self, "gate"):  # a head is let through by the first channels. Source: PR #1787
            weight = self.gate.to(x_BTD.dtype)
            open_BTH = functional.linear(x_BTD[..., : weight.size(1)], weight / 2).sigmoid()
            y_BHTE = y_BHTE * open_BTH.transpose(1, 2).unsqueeze(-1)
        return self.out(y_BHTE.transpose(1, 2).reshape(batch, length, width), out_scale)


class MLP(nn.Module):
    """Two matrices around a squared relu, leaky or not. Source: arXiv 2109.08668, PR #549."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.slope = config.mlp_slope
        self.up = Linear(config.model_dim, config.hidden_dim, orthogonal=config.ortho_init)
        self.down = Linear(config.hidden_dim, config.model_dim, zero=True)

    def forward(self, x_BTD: Tensor, out_scale: Tensor) -> Tensor:
        """Each position by itself, times a scale a channel."""
        hidden = self.up(x_BTD)
        if not self.slope and is_eager(hidden):
            return self.down(ReluSquare.apply(hidden), out_scale)
        active = functional.leaky_relu(hidden, self.slope) if self.slope else hidden.relu()
        return self.down(active.square(), out_scale)
