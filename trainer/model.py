"""The GPT: blocks around a residual stream, U-Net skips, loops over blocks, two lanes.

Shapes: B sequences, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.eager import SoftcapLoss, is_eager
from trainer.layers import MLP, Attention, Linear, adapted, rms_norm, rotary_tables

if TYPE_CHECKING:
    from trainer.config import Config

BOS = 1
"""Token that starts a document in the contest's data and in ours."""


class Block(nn.Module):
    """Attention and MLP, each with a scale for every channel, after a mix with the embedding."""

    def __init__(self, config: Config, index: int) -> None:
        super().__init__()
        width = config.model_dim
        self.norm_scale = (index + 1) ** -0.5 if config.ln_scale else 1.0
        self.attn = Attention(config, index)
        self.mlp = MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(width))
        self.mlp_scale = nn.Parameter(torch.ones(width))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(width), torch.zeros(width))))
        if 0 < config.parallel_start_layer <= index:
            # Rows: what is kept of each lane, what attention and what the MLP add to it.
            self.lane_scale = nn.Parameter(torch.tensor([[1.1, 1.1], [1.0, 1.0], [1.0, 1.0]]))

    def attended(
        self, x_BTD: Tensor, embedded_BTD: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The stream mixed with the embedding, and what attention adds to it."""
        keep, again = self.resid_mix.to(x_BTD.dtype)
        x_BTD = torch.addcmul(keep * x_BTD, again, embedded_BTD)
        return x_BTD, self.attn(self.normed(x_BTD), cos, sin, self.attn_scale)

    def fed(self, x_BTD: Tensor) -> Tensor:
        """What the MLP adds."""
        return self.mlp(self.normed(x_BTD), self.mlp_scale)

    def normed(self, x_BTD: Tensor) -> Tensor:
        """Unit rows, smaller in later blocks with LN_SCALE."""
        return rms_norm(x_BTD) if self.norm_scale == 1.0 else rms_norm(x_BTD) * self.norm_scale

    def forward(self, x_BTD: Tensor, embedded_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The residual stream after this block."""
        x_BTD, added = self.attended(x_BTD, embedded_BTD, cos, sin)
        x_BTD = x_BTD + added
        return x_BTD + self.fed(x_BTD)

    def lanes(
        self, x_BTD: Tensor, other_BTD: Tensor, embedded_BTD: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Two residual streams after this block: attention reads the first, the MLP the second."""
        _, added = self.attended(x_BTD, embedded_BTD, cos, sin)
        fed = self.fed(other_BTD)
        keep, attn, mlp = self.lane_scale.to(x_BTD.dtype)
        first = keep[0] * x_BTD + attn[0] * added + mlp[0] * fed
        return first, keep[1] * other_BTD + attn[1] * added + mlp[1] * fed


def block_order(config: Config) -> list[int]:
    """Blocks in the order of a pass: 0-2, 3-5, 3-5, 3-5, 6-10 with two loops over 3 to 5."""
    if not config.num_loops:
        return list(range(config.num_layers))
    start, end = config.loop_start, config.loop_end + 1
    repeated = list(range(start, end)) * (config.num_loops + 1)
    return [*range(start), *repeated, *range(end, config.num_layers)]


class GPT(nn.Module):
    """The language model; its output is the mean cross-entropy in nats.

    The first half of a pass hands each block's output over to the second half, last to first.

    Attributes:
        looping: Whether a pass goes over the blocks in `block_order`, else each once.
    """

    lora: tuple[Tensor, Tensor] | None = None
    lora_scale = 1.0

    def __init__(self, config: Config, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.softcap = config.logit_softcap
        self.parallel_from = config.parallel_start_layer or config.num_layers
        self.orders = list(range(config.num_layers)), block_order(config)
        self.looping = False
        width, skips = config.model_dim, len(self.orders[1]) // 2
        self.embed = nn.Embedding(config.vocab_size, width)
        if config.tie_embeddings:
            nn.init.normal_(self.embed.weight, std=config.tied_embed_init_std)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.num_layers))
        self.skip_scale = nn.Parameter(torch.ones(skips, width))
        if config.skip_gates_enabled:
            self.skip_gate = nn.Parameter(torch.zeros(skips, width))
        if config.smear_gate_enabled:
            self.smear_gate = nn.Parameter(torch.zeros(config.gate_window))
            self.smear_scale = nn.Parameter(torch.zeros(1))
        self.head = None if config.tie_embeddings else Linear(width, config.vocab_size, zero=True)
        rotated = config.rope_dims or config.head_dim
        cos, sin = rotary_tables(config.train_seq_len, rotated, config.rope_base)
        self.register_buffer("cos", cos.to(dtype), persistent=False)
        self.register_buffer("sin", sin.to(dtype), persistent=False)

    def skipped(self, x_BTD: Tensor, kept_BTD: Tensor, index: int) -> Tensor:
        """The stream with what an earlier block handed over, added or, with gates, blended in."""
        kept_BTD = self.skip_scale[index].to(self.dtype) * kept_BTD
        if hasattr(self, "skip_gate"):
            return torch.lerp(kept_BTD, x_BTD, self.skip_gate[index].to(self.dtype).sigmoid())
        return x_BTD + kept_BTD

    def smeared(self, x_BTD: Tensor, inputs_BT: Tensor) -> Tensor:
        """Each embedding with a share of the one before it, but for a document's first token."""
        weight = self.smear_gate.to(self.dtype)
        share_BT1 = (x_BTD[:, 1:, : len(weight)] @ weight).sigmoid().unsqueeze(-1)
        inside_BT1 = (inputs_BT[:, 1:] != BOS).unsqueeze(-1)
        before = self.smear_scale.to(self.dtype) * share_BT1 * inside_BT1 * x_BTD[:, :-1]
        return torch.cat((x_BTD[:, :1], x_BTD[:, 1:] + before), dim=1)

    def hidden(self, inputs_BT: Tensor) -> Tensor:
        """What the output layer reads, [B, T, D]."""
        x_BTD = self.embed(inputs_BT).to(self.dtype)
        if hasattr(self, "smear_gate"):
            x_BTD = self.smeared(x_BTD, inputs_BT)
        x_BTD = embedded = rms_norm(x_BTD)
        cos, sin = (table[: inputs_BT.size(1)] for table in (self.cos, self.sin))
        order = self.orders[self.looping]
        half = len(order) // 2
        kept: list[Tensor] = []
        other: Tensor | None = None
        for place, index in enumerate(order):
            block = self.blocks[index]
            if place >= half and kept:
                x_BTD = self.skipped(x_BTD, kept.pop(), place - half)
            if place >= half and index >= self.parallel_from:
                other = x_BTD if other is None else other
                x_BTD, other = block.lanes(x_BTD, other, embedded, cos, sin)
            else:
                x_BTD = block(x_BTD, embedded, cos, sin)
            if place < half:
                kept.append(x_BTD)
        return rms_norm(x_BTD if other is None else (x_BTD + other) / 2)

    def logits(self, inputs_BT: Tensor) -> Tensor:
        """Of each next token, [B, T, V]."""
        x_BTD = self.hidden(inputs_BT)
        if self.head is None:
            logits = functional.linear(x_BTD, self.embed.weight.to(self.dtype))
            logits = adapted(logits, x_BTD, self)
        else:
            logits = self.head(x_BTD)
        return self.softcap * torch.tanh(logits / self.softcap)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean over the targets that are not -100."""
        head = self.head or self.embed
        if self.dtype == torch.float32 and is_eager(head.weight):
            x_ND = self.hidden(inputs_BT).flatten(0, 1)
            return SoftcapLoss.apply(x_ND, head.weight, targets_BT.flatten(), self.softcap)
        logits = self.logits(inputs_BT).flatten(0, 1)
        return functional.cross_entropy(logits.float(), targets_BT.flatten())
